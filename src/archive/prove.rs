//! Finds an event in an archive, and makes the files that prove it offline.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::archive::index::Index;
use crate::archive::layout::CHECKPOINT;
use crate::archive::note::{Verifier, hash_of_text};
use crate::archive::proof::{EventProof, Proof, verify_event};
use crate::archive::reader::{self, TileReader};
use crate::archive::record::Segment;
use crate::archive::records::newest_first;
use crate::archive::recover::{self, CHECKPOINT_BYTES_MAX, Commit, find_size, read_commit};
use crate::archive::segment::{self, read_lines};
use crate::archive::store::{self, Store};
use crate::archive::tree::{Hash, inclusion_ranges, leaf_hash, root_from_inclusion, root_of};

/// Bytes of a segment that is read.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// So much of an object's end is read for its seek table and margin.
const TAIL_BYTES: u64 = 256 << 10;

/// Why an event could not be read or proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] recover::Error),
    /// A segment that cannot be read.
    #[error("{key}: {source}")]
    Segment {
        /// The object.
        key: String,
        /// Why not.
        source: segment::Error,
    },
    /// There is no such record, event or object.
    #[error("{0}")]
    Absent(String),
    /// What the archive holds does not prove it.
    #[error("what the archive holds does not prove it: {0}; run `kubewitness verify`")]
    Unproven(#[from] crate::archive::proof::Error),
}

/// Reads the object of a record.
///
/// # Errors
/// It is not there, or the store's.
pub async fn read_segment(store: &dyn Store, segment: &Segment) -> Result<Bytes, Error> {
    let bytes = store.read(&segment.object, segment.size.min(SEGMENT_BYTES_MAX)).await?;
    bytes.ok_or_else(|| Error::Absent(format!("{} is not there", segment.object)))
}

/// Finds the record, and the place in it, of a number of the spool; the newest when spools that
/// were made anew counted it more than once.
///
/// # Errors
/// The store's, or the log's.
pub async fn find_ingest(
    store: &dyn Store,
    key: &Verifier,
    ingest: u64,
) -> Result<Option<(u64, u64)>, Error> {
    let size = find_size(store).await?;
    let mut records = pin!(newest_first(store, key, size));
    while let Some(record) = records.next().await {
        let record = record?;
        let Some(segment) = &record.segment else { continue };
        if !(segment.first..=segment.last).contains(&ingest) {
            continue;
        }
        let notes = margin(store, segment).await?;
        if let Some(event) = notes.iter().position(|note| note.seq == ingest) {
            return Ok(Some((record.seq, event as u64)));
        }
    }
    Ok(None)
}

fn failed(segment: &Segment) -> impl Fn(segment::Error) -> Error {
    let key = segment.object.clone();
    move |source| Error::Segment { key: key.clone(), source }
}

/// The margin of a segment, from the object's end where that is enough.
async fn margin(store: &dyn Store, segment: &Segment) -> Result<Vec<segment::Note>, Error> {
    let start = segment.size.saturating_sub(TAIL_BYTES);
    let tail = store.read_range(&segment.object, start, segment.size).await?;
    let notes = tail.and_then(|tail| segment::read_margin(&tail, segment.count).ok());
    match notes {
        Some(notes) => Ok(notes),
        None => {
            let object = read_segment(store, segment).await?;
            segment::read_margin(&object, segment.count).map_err(failed(segment))
        }
    }
}

/// The end of a segment's object, and what it says of the rest: where each frame begins, its
/// bytes, the bytes of its lines, and how many lines come before; the index, where there is one.
struct Layout {
    frames: Vec<(u64, u32, u32)>,
    index: Option<Index>,
}

async fn layout(store: &dyn Store, segment: &Segment) -> Result<Layout, Error> {
    let start = segment.size.saturating_sub(TAIL_BYTES);
    let tail = store.read_range(&segment.object, start, segment.size).await?;
    let tail = tail.ok_or_else(|| absent(segment))?;
    // Without a table all of it is one frame.
    let whole = || vec![(0, u32::try_from(segment.size).unwrap_or(u32::MAX), u32::MAX)];
    let frames = segment::frames(&tail, segment.size).unwrap_or_else(whole);
    Ok(Layout { frames, index: segment::read_index(&tail, segment.count) })
}

fn absent(segment: &Segment) -> Error {
    Error::Absent(format!("{} is not there", segment.object))
}

