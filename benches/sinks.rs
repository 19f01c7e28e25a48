//! What each sink costs against a peer on this machine: events a second and CPU time an event; and
//! Kafka beside a bare producer of librdkafka that sends the same bytes, in turns.
//!
//! `KUBEWITNESS_BENCH_KAFKA=127.0.0.1:29092` measures a real cluster (tests/servers/kafka.sh) with
//! its topic `events`; without it librdkafka's mock cluster, whose work counts on both sides.

mod peer;

use std::path::Path;
use std::time::Duration;

use cpu_time::{ProcessTime, ThreadTime};
use kubewitness::clock::{self, Stopwatch};
use kubewitness::record::StoredEvent;
use kubewitness::sinks::config::Config;
use kubewitness::sinks::frame::Frame;
use kubewitness::sinks::{Item, Outgoing, Position};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::{Value, json};

/// Events that one measurement sends.
const EVENTS: usize = 50_000;
/// Measurements of each row; the median is shown.
const ROUNDS: usize = 5;
/// Alerts that one measurement sends to services for people.
const ALERTS: usize = 5_000;

/// Wall and CPU time of one measurement.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

/// Whose CPU time is the sink's.
#[derive(Clone, Copy, PartialEq)]
enum Meter {
    /// The thread that runs the sink; its peer has others.
    Thread,
    /// All of the process; its peer is none or elsewhere.
    Process,
}

fn main() {
    let raws: Vec<String> = (0..EVENTS).map(raw).collect();
    let bytes: usize = raws.iter().map(String::len).sum();
    println!("{EVENTS} events of {} bytes\n", bytes / EVENTS);
    println!("{:<28}{:>12}{:>10}{:>16}", "sink", "events/s", "MB/s", "CPU us/event");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let peer = peer::start(dir.path());
    let events: Vec<Item<'_>> = raws.iter().enumerate().map(|(n, raw)| item(n, raw)).collect();
    for (name, meter, settings) in rows(&peer, dir.path()) {
        let costs = (0..ROUNDS).map(|_| deliver(&settings, &events, meter)).collect();
        row(name, median(costs), EVENTS, bytes);
    }
    let alerts: Vec<String> = (0..ALERTS).map(alert).collect();
    let bytes_of_alerts: usize = alerts.iter().map(String::len).sum();
    println!("\n{ALERTS} alerts of {} bytes\n", bytes_of_alerts / ALERTS);
    let alerts: Vec<Item<'_>> = (1..).zip(&alerts).map(|(seq, json)| told(seq, json)).collect();
    for (name, settings) in rows_of_alerts(&peer, dir.path()) {
        let deliver = |_| deliver(&settings, &alerts, Meter::Thread);
        row(name, median((0..ROUNDS).map(deliver).collect()), ALERTS, bytes_of_alerts);
    }
    println!();
    kafka(&raws, &events, bytes);
}

/// An event of about the size of a write at the level Request.
fn raw(number: usize) -> String {
    let words = ["nginx", "payments", "kube-system", "10.0.0.17", "controller", "replicaset"];
    let labels: Vec<String> = (0..24)
        .map(|at| format!("\"l{at}\":\"{}-{}\"", words[(number + at) % 6], number * 31 + at * 7))
        .collect();
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request",
        "auditID": format!("{:08x}-7a3c-4f0e-9d1b-{:012x}", number * 2_654_435_761_usize, number),
        "stage": "ResponseComplete", "requestURI": "/api/v1/namespaces/shop/pods/web/status",
        "verb": "patch", "user": {"username": "system:node:n1", "groups": ["system:nodes"]},
        "sourceIPs": ["10.0.0.17"], "userAgent": "kubelet/v1.34.0 (linux/amd64)",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "apiVersion": "v1"},
        "responseStatus": {"code": 200}, "requestObject": {"metadata": {"note": labels.join(",")}},
        "requestReceivedTimestamp": "2026-11-22T00:16:53.715698Z",
        "stageTimestamp": "2026-11-22T00:16:53.725698Z",
        "annotations": {"authorization.k8s.io/decision": "allow"}
    })
    .to_string()
}

