//! How an archive is configured, and its writer opened as configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::archive::cosigners::{Cosigners, Http};
use crate::archive::note::Verifier;
use crate::archive::policy::{self, Policy};
use crate::archive::preflight::{self, Wanted, Worm};
use crate::archive::regime::Regime;
use crate::archive::signatory::{self, Signatory};
use crate::archive::store::{LockMode, ObjectLock, Store};
use crate::archive::writer::{self, Options, Writer};
use crate::archive::{keys, location, recover};

fn publish_seconds() -> u32 {
    60
}

fn alive_seconds() -> u32 {
    60
}

fn recheck_seconds() -> u32 {
    3_600
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
    /// File of the log's key, as `archive keygen` wrote it: the secret key, or which key service
    /// keeps it.
    pub key_file: PathBuf,
    /// Directory in which the writer keeps what it signed, on the disk that the spool is on.
    pub state_dir: PathBuf,
    /// What the store must do so that nothing can be deleted: `compliance` (default), `governance`,
    /// `off`.
    #[serde(default)]
    pub worm: Worm,
    /// Whose locks count: the bucket's own retention (the default), so that the writer needs no
    /// right to lock; or one with every object, on S3.
    #[serde(default)]
    pub lock: LockBy,
    /// A regime that says for how long: its days, unless `retention_days` says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regime: Option<Regime>,
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
    /// Where nothing comes, a record says so often that the writer is alive; seconds, default 60.
    #[serde(default = "alive_seconds")]
    pub alive_seconds: u32,
    /// So often the store's locks are looked at again; seconds, default 3600.
    #[serde(default = "recheck_seconds")]
    pub recheck_seconds: u32,
    /// Who cosigns the log's checkpoints. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witnessing>,
}

/// Where the locks of objects come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LockBy {
    /// The bucket's default retention. The default.
    #[default]
    Bucket,
    /// Each upload; S3 only. The writer needs the right to set retentions.
    Object,
}

/// Who cosigns a log's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Witnessing {
    /// File of c2sp.org/tlog-policy: the witnesses, where they are, and how many must cosign.
    pub policy_file: PathBuf,
    /// Default false: without them the archive goes on, and metrics and the log tell. True: nothing
    /// counts as archived before enough of them have cosigned it; the spool keeps it meanwhile.
    #[serde(default)]
    pub required: bool,
    /// PEM file of the authorities that may vouch for witnesses; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Seconds that a witness has for its answer; default 10.
    #[serde(default = "witness_seconds")]
    pub timeout_seconds: u32,
}

fn witness_seconds() -> u32 {
    10
}

impl Witnessing {
    /// The policy.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn policy(&self) -> Result<Policy, Error> {
        let path = &self.policy_file;
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::File { path: path.clone(), source })?;
        Policy::parse(&text).map_err(|source| Error::Policy { path: path.clone(), source })
    }

    fn cosigners(&self, log: &Verifier) -> Result<Arc<Cosigners>, Error> {
        let policy = self.policy()?;
        let path = || self.policy_file.clone();
        if !policy.is_about(log) {
            return Err(Error::OtherPolicy { path: path(), log: log.to_string() });
        }
        let timeout = Duration::from_secs(u64::from(self.timeout_seconds));
        let http = Http::new(timeout, self.ca_file.as_deref());
        let http = http.map_err(|reason| Error::Http { reason })?;
        Ok(Arc::new(Cosigners::new(policy, self.required, Arc::new(http))))
    }
}

/// An archive that cannot be opened as configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The location.
    #[error(transparent)]
    Location(#[from] location::Error),
    /// A file.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: signatory::Error,
    },
    /// The policy.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: policy::Error,
    },
    /// The policy is of other logs.
    #[error("{} names other logs, not {log}", path.display())]
    OtherPolicy {
        /// The file.
        path: PathBuf,
        /// This log's key.
        log: String,
    },
    /// The client for witnesses.
    #[error("cannot make a client for witnesses: {reason}")]
    Http {
        /// Why.
        reason: String,
    },
    /// Locks that cannot be.
    #[error("{0}")]
    Lock(&'static str),
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
    async fn signer(&self) -> Result<Signatory, Error> {
        let path = &self.key_file;
        let signer = Signatory::open(path).await;
        signer.map_err(|source| Error::Key { path: path.clone(), source })
    }

    /// Days that the store must keep what it is given.
    pub fn days(&self) -> Option<u32> {
        self.regime.map(Regime::days).max(self.retention_days)
    }

    fn wanted(&self) -> Wanted {
        let is_by_object = self.lock == LockBy::Object;
        Wanted { worm: self.worm, days: self.days(), is_by_object, has_pointer: self.checkpoint }
    }

    fn store(&self) -> Result<Arc<dyn Store>, Error> {
        if self.lock == LockBy::Bucket {
            return Ok(location::open(&self.url)?);
        }
        let mode = match self.worm {
            Worm::Compliance => LockMode::Compliance,
            Worm::Governance => LockMode::Governance,
            Worm::Off => return Err(Error::Lock("`lock: object` locks: say no `worm: off`")),
        };
        let days = self.days().filter(|days| *days > 0);
        let days = days.ok_or(Error::Lock("`lock: object` needs `retention_days` or `regime`"))?;
        Ok(location::open_locking(&self.url, Some(ObjectLock { mode, days }))?)
    }

    /// Looks whether the writer could be opened, without changing anything: the key, the store's
    /// locks, and that the store can be read.
    ///
    /// # Errors
    /// What is not as configured, and what to do.
    pub async fn check(&self) -> Result<(), Error> {
        let key = self.signer().await?.verifier();
        self.witness.as_ref().map(|witness| witness.cosigners(&key)).transpose()?;
        let store = self.store()?;
        preflight::check(&*store, self.wanted()).await?;
        let key = keys::follow(&*store, key).await.map_err(recover::Error::Store)?;
        recover::read_pointer(&*store, &key).await?;
        recover::is_committed(&*store, 0).await.map_err(recover::Error::Store)?;
        Ok(())
    }

    /// Looks whether the store still locks as configured; for how many days.
    ///
    /// # Errors
    /// [`Error::Location`], [`Error::Preflight`].
    pub async fn recheck(&self) -> Result<Option<u32>, Error> {
        Ok(preflight::check(&*self.store()?, self.wanted()).await?.days)
    }

    /// Opens the store, once its locks are as configured, and the writer of its log.
    ///
    /// # Errors
    /// As [`Config::check`], and [`Writer::open`].
    pub async fn open(&self, now_us: i64) -> Result<Writer, Error> {
        let signer = self.signer().await?;
        let witness = self.witness.as_ref();
        let witnesses = witness.map(|it| it.cosigners(&signer.verifier())).transpose()?;
        let store = self.store()?;
        let found = preflight::check(&*store, self.wanted()).await?;
        let options = Options {
            retention_days: found.days,
            publish_us: i64::from(self.publish_seconds) * 1_000_000,
            has_pointer: self.checkpoint,
            cosigners: witnesses,
        };
        let opened =
            Writer::open(Arc::clone(&store), signer, &self.state_dir, options, now_us).await?;
        if found.is_presumed {
            // Now that a record is there, it shows how the store locks.
            preflight::check(&*store, self.wanted()).await?;
        }
        Ok(opened)
    }
}
