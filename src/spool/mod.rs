//! `Spool`: append is durable when it returns; each sink reads through its own cursor.
//!
//! # Constraints
//! - Bytes only: a record is a kind (one byte, the caller's), a payload and a sequence number.
//! - One writer: the directory is locked; one thread writes, and takes all waiting batches into
//!   one write and one fdatasync (group commit).
//! - Many readers: they see only what has been synced, and never block the writer.
//! - Everything has a limit with a name: see [`Options`].
//!
//! # Layout
//! ```text
//! <dir>/lock                          flock; holds the process id of the owner
//! <dir>/segments/<seq_first>.seg      see segment.rs and record.rs
//! <dir>/cursors/<name>.{0,1}          see slot.rs; seq is the last one acknowledged,
//!                                     the payload the cursor's id: 16 random bytes
//! <dir>/snapshots/<name>.{0,1}        see slot.rs; a state of the caller's as of seq
//! <dir>/dead-letters/                 see dead_letter.rs
//! <dir>/quarantine/                   damaged segments and doubtful tails, moved aside
//! ```
//!
//! # Crash rules
//! 1. A batch is appended wholly or not at all: its last record has `batch_left` 0, and recovery
//!    cuts the last segment behind the last whole batch.
//! 2. A segment is written by one process only; opening the spool starts a new one. Before a
//!    segment is created the one before it is synced; so only the last segment that holds records
//!    can have a torn tail.
//! 3. Every frame says up to where the segment was synced before it was written. What lies before
//!    the greatest such mark is known to have been durable: damage there is corruption, is
//!    reported, and is stepped over. What lies behind it may be a torn tail: whole batches are
//!    kept up to the first damage, the rest is cut (and copied to `quarantine/` unless it has the
//!    shape of a torn write).
//! 4. The part behind the mark is written again before it is synced: after a failed sync Linux
//!    calls pages clean that never reached the disk.
//! 5. Positions are stored by temporary file, sync, rename, sync of the directory, in two
//!    generations. Sequence numbers never fall behind a stored position.
//! 6. A segment is deleted only when every *stored* position has passed it.
//! 7. A failed write or sync poisons the spool: every later append fails, and the process is
//!    expected to exit and open again. The exception is a disk without room (ENOSPC, EDQUOT) met
//!    while writing, before any sync: the segment is cut back to what was synced, the batches are
//!    refused, and the spool goes on. Should the cut fail, or a sync report no room, it is poison.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) mod disk;

mod record;
mod segment;
mod slot;

mod catalog;
mod retention;
mod reader;
mod cursor;
mod snapshot;
mod recover;
mod gate;
mod writer;
mod dead_letter;
mod handle;
mod inspect;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Start};
pub use dead_letter::{DeadLetter, DeadLetters, StoredLetter};
pub use handle::{Spool, Stats};
pub use inspect::{CursorState, Inspection, SegmentState, dead_letters, inspect, scan, verify};
pub use reader::{Limits, Reader, Record, Records};
pub use record::{BATCH_RECORDS_MAX, Batch, FRAME_HEADER_BYTES, Frames};
pub use retention::Lag;
pub use snapshot::Snapshot;
pub use writer::{Appended, Appender, Pending};

/// Limits of a spool. Every one is in bytes unless its name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// All segments together; an append beyond it is refused with [`Error::Full`].
    pub bytes_max: u64,
    /// One segment; also the grain in which space is given back. At most 2 GiB.
    pub segment_bytes_max: u64,
    /// One batch, frame headers included. At most `segment_bytes_max` less 64.
    pub batch_bytes_max: u64,
    /// Batches that wait for the writer or are being written, all together.
    pub waiting_bytes_max: u64,
    /// Of the segments that every cursor has passed, this much is kept while `bytes_max` allows.
    pub passed_bytes_min: u64,
    /// A cursor stores its position at the latest when this many records were acknowledged since
    /// it last did; so many may be delivered again after a crash, beside what was in flight.
    pub ack_records_max: u64,
    /// A cursor stores its position on the first acknowledgement after this time.
    pub ack_interval: Duration,
    /// One snapshot. At most 1 GiB.
    pub snapshot_bytes_max: u64,
    /// All dead letters together.
    pub dead_letter_bytes_max: u64,
    /// Number of dead letters.
    pub dead_letters_max: u64,
    /// Copies of doubtful tails; beyond it they are cut without a copy, and reported all the same.
    pub quarantine_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bytes_max: 10 << 30,
            segment_bytes_max: 64 << 20,
            batch_bytes_max: 16 << 20,
            waiting_bytes_max: 64 << 20,
            passed_bytes_min: 0,
            ack_records_max: 10_000,
            ack_interval: Duration::from_secs(1),
            snapshot_bytes_max: 256 << 20,
            dead_letter_bytes_max: 256 << 20,
            dead_letters_max: 100_000,
            quarantine_bytes_max: 256 << 20,
        }
    }
}

