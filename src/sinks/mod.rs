//! `Sink`: what takes records of the spool to somewhere else, and says what became of them.
//!
//! A sink is handed records in order and answers once: all of them are over there (`Ok`), or what
//! to do next ([`SendError`]). It keeps nothing between two calls that a crash could lose: what it
//! has not reported delivered is read from the spool again. [`frame::Frame`] stands in front of
//! every sink: it filters, splits what is too large, and finds the item that poisons a batch.
//!
//! The endpoint of a sink comes from the configuration alone. No value of an event becomes part of
//! a URL, a header, a topic or a path.

pub mod encode;
pub mod endpoint;
pub(crate) mod lanes;
pub mod file;
pub mod stdout;
pub mod kafka;
pub mod splunk;
pub mod elasticsearch;
pub mod http;
pub mod syslog;
pub mod filter;
pub mod throttle;
pub mod archive;
pub mod config;
pub mod frame;

use std::future::Future;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::record::{self, StoredEvent};
use crate::spool;

/// What a sink is to take elsewhere, borrowed from a read of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing<'r> {
    /// A raw event, redacted.
    Event(StoredEvent<'r>),
    /// An alert in its native JSON, one object.
    Alert(&'r [u8]),
    /// What a source noticed about the audit trail itself: a JSON object.
    Notice(&'r [u8]),
    /// A signed checkpoint of an archive: a JSON object as a notice is one.
    Anchor(&'r [u8]),
    /// Input that is no audit event: a JSON object as a notice is one.
    Quarantine(&'r [u8]),
}

/// A record for a sink, with its place in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'r> {
    /// Sequence number in the spool; grows from item to item.
    pub seq: u64,
    /// What it is.
    pub outgoing: Outgoing<'r>,
}

impl<'r> Item<'r> {
    /// The item that a record of the spool is. `None` for kinds that stay here, and for an event
    /// written by a later release.
    pub fn of(record: &spool::Record<'r>) -> Option<Item<'r>> {
        let outgoing = match record.kind {
            record::kind::EVENT => Outgoing::Event(StoredEvent::decode(record.payload)?),
            record::kind::ALERT => Outgoing::Alert(record.payload),
            record::kind::NOTICE => Outgoing::Notice(record.payload),
            record::kind::ANCHOR => Outgoing::Anchor(record.payload),
            record::kind::QUARANTINE => Outgoing::Quarantine(record.payload),
            _ => return None,
        };
        Some(Item { seq: record.seq, outgoing })
    }

    /// What copies of one item have in common, also after a crash: 32 hexadecimal digits. Of an
    /// alert its own id; else a hash of the cluster and of what the item is.
    pub fn id(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Id {
            id: String,
        }
        let hash = |parts: [&[u8]; 2]| {
            let mut hasher = Sha256::new();
            for part in parts {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            short_hash(hasher)
        };
        match self.outgoing {
            Outgoing::Event(event) => hash([event.cluster.as_bytes(), &event.duplicate_key]),
            Outgoing::Notice(json) => hash([b"notice", json]),
            Outgoing::Anchor(json) => hash([b"anchor", json]),
            Outgoing::Quarantine(json) => hash([b"quarantine", json]),
            Outgoing::Alert(json) => match serde_json::from_slice::<Id>(json) {
                Ok(Id { id }) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => id,
                _ => hash([b"alert", json]),
            },
        }
    }

    /// The bytes as they are stored: a raw event, or JSON.
    pub fn bytes(&self) -> &'r [u8] {
        match self.outgoing {
            Outgoing::Event(event) => event.raw,
            Outgoing::Alert(json)
            | Outgoing::Notice(json)
            | Outgoing::Anchor(json)
            | Outgoing::Quarantine(json) => json,
        }
    }

    /// What kind of record it is.
    pub fn kind(&self) -> RecordKind {
        match self.outgoing {
            Outgoing::Event(_) => RecordKind::Events,
            Outgoing::Alert(_) => RecordKind::Alerts,
            Outgoing::Notice(_) => RecordKind::Notices,
            Outgoing::Anchor(_) => RecordKind::Anchors,
            Outgoing::Quarantine(_) => RecordKind::Quarantine,
        }
    }
}

/// Equal for a batch and its repeats: 32 hexadecimal digits.
pub(crate) fn batch_id(items: &[Item<'_>]) -> String {
    let mut hasher = Sha256::new();
    items.iter().for_each(|item| hasher.update(item.id()));
    short_hash(hasher)
}

/// The first half of a hash in hexadecimal.
fn short_hash(hasher: Sha256) -> String {
    let digit = |four: u8| char::from(b"0123456789abcdef"[usize::from(four)]);
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    hasher.finalize().iter().take(16).flat_map(digits).collect()
}

/// The kinds of records that a sink may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Raw events.
    Events,
    /// Alerts.
    Alerts,
    /// Notices about the audit trail itself.
    Notices,
    /// Signed checkpoints of the archive, to hold it to.
    Anchors,
    /// Input that is no audit event: where it stood and its shape, its bytes only sealed.
    Quarantine,
}

impl RecordKind {
    /// The kind as the configuration and metric labels spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordKind::Events => "events",
            RecordKind::Alerts => "alerts",
            RecordKind::Notices => "notices",
            RecordKind::Anchors => "anchors",
            RecordKind::Quarantine => "quarantine",
        }
    }

    /// The kind of the spool's records.
    pub fn code(self) -> u8 {
        match self {
            RecordKind::Events => record::kind::EVENT,
            RecordKind::Alerts => record::kind::ALERT,
            RecordKind::Notices => record::kind::NOTICE,
            RecordKind::Anchors => record::kind::ANCHOR,
            RecordKind::Quarantine => record::kind::QUARANTINE,
        }
    }
}

/// What became of a batch that the far side dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Items refused for good; every other item that is not in `again` was accepted.
    pub rejected: Vec<Rejection>,
    /// Indices, ascending, of items that the far side could not take just now.
    pub again: Vec<usize>,
    /// Why, where it is known. [`SendError::TooLarge`] and [`SendError::Reject`]: send what is in
    /// `again` in halves.
    pub why: Option<SendError>,
    /// A signed checkpoint that the other sinks are to keep.
    pub anchor: Option<String>,
}

/// An item that the far side refuses for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Index of the item in the batch.
    pub index: usize,
    /// Why, as a word of a closed set; a metric label.
    pub reason: &'static str,
    /// Why, in the far side's words.
    pub cause: String,
}

