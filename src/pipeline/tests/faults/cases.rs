//! The sinks, each with the far side that it is run against.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use crate::pipeline::tests::faults::http::{self, Service};
use crate::pipeline::tests::faults::{Stored, kafka, stream};
use crate::sinks::config::Config;
use crate::sinks::endpoint::fake::acceptor;

/// Which records a sink gets.
#[derive(Clone, Copy)]
pub(crate) enum Kinds {
    Events,
    Alerts,
    Both,
}

/// One sink.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kinds: Kinds,
    /// What some records are marked with; the last is the most frequent.
    pub(crate) marks: &'static [&'static str],
    /// The dead letters' reason.
    pub(crate) reason: &'static str,
    /// Whether each record carries its id.
    pub(crate) has_ids: bool,
    pub(crate) is_ordered: bool,
    settings: Value,
    peer: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Http(Service),
    Stream { is_tls: bool, is_counted: bool },
    Kafka,
}

/// A running far side.
pub(crate) enum Peer {
    Http(Arc<http::Far>),
    Stream(Arc<stream::Far>),
    Kafka(kafka::Far),
}

impl Peer {
    pub(crate) fn requests(&self) -> usize {
        match self {
            Peer::Http(far) => far.requests(),
            Peer::Stream(far) => far.connections(),
            Peer::Kafka(far) => far.messages(),
        }
    }

    pub(crate) fn stored(&self) -> Vec<Stored> {
        match self {
            Peer::Http(far) => far.stored(),
            Peer::Stream(far) => far.stored(),
            Peer::Kafka(far) => far.stored(),
        }
    }
}

/// A file that holds a secret, or a certificate; it stays until the process ends.
fn file(text: &str) -> String {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file.into_temp_path().keep().unwrap().to_str().unwrap().to_owned()
}

impl Case {
    /// Starts the far side; returns it with the sink's configuration.
    pub(crate) async fn start(&self, seed: u64, faults: usize) -> (Peer, Config) {
        let records: &[&str] = match self.kinds {
            Kinds::Events => &["events"],
            Kinds::Alerts => &["alerts"],
            Kinds::Both => &["events", "alerts"],
        };
        let mut config = json!({"name": "lake", "records": records,
            "batch": {"records_max": 7, "wait_max": "0s"}});
        let all = config.as_object_mut().unwrap();
        all.extend(self.settings.as_object().unwrap().clone());
        let peer = match self.peer {
            Kind::Http(service) => {
                let (far, address) = http::Far::start(service, seed, faults).await;
                all.insert("url".into(), json!(format!("http://{address}")));
                Peer::Http(far)
            }
            Kind::Stream { is_tls, is_counted } => {
                let (tls, ca) = if is_tls { encryption() } else { (None, Value::Null) };
                let (far, port) = stream::Far::start(tls, is_counted, seed, faults).await;
                all.insert("address".into(), json!(format!("localhost:{port}")));
                all.insert("tls".into(), ca);
                Peer::Stream(far)
            }
            Kind::Kafka => {
                let (far, brokers) = kafka::Far::start(seed, faults);
                all.insert("brokers".into(), json!(brokers));
                Peer::Kafka(far)
            }
        };
        (peer, serde_json::from_value(config).unwrap())
    }
}

/// A certificate for localhost, and the sink's setting that trusts it.
fn encryption() -> (Option<TlsAcceptor>, Value) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = json!({"ca_file": file(&own.cert.pem())});
    (Some(acceptor(&own)), ca)
}

/// A body that holds all of an item.
const TEMPLATE: &str = r#"{"text": "{{summary}}", "id": "{{id}}", "all": {{json}}}"#;

const POISON: &[&str] = &["-poison", ""];

