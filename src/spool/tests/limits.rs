//! Limits, retention, refusals and poison.

use crate::spool::cursor::{self, Cursor, Start};
use crate::spool::disk::sim::{Content, Fault, LOSSES, Names, Sim};
use crate::spool::reader::Limits;
use crate::spool::tests::{Rig, segment_paths, small};
use crate::spool::{Batch, Error, Options, guard, snapshot};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

fn rig(options: &Options) -> Rig {
    Rig::open(&Sim::default(), options).unwrap()
}

fn pass(cursor: &mut Cursor, records: usize) {
    let limits = Limits { records_max: records, ..Limits::default() };
    let seq = cursor.reader.read_blocking(&limits).unwrap().unwrap().seq_last;
    cursor.note_ack(seq).unwrap();
    cursor::store(&cursor.catalog, &cursor.position).unwrap();
}

#[test]
fn nothing_is_deleted_before_every_cursor_and_snapshot_has_passed_it() {
    let mut rig = rig(&small());
    for _ in 0..4 {
        rig.append(&[&"x".repeat(300)]).unwrap();
    }
    assert_eq!(segment_paths(&rig.sim).len(), 4, "without a cursor nothing is deleted");
    let mut fast = rig.cursor("fast", Start::Oldest).unwrap();
    let mut slow = rig.cursor("slow", Start::Oldest).unwrap();
    snapshot::write(&rig.opened.catalog, "windows", 1, b"state").unwrap();
    pass(&mut fast, 4);
    assert_eq!(segment_paths(&rig.sim).len(), 4, "slow is at the start");
    pass(&mut slow, 2);
    assert_eq!(segment_paths(&rig.sim).len(), 3, "the snapshot needs the second");
    snapshot::write(&rig.opened.catalog, "windows", 3, b"state").unwrap();
    assert_eq!(segment_paths(&rig.sim).len(), 3, "its older generation still needs the second");
    snapshot::write(&rig.opened.catalog, "windows", 4, b"state").unwrap();
    assert_eq!(segment_paths(&rig.sim).len(), 2, "slow needs the third");
    pass(&mut slow, 2);
    assert_eq!(segment_paths(&rig.sim).len(), 1, "the older generation needs what follows 3");
    assert_eq!(rig.opened.catalog.seq_oldest(), 4);
    let late = snapshot::write(&rig.opened.catalog, "late", 2, b"state");
    assert!(matches!(late, Err(Error::SeqBehind { seq: 2, oldest: 4 })), "{late:?}");
}

#[test]
fn passed_segments_are_kept_up_to_the_least_asked_for() {
    let mut rig = rig(&Options { passed_bytes_min: 800, ..small() });
    let mut cursor = rig.cursor("sink", Start::Oldest).unwrap();
    for _ in 0..6 {
        rig.append(&[&"x".repeat(300)]).unwrap();
    }
    pass(&mut cursor, 6);
    // Three of 396 bytes are passed and kept, since two would be less than 800; and the last one.
    assert_eq!(segment_paths(&rig.sim).len(), 4);
}

#[test]
fn a_full_spool_refuses_keeps_everything_and_goes_on_when_delivered() {
    let mut rig = rig(&Options { bytes_max: 1_000, passed_bytes_min: 900, ..small() });
    let mut cursor = rig.cursor("sink", Start::Oldest).unwrap();
    let big = "x".repeat(300);
    rig.append(&[&big]).unwrap();
    rig.append(&[&big]).unwrap();
    let error = rig.append(&[&big]).unwrap_err();
    assert!(matches!(error, Error::Full { limit: 1_000, .. }) && error.is_full(), "{error}");
    assert_eq!(rig.all().len(), 2);
    // A small batch still finds room.
    rig.append(&["small"]).unwrap();
    // Acknowledged, not stored: the writer stores it because it needs the room.
    let seq = cursor.reader.read_blocking(&Limits::default()).unwrap().unwrap().seq_last;
    cursor.note_ack(seq).unwrap();
    rig.append(&[&big]).unwrap();
    assert_eq!(rig.all().last().unwrap().0, 4);
    let reopened = Rig::open(&rig.sim.fork(), &small()).unwrap();
    assert_eq!(reopened.cursor("sink", Start::Oldest).unwrap().acked(), 3);
}

