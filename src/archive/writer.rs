//! The writer: appends batches of the spool to the log, each durable and provable when it returns.
//!
//! ```text
//! seal     items -> segments, records, signed commits           nothing has left the process
//! intent   the exact bytes of all of them, on the own disk      at most one N is ever signed
//! segments create data/…        exists: must be the same bytes
//! commits  create commit/N …    exists: must be the same bytes, or FORK   <== committed
//! floor    size, root and spool number, on the own disk         the store may never be behind
//! tiles    create tile/…        derived; made again when lost
//! ```
//! Killed anywhere, a writer that kept its disk ends with the same bytes; one that lost it goes on
//! behind the last commit and says in a record that it did. Items that are in the log already are
//! passed over, so whoever reads the spool may read again what it read before.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::archive::cosigners::{self, Asked, Cosigners};
use crate::archive::fringe::{Derived, Fringe};
use crate::archive::keys::{self, KEY};
use crate::archive::kms;
use crate::archive::layout::{COMMITS, commit_key};
use crate::archive::note::Verifier;
use crate::archive::proof::Proof;
use crate::archive::record::{Kind, Record};
use crate::archive::recover::{self, read_commit};
use crate::archive::seal::{Draft, Item, Seal, segments};
use crate::archive::signatory::Signatory;
use crate::archive::state::{Floor, Intent, Last, State};
use crate::archive::store::{self, Put, Store};
use crate::archive::tree::{Frontier, leaf_hash};
use crate::archive::writer::head::{
    conditional, first_commit, new_floor, with_floor, without_floor,
};
use crate::archive::{segment, state};

mod head;
mod publish;

/// Uploads of one append under way at a time.
const UPLOADS: usize = 4;

/// Why nothing can be appended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The writer's own disk.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The log that was found.
    #[error(transparent)]
    Log(#[from] recover::Error),
    /// A segment could not be made.
    #[error("cannot seal a segment: {0}")]
    Seal(std::io::Error),
    /// A record would not fit.
    #[error("a record would be larger than {} bytes", crate::archive::record::RECORD_BYTES_MAX)]
    TooLarge,
    /// Somebody else wrote this object: another writer with this key and prefix, or an attacker.
    #[error("FORK: {0} exists with other bytes; is another writer using this key and prefix?")]
    Fork(String),
    /// The store is behind what this writer signed.
    #[error(
        "ROLLBACK: the store has {found} records, {expected} were signed; run `kubewitness verify`"
    )]
    Rollback {
        /// Records in the store.
        found: u64,
        /// Records that are known to have been committed.
        expected: u64,
    },
    /// The state directory is of another log.
    #[error("the state directory is of the log {0}; give each log its own, or its present key")]
    OtherLog(String),
    /// A witness says that this log is not what it was.
    #[error("the witness {witness} does not cosign: {refusal}; run `kubewitness verify`")]
    Refused {
        /// Its name in the policy.
        witness: String,
        /// What it says.
        refusal: cosigners::Refusal,
    },
    /// Too few witnesses cosigned, and they are required.
    #[error("not enough witnesses cosigned record {size}: {reason}")]
    Unwitnessed {
        /// Records.
        size: u64,
        /// Why those that did not did not.
        reason: String,
    },
    /// What witnesses ask for cannot be had.
    #[error(transparent)]
    Cosigners(#[from] cosigners::Error),
    /// The store creates what exists: two writers could fork a log in it.
    #[error("the store created {0} again; use one that knows conditional writes (If-None-Match)")]
    Unconditional(String),
    /// The key service does not sign.
    #[error("cannot sign: {0}")]
    Kms(kms::Error),
    /// Nothing is appended to a log that was closed.
    #[error("the log was closed with record {0}; begin another one, with another key")]
    Closed(u64),
}

impl Error {
    /// True when the same call may succeed later without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        let store = match self {
            Error::Store(error) | Error::Log(recover::Error::Store(error)) => error,
            Error::State(state::Error::Io { .. })
            | Error::Unwitnessed { .. }
            | Error::Kms(kms::Error::Unavailable { .. }) => return true,
            Error::Cosigners(cosigners::Error::Store(error)) => error,
            _ => return false,
        };
        matches!(store, store::Error::Unavailable { .. })
    }
}

