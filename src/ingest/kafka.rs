//! Reads audit events from topics of a Kafka cluster: what the Kafka sink wrote, EventLists, or
//! the records of Azure Event Hubs.
//!
//! Offsets are committed when the spool has what they stand for, never before; what is read again
//! after a crash or a rebalance is told from new events by the pipeline. One batch of messages is
//! under way at a time: librdkafka fetches ahead meanwhile. Messages that the brokers deleted
//! before they were read are a notice.

mod config;
mod parcel;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Stopwatch};
use crate::ingest::batch::{Answer, Batch, Notice, NoticeKind, Refused};
use crate::ingest::intake::Intake;
use crate::ingest::kafka::parcel::Parcel;
use crate::kafka::notes::Notes;
use crate::kafka::preflight::{self, Wrong};

pub use config::Config;

/// The header in which the sink names an event's cluster.
const CLUSTER_HEADER: &str = "kubewitness-cluster";
/// So long one look for messages takes, and a stop is noticed.
const POLL: Duration = Duration::from_millis(100);
/// So long is waited after the spool was full.
const FULL: Duration = Duration::from_secs(1);
/// So long the brokers are waited for when something is asked of them.
const ASK: Duration = Duration::from_secs(10);

/// Why the source cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no client.
    #[error("kafka source: {cause}")]
    Configuration {
        /// What is wrong.
        cause: String,
    },
    /// The thread that reads came to an end.
    #[error("kafka source: its thread ended")]
    Ended,
}

/// A partition: its topic and its number.
type Partition = (String, i32);

/// Reads topics as a member of a consumer group.
pub struct Source {
    config: Config,
    intake: Intake,
    stop: CancellationToken,
}

impl Source {
    /// A source of this configuration; connects to nothing.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn new(config: Config, intake: Intake, stop: CancellationToken) -> Result<Source, Error> {
        config.check().map_err(|cause| Error::Configuration { cause })?;
        Ok(Source { config, intake, stop })
    }

    /// Reads until it is stopped, on a thread of its own.
    ///
    /// # Errors
    /// [`Error`]; troubles with the brokers are logged and waited out.
    pub async fn run(self) -> Result<(), Error> {
        let read = tokio::task::spawn_blocking(move || self.read());
        read.await.map_err(|_| Error::Ended)?
    }

    fn read(self) -> Result<(), Error> {
        let wrong = |cause: String| Error::Configuration { cause };
        let client = self.config.client().map_err(wrong)?;
        let token = self.config.sasl.as_ref().and_then(|sasl| sasl.token.clone());
        let consumer: BaseConsumer<Notes> =
            BaseConsumer::from_config_and_context(&client, Notes::new(token))
                .map_err(|error| wrong(error.to_string()))?;
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| wrong(error.to_string()))?;
        let mut reading = Reading { source: &self, consumer, next: BTreeMap::new() };
        while !self.stop.is_cancelled() {
            let parcels = reading.gather();
            if !parcels.is_empty() && !reading.hand_over(parcels) {
                break;
            }
        }
        Ok(())
    }
}

/// Asks whether the topics are there; changes nothing.
///
/// # Errors
/// What is wrong, and the remedy.
pub async fn check(config: &Config) -> Result<(), Wrong> {
    let remedy = "mend the configuration";
    let asked = config.check().and_then(|()| config.client());
    let client = asked.map_err(|cause| Wrong { cause, remedy })?;
    let notes = Notes::new(config.sasl.as_ref().and_then(|sasl| sasl.token.clone()));
    let topics = config.topics.clone();
    let ask = tokio::task::spawn_blocking(move || preflight::find(&client, notes, &topics, ASK));
    ask.await.unwrap_or_else(|_| Err(Wrong { cause: "not asked".to_owned(), remedy }))
}

/// A consumer, and how far it has read.
struct Reading<'s> {
    source: &'s Source,
    consumer: BaseConsumer<Notes>,
    /// The offset that is expected next.
    next: BTreeMap<Partition, i64>,
}

