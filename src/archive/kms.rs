//! A log's key that a key service keeps: this process asks for signatures and never has the key, so
//! whoever takes the machine can sign only while there. The key's file describes where it is:
//!
//! ```json
//! {"public_key": "audit.example.com/prod-1+70cc14c8+Aek…",
//!  "kms": {"type": "vault", "address": "https://vault.example.com:8200", "mount": "transit",
//!          "key": "audit-prod-1", "version": 1, "token": {"file": "/vault/secrets/token"}}}
//! ```
//! The service's public key is compared with the one in the file before anything is signed, and
//! every signature is verified before it is used: a service that was set up anew, or that rotated
//! the key by itself, is refused.

pub mod aws;
pub mod vault;

use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::archive::note::{self, Verifier};

/// Attempts of one request; the pauses between them double.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
/// What is signed to see whether the key signs: no checkpoint, so it says nothing of any log.
const PROBE: &str = "kubewitness asks whether this key signs\n";

/// A key service that did not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may sign later.
    #[error("{service}: {reason}")]
    Unavailable {
        /// Which service and key.
        service: String,
        /// Why there is no answer.
        reason: String,
    },
    /// It will not before somebody changes something.
    #[error("{service}: {reason}; {remedy}")]
    Refused {
        /// Which service and key.
        service: String,
        /// What it said.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

fn timeout_seconds() -> u32 {
    10
}

/// Where a key is: what its file holds, in JSON. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public half, `name+id+key`; the name is the log's origin.
    pub public_key: String,
    /// The service.
    pub kms: Service,
    /// Seconds that the service has for an answer.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u32,
}

/// A key service, and a key in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Service {
    /// The transit engine of Vault or OpenBao.
    Vault(vault::Config),
    /// AWS KMS.
    Aws(aws::Config),
}

/// What a service is asked.
pub(crate) enum Question<'m> {
    /// The public key, 32 bytes.
    PublicKey,
    /// The signature of a message, 64 bytes.
    Signature(&'m [u8]),
}

/// A service that can be asked.
pub(crate) enum Client {
    Vault(vault::Transit),
    Aws(aws::Kms),
}

impl Client {
    fn new(service: &Service, timeout: Duration) -> Result<Client, Error> {
        Ok(match service {
            Service::Vault(config) => Client::Vault(vault::Transit::new(config, timeout)?),
            Service::Aws(config) => Client::Aws(aws::Kms::new(config, timeout)?),
        })
    }

    fn name(&self) -> String {
        match self {
            Client::Vault(transit) => transit.name(),
            Client::Aws(kms) => kms.name(),
        }
    }

    async fn ask_once(&self, question: &Question<'_>) -> Result<Vec<u8>, Error> {
        match self {
            Client::Vault(transit) => transit.ask(question).await,
            Client::Aws(kms) => kms.ask(question).await,
        }
    }

    async fn ask(&self, question: &Question<'_>, mut pause: Duration) -> Result<Vec<u8>, Error> {
        for _ in 1..ATTEMPTS {
            match self.ask_once(question).await {
                Err(Error::Unavailable { service, reason }) => {
                    tracing::warn!(service, reason, "the key service does not answer, once more");
                }
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.ask_once(question).await
    }

    async fn public_key(&self, pause: Duration) -> Result<VerifyingKey, Error> {
        let bytes = self.ask(&Question::PublicKey, pause).await?;
        let key = bytes.try_into().ok().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        key.ok_or_else(|| Error::Refused {
            service: self.name(),
            reason: "its public key is none of Ed25519".to_owned(),
            remedy: "make a key of Ed25519".to_owned(),
        })
    }
}

/// A key that a service keeps.
pub struct Remote {
    client: Client,
    verifier: Verifier,
    pause: Duration,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Remote({}, {})", self.client.name(), self.verifier)
    }
}

impl Remote {
    /// Finds the key, compares its public half with the configured one, and has a text signed that
    /// is no checkpoint.
    ///
    /// # Errors
    /// The service cannot be reached, has another key, or does not sign.
    pub async fn open(config: &Config) -> Result<Remote, Error> {
        let client = Client::new(&config.kms, timeout(config.timeout_seconds))?;
        Remote::connect(client, &config.public_key, PAUSE).await
    }

    pub(crate) async fn connect(
        client: Client,
        public_key: &str,
        pause: Duration,
    ) -> Result<Remote, Error> {
        let refused = |reason: String, remedy: &str| Error::Refused {
            service: client.name(),
            reason,
            remedy: remedy.to_owned(),
        };
        let verifier = Verifier::parse(public_key).map_err(|error| {
            refused(format!("`public_key`: {error}"), "write what `archive keygen --kms` printed")
        })?;
        let found = Verifier::of(verifier.name(), client.public_key(pause).await?);
        if found.as_ref() != Ok(&verifier) {
            let found = found.map_or_else(|error| error.to_string(), |it| it.to_string());
            let reason = format!("its public key is {found}, not {verifier}");
            return Err(refused(reason, "was the key rotated or made anew? see docs/archive.md"));
        }
        let remote = Remote { client, verifier, pause };
        remote.sign(PROBE).await?;
        Ok(remote)
    }

    /// The public half.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Signs a text that ends with a line end; the note.
    ///
    /// # Errors
    /// The service did not sign, or not with this key.
    pub async fn sign(&self, text: &str) -> Result<String, Error> {
        let bytes = self.client.ask(&Question::Signature(text.as_bytes()), self.pause).await?;
        let signature = Signature::from_slice(&bytes).map_err(|_| note::Error::Form("signature"));
        let note = signature.and_then(|it| self.verifier.note(text, &it));
        note.map_err(|_| Error::Refused {
            service: self.client.name(),
            reason: "its signature does not hold".to_owned(),
            remedy: "was the key rotated? see docs/archive.md".to_owned(),
        })
    }
}

/// Describes a key that exists in a service: asks for its public half, and gives it a name.
///
/// # Errors
/// The name is none; the service cannot be reached, or has no such key.
pub async fn describe(origin: &str, kms: Service) -> Result<Config, Error> {
    let timeout_seconds = timeout_seconds();
    let client = Client::new(&kms, timeout(timeout_seconds))?;
    let key = client.public_key(PAUSE).await?;
    let verifier = Verifier::of(origin, key).map_err(|error| Error::Refused {
        service: client.name(),
        reason: error.to_string(),
        remedy: "give the log's origin".to_owned(),
    })?;
    let config = Config { public_key: verifier.to_string(), kms, timeout_seconds };
    Remote::open(&config).await?;
    Ok(config)
}

fn timeout(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.max(1)))
}

/// Where a key is, as a person writes it: `https://vault.example.com:8200/v1/transit/keys/NAME` or
/// `arn:aws:kms:REGION:ACCOUNT:key/ID`.
///
/// # Errors
/// What to write.
pub fn locate(
    text: &str,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    namespace: Option<String>,
    version: u32,
) -> Result<Service, String> {
    if text.starts_with("arn:") {
        let config = aws::Config { key: text.to_owned(), endpoint: None };
        config.region()?;
        return Ok(Service::Aws(config));
    }
    let Some(token_file) = token_file else {
        return Err("give the file of the vault's token too, with --token-file".to_owned());
    };
    vault::locate(text, token_file, ca_file, namespace, version).map(Service::Vault)
}