/// Hands the lines of these frames to `visit` until it says `false`, with their places among all.
async fn read_frames(
    store: &dyn Store,
    segment: &Segment,
    frames: &[(u64, u32, u32)],
    mut place: u64,
    mut visit: impl FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    for (start, length, raw) in frames {
        let end = start + u64::from(*length);
        let frame = store.read_range(&segment.object, *start, end).await?;
        let frame = frame.ok_or_else(|| absent(segment))?;
        let (first, mut goes_on) = (place, true);
        read_lines(&frame, u64::from(*raw), |index, bytes| {
            place = first + index + 1;
            goes_on = visit(first + index, bytes);
            goes_on
        })
        .map_err(failed(segment))?;
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Reads one line of a segment: the object's end, and its frame; without an index, the frames up to
/// the line's.
///
/// # Errors
/// The object is not there or damaged, or the store's.
pub async fn read_line(
    store: &dyn Store,
    segment: &Segment,
    line: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let Layout { frames, index } = layout(store, segment).await?;
    let place = index.as_ref().and_then(|index| index.frames_of(line..line + 1));
    let (range, first) = place.unwrap_or((0..frames.len(), 0));
    let mut found = None;
    read_frames(store, segment, &frames[range], first, |at, bytes| {
        found = (at == line).then(|| bytes.to_vec());
        found.is_none()
    })
    .await?;
    Ok(found)
}

/// An event and what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The event's bytes.
    pub event: Vec<u8>,
    /// The proof file.
    pub proof: Proof,
}

/// Makes the proof of one line of a record, in the newest published head where its tiles are to be
/// had, else in the head that the record's own commit signed. It is verified before it is returned.
///
/// # Errors
/// There is no such line, or what the archive holds proves nothing.
pub async fn prove(
    store: &Arc<dyn Store>,
    key: &Verifier,
    seq: u64,
    event: u64,
) -> Result<Proven, Error> {
    let commit = read_commit(&**store, seq, key).await?;
    let segment = commit.record.segment.as_ref();
    let segment = segment.ok_or_else(|| Error::Absent(format!("record {seq} has no lines")))?;
    let count = segment.count;
    let absent = || Error::Absent(format!("record {seq} has {count} lines, from 0"));
    let line = match indexed(&**store, segment, event).await? {
        Some(proven) => Some(proven),
        None => whole(&**store, segment, event).await?,
    };
    let (line, path) = line.ok_or_else(absent)?;
    let extra = serde_json::to_vec(&EventProof::new(&commit.proof.extra, event, &path));
    let extra = extra.expect("an event's proof is plain JSON");
    let proof = match published(&**store, key, &commit).await? {
        Some(published) => published,
        None => commit.proof,
    };
    let proof = Proof { extra, ..proof };
    verify_event(&proof, &line, key)?;
    Ok(Proven { event: line, proof })
}

/// A line and its path in the segment's tree, by the index: read are the object's end and the
/// frames with the 256 lines around it. `None` without an index, or where it leads to another root.
async fn indexed(
    store: &dyn Store,
    segment: &Segment,
    event: u64,
) -> Result<Option<(Vec<u8>, Vec<Hash>)>, Error> {
    let Layout { frames, index } = layout(store, segment).await?;
    let Some(index) = index.filter(|_| event < segment.count) else { return Ok(None) };
    let block = index.block_of(event);
    let Some((range, first)) = index.frames_of(block.clone()) else { return Ok(None) };
    let (mut leaves, mut line) = (Vec::new(), None);
    let read = read_frames(store, segment, &frames[range], first, |at, bytes| {
        if block.contains(&at) {
            leaves.push(leaf_hash(bytes));
        }
        if at == event {
            line = Some(bytes.to_vec());
        }
        at + 1 < block.end
    });
    match read.await {
        Err(Error::Segment { .. }) => return Ok(None),
        other => other?,
    }
    let path = index.path(event, &leaves);
    let (Some(line), Some(path)) = (line, path) else { return Ok(None) };
    let root = root_from_inclusion(leaf_hash(&line), event, segment.count, &path);
    let is_right = root.is_some() && root == hash_of_text(&segment.event_root);
    Ok(is_right.then_some((line, path)))
}

/// The same from the whole object.
async fn whole(
    store: &dyn Store,
    segment: &Segment,
    event: u64,
) -> Result<Option<(Vec<u8>, Vec<Hash>)>, Error> {
    let object = read_segment(store, segment).await?;
    let (mut leaves, mut line) = (Vec::new(), None);
    read_lines(&object, segment.raw_size, |index, bytes| {
        leaves.push(leaf_hash(bytes));
        if index == event {
            line = Some(bytes.to_vec());
        }
        true
    })
    .map_err(failed(segment))?;
    let ranges = inclusion_ranges(event, leaves.len() as u64);
    let root =
        |range: &std::ops::Range<u64>| root_of(&leaves[range.start as usize..range.end as usize]);
    Ok(line.map(|line| (line, ranges.iter().map(root).collect())))
}

/// The record's proof in the published head, with the signatures of witnesses that are there.
async fn published(
    store: &dyn Store,
    key: &Verifier,
    commit: &Commit,
) -> Result<Option<Proof>, Error> {
    let bytes = store.read(CHECKPOINT, CHECKPOINT_BYTES_MAX).await?;
    let note = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let head = note.and_then(|note| key.checkpoint(&note).ok().map(|head| (note, head)));
    let index = commit.record.seq;
    let Some((note, head)) = head.filter(|(_, head)| head.size > index) else { return Ok(None) };
    let path = match TileReader::new(store, head.size).inclusion(index).await {
        Ok(path) => path,
        Err(reader::Error::Store(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let proof = Proof { extra: commit.proof.extra.clone(), index, path, note };
    Ok(proof.verify_record(&proof.extra, key).is_ok().then_some(proof))
}
