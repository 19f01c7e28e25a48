//! From what a person writes to a store: a directory or a URL.

use std::path::Path;
use std::sync::Arc;

use crate::archive::bucket::Bucket;
use crate::archive::directory::Directory;
use crate::archive::store::{ObjectLock, Store};

/// A location that names no store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A URL that cannot be used.
    #[error("{location}: {reason}; give a directory, s3://bucket/prefix, gs://… or az://…")]
    Url {
        /// What was written.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Opens a store; nothing is asked of it yet.
///
/// # Errors
/// [`Error::Url`].
pub fn open(location: &str) -> Result<Arc<dyn Store>, Error> {
    open_locking(location, None)
}

/// Opens a store in which every object is created with a lock of its own.
///
/// # Errors
/// [`Error::Url`]; the store knows no such locks.
pub fn open_locking(location: &str, lock: Option<ObjectLock>) -> Result<Arc<dyn Store>, Error> {
    let wrong = |reason: &str| Error::Url { location: location.to_owned(), reason: reason.into() };
    let is_bucket = location.contains("://") && !location.starts_with("file://");
    if lock.is_some() && !is_bucket {
        return Err(wrong("a directory locks nothing"));
    }
    if let Some(path) = location.strip_prefix("file://") {
        return Ok(Arc::new(Directory::new(Path::new(path))));
    }
    match location.split_once("://") {
        None if location.is_empty() => Err(wrong("no location")),
        None => Ok(Arc::new(Directory::new(Path::new(location)))),
        Some(("s3" | "s3a" | "gs" | "az" | "abfs" | "abfss", _)) => {
            match Bucket::open(location, lock) {
                Ok(bucket) => Ok(Arc::new(bucket)),
                Err(error) => Err(wrong(&error.to_string())),
            }
        }
        Some(_) => Err(wrong("not a scheme that is known")),
    }
}
