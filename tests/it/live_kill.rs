//! `kubewitness run`, killed with SIGKILL again and again while logs are written and rotated (by
//! renaming, by compressing, by copying and truncating) and a webhook backend posts and retries.
//!
//! Every line and every delivered item is in the spool once, a log's in its order, and the alerts
//! there are those that evaluating the stored events anew raises. `KUBEWITNESS_KILLS` says how
//! often (12 when absent), `KUBEWITNESS_KILL_SEED` from which seed.

mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kubewitness::alert::raise::Raiser;
use kubewitness::alert::sighting::{self, Sighting};
use kubewitness::engine::Engine;
use kubewitness::engine::correlate::Limits;
use kubewitness::engine::field::Shape;
use kubewitness::engine::values::Subject;
use kubewitness::event::Event;
use kubewitness::record::{self, StoredEvent, kind};
use kubewitness::rule::load::{self, load_paths};
use kubewitness::spool::{self, Options, Spool};

use crate::apiserver::ApiServer;
use crate::live_kill::writer::{Rotation, Writer};

const RULES: &str = r#"
title: Secret read
id: secret-read
name: secret_read
logsource: {product: kubernetes, service: audit}
detection: {s: {objectRef.resource: secrets}, condition: s}
level: medium
---
title: Session opened
id: session-opened
logsource: {product: kubernetes, service: audit}
detection: {s: {objectRef.subresource: exec}, condition: s}
level: high
---
title: Many secrets
id: many-secrets
correlation:
  type: event_count
  rules: [secret_read]
  group-by: [user.username]
  timespan: 10m
  generate: true
  condition: {gte: 25}
level: high
---
title: New namespace
id: new-namespace
correlation:
  type: new_terms
  rules: [secret_read]
  group-by: [user.username]
  timespan: 1d
  generate: true
  condition: {field: [objectRef.namespace]}
level: medium
"#;

/// A random number below `limit`; xorshift, so that a seed gives the same run.
fn random(state: &mut u64, limit: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % limit
}

/// The `n`th event of a writer, without the keys that only a log's line has.
fn item(writer: &str, n: u64) -> String {
    let (resource, namespace) = (["secrets", "nodes", "pods"][n as usize % 3], n % 17);
    let (stage, subresource) = match n % 5 {
        0 => ("ResponseStarted", r#","subresource":"exec""#),
        _ => ("ResponseComplete", ""),
    };
    let time =
        format!("2026-01-01T00:{:02}:{:02}.{:06}Z", n / 6_000 % 60, n / 100 % 60, n % 1_000_000);
    format!(
        r#"{{"level":"Metadata","auditID":"{writer}-{n}","stage":"{stage}","requestURI":"/x","verb":"get","user":{{"username":"{writer}-{}"}},"sourceIPs":["10.0.0.1"],"objectRef":{{"resource":"{resource}","namespace":"team-{namespace}"{subresource}}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#,
        n % 4
    )
}

fn line(writer: &str, n: u64) -> String {
    let item = item(writer, n);
    format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",{}", &item[1..])
}

