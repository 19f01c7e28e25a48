//! Asks witnesses to cosign checkpoints, and says whether those that did are enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use crate::archive::note::{Verifier, parts};
use crate::archive::policy::{Listed, Policy};
use crate::archive::reader::{self, TileReader};
use crate::archive::recover::{self, read_commit};
use crate::archive::store::{self, Store};
use crate::archive::submission::Submission;
use crate::archive::tree::{Hash, empty_root, is_consistent};
use crate::archive::witness::origin_hash;
use crate::telemetry::chain;

/// Submissions to one witness about one head: it may know another tree than was thought.
const ATTEMPTS: usize = 3;
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// An answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Whether the body is a size (`text/x.tlog.size`).
    pub is_size: bool,
    /// The body.
    pub body: String,
}

/// How witnesses are reached.
pub trait Wire: Send + Sync {
    /// Posts `body`; gets where there is none. The error says why there is no answer.
    fn ask<'a>(&'a self, url: String, body: Option<String>)
    -> BoxFuture<'a, Result<Reply, String>>;
}

/// HTTP.
#[derive(Debug)]
pub struct Http(reqwest::Client);

impl Http {
    /// A client that waits for an answer for so long.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(timeout: Duration) -> Result<Http, String> {
        crate::tls::install();
        let builder = reqwest::Client::builder().timeout(timeout);
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        builder.build().map(Http).map_err(|error| error.to_string())
    }
}

impl Wire for Http {
    fn ask<'a>(
        &'a self,
        url: String,
        body: Option<String>,
    ) -> BoxFuture<'a, Result<Reply, String>> {
        async move {
            let request = match body {
                Some(body) => self.0.post(url).body(body),
                None => self.0.get(url),
            };
            let mut response = request.send().await.map_err(|error| chain(&error))?;
            let status = response.status().as_u16();
            let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
            let kind = kind.map_or(b"".as_slice(), |kind| kind.as_bytes());
            let is_size = kind.starts_with(b"text/x.tlog.size");
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|error| chain(&error))? {
                if body.len() + part.len() > ANSWER_BYTES_MAX {
                    return Err("its answer is too long".to_owned());
                }
                body.extend_from_slice(&part);
            }
            let body = String::from_utf8(body).map_err(|_| "its answer is no text".to_owned())?;
            Ok(Reply { status, is_size, body })
        }
        .boxed()
    }
}

/// Why a witness did not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It may cosign later.
    #[error("{0}")]
    Unavailable(String),
    /// It does not know this log or its key.
    #[error("it answers {0}; is this log's key known to it?")]
    Unknown(u16),
    /// It has cosigned a larger tree than there is.
    #[error("ROLLBACK: it has cosigned {0} records")]
    Rollback(u64),
    /// It has cosigned another history of this key.
    #[error("FORK: it has cosigned another history of {0} records")]
    Fork(u64),
}

impl Refusal {
    /// A word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Refusal::Unavailable(_) => "unavailable",
            Refusal::Unknown(_) => "unknown",
            Refusal::Rollback(_) => "rollback",
            Refusal::Fork(_) => "fork",
        }
    }

    /// Whether it says that this log is not what it was.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Refusal::Rollback(_) | Refusal::Fork(_))
    }
}

/// A log whose own archive does not yield the proofs that witnesses ask for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A commit.
    #[error(transparent)]
    Log(#[from] recover::Error),
    /// A tile.
    #[error("no proof for a witness: {0}; run `kubewitness verify`")]
    Tiles(String),
}

/// A checkpoint that witnesses were asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The signed checkpoint, with the cosignatures that came.
    pub note: String,
    /// Whether they are enough.
    pub is_met: bool,
    /// How many there are.
    pub cosigned: usize,
    /// Witnesses that did not, and why.
    pub refusals: Vec<(String, Refusal)>,
}

/// The witnesses of one log.
pub struct Cosigners {
    policy: Policy,
    is_required: bool,
    wire: Arc<dyn Wire>,
    /// The size that each cosigned last, as far as is known.
    sizes: Vec<AtomicU64>,
}

impl std::fmt::Debug for Cosigners {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cosigners").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Cosigners {
    /// The witnesses of a policy that have a URL. When they are required, nothing counts as
    /// archived before enough of them have cosigned it.
    pub fn new(policy: Policy, is_required: bool, wire: Arc<dyn Wire>) -> Cosigners {
        let sizes = policy.witnesses().iter().map(|_| AtomicU64::new(0)).collect();
        Cosigners { policy, is_required, wire, sizes }
    }

