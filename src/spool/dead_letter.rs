//! What could not be used or delivered, kept readable for a person to inspect and re-drive.
//!
//! ```text
//! <dir>/<id_first>.seg            segments of record.rs frames, kind 1; a sequence number is an id
//! <dir>/<id_first>.{0,1}          slots (slot.rs): ids of that segment that were removed, u64 each
//!
//! struct Payload {                // little-endian
//!   version: u8,                  // 2; without `head`: 1
//!   is_sealed: u8,                // 1 when `bytes` can be read only with the configured key
//!   attempts: u32,
//!   at_us: i64,                   // microseconds since 1970
//!   reason, source, position: { bytes: u32, text: [u8; bytes] },
//!   head: { bytes: u32, head: [u8; bytes] },
//!   bytes: [u8],                  // the rest
//! }
//! ```
//!
//! Letters are synced before `append` returns. A file is written by one process only, so a torn
//! tail needs no cutting: it is passed over. A segment whose letters are all removed is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::spool::disk::{Disk, is_exhausted};
use crate::spool::record::Batch;
use crate::spool::segment::{Opened, SEGMENT_HEADER_BYTES, Scan, Segment, SegmentHeader, Step};
use crate::spool::slot::Slot;
use crate::spool::{Damage, Error, Options, Reason, blocking, guard, segment, slot};

const KIND: u8 = 1;
const VERSION: u8 = 2;
const FIXED_BYTES: usize = 14;
/// A segment of letters is closed beyond this; also the grain in which space is given back.
const SEGMENT_BYTES: u64 = 4 << 20;

/// How long and how often `append_patiently` waits for files.
const FILES_RETRY: Duration = Duration::from_millis(100);
const FILES_RETRIES_MAX: u32 = 100;

/// Input that could not be used, or a record that a sink refused for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// When it was given up, in microseconds since 1970.
    pub at_us: i64,
    /// Why, as a word of a closed set.
    pub reason: String,
    /// The source it came from, or the sink that refused it.
    pub source: String,
    /// Where it was: file and offset, request, or sequence number.
    pub position: String,
    /// How often it was tried.
    pub attempts: u32,
    /// True when `bytes` can be read only with the key they were sealed to.
    pub is_sealed: bool,
    /// Of an event that a sink refused: what stands before its bytes in the spool's record.
    pub head: Vec<u8>,
    /// What is kept of it.
    pub bytes: Vec<u8>,
}

/// A dead letter and its name in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// Given by the store, never again to another letter.
    pub id: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// The store of dead letters; clones share it.
#[derive(Clone)]
pub struct DeadLetters(Arc<Mutex<Store>>);

/// One segment of letters.
struct Shelf {
    header: SegmentHeader,
    /// Bytes of the file that were readable when it was opened, or were appended since.
    bytes: u64,
    letters: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    slot: Slot,
    is_damaged: bool,
}

struct Store {
    disk: Disk,
    dir: PathBuf,
    bytes_max: u64,
    letters_max: u64,
    letter_bytes_max: u64,
    /// By first id.
    shelves: BTreeMap<u64, Shelf>,
    active: Option<Segment>,
    id_next: u64,
    poison: Option<String>,
    damages: Vec<Damage>,
    /// Files that a crash left before their first letter.
    unused: Vec<PathBuf>,
}

impl DeadLetters {
    /// Opens the store by reading all of it. Changes nothing.
    pub(crate) fn open(disk: &Disk, dir: &Path, options: &Options) -> Result<DeadLetters, Error> {
        let mut store = Store {
            disk: disk.clone(),
            dir: dir.to_owned(),
            bytes_max: options.dead_letter_bytes_max,
            letters_max: options.dead_letters_max,
            letter_bytes_max: options.batch_bytes_max,
            shelves: BTreeMap::new(),
            active: None,
            id_next: 1,
            poison: None,
            damages: Vec::new(),
            unused: Vec::new(),
        };
        for name in disk.list(dir).map_err(|e| Error::io("list", dir, e))? {
            if let Some(id_first) = segment::seq_in_name(&name) {
                store.load(id_first, name)?;
            }
        }
        Ok(DeadLetters(Arc::new(Mutex::new(store))))
    }

    /// Removes what a crash left: files without letters, and lists of letters that are gone.
    pub(crate) fn tidy(&self) -> Result<(), Error> {
        guard(&self.0).tidy()
    }

