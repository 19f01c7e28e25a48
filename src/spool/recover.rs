//! Opening after a crash: drop the torn tail, quarantine corruption, rebuild positions.

use std::path::{Path, PathBuf};

use crate::spool::catalog::Span;
use crate::spool::disk::{Disk, File};
use crate::spool::segment::{Opened, SEGMENT_HEADER_BYTES, Scan, SegmentHeader, Step};
use crate::spool::{Damage, Error, Options, Reason, segment};

const COPY_BYTES: usize = 1 << 20;

/// The directories recovery works on.
pub(crate) struct Places<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) segments: PathBuf,
    pub(crate) quarantine: PathBuf,
    pub(crate) options: &'a Options,
}

/// What recovery leaves: sealed segments, all of them durable.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) spans: Vec<Span>,
    /// Sequence number of the next record.
    pub(crate) seq_next: u64,
    pub(crate) torn: Option<Damage>,
    pub(crate) torn_copy: Option<PathBuf>,
    pub(crate) damages: Vec<Damage>,
}

/// A segment file with a readable header.
struct Found {
    header: SegmentHeader,
    bytes: u64,
}

/// Recovers the segments. `floor` is the first sequence number that some position still needs
/// (gaps before it are what retention left), `seq_min` the least that the next record may get.
pub(crate) fn recover(places: &Places, floor: u64, seq_min: u64) -> Result<Recovered, Error> {
    let mut recovered = Recovered { seq_next: seq_min, ..Recovered::default() };
    let mut found = find(places, &mut recovered)?;
    report_gaps(&found, floor, &mut recovered);
    let mut last_end = None;
    while let Some(last) = found.last() {
        match recover_last(places, last, &mut recovered)? {
            Some(span) => {
                last_end = Some(span);
                break;
            }
            None => {
                // Nothing durable in it: the segment before it may have the torn tail.
                remove(places, last.header.seq_first)?;
                found.pop();
            }
        }
    }
    let seq_ends = found.iter().skip(1).map(|next| next.header.seq_first);
    recovered.spans = found
        .iter()
        .zip(seq_ends)
        .map(|(at, seq_end)| Span { seq_first: at.header.seq_first, seq_end, bytes: at.bytes })
        .collect();
    recovered.spans.extend(last_end);
    let end = last_end.map_or(1, |span| span.seq_end);
    recovered.seq_next = recovered.seq_next.max(end);
    Ok(recovered)
}

/// Lists the segments in order; moves those aside whose header cannot be read.
fn find(places: &Places, recovered: &mut Recovered) -> Result<Vec<Found>, Error> {
    let dir = &places.segments;
    let names = places.disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut found = Vec::new();
    for name in names {
        let Some(seq_first) = segment::seq_in_name(&name) else { continue };
        let path = dir.join(&name);
        let file = places.disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
        let bytes = file.len().map_err(|e| Error::io("read", &path, e))?;
        match SegmentHeader::read(&file, &path)? {
            Opened::Version(version) => {
                return Err(Error::Version { path, found: version, supported: 1 });
            }
            Opened::Segment(header) if header.seq_first == seq_first => {
                found.push(Found { header, bytes });
            }
            // The header is synced before the first frame is written: this one was never used.
            Opened::Damaged if bytes <= SEGMENT_HEADER_BYTES => remove(places, seq_first)?,
            Opened::Damaged | Opened::Segment(_) => {
                let to = places.quarantine.join(&name);
                let moved = places
                    .disk
                    .rename(&path, &to)
                    .and_then(|()| places.disk.sync_dir(&places.quarantine))
                    .and_then(|()| places.disk.sync_dir(dir));
                moved.map_err(|e| Error::io("move aside", &path, e))?;
                let reason = Reason::SegmentHeader;
                recovered.damages.push(Damage { file: name, offset: 0, bytes, reason });
                // How many records it held cannot be known; so many fit into it.
                recovered.seq_next = recovered.seq_next.max(seq_first + bytes / 32);
            }
        }
    }
    Ok(found)
}

