//! Every sink against a far side that fails by a seeded schedule, while this side is killed now and
//! then: each record arrives at least once or is a dead letter, in order, under one id.
//!
//! `KUBEWITNESS_FAULT_SEEDS=500 cargo test --lib faults` runs more seeds than CI does.

mod cases;
mod dead;
mod http;
mod kafka;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::pipeline::backoff::Backoff;
use crate::pipeline::deliver::{Delivery, run};
use crate::pipeline::tests::faults::cases::{Case, Kinds, Peer};
use crate::pipeline::tests::{NOW_US, small};
use crate::pipeline::{Clock, tests};
use crate::record::{StoredEvent, kind};
use crate::sinks::config::Config;
use crate::sinks::frame::Frame;
use crate::sinks::{AnySink, Item, Outgoing};
use crate::spool::disk::Disk;
use crate::spool::disk::sim::{Content, Names, Sim};
use crate::spool::{self, Cursor, DeadLetter, Options, Spool, Start};

/// Records that one run delivers.
const RECORDS: usize = 40;
/// Seeds of one case, unless the environment says otherwise.
const SEEDS: u64 = 8;

/// Numbers that a seed gives (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}

/// What a far side took in one go.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Numbers of the records in it, in order.
    pub(crate) tokens: Vec<usize>,
    pub(crate) text: String,
    /// By which it can be told from others.
    pub(crate) key: String,
}

impl Stored {
    pub(crate) fn of(text: &str, key: &str) -> Stored {
        Stored { tokens: tokens(text), text: text.to_owned(), key: key.to_owned() }
    }
}

/// The numbers of the records in a text, each where it is met first.
pub(crate) fn tokens(text: &str) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for part in text.split("item-").skip(1) {
        let number = part.get(..6).and_then(|digits| digits.parse().ok());
        found.extend(number.filter(|number| !found.contains(number)));
    }
    found
}

/// A record as it is in the spool.
pub(crate) struct Record {
    kind: u8,
    payload: Vec<u8>,
    /// The item's, equal for copies.
    id: String,
    bytes: Vec<u8>,
    is_poison: bool,
}

impl Record {
    /// The record of this number; what it is marked as is the case's choice.
    fn new(number: usize, kinds: Kinds, mark: &str) -> Record {
        let token = format!("item-{number:06}{mark}");
        let is_alert = match kinds {
            Kinds::Events => false,
            Kinds::Alerts => true,
            Kinds::Both => number.is_multiple_of(3),
        };
        let is_poison = mark == "-poison";
        // What a sink refuses for its size is larger than the others.
        let padding = "x".repeat(if is_poison { 3_000 } else { 0 });
        let text = if is_alert { alert(number, &token, &padding) } else { event(&token, &padding) };
        let stored = StoredEvent {
            flags: 0,
            time_us: NOW_US,
            received_us: NOW_US,
            duplicate_key: (number as u128 + 1).to_le_bytes(),
            cluster: "prod-1",
            source: "log",
            position: "audit.log:7",
            raw: text.as_bytes(),
        };
        let outgoing =
            if is_alert { Outgoing::Alert(text.as_bytes()) } else { Outgoing::Event(stored) };
        let id = Item { seq: 0, outgoing }.id();
        let mut payload = Vec::new();
        match is_alert {
            true => payload.extend_from_slice(text.as_bytes()),
            false => stored.encode(&mut payload),
        }
        let kind = if is_alert { kind::ALERT } else { kind::EVENT };
        Record { kind, payload, id, bytes: text.into_bytes(), is_poison }
    }
}

fn event(token: &str, padding: &str) -> String {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": token,
        "stage": "ResponseComplete", "verb": "create", "userAgent": padding,
        "requestURI": "/api/v1/namespaces/a/pods",
        "user": {"username": "eve"}, "objectRef": {"resource": "pods", "namespace": "a"},
        "responseStatus": {"code": 201}, "requestObject": {"spec": {"a.b": 1}},
        "stageTimestamp": "2026-01-01T00:00:00.000000Z",
    })
    .to_string()
}

fn alert(number: usize, token: &str, padding: &str) -> String {
    json!({
        "id": format!("{number:032x}"), "time": "2026-01-01T00:00:00.000000Z", "kind": "match",
        "cluster": "prod-1",
        "rule": {"id": "r1", "title": "Exec into a pod", "level": "high", "source": "sigma"},
        "actor": {"username": token, "source_ip": "203.0.113.9", "user_agent": padding},
        "request": {"verb": "create", "resource": "pods", "namespace": "shop", "name": "web"},
        "summary": format!("{token} executed"), "count": 1,
    })
    .to_string()
}

/// What one run of one case knows.
struct Trial<'c> {
    name: String,
    case: &'c Case,
    random: Random,
    records: Vec<Record>,
    peer: Peer,
    config: Config,
}

fn options() -> Options {
    Options {
        ack_records_max: 9,
        segment_bytes_max: 128 << 10,
        batch_bytes_max: 64 << 10,
        waiting_bytes_max: 64 << 10,
        ..small()
    }
}

fn open(sim: &Sim) -> Spool {
    Spool::open_on(Disk::Sim(sim.clone()), Path::new("/spool"), options(), None).unwrap().0
}

/// A delivery to a sink of this configuration, which waits little between attempts.
fn delivery(config: &Config, spool: &Spool, cursor: Cursor) -> Delivery<AnySink> {
    Delivery {
        frame: Frame::open(config).unwrap(),
        cursor,
        dead_letters: spool.dead_letters().clone(),
        notify: Box::new(drop),
        damages: Arc::default(),
        backoff: Backoff::between(Duration::from_millis(1), Duration::from_millis(20)),
        hurry: CancellationToken::new(),
        clock: Clock::of(|| tests::NOW_US),
        stop: CancellationToken::new(),
    }
}

