//! One producer of librdkafka, what became of the messages it was handed, and the preflight.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;

use crate::clock;
use crate::sinks::kafka::Config;
use crate::sinks::kafka::verdict::{Verdict, verdict};
use crate::sinks::secret::Secret;
use crate::sinks::{CheckError, SendError, blocking};

/// A message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Index in its batch.
    pub(crate) index: usize,
    /// Why.
    pub(crate) code: RDKafkaErrorCode,
}

/// Why a client cannot get on, as librdkafka says.
pub(crate) type Trouble = (RDKafkaErrorCode, String);

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
    token: Option<Secret>,
}

#[derive(Default)]
struct State {
    /// Which batch; answers of earlier ones do not count.
    round: u32,
    waiting: usize,
    failures: Vec<Failure>,
    trouble: Option<Trouble>,
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
    pub(crate) fn new(token: Option<Secret>) -> Context {
        Context { token, ..Context::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last trouble since it was asked for.
    pub(crate) fn take_trouble(&self) -> Option<Trouble> {
        self.state().trouble.take()
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, "{message}");
            }
            _ => tracing::warn!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // An alert of the far side about certificates comes as a failed read.
        let code = if reason.contains("SSL routines") { RDKafkaErrorCode::SSL } else { code };
        let mut state = self.state();
        // That all brokers are gone says less than why one is.
        if code != RDKafkaErrorCode::AllBrokersDown || state.trouble.is_none() {
            state.trouble = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let secret = self.token.as_ref().ok_or("no token is configured")?;
        let token = secret.read("sasl.token")?;
        let (subject, expires_s) = claims(&token);
        // A token that says nothing of its end is read again soon.
        let lifetime_ms =
            expires_s.map_or(clock::now_us() / 1_000 + 300_000, |at| at.saturating_mul(1_000));
        Ok(OAuthToken { token, principal_name: subject.unwrap_or_default(), lifetime_ms })
    }
}

/// The subject of a JSON web token and when it ends, in seconds since the epoch; nothing of it is
/// verified here.
fn claims(token: &str) -> (Option<String>, Option<i64>) {
    #[derive(Default, serde::Deserialize)]
    struct Claims {
        sub: Option<String>,
        exp: Option<i64>,
    }
    let payload = token.split('.').nth(1).unwrap_or_default();
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let claims: Claims = serde_json::from_slice(&json).unwrap_or_default();
    (claims.sub, claims.exp)
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
            Ok(_) => state.trouble = None,
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                state.failures.push(Failure { index: opaque & 0xffff_ffff, code });
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

    fn context(&self) -> &Context {
        use rdkafka::producer::Producer;
        self.producer.context()
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
        state.failures.push(Failure { index, code });
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
                let mut state = context.state();
                if state.waiting > 0 {
                    return Settled::Stalled(state.trouble.take());
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
    let (own, wanted) = (client.clone(), topics.clone());
    let context = Context::new(token.clone());
    blocking(move || find(&own, context, &wanted, wait_max)).await??;
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

/// Finds every topic; the question creates none (`allow.auto.create.topics` is off by default).
fn find(
    client: &ClientConfig,
    context: Context,
    topics: &[String],
    wait_max: Duration,
) -> Result<(), CheckError> {
    let producer: BaseProducer<Context> = BaseProducer::from_config_and_context(client, context)
        .map_err(|error| CheckError::new(error.to_string(), "mend the sink's configuration"))?;
    for topic in topics {
        let metadata = ask(&producer, topic, wait_max)?;
        let error = metadata.topics().iter().find_map(|found| found.error());
        if let Some(error) = error {
            let code = RDKafkaErrorCode::from(error);
            return Err(wrong((code, format!("topic {topic:?}: {code}"))));
        }
    }
    Ok(())
}

/// Asks again and again, until a person's help is needed or `wait_max` is over.
fn ask(
    producer: &BaseProducer<Context>,
    topic: &str,
    wait_max: Duration,
) -> Result<Metadata, CheckError> {
    use rdkafka::producer::Producer;
    const TRY: Duration = Duration::from_secs(2);
    let since = clock::Stopwatch::start();
    let mut earlier: Option<Trouble> = None;
    loop {
        // Tokens are asked for, and troubles told, while it is polled only.
        producer.poll(Duration::from_millis(100));
        let error = match producer.client().fetch_metadata(Some(topic), TRY) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        producer.poll(Duration::from_millis(100));
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let all_down = |trouble: &Trouble| trouble.0 == RDKafkaErrorCode::AllBrokersDown;
        let told = producer.context().take_trouble().filter(|told| !all_down(told)).or(earlier);
        let unknown = || (code, format!("cannot ask the brokers: {error}"));
        let trouble = told.clone().unwrap_or_else(unknown);
        earlier = told;
        if matches!(verdict(trouble.0), Verdict::Block(_)) || since.elapsed() > wait_max {
            return Err(wrong(trouble));
        }
    }
}

fn wrong((code, cause): Trouble) -> CheckError {
    let remedy = match verdict(code) {
        Verdict::Block(remedy) => remedy,
        Verdict::Retry { .. } | Verdict::Reject(_) => "see that the brokers can be reached",
    };
    CheckError::new(cause, remedy)
}

/// The topic's largest message, if this user may know.
async fn bytes_max(admin: &AdminClient<Context>, topic: &str, wait_max: Duration) -> Option<u64> {
    let options = AdminOptions::new().request_timeout(Some(wait_max));
    let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    let resource = found.into_iter().next()?.ok()?;
    resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}