    /// Keeps letters; they are durable on return.
    ///
    /// # Errors
    /// [`Error::DeadLettersFull`], [`Error::DiskFull`]: none was kept. [`Error::Poisoned`],
    /// [`Error::Io`]: the process must exit and open the spool again.
    pub async fn append(&self, letters: Vec<DeadLetter>) -> Result<(), Error> {
        let store = self.0.clone();
        blocking(move || guard(&store).append(&letters)).await
    }

    /// As `append`; tries again for a while where only open files are wanting.
    ///
    /// # Errors
    /// As `append`.
    pub async fn append_patiently(&self, letters: Vec<DeadLetter>) -> Result<(), Error> {
        for _ in 0..FILES_RETRIES_MAX {
            match self.append(letters.clone()).await {
                Err(error) if error.lacks_files() => tokio::time::sleep(FILES_RETRY).await,
                result => return result,
            }
        }
        self.append(letters).await
    }

    /// The letters behind `id` (0 for the first), at most `letters_max` of them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn read(&self, id: u64, letters_max: usize) -> Result<Vec<StoredLetter>, Error> {
        let store = self.0.clone();
        blocking(move || guard(&store).read(id, letters_max)).await
    }

    /// As `append`, for a caller that may block.
    #[cfg(test)]
    pub(crate) fn append_blocking(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        guard(&self.0).append(letters)
    }

    /// As `remove`, for a caller that may block.
    #[cfg(test)]
    pub(crate) fn remove_blocking(&self, ids: &[u64]) -> Result<u64, Error> {
        guard(&self.0).remove(ids)
    }

    /// As `read`, for a caller that may block.
    pub(crate) fn read_blocking(
        &self,
        id: u64,
        letters_max: usize,
    ) -> Result<Vec<StoredLetter>, Error> {
        guard(&self.0).read(id, letters_max)
    }

    /// Removes letters, durably; ids that are not there are ignored. Returns how many were.
    ///
    /// # Errors
    /// [`Error::Io`]; some may have been removed.
    pub async fn remove(&self, ids: Vec<u64>) -> Result<u64, Error> {
        let store = self.0.clone();
        blocking(move || guard(&store).remove(&ids)).await
    }

    /// Number of letters, and bytes of their files.
    pub fn size(&self) -> (u64, u64) {
        let store = guard(&self.0);
        (store.letters(), store.bytes())
    }

    /// Damages met while opening.
    pub fn damages(&self) -> Vec<Damage> {
        guard(&self.0).damages.clone()
    }
}

impl Store {
    fn letters(&self) -> u64 {
        self.shelves.values().map(|shelf| shelf.letters.len() as u64).sum()
    }

    fn bytes(&self) -> u64 {
        self.shelves.values().map(|shelf| shelf.bytes).sum()
    }

    fn path(&self, id_first: u64) -> PathBuf {
        self.dir.join(segment::file_name(id_first))
    }

    fn slot(&self, id_first: u64) -> Result<(Slot, BTreeSet<u64>, Vec<Damage>), Error> {
        let name = format!("{id_first:020}");
        let (slot, content, damages) = Slot::open(&self.disk, self.dir.clone(), &name)?;
        let (ids, _) = content.as_ref().map_or(&[][..], |content| &content.payload).as_chunks();
        Ok((slot, ids.iter().map(|id| u64::from_le_bytes(*id)).collect(), damages))
    }

    fn scan(&self, id_first: u64, header: SegmentHeader, bytes: u64) -> Result<Scan, Error> {
        let path = self.path(id_first);
        let file = self.disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
        Ok(Scan::new(file, path, header, bytes))
    }

