//! What the log source asks of the file system: a narrow seam, so that tests can be the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, SeekFrom};

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The device that holds it.
    pub(crate) device: u64,
    /// Its number there; handed on to another file once this one is gone.
    pub(crate) inode: u64,
    /// Its length in bytes, holes included.
    pub(crate) size: u64,
    /// How many names it has.
    pub(crate) links: u64,
    /// When its bytes last changed, nanoseconds since the epoch.
    pub(crate) modified_ns: i64,
    /// Whether it is a regular file.
    pub(crate) is_file: bool,
}

impl Stat {
    /// Whether these two describe one file; certain only while one of them is held open.
    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether the file has not been written to between the two.
    pub(crate) fn is_unchanged(&self, other: &Stat) -> bool {
        self.is_same_file(other) && (self.size, self.modified_ns) == (other.size, other.modified_ns)
    }
}

/// The file system.
pub(crate) trait Disk: Send + Sync {
    /// The names in a directory that are UTF-8, in any order.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// What a path stands for, links followed.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Opens a file to read; never waits.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The path without links; its last part need not exist.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// What a pattern matches.
    fn matches(&self, pattern: &str) -> io::Result<Vec<PathBuf>>;
}

/// An open file. It stays the same file whatever becomes of its name.
pub(crate) trait DiskFile: Send + Sync {
    /// What is known of it now.
    fn stat(&self) -> io::Result<Stat>;
    /// Reads at an offset; may give less than asked for, and nothing only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Where the next bytes at or behind `offset` are that are not a hole; `None` when there are
    /// none to the end of the file.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// The system's file system.
pub(crate) struct System;

impl Disk for System {
    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat_of(&std::fs::metadata(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        Ok(Arc::new(file))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        match std::fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(error);
                };
                // A link whose target is missing for the moment still says where the target is.
                let target = std::fs::read_link(path).ok();
                let path = target.map_or_else(|| path.to_owned(), |target| parent.join(target));
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = std::fs::canonicalize(folder.unwrap_or(Path::new(".")))?;
                Ok(folder.join(path.file_name().unwrap_or(name)))
            }
            result => result,
        }
    }

    fn matches(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let paths = glob::glob(pattern).map_err(|error| io::Error::other(error.msg))?;
        Ok(paths.flatten().collect())
    }
}

impl DiskFile for File {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.metadata()?))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(self, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // The file system knows no holes.
            Err(_) => Ok(Some(offset)),
        }
    }
}

fn stat_of(metadata: &std::fs::Metadata) -> Stat {
    Stat {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        links: metadata.nlink(),
        modified_ns: metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()),
        is_file: metadata.is_file(),
    }
}

/// Reads at an offset until the buffer is full or the file is over.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was read is good; the error comes again.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
