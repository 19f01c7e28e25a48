//! Topics of a Kafka cluster. Delivered means that all in-sync replicas have the messages.
//!
//! The producer is idempotent and never gives a message up: `message.timeout.ms` is 0, the spool is
//! the buffer. While the cluster cannot be reached the messages of one batch wait inside
//! librdkafka, and sending the same batch again goes on waiting for them; so an outage repeats
//! nothing. After a restart the last batch may be repeated: each message carries its id. With
//! `transactional_id` a batch and the cursor's position become visible together, and a restart
//! repeats nothing either; see transaction.rs. One exception: what follows a message that the
//! brokers refused is repeated when the crash comes before the dead letter is on the disk.
//!
//! ```text
//! key      events: the audit id, so that the stages of a request stay in order; alerts: the actor
//! headers  kubewitness-id (equal for copies), kubewitness-cluster, kubewitness-kind
//! time     of the event
//! ```

mod session;
mod transaction;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Slot};
use crate::kafka::verdict::{Verdict, explained, verdict};
use crate::kafka::{self, Sasl, Tls};
use crate::sinks::encode::Format;
use crate::sinks::kafka::session::{Failure, Session, Settled};
use crate::sinks::kafka::transaction::{Ledger, Refusal};
use crate::sinks::{
    CheckError, Delivered, Item, Outgoing, Position, RecordKind, Rejection, SendError, Sink,
};
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
    /// Makes every batch a transaction that holds the sink's position too, so that a crash repeats
    /// nothing for whoever reads with `isolation.level=read_committed`. The same name after every
    /// start, and of this sink only. Default: none, and the last batch may be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactional_id: Option<String>,
    /// Requests under way to a broker, 1 to 5. Default: 5. One costs throughput; it keeps the order
    /// on brokers that do not look at a producer's sequence numbers, which Apache Kafka's do.
    #[serde(default = "requests_in_flight_max")]
    pub requests_in_flight_max: u8,
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

fn requests_in_flight_max() -> u8 {
    5
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
        match &self.transactional_id {
            // Messages then have as long as a transaction has.
            Some(id) => config.set("transactional.id", id),
            // Behind what the brokers refuse for good nothing else is sent by this producer: the
            // next one begins with it, so that it does not come behind what is later.
            None => config.set("message.timeout.ms", "0").set("enable.gapless.guarantee", "true"),
        };
        config
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", self.requests_in_flight_max.to_string())
            .set("acks", "all")
            // An unknown topic may be one that was created just now.
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("message.max.bytes", self.message_bytes_max.0.to_string())
            .set("compression.type", compression)
            .set("linger.ms", self.linger.0.as_millis().to_string())
            // A topic's limit is one of what travels together.
            .set("batch.size", self.message_bytes_max.0.min(1_000_000).to_string())
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
    /// With transactions: where the position is kept.
    ledger: Option<Ledger>,
    /// What the brokers say is delivered, of the session's begin.
    passed: u64,
    /// Where the cursor stands.
    position: Position,
    /// The first item refused whose dead letter may not be durable yet.
    refused: Option<u64>,
    /// Sequence numbers of the batch that the session holds, once all of it was handed over.
    under_way: Option<Vec<u64>>,
    /// Whether the session holds messages that were not answered.
    is_busy: bool,
}