impl Reading<'_> {
    /// Takes what arrives until a batch is full or has waited long enough.
    fn gather(&mut self) -> BTreeMap<(Partition, Option<Arc<str>>), Parcel> {
        let config = &self.source.config;
        let (mut parcels, mut bytes) = (BTreeMap::new(), 0);
        let since = Stopwatch::start();
        loop {
            let message = match self.consumer.poll(POLL) {
                None => None,
                Some(Ok(message)) => Some(message),
                Some(Err(error)) => {
                    tracing::warn!(source = %config.name, %error, "cannot read");
                    None
                }
            };
            if let Some((code, cause)) = self.consumer.context().take_trouble() {
                tracing::warn!(source = %config.name, ?code, %cause, "trouble with the brokers");
            }
            if let Some(message) = message {
                let partition = (message.topic().to_owned(), message.partition());
                let notice =
                    missed(&self.consumer, &self.next, &partition, message.offset(), config);
                self.next.insert(partition.clone(), message.offset() + 1);
                let cluster = config.cluster_of(message.headers().and_then(cluster_header));
                let parcel: &mut Parcel = parcels
                    .entry((partition, cluster))
                    .or_insert_with(|| Parcel::new(message.offset()));
                parcel.notices.extend(notice);
                parcel.push(message.payload().unwrap_or_default(), message.offset());
                bytes += message.payload_len();
            }
            let is_full = bytes as u64 >= config.batch_bytes_max.0;
            let is_late = since.elapsed() >= config.batch_wait.0;
            if is_full || is_late || self.source.stop.is_cancelled() {
                return parcels;
            }
        }
    }

    /// Hands parcels to the pipeline and commits what is durable; false when the pipeline ends.
    fn hand_over(&mut self, parcels: BTreeMap<(Partition, Option<Arc<str>>), Parcel>) -> bool {
        let name = &self.source.config.name;
        let mut waiting: Vec<(Partition, i64, i64, Answer)> = Vec::new();
        for ((partition, cluster), parcel) in parcels {
            let (first, next) = (parcel.first, parcel.next);
            let label = format!("{}/{}@{first}", partition.0, partition.1);
            let (chunk, notices) = parcel.finish();
            let (mut batch, answer) = Batch::new(name, &label, chunk);
            (batch.cluster, batch.notices) = (cluster, notices);
            if self.source.intake.blocking_send(batch).is_err() {
                return false;
            }
            waiting.push((partition, first, next, answer));
        }
        let mut durable: BTreeMap<Partition, i64> = BTreeMap::new();
        let mut refused: BTreeMap<Partition, i64> = BTreeMap::new();
        for (partition, first, next, answer) in waiting {
            match answer.blocking_recv() {
                Ok(Ok(_)) => {
                    let end = durable.entry(partition).or_insert(next);
                    *end = next.max(*end);
                }
                Ok(Err(Refused::Full | Refused::Stalled)) => {
                    let start = refused.entry(partition).or_insert(first);
                    *start = first.min(*start);
                }
                Ok(Err(Refused::Closed)) | Err(_) => return false,
            }
        }
        // Two clusters may share a partition: what is not whole is read again as a whole.
        durable.retain(|partition, _| !refused.contains_key(partition));
        self.commit(&durable);
        if !refused.is_empty() {
            self.read_again(&refused);
        }
        true
    }

    fn commit(&self, durable: &BTreeMap<Partition, i64>) {
        if durable.is_empty() {
            return;
        }
        let committed = self.consumer.commit(&offsets(durable), CommitMode::Sync);
        if let Err(error) = committed {
            // Somebody else has the partition by now, or will read it again; nothing is lost.
            tracing::warn!(source = %self.source.config.name, %error, "cannot commit offsets");
        }
    }

    /// Waits while the spool has no room, and goes back to what it refused.
    fn read_again(&mut self, refused: &BTreeMap<Partition, i64>) {
        let assigned = self.consumer.assignment().unwrap_or_default();
        let _ = self.consumer.pause(&assigned);
        let since = Stopwatch::start();
        // Polling keeps the place in the group; what is paused yields nothing.
        while since.elapsed() < FULL && !self.source.stop.is_cancelled() {
            let _ = self.consumer.poll(POLL);
        }
        if let Err(error) = self.consumer.seek_partitions(offsets(refused), ASK) {
            tracing::warn!(source = %self.source.config.name, %error, "cannot go back");
        }
        for (partition, first) in refused {
            self.next.insert(partition.clone(), *first);
        }
        let _ = self.consumer.resume(&assigned);
    }
}

/// Whether messages before this one were deleted before anybody read them.
fn missed(
    consumer: &BaseConsumer<Notes>,
    next: &BTreeMap<Partition, i64>,
    partition: &Partition,
    offset: i64,
    config: &Config,
) -> Option<Notice> {
    let expected = match next.get(partition) {
        Some(next) => *next,
        None => committed(consumer, partition)?,
    };
    if offset <= expected {
        return None;
    }
    // Compaction and transactions leave gaps too; these are no loss.
    let (oldest, _) = consumer.fetch_watermarks(&partition.0, partition.1, ASK).ok()?;
    let lost = oldest - expected;
    let (topic, number) = partition;
    (lost > 0).then(|| Notice {
        kind: NoticeKind::Gap,
        at_us: clock::now_us(),
        text: format!(
            "source {}: {lost} messages of topic {topic}, partition {number}, were deleted before \
             they were read",
            config.name
        ),
        subject: format!("{topic}/{number}"),
        lost_bytes: None,
    })
}

/// What the group has committed of a partition.
fn committed(consumer: &BaseConsumer<Notes>, (topic, number): &Partition) -> Option<i64> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, *number);
    let found = consumer.committed_offsets(asked, ASK).ok()?;
    match found.find_partition(topic, *number)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

fn offsets(partitions: &BTreeMap<Partition, i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, number), offset) in partitions {
        // It fails for impossible offsets only, and these came from the brokers.
        let _ = list.add_partition_offset(topic, *number, Offset::Offset(*offset));
    }
    list
}

fn cluster_header<H: Headers>(headers: &H) -> Option<&str> {
    let found = headers.iter().find(|header| header.key == CLUSTER_HEADER)?;
    std::str::from_utf8(found.value?).ok()
}

#[cfg(test)]
mod tests;
