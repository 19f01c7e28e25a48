//! Looks at a spool without changing or locking it, also one that is in use.

use std::collections::BTreeMap;
use std::path::Path;

use crate::spool::dead_letter::{DeadLetters, StoredLetter};
use crate::spool::disk::Disk;
use crate::spool::reader::Record;
use crate::spool::recover::{Sealed, examine};
use crate::spool::retention::Lag;
use crate::spool::segment::{Opened, SEGMENT_HEADER_BYTES, Scan, SegmentHeader, Step};
use crate::spool::{Damage, Error, Options, Reason, cursor, segment, snapshot};

/// One segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// File name.
    pub file: String,
    /// First sequence number it holds or will hold.
    pub seq_first: u64,
    /// Last sequence number; `None` without records.
    pub seq_last: Option<u64>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records of each kind.
    pub records_by_kind: BTreeMap<u8, u64>,
}

/// One cursor or snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorState {
    /// Its name.
    pub name: String,
    /// Last sequence number acknowledged, or held by the snapshot, as stored on the disk.
    pub seq: u64,
    /// How far it is behind the last record.
    pub lag: Lag,
}

/// A spool as it is on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Segments in order.
    pub segments: Vec<SegmentState>,
    /// Cursors by name.
    pub cursors: Vec<CursorState>,
    /// Snapshots by name.
    pub snapshots: Vec<CursorState>,
    /// Number of dead letters, and bytes of their files.
    pub dead_letters: (u64, u64),
    /// Files in `quarantine/`, with their bytes.
    pub quarantine: Vec<(String, u64)>,
    /// Losses: bytes that had been durable and cannot be read.
    pub damages: Vec<Damage>,
    /// What the next opening will cut: a torn tail, or an append under way in a spool in use.
    pub torn: Option<Damage>,
    /// Sequence numbers that no segment holds, between the first and the last record.
    pub missing: u64,
}

/// Reads segment headers, frame headers and positions; payloads are not checked. Memory is bounded;
/// blocks.
///
/// # Errors
/// [`Error::Io`], [`Error::Version`]. Damage is no error.
pub fn inspect(dir: &Path) -> Result<Inspection, Error> {
    look(&Disk::Real, dir, false)
}

/// Like [`inspect`], and checks every byte of every payload.
///
/// # Errors
/// [`Error::Io`], [`Error::Version`]. Damage is no error.
pub fn verify(dir: &Path) -> Result<Inspection, Error> {
    look(&Disk::Real, dir, true)
}

/// Dead letters of a spool that may be in use: those behind `id`, at most `letters_max`.
///
/// # Errors
/// [`Error::Io`], [`Error::Version`].
pub fn dead_letters(dir: &Path, id: u64, letters_max: usize) -> Result<Vec<StoredLetter>, Error> {
    let store = DeadLetters::open(&Disk::Real, &dir.join("dead-letters"), &Options::default())?;
    store.read_blocking(id, letters_max)
}

