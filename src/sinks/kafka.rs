//! Topics of a Kafka cluster. Delivered means that all in-sync replicas have the messages.
//!
//! The producer is idempotent and never gives a message up: `message.timeout.ms` is 0, the spool is
//! the buffer. While the cluster cannot be reached the messages of one batch wait inside
//! librdkafka, and sending the same batch again goes on waiting for them; so an outage repeats
//! nothing. After a restart the last batch may be repeated: each message carries its id.
//!
//! ```text
//! key      events: the audit id, so that the stages of a request stay in order; alerts: the actor
//! headers  kubewitness-id (equal for copies), kubewitness-cluster, kubewitness-kind
//! time     of the event
//! ```

mod session;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Slot};
use crate::kafka::verdict::{Verdict, verdict};
use crate::kafka::{self, Sasl, Tls};
use crate::sinks::encode::Format;
use crate::sinks::kafka::session::{Failure, Session, Settled};
use crate::sinks::{CheckError, Delivered, Item, Outgoing, RecordKind, Rejection, SendError, Sink};
use crate::units::{Size, Span};

/// What is configured of a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses of some brokers, apart by commas: `a:9092,b:9092`.
    pub brokers: String,
    /// The topic of each kind of record.
    pub topics: Topics,
    /// How a message is written: `native`, `ecs`, `ocsf`, `cef`, `leef`, `falco`. Default: native.
    #[serde(default)]
    pub format: Format,
    /// The largest message, before compression; the topic's `max.message.bytes` must allow it.
    /// A larger one becomes a dead letter. Default: 1000000B, which is Kafka's own.
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: Size,
    /// `zstd`, `lz4`, `gzip`, `snappy` or `none`. Default: zstd.
    #[serde(default)]
    pub compression: Compression,
    /// So long a message waits for others to be sent with. Default: 5ms.
    #[serde(default = "linger")]
    pub linger: Span,
    /// What the client calls itself in the brokers' logs and quotas. Default: kubewitness.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// Encryption. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Authentication. Default: none, or by the TLS certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// The topic of each kind of record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
    /// Of alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts: Option<String>,
    /// Of notices about the audit trail. Default: the topic of alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notices: Option<String>,
}

/// How batches of messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are Kafka's")]
pub enum Compression {
    #[default]
    Zstd,
    Lz4,
    Gzip,
    Snappy,
    None,
}

fn message_bytes_max() -> Size {
    Size(1_000_000)
}

fn linger() -> Span {
    Span::from_millis(5)
}

fn client_id() -> String {
    "kubewitness".to_owned()
}

impl Topics {
    /// The topic of a kind.
    fn of(&self, kind: RecordKind) -> Option<&str> {
        match kind {
            RecordKind::Events => self.events.as_deref(),
            RecordKind::Alerts => self.alerts.as_deref(),
            RecordKind::Notices | RecordKind::Anchors | RecordKind::Quarantine => {
                self.notices.as_deref().or(self.alerts.as_deref())
            }
        }
    }
}

impl Config {
    /// What every client of this cluster has in common. Reads the secrets.
    pub(crate) fn client(&self) -> Result<ClientConfig, String> {
        kafka::client(&self.brokers, &self.client_id, self.tls.as_ref(), self.sasl.as_ref())
    }

    fn producer(&self) -> Result<ClientConfig, String> {
        let compression = match self.compression {
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::None => "none",
        };
        let mut config = self.client()?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            // An unknown topic may be one that was created just now.
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("message.max.bytes", self.message_bytes_max.0.to_string())
            .set("compression.type", compression)
            .set("linger.ms", self.linger.0.as_millis().to_string())
            .set("batch.size", "1000000")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "262144");
        Ok(config)
    }
}

/// Produces to topics.
pub struct Kafka {
    config: Config,
    /// Topics that the sink may need.
    topics: Vec<String>,
    session: Option<Session>,
    /// Sequence numbers of the batch that the session holds, once all of it was handed over.
    under_way: Option<Vec<u64>>,
    /// Whether the session holds messages that were not answered.
    is_busy: bool,
}

/// Without any answer for so long, the caller is told; the messages go on waiting.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A preflight waits so long for the cluster.
const CHECK_MAX: Duration = Duration::from_secs(15);