fn shape(name: &'static str, kinds: Kinds, has_ids: bool, more: Value) -> Case {
    let mut settings = json!({"type": "http", "shape": name});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let service = if name == "otlp" { Service::Otlp } else { Service::Plain };
    Case {
        name,
        kinds,
        marks: POISON,
        reason: "refused",
        has_ids,
        is_ordered: true,
        settings,
        peer: Kind::Http(service),
    }
}

/// The shapes of HTTP.
pub(crate) fn http() -> Vec<Case> {
    use Kinds::{Alerts, Both, Events};
    let key = || json!({"key": {"file": file("k")}});
    vec![
        shape("lines", Events, false, json!({})),
        shape("array", Both, true, json!({"format": "ecs", "http": {"gzip": true}})),
        shape("each", Both, true, json!({"format": "ocsf"})),
        shape("template", Both, true, json!({"template": TEMPLATE})),
        shape("falcosidekick", Alerts, true, json!({})),
        shape("alertmanager", Alerts, true, json!({})),
        shape("slack", Alerts, true, json!({})),
        shape("teams", Alerts, true, json!({})),
        shape("pagerduty", Alerts, true, key()),
        shape("loki", Both, false, json!({})),
        shape("datadog", Both, true, key()),
        shape("otlp", Both, true, json!({})),
    ]
}

/// Splunk and Elasticsearch.
pub(crate) fn search() -> Vec<Case> {
    let splunk = |name, service, more: Value| {
        let mut settings = json!({"type": "splunk", "token": {"file": file("t")}});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let peer = Kind::Http(service);
        let base = shape(name, Kinds::Both, true, json!({}));
        // Requests go side by side.
        Case { reason: "invalid", settings, peer, is_ordered: false, ..base }
    };
    let one_at_a_time = json!({"http": {"requests_in_flight_max": 1}});
    let acks = || json!({"acks": true, "ack_timeout": "100ms"});
    let raw = splunk(
        "splunk raw with acks",
        Service::SplunkAcks,
        json!({"acks": true, "ack_timeout": "100ms", "endpoint": "raw"}),
    );
    vec![
        Case {
            is_ordered: true,
            ..splunk("splunk, one at a time", Service::Splunk, one_at_a_time)
        },
        splunk("splunk", Service::Splunk, json!({})),
        splunk("splunk with acks", Service::SplunkAcks, acks()),
        Case { kinds: Kinds::Events, has_ids: false, ..raw },
        Case {
            name: "elasticsearch",
            kinds: Kinds::Both,
            marks: &["-poison", "-awkward", ""],
            reason: "mapping",
            has_ids: true,
            is_ordered: false,
            settings: json!({"type": "elasticsearch"}),
            peer: Kind::Http(Service::Elasticsearch),
        },
    ]
}

/// Kafka, where a record may be too large.
pub(crate) fn kafka() -> Vec<Case> {
    let topics = json!({"events": kafka::TOPIC, "alerts": kafka::TOPIC});
    vec![Case {
        name: "kafka",
        kinds: Kinds::Both,
        marks: POISON,
        reason: "too_large",
        has_ids: true,
        // Each partition is, which is looked at where it is read.
        is_ordered: false,
        // The mock's brokers do not look at sequence numbers: a batch may overtake one that failed,
        // which librdkafka then rightly takes for delivered.
        settings: json!({"type": "kafka", "topics": topics, "message_bytes_max": "2000B",
            "requests_in_flight_max": 1}),
        peer: Kind::Kafka,
    }]
}

/// Syslog, which refuses nothing.
pub(crate) fn syslog() -> Vec<Case> {
    let case = |name, is_tls, is_counted| Case {
        name,
        kinds: Kinds::Both,
        marks: &[""],
        reason: "",
        has_ids: true,
        is_ordered: true,
        settings: json!({"type": "syslog",
            "framing": if is_counted { "octet_counting" } else { "lf" }}),
        peer: Kind::Stream { is_tls, is_counted },
    };
    vec![
        case("syslog", false, true),
        case("syslog, a line each", false, false),
        case("syslog over TLS", true, true),
    ]
}