    /// Takes up one file of an earlier process.
    fn load(&mut self, id_first: u64, name: String) -> Result<(), Error> {
        let path = self.path(id_first);
        let file = self.disk.open(&path).map_err(|e| Error::io("open", &path, e))?;
        let bytes = file.len().map_err(|e| Error::io("read", &path, e))?;
        self.id_next = self.id_next.max(id_first + 1 + bytes / 32);
        let header = match SegmentHeader::read(&file, &path)? {
            Opened::Segment(header) => header,
            Opened::Version(found) => return Err(Error::Version { path, found, supported: 1 }),
            // The header is synced before the first letter is written.
            Opened::Damaged if bytes <= SEGMENT_HEADER_BYTES => {
                self.unused.push(path);
                return Ok(());
            }
            Opened::Damaged => {
                let reason = Reason::SegmentHeader;
                self.damages.push(Damage { file: name, offset: 0, bytes, reason });
                return Ok(());
            }
        };
        let (slot, removed, damages) = self.slot(id_first)?;
        self.damages.extend(damages);
        let (mut letters, mut is_damaged) = (BTreeSet::new(), false);
        let mut scan = Scan::new(file, path, header, bytes);
        loop {
            match scan.step()? {
                Step::Record(header, _) => drop(letters.insert(header.seq)),
                Step::Damage { reason: Reason::Short | Reason::Zeros, .. } => {}
                Step::Damage { offset, bytes, reason } => {
                    is_damaged = true;
                    self.damages.push(Damage { file: name.clone(), offset, bytes, reason });
                }
                Step::End => break,
            }
        }
        letters.retain(|id| !removed.contains(id));
        let shelf = Shelf { header, bytes, letters, removed, slot, is_damaged };
        self.shelves.insert(id_first, shelf);
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), Error> {
        for path in std::mem::take(&mut self.unused) {
            self.disk.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        let is_empty = |shelf: &Shelf| shelf.letters.is_empty() && !shelf.is_damaged;
        let empty: Vec<u64> = self
            .shelves
            .iter()
            .filter_map(|(id_first, shelf)| is_empty(shelf).then_some(*id_first))
            .collect();
        empty.into_iter().try_for_each(|id_first| self.clear(id_first))?;
        for name in slot::names(&self.disk, &self.dir)? {
            if let Ok(id_first) = name.parse()
                && !self.disk_has(id_first)?
            {
                self.slot(id_first)?.0.remove()?;
            }
        }
        Ok(())
    }

    fn disk_has(&self, id_first: u64) -> Result<bool, Error> {
        let path = self.path(id_first);
        match self.disk.open(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    fn append(&mut self, letters: &[DeadLetter]) -> Result<(), Error> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let mut batch = Batch::new();
        letters.iter().for_each(|letter| batch.push(KIND, &encode(letter)));
        if batch.is_empty() {
            return Ok(());
        }
        self.check(&batch)?;
        match self.write(&mut batch) {
            Ok(()) => Ok(()),
            Err((path, source)) => {
                // An unused or cut segment does no harm; the next append begins another.
                let cut = self.active.take().map_or(Ok(()), |mut active| active.cut_to_synced());
                if is_exhausted(&source) && cut.is_ok() {
                    return Err(Error::DiskFull { path, source });
                }
                self.poison = Some(format!("cannot write {}: {source}", path.display()));
                Err(Error::io("write", &path, source))
            }
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), Error> {
        let limits = [
            ("dead_letters_max", self.letters() + u64::from(batch.records()), self.letters_max),
            ("dead_letter_bytes_max", self.bytes() + batch.bytes() + 64, self.bytes_max),
        ];
        let over = limits.into_iter().find(|(_, value, limit)| value > limit);
        if let Some((name, value, limit)) = over {
            return Err(Error::DeadLettersFull { name, value, limit });
        }
        let (bytes, limit) = (batch.bytes(), self.letter_bytes_max);
        if bytes > limit { Err(Error::BatchTooLarge { bytes, limit }) } else { Ok(()) }
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), (PathBuf, std::io::Error)> {
        let is_full = |active: &Segment| active.end + batch.bytes() > SEGMENT_BYTES;
        let id_first = self.id_next;
        if self.active.as_ref().is_none_or(is_full) {
            let path = self.path(id_first);
            let (slot, _, _) = self.slot(id_first).map_err(|error| match error {
                Error::Io { path, source, .. } => (path, source),
                error => (path.clone(), std::io::Error::other(error)),
            })?;
            let created = Segment::create(&self.disk, &self.dir, id_first, 0);
            let active = created.map_err(|e| (path, e))?;
            let (header, bytes) = (active.header, active.end);
            let (letters, removed) = (BTreeSet::new(), BTreeSet::new());
            let shelf = Shelf { header, bytes, letters, removed, slot, is_damaged: false };
            self.shelves.insert(id_first, shelf);
            self.active = Some(active);
        }
        let active = self.active.as_mut().expect("just created, or found with room");
        let written = active.append(batch, id_first).and_then(|()| active.sync());
        written.map_err(|e| (active.path.clone(), e))?;
        self.id_next += u64::from(batch.records());
        if let Some(shelf) = self.shelves.get_mut(&active.header.seq_first) {
            shelf.bytes = active.end;
            shelf.letters.extend(id_first..self.id_next);
        }
        Ok(())
    }

    fn read(&self, id: u64, letters_max: usize) -> Result<Vec<StoredLetter>, Error> {
        let mut found = Vec::new();
        for (id_first, shelf) in &self.shelves {
            if shelf.letters.last().is_none_or(|last| *last <= id) {
                continue;
            }
            let mut scan = self.scan(*id_first, shelf.header, shelf.bytes)?;
            loop {
                if found.len() >= letters_max {
                    return Ok(found);
                }
                match scan.step()? {
                    Step::Record(header, payload)
                        if header.seq > id && shelf.letters.contains(&header.seq) =>
                    {
                        let letter = decode(payload).unwrap_or_else(|| unknown(payload));
                        found.push(StoredLetter { id: header.seq, letter });
                    }
                    Step::Record(..) | Step::Damage { .. } => {}
                    Step::End => break,
                }
            }
        }
        Ok(found)
    }

    fn remove(&mut self, ids: &[u64]) -> Result<u64, Error> {
        let mut count = 0;
        let shelves: Vec<u64> = self.shelves.keys().copied().collect();
        for id_first in shelves {
            let Some(shelf) = self.shelves.get_mut(&id_first) else { continue };
            let here: Vec<u64> =
                ids.iter().copied().filter(|id| shelf.letters.contains(id)).collect();
            if here.is_empty() {
                continue;
            }
            let mut removed = shelf.removed.clone();
            removed.extend(&here);
            let payload: Vec<u8> = removed.iter().flat_map(|id| id.to_le_bytes()).collect();
            shelf.slot.write(id_first, &payload)?;
            shelf.removed = removed;
            for id in &here {
                count += u64::from(shelf.letters.remove(id));
            }
            if shelf.letters.is_empty() {
                self.clear(id_first)?;
            }
        }
        Ok(count)
    }

    /// Deletes a segment without letters: the letters first, then the list of what was removed, so
    /// that a crash between the two brings none back.
    fn clear(&mut self, id_first: u64) -> Result<(), Error> {
        if self.active.as_ref().is_some_and(|active| active.header.seq_first == id_first) {
            self.active = None;
        }
        let path = self.path(id_first);
        let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.dir));
        removed.map_err(|e| Error::io("remove", &path, e))?;
        match self.shelves.remove(&id_first) {
            Some(shelf) => shelf.slot.remove(),
            None => Ok(()),
        }
    }
}

fn encode(letter: &DeadLetter) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + 64 + letter.head.len() + letter.bytes.len());
    bytes.push(VERSION);
    bytes.push(u8::from(letter.is_sealed));
    bytes.extend_from_slice(&letter.attempts.to_le_bytes());
    bytes.extend_from_slice(&letter.at_us.to_le_bytes());
    for text in [&letter.reason, &letter.source, &letter.position] {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&(letter.head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&letter.head);
    bytes.extend_from_slice(&letter.bytes);
    bytes
}

