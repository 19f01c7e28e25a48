//! Transactions: the messages of a batch and the cursor's position become visible together, so that
//! a crash between delivery and acknowledgement repeats nothing.
//!
//! The position is the committed offset of a consumer group that nobody is a member of:
//! ```text
//! group      kubewitness-<transactional_id>
//! partition  0 of the sink's first topic
//! offset     the sequence number behind the last one delivered
//! metadata   the cursor's id, 32 hexadecimal digits: another spool's position counts for nothing
//! ```
//! A new session waits until the brokers have ended what an earlier one left open, then reads the
//! position, and passes over what lies before it.

use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::notes::Notes;
use crate::secret::Secret;
use crate::sinks::kafka::session::Context;
use crate::sinks::{SendError, blocking};

/// So long the coordinator is waited for.
const WAIT: Duration = Duration::from_secs(20);

/// Where a sink keeps its position at the brokers. Every question waits off the async threads.
pub(crate) struct Ledger {
    group: std::sync::Arc<BaseConsumer<Notes>>,
    topic: String,
}

/// What the brokers said no to.
pub(crate) type Refusal = (RDKafkaErrorCode, String);

fn refusal(error: KafkaError) -> Refusal {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
    (code, error.to_string())
}

impl Ledger {
    /// The place for this transactional id; `client` is what every client of the cluster has.
    pub(crate) fn open(
        mut client: ClientConfig,
        token: Option<Secret>,
        transactional_id: &str,
        topic: &str,
    ) -> Result<Ledger, String> {
        client.set("group.id", format!("kubewitness-{transactional_id}"));
        let group = BaseConsumer::from_config_and_context(&client, Notes::new(token))
            .map_err(|error| error.to_string())?;
        Ok(Ledger { group: group.into(), topic: topic.to_owned() })
    }

    /// Takes over from whatever session was there before; returns the sequence number up to which
    /// everything of this cursor was delivered, 0 where nothing is known.
    pub(crate) async fn take_over(
        &self,
        producer: ThreadedProducer<Context>,
        cursor: u128,
    ) -> Result<Result<u64, Refusal>, SendError> {
        let (group, topic) = (self.group.clone(), self.topic.clone());
        blocking(move || {
            producer.init_transactions(WAIT).map_err(refusal)?;
            passed(&group, &topic, cursor).map_err(refusal)
        })
        .await
    }

    /// Makes everything sent since the transaction began visible, with this position.
    pub(crate) async fn commit(
        &self,
        producer: ThreadedProducer<Context>,
        cursor: u128,
        seq: u64,
    ) -> Result<Result<(), Refusal>, SendError> {
        let (group, topic) = (self.group.clone(), self.topic.clone());
        blocking(move || {
            let mut offsets = TopicPartitionList::new();
            let mut place = offsets.add_partition(&topic, 0);
            let next = i64::try_from(seq).unwrap_or(i64::MAX - 1) + 1;
            place.set_offset(Offset::Offset(next)).map_err(refusal)?;
            place.set_metadata(format!("{cursor:032x}"));
            let nobody = (RDKafkaErrorCode::InvalidGroupId, "the group has no name".to_owned());
            let group = group.group_metadata().ok_or(nobody)?;
            producer.send_offsets_to_transaction(&offsets, &group, WAIT).map_err(refusal)?;
            producer.commit_transaction(WAIT).map_err(refusal)
        })
        .await
    }
}

/// Takes back everything sent since the transaction began.
pub(crate) async fn abort(
    producer: ThreadedProducer<Context>,
) -> Result<Result<(), Refusal>, SendError> {
    blocking(move || producer.abort_transaction(WAIT).map_err(refusal)).await
}

fn passed(group: &BaseConsumer<Notes>, topic: &str, cursor: u128) -> KafkaResult<u64> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, 0);
    let found = group.committed_offsets(asked, WAIT)?;
    let Some(place) = found.find_partition(topic, 0) else { return Ok(0) };
    place.error()?;
    let Offset::Offset(next) = place.offset() else { return Ok(0) };
    if place.metadata() != format!("{cursor:032x}") {
        tracing::info!(topic, "the position at the brokers is another spool's; it is not used");
        return Ok(0);
    }
    Ok(u64::try_from(next).unwrap_or_default().saturating_sub(1))
}
