//! Millions of users, each seen a few times and never again: what the state of correlations and
//! baselines grows to. Every event is one that many stateful rules count.
//!
//! Ten million (`KUBEWITNESS_SOAK_USERS=10000000 cargo bench --bench soak`) take some forty
//! minutes. They come out of a generator through the reader that standard input has, a part at a
//! time, and all parts meet the same state.

mod replaying;
mod ruleset;

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use kubewitness::alert::raise::Raiser;
use kubewitness::alert::time::EventTime;
use kubewitness::clock::Stopwatch;
use kubewitness::engine::correlate::Limits;
use kubewitness::ingest::InputFormat;
use kubewitness::ingest::discover::discover;
use kubewitness::replay::{Options, run};
use kubewitness::report::progress::Progress;

use crate::replaying::peak_bytes;

/// Where the environment says nothing.
const USERS: u64 = 200_000;

/// What the sorter has on the disk at a time.
const PART: u64 = 20_000;

/// What every user does: refused, then let in.
const ACTS: [(&str, &str, &str, u16); 3] = [
    ("list", "/api/v1/secrets", "", 403),
    ("get", "/api/v1/namespaces/pay/secrets/db", r#""namespace":"pay","name":"db","#, 403),
    ("get", "/api/v1/namespaces/pay/secrets/db", r#""namespace":"pay","name":"db","#, 200),
];

/// 2026-11-22T00:00:00Z.
const START_US: i64 = 1_795_305_600_000_000;
const EVENT_EVERY_US: i64 = 1_000;

/// The lines of users, made as they are read.
struct Users {
    next: u64,
    end: u64,
    lines: String,
    read: usize,
}

impl Users {
    fn make(&mut self) {
        self.lines.clear();
        self.read = 0;
        let user = self.next;
        self.next += 1;
        for (number, (verb, uri, object, code)) in ACTS.iter().enumerate() {
            let event = user * ACTS.len() as u64 + number as u64;
            let time = EventTime(START_US + event as i64 * EVENT_EVERY_US);
            writeln!(
                self.lines,
                r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{event:08x}-0000-4000-8000-{event:012x}","stage":"ResponseComplete","requestURI":"{uri}","verb":"{verb}","user":{{"username":"user-{user}@corp.example","groups":["system:authenticated"]}},"sourceIPs":["10.{}.{}.{}"],"userAgent":"agent-{user}/1.0","objectRef":{{"resource":"secrets",{object}"apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":{code}}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}","annotations":{{"authorization.k8s.io/decision":"{}"}}}}"#,
                user >> 16 & 255,
                user >> 8 & 255,
                user & 255,
                if *code == 200 { "allow" } else { "forbid" },
            )
            .expect("a string takes everything");
        }
    }
}

impl Read for Users {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.lines.len() {
            if self.next == self.end {
                return Ok(0);
            }
            self.make();
        }
        let left = &self.lines.as_bytes()[self.read..];
        let length = left.len().min(into.len());
        into[..length].copy_from_slice(&left[..length]);
        self.read += length;
        Ok(length)
    }
}

fn main() {
    let wanted = std::env::var("KUBEWITNESS_SOAK_USERS").ok();
    let most = wanted.and_then(|text| text.parse().ok()).unwrap_or(USERS);
    let engine = ruleset::compile(ruleset::shipped_rules());
    println!("limits {:?}", Limits::default());
    println!(
        "{:>12}{:>12}{:>12}{:>14}{:>10}{:>9}",
        "users", "events", "alerts", "evictions", "peak MB", "wall s"
    );
    let mut raiser = Raiser::new(Arc::clone(&engine), Limits::default());
    let (mut events, mut alerts) = (0, 0u64);
    let clock = Stopwatch::start();
    for from in (0..most).step_by(PART as usize) {
        let users = most.min(from + PART);
        let mut lines = Some(Users { next: from, end: users, lines: String::new(), read: 0 });
        let stdin = move || Box::new(lines.take().expect("asked once")) as Box<dyn Read + Send>;
        let found = discover(&["-".into()], InputFormat::Auto, stdin).expect("audit logs");
        let options = Options { threads: 2, ..Options::default() };
        let count = &mut |_| {
            alerts += 1;
            Ok(())
        };
        let progress = Progress::start(None);
        let summary = run(&engine, found.files, &options, &mut raiser, &progress, count)
            .expect("the temporary directory can be used");
        events += summary.events;
        let evictions = summary.evictions.values().sum::<u64>();
        assert_eq!(events, users * ACTS.len() as u64, "every event is analysed");
        if users.is_multiple_of((most / 10).max(1)) || users == most {
            let (peak, wall) = (peak_bytes() as f64 / 1e6, clock.elapsed().as_secs_f64());
            println!("{users:>12}{events:>12}{alerts:>12}{evictions:>14}{peak:>10.0}{wall:>9.0}");
        }
    }
}
