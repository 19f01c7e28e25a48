//! Lines in a file. Delivered means that they were synced to the disk.
//!
//! One item a line, by default raw events as stored, alerts as native JSON. A line that a crash
//! left unfinished was never reported delivered; it is cut off when the file is opened again. The
//! file is created with mode 0600 and locked, so that two processes cannot mix their lines; should
//! somebody else rename or remove it (logrotate), the next batch goes to a new one.

use std::fs::{File as Handle, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::event::time::format_us;
use crate::sinks::encode::Format;
use crate::sinks::{CheckError, Delivered, Item, SendError, Sink, blocking};
use crate::units::{Size, Span};

/// What is configured of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file; its directory must be there.
    pub path: PathBuf,
    /// How a line is written: `native`, `ecs`, `ocsf`, `cef`, `leef`, `falco`. Default: native.
    #[serde(default)]
    pub format: Format,
    /// When to begin another file. Default: never.
    #[serde(default)]
    pub rotate: Rotation,
}

/// When a file is renamed to `<path>.<UTC time>` and another one begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// Before a batch that would make it larger than this. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
    /// Before the first batch after this time. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    /// So many renamed files are kept, older ones deleted. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
}

/// A last line is looked for in so many bytes; more without a line end is no file of this sink.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Appends to a file.
#[derive(Debug)]
pub struct File {
    config: Config,
    /// Lost when a `send` is cancelled; then the file is opened again.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    handle: Handle,
    /// Everything before is synced lines.
    synced: u64,
    opened_us: i64,
}

impl File {
    /// A sink of this configuration; nothing is opened yet.
    pub fn new(config: Config) -> File {
        File { config, open: None }
    }
}

impl Sink for File {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let mut lines = Vec::with_capacity(batch.iter().map(|item| item.bytes().len() + 1).sum());
        for item in batch {
            self.config.format.encode(item, &mut lines);
            lines.push(b'\n');
        }
        let (config, open) = (self.config.clone(), self.open.take());
        self.open = Some(blocking(move || append(&config, open, &lines)).await??);
        Ok(Delivered::default())
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        let path = self.config.path.clone();
        blocking(move || check(&path)).await?
    }
}

/// Appends and syncs, to another file where it is time for one.
fn append(config: &Config, open: Option<Open>, lines: &[u8]) -> Result<Open, SendError> {
    let path = &config.path;
    let failed = |what: &str, error: io::Error| {
        SendError::retry(format!("cannot {what} {}: {error}", path.display()))
    };
    let is_current = |open: &Open| is_at(&open.handle, path);
    let mut open = match open.filter(is_current) {
        Some(open) => open,
        None => Open::at(path)?,
    };
    if is_due(&config.rotate, &open, lines.len()) {
        rotate(path, &config.rotate).map_err(|error| failed("rotate", error))?;
        open = Open::at(path)?;
    }
    let written = open.handle.write_all(lines).and_then(|()| open.handle.sync_data());
    if let Err(error) = written {
        // Whatever of it is there has no line end or was not reported; it is sent again.
        let _ = open.handle.set_len(open.synced);
        return Err(failed("write", error));
    }
    open.synced += lines.len() as u64;
    Ok(open)
}

impl Open {
    fn at(path: &Path) -> Result<Open, SendError> {
        let failed = |error: io::Error| {
            let cause = format!("cannot open {}: {error}", path.display());
            match error.kind() {
                ErrorKind::NotFound => SendError::block(cause, "create its directory"),
                ErrorKind::PermissionDenied => SendError::block(cause, "allow writing there"),
                _ => SendError::retry(cause),
            }
        };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // A FIFO would block until somebody reads it.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
        let mut handle = options.open(path).map_err(failed)?;
        let metadata = handle.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let cause = format!("{} is no regular file", path.display());
            return Err(SendError::block(cause, "name a file, or use a sink of type stdout"));
        }
        let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&handle, lock).is_err() {
            let cause = format!("another process writes {}", path.display());
            return Err(SendError::block(cause, "give each process its own file"));
        }
        let synced = repair(&mut handle, path).map_err(failed)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Handle::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let created = metadata.created().ok().and_then(|at| at.elapsed().ok());
        let age_us = created.map_or(0, |age| Span(age).as_micros());
        Ok(Open { handle, synced, opened_us: clock::now_us().saturating_sub(age_us) })
    }
}

/// Cuts off a last line without its end, and returns the length that is left.
fn repair(handle: &mut Handle, path: &Path) -> io::Result<u64> {
    let length = handle.metadata()?.len();
    let mut end = length;
    let mut window = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(window.len() as u64);
        let part = window.split_at_mut((end - start) as usize).0;
        handle.seek(SeekFrom::Start(start))?;
        handle.read_exact(part)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
        if length - end > LINE_BYTES_MAX {
            return Err(io::Error::other("its last line has no end, and is none of this sink"));
        }
    }
    if end < length {
        tracing::warn!(path = %path.display(), bytes = length - end, "cut off an unfinished line");
        handle.set_len(end)?;
        handle.sync_data()?;
    }
    Ok(end)
}

/// Whether the path still leads to the open file.
fn is_at(handle: &Handle, path: &Path) -> bool {
    match (handle.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn is_due(rotation: &Rotation, open: &Open, bytes: usize) -> bool {
    let is_large = |max: Size| open.synced + bytes as u64 > max.0;
    let is_old = |max: Span| clock::now_us() - open.opened_us > max.as_micros();
    open.synced > 0 && (rotation.bytes.is_some_and(is_large) || rotation.age.is_some_and(is_old))
}

/// Renames the file, and deletes renamed ones beyond those that are kept.
fn rotate(path: &Path, rotation: &Rotation) -> io::Result<()> {
    let stamp: String =
        format_us(clock::now_us()).chars().filter(|letter| !"-:.".contains(*letter)).collect();
    let renamed = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{stamp}{suffix}"));
        PathBuf::from(name)
    };
    std::fs::rename(path, renamed(""))?;
    let Some(keep) = rotation.keep else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut old: Vec<PathBuf> = std::fs::read_dir(folder.unwrap_or(Path::new(".")))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|other| is_renamed(other, own))
        .collect();
    old.sort();
    let gone = old.len().saturating_sub(keep);
    old.iter().take(gone).try_for_each(std::fs::remove_file)
}

/// Whether a path is what `rotate` made of a file with this name.
fn is_renamed(path: &Path, own: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stamp = name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'));
    stamp.is_some_and(|stamp| {
        let shape = "00000000T000000000000Z";
        stamp.len() == shape.len()
            && stamp.bytes().zip(shape.bytes()).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                _ => byte == like,
            })
    })
}

/// Whether the file could be appended to; creates nothing.
fn check(path: &Path) -> Result<(), CheckError> {
    let failed = |error: io::Error, remedy| {
        CheckError::new(format!("cannot write {}: {error}", path.display()), remedy)
    };
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(CheckError::new(
            format!("{} is no regular file", path.display()),
            "name a file, or use a sink of type stdout",
        )),
        Ok(_) => OpenOptions::new()
            .append(true)
            .open(path)
            .map(drop)
            .map_err(|error| failed(error, "allow writing there")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            match rustix::fs::access(folder, access) {
                Ok(()) => Ok(()),
                Err(error) => Err(failed(error.into(), "create its directory, writable")),
            }
        }
        Err(error) => Err(failed(error, "allow reading its directory")),
    }
}

#[cfg(test)]
mod tests;