impl Options {
    /// Refuses limits that cannot be kept together.
    ///
    /// # Errors
    /// [`Error::Options`] names the limit, its value and what it must be.
    pub fn check(&self) -> Result<(), Error> {
        let segment_max = self.segment_bytes_max;
        let rules = [
            ("segment_bytes_max", segment_max, segment_max <= 2 << 30, "at most 2 GiB".to_owned()),
            (
                "batch_bytes_max",
                self.batch_bytes_max,
                (1..=segment_max.saturating_sub(segment::SEGMENT_HEADER_BYTES))
                    .contains(&self.batch_bytes_max),
                format!(
                    "at least 64 bytes less than segment_bytes_max ({segment_max}), and above 0"
                ),
            ),
            (
                "bytes_max",
                self.bytes_max,
                self.bytes_max >= segment_max.saturating_mul(2),
                format!("at least twice segment_bytes_max ({segment_max})"),
            ),
            (
                "waiting_bytes_max",
                self.waiting_bytes_max,
                self.waiting_bytes_max >= self.batch_bytes_max,
                format!("at least batch_bytes_max ({})", self.batch_bytes_max),
            ),
            (
                "snapshot_bytes_max",
                self.snapshot_bytes_max,
                self.snapshot_bytes_max <= slot::PAYLOAD_BYTES_MAX,
                "at most 1 GiB".to_owned(),
            ),
            ("ack_records_max", self.ack_records_max, self.ack_records_max > 0, "above 0".into()),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            None => Ok(()),
            Some((name, value, _, rule)) => Err(Error::Options { name, value, rule }),
        }
    }
}

/// Why bytes of the spool cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A frame's header does not match its checksum.
    Header,
    /// A frame's payload does not match its checksum.
    Payload,
    /// The file ends inside a frame or before its recorded end.
    Short,
    /// Zeros where frames should be.
    Zeros,
    /// A batch lacks its last records.
    BatchCut,
    /// Neither copy of a segment's header can be read; the file is in `quarantine/`.
    SegmentHeader,
    /// A segment that the next one names as its predecessor is not there.
    Gap,
    /// A segment's file disappeared.
    Missing,
    /// A position or snapshot cannot be read; the generation before it is used, if there is one.
    Slot,
}

impl Reason {
    /// The reason as a word for logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Header => "header",
            Reason::Payload => "payload",
            Reason::Short => "short",
            Reason::Zeros => "zeros",
            Reason::BatchCut => "batch_cut",
            Reason::SegmentHeader => "segment_header",
            Reason::Gap => "gap",
            Reason::Missing => "missing",
            Reason::Slot => "slot",
        }
    }
}

/// Bytes of the spool that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file: its name for a segment, its path for a position or a snapshot.
    pub file: String,
    /// First byte of it that cannot be used.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong with them.
    pub reason: Reason,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The torn tail that was cut: what a crash left of batches that were never acknowledged.
    pub torn: Option<Damage>,
    /// Copy of the torn tail, when it did not have the shape of a torn write.
    pub torn_copy: Option<PathBuf>,
    /// Losses: bytes that had been durable and cannot be read.
    pub damages: Vec<Damage>,
    /// Cursors on the disk, with their lag. One that is configured no longer holds its segments
    /// until [`Spool::remove_cursor`].
    pub cursors: Vec<(String, Lag)>,
}