fn remove(places: &Places, seq_first: u64) -> Result<(), Error> {
    let path = places.segments.join(segment::file_name(seq_first));
    let removed = places.disk.remove(&path).and_then(|()| places.disk.sync_dir(&places.segments));
    removed.map_err(|e| Error::io("remove", &path, e))
}

/// Every segment names the one before it, so that one that is gone is noticed without reading.
fn report_gaps(found: &[Found], floor: u64, recovered: &mut Recovered) {
    for pair in found.windows(2) {
        let (before, at) = (pair[0].header, pair[1].header);
        if at.seq_first_previous != before.seq_first && at.seq_first > floor {
            let file = segment::file_name(at.seq_first_previous);
            let is_known = recovered.damages.iter().any(|damage| damage.file == file);
            if at.seq_first_previous > before.seq_first && !is_known {
                recovered.damages.push(Damage { file, offset: 0, bytes: 0, reason: Reason::Gap });
            }
        }
    }
}

/// What a scan over the whole last segment tells.
struct Survey {
    /// Greatest offset that some frame says was synced before it.
    proven: u64,
    /// Sequence number of the first record behind that, when it can be told.
    seq_proven: Option<u64>,
    /// One more than the greatest sequence number seen.
    seq_end: u64,
    damages: Vec<Damage>,
}

fn survey(scan: &mut Scan, name: &str, seq_first: u64) -> Result<Survey, Error> {
    let mut survey = Survey {
        proven: SEGMENT_HEADER_BYTES,
        seq_proven: Some(seq_first),
        seq_end: seq_first,
        damages: Vec::new(),
    };
    // Where the step began, and where the last readable record ended.
    let (mut offset, mut record_end) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
    loop {
        match scan.step()? {
            Step::Record(header, _) => {
                let proven = u64::from(header.synced);
                if proven > survey.proven {
                    survey.proven = proven;
                    survey.seq_proven = match () {
                        () if record_end == proven => Some(survey.seq_end),
                        () if offset == proven => Some(header.seq),
                        () => None,
                    };
                }
                survey.seq_end = header.seq + 1;
                record_end = offset + header.frame_bytes();
            }
            Step::Damage { offset, bytes, reason } => {
                let file = name.to_owned();
                survey.damages.push(Damage { file, offset, bytes, reason });
            }
            Step::End => break,
        }
        offset = scan.offset;
    }
    Ok(survey)
}

/// The whole batches behind what is proven: where they end, the sequence number there, and whether
/// the rest has the shape of a torn write.
struct Tail {
    cut: u64,
    seq_end: Option<u64>,
    damage: Option<(u64, Reason)>,
    is_torn: bool,
}

fn tail(scan: &mut Scan, proven: u64) -> Result<Tail, Error> {
    let mut tail = Tail { cut: proven, seq_end: None, damage: None, is_torn: true };
    let mut expected = None;
    loop {
        match scan.step()? {
            Step::Record(..) if tail.damage.is_some() => tail.is_torn = false,
            Step::Record(header, _) if expected.is_some_and(|seq| seq != header.seq) => {
                // A frame of the right salt with a number left out: not by a torn write.
                tail.damage = Some((tail.cut, Reason::Header));
                tail.is_torn = false;
            }
            Step::Record(header, _) => {
                expected = Some(header.seq + 1);
                if header.batch_left == 0 {
                    tail.seq_end = Some(header.seq + 1);
                    tail.cut = scan.offset;
                }
            }
            Step::Damage { offset, reason, .. } => {
                let is_plain = matches!(reason, Reason::Short | Reason::Zeros);
                tail.is_torn &= is_plain;
                tail.damage = tail.damage.or(Some((offset, reason)));
            }
            Step::End => return Ok(tail),
        }
    }
}

/// What recovery would make of the last segment.
pub(crate) struct Sealed {
    /// Where its whole batches end.
    pub(crate) cut: u64,
    /// Up to where it is known to have been durable.
    pub(crate) proven: u64,
    /// What is wrong behind `cut`.
    pub(crate) reason: Reason,
}

/// Looks at a last segment as recovery does, and changes nothing.
pub(crate) fn examine(scan: &mut Scan, name: &str) -> Result<Sealed, Error> {
    let (_, tail, proven) = weigh(scan, name)?;
    let reason = tail.damage.map_or(Reason::BatchCut, |(_, reason)| reason);
    Ok(Sealed { cut: tail.cut, proven, reason })
}

