//! The only door from the spool to the file system, so that tests can let every step of it fail.
//!
//! `Disk::Real` is the operating system. Under `cfg(test)` there is `Disk::Sim`: a file system in
//! memory that knows what has been synced and what has not, and fails or dies at a chosen step.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;

#[cfg(test)]
pub(crate) mod sim;

/// Where the spool's files are.
#[derive(Clone)]
pub(crate) enum Disk {
    /// The operating system's file system.
    Real,
    /// A file system in memory with a schedule of faults.
    #[cfg(test)]
    Sim(sim::Sim),
}

/// One open file of a `Disk`.
pub(crate) enum File {
    /// A file of the operating system.
    Real(fs::File),
    /// A file of the simulated disk.
    #[cfg(test)]
    Sim(sim::Handle),
}

impl Disk {
    /// Creates a directory and its parents, readable by the owner only; one that exists is fine.
    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self {
            Disk::Real => fs::DirBuilder::new().recursive(true).mode(0o700).create(path),
            #[cfg(test)]
            Disk::Sim(sim) => sim.create_dir(path),
        }
    }

    /// Creates a file, or empties the one that is there; readable by the owner only.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)
                .map(File::Real),
            #[cfg(test)]
            Disk::Sim(sim) => sim.create(path).map(File::Sim),
        }
    }

    /// Opens an existing file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => fs::File::open(path).map(File::Real),
            #[cfg(test)]
            Disk::Sim(sim) => sim.open(path).map(File::Sim),
        }
    }

    /// Opens an existing file for reading and writing.
    pub(crate) fn open_writable(&self, path: &Path) -> io::Result<File> {
        match self {
            Disk::Real => fs::OpenOptions::new().read(true).write(true).open(path).map(File::Real),
            #[cfg(test)]
            Disk::Sim(sim) => sim.open(path).map(File::Sim),
        }
    }

    /// Renames a file, replacing what has the new name. Durable after `sync_dir`.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Disk::Real => fs::rename(from, to),
            #[cfg(test)]
            Disk::Sim(sim) => sim.rename(from, to),
        }
    }

    /// Removes a file; one that is gone already is fine. Durable after `sync_dir`.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match self {
            Disk::Real => fs::remove_file(path),
            #[cfg(test)]
            Disk::Sim(sim) => sim.remove(path),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Names of the files in a directory that are UTF-8, sorted; the spool gives no others.
    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = match self {
            Disk::Real => fs::read_dir(dir)?
                .map(|entry| Ok(entry?.file_name().into_string().ok()))
                .filter_map(io::Result::transpose)
                .collect::<io::Result<Vec<String>>>()?,
            #[cfg(test)]
            Disk::Sim(sim) => sim.list(dir)?,
        };
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self {
            Disk::Real => fs::File::open(dir)?.sync_all(),
            #[cfg(test)]
            Disk::Sim(sim) => sim.sync_dir(dir),
        }
    }
}

impl File {
    /// Writes all of `bytes` at `offset`; on an error any part of them may have been written.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_at(&bytes[written..], offset + written as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until `bytes` is full or the file ends; returns how much was read.
    pub(crate) fn read_full_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self {
            File::Real(file) => file.write_at(bytes, offset),
            #[cfg(test)]
            File::Sim(file) => file.write_at(bytes, offset),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            File::Real(file) => file.read_at(bytes, offset),
            #[cfg(test)]
            File::Sim(file) => file.read_at(bytes, offset),
        }
    }

    /// Cuts the file, or fills it up with zeros, to `bytes`.
    pub(crate) fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_len(bytes),
            #[cfg(test)]
            File::Sim(file) => file.set_len(bytes),
        }
    }

    /// The file's length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            File::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            File::Sim(file) => file.len(),
        }
    }

    /// Makes content and length durable (fdatasync); a file that no name leads to any more never
    /// is.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            File::Real(file) => {
                file.sync_data()?;
                match file.metadata()?.nlink() {
                    0 => Err(io::Error::new(ErrorKind::NotFound, "it was removed while in use")),
                    _ => Ok(()),
                }
            }
            #[cfg(test)]
            File::Sim(file) => file.sync(),
        }
    }
}

/// True when something ran out that may be had again: room on the disk, a quota, open files.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) || is_no_files(error)
}

/// True when a file was not opened because the process, or the system, has too many open.
pub(crate) fn is_no_files(error: &io::Error) -> bool {
    let errnos = [Errno::MFILE, Errno::NFILE];
    error.raw_os_error().is_some_and(|code| errnos.map(Errno::raw_os_error).contains(&code))
}
