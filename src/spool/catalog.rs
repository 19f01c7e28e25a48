//! What the spool holds right now: segments, positions, damages; shared by writer and readers.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::clock::Stopwatch;
use crate::spool::disk::Disk;
use crate::spool::slot::Slot;
use crate::spool::{Damage, Error, Options, guard, segment};

/// Damages kept in full; more are only counted.
const DAMAGES_MAX: usize = 1_000;

/// The durable part of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) seq_first: u64,
    /// One more than its last sequence number.
    pub(crate) seq_end: u64,
    /// Bytes of the file that are durable.
    pub(crate) bytes: u64,
}

/// A stored position: a cursor's, or a snapshot's. Retention waits for it.
pub(crate) struct Position {
    /// The file; locked while it is replaced.
    pub(crate) slot: Mutex<Slot>,
    /// Last sequence number acknowledged.
    pub(crate) acked: AtomicU64,
    /// Last sequence number that retention may pass: of what is stored, the oldest that may yet be
    /// read again.
    pub(crate) stored: AtomicU64,
    /// Kept with it; a cursor's id.
    pub(crate) payload: Vec<u8>,
    /// Time since it was last stored.
    pub(crate) since: Mutex<Stopwatch>,
    /// A cursor that is open.
    pub(crate) is_open: AtomicBool,
}

impl Position {
    pub(crate) fn new(slot: Slot, seq: u64, stored: u64, payload: Vec<u8>) -> Position {
        Position {
            slot: Mutex::new(slot),
            acked: AtomicU64::new(seq),
            stored: AtomicU64::new(stored),
            payload,
            since: Mutex::new(Stopwatch::start()),
            is_open: AtomicBool::new(false),
        }
    }

    /// Stores a cursor's acknowledgements, if there are new ones.
    pub(crate) fn store(&self) -> Result<(), Error> {
        let mut slot = guard(&self.slot);
        let acked = self.acked.load(Ordering::Acquire);
        if acked > self.stored.load(Ordering::Acquire) {
            slot.write(acked, &self.payload)?;
            self.stored.store(acked, Ordering::Release);
        }
        *guard(&self.since) = Stopwatch::start();
        Ok(())
    }
}

/// Positions by name.
pub(crate) type Positions = BTreeMap<String, Arc<Position>>;

/// The positions of a directory with their names, and what of them could not be read.
pub(crate) type Stored = (Vec<(String, Position)>, Vec<Damage>);

/// Damages met since opening: the first thousand, and how many in all.
#[derive(Default)]
pub(crate) struct DamageLog {
    pub(crate) kept: Vec<Damage>,
    pub(crate) total: u64,
}

/// The shared state of an open spool.
pub(crate) struct Catalog {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    /// Oldest first; the last one is being written. Never empty.
    pub(crate) spans: Mutex<VecDeque<Span>>,
    pub(crate) cursors: Mutex<Positions>,
    pub(crate) snapshots: Mutex<Positions>,
    pub(crate) damages: Mutex<DamageLog>,
    /// Held while segments are deleted or a position is created, so that neither overtakes.
    pub(crate) retaining: Mutex<()>,
    /// Holds the lock on the directory; `None` on a simulated disk.
    pub(crate) _lock: Option<std::fs::File>,
}

impl Catalog {
    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir.join("segments")
    }

    pub(crate) fn cursors_dir(&self) -> PathBuf {
        self.dir.join("cursors")
    }

    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub(crate) fn segment_path(&self, seq_first: u64) -> PathBuf {
        self.segments_dir().join(segment::file_name(seq_first))
    }

    /// The segment that holds `seq`, or else the first one behind it.
    pub(crate) fn span_at(&self, seq: u64) -> Option<Span> {
        let spans = guard(&self.spans);
        let at = spans.partition_point(|span| span.seq_end <= seq);
        spans.get(at).copied()
    }

    /// Oldest sequence number that can be read, or the next one when there is none.
    pub(crate) fn seq_oldest(&self) -> u64 {
        guard(&self.spans).front().map_or(1, |span| span.seq_first)
    }

    /// Last durable sequence number; 0 before the first.
    pub(crate) fn seq_durable(&self) -> u64 {
        guard(&self.spans).back().map_or(0, |span| span.seq_end - 1)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        guard(&self.spans).iter().map(|span| span.bytes).sum()
    }

    /// Makes what the writer synced visible.
    pub(crate) fn publish(&self, seq_end: u64, bytes: u64) {
        if let Some(last) = guard(&self.spans).back_mut() {
            last.seq_end = seq_end;
            last.bytes = bytes;
        }
    }

    /// Remembers a damage for `Spool::damages`.
    pub(crate) fn note(&self, damage: &Damage) {
        let mut log = guard(&self.damages);
        // Every cursor meets the same damage.
        if log.kept.contains(damage) {
            return;
        }
        log.total += 1;
        if log.kept.len() < DAMAGES_MAX {
            log.kept.push(damage.clone());
        }
    }
}
