//! Damage by exhaustion: every length, every bit, every file; what is left is read, and reported.

use std::path::{Path, PathBuf};

use crate::spool::cursor::Start;
use crate::spool::disk::sim::Sim;
use crate::spool::inspect::look;
use crate::spool::tests::{DIR, Rig, pairs, segment_paths, small};
use crate::spool::{Damage, Error, Options, Reason, disk::Disk};

fn wide() -> Options {
    Options { segment_bytes_max: 4_000, ..small() }
}

/// A disk with one segment of five batches, the third of two records; every one synced alone.
fn five() -> (Sim, PathBuf, Vec<(u64, String)>) {
    let sim = Sim::default();
    let mut rig = Rig::open(&sim, &wide()).unwrap();
    for batch in [&["one"][..], &["two"], &["three", "four"], &[""], &["six"]] {
        rig.append(batch).unwrap();
    }
    let all = rig.all();
    drop(rig);
    let path = segment_paths(&sim).pop().unwrap();
    (sim, path, all)
}

/// Ends of the batches of `five`, and how many records lie before each.
fn batch_ends() -> Vec<(usize, usize)> {
    let payloads = [(3, 1), (3, 1), (5 + 4 + 32, 2), (0, 1), (3, 1)];
    let mut end = (64, 0);
    let mut ends = vec![end];
    for (bytes, records) in payloads {
        end = (end.0 + 32 + bytes, end.1 + records);
        ends.push(end);
    }
    ends
}

#[test]
fn cut_at_every_byte_the_whole_batches_before_it_are_kept() {
    let (sim, path, all) = five();
    let bytes = sim.content(&path);
    for len in 0..=bytes.len() {
        let cut = sim.fork();
        cut.tamper(&path, bytes[..len].to_vec());
        let mut rig = Rig::open(&cut, &wide()).unwrap();
        let whole = batch_ends().into_iter().rfind(|(end, _)| *end <= len);
        let (end, records) = whole.unwrap_or((len, 0));
        assert_eq!(rig.all(), all[..records], "cut at {len}");
        assert_eq!(rig.recovery.damages, [], "cut at {len}");
        assert_eq!(rig.recovery.torn.is_some(), end < len, "cut at {len}");
        assert_eq!(rig.recovery.torn_copy, None, "cut at {len}");
        assert_eq!(rig.append(&["next"]).unwrap().seq_first, records as u64 + 1);
    }
}

#[test]
fn zeros_from_every_byte_on_are_a_torn_tail() {
    let (sim, path, all) = five();
    let bytes = sim.content(&path);
    for from in 64..bytes.len() {
        let cut = sim.fork();
        let mut zeroed = bytes.clone();
        zeroed[from..].fill(0);
        zeroed.extend([0; 300]);
        cut.tamper(&path, zeroed);
        let rig = Rig::open(&cut, &wide()).unwrap();
        let whole = batch_ends().into_iter().rfind(|(end, _)| *end <= from).unwrap();
        assert!(rig.all().starts_with(&all[..whole.1]), "zeros from {from}");
        assert_eq!(rig.recovery.damages, [], "zeros from {from}");
        assert!(rig.recovery.torn.is_some());
    }
}

