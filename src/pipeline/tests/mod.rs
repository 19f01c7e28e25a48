//! The pipeline as a whole, on a simulated disk: a rig that sends batches and reads the spool, and
//! the reference that evaluates a spool's events anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::alert::Alert;
use crate::alert::raise::Raiser;
use crate::alert::sighting::{self, Sighting};
use crate::engine::Engine;
use crate::engine::correlate::Limits;
use crate::engine::field::Shape;
use crate::engine::values::Subject;
use crate::event::Event;
use crate::event::redact::{Mode, Redactor};
use crate::ingest::batch::{Answer, Batch, Checkpoint, Stalled};
use crate::ingest::chunk::Chunk;
use crate::pipeline::config::Config;
use crate::pipeline::graph::{Pipeline, Setup};
use crate::pipeline::{Clock, Failure};
use crate::record::{self, StoredEvent, kind};
use crate::rule::load::{self, load_texts};
use crate::sinks::frame::Frame;
use crate::sinks::{AnySink, Sink};
use crate::spool::disk::Disk;
use crate::spool::disk::sim::Sim;
use crate::spool::{self, Options, Spool};

mod crash;
mod delivery;
mod files;
mod faults;
mod flow;
mod secrets;

/// When the tests' clock begins: later than their events, microseconds.
pub(crate) const NOW_US: i64 = 1_767_230_000_000_000;

/// Rules of every kind that keeps state.
pub(crate) const RULES: &str = r#"
title: Secret read
id: secret-read
name: secret_read
logsource: {product: kubernetes, service: audit}
detection: {s: {objectRef.resource: secrets, verb: get}, condition: s}
level: medium
---
title: Pod made
id: pod-made
name: pod_made
logsource: {product: kubernetes, service: audit}
detection: {s: {objectRef.resource: pods, verb: create}, condition: s}
level: low
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
  timespan: 1m
  generate: true
  condition: {gte: 3}
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
  condition: {field: [objectRef.namespace], learning: 10s}
level: medium
---
title: Pod without secret
id: pod-without-secret
correlation:
  type: temporal
  rules: [secret_read, pod_made]
  group-by: [user.username]
  timespan: 30s
  generate: true
  condition: pod_made and not secret_read
level: medium
"#;

/// A correlation over one of them.
const CHAINED: &str = "
title: Many secrets again
id: secrets-again
correlation:
  type: event_count
  rules: [many-secrets]
  group-by: [user.username]
  timespan: 4m
  generate: true
  condition: {gte: 2}
level: high
";

/// Compiles [`RULES`], and what is chained on them.
pub(crate) fn chained() -> Arc<Engine> {
    engine(&format!("{RULES}---{CHAINED}"))
}

/// Compiles rules.
pub(crate) fn engine(rules: &str) -> Arc<Engine> {
    let texts = [(PathBuf::from("rules.yml"), rules.to_owned())];
    let options = load::Options { taxonomy: true, ..load::Options::default() };
    let rules = load_texts(&texts, &options).expect("the rules are right");
    Arc::new(Engine::compile(rules, Shape::Audit, &[]).expect("the rules compile"))
}

/// An event as the log backend writes it.
pub(crate) fn line(second: u32, user: &str, verb: &str, resource: &str, namespace: &str) -> String {
    staged(second, user, verb, resource, namespace, "ResponseComplete")
}

/// The same at a stage of choice; `pods/exec` is a subresource.
pub(crate) fn staged(
    second: u32,
    user: &str,
    verb: &str,
    resource: &str,
    namespace: &str,
    stage: &str,
) -> String {
    let time = format!("2026-01-01T00:{:02}:{:02}.{:06}Z", second / 60, second % 60, second);
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource, format!(r#","subresource":"{sub}""#)),
        None => (resource, String::new()),
    };
    format!(
        concat!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","#,
            r#""auditID":"id-{second}-{user}","stage":"{stage}","#,
            r#""requestURI":"/api/v1/namespaces/{namespace}/{resource}/x","verb":"{verb}","#,
            r#""user":{{"username":"{user}"}},"sourceIPs":["10.0.0.1"],"#,
            r#""objectRef":{{"resource":"{resource}","namespace":"{namespace}","name":"x""#,
            r#"{subresource}}},"responseStatus":{{"code":200}},"#,
            r#""requestReceivedTimestamp":"{received}","stageTimestamp":"{time}"}}"#
        ),
        second = second,
        user = user,
        stage = stage,
        namespace = namespace,
        resource = resource,
        verb = verb,
        subresource = subresource,
        received = format!("2026-01-01T00:00:00.{second:06}Z"),
        time = time,
    )
}