/// Between two loads the brokers have nothing to do until the first messages of the next one have
/// lingered: so many batches make one load.
const BATCHES: usize = 4;
/// What is too large for its topic.
const TOO_LARGE: Verdict = Verdict::Reject("too_large");
/// Without any answer for so long, the caller is told; the messages go on waiting.
const STALL_MAX: Duration = Duration::from_secs(10);
/// A preflight waits so long for the cluster.
const CHECK_MAX: Duration = Duration::from_secs(8);

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
        if !(1..=5).contains(&config.requests_in_flight_max) {
            return Err("`requests_in_flight_max` must be 1 to 5".to_owned());
        }
        if config.transactional_id.as_ref().is_some_and(String::is_empty) {
            return Err("`transactional_id` is empty; name it, or leave it out".to_owned());
        }
        Ok(Kafka {
            config,
            topics,
            session: None,
            ledger: None,
            passed: 0,
            position: Position::default(),
            refused: None,
            under_way: None,
            is_busy: false,
        })
    }

    /// Gives the session up, messages that wait in it included.
    fn close(&mut self) {
        self.under_way = None;
        self.is_busy = false;
        if let Some(session) = self.session.take() {
            let ledger = self.ledger.take();
            // They wait for their threads.
            tokio::task::spawn_blocking(move || drop((session, ledger)));
        }
    }

    /// Opens a session where there is none; with transactions, takes over from earlier ones.
    async fn open(&mut self) -> Result<(), SendError> {
        if self.session.is_some() {
            return Ok(());
        }
        let wrong = |cause| SendError::block(cause, "mend the sink's configuration");
        let config = self.config.producer().map_err(wrong)?;
        let token = self.config.sasl.as_ref().and_then(|sasl| sasl.token.clone());
        let session = Session::open(&config, token.clone()).map_err(wrong)?;
        if let (Some(id), Some(topic)) = (&self.config.transactional_id, self.topics.first()) {
            let client = self.config.client().map_err(wrong)?;
            let ledger = Ledger::open(client, token, id, topic).map_err(wrong)?;
            let taken = ledger.take_over(session.producer(), self.position.cursor).await?;
            self.passed = taken.map_err(denied)?;
            self.ledger = Some(ledger);
        }
        self.session = Some(session);
        Ok(())
    }

    /// Hands every item to librdkafka, in a transaction where that is wanted.
    async fn produce(&mut self, batch: &[Item<'_>]) -> Result<(), SendError> {
        let (format, topics) = (self.config.format, self.config.topics.clone());
        let Some(session) = &self.session else { return Err(SendError::retry("not connected")) };
        if self.ledger.is_some() {
            session.begin_transaction()?;
        }
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

    /// Ends the transaction of a batch: with its position, or without a trace where some of it
    /// failed; then all that was not refused is to be sent again.
    async fn conclude(&mut self, batch: &[Item<'_>], failures: Vec<Failure>) -> Delivered {
        let (Some(session), Some(ledger)) = (&self.session, &self.ledger) else {
            return self.judge(failures);
        };
        let producer = session.producer();
        let ended = if failures.is_empty() {
            let last = batch.last().map_or(0, |item| item.seq);
            let seq = self.refused.map_or(last, |refused| last.min(refused - 1));
            ledger.commit(producer, self.position.cursor, seq).await
        } else {
            transaction::abort(producer).await
        };
        let ended = ended.and_then(|ended| ended.map_err(denied));
        let is_whole = failures.is_empty();
        let mut delivered = self.judge(failures);
        if let Err(why) = ended {
            // The next session asks the brokers what became of it.
            self.close();
            delivered.why = Some(why);
        } else if is_whole {
            return delivered;
        }
        let is_refused =
            |index: &usize| delivered.rejected.iter().any(|rejection| rejection.index == *index);
        delivered.again = (0..batch.len()).filter(|index| !is_refused(index)).collect();
        let seqs = delivered.rejected.iter().map(|rejection| batch[rejection.index].seq);
        self.refused = seqs.chain(self.refused).min();
        let why = || SendError::retry("the transaction was taken back, for what was refused");
        delivered.why.get_or_insert_with(why);
        delivered
    }

    /// What to do about the messages that failed.
    fn judge(&mut self, failures: Vec<Failure>) -> Delivered {
        let mut delivered = Delivered::default();
        // What the brokers refuse for good ends a producer that leaves no gaps.
        let is_ended = |failure: &Failure| !failure.is_alone && self.ledger.is_none();
        let mut is_broken = failures.iter().any(is_ended);
        let is_large = |failure: &&Failure| verdict(failure.code) == TOO_LARGE && !failure.is_alone;
        let is_one = failures.iter().filter(is_large).count() == 1;
        for Failure { index, code, is_alone } in failures {
            match verdict(code) {
                TOO_LARGE if !is_alone && !is_one => {
                    // Together they were too large; which of them is so by itself shows in parts.
                    delivered.again.push(index);
                    let cause = code.to_string();
                    delivered.why.get_or_insert(SendError::TooLarge { cause });
                }
                Verdict::Reject(reason) => {
                    let cause = code.to_string();
                    delivered.rejected.push(Rejection { index, reason, cause });
                }
                Verdict::Retry { is_new_session } => {
                    is_broken |= is_new_session;
                    delivered.again.push(index);
                    if !matches!(delivered.why, Some(SendError::Block { .. })) {
                        delivered.why = Some(SendError::retry(code.to_string()));
                    }
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
    fn batches(&self) -> usize {
        BATCHES
    }

    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let seqs: Vec<u64> = batch.iter().map(|item| item.seq).collect();
        let is_under_way = self.under_way.as_ref() == Some(&seqs);
        if !is_under_way && self.is_busy {
            self.close();
        }
        self.open().await?;
        // A transaction delivered these, and the cursor was not told.
        let known = batch.partition_point(|item| item.seq <= self.passed);
        let fresh = &batch[known..];
        if fresh.is_empty() {
            return Ok(Delivered::default());
        }
        if !is_under_way {
            self.is_busy = true;
            self.produce(fresh).await?;
            self.under_way = Some(seqs);
        }
        let Some(session) = &self.session else { return Err(SendError::retry("not connected")) };
        match session.settled(STALL_MAX).await {
            Settled::Done(failures) => {
                self.under_way = None;
                let mut delivered = self.conclude(fresh, failures).await;
                self.is_busy = false;
                delivered.again.iter_mut().for_each(|index| *index += known);
                delivered.rejected.iter_mut().for_each(|rejection| rejection.index += known);
                Ok(delivered)
            }
            Settled::Stalled(None) => Err(SendError::retry("the brokers do not answer")),
            Settled::Stalled(Some((code, cause))) => match explained(code, &cause) {
                Verdict::Block(remedy) => {
                    // Another session reads the secrets again.
                    self.close();
                    Err(SendError::block(cause, remedy))
                }
                Verdict::Retry { .. } | Verdict::Reject(_) => Err(SendError::retry(cause)),
            },
        }
    }

    fn resume(&mut self, position: Position) {
        self.position = position;
        self.refused = self.refused.filter(|refused| *refused > position.acked);
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        let (config, topics) = (self.config.clone(), self.topics.clone());
        session::check(config, topics, CHECK_MAX).await
    }
}

/// What to do when the brokers say no to a transaction.
fn denied((code, cause): Refusal) -> SendError {
    match verdict(code) {
        Verdict::Block(remedy) => SendError::block(cause, remedy),
        Verdict::Retry { .. } | Verdict::Reject(_) => SendError::retry(cause),
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