/// Whose records a sink is handed, and how far they are dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The cursor's id; another spool has another one.
    pub cursor: u128,
    /// Everything up to this sequence number was delivered, or is a durable dead letter.
    pub acked: u64,
}

/// Why a batch was not delivered: by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The same batch may be accepted later. Any part of it may have arrived.
    #[error("{cause}")]
    Retry {
        /// When, where the far side said so.
        after: Option<Duration>,
        /// What happened.
        cause: String,
    },
    /// The batch is larger than the far side takes: send it in halves.
    #[error("{cause}")]
    TooLarge {
        /// What the limit is, as far as it is known.
        cause: String,
    },
    /// The far side refuses something in the batch and does not say what: send it in halves until
    /// the item is found.
    #[error("{cause}")]
    Reject {
        /// Why, as a word of a closed set; a metric label.
        reason: &'static str,
        /// Why, in the far side's words.
        cause: String,
    },
    /// Nothing can be delivered until a person acts; the records stay in the spool.
    #[error("{cause}; {remedy}")]
    Block {
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
}

impl SendError {
    /// The same batch may be accepted later.
    pub(crate) fn retry(cause: impl Into<String>) -> SendError {
        SendError::Retry { after: None, cause: cause.into() }
    }

    /// A person must act.
    pub(crate) fn block(cause: impl Into<String>, remedy: impl Into<String>) -> SendError {
        SendError::Block { cause: cause.into(), remedy: remedy.into() }
    }
}

/// What a preflight found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct CheckError {
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl CheckError {
    /// What is wrong and what to do about it.
    pub(crate) fn new(cause: impl Into<String>, remedy: impl Into<String>) -> CheckError {
        CheckError { cause: cause.into(), remedy: remedy.into() }
    }
}

impl From<SendError> for CheckError {
    fn from(error: SendError) -> CheckError {
        match error {
            SendError::Block { cause, remedy } => CheckError { cause, remedy },
            SendError::Retry { cause, .. } => {
                CheckError::new(cause, "the sink would try again until it answers")
            }
            SendError::TooLarge { cause } | SendError::Reject { cause, .. } => {
                CheckError::new(cause, "see what the far side expects")
            }
        }
    }
}