/// A batch of lines of a log.
pub(crate) fn batch(source: &str, lines: &[String], offset: usize) -> (Batch, Answer) {
    let mut chunk = Chunk::new();
    for line in lines {
        chunk.bytes.extend_from_slice(line.as_bytes());
        chunk.bytes.push(b'\n');
    }
    chunk.filled = chunk.bytes.len();
    chunk.first_line = offset as u64 + 1;
    let (mut batch, answer) = Batch::new(source, &format!("{source}.log"), chunk);
    batch.received_us = NOW_US;
    let value = (offset + lines.len()).to_string().into_bytes();
    batch.checkpoints.push(Checkpoint { key: "file".to_owned(), value });
    batch.stalled = Some(Stalled::default());
    (batch, answer)
}

/// Limits small enough that a few batches fill several segments.
pub(crate) fn small() -> Options {
    Options {
        bytes_max: 4 << 20,
        segment_bytes_max: 32 << 10,
        batch_bytes_max: 16 << 10,
        waiting_bytes_max: 16 << 10,
        ..Options::default()
    }
}

/// A pipeline on a simulated disk.
pub(crate) struct Rig {
    pub(crate) pipeline: Pipeline,
    pub(crate) now_us: Arc<AtomicI64>,
}

/// How a rig differs from the plain one.
pub(crate) struct Plan<S = AnySink> {
    pub(crate) options: Options,
    pub(crate) config: Config,
    pub(crate) engine: Arc<Engine>,
    pub(crate) redactor: Redactor,
    pub(crate) sinks: Vec<Frame<S>>,
}

impl<S> Plan<S> {
    pub(crate) fn new(engine: &Arc<Engine>) -> Plan<S> {
        let config = Config {
            threads: 2,
            duplicates_max: 10_000,
            snapshot_bytes: crate::units::Size(8 << 10),
            ..Config::default()
        };
        let redactor = Redactor::new(Mode::Off, None);
        let engine = Arc::clone(engine);
        Plan { options: small(), config, engine, redactor, sinks: Vec::new() }
    }
}

impl Rig {
    pub(crate) async fn start(sim: &Sim, plan: Plan) -> Result<Rig, Failure> {
        Rig::with_sinks(sim, plan).await
    }

    pub(crate) async fn with_sinks<S: Sink + 'static>(
        sim: &Sim,
        plan: Plan<S>,
    ) -> Result<Rig, Failure> {
        let Plan { options, config, engine, redactor, sinks } = plan;
        let opened =
            Spool::open_on(Disk::Sim(sim.clone()), Path::new("/spool"), options.clone(), None);
        let (spool, recovery) = opened.map_err(Failure::Spool)?;
        let now_us = Arc::new(AtomicI64::new(NOW_US));
        let clock = {
            let now_us = Arc::clone(&now_us);
            Clock::of(move || now_us.load(Ordering::Acquire))
        };
        let pipeline = Pipeline::start(Setup {
            config,
            cluster: Some("prod-1".to_owned()),
            engine,
            redactor,
            seal_to: None,
            spool: (spool, options, recovery),
            sinks,
            clock,
            rehearsal: None,
        })
        .await?;
        Ok(Rig { pipeline, now_us })
    }

    /// Sends a batch and waits for its answer.
    pub(crate) async fn send(&self, source: &str, lines: &[String], offset: usize) -> Receipted {
        let (batch, answer) = batch(source, lines, offset);
        self.pipeline.intake().send(batch).await.map_err(|_| ())?;
        answer.await.map_err(|_| ())?.map_err(|_| ())
    }
}

pub(crate) type Receipted = Result<crate::ingest::batch::Receipt, ()>;

