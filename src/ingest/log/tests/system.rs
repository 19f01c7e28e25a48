//! The system's own disk: what the one in memory only imitates.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::ingest::batch::{Batch, NoticeKind, Receipt};
use crate::ingest::intake::{Outlet, intake};
use crate::ingest::log::config::Config;
use crate::ingest::log::disk::{Disk, System};
use crate::ingest::log::tests::bench::{line, token};
use crate::ingest::log::tests::lumberjack::gzip;
use crate::ingest::log::{LogSource, preflight};

#[test]
fn knows_holes_links_and_absence() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let mut file = File::create(&path).unwrap();
    file.seek(SeekFrom::Start(1 << 30)).unwrap();
    file.write_all(b"{}\n").unwrap();
    let opened = System.open(&path).unwrap();
    assert_eq!(opened.stat().unwrap().size, (1 << 30) + 3);
    let data = opened.next_data(0).unwrap().unwrap();
    assert!(data == 0 || data > 1 << 29, "a file system without holes, or the data");
    assert_eq!(opened.next_data(1 << 31).unwrap(), None);
    assert!(System.stat(&path).unwrap().is_same_file(&opened.stat().unwrap()));

    let link = directory.path().join("link.log");
    symlink("audit.log", &link).unwrap();
    let real = fs::canonicalize(&path).unwrap();
    assert_eq!(System.resolve(&link).unwrap(), real);
    fs::remove_file(&path).unwrap();
    assert_eq!(System.resolve(&link).unwrap(), real);
    assert_eq!(opened.stat().unwrap().links, 0);
    assert_eq!(System.names(directory.path()).unwrap(), ["link.log"]);
}

/// Takes batches until a line with this token came; says which came.
async fn take(outlet: &mut Outlet, last: &str) -> (Vec<String>, Vec<NoticeKind>) {
    let (mut tokens, mut notices) = (Vec::new(), Vec::new());
    while !tokens.iter().any(|token| token == last) {
        let Batch { chunk, notices: told, done, .. } = outlet.next().await.unwrap();
        let records = chunk.records().filter(|record| !record.bytes.is_empty());
        tokens.extend(records.map(|record| token(record.bytes)));
        notices.extend(told.iter().map(|notice| notice.kind));
        done.send(Ok(Receipt::default())).unwrap();
    }
    (tokens, notices)
}

fn append(path: &Path, tokens: &[&str]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    tokens.iter().for_each(|token| file.write_all(&line(token)).unwrap());
}

#[tokio::test]
async fn follows_a_log_until_it_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let backup = directory.path().join("audit-2026-03-03T14-28-05.286.log");
    append(&backup, &["a"]);
    append(&path, &["b"]);
    let config = Config::new(path.to_str().unwrap());
    preflight(&config).unwrap();
    let (intake, mut outlet) = intake(1 << 20);
    let cancellation = CancellationToken::new();
    let source = LogSource::new(config, Default::default(), intake, cancellation.clone()).unwrap();
    let running = tokio::spawn(source.run());

    assert_eq!(take(&mut outlet, "b").await.0, ["a", "b"]);
    append(&path, &["c"]);
    assert_eq!(take(&mut outlet, "c").await.0, ["c"]);
    let rotated = directory.path().join("audit-2026-03-03T14-28-06.000.log");
    fs::rename(&path, &rotated).unwrap();
    append(&rotated, &["d"]);
    append(&path, &["e"]);
    assert_eq!(take(&mut outlet, "e").await.0, ["d", "e"]);
    let packed = format!("{}.gz", rotated.display());
    fs::write(packed, gzip(&fs::read(&rotated).unwrap())).unwrap();
    fs::remove_file(&rotated).unwrap();
    append(&path, &["f"]);
    let (tokens, notices) = take(&mut outlet, "f").await;
    assert_eq!((tokens.as_slice(), notices.as_slice()), (&["f".to_owned()][..], &[][..]));

    cancellation.cancel();
    running.await.unwrap().unwrap();
}

#[test]
fn says_what_cannot_be_read() {
    let error = preflight(&Config::new("/nowhere/to/be/found/audit.log")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/to/be/found/audit.log"), "{error}");
}
