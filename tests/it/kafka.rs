//! The Kafka sink and source against Apache Kafka itself: where `tests/servers/kafka.sh start` has
//! started one and `KUBEWITNESS_TEST_KAFKA` names its directory; without it nothing is tested.

mod transactions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kubewitness::ingest::batch::{Receipt, Refused};
use kubewitness::ingest::intake::intake;
use kubewitness::ingest::kafka::Source;
use kubewitness::record::StoredEvent;
use kubewitness::sinks::config::Config;
use kubewitness::sinks::frame::{Frame, Unsent};
use kubewitness::sinks::{Item, Outgoing};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const RAW: &str = r#"{"auditID":"AUDIT","verb":"get","stage":"ResponseComplete"}"#;

fn server() -> Option<PathBuf> {
    std::env::var_os("KUBEWITNESS_TEST_KAFKA").map(PathBuf::from)
}

/// A sink of type kafka with these settings beside the usual ones.
fn frame(settings: Value) -> Frame {
    let mut config = json!({
        "type": "kafka", "name": "lake", "records": ["events"],
        "brokers": "127.0.0.1:29092", "topics": {"events": "events"},
        "batch": {"records_max": 5000},
    });
    let all = config.as_object_mut().unwrap();
    all.extend(settings.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(config).unwrap();
    Frame::open(&config).unwrap()
}

/// An event of the log as the spool holds it.
pub(crate) fn event(seq: u64, raw: &str) -> Item<'_> {
    let mut duplicate_key = [0; 16];
    duplicate_key[..8].copy_from_slice(&seq.to_le_bytes());
    let stored = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 1_795_306_613_715_698,
        duplicate_key,
        cluster: "prod-1",
        source: "log",
        position: "audit.log:7",
        raw: raw.as_bytes(),
    };
    Item { seq, outgoing: Outgoing::Event(stored) }
}