/// An alert as `alert` has it, with one event as evidence.
fn alert(number: usize) -> String {
    json!({
        "schema": 1, "id": format!("{number:032x}"), "kind": "match", "cluster": "prod-1",
        "time": "2026-11-22T00:16:53.715698Z",
        "rule": {"id": "5f7a1b1c", "title": "Exec into a pod", "level": "high", "source": "sigma",
            "tags": ["attack.execution", "attack.t1609"]},
        "actor": {"username": format!("eve-{number}"), "groups": ["system:authenticated"],
            "user_agent": "kubectl/v1.34.0", "source_ip": "203.0.113.9"},
        "request": {"verb": "create", "resource": "pods", "subresource": "exec",
            "namespace": "shop", "name": "web", "code": 101},
        "summary": format!("eve-{number} executed sh in shop/web"), "count": 1,
    })
    .to_string()
}

fn told(seq: u64, json: &str) -> Item<'_> {
    Item { seq, outgoing: Outgoing::Alert(json.as_bytes()) }
}

fn item(seq: usize, raw: &str) -> Item<'_> {
    let stored = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 1_795_306_613_715_698,
        duplicate_key: (seq as u128).to_le_bytes(),
        cluster: "prod-1",
        source: "log",
        position: "audit.log:7",
        raw: raw.as_bytes(),
    };
    Item { seq: seq as u64 + 1, outgoing: Outgoing::Event(stored) }
}

fn rows(peer: &peer::Peer, dir: &Path) -> Vec<(&'static str, Meter, Value)> {
    let http = format!("http://127.0.0.1:{}", peer.http);
    let token = dir.join("token");
    std::fs::write(&token, "t").expect("a temporary file can be written");
    let syslog = |port: u16| json!({"type": "syslog", "address": format!("localhost:{port}")});
    let with = |mut settings: Value, more: Value| {
        let more = more.as_object().expect("a literal").clone();
        settings.as_object_mut().expect("a literal").extend(more);
        settings
    };
    let splunk = json!({"type": "splunk", "url": http, "token": {"file": token}});
    let post = |shape: &str| json!({"type": "http", "url": http, "shape": shape});
    use Meter::{Process, Thread};
    vec![
        ("file", Process, json!({"type": "file", "path": dir.join("lines")})),
        ("syslog TCP", Thread, syslog(peer.syslog)),
        ("syslog TLS", Thread, with(syslog(peer.tls), json!({"tls": {"ca_file": peer.ca}}))),
        ("syslog TCP, CEF", Thread, with(syslog(peer.syslog), json!({"format": "cef"}))),
        ("syslog TCP, LEEF", Thread, with(syslog(peer.syslog), json!({"format": "leef"}))),
        ("http lines", Thread, post("lines")),
        ("http lines, gzip", Thread, with(post("lines"), json!({"http": {"gzip": true}}))),
        ("http array, ECS", Thread, with(post("array"), json!({"format": "ecs"}))),
        ("http array, OCSF", Thread, with(post("array"), json!({"format": "ocsf"}))),
        ("http array, Falco", Thread, with(post("array"), json!({"format": "falco"}))),
        ("loki", Thread, post("loki")),
        ("datadog", Thread, with(post("datadog"), json!({"key": {"file": token}}))),
        ("otlp", Thread, post("otlp")),
        ("splunk", Thread, splunk.clone()),
        ("splunk, acks", Thread, with(splunk, json!({"acks": true}))),
        ("elasticsearch", Thread, json!({"type": "elasticsearch", "url": http})),
    ]
}

/// Services that get one alert a request, Alertmanager aside.
fn rows_of_alerts(peer: &peer::Peer, dir: &Path) -> Vec<(&'static str, Value)> {
    let http = format!("http://127.0.0.1:{}", peer.http);
    let post =
        |shape: &str| json!({"type": "http", "url": http, "shape": shape, "records": ["alerts"]});
    let mut pagerduty = post("pagerduty");
    pagerduty["key"] = json!({"file": dir.join("token")});
    let mut template = post("template");
    template["template"] = json!(r#"{"text": "{{summary}}", "level": "{{level}}"}"#);
    vec![
        ("alertmanager", post("alertmanager")),
        ("falcosidekick", post("falcosidekick")),
        ("slack", post("slack")),
        ("teams", post("teams")),
        ("pagerduty", pagerduty),
        ("template", template),
    ]
}

fn frame(settings: &Value) -> Frame {
    let mut config = json!({"name": "bench", "records": ["events"]});
    let more = settings.as_object().expect("a literal").clone();
    config.as_object_mut().expect("a literal").extend(more);
    let config: Config = serde_json::from_value(config).expect("a configuration");
    Frame::open(&config).expect("a sink")
}

/// Sends all items through a sink, as many at a time as it asks for; connecting is not measured.
fn deliver(settings: &Value, items: &[Item<'_>], meter: Meter) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let mut frame = frame(settings);
        // A cursor of its own, so that no earlier run's position hides anything.
        let cursor = u128::from(clock::now_us().unsigned_abs());
        frame.resume(Position { cursor, acked: 0 });
        send(&mut frame, &items[..1]).await;
        let mut rest = &items[1..];
        let (wall, thread, process) = (Stopwatch::start(), ThreadTime::now(), ProcessTime::now());
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(rest.len().min(frame.limits().records_max));
            send(&mut frame, batch).await;
            rest = behind;
        }
        let cpu = if meter == Meter::Thread { thread.elapsed() } else { process.elapsed() };
        Cost { wall: wall.elapsed(), cpu }
    })
}

