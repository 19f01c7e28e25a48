//! From what a person writes to a store: a directory or a URL.

use std::path::Path;
use std::sync::Arc;

use crate::archive::bucket::Bucket;
use crate::archive::directory::Directory;
use crate::archive::store::Store;

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
    let wrong = |reason: &str| Error::Url { location: location.to_owned(), reason: reason.into() };
    if let Some(path) = location.strip_prefix("file://") {
        return Ok(Arc::new(Directory::new(Path::new(path))));
    }
    match location.split_once("://") {
        None if location.is_empty() => Err(wrong("no location")),
        None => Ok(Arc::new(Directory::new(Path::new(location)))),
        Some(("s3" | "s3a" | "gs" | "az" | "abfs" | "abfss", _)) => match Bucket::open(location) {
            Ok(bucket) => Ok(Arc::new(bucket)),
            Err(error) => Err(wrong(&error.to_string())),
        },
        Some(_) => Err(wrong("not a scheme that is known")),
    }
}
