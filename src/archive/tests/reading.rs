//! Records out of bundles, lines out of frames: as good as single commits and whole objects, and
//! never better than what was signed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::TryStreamExt as _;

use crate::archive::layout::commit_key;
use crate::archive::proof::verify_event;
use crate::archive::prove::{find_ingest, prove, read_line};
use crate::archive::records::{newest_first, records};
use crate::archive::recover::read_commit;
use crate::archive::sim::Memory;
use crate::archive::store::Store;
use crate::archive::tests::{NOW_US, append, items, open, raw, signer};

const SIZE: u64 = 520;

async fn grown(size: u64) -> (Arc<Memory>, tempfile::TempDir) {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    let mut seq = 0;
    while writer.size() < size {
        append(&mut writer, seq + 1..=seq + 3).await.unwrap();
        seq += 3;
    }
    (store, dir)
}

#[tokio::test]
async fn bundles_yield_what_commits_do() {
    let (store, _dir) = grown(SIZE).await;
    let key = signer().verifier();
    let mut single = Vec::new();
    for seq in 0..SIZE {
        single.push(read_commit(&*store, seq, &key).await.unwrap().record);
    }
    for range in [0..SIZE, 0..256, 1..SIZE, 255..257, 256..512, 300..301, 7..7] {
        let found: Vec<_> = records(&*store, &key, range.clone()).try_collect().await.unwrap();
        assert_eq!(found, single[range.start as usize..range.end as usize], "{range:?}");
    }
    let mut backwards: Vec<_> = newest_first(&*store, &key, SIZE).try_collect().await.unwrap();
    backwards.reverse();
    assert_eq!(backwards, single);
    // A bundle that was changed is not believed: the commits are.
    let bundle = "tile/entries/000";
    let mut bytes = store.contents()[bundle].to_vec();
    bytes[500] ^= 1;
    store.rewrite(bundle, Some(bytes.into()));
    let found: Vec<_> = records(&*store, &key, 0..SIZE).try_collect().await.unwrap();
    assert_eq!(found, single);
    // A sound bundle makes single commits superfluous, all but the last.
    store.rewrite(&commit_key(300), None);
    let found: Vec<_> = records(&*store, &key, 256..512).try_collect().await.unwrap();
    assert_eq!(found, single[256..512]);
    store.rewrite(&commit_key(511), None);
    let missing = records(&*store, &key, 0..SIZE).try_collect::<Vec<_>>().await;
    assert!(missing.unwrap_err().to_string().contains("is missing"));
}

#[tokio::test]
async fn a_line_is_read_without_its_whole_object() {
    let (store, _dir) = grown(SIZE).await;
    let key = signer().verifier();
    for ingest in [1, 2, 9, 400] {
        let (seq, event) = find_ingest(&*store, &key, ingest).await.unwrap().unwrap();
        let segment = read_commit(&*store, seq, &key).await.unwrap().record.segment.unwrap();
        assert_eq!(read_line(&*store, &segment, event).await.unwrap(), Some(raw(ingest)));
        assert_eq!(read_line(&*store, &segment, segment.count).await.unwrap(), None);
    }
    assert_eq!(find_ingest(&*store, &key, 1_000_000).await.unwrap(), None);
}

#[tokio::test]
async fn a_start_asks_as_much_of_a_long_log_as_of_a_short_one() {
    let mut operations = Vec::new();
    for size in [20, 256 + 20, 3 * 256 + 20] {
        let (store, dir) = grown(size).await;
        let lost = tempfile::tempdir().unwrap();
        for dir in [dir.path(), lost.path()] {
            store.fuse.set(Some(1_000_000));
            drop(open(&store, dir).await.unwrap());
            // Each operation burns twice.
            operations.push((1_000_000 - store.fuse.left().unwrap()) / 2);
        }
    }
    let [short, short_lost, .., long, long_lost] = operations[..] else { unreachable!() };
    // Two questions for every doubling, and a tile a level.
    assert!(long <= short + 30 && long_lost <= short_lost + 60, "{operations:?}");
}

#[tokio::test]
async fn a_proof_reads_little_more_than_the_frames_of_256_lines() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    // Noise: nothing of it is compressed away.
    let mut state = 1u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let lines: Vec<(u64, Vec<u8>)> = (0..6_000u64)
        .map(|at| {
            let bytes = (0..150).flat_map(|_| noise().to_le_bytes());
            (5 * (at + 1), bytes.map(|byte| byte | 0x20).collect())
        })
        .collect();
    writer.append(&items(&lines), 30_000, NOW_US).await.unwrap();
    writer.publish(0).await.unwrap();
    let key = signer().verifier();
    let segment = read_commit(&*store, 1, &key).await.unwrap().record.segment.unwrap();
    assert_eq!((segment.count, segment.size > 5 << 20), (6_000, true), "{}", segment.size);
    let dynamic: Arc<dyn Store> = store.clone();
    for event in [0, 255, 256, 3_000, 5_999] {
        store.read.store(0, Ordering::Relaxed);
        let proven = prove(&dynamic, &key, 1, event).await.unwrap();
        assert_eq!(proven.event, lines[event as usize].1);
        verify_event(&proven.proof, &proven.event, &key).unwrap();
        let read = store.read.load(Ordering::Relaxed);
        assert!(read < 3 << 20, "{read} bytes of {}", segment.size);
    }
    assert!(prove(&dynamic, &key, 1, 6_000).await.is_err());
    // An index that misleads is passed over.
    let object = store.contents()[&segment.object].clone();
    let at = memchr::memmem::rfind(&object, b"kwx1").unwrap();
    for damaged in [0, 9, 60] {
        let mut bytes = object.to_vec();
        bytes[at + damaged] ^= 1;
        store.rewrite(&segment.object, Some(bytes.into()));
        let proven = prove(&dynamic, &key, 1, 3_000).await.unwrap();
        assert_eq!(proven.event, lines[3_000].1);
    }
}
