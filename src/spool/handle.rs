//! `Spool` itself: opens the directory, starts the writer, hands out cursors and snapshots.

use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::spool::catalog::{Catalog, DamageLog, Position, Positions};
use crate::spool::cursor::{self, Cursor, Start};
use crate::spool::dead_letter::DeadLetters;
use crate::spool::disk::{Disk, is_exhausted};
use crate::spool::reader::Reader;
use crate::spool::record::Batch;
use crate::spool::recover::{Places, recover};
use crate::spool::retention::Lag;
use crate::spool::snapshot::{self, Snapshot};
use crate::spool::writer::{Appended, Appender, Counts, Writer, run};
use crate::spool::{Damage, Error, Options, Recovery, blocking, check_name, guard};

/// What a spool holds and what its writer did since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Oldest sequence number held; one more than `seq_durable` when none is.
    pub seq_oldest: u64,
    /// Last durable sequence number; 0 before the first.
    pub seq_durable: u64,
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes appended, frame headers included.
    pub appended_bytes: u64,
    /// Groups of batches: about the number of syncs.
    pub groups: u64,
    /// Batches answered with an error.
    pub refused: u64,
    /// Bytes of batches that wait for the writer or are being written.
    pub waiting_bytes: u64,
    /// Damages met while opening and reading.
    pub damages: u64,
}

/// The durable middle: what was appended is read by every cursor, in order, at least once.
///
/// Owns its directory: a second `open` is refused until this one, its cursors, readers and its
/// writer's thread are gone. Dropping it lets the writer finish what was submitted.
pub struct Spool {
    catalog: Arc<Catalog>,
    counts: Arc<Counts>,
    appender: Appender,
    durable: watch::Receiver<u64>,
    dead_letters: DeadLetters,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Spool {
    /// Opens a spool, creating it if it is new, and recovers what a crash left. Blocks: it reads
    /// the last segment and all dead letters, and syncs.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Locked`], [`Error::Version`] (nothing was changed),
    /// [`Error::Io`]. Damage is no error: it is in [`Recovery`].
    pub fn open(dir: &Path, options: Options) -> Result<(Spool, Recovery), Error> {
        options.check()?;
        Disk::Real.create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
        let lock = lock(dir)?;
        Spool::open_on(Disk::Real, dir, options, Some(lock))
    }

    /// Opens a spool on a disk that a test may simulate, and starts its writer.
    pub(crate) fn open_on(
        disk: Disk,
        dir: &Path,
        options: Options,
        lock: Option<std::fs::File>,
    ) -> Result<(Spool, Recovery), Error> {
        let (writer, recovery, opened) = open(disk, dir, options, lock)?;
        let Opened { catalog, counts, durable, dead_letters } = opened;
        let limits = &catalog.options;
        let (appender, receiver) = Appender::new(limits.waiting_bytes_max, limits.batch_bytes_max);
        let thread = std::thread::Builder::new()
            .name("spool-writer".to_owned())
            .spawn(move || run(writer, receiver))
            .map_err(|e| Error::io("start the writer of", dir, e))?;
        let thread = Some(thread);
        Ok((Spool { catalog, counts, appender, durable, dead_letters, thread }, recovery))
    }

    /// A sender of batches, for a source's task to keep.
    pub fn appender(&self) -> Appender {
        self.appender.clone()
    }

    /// Appends a batch; see [`Appender::append`].
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub async fn append(&self, batch: Batch) -> Result<Appended, Error> {
        self.appender.append(batch).await
    }

    /// Opens a cursor; one that was never there is created, durably, at `start`.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::CursorBusy`], [`Error::Io`].
    pub async fn cursor(&self, name: &str, start: Start) -> Result<Cursor, Error> {
        let (catalog, durable) = (self.catalog.clone(), self.durable.clone());
        let name = name.to_owned();
        blocking(move || Cursor::open(catalog, durable, &name, start)).await
    }

    /// Names of all cursors, open or not, with what each has last acknowledged and its lag.
    pub fn cursors(&self) -> Vec<(String, u64, Lag)> {
        cursors(&self.catalog)
    }

    /// Removes a cursor that is configured away, and what only it held. Returns its lag: what it
    /// will never deliver. One that does not exist has none.
    ///
    /// # Errors
    /// [`Error::CursorBusy`], [`Error::Name`], [`Error::Io`].
    pub async fn remove_cursor(&self, name: &str) -> Result<Lag, Error> {
        check_name(name)?;
        let (catalog, name) = (self.catalog.clone(), name.to_owned());
        blocking(move || {
            let Some(position) = guard(&catalog.cursors).get(&name).cloned() else {
                return Ok(Lag::default());
            };
            if position.is_open.swap(true, Ordering::AcqRel) {
                return Err(Error::CursorBusy { name });
            }
            let lag = catalog.lag(position.acked.load(Ordering::Acquire));
            let removed = guard(&position.slot).remove();
            position.is_open.store(false, Ordering::Release);
            removed?;
            guard(&catalog.cursors).remove(&name);
            catalog.retain(0)?;
            Ok(lag)
        })
        .await
    }

    /// Reads from a sequence number on, without a position of its own: for what follows a
    /// snapshot, which holds it.
    pub fn reader(&self, seq: u64) -> Reader {
        Reader::new(self.catalog.clone(), self.durable.clone(), seq.max(1))
    }

    /// Replaces the snapshot of that name: a state that holds everything up to and including
    /// `seq`. Durable on return. What follows is held back from retention; so write the first one
    /// before the first record that it must not miss.
    ///
    /// # Errors
    /// [`Error::SeqBehind`] when records that follow it are gone, [`Error::SeqAhead`] when `seq` is
    /// not durable yet, [`Error::SnapshotTooLarge`],
    /// [`Error::Name`], [`Error::Io`]; the old snapshot stands.
    pub async fn write_snapshot(&self, name: &str, snapshot: Snapshot) -> Result<(), Error> {
        let (catalog, name) = (self.catalog.clone(), name.to_owned());
        blocking(move || snapshot::write(&catalog, &name, snapshot.seq, &snapshot.bytes)).await
    }

    /// The newest snapshot of that name that can be read.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Io`].
    pub async fn read_snapshot(&self, name: &str) -> Result<Option<Snapshot>, Error> {
        let (catalog, name) = (self.catalog.clone(), name.to_owned());
        blocking(move || snapshot::read(&catalog, &name)).await
    }

    /// The record behind which nothing is held back for the snapshots of that name: the elder of
    /// the two that are kept reaches so far.
    pub fn seq_held(&self, name: &str) -> Option<u64> {
        let snapshots = guard(&self.catalog.snapshots);
        snapshots.get(name).map(|position| position.stored.load(Ordering::Acquire))
    }

    /// Removes a snapshot, and what only it held; one that does not exist is fine.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Io`].
    pub async fn remove_snapshot(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let (catalog, name) = (self.catalog.clone(), name.to_owned());
        blocking(move || {
            let Some(position) = guard(&catalog.snapshots).get(&name).cloned() else {
                return Ok(());
            };
            guard(&position.slot).remove()?;
            guard(&catalog.snapshots).remove(&name);
            catalog.retain(0)
        })
        .await
    }

    /// The store of what could not be used or delivered.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.dead_letters
    }

