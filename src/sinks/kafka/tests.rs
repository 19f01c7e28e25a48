//! The decision table, the configuration, and librdkafka's own cluster with injected errors.

use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaRespErr;

use super::*;
use crate::record::StoredEvent;

#[test]
fn every_error_has_its_verdict() {
    let same = Verdict::Retry { is_new_session: false };
    let another = Verdict::Retry { is_new_session: true };
    for (codes, expected) in [
        (&[3, 17, 29, 31, 34, 54, 58][..], "block"),
        (&[1, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 56, 72, 89][..], "same"),
        (&[45, 47, 59, 90][..], "another"),
        (&[2, 10, 32, 44, 87][..], "reject"),
    ] {
        for number in codes {
            let code = rdkafka_code(*number);
            let found = match verdict(code) {
                Verdict::Block(_) => "block",
                Verdict::Reject(_) => "reject",
                other if other == same => "same",
                other if other == another => "another",
                _ => "unknown",
            };
            assert_eq!(found, expected, "{number} {code:?}");
        }
    }
}

/// The error of this number in Kafka's protocol.
fn rdkafka_code(number: i32) -> RDKafkaErrorCode {
    let text = |code: &RDKafkaErrorCode| *code as i32 == number;
    ALL_CODES.iter().copied().find(text).unwrap_or(RDKafkaErrorCode::Unknown)
}

const ALL_CODES: [RDKafkaErrorCode; 30] = {
    use RDKafkaErrorCode::*;
    [
        OffsetOutOfRange,
        InvalidMessage,
        UnknownTopicOrPartition,
        LeaderNotAvailable,
        NotLeaderForPartition,
        RequestTimedOut,
        BrokerNotAvailable,
        ReplicaNotAvailable,
        MessageSizeTooLarge,
        NetworkException,
        CoordinatorLoadInProgress,
        CoordinatorNotAvailable,
        NotCoordinator,
        InvalidTopic,
        NotEnoughReplicas,
        NotEnoughReplicasAfterAppend,
        TopicAuthorizationFailed,
        ClusterAuthorizationFailed,
        InvalidTimestamp,
        IllegalSASLState,
        PolicyViolation,
        OutOfOrderSequenceNumber,
        InvalidProducerEpoch,
        SecurityDisabled,
        KafkaStorageError,
        SaslAuthenticationFailed,
        UnknownProducerId,
        InvalidRecord,
        ProducerFenced,
        ThrottlingQuotaExceeded,
    ]
};

fn config(text: &str) -> Result<Kafka, String> {
    let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Kafka::new(config, &[RecordKind::Events])
}

#[test]
fn a_wrong_configuration_says_what_to_write() {
    for (text, part) in [
        (r#"{"brokers":"a","topics":{}}"#, "`records` has events, and `topics` names none"),
        (r#"{"brokers":"a","topics":{"event":"x"}}"#, "unknown field `event`"),
        (r#"{"topics":{"events":"x"}}"#, "missing field `brokers`"),
        (
            r#"{"brokers":"a","topics":{"events":"x"},"sasl":{"mechanism":"GSSAPI"}}"#,
            "unknown variant `GSSAPI`, expected one of `PLAIN`",
        ),
        (
            r#"{"brokers":"a","topics":{"events":"x"},
                "sasl":{"mechanism":"PLAIN","username":"u","password":{}}}"#,
            "sasl.password: give either `file` or `env`",
        ),
        (
            r#"{"brokers":"a","topics":{"events":"x"},
                "sasl":{"mechanism":"PLAIN","username":"u","password":"letmein"}}"#,
            "a secret is not written here",
        ),
    ] {
        let error = config(text).err().expect(text);
        assert!(error.contains(part), "{error}");
    }
}

fn event(seq: u64, raw: &str) -> Item<'_> {
    let stored = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 1_795_306_613_715_698,
        duplicate_key: [7; 16],
        cluster: "prod-1",
        source: "log",
        position: "audit.log:7",
        raw: raw.as_bytes(),
    };
    Item { seq, outgoing: Outgoing::Event(stored) }
}

#[test]
fn the_key_keeps_the_stages_of_a_request_together() {
    let alert = br#"{"id":"1","time":"2026-11-22T00:16:53.715698Z","actor":{"username":"eve"}}"#;
    let notice = br#"{"kind":"gap","time":"2026-11-22T00:16:53.715698Z","source":"log"}"#;
    for (item, key) in [
        (event(1, r#"{"auditID":"a-1","verb":"get"}"#), "a-1"),
        (Item { seq: 2, outgoing: Outgoing::Alert(alert) }, "eve"),
        (Item { seq: 3, outgoing: Outgoing::Notice(notice) }, "log"),
        (Item { seq: 4, outgoing: Outgoing::Alert(b"x") }, ""),
    ] {
        let (found, time_ms) = addressed(&item);
        assert_eq!(found, key);
        assert_eq!(time_ms, if key.is_empty() { 0 } else { 1_795_306_613_715 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_errors_lead_to_what_the_table_says() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", 1, 1).unwrap();
    let text = format!(
        r#"{{"brokers":"{}","topics":{{"events":"events"}},"linger":"0s"}}"#,
        cluster.bootstrap_servers()
    );
    let mut kafka = config(&text).unwrap();
    kafka.check().await.unwrap();
    let raw = r#"{"auditID":"a-1","verb":"get"}"#;
    let batch = [event(1, raw), event(2, raw)];
    assert_eq!(kafka.send(&batch).await, Ok(Delivered::default()));
    const PRODUCE: rdkafka::types::RDKafkaApiKey = rdkafka::types::RDKafkaApiKey::Produce;
    for (error, outcome) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, "delivered"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "allow the user to write"),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD, "rejected invalid"),
    ] {
        cluster.request_errors(PRODUCE, &[error]);
        let delivered = kafka.send(&batch).await.unwrap();
        let found = match (&delivered.why, delivered.rejected.first()) {
            (Some(why), _) => why.to_string(),
            (None, Some(rejection)) => format!("rejected {}", rejection.reason),
            (None, None) => "delivered".to_owned(),
        };
        assert!(found.contains(outcome), "{error:?}: {found}");
        cluster.clear_request_errors(PRODUCE);
    }
    assert_eq!(kafka.send(&batch).await, Ok(Delivered::default()));
}