/// Counts the messages of a topic by payload, from its beginning to its end.
fn topic(name: &str) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:29092")
        .set("group.id", format!("test-{}-{name}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = rdkafka::TopicPartitionList::new();
    for partition in 0..3 {
        partitions.add_partition_offset(name, partition, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let (mut found, mut ends, mut looks) = (BTreeMap::<_, Vec<_>>::new(), 0, 0);
    while ends < 3 {
        match consumer.poll(Duration::from_millis(100)) {
            // Also where librdkafka talks to itself, and of what it mends by itself.
            None => {
                looks += 1;
                assert!(looks < 1_000, "the partitions never end");
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => println!("reading {name}: {error}"),
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let mut about: BTreeMap<String, String> = message
                    .headers()
                    .into_iter()
                    .flat_map(|headers| headers.iter())
                    .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                    .collect();
                about.insert("key".into(), text(message.key().unwrap_or_default()));
                found.entry(text(message.payload().unwrap_or_default())).or_default().push(about);
            }
        }
    }
    found
}

/// Sends until all of it is over there, and returns how often it was told to wait.
async fn send_all(frame: &mut Frame, items: &[Item<'_>]) -> usize {
    let mut load = frame.load_items(items.iter().copied());
    let mut waits = 0;
    while let Err(unsent) = frame.send(&mut load).await {
        assert!(matches!(unsent, Unsent::Retry { .. }), "{unsent}");
        waits += 1;
        assert!(waits < 20, "{unsent}");
    }
    assert_eq!(load.dead_letters("lake", 0), []);
    waits
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_against_apache_kafka() {
    let Some(server) = server() else { return };
    preflight(&server).await;
    delivery(&server).await;
    source(&server).await;
    transactions::transactions().await;
    outage(&server, json!({})).await;
    let id = format!("outage-{}", std::process::id());
    outage(&server, json!({"transactional_id": id})).await;
}

/// What `check` says of each mistake.
async fn preflight(server: &std::path::Path) {
    let file = |name: &str| server.join(name).to_str().unwrap().to_owned();
    std::fs::write(server.join("password"), "letmein\n").unwrap();
    std::fs::write(server.join("wrong"), "guess\n").unwrap();
    // {"alg":"none"} and {"sub":"witness","iat":1795000000,"exp":4000000000}
    let token = "eyJhbGciOiJub25lIn0.\
        eyJzdWIiOiJ3aXRuZXNzIiwiaWF0IjoxNzAwMDAwMDAwLCJleHAiOjQwMDAwMDAwMDB9.";
    std::fs::write(server.join("token"), token).unwrap();
    let tls = json!({"ca_file": file("ca.pem")});
    let mutual = json!({"ca_file": file("ca.pem"), "cert_file": file("client.crt"),
        "key_file": file("client.key")});
    let sasl = |mechanism: &str, password: &str| {
        json!({"mechanism": mechanism, "username": "witness",
            "password": {"file": file(password)}})
    };
    let secure = "localhost:29093";
    let bearer = json!({"mechanism": "OAUTHBEARER", "token": {"file": file("token")}});
    for (settings, expected) in [
        (json!({}), ""),
        (json!({"brokers": secure, "tls": tls, "sasl": sasl("PLAIN", "password")}), ""),
        (json!({"brokers": secure, "tls": tls, "sasl": sasl("SCRAM-SHA-512", "password")}), ""),
        (json!({"brokers": "localhost:29094", "tls": mutual}), ""),
        (json!({"brokers": "127.0.0.1:29095", "sasl": bearer}), ""),
        (json!({"topics": {"events": "evnts"}}), "topic \"evnts\": "),
        (json!({"topics": {"events": "small"}}), "takes messages of at most 2000 bytes"),
        (
            json!({"brokers": secure, "tls": tls, "sasl": sasl("PLAIN", "wrong")}),
            "mend the user, its secret",
        ),
        (
            json!({"brokers": secure, "tls": tls, "sasl": sasl("SCRAM-SHA-512", "wrong")}),
            "mend the user, its secret",
        ),
        (
            json!({"brokers": secure, "tls": {"ca_file": file("other-ca.pem")},
                "sasl": sasl("PLAIN", "password")}),
            "the brokers' certificate is self-signed, of an authority unknown here",
        ),
        (
            json!({"brokers": secure, "tls": {}, "sasl": sasl("PLAIN", "password")}),
            "the brokers' certificate is self-signed, of an authority unknown here",
        ),
        (
            json!({"brokers": secure, "tls": tls, "sasl": sasl("SCRAM-SHA-256", "password")}),
            "supported mechanisms: PLAIN,SCRAM-SHA-512",
        ),
        (json!({"brokers": "localhost:29094", "tls": tls}), "mend `tls.cert_file`"),
        (json!({"brokers": "127.0.0.1:1"}), "see that the brokers can be reached"),
    ] {
        let found = frame(settings.clone()).check().await;
        let found = found.err().map(|error| error.to_string()).unwrap_or_default();
        println!("{settings}\n    {found}");
        assert!(found.contains(expected), "{settings}: {found}");
        assert!(!expected.is_empty() || found.is_empty(), "{settings}: {found}");
    }
}

/// Bytes, keys, headers; and a message that the topic does not take.
async fn delivery(server: &std::path::Path) {
    let file = |name: &str| server.join(name).to_str().unwrap().to_owned();
    let mut lake = frame(json!({
        "brokers": "localhost:29093", "tls": {"ca_file": file("ca.pem")},
        "sasl": {"mechanism": "SCRAM-SHA-512", "username": "witness",
            "password": {"file": file("password")}}
    }));
    let marker = std::process::id();
    let raws: Vec<String> =
        (0..2_000).map(|n| RAW.replace("AUDIT", &format!("{marker}-{n}"))).collect();
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    assert_eq!(send_all(&mut lake, &items).await, 0);
    let found = topic("events");
    for (n, (raw, item)) in raws.iter().zip(&items).enumerate() {
        let [about] = &found[raw][..] else { panic!("{raw}: {:?}", found.get(raw)) };
        let about = |key: &str| about[key].as_str();
        assert_eq!(about("key"), format!("{marker}-{n}"));
        assert_eq!(about("kubewitness-cluster"), "prod-1");
        assert_eq!(about("kubewitness-kind"), "events");
        assert_eq!(about("kubewitness-id"), item.id());
    }

    let large = RAW.replace("AUDIT", &"x".repeat(5_000));
    let mut small = frame(json!({"topics": {"events": "small"}, "compression": "none"}));
    let mut load = small.load_items([event(1, RAW), event(2, &large)].into_iter());
    small.send(&mut load).await.unwrap();
    let letters = load.dead_letters("lake", 0);
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "too_large"));
    assert_eq!(letters[0].bytes, large.as_bytes());

    let mut missing = frame(json!({"topics": {"events": "evnts"}}));
    let mut load = missing.load_items([event(1, RAW)].into_iter());
    let unsent = missing.send(&mut load).await;
    let unsent = match unsent {
        // The first answer may come before the brokers' topics are known for sure.
        Err(Unsent::Retry { .. }) => missing.send(&mut load).await,
        other => other,
    };
    assert!(matches!(&unsent, Err(Unsent::Block { .. })), "{unsent:?}");
}

/// Batches of the source, until so many records have come; each is answered by `answer`.
async fn read(
    group: &str,
    access: &Value,
    wanted: usize,
    mut answer: impl FnMut(usize) -> Result<Receipt, Refused>,
) -> Vec<String> {
    let (intake, mut outlet) = intake(64 << 20);
    let stop = CancellationToken::new();
    let mut config = json!({"topics": ["alerts"], "group": group, "clusters": ["prod-1"],
        "batch_bytes_max": "16KiB"});
    config.as_object_mut().unwrap().extend(access.as_object().unwrap().clone());
    let config = serde_json::from_value(config).unwrap();
    kubewitness::ingest::kafka::check(&config).await.unwrap();
    let running = tokio::spawn(Source::new(config, intake, stop.clone()).unwrap().run());
    let (mut records, mut batches) = (Vec::new(), 0);
    while records.len() < wanted {
        let next = tokio::time::timeout(Duration::from_secs(30), outlet.next());
        let batch = next.await.expect("a batch in time").unwrap();
        assert_eq!(batch.cluster.as_deref(), Some("prod-1"));
        let verdict = answer(batches);
        batches += 1;
        if verdict.is_ok() {
            let found = batch.chunk.records();
            records.extend(found.map(|r| String::from_utf8(r.bytes.to_vec()).unwrap()));
        }
        batch.done.send(verdict).unwrap();
    }
    stop.cancel();
    // What is still under way is refused, as by a pipeline that ends.
    while let Some(batch) = outlet.next().await {
        let _ = batch.done.send(Err(Refused::Closed));
    }
    running.await.unwrap().unwrap();
    records
}

/// What the sink wrote is read; what was refused is read again; what was committed is not. Over
/// every kind of listener.
async fn source(server: &std::path::Path) {
    let file = |name: &str| server.join(name).to_str().unwrap().to_owned();
    let sasl = |mechanism: &str| {
        json!({"brokers": "localhost:29093", "tls": {"ca_file": file("ca.pem")},
            "sasl": {"mechanism": mechanism, "username": "witness",
                "password": {"file": file("password")}}})
    };
    let plain = json!({"brokers": "127.0.0.1:29092"});
    let bearer = json!({"brokers": "127.0.0.1:29095",
        "sasl": {"mechanism": "OAUTHBEARER", "token": {"file": file("token")}}});
    let marker = format!("source-{}", std::process::id());
    let raws: Vec<String> =
        (0..600).map(|n| RAW.replace("AUDIT", &format!("{marker}-{n}"))).collect();
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    let mut lake = frame(json!({"topics": {"events": "alerts"}}));
    send_all(&mut lake, &items[..400]).await;
    let before: usize = topic("alerts").values().map(Vec::len).sum();
    let group = format!("group-{marker}");
    let refuse_first = |batches: usize| match batches {
        0 => Err(Refused::Full),
        _ => Ok(Receipt::default()),
    };
    let first = read(&group, &sasl("SCRAM-SHA-512"), before, refuse_first).await;
    for raw in &raws[..400] {
        assert!(first.contains(raw), "{raw}");
    }
    send_all(&mut lake, &items[400..]).await;
    let mut second = read(&group, &plain, 200, |_| Ok(Receipt::default())).await;
    second.sort();
    let mut expected = raws[400..].to_vec();
    expected.sort();
    assert_eq!(second, expected);
    for (name, access) in [("plain", sasl("PLAIN")), ("bearer", bearer)] {
        let group = format!("{group}-{name}");
        let all = read(&group, &access, before + 200, |_| Ok(Receipt::default())).await;
        assert!(raws.iter().all(|raw| all.contains(raw)), "{name}");
    }
}

/// The broker is killed under way and started again: everything arrives, once.
async fn outage(server: &std::path::Path, settings: Value) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kafka.sh");
    let run = |command: &str| {
        let status = Command::new(script).arg(command).arg(server).status().unwrap();
        assert!(status.success(), "{command}");
    };
    let is_plain = settings.as_object().unwrap().is_empty();
    let marker = format!("outage-{is_plain}-{}", std::process::id());
    let raws: Vec<String> =
        (0..20_000).map(|n| RAW.replace("AUDIT", &format!("{marker}-{n}"))).collect();
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    let mut lake = frame(settings);
    let mut waits = 0;
    for (number, chunk) in items.chunks(2_000).enumerate() {
        if number == 3 {
            run("kill");
            // It goes on while the sink tries.
            let (script, server) = (script.to_owned(), server.to_owned());
            std::thread::spawn(move || {
                Command::new(script).arg("start").arg(server).output().unwrap();
            });
        }
        waits += send_all(&mut lake, chunk).await;
    }
    println!("waited {waits} times");
    let found = topic("events");
    for raw in &raws {
        assert_eq!(found.get(raw).map(Vec::len), Some(1), "{raw}");
    }
}