fn decode(payload: &[u8]) -> Option<DeadLetter> {
    let (fixed, mut rest) = payload.split_at_checked(FIXED_BYTES)?;
    if !matches!(fixed[0], 1 | VERSION) {
        return None;
    }
    let mut part = || -> Option<Vec<u8>> {
        let (count, left) = rest.split_first_chunk::<4>()?;
        let (part, left) = left.split_at_checked(u32::from_le_bytes(*count) as usize)?;
        rest = left;
        Some(part.to_vec())
    };
    let [reason, source, position] =
        [part()?, part()?, part()?].map(|text| String::from_utf8_lossy(&text).into_owned());
    let head = if fixed[0] == 1 { Vec::new() } else { part()? };
    Some(DeadLetter {
        at_us: i64::from_le_bytes(*fixed[6..].first_chunk()?),
        reason,
        source,
        position,
        attempts: u32::from_le_bytes(*fixed[2..].first_chunk()?),
        is_sealed: fixed[1] == 1,
        head,
        bytes: rest.to_vec(),
    })
}

/// A letter of a later release: its bytes are shown as they are.
fn unknown(payload: &[u8]) -> DeadLetter {
    DeadLetter { reason: "unknown_version".to_owned(), bytes: payload.to_vec(), ..<_>::default() }
}