    /// Whether nothing counts as archived without them.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Asks all of them, at the same time, to cosign a head whose tiles are in the store.
    ///
    /// # Errors
    /// The archive does not yield a proof; what witnesses answer is no error.
    pub async fn ask(&self, store: &dyn Store, key: &Verifier, note: &str) -> Result<Asked, Error> {
        let listed = self.policy.witnesses().iter().zip(&self.sizes);
        let listed = listed.filter(|(listed, _)| listed.url.is_some());
        let asked = listed.map(|(listed, size)| self.ask_one(listed, size, store, key, note));
        let answers = join_all(asked).await;
        let names = self.policy.witnesses().iter().filter(|listed| listed.url.is_some());
        let (mut note, mut refusals, mut cosigned) = (note.to_owned(), Vec::new(), 0);
        for (listed, answer) in names.zip(answers) {
            match answer? {
                Ok(line) => {
                    note.push_str(&line);
                    cosigned += 1;
                }
                Err(refusal) => refusals.push((listed.name.clone(), refusal)),
            }
        }
        let times = self.policy.cosigned(&note).unwrap_or_default();
        Ok(Asked { is_met: self.policy.is_met(&times), note, cosigned, refusals })
    }

    async fn ask_one(
        &self,
        listed: &Listed,
        known: &AtomicU64,
        store: &dyn Store,
        key: &Verifier,
        note: &str,
    ) -> Result<Result<String, Refusal>, Error> {
        let Ok(head) = key.checkpoint(note) else {
            return Err(Error::Tiles("the checkpoint is not this log's".to_owned()));
        };
        let text = parts(note).map(|(text, _)| text).unwrap_or_default();
        let base = listed.url.as_deref().unwrap_or_default().trim_end_matches('/');
        let mut old = known.load(Ordering::Relaxed).min(head.size);
        for _ in 0..ATTEMPTS {
            let proof = proof(store, key, old, (head.size, head.root)).await?;
            let submission = Submission { old, proof, note: note.to_owned() }.encode();
            let reply =
                match self.wire.ask(format!("{base}/add-checkpoint"), Some(submission)).await {
                    Err(cause) => return Ok(Err(Refusal::Unavailable(cause))),
                    Ok(reply) => reply,
                };
            let theirs = reply.body.trim_end().parse::<u64>().ok().filter(|_| reply.is_size);
            match (reply.status, theirs) {
                (200, _) => {
                    let Some(line) = listed.key.line_of(text, &reply.body) else {
                        let cause = "its signature does not hold; is its key the right one?";
                        return Ok(Err(Refusal::Unavailable(cause.to_owned())));
                    };
                    known.store(head.size, Ordering::Relaxed);
                    return Ok(Ok(line.to_owned()));
                }
                (409, Some(size)) if size > head.size => return Ok(Err(Refusal::Rollback(size))),
                (409, Some(size)) if size == old => return Ok(Err(Refusal::Fork(size))),
                (409, Some(size)) => old = size,
                // The proof was checked before it was sent: it starts from another tree there.
                (422, _) => return Ok(Err(Refusal::Fork(old))),
                (status @ (400 | 403 | 404), _) => return Ok(Err(Refusal::Unknown(status))),
                (status, _) => {
                    let cause = format!("it answers {status}");
                    return Ok(Err(Refusal::Unavailable(cause)));
                }
            }
        }
        Ok(Err(Refusal::Unavailable("its size changes with each answer".to_owned())))
    }

    /// The checkpoints of this log that the witnesses cosigned last, with their names, of those
    /// that tell. Why the others do not is in the log.
    pub async fn heads(&self, origin: &str) -> Vec<(String, String)> {
        let hash = origin_hash(origin);
        let asked = self.policy.witnesses().iter().filter_map(|listed| {
            let url = format!("{}/{hash}/checkpoint", listed.url.as_deref()?.trim_end_matches('/'));
            Some(self.wire.ask(url, None).map(move |reply| (listed.name.clone(), reply)))
        });
        let mut heads = Vec::new();
        for (name, reply) in join_all(asked).await {
            match reply {
                Ok(Reply { status: 200, body, .. }) => heads.push((name, body)),
                Ok(reply) => {
                    tracing::warn!(witness = name, status = reply.status, "tells no checkpoint");
                }
                Err(error) => tracing::warn!(witness = name, error, "tells no checkpoint"),
            }
        }
        heads
    }
}

/// The proof that the tree of `old` leaves is a prefix, checked against what was signed then.
async fn proof(
    store: &dyn Store,
    key: &Verifier,
    old: u64,
    head: (u64, Hash),
) -> Result<Vec<Hash>, Error> {
    if old == 0 || old >= head.0 {
        return Ok(Vec::new());
    }
    let proof = match TileReader::new(store, head.0).consistency(old).await {
        Err(reader::Error::Store(error)) => return Err(error.into()),
        other => other.map_err(|error| Error::Tiles(error.to_string()))?,
    };
    let root = match old.checked_sub(1) {
        Some(last) => read_commit(store, last, key).await?.head.root,
        None => empty_root(),
    };
    if !is_consistent((old, root), head, &proof) {
        return Err(Error::Tiles(format!("its tiles do not hold the tree of {old} records")));
    }
    Ok(proof)
}