/// An operation of the spool that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the spool open.
    #[error(
        "spool {} is in use by process {pid}; stop it or choose another spool.dir",
        dir.display()
    )]
    Locked {
        /// The spool's directory.
        dir: PathBuf,
        /// What the lock file says of its owner.
        pid: String,
    },
    /// Limits that cannot be kept together.
    #[error("{name} is {value}; it must be {rule}")]
    Options {
        /// The limit.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: String,
    },
    /// The file system refused an operation.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of a later release; nothing was changed.
    #[error("{} has format version {found}, this release reads {supported}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The version this release reads and writes.
        supported: u8,
    },
    /// The batch is over `batch_bytes_max`; nothing was written. Split it.
    #[error("batch of {bytes} bytes is over batch_bytes_max ({limit})")]
    BatchTooLarge {
        /// The batch's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The batch holds no record, or more than [`BATCH_RECORDS_MAX`].
    #[error("batch of {records} records; it must hold 1 to 16777215")]
    BatchRecords {
        /// The batch's records.
        records: u32,
    },
    /// `bytes_max` is reached by what is not delivered yet; nothing was written. Retry later.
    #[error("spool is full: {bytes} bytes of bytes_max ({limit}) hold undelivered records")]
    Full {
        /// Bytes of all segments.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk has no room, or no more files may be open; what was written was taken back. Retry
    /// later.
    #[error("the disk is full or too many files are open: cannot write {}", path.display())]
    DiskFull {
        /// The segment being written or created.
        path: PathBuf,
        /// The disk's answer.
        source: std::io::Error,
    },
    /// A write or sync failed before; nothing more can be appended until the spool is reopened.
    #[error("spool is poisoned and must be reopened: {cause}")]
    Poisoned {
        /// The failure.
        cause: String,
    },
    /// The spool was closed.
    #[error("spool is closed")]
    Closed,
    /// A cursor or snapshot name other than `[a-z0-9-]{1,63}`.
    #[error("name {name:?} must be 1 to 63 of a-z, 0-9 and -")]
    Name {
        /// The name.
        name: String,
    },
    /// The cursor is open already.
    #[error("cursor {name} is in use")]
    CursorBusy {
        /// The cursor.
        name: String,
    },
    /// An acknowledgement or snapshot of what was not read or is not durable.
    #[error("sequence number {seq} is beyond {limit}")]
    SeqAhead {
        /// The sequence number given.
        seq: u64,
        /// The last one that could be given.
        limit: u64,
    },
    /// A snapshot that what is held no longer follows: records behind it were deleted.
    #[error("sequence number {seq} is not followed by the oldest record held ({oldest})")]
    SeqBehind {
        /// The sequence number given.
        seq: u64,
        /// The oldest record.
        oldest: u64,
    },
    /// The snapshot is over `snapshot_bytes_max`; the old one stands.
    #[error("snapshot of {bytes} bytes is over snapshot_bytes_max ({limit})")]
    SnapshotTooLarge {
        /// The snapshot's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A limit of the dead letters is reached; nothing was written. Re-drive or remove some.
    #[error("dead letters are full: {value} of {name} ({limit})")]
    DeadLettersFull {
        /// The limit's name.
        name: &'static str,
        /// The value it would take.
        value: u64,
        /// The limit.
        limit: u64,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Io { operation, path: path.to_owned(), source }
    }

    /// True when the same append may succeed later: the source waits, or answers 503.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::DiskFull { .. })
    }

    /// True when the disk is full, or as much of it as may be used: what was tried changed nothing.
    pub fn lacks_space(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => {
                disk::is_exhausted(source) && !disk::is_no_files(source)
            }
            _ => false,
        }
    }

    /// True when the process, or the system, has too many files open: what was tried changed
    /// nothing, and may succeed later.
    pub fn lacks_files(&self) -> bool {
        match self {
            Error::Io { source, .. } | Error::DiskFull { source, .. } => disk::is_no_files(source),
            _ => false,
        }
    }
}

/// Refuses names that are not `[a-z0-9-]{1,63}`; they become file names.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::Name { name: name.to_owned() })
}

/// The guard of a mutex; a panic elsewhere aborts the process, so what it guards is whole.
pub(crate) fn guard<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs file operations off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Closed),
    }
}