impl Kafka {
    /// A sink of this configuration for these kinds of records; connects to nothing.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn new(config: Config, records: &[RecordKind]) -> Result<Kafka, String> {
        let mut topics = Vec::new();
        for kind in records {
            let name = kind.as_str();
            let topic = config
                .topics
                .of(*kind)
                .ok_or_else(|| format!("`records` has {name}, and `topics` names none for them"))?;
            if !topics.iter().any(|known| known == topic) {
                topics.push(topic.to_owned());
            }
        }
        config.sasl.as_ref().map_or(Ok(()), Sasl::check)?;
        Ok(Kafka { config, topics, session: None, under_way: None, is_busy: false })
    }

    /// Gives the session up, messages that wait in it included.
    fn close(&mut self) {
        self.under_way = None;
        self.is_busy = false;
        if let Some(session) = self.session.take() {
            // It waits for its threads.
            tokio::task::spawn_blocking(move || drop(session));
        }
    }

    fn open(&mut self) -> Result<&mut Session, SendError> {
        if self.session.is_none() {
            let remedy = "mend the sink's configuration";
            let config = self.config.producer().map_err(|cause| SendError::block(cause, remedy))?;
            let token = self.config.sasl.as_ref().and_then(|sasl| sasl.token.clone());
            let session =
                Session::open(&config, token).map_err(|error| SendError::block(error, remedy))?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| SendError::retry("not connected"))
    }

    /// Hands every item to librdkafka.
    async fn produce(&mut self, batch: &[Item<'_>]) -> Result<(), SendError> {
        let (format, topics) = (self.config.format, self.config.topics.clone());
        let session = self.open()?;
        let round = session.begin(batch.len());
        let mut payload = Vec::new();
        for (index, item) in batch.iter().enumerate() {
            let Some(topic) = topics.of(item.kind()) else {
                session.refuse(index, RDKafkaErrorCode::UnknownTopic);
                continue;
            };
            payload.clear();
            format.encode(item, &mut payload);
            let (key, time_ms) = addressed(item);
            let id = item.id();
            loop {
                let record = BaseRecord::with_opaque_to(topic, round.opaque(index))
                    .payload(payload.as_slice())
                    .key(key.as_bytes())
                    .timestamp(time_ms)
                    .headers(headers(item, &id));
                match session.send(record) {
                    Ok(()) => break,
                    Err(RDKafkaErrorCode::QueueFull) => session.room(STALL_MAX).await?,
                    Err(code) => {
                        session.refuse(index, code);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// What to do about the messages that failed.
    fn judge(&mut self, failures: Vec<Failure>) -> Delivered {
        let mut delivered = Delivered::default();
        let mut is_broken = false;
        for Failure { index, code } in failures {
            match verdict(code) {
                Verdict::Reject(reason) => {
                    let cause = code.to_string();
                    delivered.rejected.push(Rejection { index, reason, cause });
                }
                Verdict::Retry { is_new_session } => {
                    is_broken |= is_new_session;
                    delivered.again.push(index);
                    delivered.why.get_or_insert_with(|| SendError::retry(code.to_string()));
                }
                Verdict::Block(remedy) => {
                    is_broken = true;
                    delivered.again.push(index);
                    delivered.why = Some(SendError::block(code.to_string(), remedy));
                }
            }
        }
        delivered.again.sort_unstable();
        if is_broken {
            self.close();
        }
        delivered
    }
}

impl Sink for Kafka {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let seqs: Vec<u64> = batch.iter().map(|item| item.seq).collect();
        if self.under_way.as_ref() != Some(&seqs) {
            if self.is_busy {
                self.close();
            }
            self.is_busy = true;
            self.produce(batch).await?;
            self.under_way = Some(seqs);
        }
        let Some(session) = &self.session else { return Err(SendError::retry("not connected")) };
        match session.settled(STALL_MAX).await {
            Settled::Done(failures) => {
                self.under_way = None;
                self.is_busy = false;
                Ok(self.judge(failures))
            }
            Settled::Stalled(None) => Err(SendError::retry("the brokers do not answer")),
            Settled::Stalled(Some((code, cause))) => match verdict(code) {
                Verdict::Block(remedy) => {
                    // Another session reads the secrets again.
                    self.close();
                    Err(SendError::block(cause, remedy))
                }
                Verdict::Retry { .. } | Verdict::Reject(_) => Err(SendError::retry(cause)),
            },
        }
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        let (config, topics) = (self.config.clone(), self.topics.clone());
        session::check(config, topics, CHECK_MAX).await
    }
}

/// The key of a message, and its time in milliseconds since the epoch.
fn addressed(item: &Item<'_>) -> (String, i64) {
    #[derive(Deserialize)]
    struct Head {
        time: Option<String>,
        actor: Option<Actor>,
        source: Option<String>,
    }
    #[derive(Deserialize)]
    struct Actor {
        username: Option<String>,
    }
    match item.outgoing {
        Outgoing::Event(stored) => {
            let audit_id = Event::salvage(stored.raw)
                .and_then(|event| event.text(Slot::AuditId).map(|id| id.into_owned()));
            // Brokers refuse times to come.
            let time_us = stored.time_us.min(stored.received_us);
            (audit_id.unwrap_or_else(|| item.id()), time_us.div_euclid(1_000))
        }
        _ => {
            let head: Option<Head> = serde_json::from_slice(item.bytes()).ok();
            let time = head.as_ref().and_then(|head| head.time.as_deref());
            let time_us = time.and_then(|time| crate::event::time::parse_us(time.as_bytes()));
            let key = head.and_then(|head| head.actor.and_then(|a| a.username).or(head.source));
            (key.unwrap_or_default(), time_us.unwrap_or_default().div_euclid(1_000))
        }
    }
}

fn headers(item: &Item<'_>, id: &str) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "kubewitness-id", value: Some(id) })
        .insert(Header { key: "kubewitness-kind", value: Some(item.kind().as_str()) });
    match item.outgoing {
        Outgoing::Event(event) => {
            headers.insert(Header { key: "kubewitness-cluster", value: Some(event.cluster) })
        }
        _ => headers,
    }
}

#[cfg(test)]
mod tests;