/// Waits for something that comes true; where it does not, the test ends all the same.
async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

async fn fill(spool: &Spool, records: &[Record]) {
    for part in records.chunks(10) {
        let mut batch = spool::Batch::new();
        part.iter().for_each(|record| batch.push(record.kind, &record.payload));
        spool.append(batch).await.unwrap();
    }
}

impl<'c> Trial<'c> {
    async fn new(case: &'c Case, seed: u64) -> Trial<'c> {
        let mut random = Random(seed);
        let records = (0..RECORDS).map(|number| {
            let mark = case.marks[random.below(8).min(case.marks.len() - 1)];
            Record::new(number, case.kinds, mark)
        });
        let records = records.collect();
        let faults = 4 + random.below(12);
        let (peer, config) = case.start(seed, faults).await;
        let name = format!("{}, seed {seed}", case.name);
        Trial { name, case, random, records, peer, config }
    }

    /// Delivers, dies some times under way, and delivers the rest; returns the dead letters.
    async fn run(&mut self) -> Vec<DeadLetter> {
        let mut sim = Sim::default();
        let mut spool = open(&sim);
        fill(&spool, &self.records).await;
        for _ in 0..self.random.below(3) {
            let goal = self.peer.requests() + 1 + self.random.below(10);
            let cursor = spool.cursor("lake", Start::Oldest).await.unwrap();
            let running = tokio::spawn(run(delivery(&self.config, &spool, cursor)));
            let is_done = || spool.cursors().iter().all(|(_, _, lag)| lag.records == 0);
            wait_for(|| self.peer.requests() >= goal || is_done()).await;
            running.abort();
            // It ends wherever it stands.
            let _ = running.await;
            // All of the process is gone, and so is what it had not synced.
            sim = sim.after_power_loss(Content::Synced, Names::Synced);
            spool.close().await.unwrap();
            spool = open(&sim);
        }
        let cursor = spool.cursor("lake", Start::Oldest).await.unwrap();
        let dead_letters = spool.dead_letters().clone();
        let running = tokio::spawn(run(delivery(&self.config, &spool, cursor)));
        spool.close().await.unwrap();
        running.await.unwrap().unwrap();
        let letters = dead_letters.read(0, 10_000).await.unwrap();
        letters.into_iter().map(|stored| stored.letter).collect()
    }

    /// Everything is over there or a dead letter, and nothing is both.
    fn check_whole(&self, stored: &[Stored], letters: &[DeadLetter]) {
        let Trial { name, case, records, .. } = self;
        let numbers = |is_poison: bool| {
            let found = records.iter().enumerate();
            let found = found.filter(move |(_, record)| record.is_poison == is_poison);
            found.map(|(number, _)| number).collect::<BTreeSet<usize>>()
        };
        let arrived: BTreeSet<usize> =
            stored.iter().flat_map(|one| one.tokens.iter().copied()).collect();
        assert_eq!(arrived, numbers(false), "{name}: what arrived");
        let mut dead = BTreeSet::new();
        for letter in letters {
            let (_, seq) = letter.position.split_once(':').unwrap();
            let number = seq.parse::<usize>().unwrap() - 1;
            dead.insert(number);
            assert_eq!(letter.bytes, records[number].bytes, "{name}: all of it");
            assert_eq!((letter.reason.as_str(), letter.source.as_str()), (case.reason, "lake"));
            assert!(letter.attempts > 0, "{name}");
        }
        assert_eq!(dead, numbers(true), "{name}: dead letters");
    }

    /// Copies can be told, and what came first came in order.
    fn check_copies(&self, stored: &[Stored]) {
        let Trial { name, case, records, .. } = self;
        let mut keys: BTreeMap<&str, &[usize]> = BTreeMap::new();
        let mut first = BTreeSet::new();
        for one in stored {
            if !one.key.is_empty() {
                let same = keys.entry(&one.key).or_insert(&one.tokens);
                assert_eq!(*same, one.tokens, "{name}: one key for two things");
            }
            for token in &one.tokens {
                let id = &records[*token].id;
                assert!(!case.has_ids || one.text.contains(id), "{name}: {id} in {}", one.text);
                let is_next = first.last().is_none_or(|last| last < token);
                assert!(is_next || first.contains(token) || !case.is_ordered, "{name}: {token}");
                first.insert(*token);
            }
        }
    }
}

/// Runs every seed of every case, all seeds of a case at a time.
async fn run_all(cases: Vec<Case>) {
    // RUST_LOG=debug shows what a sink thinks; once for all tests.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let seeds = std::env::var("KUBEWITNESS_FAULT_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |text| text.parse().expect("a number"));
    for case in cases {
        let case = Arc::new(case);
        let mut trials = JoinSet::new();
        for seed in 0..seeds {
            // No more at a time than a slow machine can bear.
            if trials.len() >= 16 {
                trials.join_next().await.unwrap().unwrap();
            }
            let case = Arc::clone(&case);
            trials.spawn(async move {
                let mut trial = Trial::new(&case, seed).await;
                let letters = trial.run().await;
                let stored = trial.peer.stored();
                trial.check_whole(&stored, &letters);
                trial.check_copies(&stored);
            });
        }
        while let Some(trial) = trials.join_next().await {
            trial.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_shapes_lose_nothing() {
    run_all(cases::http()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splunk_and_elasticsearch_lose_nothing() {
    run_all(cases::search()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_loses_nothing() {
    run_all(cases::kafka()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syslog_loses_nothing() {
    run_all(cases::syslog()).await;
}