async fn send(frame: &mut Frame, items: &[Item<'_>]) {
    let mut load = frame.load_items(items.iter().copied());
    if let Err(unsent) = frame.send(&mut load).await {
        panic!("not delivered: {unsent}");
    }
    assert!(load.dead_letters("bench", 0).is_empty(), "refused");
}

/// The bare producer with the sink's settings: payload, key and headers are the sink's too.
fn bare(brokers: &str, raws: &[String]) -> Cost {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("compression.type", "zstd")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .create()
        .expect("a producer");
    let meta: Vec<(String, String)> =
        (0..raws.len()).map(|n| (format!("{n:036}"), item(n, "").id())).collect();
    let produce = |raw: &str, key: &str, id: &str| loop {
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: "kubewitness-id", value: Some(id) })
            .insert(Header { key: "kubewitness-kind", value: Some("events") })
            .insert(Header { key: "kubewitness-cluster", value: Some("prod-1") });
        let record = BaseRecord::to("events").payload(raw).key(key).headers(headers);
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => panic!("{error}"),
        }
    };
    produce(&raws[0], "first", "first");
    producer.flush(Duration::from_secs(60)).expect("the brokers answer");
    let (wall, cpu) = (Stopwatch::start(), ProcessTime::now());
    for (number, (raw, (key, id))) in raws.iter().zip(&meta).enumerate() {
        produce(raw, key, id);
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60)).expect("the brokers answer");
    Cost { wall: wall.elapsed(), cpu: cpu.elapsed() }
}

/// The sink and the bare producer in turns.
fn kafka(raws: &[String], events: &[Item<'_>], bytes: usize) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("events", 3, 1).expect("a topic");
    let real = std::env::var("KUBEWITNESS_BENCH_KAFKA").ok();
    let what = if real.is_some() { "a cluster" } else { "the mock cluster" };
    let brokers = real.unwrap_or_else(|| cluster.bootstrap_servers());
    let settings = json!({"type": "kafka", "brokers": brokers, "topics": {"events": "events"}});
    let mut transactional = settings.clone();
    transactional["transactional_id"] = json!("bench");
    let (mut sinks, mut bares, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bares.push(bare(&brokers, raws));
        sinks.push(deliver(&settings, events, Meter::Process));
        transactions.push(deliver(&transactional, events, Meter::Process));
    }
    let (sink, bare) = (median(sinks), median(bares));
    println!("\nagainst {what}:");
    row("bare librdkafka", bare, EVENTS, bytes);
    row("kafka", sink, EVENTS, bytes);
    row("kafka, transactions", median(transactions), EVENTS, bytes);
    let ratio = |of: fn(&Cost) -> Duration| of(&bare).as_secs_f64() / of(&sink).as_secs_f64();
    println!("kafka / bare, by the wall    {:>11.2}", ratio(|cost| cost.wall));
    println!("kafka / bare, by CPU time    {:>11.2}", ratio(|cost| cost.cpu));
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.wall);
    costs[costs.len() / 2]
}

fn row(name: &str, cost: Cost, items: usize, bytes: usize) {
    let seconds = cost.wall.as_secs_f64();
    let (rate, mb) = (items as f64 / seconds, bytes as f64 / seconds / 1e6);
    let cpu = cost.cpu.as_secs_f64() * 1e6 / items as f64;
    println!("{name:<28}{rate:>12.0}{mb:>10.0}{cpu:>16.2}");
}