#[test]
fn a_removed_cursor_holds_nothing_any_more() {
    let mut rig = rig(&small());
    let gone = rig.cursor("gone", Start::Oldest).unwrap();
    let mut kept = rig.cursor("kept", Start::Oldest).unwrap();
    for _ in 0..3 {
        rig.append(&[&"x".repeat(300)]).unwrap();
    }
    pass(&mut kept, 3);
    assert_eq!((segment_paths(&rig.sim).len(), gone.lag().records), (3, 3));
    assert!(matches!(rig.cursor("gone", Start::Oldest).err(), Some(Error::CursorBusy { .. })));
    drop(gone);
    let position = guard(&rig.opened.catalog.cursors).remove("gone").unwrap();
    guard(&position.slot).remove().unwrap();
    rig.opened.catalog.retain(0).unwrap();
    assert_eq!(segment_paths(&rig.sim).len(), 1);
    let again = Rig::open(&rig.sim.fork(), &small()).unwrap();
    let cursors = guard(&again.opened.catalog.cursors);
    assert_eq!(cursors.keys().collect::<Vec<_>>(), ["kept"]);
}

#[test]
fn cursors_start_where_they_are_told_and_come_back_where_they_were() {
    let mut rig = rig(&small());
    rig.append(&["a", "b"]).unwrap();
    assert_eq!(rig.cursor("old", Start::Oldest).unwrap().acked(), 0);
    assert_eq!(rig.cursor("new", Start::Newest).unwrap().acked(), 2);
    rig.append(&["c"]).unwrap();
    let mut new = rig.cursor("new", Start::Oldest).unwrap();
    assert_eq!(new.lag().records, 1);
    let records = new.reader.read_blocking(&Limits::default()).unwrap().unwrap();
    assert_eq!((records.len(), records.seq_last), (1, 3));
    assert!(matches!(new.note_ack(4), Err(Error::SeqAhead { seq: 4, limit: 3 })));
    new.rewind();
    assert_eq!(new.reader.next_seq(), 3);
    for name in ["", "Upper", "dot.", "a/b", &"x".repeat(64)] {
        assert!(matches!(rig.cursor(name, Start::Oldest).err(), Some(Error::Name { .. })));
    }
}

#[test]
fn reads_keep_to_their_limits_and_kinds() {
    let mut rig = rig(&Options { segment_bytes_max: 5_000, ..small() });
    let mut batch = Batch::new();
    for (kind, payload) in [(1, "aaaa"), (2, "bbbb"), (1, "cccc"), (1, "dddd")] {
        batch.push(kind, payload.as_bytes());
    }
    rig.writer.commit(&mut [batch]).remove(0).unwrap();
    let read = |limits: Limits| {
        let mut reader = rig.reader(1);
        let mut reads = Vec::new();
        while let Some(records) = reader.read_blocking(&limits).unwrap() {
            let ends: Vec<bool> = records.iter().map(|record| record.ends_batch).collect();
            reads.push((records.len(), records.bytes(), records.seq_last, ends.contains(&true)));
        }
        reads
    };
    let all = Limits { records_max: 3, bytes_max: 100, kinds: None };
    assert_eq!(read(all.clone()), [(3, 12, 3, false), (1, 4, 4, true)]);
    let few = Limits { bytes_max: 8, ..all.clone() };
    assert_eq!(read(few), [(2, 8, 2, false), (2, 8, 4, true)]);
    let tiny = Limits { bytes_max: 1, ..all.clone() };
    assert_eq!(read(tiny).len(), 4);
    let kinds = Limits { kinds: Some(vec![2]), ..all };
    assert_eq!(read(kinds), [(1, 4, 4, false)]);
}

