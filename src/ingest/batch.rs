//! `Batch`: what a live source hands over, and how it learns that it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::clock;
use crate::ingest::chunk::Chunk;
use crate::ingest::intake::Held;

/// Whole records of one source, in their order, on their way to the spool.
#[derive(Debug)]
pub struct Batch {
    /// The source as the configuration names it; checkpoints are kept under this name.
    pub source: Arc<str>,
    /// The cluster, where the path or the caller's credential decides it.
    pub cluster: Option<Arc<str>>,
    /// What positions begin with: a path for files, the source's name for a receiver.
    pub label: Arc<str>,
    /// The records.
    pub chunk: Chunk,
    /// Where the source goes on once the records are durable; stored in the same append.
    pub checkpoints: Vec<Checkpoint>,
    /// What the source noticed about itself; each becomes a record and an alert.
    pub notices: Vec<Notice>,
    /// When the bytes arrived, microseconds since the epoch.
    pub received_us: i64,
    /// Set by whoever refuses a batch of this source; while it is set, all its batches are refused,
    /// so that none overtakes another. The source clears it when every batch is answered, and sends
    /// what was refused again, in order. Absent where order does not matter.
    pub stalled: Option<Stalled>,
    /// Told once: durable, or refused.
    pub done: oneshot::Sender<Result<Receipt, Refused>>,
    /// The batch's share of the bytes under way; set by the intake, kept by whoever takes the
    /// batch until he has answered it.
    pub held: Held,
}

/// How a source learns what became of a batch. An error of the channel means that nobody will
/// answer: the same as [`Refused::Closed`].
pub type Answer = oneshot::Receiver<Result<Receipt, Refused>>;

impl Batch {
    /// A batch that arrived now, of records alone; the other fields are the caller's to set.
    pub fn new(source: &str, label: &str, chunk: Chunk) -> (Batch, Answer) {
        let (done, answer) = oneshot::channel();
        let batch = Batch {
            source: source.into(),
            cluster: None,
            label: label.into(),
            chunk,
            checkpoints: Vec::new(),
            notices: Vec::new(),
            received_us: clock::now_us(),
            stalled: None,
            done,
            held: Held::default(),
        };
        (batch, answer)
    }
}

/// Whether a source has had a batch refused and not yet begun again.
#[derive(Clone, Debug, Default)]
pub struct Stalled(Arc<AtomicBool>);

impl Stalled {
    /// Whether batches are refused.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Refuses batches from now on, or stops doing so.
    pub fn set(&self, is_stalled: bool) {
        self.0.store(is_stalled, Ordering::Release);
    }
}

/// A position of a source, opaque to everybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which position of the source, such as a file's identity; unique within the source.
    pub key: String,
    /// The position; empty to forget the key.
    pub value: Vec<u8>,
}

/// What became of a durable batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Events that are stored because of it.
    pub events: u64,
    /// Events that were stored before.
    pub duplicates: u64,
    /// What became a dead letter.
    pub rejects: u64,
}

/// Why nothing of a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No room; the same batch may be accepted later.
    #[error("the spool is full")]
    Full,
    /// An earlier batch of the source was refused; see [`Batch::stalled`].
    #[error("an earlier batch was refused")]
    Stalled,
    /// The pipeline stops; nothing more is accepted.
    #[error("shutting down")]
    Closed,
}

/// What a source noticed about the audit trail itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// One sentence for a person, with the exact names of files.
    pub text: String,
    /// What it is about: a path, or a receiver's name.
    pub subject: String,
    /// Bytes that are lost for good, where they are known.
    pub lost_bytes: Option<u64>,
}

/// The kinds of [`Notice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoticeKind {
    /// Files that were not read to their end are gone.
    Gap,
    /// A file became shorter than what was read of it.
    Truncated,
    /// The file was unlinked while it was being written.
    Unlinked,
    /// Nothing arrived for longer than configured.
    Silent,
    /// Something arrives again.
    Resumed,
    /// Bytes cannot be read (EIO, a damaged gzip member, permissions).
    Unreadable,
}

impl NoticeKind {
    /// The kind as a word for records and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Gap => "gap",
            NoticeKind::Truncated => "truncated",
            NoticeKind::Unlinked => "unlinked",
            NoticeKind::Silent => "silent",
            NoticeKind::Resumed => "resumed",
            NoticeKind::Unreadable => "unreadable",
        }
    }
}