    /// Damages met while opening and reading, the first thousand.
    pub fn damages(&self) -> Vec<Damage> {
        guard(&self.catalog.damages).kept.clone()
    }

    /// What the spool holds and what its writer did.
    pub fn stats(&self) -> Stats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let segments = guard(&self.catalog.spans).len() as u64;
        let damages = guard(&self.catalog.damages).total;
        Stats {
            bytes: self.catalog.bytes(),
            segments,
            seq_oldest: self.catalog.seq_oldest(),
            seq_durable: self.catalog.seq_durable(),
            batches: read(&counts.batches),
            records: read(&counts.records),
            appended_bytes: read(&counts.bytes),
            groups: read(&counts.groups),
            refused: read(&counts.refused),
            waiting_bytes: self.appender.waiting_bytes(),
            damages,
        }
    }

    /// Lets the writer finish what was submitted, ends it, and stores every cursor's position.
    /// Cursors that are still open read what is left and then get [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::Io`] when a position could not be stored.
    pub async fn close(mut self) -> Result<(), Error> {
        self.appender.close();
        let (thread, catalog) = (self.thread.take(), self.catalog.clone());
        blocking(move || {
            if let Some(Err(panic)) = thread.map(std::thread::JoinHandle::join) {
                std::panic::resume_unwind(panic);
            }
            catalog.store_cursors()
        })
        .await
    }
}