/// What a spool holds.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// Source, position and raw bytes of each event.
    pub(crate) events: Vec<(String, String, String)>,
    /// Alerts of rules, not of notices.
    pub(crate) alerts: Vec<String>,
    /// Notices.
    pub(crate) notices: Vec<String>,
    /// Alerts that no rule raised.
    pub(crate) built_in: Vec<String>,
    /// What evaluating the events anew raises.
    pub(crate) expected: Vec<String>,
}

/// Reads everything that a disk holds, and evaluates it anew.
pub(crate) fn held(sim: &Sim, engine: &Arc<Engine>) -> Held {
    let disk = Disk::Sim(sim.fork());
    let (spool, _) = Spool::open_on(disk, Path::new("/spool"), roomy(), None).expect("it opens");
    let mut reader = spool.reader(1);
    let mut held = Held::default();
    let mut reference = Reference::new(engine);
    let limits = spool::Limits::default();
    while let Some(records) = reader.read_blocking(&limits).expect("it reads") {
        assert_eq!((records.missing, &records.damages[..]), (0, &[][..]));
        for record in records.iter() {
            let text = || String::from_utf8_lossy(record.payload).into_owned();
            match record.kind {
                kind::EVENT => {
                    let event = StoredEvent::decode(record.payload).expect("an event");
                    let raw = String::from_utf8_lossy(event.raw).into_owned();
                    held.events.push((event.source.to_owned(), event.position.to_owned(), raw));
                    reference.event(&event, &mut held.expected);
                }
                kind::TIME => {
                    let time = record::decode_time(record.payload).expect("a time");
                    reference.advance(time, &mut held.expected);
                }
                kind::ALERT if text().contains(r#""source":"sigma""#) => held.alerts.push(text()),
                kind::ALERT => held.built_in.push(text()),
                kind::NOTICE => held.notices.push(text()),
                _ => {}
            }
        }
    }
    held
}

/// Every record that can be read, as text.
pub(crate) fn all(sim: &Sim) -> Vec<String> {
    let disk = Disk::Sim(sim.fork());
    let (spool, _) = Spool::open_on(disk, Path::new("/spool"), roomy(), None).expect("it opens");
    let mut reader = spool.reader(1);
    let mut all = Vec::new();
    while let Some(records) = reader.read_blocking(&spool::Limits::default()).expect("it reads") {
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        all.extend(records.iter().map(|record| text(record.payload)));
    }
    all
}

fn roomy() -> Options {
    Options { bytes_max: 1 << 30, passed_bytes_min: 1 << 29, ..small() }
}

/// Evaluates stored events from the beginning, in their order, with the rules.
struct Reference {
    engine: Arc<Engine>,
    raiser: Raiser,
    newest_us: i64,
}

impl Reference {
    fn new(engine: &Arc<Engine>) -> Reference {
        let raiser = Raiser::new(Arc::clone(engine), Limits::default());
        Reference { engine: Arc::clone(engine), raiser, newest_us: i64::MIN }
    }

    fn event(&mut self, stored: &StoredEvent<'_>, alerts: &mut Vec<String>) {
        let latest_us = stored.received_us + Limits::default().lateness_us;
        self.advance(stored.time_us.min(latest_us), alerts);
        let event = Event::salvage(stored.raw).expect("an event");
        let mut scratch = self.engine.scratch();
        let matched = self.engine.evaluate(Subject::Audit(&event), &mut scratch).to_vec();
        if matched.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        let place = (stored.cluster, stored.position);
        let both = (&event, &event);
        sighting::pack(&self.engine, both, &matched, place, &mut scratch, &mut bytes);
        let mut sighting = Sighting::default();
        sighting.unpack(&bytes, stored.time_us).expect("just packed");
        self.raiser.observe(&sighting, &mut |alert| alerts.push(json(&alert)));
    }

    fn advance(&mut self, time_us: i64, alerts: &mut Vec<String>) {
        if time_us > self.newest_us {
            self.newest_us = time_us;
            self.raiser.advance(time_us, &mut |alert| alerts.push(json(&alert)));
        }
    }
}

fn json(alert: &Alert) -> String {
    serde_json::to_string(alert).expect("an alert is JSON")
}
