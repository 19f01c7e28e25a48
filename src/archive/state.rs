//! What a writer keeps on its own disk: how far it has signed, and what it is about to sign.
//!
//! ```text
//! lock     held while a writer lives
//! floor    JSON: the head that the store may never be behind, and the spool's numbers
//! intent   "kwi1", last (u64 number, hash), objects (u16 length, key, u64 length, bytes), SHA-256
//!          of all before it
//! ```
//! Both files are replaced whole (written beside, synced, renamed, the directory synced), so what
//! is found after a crash is one of the two states, never a mixture. Numbers are little-endian.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::tree::Hash;

const LOCK: &str = "lock";
const FLOOR: &str = "floor";
const INTENT: &str = "intent";
const INTENT_MAGIC: [u8; 4] = *b"kwi1";

/// A writer's own disk that failed it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// `read`, `write` and so on.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} belongs to a running writer; give each its own state directory", .0.display())]
    Locked(PathBuf),
    /// A file that this writer did not write, or that the disk damaged.
    #[error("{} cannot be read; move the state directory away to recover", .0.display())]
    Corrupt(PathBuf),
}

/// The head that the store may never be behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Version of this form: 1.
    pub v: u8,
    /// The public key that the log is signed with.
    pub key: String,
    /// Leaves that are committed.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Which spool the numbers are of.
    pub spool: String,
    /// Up to here the spool is archived.
    pub through: u64,
    /// Number and hash of the last line that was archived: whether a spool that counts the same
    /// numbers again is the same.
    pub last: Last,
}

/// A line's number in the spool, and the hash of its bytes; 0 for none.
pub type Last = (u64, Hash);

/// Objects about to be created, segments before commits, each group in the log's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// Keys and bytes.
    pub objects: Vec<(String, Bytes)>,
    /// The last line in them.
    pub last: Last,
}

impl Intent {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = INTENT_MAGIC.to_vec();
        bytes.extend_from_slice(&self.last.0.to_le_bytes());
        bytes.extend_from_slice(&self.last.1);
        for (key, object) in &self.objects {
            bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(&(object.len() as u64).to_le_bytes());
            bytes.extend_from_slice(object);
        }
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    fn decode(bytes: Bytes) -> Option<Intent> {
        let end = bytes.len().checked_sub(32)?;
        if Sha256::digest(&bytes[..end]).as_slice() != &bytes[end..] {
            return None;
        }
        let mut rest = bytes.slice(..end);
        let mut take = |length: usize| (rest.len() >= length).then(|| rest.split_to(length));
        if take(4)? != INTENT_MAGIC.as_slice() {
            return None;
        }
        let number = u64::from_le_bytes(*take(8)?.first_chunk()?);
        let last = (number, *take(32)?.first_chunk()?);
        let mut objects = Vec::new();
        while let Some(length) = take(2) {
            let key = take(usize::from(u16::from_le_bytes([length[0], length[1]])))?;
            let key = String::from_utf8(key.to_vec()).ok()?;
            let length = u64::from_le_bytes(*take(8)?.first_chunk()?);
            objects.push((key, take(usize::try_from(length).ok()?)?));
        }
        Some(Intent { objects, last })
    }
}

/// A state directory, locked.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    _lock: File,
    #[cfg(test)]
    pub(crate) fuse: Option<crate::archive::sim::Fuse>,
}

impl State {
    /// Makes the directory where there is none, and locks it.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn open(dir: &Path) -> Result<State, Error> {
        let at = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { operation, path, source }
        };
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        let path = dir.join(LOCK);
        let lock = File::create(&path).map_err(at("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
        }
        Ok(State {
            dir: dir.to_owned(),
            _lock: lock,
            #[cfg(test)]
            fuse: None,
        })
    }

    /// The floor; `None` when the directory is new.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn floor(&self) -> Result<Option<Floor>, Error> {
        let Some(bytes) = self.read(FLOOR)? else { return Ok(None) };
        let floor = serde_json::from_slice(&bytes).ok().filter(|floor: &Floor| floor.v == 1);
        floor.map(Some).ok_or_else(|| Error::Corrupt(self.dir.join(FLOOR)))
    }

    /// What was about to be signed when the writer ended; `None` when nothing was.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Corrupt`].
    pub fn intent(&self) -> Result<Option<Intent>, Error> {
        let Some(bytes) = self.read(INTENT)? else { return Ok(None) };
        let intent = Intent::decode(bytes.into());
        intent.map(Some).ok_or_else(|| Error::Corrupt(self.dir.join(INTENT)))
    }

    /// Replaces the floor; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_floor(&self, floor: &Floor) -> Result<(), Error> {
        let bytes = serde_json::to_vec(floor).expect("a floor is plain JSON");
        self.write(FLOOR, &bytes)
    }

    /// Writes what is about to be signed; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_intent(&self, intent: &Intent) -> Result<(), Error> {
        self.write(INTENT, &intent.encode())
    }

    /// Forgets the intent.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_intent(&self) -> Result<(), Error> {
        let path = self.dir.join(INTENT);
        let removed = self.guarded(|| match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        removed.map_err(|source| Error::Io { operation: "remove", path, source })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { operation: "read", path, source }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(name);
        let written = self.guarded(|| {
            let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
            file.write_all(bytes)?;
            self.sync(file.as_file())?;
            file.persist(&path).map_err(|error| error.error)?;
            self.sync(&File::open(&self.dir)?)
        });
        written.map_err(|source| Error::Io { operation: "write", path, source })
    }

    #[cfg(not(test))]
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Deaths are simulated where there is a fuse, and a simulated one loses nothing.
    #[cfg(test)]
    fn sync(&self, file: &File) -> io::Result<()> {
        if self.fuse.is_some() { Ok(()) } else { file.sync_all() }
    }

    #[cfg(not(test))]
    fn guarded(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        work()
    }

    #[cfg(test)]
    fn guarded(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(fuse) = &self.fuse else { return work() };
        fuse.burn()?;
        work()?;
        fuse.burn()
    }
}
