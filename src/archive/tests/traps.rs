//! What makes writers fork, and is refused.

use std::sync::Arc;

use bytes::Bytes;

use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::record::Kind;
use crate::archive::sim::Memory;
use crate::archive::tests::{NOW_US, append, audit, open, signer};
use crate::archive::writer::{Error, Options, Writer};

/// A log of `size` records whose writer has ended, published.
async fn left(size: u64) -> (Arc<Memory>, tempfile::TempDir) {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    for seq in (1..).filter(|seq| seq % 5 != 4).take(size as usize - 1) {
        append(&mut writer, seq..=seq).await.unwrap();
    }
    writer.publish(0).await.unwrap();
    (store, dir)
}

#[tokio::test]
async fn of_two_writers_with_one_key_the_second_is_refused() {
    let (store, dir) = left(3).await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("floor"), copy.path().join("floor")).unwrap();
    let mut first = open(&store, dir.path()).await.unwrap();
    let mut second = open(&store, copy.path()).await.unwrap();
    append(&mut first, 11..=11).await.unwrap();
    assert!(matches!(append(&mut second, 12..=12).await, Err(Error::Fork(_))));
    assert!(matches!(append(&mut second, 12..=12).await, Err(Error::Fork(_))));
    drop(second);
    assert!(matches!(open(&store, copy.path()).await, Err(Error::Fork(_))));
    append(&mut first, 13..=13).await.unwrap();
    audit(&store);
    assert!(matches!(open(&store, dir.path()).await, Err(Error::State(_))), "it is locked");
}

#[tokio::test]
async fn a_store_behind_the_writer_is_refused() {
    let (store, dir) = left(6).await;
    for seq in 3..6 {
        store.rewrite(&commit_key(seq), None);
    }
    let rolled_back = open(&store, dir.path()).await;
    assert!(matches!(rolled_back, Err(Error::Rollback { found: 3, expected: 6 })));
    let without_disk = tempfile::tempdir().unwrap();
    let rolled_back = open(&store, without_disk.path()).await;
    assert!(matches!(rolled_back, Err(Error::Rollback { found: 3, expected: 6 })));
}

#[tokio::test]
async fn a_deletion_marker_does_not_make_a_second_record_of_one_number() {
    let (store, _dir) = left(6).await;
    store.overwrite(&commit_key(5), None);
    store.rewrite(CHECKPOINT, None);
    let without_disk = tempfile::tempdir().unwrap();
    let trapped = open(&store, without_disk.path()).await;
    assert!(matches!(trapped, Err(Error::Rollback { found: 5, expected: 6 })));
}

#[tokio::test]
async fn a_commit_that_this_writer_did_not_make_is_refused() {
    let (store, dir) = left(6).await;
    store.overwrite(&commit_key(6), Some(Bytes::from_static(b"not a proof")));
    assert!(matches!(open(&store, dir.path()).await, Err(Error::Fork(_))));
    let without_disk = tempfile::tempdir().unwrap();
    assert!(matches!(open(&store, without_disk.path()).await, Err(Error::Log(_))));
}

#[tokio::test]
async fn a_spool_that_was_made_anew_counts_anew() {
    let (store, dir) = left(6).await;
    let mut writer = open(&store, dir.path()).await.unwrap();
    let before = writer.through();
    append(&mut writer, before..=before + 1).await.unwrap();
    assert_eq!(writer.through(), before + 1, "the same spool, read again");
    append(&mut writer, 1..=3).await.unwrap();
    assert_eq!(writer.through(), 3);
    let (lines, kinds) = audit(&store);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Gap).count(), 1);
    assert_eq!(lines.iter().filter(|line| **line == crate::archive::tests::raw(1)).count(), 2);
}

#[tokio::test]
async fn a_state_directory_of_another_log_is_refused() {
    let (store, dir) = left(2).await;
    let other = crate::archive::note::Signer::new("other", &[8; 32]).unwrap();
    let opened = Writer::open(store, other, dir.path(), Options::default(), NOW_US).await;
    assert!(matches!(opened, Err(Error::OtherLog(key)) if key == signer().verifier().to_string()));
}

#[tokio::test]
async fn a_store_that_creates_what_exists_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::default());
    store.is_unconditional.store(true, std::sync::atomic::Ordering::Relaxed);
    for _ in 0..2 {
        let opened = open(&store, dir.path()).await;
        assert!(matches!(opened, Err(Error::Unconditional(key)) if key == commit_key(0)));
    }
}