/// Which record a byte of the file belongs to.
fn record_at(offset: usize) -> usize {
    let mut start = 64;
    [3, 3, 5, 4, 0, 3]
        .iter()
        .position(|payload| {
            start += 32 + payload;
            offset < start
        })
        .unwrap()
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_costs_one_record_and_is_reported() {
    let (sim, path, all) = five();
    // Another opening seals the segment; a batch in the next one makes it the last no more.
    Rig::open(&sim, &wide()).unwrap().append(&["later"]).unwrap();
    let bytes = sim.content(&path);
    for bit in 0..bytes.len() * 8 {
        let flipped = sim.fork();
        let mut content = bytes.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        flipped.tamper(&path, content);
        let rig = Rig::open(&flipped, &wide()).unwrap();
        assert_eq!(rig.recovery.damages, [], "bit {bit}: opening reads no sealed segment");
        let records = rig.read(1);
        let mut expected = all.clone();
        expected.push((7, "later".to_owned()));
        if bit / 8 < 64 {
            assert_eq!(records.damages, [], "bit {bit}: the header has two copies");
        } else {
            expected.remove(record_at(bit / 8));
            let [damage] = &records.damages[..] else {
                panic!("bit {bit}: {:?}", records.damages);
            };
            let range = damage.offset..damage.offset + damage.bytes;
            assert!(range.contains(&(bit as u64 / 8)), "bit {bit}: {damage:?}");
            assert_eq!(records.missing, 1, "bit {bit}");
            let seen = look(&Disk::Sim(flipped.clone()), Path::new(DIR), true).unwrap();
            assert_eq!(&seen.damages, std::slice::from_ref(damage), "bit {bit}");
        }
        assert_eq!(pairs(&records), expected, "bit {bit}");
    }
}

#[test]
fn every_flipped_bit_before_the_last_sync_of_the_last_segment_is_corruption_not_a_tail() {
    let (sim, path, all) = five();
    let bytes = sim.content(&path);
    let last_batch = batch_ends()[4].0;
    for bit in 64 * 8..last_batch * 8 {
        let flipped = sim.fork();
        let mut content = bytes.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        flipped.tamper(&path, content);
        let rig = Rig::open(&flipped, &wide()).unwrap();
        assert_eq!(rig.recovery.damages.len(), 1, "bit {bit}");
        assert_eq!(rig.recovery.torn, None, "bit {bit}");
        let mut expected = all.clone();
        expected.remove(record_at(bit / 8));
        assert_eq!(rig.all(), expected, "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_write_is_cut_but_a_copy_is_kept() {
    let (sim, path, all) = five();
    let mut content = sim.content(&path);
    let end = content.len();
    content[end - 1] ^= 1;
    sim.tamper(&path, content.clone());
    let rig = Rig::open(&sim, &wide()).unwrap();
    assert_eq!(rig.all(), all[..5]);
    let torn = rig.recovery.torn.clone().unwrap();
    assert_eq!((torn.offset, torn.bytes, torn.reason), (end as u64 - 35, 35, Reason::Payload));
    let copy = rig.recovery.torn_copy.clone().unwrap();
    assert_eq!(sim.content(&copy), content[end - 35..]);

    let (sim, path, _) = five();
    sim.tamper(&path, content);
    let none = Options { quarantine_bytes_max: 10, ..wide() };
    let rig = Rig::open(&sim, &none).unwrap();
    assert_eq!((rig.recovery.torn_copy, rig.recovery.torn.is_some()), (None, true));
}

/// Three segments of one batch each, and an empty one.
fn three() -> (Sim, Vec<PathBuf>) {
    let sim = Sim::default();
    let mut rig = Rig::open(&sim, &small()).unwrap();
    rig.cursor("sink", Start::Oldest).unwrap();
    for name in ["a", "b", "c"] {
        rig.append(&[&name.repeat(300)]).unwrap();
    }
    let paths = segment_paths(&sim);
    assert_eq!(paths.len(), 3);
    (sim, paths)
}

#[test]
fn a_segment_without_a_header_is_moved_aside_and_the_rest_is_read() {
    for at in 0..3 {
        let (sim, paths) = three();
        let mut content = sim.content(&paths[at]);
        content[..64].fill(0xff);
        sim.tamper(&paths[at], content.clone());
        let mut rig = Rig::open(&sim, &small()).unwrap();
        let name = paths[at].file_name().unwrap().to_str().unwrap();
        let bytes = content.len() as u64;
        let damage = Damage { file: name.into(), offset: 0, bytes, reason: Reason::SegmentHeader };
        assert_eq!(rig.recovery.damages, [damage]);
        assert_eq!(sim.content(&Path::new(DIR).join("quarantine").join(name)), content);
        assert_eq!(rig.all().len(), 2);
        // Numbers that were given out are not given out again.
        assert!(rig.append(&["d"]).unwrap().seq_first > 3);
        assert_eq!(rig.read(1).iter().len(), 3);
    }
}

#[test]
fn a_segment_that_disappeared_is_a_gap() {
    let (sim, paths) = three();
    Disk::Sim(sim.clone()).remove(&paths[1]).unwrap();
    let rig = Rig::open(&sim, &small()).unwrap();
    let name = paths[1].file_name().unwrap().to_str().unwrap();
    let damage = Damage { file: name.into(), offset: 0, bytes: 0, reason: Reason::Gap };
    assert_eq!(rig.recovery.damages, [damage]);
    let records = rig.read(1);
    assert_eq!((records.len(), records.missing), (2, 1));
}

#[test]
fn a_segment_that_disappears_while_open_is_reported_and_passed() {
    let (sim, paths) = three();
    let rig = Rig::open(&sim, &small()).unwrap();
    Disk::Sim(sim.clone()).remove(&paths[1]).unwrap();
    let records = rig.read(1);
    assert_eq!((records.len(), records.missing), (2, 1));
    assert_eq!(records.damages[0].reason, Reason::Missing);
}

#[test]
fn a_sealed_segment_cut_short_is_reported_and_passed() {
    let (sim, paths) = three();
    let mut rig = Rig::open(&sim, &small()).unwrap();
    let content = sim.content(&paths[1]);
    sim.tamper(&paths[1], content[..200].to_vec());
    let records = rig.read(1);
    assert_eq!((records.len(), records.missing), (2, 1));
    assert_eq!(records.damages[0].reason, Reason::Short);
    rig.append(&["d"]).unwrap();
    assert_eq!(rig.read(1).len(), 3);
}

#[test]
fn a_file_of_a_later_release_stops_the_opening_and_stays_as_it_is() {
    let (sim, paths) = three();
    let mut content = sim.content(&paths[0]);
    for copy in [0, 32] {
        content[copy + 7] = 2;
        let crc = crc32c::crc32c_append(
            crc32c::crc32c(&content[copy..copy + 8]),
            &content[copy + 12..copy + 32],
        );
        content[copy + 8..copy + 12].copy_from_slice(&crc.to_le_bytes());
    }
    sim.tamper(&paths[0], content.clone());
    let error = Rig::open(&sim, &small()).err().unwrap();
    assert!(matches!(error, Error::Version { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(sim.content(&paths[0]), content);
}

#[test]
fn a_frame_planted_in_a_payload_is_never_taken_for_a_record() {
    let (sim, path, _) = five();
    // A payload that holds a whole segment, written by an author who knows the format.
    let planted = sim.content(&path);
    let other = Sim::default();
    let options = Options { batch_bytes_max: 2_000, ..wide() };
    let mut rig = Rig::open(&other, &options).unwrap();
    let mut batch = crate::spool::Batch::new();
    batch.push(1, b"before");
    batch.push(1, &planted);
    batch.push(1, b"behind");
    rig.writer.commit(&mut [batch]).remove(0).unwrap();
    drop(rig);
    Rig::open(&other, &options).unwrap().append(&["later"]).unwrap();
    let path = segment_paths(&other).remove(0);
    let mut content = other.content(&path);
    // The header of the hostile record is damaged, so that the scan searches its payload.
    content[64 + 38] ^= 1;
    other.tamper(&path, content);
    let rig = Rig::open(&other, &options).unwrap();
    let records = rig.read(1);
    let found: Vec<String> = pairs(&records).into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(found, ["before", "behind", "later"]);
    assert_eq!((records.missing, records.damages.len()), (1, 1));
}

#[test]
fn a_rotten_position_falls_back_to_the_one_before_and_then_to_the_oldest_record() {
    let sim = Sim::default();
    let mut rig = Rig::open(&sim, &small()).unwrap();
    let mut cursor = rig.cursor("sink", Start::Oldest).unwrap();
    for seq in 1..=4 {
        rig.append(&["x"]).unwrap();
        cursor.reader.read_blocking(&<_>::default()).unwrap().unwrap();
        cursor.note_ack(seq).unwrap();
        cursor.position.store().unwrap();
    }
    drop((cursor, rig));
    let slot = |side: &str| Path::new(DIR).join("cursors").join(format!("sink.{side}"));
    let acked = |sim: &Sim| {
        let rig = Rig::open(sim, &small()).unwrap();
        let damages: Vec<Reason> = rig.recovery.damages.iter().map(|each| each.reason).collect();
        (rig.cursor("sink", Start::Newest).unwrap().acked(), damages)
    };
    assert_eq!(acked(&sim.fork()), (4, vec![]));
    // Creating it was the first write, so that four acknowledgements leave the fifth in ".1".
    let rotten = sim.fork();
    rotten.tamper(&slot("1"), vec![0; 32]);
    assert_eq!(acked(&rotten), (3, vec![Reason::Slot]));
    rotten.tamper(&slot("0"), b"".to_vec());
    let (seq, damages) = acked(&rotten);
    assert_eq!((seq, damages), (0, vec![Reason::Slot, Reason::Slot]));
}

#[test]
fn no_garbage_in_any_file_makes_opening_panic() {
    let (sim, _) = three();
    let garbage = [vec![], vec![0; 7], vec![0xff; 31], vec![0x5a; 64], vec![1; 1_000]];
    for path in sim.paths() {
        for bytes in &garbage {
            let bad = sim.fork();
            bad.tamper(&path, bytes.clone());
            look(&Disk::Sim(bad.clone()), Path::new(DIR), true).unwrap();
            let mut rig = Rig::open(&bad, &small()).unwrap();
            rig.append(&["still works"]).unwrap();
            assert_eq!(rig.all().last().unwrap().1, "still works");
        }
    }
}
