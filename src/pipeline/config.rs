//! How the pipeline works, as the configuration says it.

use serde::{Deserialize, Serialize};

use crate::engine::correlate::Limits;
use crate::pipeline::detector::Memory;
use crate::pipeline::duplicates::Bounds;
use crate::pipeline::sequencer::SnapshotPolicy;
use crate::spool::Options;
use crate::units::{Size, Span};

/// How the pipeline works; every limit has a metric that says when it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Threads that decode, match and redact. Default: 0, one a core.
    pub threads: usize,
    /// Bytes of batches under way between the sources and the disk. Default: 8MiB.
    pub queue_bytes_max: Size,
    /// Events among which copies are found; at least half as many are remembered. Default: 900000.
    pub duplicates_max: usize,
    /// For how long copies are found; at least half as long. Default: 1h.
    pub duplicates_window: Span,
    /// Keys that a correlation keeps. Default: 20000.
    pub keys_max: usize,
    /// Terms and groups that a first-seen correlation keeps. Default: 200000.
    pub terms_max: usize,
    /// Matches that a window keeps. Default: 250.
    pub marks_max: usize,
    /// What windows and baselines take together, about. Default: 96MiB.
    pub state_bytes_max: Size,
    /// How much later than younger events an event may arrive and still be counted. Default: 2m.
    pub lateness: Span,
    /// The detector's state is stored at the latest after this time. Default: 1m.
    pub snapshot_interval: Span,
    /// The detector's state is stored at the latest after so much was appended. Default: 256MiB.
    pub snapshot_bytes: Size,
    /// On SIGTERM, so long is waited for the sinks to deliver what is there. Default: 25s.
    pub drain_max: Span,
}

impl Default for Config {
    fn default() -> Config {
        let limits = Limits::default();
        Config {
            threads: 0,
            queue_bytes_max: Size::mib(8),
            duplicates_max: 900_000,
            duplicates_window: Span::from_secs(3_600),
            keys_max: limits.keys_max,
            terms_max: limits.terms_max,
            marks_max: limits.marks_max,
            state_bytes_max: Size(limits.bytes_max as u64),
            lateness: Span::from_secs(120),
            snapshot_interval: Span::from_secs(60),
            snapshot_bytes: Size::mib(256),
            drain_max: Span::from_secs(25),
        }
    }
}

impl Config {
    /// Bounds of what is remembered.
    pub(crate) fn memory(&self) -> Memory {
        Memory {
            limits: Limits {
                keys_max: self.keys_max,
                terms_max: self.terms_max,
                marks_max: self.marks_max,
                bytes_max: usize::try_from(self.state_bytes_max.0).unwrap_or(usize::MAX),
                lateness_us: self.lateness.as_micros(),
            },
            bounds: Bounds {
                duplicates_max: self.duplicates_max,
                duplicates_window_us: self.duplicates_window.as_micros(),
            },
        }
    }

    /// When the state is stored.
    pub(crate) fn policy(&self, options: &Options) -> SnapshotPolicy {
        SnapshotPolicy {
            // Segments behind the elder of two snapshots are held back.
            bytes: self.snapshot_bytes.0.min(options.bytes_max / 8),
            interval_us: self.snapshot_interval.as_micros(),
        }
    }

    /// Worker threads.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { cores() } else { self.threads }
    }
}
