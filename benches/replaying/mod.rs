//! A replay end to end, its alerts counted and thrown away.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cpu_time::{ProcessTime, ThreadTime};
use kubewitness::alert::raise::Raiser;
use kubewitness::clock::Stopwatch;
use kubewitness::engine::Engine;
use kubewitness::engine::correlate::Limits;
use kubewitness::ingest::InputFormat;
use kubewitness::ingest::discover::discover;
use kubewitness::replay::{Options, run};
use kubewitness::report::progress::Progress;

/// What a replay found and took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replayed {
    /// Events analysed.
    pub events: u64,
    /// Detections that matched, all events together.
    pub matches: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Time on the wall.
    pub wall: Duration,
    /// CPU time behind the first alert: what one thread does alone once all input is read.
    pub alone: Duration,
}

/// Replays a file on so many threads.
pub fn replay(engine: &Arc<Engine>, path: &Path, threads: usize) -> Replayed {
    let clock = Stopwatch::start();
    let started = ProcessTime::now();
    let stdin = || Box::new(std::io::empty()) as Box<dyn std::io::Read + Send>;
    let found = discover(&[path.to_owned()], InputFormat::Auto, stdin).expect("audit logs");
    let options = Options { threads, ..Options::default() };
    let mut raiser = Raiser::new(Arc::clone(engine), Limits::default());
    let mut alerts = 0;
    let mut first_alert = None;
    let summary =
        run(engine, found.files, &options, &mut raiser, &Progress::start(None), &mut |_| {
            first_alert.get_or_insert_with(ThreadTime::now);
            alerts += 1;
            Ok(())
        })
        .expect("the temporary directory can be used");
    Replayed {
        events: summary.events,
        matches: summary.matches,
        alerts,
        cpu: started.elapsed(),
        wall: clock.elapsed(),
        alone: first_alert.map_or(Duration::ZERO, |first| first.elapsed()),
    }
}

/// The most memory that this process has had resident; 0 where /proc does not tell.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
