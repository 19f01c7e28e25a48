//! An archive as the first release wrote it, which every later one must read: the vectors of
//! docs/archive-format.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::directory::Directory;
use crate::archive::note::text_of_hash;
use crate::archive::proof::{Proof, verify_event};
use crate::archive::prove::{find_ingest, prove};
use crate::archive::state::{Floor, State};
use crate::archive::store::Store;
use crate::archive::tests::{NOW_US, append, items, signer};
use crate::archive::tree::empty_root;
use crate::archive::verify::{Level, Options, verify};
use crate::archive::writer::{self, Writer};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/archive-v1")
}

/// Writes the archive anew: only for a new version of the format.
async fn write(dir: &Path) {
    let own = tempfile::tempdir().unwrap();
    let state = State::open(own.path()).unwrap();
    let floor = Floor {
        v: 1,
        key: signer().verifier().to_string(),
        size: 0,
        root: empty_root(),
        spool: "00112233445566778899aabbccddeeff".into(),
        through: 0,
        last: Default::default(),
    };
    state.write_floor(&floor).unwrap();
    let store = Arc::new(Directory::new(dir));
    let options = writer::Options { retention_days: Some(365), ..Default::default() };
    let writer = Writer::open_with(store.clone(), signer(), state, options, NOW_US).await;
    let mut writer = writer.unwrap();
    append(&mut writer, 1..=3).await.unwrap();
    let odd =
        [(7, b"{\"a\":\r\n1,\"a\":2,\"b\":\"\xff\"}".to_vec()), (9, b"{\"n\":1.0e2}".to_vec())];
    writer.append(&items(&odd), 11, NOW_US + 1).await.unwrap();
    writer.mark("stop", NOW_US + 2).await.unwrap();
    writer.publish(NOW_US + 2).await.unwrap();
    let store: Arc<dyn Store> = store;
    let proven = prove(&store, &signer().verifier(), 2, 0).await.unwrap();
    std::fs::write(dir.with_extension("event"), proven.event).unwrap();
    std::fs::write(dir.with_extension("tlog-proof"), proven.proof.encode()).unwrap();
}

#[tokio::test]
async fn the_vectors_of_the_format_are_proven() {
    let dir = dir();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        write(&dir).await;
    }
    let store: Arc<dyn Store> = Arc::new(Directory::new(&dir));
    let key = signer().verifier();
    let options = Options {
        key: key.clone(),
        level: Level::Full,
        known: Vec::new(),
        now_us: NOW_US,
        policy: None,
        age_us_max: None,
        parallel: 2,
    };
    let report = verify(Arc::clone(&store), &options, &|_| {}).await.unwrap();
    assert_eq!(report.findings, []);
    let head = report.head.unwrap();
    let expected = include_str!("../../../tests/formats/archive-v1.head");
    assert_eq!(format!("{} {}\n", head.size, text_of_hash(&head.root)), expected);
    assert_eq!(find_ingest(&*store, &key, 9).await.unwrap().map(|(seq, _)| seq), Some(3));
    let event = std::fs::read(dir.with_extension("event")).unwrap();
    let proof = std::fs::read(dir.with_extension("tlog-proof")).unwrap();
    let proof = Proof::decode(&proof).unwrap();
    let (record, place, _) = verify_event(&proof, &event, &key).unwrap();
    assert_eq!((record.seq, place.event), (2, 0));
    assert_eq!(event, b"{\"a\":  1,\"a\":2,\"b\":\"\xff\"}");
}