/// Hands over every record behind `seq`, in order, of a spool that may be in use; returns the last
/// sequence number met, or `seq`. Damage is stepped over; records may not be durable yet. Reads
/// the segments that hold them from their start; blocks.
///
/// # Errors
/// [`Error::Io`], [`Error::Version`].
pub fn scan(dir: &Path, seq: u64, each: &mut dyn FnMut(Record<'_>)) -> Result<u64, Error> {
    let (disk, dir) = (Disk::Real, dir.join("segments"));
    let names = disk.list(&dir).map_err(|e| Error::io("list", &dir, e))?;
    let firsts: Vec<u64> = names.iter().filter_map(|name| segment::seq_in_name(name)).collect();
    let mut last = seq;
    for (index, first) in firsts.iter().enumerate() {
        if firsts.get(index + 1).is_some_and(|next| *next <= seq + 1) {
            continue;
        }
        let path = dir.join(segment::file_name(*first));
        let file = match disk.open(&path) {
            // Retention of the process that has it open was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::io("open", &path, e))?,
        };
        let bytes = file.len().map_err(|e| Error::io("read", &path, e))?;
        let Opened::Segment(header) = SegmentHeader::read(&file, &path)? else { continue };
        let mut scan = Scan::new(file, path, header, bytes);
        scan.read_payloads(true);
        loop {
            match scan.step()? {
                Step::Record(header, payload) if header.seq > last => {
                    last = header.seq;
                    let ends_batch = header.batch_left == 0;
                    each(Record { seq: header.seq, kind: header.kind, ends_batch, payload });
                }
                Step::Record(..) | Step::Damage { .. } => {}
                Step::End => break,
            }
        }
    }
    Ok(last)
}

pub(crate) fn look(disk: &Disk, dir: &Path, payloads: bool) -> Result<Inspection, Error> {
    let mut inspection = Inspection::default();
    look_at_segments(disk, &dir.join("segments"), payloads, &mut inspection)?;
    let (cursors, met) = cursor::open_all(disk, &dir.join("cursors"))?;
    inspection.damages.extend(met);
    let (snapshots, met) = snapshot::open_all(disk, &dir.join("snapshots"))?;
    inspection.damages.extend(met);
    let states = |positions: Vec<(String, crate::spool::catalog::Position)>| {
        let state = |(name, position): (String, crate::spool::catalog::Position)| {
            let seq = position.acked.into_inner();
            CursorState { name, seq, lag: lag(&inspection.segments, seq) }
        };
        positions.into_iter().map(state).collect()
    };
    (inspection.cursors, inspection.snapshots) = (states(cursors), states(snapshots));
    let letters = DeadLetters::open(disk, &dir.join("dead-letters"), &Options::default())?;
    inspection.dead_letters = letters.size();
    inspection.damages.extend(letters.damages());
    let quarantine = dir.join("quarantine");
    for name in disk.list(&quarantine).map_err(|e| Error::io("list", &quarantine, e))? {
        let path = quarantine.join(&name);
        let bytes = disk.open(&path).and_then(|file| file.len());
        inspection.quarantine.push((name, bytes.map_err(|e| Error::io("open", &path, e))?));
    }
    Ok(inspection)
}

fn look_at_segments(
    disk: &Disk,
    dir: &Path,
    payloads: bool,
    inspection: &mut Inspection,
) -> Result<(), Error> {
    let names = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let names: Vec<&String> =
        names.iter().filter(|name| segment::seq_in_name(name).is_some()).collect();
    let mut seq_end = None;
    for (index, name) in names.iter().enumerate() {
        let path = dir.join(name);
        let file = match disk.open(&path) {
            // Retention of the process that has it open was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::io("open", &path, e))?,
        };
        let bytes = file.len().map_err(|e| Error::io("read", &path, e))?;
        let header = match SegmentHeader::read(&file, &path)? {
            Opened::Segment(header) => header,
            Opened::Version(found) => return Err(Error::Version { path, found, supported: 1 }),
            // Created, and its header not yet synced: it was never used, the next opening removes
            // it.
            Opened::Damaged if bytes <= SEGMENT_HEADER_BYTES && index + 1 == names.len() => {
                continue;
            }
            Opened::Damaged => {
                let (file, reason) = ((*name).clone(), Reason::SegmentHeader);
                inspection.damages.push(Damage { file, offset: 0, bytes, reason });
                continue;
            }
        };
        let scan = Scan::new(file, path.clone(), header, bytes);
        let mut state = SegmentState {
            file: (*name).clone(),
            seq_first: header.seq_first,
            bytes,
            ..SegmentState::default()
        };
        let mut found = scan_segment(scan, payloads, seq_end, &mut state, inspection)?;
        seq_end = Some(state.seq_last.map_or(header.seq_first, |last| last + 1));
        if index + 1 == names.len() {
            let file = disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
            let sealed = examine(&mut Scan::new(file, path, header, bytes), name)?;
            let Sealed { cut, proven, reason } = sealed;
            found.retain(|damage| damage.offset < proven);
            let torn = Damage { file: (*name).clone(), offset: cut, bytes: bytes - cut, reason };
            inspection.torn = (cut < bytes).then_some(torn);
        }
        inspection.damages.extend(found);
        inspection.segments.push(state);
    }
    Ok(())
}

fn scan_segment(
    mut scan: Scan,
    payloads: bool,
    seq_end: Option<u64>,
    state: &mut SegmentState,
    inspection: &mut Inspection,
) -> Result<Vec<Damage>, Error> {
    let mut damages = Vec::new();
    let mut expected = seq_end.unwrap_or(state.seq_first);
    scan.read_payloads(payloads);
    loop {
        match scan.step()? {
            Step::Record(header, _) => {
                inspection.missing += header.seq.saturating_sub(expected);
                expected = header.seq + 1;
                state.seq_last = Some(header.seq);
                state.batches += u64::from(header.batch_left == 0);
                *state.records_by_kind.entry(header.kind).or_default() += 1;
            }
            Step::Damage { offset, bytes, reason } => {
                damages.push(Damage { file: state.file.clone(), offset, bytes, reason });
            }
            Step::End => return Ok(damages),
        }
    }
}

fn lag(segments: &[SegmentState], seq: u64) -> Lag {
    let ends = segments.iter().filter_map(|segment| Some((segment, segment.seq_last?)));
    let mut lag = Lag::default();
    for (segment, last) in ends.filter(|(_, last)| *last > seq) {
        let all = last - segment.seq_first + 1;
        let left = last - seq.max(segment.seq_first - 1);
        lag.records = last - seq;
        lag.bytes += (u128::from(segment.bytes) * u128::from(left) / u128::from(all)) as u64;
    }
    lag
}