/// Both passes over the last segment.
fn weigh(scan: &mut Scan, name: &str) -> Result<(Survey, Tail, u64), Error> {
    let seq_first = segment::seq_in_name(name).unwrap_or(1);
    let survey = survey(scan, name, seq_first)?;
    let proven = survey.proven;
    scan.seek(proven, seq_first);
    let tail = tail(scan, proven)?;
    Ok((survey, tail, proven))
}

/// Settles the last segment: cuts it, writes what is not proven again and syncs it. `None` when no
/// record is left in it.
fn recover_last(
    places: &Places,
    last: &Found,
    recovered: &mut Recovered,
) -> Result<Option<Span>, Error> {
    let seq_first = last.header.seq_first;
    let name = segment::file_name(seq_first);
    let path = places.segments.join(&name);
    let open = || places.disk.open_writable(&path).map_err(|e| Error::io("open", &path, e));
    let mut scan = Scan::new(open()?, path.clone(), last.header, last.bytes);
    let (survey, tail, proven) = weigh(&mut scan, &name)?;

    let is_corrupt = |damage: &&Damage| damage.offset < proven;
    let damages: Vec<Damage> = survey.damages.iter().filter(is_corrupt).cloned().collect();
    let file = open()?;
    if tail.cut < last.bytes {
        let reason = tail.damage.map_or(Reason::BatchCut, |(_, reason)| reason);
        let bytes = last.bytes - tail.cut;
        let torn = Damage { file: name.clone(), offset: tail.cut, bytes, reason };
        recovered.torn.get_or_insert(torn);
        if !tail.is_torn {
            recovered.torn_copy = keep_tail(places, &file, &path, &name, tail.cut, bytes)?;
        }
        file.set_len(tail.cut).map_err(|e| Error::io("cut", &path, e))?;
    }
    write_again(&file, proven, tail.cut)
        .and_then(|()| file.sync())
        .map_err(|e| Error::io("sync", &path, e))?;
    if tail.cut == SEGMENT_HEADER_BYTES {
        return Ok(None);
    }
    // Where the count of what was durable is uncertain, every number seen is passed over.
    let seq_end = tail.seq_end.or(survey.seq_proven).unwrap_or(survey.seq_end);
    recovered.damages.extend(damages);
    Ok(Some(Span { seq_first, seq_end, bytes: tail.cut }))
}

/// Copies a doubtful tail to the quarantine; `None` when that would pass its limit.
fn keep_tail(
    places: &Places,
    file: &File,
    path: &Path,
    name: &str,
    offset: u64,
    bytes: u64,
) -> Result<Option<PathBuf>, Error> {
    let dir = &places.quarantine;
    let to = dir.join(format!("{name}.{offset}"));
    let copy = || {
        let mut held = 0;
        for name in places.disk.list(dir)? {
            held += places.disk.open(&dir.join(name))?.len()?;
        }
        if held + bytes > places.options.quarantine_bytes_max {
            return Ok(None);
        }
        let copy = places.disk.create(&to)?;
        each_piece(file, offset, offset + bytes, |at, piece| {
            copy.write_all_at(piece, at - offset)
        })?;
        copy.sync()?;
        places.disk.sync_dir(dir)?;
        Ok(Some(to.clone()))
    };
    copy().map_err(|e: std::io::Error| Error::io("move aside the tail of", path, e))
}

/// Makes pages dirty that a failed sync may have left clean without their being on the disk.
fn write_again(file: &File, from: u64, to: u64) -> std::io::Result<()> {
    each_piece(file, from, to, |at, piece| file.write_all_at(piece, at))
}

fn each_piece(
    file: &File,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut piece = vec![0; COPY_BYTES.min((to - from) as usize)];
    let mut at = from;
    while at < to {
        let want = piece.len().min((to - at) as usize);
        let count = file.read_full_at(&mut piece[..want], at)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        each(at, &piece[..count])?;
        at += count as u64;
    }
    Ok(())
}
