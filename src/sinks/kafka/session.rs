//! One producer of librdkafka, what became of the messages it was handed, and the preflight.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;

use crate::kafka::notes::{Notes, Trouble};
use crate::kafka::preflight;
use crate::secret::Secret;
use crate::sinks::kafka::Config;
use crate::sinks::{CheckError, SendError, blocking};

/// A message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Index in its batch.
    pub(crate) index: usize,
    /// Why.
    pub(crate) code: RDKafkaErrorCode,
    /// Whether it was refused by itself: brokers refuse all that travels together.
    pub(crate) is_alone: bool,
}

/// What became of a batch.
pub(crate) enum Settled {
    /// Every message was answered; these failed.
    Done(Vec<Failure>),
    /// No message was answered for a while.
    Stalled(Option<Trouble>),
}

/// What librdkafka calls back.
#[derive(Default)]
pub(crate) struct Context {
    state: Mutex<State>,
    /// A message was answered.
    answered: Notify,
    notes: Notes,
}

#[derive(Default)]
struct State {
    /// Which batch; answers of earlier ones do not count.
    round: u32,
    waiting: usize,
    failures: Vec<Failure>,
}

/// Marks the messages of one batch.
#[derive(Clone, Copy)]
pub(crate) struct Round(u32);

impl Round {
    /// What a message is handed over with: the batch and the index in it.
    pub(crate) fn opaque(self, index: usize) -> usize {
        (self.0 as usize) << 32 | (index & 0xffff_ffff)
    }
}

impl Context {
    /// A context that answers requests for a token from this secret.
    fn new(token: Option<Secret>) -> Context {
        Context { notes: Notes::new(token), ..Context::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.notes.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.notes.error(error, reason);
    }

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.notes.generate_oauth_token(config)
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, opaque: usize) {
        let mut state = self.state();
        if opaque >> 32 != state.round as usize {
            return;
        }
        state.waiting = state.waiting.saturating_sub(1);
        match delivery {
            Ok(_) => drop(self.notes.take_trouble()),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                state.failures.push(Failure { index: opaque & 0xffff_ffff, code, is_alone: false });
            }
        }
        // Whoever waits wants to know of the last one, or that there is progress.
        if state.waiting == 0 || state.waiting.is_multiple_of(256) {
            self.answered.notify_one();
        }
    }
}

/// A producer.
pub(crate) struct Session {
    producer: ThreadedProducer<Context>,
}

impl Session {
    /// A producer with this configuration; it connects by itself.
    pub(crate) fn open(config: &ClientConfig, token: Option<Secret>) -> Result<Session, String> {
        let producer = ThreadedProducer::from_config_and_context(config, Context::new(token))
            .map_err(|error| error.to_string())?;
        Ok(Session { producer })
    }

    /// The same producer.
    pub(crate) fn producer(&self) -> ThreadedProducer<Context> {
        self.producer.clone()
    }

    fn context(&self) -> &Context {
        self.producer.context()
    }

    /// Everything handed over from now on becomes visible together.
    pub(crate) fn begin_transaction(&self) -> Result<(), SendError> {
        self.producer.begin_transaction().map_err(|error| SendError::retry(error.to_string()))
    }

    /// Begins a batch of so many messages; what became of earlier ones no longer counts.
    pub(crate) fn begin(&self, messages: usize) -> Round {
        let mut state = self.context().state();
        state.round = state.round.wrapping_add(1);
        state.waiting = messages;
        state.failures.clear();
        Round(state.round)
    }

    /// Hands over a message; it is copied.
    pub(crate) fn send(
        &self,
        record: BaseRecord<'_, [u8], [u8], usize>,
    ) -> Result<(), RDKafkaErrorCode> {
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))
    }

    /// Counts a message that could not be handed over.
    pub(crate) fn refuse(&self, index: usize, code: RDKafkaErrorCode) {
        let mut state = self.context().state();
        state.waiting = state.waiting.saturating_sub(1);
        state.failures.push(Failure { index, code, is_alone: true });
    }

    /// Waits for room in the producer's queue.
    pub(crate) async fn room(&self, stall_max: Duration) -> Result<(), SendError> {
        let answered = self.context().answered.notified();
        match tokio::time::timeout(stall_max, answered).await {
            Ok(()) => Ok(()),
            Err(_) => Err(SendError::retry("the brokers do not answer, and the queue is full")),
        }
    }

    /// Waits until every message was answered, or none for `stall_max`.
    pub(crate) async fn settled(&self, stall_max: Duration) -> Settled {
        let context = self.context();
        loop {
            let answered = context.answered.notified();
            {
                let mut state = context.state();
                if state.waiting == 0 {
                    return Settled::Done(std::mem::take(&mut state.failures));
                }
            }
            if tokio::time::timeout(stall_max, answered).await.is_err() {
                let state = context.state();
                if state.waiting > 0 {
                    return Settled::Stalled(context.notes.take_trouble());
                }
            }
        }
    }
}

/// Asks the cluster whether the topics are there and take messages of the configured size.
pub(crate) async fn check(
    config: Config,
    topics: Vec<String>,
    wait_max: Duration,
) -> Result<(), CheckError> {
    let mended = "mend the sink's configuration";
    let client = config.client().map_err(|cause| CheckError::new(cause, mended))?;
    let token = config.sasl.as_ref().and_then(|sasl| sasl.token.clone());
    let (own, notes, wanted) = (client.clone(), Notes::new(token.clone()), topics.clone());
    let found = blocking(move || preflight::find(&own, notes, &wanted, wait_max)).await?;
    found.map_err(|wrong| CheckError::new(wrong.cause, wrong.remedy))?;
    let admin: AdminClient<Context> =
        AdminClient::from_config_and_context(&client, Context::new(token))
            .map_err(|error| CheckError::new(error.to_string(), mended))?;
    for topic in &topics {
        // Not everybody may ask; then it shows when a large message is refused.
        let Some(limit) = bytes_max(&admin, topic, wait_max).await else { continue };
        if limit < config.message_bytes_max.0 {
            return Err(CheckError::new(
                format!(
                    "topic {topic:?} takes messages of at most {limit} bytes, and \
                     `message_bytes_max` is {}",
                    config.message_bytes_max.0
                ),
                "raise the topic's max.message.bytes, or lower `message_bytes_max`",
            ));
        }
    }
    Ok(())
}

/// The topic's largest message, if this user may know.
async fn bytes_max(admin: &AdminClient<Context>, topic: &str, wait_max: Duration) -> Option<u64> {
    let options = AdminOptions::new().request_timeout(Some(wait_max));
    let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    let resource = found.into_iter().next()?.ok()?;
    resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}
