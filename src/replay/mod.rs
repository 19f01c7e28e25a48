//! Replay: finite input, as fast as the disk, to alerts in order of event time.
//!
//! ```text
//! files → chunks of whole records → workers: decode, match, describe   (parallel, any order)
//!       → collector: order of input, missing times filled in           (one at a time)
//!       → sorter: order of event time, on disk beyond its budget
//!       → duplicates dropped → stages folded, correlations fed → alerts   (three stages)
//! ```
//!
//! Nothing after the workers depends on their number, so neither do the alerts. Memory is bounded
//! by the chunks that are out and the sorter's budget, whatever the size of the input.

pub mod worker;
pub mod heads;
pub mod sorter;
pub mod collect;
pub mod analyse;
pub mod learn;

use std::sync::Arc;

use crate::alert::Alert;
use crate::alert::raise::Raiser;
use crate::engine::Engine;
use crate::engine::correlate::Limits;
use crate::ingest::chunk::Chunk;
use crate::ingest::discover::LogFile;
use crate::ingest::replay::{ChunkReader, SharedReader};
use crate::replay::analyse::analyse;
use crate::replay::collect::Collector;
use crate::replay::heads::HeadPlace;
use crate::replay::worker::Worker;
use crate::report::progress::Progress;
use crate::report::summary::Summary;

/// How a replay runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// The cluster's name; where absent, what the envelopes say.
    pub cluster: Option<String>,
    /// Only events from this time on are analysed.
    pub since: Option<Bound>,
    /// Only events before this time are analysed.
    pub until: Option<Bound>,
    /// Bounds of correlation state.
    pub limits: Limits,
    /// Secret of this run, for finding duplicates.
    pub seed: u64,
}

/// A limit of the time that is analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Microseconds since the epoch.
    At(i64),
    /// Microseconds before the newest event.
    BeforeNewest(i64),
}

/// What stops a replay; input that cannot be used does not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sorter's temporary files cannot be written or read.
    #[error("cannot use the temporary directory; set TMPDIR to one with space")]
    Spill(#[source] std::io::Error),
    /// The caller could not take an alert.
    #[error("cannot write alerts")]
    Write(#[source] std::io::Error),
}

/// Replays files; `raise` takes every alert in the order of event time. The returned summary counts
/// everything but the alerts, which the caller counts as it filters them.
///
/// # Errors
/// The temporary directory or `raise` failed.
pub fn run(
    engine: &Arc<Engine>,
    files: Vec<LogFile>,
    options: &Options,
    raiser: &mut Raiser<HeadPlace>,
    progress: &Progress,
    raise: &mut dyn FnMut(Alert) -> std::io::Result<()>,
) -> Result<Summary, Error> {
    let names: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    let mut summary = Summary {
        files: names.len() as u64,
        rules: engine.rules().rules.len() as u64,
        ..Summary::default()
    };
    let reader = SharedReader::new(ChunkReader::new(files));
    let collector = Collector::new(names.len(), options.threads);
    read(engine, &reader, &names, options, &collector, progress);
    summary.bytes_read = reader.bytes_read();
    let sorted = collector.finish(&mut summary)?;
    analyse(sorted, options, raiser, &mut summary, raise)?;
    for (rule, count) in raiser.matches() {
        summary.matches += count;
        summary.matches_by_rule.insert(rule.to_owned(), count);
    }
    let (correlations, requests) = raiser.evictions();
    for (name, count) in [("correlation_state", correlations), ("open_requests", requests)] {
        if count > 0 {
            summary.evictions.insert(name.to_owned(), count);
        }
    }
    Ok(summary)
}

/// Reads all input through the workers into the collector.
fn read(
    engine: &Arc<Engine>,
    reader: &SharedReader,
    names: &[String],
    options: &Options,
    collector: &Collector,
    progress: &Progress,
) {
    let work = || {
        let mut worker = Worker::new(engine, names, options.cluster.as_deref(), options.seed);
        let mut chunk = Chunk::new();
        while !collector.has_failed() && reader.next_chunk(&mut chunk) {
            let outcome = worker.take(&chunk, collector.spare());
            chunk.release();
            collector.take(outcome);
            progress.show(reader.bytes_read(), collector.events());
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
}
