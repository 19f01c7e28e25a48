//! The spool with its thread, on a real directory.

use std::sync::Arc;

use crate::spool::{
    Batch, DeadLetter, Error, Limits, Options, Snapshot, Spool, Start, dead_letters, inspect,
    verify,
};

fn batch(payloads: &[&str]) -> Batch {
    let mut batch = Batch::new();
    payloads.iter().for_each(|payload| batch.push(1, payload.as_bytes()));
    batch
}

#[tokio::test]
async fn a_reader_follows_the_tail_and_ends_when_the_spool_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, recovery) = Spool::open(dir.path(), Options::default()).unwrap();
    assert_eq!(recovery, <_>::default());
    let mut cursor = spool.cursor("sink", Start::Oldest).await.unwrap();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            match cursor.read(&Limits::default()).await {
                Ok(records) => {
                    seen.extend(records.iter().map(|record| record.seq));
                    cursor.ack(records.seq_last).await.unwrap();
                }
                Err(error) => return (seen, error, cursor.acked()),
            }
        }
    });
    for number in 0..50 {
        let appended = spool.append(batch(&["a", "b"])).await.unwrap();
        assert_eq!(appended.seq_first, number * 2 + 1);
    }
    spool.close().await.unwrap();
    let (seen, error, acked) = follower.await.unwrap();
    assert_eq!(seen, (1..=100).collect::<Vec<u64>>());
    assert!(matches!(error, Error::Closed));
    assert_eq!(acked, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_appenders_share_one_sync_and_every_answer_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { segment_bytes_max: 64 << 10, batch_bytes_max: 8 << 10, ..<_>::default() };
    let (spool, _) = Spool::open(dir.path(), options).unwrap();
    let spool = Arc::new(spool);
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let appender = spool.appender();
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for number in 0..40 {
                    let payload = format!("{task}.{number}");
                    let appended = appender.append(batch(&[&payload])).await.unwrap();
                    answers.push((appended.seq_first, payload));
                }
                answers
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    answers.sort();
    let mut reader = spool.reader(1);
    let mut seen = Vec::new();
    while let Some(records) = reader.try_read(&Limits::default()).await.unwrap() {
        let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
        seen.extend(records.iter().map(|record| (record.seq, text(record.payload))));
    }
    assert_eq!(seen, answers);
    let stats = spool.stats();
    assert_eq!((stats.records, stats.batches, stats.seq_durable), (640, 640, 640));
    assert!(stats.groups <= 640, "{stats:?}");
}

