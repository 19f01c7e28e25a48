//! Every operation at which a writer can die, at every size of the tree at which something happens.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::archive::record::Kind;
use crate::archive::sim::Memory;
use crate::archive::tests::{append, audit, open, raw};

/// Sizes of the tree before the append that is killed; the append adds two records.
const SIZES: [u64; 7] = [0, 1, 254, 255, 256, 257, 511];

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A log of `size` records behind which the spool is archived up to the returned number.
async fn grown(size: u64, store: &Arc<Memory>, dir: &Path) -> u64 {
    let mut through = 0;
    if size == 0 {
        return through;
    }
    let mut writer = open(store, dir).await.unwrap();
    while writer.size() < size {
        through += if through % 5 == 3 { 2 } else { 1 };
        append(&mut writer, through..=through).await.unwrap();
    }
    through
}

/// Dies after `operations`, then opens again and reads the spool again from where it was acked.
async fn dies(
    operations: u64,
    (base, base_dir, acked): (&Memory, &Path, u64),
    is_kept: bool,
) -> bool {
    let (store, dir) = (Arc::new(base.copy()), tempfile::tempdir().unwrap());
    copy_dir(base_dir, dir.path());
    let batch = acked + 1..=acked + 5;
    store.fuse.set(Some(operations));
    let outcome = async {
        let mut writer = open(&store, dir.path()).await?;
        append(&mut writer, batch.clone()).await?;
        writer.publish(0).await
    };
    let is_done = outcome.await.is_ok();
    assert!(is_done || store.fuse.is_burnt());
    store.fuse.set(None);
    let lost = tempfile::tempdir().unwrap();
    let dir = if is_kept { dir.path() } else { lost.path() };
    let mut writer = open(&store, dir).await.unwrap();
    let size = writer.size();
    // A spool that reads again may cut its batches in another way.
    append(&mut writer, *batch.start()..=*batch.end() + 2).await.unwrap();
    append(&mut writer, *batch.end() + 3..=*batch.end() + 4).await.unwrap();
    writer.publish(1).await.unwrap();
    assert!(writer.size() > size);
    assert_eq!(store.contested(), Vec::<String>::new());
    let (lines, kinds) = audit(&store);
    if is_kept {
        let mut once = lines.clone();
        once.dedup();
        assert_eq!(lines, once);
        assert!(!kinds.contains(&Kind::Gap));
        assert!((*batch.start()..=*batch.end() + 4).all(|seq| lines.contains(&raw(seq))));
    } else {
        assert!(size == 1 || kinds.contains(&Kind::Gap), "{size} {kinds:?}");
    }
    is_done
}

#[tokio::test]
async fn a_writer_that_is_killed_anywhere_goes_on_without_a_fork() {
    for size in SIZES {
        let (base, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
        let acked = grown(size, &base, dir.path()).await;
        for is_kept in [true, false] {
            let mut operations = 0;
            while !dies(operations, (&base, dir.path(), acked), is_kept).await {
                // An operation burns twice, before and after it; to die after one, unheard, and to
                // die before the next leave the same.
                operations += 2;
            }
            assert!(operations > 10, "{operations}");
        }
    }
}