/// How a writer works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Days for which the store keeps what it is given; records say until when.
    pub retention_days: Option<u32>,
    /// Microseconds between publications of open tiles and of `checkpoint`.
    pub publish_us: i64,
    /// Whether the object `checkpoint` is written, the only one that is ever replaced.
    pub has_pointer: bool,
    /// Who cosigns the log's checkpoints.
    pub cosigners: Option<Arc<Cosigners>>,
}

impl Default for Options {
    fn default() -> Options {
        let publish_us = 60_000_000;
        Options { retention_days: None, publish_us, has_pointer: true, cosigners: None }
    }
}

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Records that were committed.
    pub records: u64,
    /// Items in them.
    pub items: u64,
    /// Items that were in the log already.
    pub repeated: u64,
    /// Bytes of the items' lines, ends included.
    pub line_bytes: u64,
    /// Bytes of the segments that hold them.
    pub stored_bytes: u64,
}

/// The one writer of a log.
pub struct Writer {
    store: Arc<dyn Store>,
    signer: Signatory,
    /// The signer's key, and those before it.
    key: Verifier,
    state: State,
    options: Options,
    floor: Floor,
    frontier: Frontier,
    fringe: Fringe,
    note: String,
    pending: Option<Intent>,
    tiles: VecDeque<Derived>,
    published: (u64, i64),
    /// The newest head that enough witnesses cosigned, with their signatures.
    witnessed: Option<(u64, String)>,
    /// What witnesses answered last, until somebody takes it.
    asked: Option<Asked>,
    /// The checkpoint as it was published.
    checkpoint: String,
}

impl Writer {
    /// Opens the log, ends what a killed writer began, and begins the log where there is none.
    ///
    /// # Errors
    /// The store or disk cannot be used; the log is not as this writer left it ([`Error::Fork`],
    /// [`Error::Rollback`]).
    pub async fn open(
        store: Arc<dyn Store>,
        signer: impl Into<Signatory>,
        state_dir: &Path,
        options: Options,
        now_us: i64,
    ) -> Result<Writer, Error> {
        Writer::open_with(store, signer.into(), State::open(state_dir)?, options, now_us).await
    }

    pub(crate) async fn open_with(
        store: Arc<dyn Store>,
        signer: impl Into<Signatory>,
        state: State,
        options: Options,
        now_us: i64,
    ) -> Result<Writer, Error> {
        let signer = signer.into();
        let known = state.floor()?;
        let own = signer.verifier().to_string();
        if let Some(floor) = known.as_ref().filter(|floor| floor.key != own) {
            return Err(Error::OtherLog(floor.key.clone()));
        }
        let key = keys::follow(&*store, signer.verifier()).await?;
        if known.is_none() && key.to_string() != own {
            return Err(Error::OtherLog(key.to_string()));
        }
        let intent = state.intent()?;
        let size = match &known {
            Some(floor) => with_floor(&*store, floor, intent.as_ref()).await?,
            None => without_floor(&*store, &key).await?,
        };
        let head = match size.checked_sub(1) {
            Some(last) => Some(read_commit(&*store, last, &key).await?),
            None => None,
        };
        if let Some(head) = head.as_ref().filter(|head| head.record.kind == Kind::Close) {
            return Err(Error::Closed(head.record.seq));
        }
        let frontier = head.as_ref().map_or(Some(Frontier::default()), |head| head.frontier());
        let frontier = frontier.ok_or(Error::Fork(commit_key(size)))?;
        let is_lost = known.is_none() && size > 0;
        let floor = known.unwrap_or_else(|| new_floor(&own, &frontier));
        if floor.root != frontier.root() {
            return Err(Error::Fork(commit_key(size.saturating_sub(1))));
        }
        state.write_floor(&floor)?;
        let fringe = recover::fringe(&*store, &frontier).await?;
        let tiles = recover::missing_tiles(&*store, size).await?.into();
        let note = head.map(|head| head.proof.note).unwrap_or_default();
        let pending = intent.filter(|intent| first_commit(intent) == Some(size));
        let published = (0, now_us);
        let mut writer = Writer {
            store,
            signer,
            key,
            state,
            options,
            floor,
            frontier,
            fringe,
            note,
            pending,
            tiles,
            published,
            witnessed: None,
            asked: None,
            checkpoint: String::new(),
        };
        writer.settle().await?;
        if writer.floor.key != own {
            return Err(Error::OtherLog(writer.floor.key));
        }
        if is_lost {
            writer.meet_witnesses().await?;
        }
        writer.begin(is_lost, now_us).await?;
        conditional(&*writer.store, writer.floor.size).await?;
        Ok(writer)
    }