/// One way out.
pub trait Sink: Send {
    /// Delivers the items in order; `batch` is never empty. `Ok` means that the far side accepted
    /// every item that the answer does not name; what accepting means there is said by each sink.
    ///
    /// Dropping the future may leave any part of the batch delivered; sending it again is right.
    ///
    /// # Errors
    /// [`SendError`] says what to do next.
    fn send(
        &mut self,
        batch: &[Item<'_>],
    ) -> impl Future<Output = Result<Delivered, SendError>> + Send;

    /// How many batches it wants to be handed over as one: it sends them side by side, or each
    /// handing over costs it a wait.
    fn batches(&self) -> usize {
        1
    }

    /// Tells where the cursor stands, before its next records are handed over: for a sink that
    /// keeps a position at the far side too.
    fn resume(&mut self, _position: Position) {}

    /// Makes at the far side what the sink needs there; returns what it made, in words. Most need
    /// nothing.
    ///
    /// # Errors
    /// [`CheckError`] says what was refused.
    fn install(&mut self) -> impl Future<Output = Result<Vec<String>, CheckError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Asks the far side, without changing anything there, whether it would accept.
    ///
    /// # Errors
    /// [`CheckError`] names what is wrong and the remedy.
    fn check(&mut self) -> impl Future<Output = Result<(), CheckError>> + Send;

    /// Does what has to be done whether anything is sent or not; called now and then while nothing
    /// is, and once behind everything, with `is_last`. Returns a signed checkpoint that the other
    /// sinks are to keep.
    ///
    /// # Errors
    /// [`SendError::Retry`] and [`SendError::Block`]; it is called again.
    fn turn(
        &mut self,
        is_last: bool,
    ) -> impl Future<Output = Result<Option<String>, SendError>> + Send {
        let _ = is_last;
        std::future::ready(Ok(None))
    }
}

/// Any sink that can be configured.
#[expect(clippy::large_enum_variant, reason = "there are a few of them, and they stay in place")]
pub enum AnySink {
    /// Lines in a file.
    File(file::File),
    /// Lines on standard output.
    Stdout(stdout::Stdout),
    /// Topics of a Kafka cluster.
    Kafka(kafka::Kafka),
    /// Splunk's HTTP Event Collector.
    Splunk(splunk::Splunk),
    /// Data streams of Elasticsearch or OpenSearch.
    Elasticsearch(elasticsearch::Elasticsearch),
    /// Any service that takes a POST.
    Http(http::Http),
    /// A receiver of syslog.
    Syslog(syslog::Syslog),
    /// The archive.
    Archive(Box<archive::Archive>),
}

impl Sink for AnySink {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        match self {
            AnySink::File(sink) => sink.send(batch).await,
            AnySink::Stdout(sink) => sink.send(batch).await,
            AnySink::Kafka(sink) => sink.send(batch).await,
            AnySink::Splunk(sink) => sink.send(batch).await,
            AnySink::Elasticsearch(sink) => sink.send(batch).await,
            AnySink::Http(sink) => sink.send(batch).await,
            AnySink::Syslog(sink) => sink.send(batch).await,
            AnySink::Archive(sink) => sink.send(batch).await,
        }
    }

    fn batches(&self) -> usize {
        match self {
            AnySink::Kafka(sink) => sink.batches(),
            AnySink::Splunk(sink) => sink.batches(),
            AnySink::Elasticsearch(sink) => sink.batches(),
            AnySink::Http(sink) => sink.batches(),
            _ => 1,
        }
    }

    async fn install(&mut self) -> Result<Vec<String>, CheckError> {
        match self {
            AnySink::Elasticsearch(sink) => sink.install().await,
            _ => Ok(Vec::new()),
        }
    }

    fn resume(&mut self, position: Position) {
        if let AnySink::Kafka(sink) = self {
            sink.resume(position);
        }
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        match self {
            AnySink::File(sink) => sink.check().await,
            AnySink::Stdout(sink) => sink.check().await,
            AnySink::Kafka(sink) => sink.check().await,
            AnySink::Splunk(sink) => sink.check().await,
            AnySink::Elasticsearch(sink) => sink.check().await,
            AnySink::Http(sink) => sink.check().await,
            AnySink::Syslog(sink) => sink.check().await,
            AnySink::Archive(sink) => sink.check().await,
        }
    }

    async fn turn(&mut self, is_last: bool) -> Result<Option<String>, SendError> {
        match self {
            AnySink::Archive(sink) => sink.turn(is_last).await,
            _ => Ok(None),
        }
    }
}

/// What to do where certificates keep two sides apart, by the words of rustls; none where it is
/// something else.
pub(crate) fn certificate_remedy(cause: &str) -> Option<&'static str> {
    const UNKNOWN: &str =
        "the certificate is self-signed, or of an authority unknown here: name it in `ca_file`";
    const REFUSED: &str =
        "the far side does not take the client's certificate: mend `cert_file` and `key_file`";
    let remedies = [
        ("UnknownIssuer", UNKNOWN),
        ("CaUsedAsEndEntity", UNKNOWN),
        ("BadSignature", UNKNOWN),
        ("not valid for name", "the certificate is for another name: mend the sink's address"),
        ("certificate expired", "renew the far side's certificate"),
        ("invalid peer certificate", "mend the far side's certificate"),
        (
            "CertificateRequired",
            "the far side wants a client's certificate: give `cert_file` and `key_file`",
        ),
        ("UnknownCA", REFUSED),
        ("BadCertificate", REFUSED),
        ("CertificateUnknown", REFUSED),
        ("CertificateExpired", REFUSED),
    ];
    remedies.iter().find(|(sign, _)| cause.contains(sign)).map(|(_, remedy)| *remedy)
}

/// Runs file operations off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SendError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(SendError::retry("shutting down")),
    }
}
