//! The graph, built back to front: sources → `analyze` → spool → `deliver` → sinks.
//!
//! ```text
//! Intake ─► analyze ─► worker 1 … n      decode, match, redact, pack       (parallel)
//!              │           │
//!              └─ tickets ─┴► sequencer  duplicates, detector, records      (in order)
//!                               │
//!                               ├─► spool's writer: one sync for all that waits
//!                               └─► settle: durable? then answer the source
//!
//! spool ─► cursor ─► deliver ─► sink                                        (one task a sink)
//! ```
//! Acknowledgement has two places: `settle` answers sources, `deliver` moves cursors.

pub mod duplicates;
pub mod letter;
pub mod notice;
pub mod reuse;
pub mod heads;
pub mod detector;
pub mod worker;
pub mod tally;
pub mod assembly;
pub mod settle;
pub mod sequencer;
pub mod recover;
pub mod config;
pub mod analyze;
pub mod backoff;
pub mod deliver;
pub mod health;
pub mod graph;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::pipeline::notice::Notice;
use crate::spool;

/// The name of the detector's snapshot in the spool.
pub const STATE: &str = "state";

/// How often the ordered part turns when nothing comes.
pub const TICK: Duration = Duration::from_secs(1);

/// What is asked of the running pipeline, beside batches.
pub enum Order {
    /// Let these rules judge what follows.
    Rules(Arc<Engine>),
    /// Record what is wrong with the audit trail.
    Notice(Notice),
}

/// The time of day; a test has its own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn real() -> Clock {
        Clock(Arc::new(crate::clock::now_us))
    }

    /// One that says what it is told, in microseconds since the epoch.
    pub fn of(now_us: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now_us))
    }

    /// Microseconds since the epoch.
    pub fn now_us(&self) -> i64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now_us())
    }
}

/// Why the pipeline ended; the process exits and starts again.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The spool cannot be read or written.
    #[error("the spool failed; the process must start again")]
    Spool(#[source] spool::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// A worker ended without an answer.
    #[error("a worker ended")]
    Worker,
}
