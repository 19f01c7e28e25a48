//! How an archive is configured, and its writer opened as configured.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::archive::note::{self, Signer};
use crate::archive::preflight::{self, Worm};
use crate::archive::store::Store;
use crate::archive::writer::{self, Options, Writer};
use crate::archive::{location, recover};

fn publish_seconds() -> u32 {
    60
}

fn has_checkpoint() -> bool {
    true
}

/// An archive as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it lies: a directory, `s3://bucket/prefix`, `gs://…`, `az://…`. No second writer uses
    /// the same.
    pub url: String,
    /// File of the log's secret key, as `archive keygen` wrote it.
    pub key_file: PathBuf,
    /// Directory in which the writer keeps what it signed, on the disk that the spool is on.
    pub state_dir: PathBuf,
    /// What the store must do so that nothing can be deleted: `compliance` (default), `governance`,
    /// `off`.
    #[serde(default)]
    pub worm: Worm,
    /// For how many days the store must keep what it is given; what it is set to when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Seconds between publications of the tiles that are open and of `checkpoint`; default 60.
    #[serde(default = "publish_seconds")]
    pub publish_seconds: u32,
    /// Whether the object `checkpoint` is written, the only one that is ever replaced; default
    /// true. Stores that lock every object refuse it.
    #[serde(default = "has_checkpoint")]
    pub checkpoint: bool,
}

/// An archive that cannot be opened as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The location.
    #[error(transparent)]
    Location(#[from] location::Error),
    /// The key's file.
    #[error("cannot read {}: {source}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key.
    #[error("{}: {source}; make one with `kubewitness archive keygen`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: note::Error,
    },
    /// The store does not lock as configured.
    #[error(transparent)]
    Preflight(#[from] preflight::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] recover::Error),
    /// The writer.
    #[error(transparent)]
    Writer(#[from] writer::Error),
}

impl Config {
    fn signer(&self) -> Result<Signer, Error> {
        let path = &self.key_file;
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::KeyFile { path: path.clone(), source })?;
        Signer::parse(&text).map_err(|source| Error::Key { path: path.clone(), source })
    }

    /// Looks whether the writer could be opened, without changing anything: the key, the store's
    /// locks, and that the store can be read.
    ///
    /// # Errors
    /// What is not as configured, and what to do.
    pub async fn check(&self) -> Result<(), Error> {
        let signer = self.signer()?;
        let store = location::open(&self.url)?;
        preflight::check(&*store, self.worm, self.retention_days).await?;
        recover::read_pointer(&*store, &signer.verifier()).await?;
        recover::is_committed(&*store, 0).await.map_err(recover::Error::Store)?;
        Ok(())
    }

    /// Opens the store, once its locks are as configured, and the writer of its log.
    ///
    /// # Errors
    /// As [`Config::check`], and [`Writer::open`].
    pub async fn open(&self, now_us: i64) -> Result<Writer, Error> {
        let signer = self.signer()?;
        let store: Arc<dyn Store> = location::open(&self.url)?;
        let retention_days = preflight::check(&*store, self.worm, self.retention_days).await?;
        let options = Options {
            retention_days,
            publish_us: i64::from(self.publish_seconds) * 1_000_000,
            has_pointer: self.checkpoint,
        };
        Ok(Writer::open(store, signer, &self.state_dir, options, now_us).await?)
    }
}