/// Takes the directory's lock, or names who has it.
fn lock(dir: &Path) -> Result<std::fs::File, Error> {
    let path = dir.join("lock");
    let io = |e| Error::io("lock", &path, e);
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The owner may not have written it yet.
            drop(Read::take(&mut file, 20).read_to_string(&mut pid));
            let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
            return Err(Error::Locked { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let write = |file: &mut std::fs::File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    // The number is for people alone; a disk without room for it holds what is to be delivered.
    match write(&mut file) {
        Err(error) if !is_exhausted(&error) => Err(io(error)),
        _ => Ok(file),
    }
}

/// What `Spool` is made of, beside the writer.
pub(crate) struct Opened {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) durable: watch::Receiver<u64>,
    pub(crate) dead_letters: DeadLetters,
}

/// Recovers a spool and makes its writer, which the caller runs.
pub(crate) fn open(
    disk: Disk,
    dir: &Path,
    options: Options,
    lock: Option<std::fs::File>,
) -> Result<(Writer, Recovery, Opened), Error> {
    let made = ["segments", "cursors", "snapshots", "quarantine", "dead-letters"]
        .iter()
        .try_for_each(|name| disk.create_dir(&dir.join(name)))
        .and_then(|()| disk.sync_dir(dir));
    made.map_err(|e| Error::io("create", dir, e))?;
    let (cursors, mut damages) = cursor::open_all(&disk, &dir.join("cursors"))?;
    let (snapshots, met) = snapshot::open_all(&disk, &dir.join("snapshots"))?;
    damages.extend(met);

    let acked = |(_, position): &(String, Position)| position.acked.load(Ordering::Acquire);
    let stored = |(_, position): &(String, Position)| position.stored.load(Ordering::Acquire);
    let seq_min = cursors.iter().chain(&snapshots).map(acked).max().unwrap_or(0) + 1;
    let floor = cursors.iter().chain(&snapshots).map(stored).min().unwrap_or(0) + 1;
    let places = Places {
        disk: &disk,
        segments: dir.join("segments"),
        quarantine: dir.join("quarantine"),
        options: &options,
    };
    let mut recovered = recover(&places, floor, seq_min)?;
    let oldest = recovered.spans.first().map_or(recovered.seq_next, |span| span.seq_first);
    // A position of a damaged file may lie before what retention has left.
    for (_, position) in cursors.iter().filter(|(name, _)| is_damaged(&damages, name)) {
        position.acked.fetch_max(oldest - 1, Ordering::AcqRel);
        position.stored.fetch_max(oldest - 1, Ordering::AcqRel);
    }
    damages.append(&mut recovered.damages);

    let dead_letters = DeadLetters::open(&disk, &dir.join("dead-letters"), &options)?;
    damages.extend(dead_letters.damages());
    dead_letters.tidy()?;
    let by_name = |found: Vec<(String, Position)>| -> Positions {
        found.into_iter().map(|(name, position)| (name, Arc::new(position))).collect()
    };
    let catalog = Arc::new(Catalog {
        disk,
        dir: dir.to_owned(),
        options,
        spans: Mutex::new(recovered.spans.into()),
        cursors: Mutex::new(by_name(cursors)),
        snapshots: Mutex::new(by_name(snapshots)),
        damages: Mutex::new(DamageLog::default()),
        retaining: Mutex::new(()),
        _lock: lock,
    });
    damages.iter().for_each(|damage| catalog.note(damage));
    let (sender, durable) = watch::channel(0);
    let counts = Arc::new(Counts::default());
    let writer = Writer::open(catalog.clone(), counts.clone(), sender, recovered.seq_next)?;
    catalog.retain(0)?;
    let recovery = Recovery {
        torn: recovered.torn,
        torn_copy: recovered.torn_copy,
        damages,
        cursors: self::cursors(&catalog).into_iter().map(|(name, _, lag)| (name, lag)).collect(),
    };
    Ok((writer, recovery, Opened { catalog, counts, durable, dead_letters }))
}

fn is_damaged(damages: &[Damage], cursor: &str) -> bool {
    let stem = |damage: &Damage| {
        let path = Path::new(&damage.file);
        let is_cursor = path.parent().is_some_and(|dir| dir.ends_with("cursors"));
        is_cursor && path.file_stem().is_some_and(|stem| stem == cursor)
    };
    damages.iter().any(stem)
}

fn cursors(catalog: &Catalog) -> Vec<(String, u64, Lag)> {
    let positions = guard(&catalog.cursors);
    let each = positions.iter().map(|(name, position)| {
        let acked = position.acked.load(Ordering::Acquire);
        (name.clone(), acked, catalog.lag(acked))
    });
    each.collect()
}