#[test]
fn no_room_on_the_disk_refuses_and_goes_on() {
    for fault in [Fault::Errno(ENOSPC), Fault::ErrnoClean(ENOSPC)] {
        let mut rig = rig(&small());
        rig.append(&["before"]).unwrap();
        rig.sim.fail_in(2, fault);
        let mut group: Vec<Batch> = ["one", "two", "three"]
            .iter()
            .map(|payload| {
                let mut batch = Batch::new();
                batch.push(1, payload.as_bytes());
                batch
            })
            .collect();
        let answers = rig.writer.commit(&mut group);
        let full = |answer: &Result<_, Error>| matches!(answer, Err(Error::DiskFull { .. }));
        assert!(full(&answers[0]) && full(&answers[1]), "{answers:?}");
        // The third found room again and took the numbers of the first.
        assert_eq!(answers[2].as_ref().unwrap().seq_first, 2);
        rig.append(&["after"]).unwrap();
        let payloads: Vec<String> = rig.all().into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, ["before", "three", "after"]);
        let left = rig.sim.after_power_loss(Content::Synced, Names::Synced);
        assert_eq!(Rig::open(&left, &small()).unwrap().all(), rig.all());
    }
}

#[test]
fn what_was_refused_for_want_of_room_does_not_come_back() {
    let mut rig = rig(&small());
    rig.append(&["before"]).unwrap();
    rig.sim.fail_in(2, Fault::Errno(ENOSPC));
    let mut one = Batch::new();
    one.push(1, b"refused");
    let answers = rig.writer.commit(&mut [one.clone(), one]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::DiskFull { .. }))));
    for (content, names) in LOSSES {
        let left = rig.sim.after_power_loss(content, names);
        assert_eq!(Rig::open(&left, &small()).unwrap().all(), rig.all(), "{content:?}");
    }
}

#[test]
fn no_room_for_a_new_segment_refuses_and_goes_on() {
    let mut rig = rig(&small());
    rig.append(&[&"x".repeat(300)]).unwrap();
    rig.sim.fail_in(2, Fault::Errno(ENOSPC));
    let error = rig.append(&[&"y".repeat(300)]).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    rig.append(&["small"]).unwrap();
    rig.append(&[&"y".repeat(300)]).unwrap();
    assert_eq!(rig.all().len(), 3);
}

#[test]
fn a_full_disk_takes_what_was_kept_beyond_its_delivery() {
    let mut rig = rig(&Options { passed_bytes_min: 1 << 20, ..small() });
    let mut cursor = rig.cursor("all", Start::Oldest).unwrap();
    for _ in 0..3 {
        rig.append(&[&"x".repeat(300)]).unwrap();
    }
    pass(&mut cursor, 3);
    assert_eq!(segment_paths(&rig.sim).len(), 3);
    rig.sim.fail_in(2, Fault::Errno(ENOSPC));
    assert!(rig.append(&[&"y".repeat(300)]).unwrap_err().is_full());
    assert_eq!(segment_paths(&rig.sim).len(), 1);
    rig.append(&[&"y".repeat(300)]).unwrap();
}

#[test]
fn a_spool_on_a_full_disk_opens_and_is_read() {
    let mut rig = rig(&small());
    rig.append(&[&"x".repeat(300)]).unwrap();
    rig.append(&[&"y".repeat(300)]).unwrap();
    let held = rig.all();
    let mut sealed = 0;
    for step in 1..100 {
        for fault in [Fault::Errno(ENOSPC), Fault::ErrnoClean(ENOSPC)] {
            let disk = rig.sim.fork();
            disk.fail_in(step, fault);
            let Ok(mut again) = Rig::open(&disk, &small()) else { continue };
            sealed += u32::from(segment_paths(&disk).len() == 2);
            assert_eq!(again.all(), held, "step {step}");
            // The fault may have been for this append; a failed sync is poison.
            if again.append(&["after"]).is_err() && again.append(&["after"]).is_err() {
                continue;
            }
            assert_eq!(again.all().len(), 3, "step {step}");
            assert_eq!(again.all()[2].0, 3);
            let left = disk.after_power_loss(Content::Synced, Names::Synced);
            let reopened = Rig::open(&left, &small()).unwrap();
            assert!(reopened.recovery.damages.is_empty(), "{:?}", reopened.recovery.damages);
            assert_eq!(reopened.all(), again.all(), "step {step}");
        }
    }
    assert!(sealed >= 2, "the segment that is begun at the start met no full disk");
}

