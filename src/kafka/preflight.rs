//! Asks a cluster, without changing anything there, whether topics are there.

use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::clock;
use crate::kafka::notes::{Notes, Trouble};
use crate::kafka::verdict::{Verdict, explained, verdict};

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct Wrong {
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Finds every topic; the question creates none (`allow.auto.create.topics` is off by default).
pub(crate) fn find(
    client: &ClientConfig,
    notes: Notes,
    topics: &[String],
    wait_max: Duration,
) -> Result<(), Wrong> {
    let producer: BaseProducer<Notes> = BaseProducer::from_config_and_context(client, notes)
        .map_err(|error| Wrong { cause: error.to_string(), remedy: "mend the configuration" })?;
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
fn ask(producer: &BaseProducer<Notes>, topic: &str, wait_max: Duration) -> Result<Metadata, Wrong> {
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

fn wrong((code, cause): Trouble) -> Wrong {
    let remedy = match explained(code, &cause) {
        Verdict::Block(remedy) => remedy,
        Verdict::Retry { .. } | Verdict::Reject(_) => "see that the brokers can be reached",
    };
    Wrong { cause, remedy }
}