    /// The log's records so far.
    pub fn size(&self) -> u64 {
        self.floor.size
    }

    /// Up to this number the spool is in the log.
    pub fn through(&self) -> u64 {
        self.floor.through
    }

    /// The newest signed checkpoint: what other sinks are to keep. It has the signatures of
    /// witnesses where they have cosigned this one.
    pub fn checkpoint(&self) -> &str {
        let witnessed = self.witnessed.as_ref().filter(|(size, _)| *size == self.floor.size);
        witnessed.map_or(&self.note, |(_, note)| note)
    }

    /// The newest head that enough witnesses cosigned; 0 when there is none since the start.
    pub fn witnessed(&self) -> u64 {
        self.witnessed.as_ref().map_or(0, |(size, _)| *size)
    }

    /// Records of the checkpoint that was published last; 0 before the first.
    pub fn published(&self) -> u64 {
        self.published.0
    }

    /// The checkpoint that was published last: what the other sinks are to keep.
    pub fn published_checkpoint(&self) -> &str {
        &self.checkpoint
    }

    /// What witnesses answered since it was taken last.
    pub fn take_asked(&mut self) -> Option<Asked> {
        self.asked.take()
    }

    /// Whether the tiles and the checkpoint are due to be written.
    pub fn is_publication_due(&self, now_us: i64) -> bool {
        let is_due = now_us.saturating_sub(self.published.1) >= self.options.publish_us;
        is_due && self.published.0 != self.floor.size
    }