#[test]
fn no_file_for_a_new_segment_refuses_and_goes_on() {
    // Of the segment's file and its directory, the first is denied, the second, or both and more.
    for (skipped, denied) in [(0, 1), (1, 1), (0, 4)] {
        for errno in [EMFILE, ENFILE] {
            let mut rig = rig(&small());
            rig.append(&[&"x".repeat(300)]).unwrap();
            let first = rig.sim.openings() + 1 + skipped;
            rig.sim.deny_openings(first..first + denied, errno);
            let error = rig.append(&[&"y".repeat(300)]).unwrap_err();
            assert!(error.is_full() && error.lacks_files(), "{error}");
            rig.append(&["small"]).unwrap();
            rig.sim.deny_openings(0..0, errno);
            rig.append(&[&"y".repeat(300)]).unwrap();
            assert_eq!(rig.all().len(), 3);
            let left = rig.sim.after_power_loss(Content::Synced, Names::Synced);
            assert_eq!(Rig::open(&left, &small()).unwrap().all(), rig.all());
        }
    }
}

#[test]
fn a_failed_write_or_sync_is_poison_until_reopened() {
    for (step, fault) in [(1, Fault::Errno(EIO)), (2, Fault::Errno(EIO)), (2, Fault::Errno(ENOSPC))]
    {
        let mut rig = rig(&small());
        rig.append(&["before"]).unwrap();
        rig.sim.fail_in(step, fault);
        let error = rig.append(&["lost"]).unwrap_err();
        assert!(!error.is_full(), "{error}");
        assert!(matches!(rig.append(&["x"]), Err(Error::Poisoned { .. })));
        assert_eq!(rig.all().len(), 1, "what was not synced is not shown");
        let mut again = Rig::open(&rig.sim.fork(), &small()).unwrap();
        again.append(&["after"]).unwrap();
    }
}

#[test]
fn batches_that_must_not_be_written_are_refused() {
    let mut rig = rig(&small());
    let error = rig.append(&[&"x".repeat(369)]).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { bytes: 401, limit: 400 }), "{error}");
    assert!(matches!(rig.append(&[]), Err(Error::BatchRecords { records: 0 })));
    rig.append(&[&"x".repeat(368)]).unwrap();
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let bad = [
        Options { bytes_max: 900, ..small() },
        Options { batch_bytes_max: 437, ..small() },
        Options { batch_bytes_max: 0, ..small() },
        Options { segment_bytes_max: 3 << 30, ..Options::default() },
        Options { waiting_bytes_max: 10, ..small() },
        Options { ack_records_max: 0, ..small() },
        Options { snapshot_bytes_max: 2 << 30, ..small() },
    ];
    for options in bad {
        assert!(matches!(options.check(), Err(Error::Options { .. })), "{options:?}");
    }
    small().check().unwrap();
    Options::default().check().unwrap();
}

#[test]
fn snapshots_are_read_back_and_bounded() {
    let mut rig = rig(&small());
    rig.append(&["a", "b"]).unwrap();
    let catalog = rig.opened.catalog.clone();
    assert_eq!(snapshot::read(&catalog, "state").unwrap(), None);
    snapshot::write(&catalog, "state", 1, b"one").unwrap();
    snapshot::write(&catalog, "state", 2, b"two").unwrap();
    let ahead = snapshot::write(&catalog, "state", 3, b"three");
    assert!(matches!(ahead, Err(Error::SeqAhead { seq: 3, limit: 2 })));
    let large = snapshot::write(&catalog, "state", 2, &[0; 1_001]);
    assert!(matches!(large, Err(Error::SnapshotTooLarge { .. })));
    let again = Rig::open(&rig.sim.fork(), &small()).unwrap();
    let found = snapshot::read(&again.opened.catalog, "state").unwrap().unwrap();
    assert_eq!((found.seq, &found.bytes[..]), (2, &b"two"[..]));
}
