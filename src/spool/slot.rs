//! A small file that is replaced whole and atomically, kept in two generations.
//!
//! ```text
//! struct Slot {                   // file name: name, ".", generation modulo 2; little-endian
//!   magic: [u8; 7],               // "kwsslot"
//!   version: u8,                  // 1
//!   crc: u32,                     // CRC32C of bytes 0..8 and 12..
//!   zero: u32,
//!   generation: u64,              // one more than the one it follows
//!   seq: u64,
//!   payload: [u8],                // the rest of the file
//! }
//! ```
//!
//! A write goes to a temporary file, is synced, renamed over the older generation, and the
//! directory is synced. The newest generation that reads well is the content; should it rot, the
//! one before it is still there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::spool::disk::Disk;
use crate::spool::{Damage, Error, Reason};

const HEADER_BYTES: usize = 32;
const VERSION: u8 = 1;

/// A payload up to this is written together with its header.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// A longer file is none of ours, and is not read into memory.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

/// Both generations of one named file.
pub(crate) struct Slot {
    disk: Disk,
    dir: PathBuf,
    name: String,
    generation: u64,
    /// Sequence numbers of the generations that can be read, oldest first.
    seqs: Vec<u64>,
}

/// Content of the newest generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) seq: u64,
    pub(crate) payload: Vec<u8>,
}

enum Side {
    Absent,
    Damaged(u64),
    Read(u64, Content),
}

impl Slot {
    /// Opens a slot, which need not exist; reports generations that cannot be read.
    pub(crate) fn open(
        disk: &Disk,
        dir: PathBuf,
        name: &str,
    ) -> Result<(Slot, Option<Content>, Vec<Damage>), Error> {
        let mut slot =
            Slot { disk: disk.clone(), dir, name: name.to_owned(), generation: 0, seqs: vec![] };
        let (mut found, mut damages) = (Vec::new(), Vec::new());
        for side in 0..2 {
            match slot.read(side)? {
                Side::Absent => {}
                Side::Damaged(bytes) => {
                    let file = slot.path(side).to_string_lossy().into_owned();
                    damages.push(Damage { file, offset: 0, bytes, reason: Reason::Slot });
                }
                Side::Read(generation, content) => found.push((generation, content)),
            }
        }
        found.sort_by_key(|(generation, _)| *generation);
        slot.seqs = found.iter().map(|(_, content)| content.seq).collect();
        let newest = found.pop();
        slot.generation = newest.as_ref().map_or(0, |(generation, _)| *generation);
        Ok((slot, newest.map(|(_, content)| content), damages))
    }

    fn path(&self, side: u64) -> PathBuf {
        self.dir.join(format!("{}.{side}", self.name))
    }

    fn read(&self, side: u64) -> Result<Side, Error> {
        let path = self.path(side);
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Side::Absent),
            other => other.map_err(|e| Error::io("open", &path, e))?,
        };
        let len = file.len().map_err(|e| Error::io("read", &path, e))?;
        if len > PAYLOAD_BYTES_MAX + HEADER_BYTES as u64 {
            return Ok(Side::Damaged(len));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let count = file.read_full_at(&mut bytes, 0).map_err(|e| Error::io("read", &path, e))?;
        bytes.truncate(count);
        decode(bytes, side, &path)
    }

    /// Replaces the content; durable on return. On an error the old content stands.
    pub(crate) fn write(&mut self, seq: u64, payload: &[u8]) -> Result<(), Error> {
        let generation = self.generation + 1;
        let path = self.path(generation % 2);
        let temporary = self.dir.join(format!("{}.tmp", self.name));
        let header = header(generation, seq, payload);
        let fill = |path: &Path| {
            let file = self.disk.create(path)?;
            match payload.len() {
                0..=COPIED_BYTES_MAX => file.write_all_at(&[&header, payload].concat(), 0)?,
                // A snapshot's megabytes are not copied.
                _ => {
                    file.write_all_at(&header, 0)?;
                    file.write_all_at(payload, HEADER_BYTES as u64)?;
                }
            }
            file.sync()
        };
        let write = || {
            fill(&temporary)?;
            self.disk.rename(&temporary, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        // On a full disk only what is there already can be written; without the position no space
        // is ever given back. Torn, it is no worse: the newest generation is the other side's.
        let in_place = || {
            let _ = self.disk.remove(&temporary);
            fill(&path)?;
            self.disk.sync_dir(&self.dir)
        };
        let is_small = payload.len() <= COPIED_BYTES_MAX;
        let written = write().or_else(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded if is_small => in_place(),
            _ => Err(error),
        });
        written.map_err(|e| Error::io("write", &path, e))?;
        self.generation = generation;
        self.seqs.push(seq);
        let surplus = self.seqs.len().saturating_sub(2);
        self.seqs.drain(..surplus);
        Ok(())
    }

    /// Least sequence number of the generations that may yet be read; `None` when there is none.
    pub(crate) fn seq_oldest(&self) -> Option<u64> {
        self.seqs.iter().min().copied()
    }

    /// Content of the newest generation, read again from the disk.
    pub(crate) fn content(&self) -> Result<Option<Content>, Error> {
        match self.read(self.generation % 2)? {
            Side::Read(generation, content) if generation == self.generation => Ok(Some(content)),
            _ => Ok(None),
        }
    }

    /// Removes both generations. The older goes first, so that a crash leaves the newest or none.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for side in [(self.generation + 1) % 2, self.generation % 2] {
            let path = self.path(side);
            let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_dir(&self.dir));
            removed.map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(())
    }
}

/// Names of the slots in a directory, sorted.
pub(crate) fn names(disk: &Disk, dir: &std::path::Path) -> Result<Vec<String>, Error> {
    let files = disk.list(dir).map_err(|e| Error::io("list", dir, e))?;
    let mut names: Vec<String> = files
        .iter()
        .filter_map(|file| file.strip_suffix(".0").or(file.strip_suffix(".1")))
        .map(str::to_owned)
        .collect();
    names.dedup();
    Ok(names)
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..])
}

fn header(generation: u64, seq: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..7].copy_from_slice(b"kwsslot");
    bytes[7] = VERSION;
    bytes[16..24].copy_from_slice(&generation.to_le_bytes());
    bytes[24..].copy_from_slice(&seq.to_le_bytes());
    let crc = crc32c::crc32c_append(crc(&bytes), payload);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(mut bytes: Vec<u8>, side: u64, path: &std::path::Path) -> Result<Side, Error> {
    let len = bytes.len() as u64;
    if bytes.len() < HEADER_BYTES
        || bytes[..7] != *b"kwsslot"
        || bytes[8..12] != crc(&bytes).to_le_bytes()
    {
        return Ok(Side::Damaged(len));
    }
    if bytes[7] != VERSION {
        return Err(Error::Version { path: path.to_owned(), found: bytes[7], supported: VERSION });
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (generation, seq) = (word(16), word(24));
    // A copy under the other name would make the next write replace the newest generation.
    if generation % 2 != side {
        return Ok(Side::Damaged(len));
    }
    bytes.drain(..HEADER_BYTES);
    Ok(Side::Read(generation, Content { seq, payload: bytes }))
}