    /// Appends items, in the order of the spool, and says that the spool is archived up to
    /// `through`. When it returns, all of them are committed; after an error some may be, and the
    /// same call, or one with more items, ends what it began. Memory: the items compressed.
    ///
    /// # Errors
    /// [`Error::is_retryable`] tells whether to call again.
    pub async fn append(
        &mut self,
        items: &[Item<'_>],
        through: u64,
        now_us: i64,
    ) -> Result<Appended, Error> {
        self.settle().await?;
        let mut known = items.partition_point(|item| item.line.seq <= self.floor.through);
        if known > 0 && !self.is_same_spool(&items[..known]) {
            self.begin_spool(now_us).await?;
            known = 0;
        }
        let (repeated, items) = items.split_at(known);
        let last = items.last().map(|item| (item.line.seq, leaf_hash(item.line.raw)));
        let drafts = segments(items).await.map_err(Error::Seal)?;
        let records = drafts.len() as u64;
        let sealed = || drafts.iter().filter_map(|draft| draft.segment.as_ref());
        let line_bytes = sealed().map(|(_, sealed)| sealed.raw_size).sum();
        let stored_bytes = sealed().map(|(_, sealed)| sealed.bytes.len() as u64).sum();
        if records > 0 {
            self.commit(drafts, through, last, now_us).await?;
        }
        if self.options.cosigners.as_ref().is_some_and(|it| it.is_required()) {
            // What is not cosigned is not archived: the caller comes again with the same items.
            self.publish(now_us).await?;
        } else if self.is_publication_due(now_us) {
            let published = self.publish(now_us).await;
            if let Err(error) = published {
                tracing::warn!(%error, "tiles of the archive not published, will be again");
            }
        }
        let (items, repeated) = (items.len() as u64, repeated.len() as u64);
        Ok(Appended { records, items, repeated, line_bytes, stored_bytes })
    }

    /// Whether items with numbers that are archived are those that were: the last line is among
    /// them. Where it is not, archiving a line twice is better than never.
    fn is_same_spool(&self, items: &[Item<'_>]) -> bool {
        let (seq, hash) = self.floor.last;
        items.iter().any(|item| item.line.seq == seq && leaf_hash(item.line.raw) == hash)
    }

    /// Appends a record that says something (`start`, `alive`, `stop`), so that silence can be told
    /// from loss.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn mark(&mut self, word: &str, now_us: i64) -> Result<(), Error> {
        self.settle().await?;
        let mark = Draft::says(Kind::Mark, &[("mark", word)]);
        self.commit(vec![mark], 0, None, now_us).await
    }

    pub(crate) async fn commit(
        &mut self,
        drafts: Vec<Draft>,
        through: u64,
        last: Option<Last>,
        now_us: i64,
    ) -> Result<(), Error> {
        self.commit_with(drafts, None, through, last, now_us).await
    }

    async fn commit_with(
        &mut self,
        drafts: Vec<Draft>,
        next: Option<&Signatory>,
        through: u64,
        last: Option<Last>,
        now_us: i64,
    ) -> Result<(), Error> {
        let seal = Seal {
            signer: &self.signer,
            next,
            spool: &self.floor.spool,
            after: self.floor.through,
            through: through.max(self.floor.through),
            last: last.unwrap_or(self.floor.last),
            now_us,
            retention_days: self.options.retention_days,
        };
        let intent = seal.intent(&self.frontier, drafts).await.map_err(Error::Kms)?;
        let intent = intent.ok_or(Error::TooLarge)?;
        self.state.write_intent(&intent)?;
        self.pending = Some(intent);
        self.settle().await
    }

    /// Ends what was begun: the pending commits, then the tiles that they filled.
    async fn settle(&mut self) -> Result<(), Error> {
        if let Some(intent) = &self.pending {
            let (commits, others): (Vec<_>, Vec<_>) =
                intent.objects.iter().cloned().partition(|(key, _)| key.starts_with(COMMITS));
            let uploads = stream::iter(others).map(|(key, bytes)| {
                let writer = &*self;
                async move { writer.same(&key, bytes).await }
            });
            uploads.buffer_unordered(UPLOADS).try_collect::<()>().await?;
            for (key, bytes) in &commits {
                self.same(key, bytes.clone()).await?;
            }
            let last = intent.last;
            self.advance(&commits, last)?;
        }
        while let Some((key, bytes)) = self.tiles.front() {
            self.same(key, Bytes::from(bytes.clone())).await?;
            self.tiles.pop_front();
        }
        Ok(())
    }

    /// Moves the head behind commits that are in the store.
    fn advance(&mut self, commits: &[(String, Bytes)], last: Last) -> Result<(), Error> {
        let (mut frontier, mut floor) = (self.frontier.clone(), self.floor.clone());
        let (mut records, mut note) = (Vec::new(), self.note.clone());
        for (key, bytes) in commits {
            let proof = Proof::decode(bytes).map_err(|_| Error::Fork(key.clone()))?;
            let record = Record::decode(&proof.extra).ok_or_else(|| Error::Fork(key.clone()))?;
            frontier.push(leaf_hash(&proof.extra));
            floor.through = floor.through.max(record.through);
            if let (Kind::Key, Some(key)) = (record.kind, record.says.get(KEY)) {
                floor.key.clone_from(key);
            }
            records.push(proof.extra);
            note = proof.note;
        }
        (floor.size, floor.root) = (frontier.size(), frontier.root());
        floor.last = last;
        self.state.write_floor(&floor)?;
        (self.frontier, self.floor, self.note) = (frontier, floor, note);
        for record in records {
            self.tiles.extend(self.fringe.push(record));
        }
        self.pending = None;
        // A left-over intent is known by its place, so failing to remove it does no harm.
        Ok(self.state.remove_intent()?)
    }

    /// Creates an object, or finds it with the same bytes.
    async fn same(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        if self.store.create(key, bytes.clone()).await? == Put::Created {
            return Ok(());
        }
        match self.store.read(key, bytes.len() as u64).await {
            Ok(Some(found)) if found == bytes => Ok(()),
            Ok(None) => Err(Error::Store(store::Error::Unavailable {
                operation: "create",
                key: key.to_owned(),
                source: "it is being created by somebody, or is deleted".into(),
            })),
            Ok(_) | Err(store::Error::TooLarge { .. }) => Err(Error::Fork(key.to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<segment::Error> for Error {
    fn from(error: segment::Error) -> Error {
        Error::Seal(std::io::Error::other(error))
    }
}
