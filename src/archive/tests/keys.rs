//! A log whose key is changed, and one that ends.

use std::path::Path;
use std::sync::Arc;

use crate::archive::keys::follow;
use crate::archive::note::{Signer, Verifier};
use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tests::{NOW_US, append, open, signer};
use crate::archive::verify::{Class, Level, Options, verify};
use crate::archive::writer::{self, Error, Writer};

fn next(seed: u8) -> Signer {
    Signer::new(signer().name(), &[seed; 32]).unwrap()
}

async fn open_as(store: &Arc<Memory>, dir: &Path, signer: Signer) -> Result<Writer, Error> {
    let mut state = State::open(dir)?;
    state.fuse = Some(store.fuse.clone());
    let options = writer::Options { publish_us: i64::MAX, ..Default::default() };
    Writer::open_with(store.clone(), signer, state, options, NOW_US).await
}

async fn found(store: &Memory, key: Verifier, level: Level) -> Vec<Class> {
    let options = Options {
        key,
        level,
        known: Vec::new(),
        policy: None,
        now_us: NOW_US,
        age_us_max: None,
        parallel: 4,
    };
    let report = verify(Arc::new(store.copy_all()), &options, &|_| {}).await.unwrap();
    report.counts.into_keys().collect()
}

#[tokio::test]
async fn every_key_of_a_log_proves_all_of_it() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    append(&mut writer, 1..=9).await.unwrap();
    for (seed, seqs) in [(8, 10..=29), (9, 30..=30)] {
        writer.change_key(next(seed), NOW_US).await.unwrap();
        for seq in seqs {
            append(&mut writer, seq..=seq).await.unwrap();
        }
    }
    writer.publish(0).await.unwrap();
    let size = writer.size();
    assert!(writer.change_key(next(8), NOW_US).await.is_err());
    let stranger = Signer::new("other.example.com", &[1; 32]).unwrap();
    assert!(writer.change_key(stranger, NOW_US).await.is_err());
    assert_eq!(writer.size(), size);
    drop(writer);
    for level in [Level::Quick, Level::Records, Level::Full] {
        for key in [signer(), next(8), next(9)] {
            assert_eq!(found(&store, key.verifier(), level).await, [], "{key:?} {level:?}");
        }
    }
    let bad = found(&store, next(1).verifier(), Level::Full).await;
    assert!(bad.contains(&Class::BadSignature), "{bad:?}");
    // The key of a commit is one of the log's, but not the one that it had then.
    let old = follow(&*store, signer().verifier()).await.unwrap();
    assert_eq!(old, follow(&*store, next(9).verifier()).await.unwrap());
    assert_eq!(old.first(), signer().verifier());
    assert!(old.checkpoint(&next(9).sign_checkpoint(3, [0; 32])).is_err());
    assert!(old.checkpoint(&signer().sign_checkpoint(size, [0; 32])).is_err());
    // Who has the store alone goes on with the newest key only.
    for (signer, is_good) in [(signer(), false), (next(8), false), (next(9), true)] {
        let lost = tempfile::tempdir().unwrap();
        let opened = open_as(&Arc::new(store.copy()), lost.path(), signer).await;
        assert_eq!(opened.is_ok(), is_good, "{:?}", opened.err());
    }
    let kept = open_as(&store, dir.path(), signer()).await;
    assert!(matches!(kept, Err(Error::OtherLog(key)) if key == next(9).verifier().to_string()));
    let mut writer = open_as(&store, dir.path(), next(9)).await.unwrap();
    append(&mut writer, 31..=31).await.unwrap();
}

#[tokio::test]
async fn a_writer_that_is_killed_while_it_changes_its_key_has_one_of_the_two() {
    let (base, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&base, dir.path()).await.unwrap();
    append(&mut writer, 1..=9).await.unwrap();
    drop(writer);
    for operations in (0..).step_by(2) {
        let (store, state) = (Arc::new(base.copy()), tempfile::tempdir().unwrap());
        crate::archive::tests::crash::copy_dir(dir.path(), state.path());
        store.fuse.set(Some(operations));
        let outcome = async {
            let mut writer = open_as(&store, state.path(), signer()).await?;
            writer.change_key(next(8), NOW_US).await
        };
        let is_done = outcome.await.is_ok();
        store.fuse.set(None);
        let mut writer = match open_as(&store, state.path(), signer()).await {
            Ok(writer) => writer,
            Err(Error::OtherLog(key)) => {
                assert_eq!(key, next(8).verifier().to_string());
                open_as(&store, state.path(), next(8)).await.unwrap()
            }
            Err(error) => panic!("{operations}: {error}"),
        };
        append(&mut writer, 10..=12).await.unwrap();
        writer.publish(1).await.unwrap();
        assert_eq!(store.contested(), Vec::<String>::new());
        assert_eq!(found(&store, signer().verifier(), Level::Full).await, [], "{operations}");
        if is_done {
            assert!(operations > 5);
            break;
        }
    }
}

#[tokio::test]
async fn nothing_comes_behind_the_end_of_a_log() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    append(&mut writer, 1..=9).await.unwrap();
    let size = writer.close(&[("reason", "its key is known to others")], NOW_US).await.unwrap();
    let lost = tempfile::tempdir().unwrap();
    for dir in [dir.path(), lost.path()] {
        let opened = open(&store, dir).await;
        assert!(matches!(opened, Err(Error::Closed(seq)) if seq + 1 == size));
    }
    assert_eq!(found(&store, signer().verifier(), Level::Full).await, []);
}
