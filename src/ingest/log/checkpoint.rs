//! The durable form of a position in a file: JSON, one a file, kept by the pipeline under a key.
//!
//! ```text
//! {"version":1, "path":"/var/log/kubernetes/audit/audit.log", "device":64769, "inode":131,
//!  "size":1048576, "modified_ns":1767225600000000000,            as the file was last seen
//!  "head":{"length":4096,"hash":1}, "tail":{"length":4096,"hash":2},     anchors
//!  "offset":524288, "line":211, "is_live":true, "is_finished":false}
//! ```
//! `offset` counts decompressed bytes. `head` covers the first bytes of the file, `tail` the last
//! before the offset: what stands there now decides whether the position still means this file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ingest::log::anchor::{ANCHOR_BYTES_MAX, Anchor};

/// The version that this release writes and the only one that it reads.
const VERSION: u32 = 1;

/// The longest checkpoint that is looked at.
const CHECKPOINT_BYTES_MAX: usize = 64 << 10;

/// Where a file was read to, and how to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// The version of the format.
    pub version: u32,
    /// The file's last known path.
    pub path: PathBuf,
    /// The device that held it.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// Its size when it was last looked at, as it stood on disk.
    pub size: u64,
    /// Its time of modification then, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Its first bytes, decompressed.
    pub head: Anchor,
    /// The bytes before the offset.
    pub tail: Anchor,
    /// Everything before this byte was handed over.
    pub offset: u64,
    /// The line that starts at the offset, from 1.
    pub line: u64,
    /// Whether it was the file being written.
    pub is_live: bool,
    /// Whether it was rotated and read to its end.
    pub is_finished: bool,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is not what was written.
    #[error("not a checkpoint: {0}")]
    Garbage(serde_json::Error),
    /// A later release wrote it.
    #[error("version {0} is not known here")]
    Version(u32),
    /// It contradicts itself.
    #[error("{0}")]
    Nonsense(&'static str),
}

impl FileCheckpoint {
    /// A checkpoint of an unread file at this path.
    pub fn new(path: &Path) -> FileCheckpoint {
        FileCheckpoint {
            version: VERSION,
            path: path.to_owned(),
            device: 0,
            inode: 0,
            size: 0,
            modified_ns: 0,
            head: Anchor::default(),
            tail: Anchor::default(),
            offset: 0,
            line: 1,
            is_live: false,
            is_finished: false,
        }
    }

    /// Reads what [`FileCheckpoint::encode`] wrote.
    ///
    /// # Errors
    /// Anything else, whatever it is.
    pub fn parse(bytes: &[u8]) -> Result<FileCheckpoint, Unusable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let bytes = &bytes[..bytes.len().min(CHECKPOINT_BYTES_MAX)];
        let found: Versioned = serde_json::from_slice(bytes).map_err(Unusable::Garbage)?;
        if found.version != VERSION {
            return Err(Unusable::Version(found.version));
        }
        let found: FileCheckpoint = serde_json::from_slice(bytes).map_err(Unusable::Garbage)?;
        let lengths = [found.head.length as usize, found.tail.length as usize];
        if lengths.iter().any(|length| *length > ANCHOR_BYTES_MAX) {
            return Err(Unusable::Nonsense("an anchor is longer than any"));
        }
        if u64::from(found.tail.length) > found.offset || found.line == 0 {
            return Err(Unusable::Nonsense("its position is none"));
        }
        if found.path.file_name().and_then(|name| name.to_str()).is_none() {
            return Err(Unusable::Nonsense("its path names no file"));
        }
        Ok(found)
    }

    /// The bytes to keep.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went() {
        let mut checkpoint = FileCheckpoint::new(Path::new("/var/log/audit.log"));
        checkpoint.head = Anchor::of_head(b"{}\n");
        checkpoint.tail = Anchor::of_tail(b"{}\n");
        checkpoint.offset = u64::MAX;
        checkpoint.modified_ns = i64::MIN;
        assert_eq!(FileCheckpoint::parse(&checkpoint.encode()).unwrap(), checkpoint);
    }

    #[test]
    fn refuses_everything_else() {
        let good = FileCheckpoint::new(Path::new("/var/log/audit.log"));
        let text = String::from_utf8(good.encode()).unwrap();
        for (bytes, expected) in [
            (String::new(), "not a checkpoint"),
            ("\0\0\0\0".to_owned(), "not a checkpoint"),
            ("{}".to_owned(), "not a checkpoint"),
            (text[..text.len() / 2].to_owned(), "not a checkpoint"),
            (text.replace("\"version\":1", "\"version\":7"), "version 7"),
            (text.replace("\"offset\":0", "\"offset\":-1"), "not a checkpoint"),
            (text.replace("\"line\":1", "\"line\":0"), "position"),
            (text.replace("{\"length\":0", "{\"length\":5000"), "anchor"),
            (text.replace("/var/log/audit.log", "/"), "path"),
        ] {
            let error = FileCheckpoint::parse(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{bytes} {error}");
        }
    }
}