#[tokio::test]
async fn what_is_removed_while_in_use_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), Options::default()).unwrap();
    spool.append(batch(&["a"])).await.unwrap();
    std::fs::remove_dir_all(dir.path().join("segments")).unwrap();
    for _ in 0..2 {
        let refused = spool.append(batch(&["b"])).await.expect_err("nothing leads to it any more");
        assert!(!matches!(refused, Error::Closed), "{refused}");
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_and_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), Options::default()).unwrap();
    let error = Spool::open(dir.path(), Options::default()).err().unwrap();
    let pid = std::process::id().to_string();
    assert!(matches!(&error, Error::Locked { pid: found, .. } if *found == pid), "{error}");
    spool.close().await.unwrap();
    Spool::open(dir.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_reopening_and_shown_by_inspection() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), Options::default()).unwrap();
    let mut both = batch(&["event"]);
    both.push(2, b"alert");
    spool.append(both).await.unwrap();
    let mut cursor = spool.cursor("sink", Start::Oldest).await.unwrap();
    let records = cursor.read(&Limits { records_max: 1, ..<_>::default() }).await.unwrap();
    cursor.ack(records.seq_last).await.unwrap();
    drop(cursor);
    let snapshot = Snapshot { seq: 2, bytes: b"state".to_vec() };
    spool.write_snapshot("windows", snapshot.clone()).await.unwrap();
    let letter = DeadLetter { reason: "legacy_format".into(), bytes: vec![7], ..<_>::default() };
    spool.dead_letters().append(vec![letter.clone(); 3]).await.unwrap();
    assert_eq!(spool.dead_letters().remove(vec![2, 9]).await.unwrap(), 1);
    spool.close().await.unwrap();

    let seen = verify(dir.path()).unwrap();
    assert_eq!(seen, inspect(dir.path()).unwrap());
    assert_eq!(seen.segments[0].records_by_kind, [(1, 1), (2, 1)].into());
    assert_eq!((seen.segments[0].batches, seen.segments[0].seq_last), (1, Some(2)));
    assert_eq!((seen.cursors[0].seq, seen.cursors[0].lag.records), (1, 1));
    assert_eq!((seen.snapshots[0].seq, seen.dead_letters.0), (2, 2));
    assert_eq!((seen.damages, seen.torn, seen.missing), (vec![], None, 0));
    let letters = dead_letters(dir.path(), 1, 10).unwrap();
    assert_eq!((letters.len(), letters[0].id, &letters[0].letter), (1, 3, &letter));

    let (spool, recovery) = Spool::open(dir.path(), Options::default()).unwrap();
    assert_eq!((recovery.cursors.len(), recovery.cursors[0].1.records), (1, 1));
    assert_eq!(spool.read_snapshot("windows").await.unwrap(), Some(snapshot));
    assert_eq!(spool.remove_cursor("sink").await.unwrap().records, 1);
    spool.remove_snapshot("windows").await.unwrap();
    assert_eq!(spool.read_snapshot("windows").await.unwrap(), None);
    assert_eq!(spool.cursors(), []);
    assert_eq!(spool.dead_letters().size().0, 2);
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), Options::default()).unwrap();
    let mut cursor = spool.cursor("sink", Start::Oldest).await.unwrap();
    for number in 0..20 {
        spool.append(batch(&["x"])).await.unwrap();
        {
            let limits = Limits::default();
            let mut read = std::pin::pin!(cursor.read(&limits));
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx)));
            drop(polled.await);
        }
        cursor.rewind();
        let records = cursor.read(&Limits::default()).await.unwrap();
        assert_eq!(records.iter().next().map(|record| record.seq), Some(number + 1));
        cursor.ack(number + 1).await.unwrap();
    }
}

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("spool");
    let (spool, _) = Spool::open(&root, Options::default()).unwrap();
    spool.append(batch(&["x"])).await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    let segment = std::fs::read_dir(root.join("segments")).unwrap().next().unwrap().unwrap();
    assert_eq!(mode(&root) & 0o777, 0o700);
    assert_eq!(mode(&segment.path()) & 0o777, 0o600);
}

/// Waits, without blocking others, until the condition holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// Room for a few batches; many more may wait.
fn tight() -> Options {
    Options {
        bytes_max: 8_192,
        segment_bytes_max: 4_096,
        batch_bytes_max: 2_048,
        waiting_bytes_max: 1 << 20,
        ..Options::default()
    }
}

#[tokio::test]
async fn what_waits_for_room_is_appended_in_its_order_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), tight()).unwrap();
    let mut cursor = spool.cursor("sink", Start::Oldest).await.unwrap();
    let appender = spool.appender().waiting();
    let mut pending = Vec::new();
    // Small ones behind large ones: none may pass the one for which there was no room.
    for number in 0..12 {
        let text = format!("{number}{}", "-".repeat(if number % 2 == 0 { 1_500 } else { 10 }));
        pending.push(appender.submit(batch(&[&text])).await.unwrap());
    }
    until(|| appender.is_waiting_for_room()).await;
    let refused = spool.stats();
    assert_eq!(refused.refused, 0);
    let mut seen = Vec::new();
    while seen.len() < 12 {
        let records = cursor.read(&Limits::default()).await.unwrap();
        seen.extend(records.iter().map(|record| {
            let end = record.payload.iter().position(|byte| *byte == b'-').unwrap();
            String::from_utf8(record.payload[..end].to_vec()).unwrap().parse::<u32>().unwrap()
        }));
        cursor.ack(records.seq_last).await.unwrap();
        cursor.store().await.unwrap();
    }
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
    for one in pending {
        one.durable().await.unwrap();
    }
    until(|| !appender.is_waiting_for_room()).await;
}

#[tokio::test]
async fn closing_refuses_what_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), tight()).unwrap();
    let _cursor = spool.cursor("sink", Start::Oldest).await.unwrap();
    let appender = spool.appender().waiting();
    let text = "-".repeat(1_500);
    let mut pending = Vec::new();
    for _ in 0..8 {
        pending.push(appender.submit(batch(&[&text])).await.unwrap());
    }
    until(|| appender.is_waiting_for_room()).await;
    spool.close().await.unwrap();
    let mut full = 0;
    for one in pending {
        full += u32::from(one.durable().await.is_err_and(|error| error.is_full()));
    }
    assert!(full > 0);
}