/// What one run works with.
struct Stage {
    dir: PathBuf,
    webhook: String,
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Stage {
    fn new(dir: &Path) -> Stage {
        let (webhook, admin) = (free_address(), free_address());
        let path = dir.display();
        std::fs::write(dir.join("rules.yml"), RULES).unwrap();
        let config = format!(
            "cluster: prod-1
sources:
  - {{type: log, path: [{}], poll_interval: 10ms}}
  - {{type: webhook, listen: \"{webhook}\"}}
rules: {{paths: [{path}/rules.yml], reload: false}}
redaction: {{mode: \"off\"}}
pipeline: {{snapshot_bytes: 64KiB, threads: 2}}
spool: {{dir: {path}/spool, segment_bytes_max: 4MiB, batch_bytes_max: 2MiB, passed_bytes_min: 5GiB}}
sinks:
  - {{type: file, name: events, records: [events], path: {path}/events.jsonl, batch: {{wait_max: 10ms}}}}
admin: {{listen: \"{admin}\"}}
",
            Rotation::ALL.map(|(_, name)| format!("{path}/{name}/audit.log")).join(", ")
        );
        std::fs::write(dir.join("config.yaml"), config).unwrap();
        Stage { dir: dir.to_owned(), webhook }
    }

    fn start(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubewitness"));
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.dir.join("stderr")).unwrap();
        command.arg("run").arg("--config").arg(self.dir.join("config.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Waits until as many different events as this were delivered.
    async fn delivered(&self, events: usize) {
        let mut file = BufReader::new(std::fs::File::open(self.dir.join("events.jsonl")).unwrap());
        let (mut seen, mut line) = (BTreeSet::new(), String::new());
        for _ in 0..6_000 {
            while file.read_line(&mut line).unwrap() > 0 {
                if line.ends_with('\n') {
                    seen.insert(id_of(&line).to_owned());
                    line.clear();
                }
            }
            if seen.len() >= events {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
        let end: Vec<&str> = log.lines().rev().take(40).collect();
        panic!("{} of {events} events were delivered; log:\n{}", seen.len(), end.join("\n"));
    }
}

/// The audit id of an event.
fn id_of(raw: &str) -> &str {
    let (_, rest) = raw.split_once("\"auditID\":\"").unwrap_or(("", raw));
    rest.split('"').next().unwrap_or("")
}

/// Posts lists of items as a webhook backend does; returns how many items were delivered.
async fn post(url: String, stop: Arc<AtomicBool>) -> u64 {
    // An outage of seconds here stands for one of minutes there: no batch is given up.
    let server = ApiServer::plain(&url).scale(0.02);
    let (mut n, mut delivered) = (0, 0);
    while !stop.load(Ordering::Acquire) {
        let items: Vec<String> = (n..n + 40).map(|n| item("webhook", n)).collect();
        let head = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
        let body = format!("{head}{}]}}", items.join(","));
        while !server.send(body.clone().into_bytes()).await.is_delivered {}
        n += 40;
        delivered += 40;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    delivered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_keeps_everything_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills: u64 = number("KUBEWITNESS_KILLS").unwrap_or(12);
    let mut seed: u64 = number("KUBEWITNESS_KILL_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15);
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path());
    let stop = Arc::new(AtomicBool::new(false));
    let url = format!("http://{}/audit", stage.webhook);
    let writers = Rotation::ALL.map(|(rotation, name)| {
        let writer = Writer::new(&stage.dir, rotation, name);
        tokio::spawn(writer.run(Arc::clone(&stop), seed))
    });
    let poster = tokio::spawn(post(url, Arc::clone(&stop)));
    for kill in 0..kills {
        let mut child = stage.start();
        tokio::time::sleep(Duration::from_millis(100 + random(&mut seed, 500))).await;
        assert!(child.try_wait().unwrap().is_none(), "kill {kill}: it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = stage.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Release);
    let mut lines = Vec::new();
    for writer in writers {
        lines.push(writer.await.unwrap());
    }
    let items = poster.await.unwrap();
    stage.delivered((lines.iter().sum::<u64>() + items) as usize).await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "it drains and exits");
    verify(&stage.dir, &lines, items).await;
}

/// Reads the spool and compares.
async fn verify(dir: &Path, lines: &[u64], items: u64) {
    let options = Options { passed_bytes_min: 5 << 30, ..Options::default() };
    let (spool, recovery) = Spool::open(&dir.join("spool"), options).unwrap();
    assert_eq!(recovery.damages, []);
    let rules = load::Options { taxonomy: true, ..load::Options::default() };
    let rules = load_paths(&[dir.join("rules.yml")], &[], &rules).unwrap();
    let engine = Arc::new(Engine::compile(rules, Shape::Audit, &[]).unwrap());
    let mut raiser = Raiser::new(Arc::clone(&engine), Limits::default());
    let mut webhook = BTreeSet::new();
    let mut logs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut alerts, mut expected) = (Vec::new(), Vec::new());
    let mut reader = spool.reader(1);
    let mut newest = i64::MIN;
    while let Some(records) = reader.try_read(&spool::Limits::default()).await.unwrap() {
        assert_eq!((records.missing, &records.damages[..]), (0, &[][..]));
        for record in records.iter() {
            let raise = &mut |alert: kubewitness::alert::Alert| expected.push(alert.id);
            match record.kind {
                kind::EVENT => {
                    let event = StoredEvent::decode(record.payload).unwrap();
                    let raw = std::str::from_utf8(event.raw).unwrap().to_owned();
                    match event.source {
                        "log" => {
                            let writer = id_of(&raw).split('-').next().unwrap_or_default();
                            logs.entry(writer.to_owned()).or_default().push(raw);
                        }
                        _ => assert!(webhook.insert(raw), "an item is stored twice"),
                    }
                    if event.time_us > newest {
                        newest = event.time_us;
                        raiser.advance(newest, raise);
                    }
                    observe(&engine, &event, &mut raiser, raise);
                }
                kind::TIME => raiser.advance(record::decode_time(record.payload).unwrap(), raise),
                kind::ALERT => {
                    let alert: kubewitness::alert::Alert =
                        serde_json::from_slice(record.payload).unwrap();
                    alerts.push(alert.id);
                }
                kind::NOTICE => panic!("{}", String::from_utf8_lossy(record.payload)),
                _ => {}
            }
        }
    }
    for ((_, name), lines) in Rotation::ALL.iter().zip(lines) {
        in_order(name, &logs.remove(*name).unwrap_or_default(), *lines);
    }
    assert!(logs.is_empty(), "of other logs: {:?}", logs.keys());
    let posted: BTreeSet<String> = (0..items).map(|n| item("webhook", n)).collect();
    assert!(webhook == posted, "{} of {} items", webhook.len(), posted.len());
    assert!(alerts.len() > 20, "only {} alerts", alerts.len());
    assert_eq!(alerts, expected, "alerts are those of the stored events");
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>().len(), alerts.len(), "each once");
}

/// Every line of a log, once and in its order.
fn in_order(name: &str, stored: &[String], lines: u64) {
    let first = (0..lines).zip(stored).find(|(n, stored)| line(name, *n) != **stored);
    let first = first.map(|(n, stored)| (n, id_of(stored)));
    assert_eq!((stored.len() as u64, first), (lines, None), "lines of {name}");
}

fn observe(
    engine: &Engine,
    stored: &StoredEvent<'_>,
    raiser: &mut Raiser,
    raise: &mut dyn FnMut(kubewitness::alert::Alert),
) {
    let event = Event::salvage(stored.raw).unwrap();
    let mut scratch = engine.scratch();
    let matched = engine.evaluate(Subject::Audit(&event), &mut scratch).to_vec();
    if matched.is_empty() {
        return;
    }
    let (mut bytes, mut sighting) = (Vec::new(), Sighting::default());
    let place = (stored.cluster, stored.position);
    sighting::pack(engine, (&event, &event), &matched, place, &mut scratch, &mut bytes);
    sighting.unpack(&bytes, stored.time_us).unwrap();
    raiser.observe(&sighting, raise);
}
