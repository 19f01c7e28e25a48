//! What to do about each of Kafka's errors.

use rdkafka::types::RDKafkaErrorCode as Code;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send again.
    Retry {
        /// The producer is of no more use.
        is_new_session: bool,
    },
    /// The message will never be taken.
    Reject(&'static str),
    /// A person must act: what to do.
    Block(&'static str),
}

/// What to do about an error.
pub fn verdict(code: Code) -> Verdict {
    const SAME: Verdict = Verdict::Retry { is_new_session: false };
    const ANOTHER: Verdict = Verdict::Retry { is_new_session: true };
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Verdict::Reject("too_large"),
        Code::InvalidMessage | Code::InvalidRecord => Verdict::Reject("invalid"),
        Code::PolicyViolation => Verdict::Reject("policy"),
        Code::InvalidTimestamp => Verdict::Reject("time"),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Verdict::Block("create the topic, or mend its name")
        }
        Code::InvalidTopic => Verdict::Block("mend the topic's name"),
        Code::TopicAuthorizationFailed => Verdict::Block("allow the user to write the topic"),
        Code::TransactionalIdAuthorizationFailed => {
            Verdict::Block("allow the user Write on the transactional id")
        }
        Code::GroupAuthorizationFailed => Verdict::Block("allow the user Read on the group"),
        Code::ClusterAuthorizationFailed => {
            Verdict::Block("allow the user IdempotentWrite on the cluster")
        }
        Code::Authentication | Code::SaslAuthenticationFailed => {
            Verdict::Block("mend the user, its secret or the mechanism")
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            Verdict::Block("use a SASL mechanism that the listener has")
        }
        Code::SecurityDisabled => Verdict::Block("configure the cluster's authorizer"),
        Code::SSL => Verdict::Block("mend `tls`: the certificates do not fit together"),
        Code::InvalidRequiredAcks | Code::UnsupportedForMessageFormat => {
            Verdict::Block("the brokers are too old for an idempotent producer")
        }
        Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::Fenced
        | Code::PurgeQueue
        | Code::PurgeInflight => ANOTHER,
        _ => SAME,
    }
}

/// The verdict of an error, with what its cause says of certificates.
pub(crate) fn explained(code: Code, cause: &str) -> Verdict {
    let is_refused = ["alert bad certificate", "alert certificate required"];
    match verdict(code) {
        Verdict::Block(_) if cause.contains("certificate verify failed") => Verdict::Block(
            "the brokers' certificate is self-signed, of an authority unknown here (name it in \
             `tls.ca_file`), or for another name",
        ),
        Verdict::Block(_) if is_refused.iter().any(|sign| cause.contains(sign)) => Verdict::Block(
            "the brokers do not take the client's certificate: mend `tls.cert_file` and \
             `tls.key_file`",
        ),
        verdict => verdict,
    }
}
