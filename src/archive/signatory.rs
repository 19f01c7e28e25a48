//! Who signs for a log: a key in a file, or one that a key service keeps. Both are named by a file:
//! the one holds the key (`PRIVATE+KEY+…`), the other says where it is (JSON).

use std::path::Path;

use crate::archive::kms::{self, Remote};
use crate::archive::note::{self, Checkpoint, Signer, Verifier, parts};
use crate::archive::tree::Hash;

/// A file that names no key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read it")]
    Io(#[from] std::io::Error),
    /// It is no key.
    #[error("{0}; make one with `kubewitness archive keygen`")]
    Key(#[from] note::Error),
    /// It describes no key.
    #[error("not a description of a key in a key service (see docs/archive.md)")]
    Description(#[from] serde_json::Error),
    /// The key service.
    #[error(transparent)]
    Kms(#[from] kms::Error),
}

/// What a log is signed with.
#[derive(Debug)]
pub enum Signatory {
    /// A key in this process.
    File(Box<Signer>),
    /// A key in a key service.
    Kms(Box<Remote>),
}

impl From<Signer> for Signatory {
    fn from(signer: Signer) -> Signatory {
        Signatory::File(Box::new(signer))
    }
}

impl Signatory {
    /// Reads a key's file; asks the key service where one keeps the key.
    ///
    /// # Errors
    /// There is no key, or the service does not sign with it.
    pub async fn open(path: &Path) -> Result<Signatory, Error> {
        let text = std::fs::read_to_string(path)?;
        if text.trim_start().starts_with('{') {
            let config: kms::Config = serde_json::from_str(&text)?;
            return Ok(Signatory::Kms(Box::new(Remote::open(&config).await?)));
        }
        Ok(Signer::parse(&text)?.into())
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        match self {
            Signatory::File(signer) => signer.verifier(),
            Signatory::Kms(remote) => remote.verifier().clone(),
        }
    }

    /// Signs a text, which must end with a line end.
    ///
    /// # Errors
    /// The key service's.
    async fn sign(&self, text: &str) -> Result<String, kms::Error> {
        match self {
            Signatory::File(signer) => Ok(signer.sign(text)),
            Signatory::Kms(remote) => remote.sign(text).await,
        }
    }

    /// Signs a checkpoint of this key's log.
    ///
    /// # Errors
    /// The key service's.
    pub async fn sign_checkpoint(&self, size: u64, root: Hash) -> Result<String, kms::Error> {
        let origin = self.verifier().name().to_owned();
        self.sign(&Checkpoint { origin, size, root }.text()).await
    }

    /// This key's line for a note that another signed.
    ///
    /// # Errors
    /// The key service's.
    pub async fn signature_line(&self, note: &str) -> Result<String, kms::Error> {
        let text = parts(note).map(|(text, _)| text).unwrap_or_default();
        Ok(self.sign(text).await?.split_off(text.len() + 1))
    }
}
