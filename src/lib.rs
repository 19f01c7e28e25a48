#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod units;
pub mod telemetry;
pub mod secret;
pub mod tls;
pub mod kafka;
pub mod event;
pub mod ingest;
pub mod rule;
pub mod engine;
pub mod alert;
pub mod spool;
pub mod record;
pub mod archive;
pub mod sinks;
pub mod cases;
pub mod coverage;
pub mod report;
pub mod replay;
pub mod pipeline;
pub mod config;
pub mod probe;
pub mod admin;
pub mod certs;
pub mod cli;

/// The system's allocator keeps what many threads have freed; this one gives it back, in a thread
/// of its own. It stands here so that tests and benchmarks run on what the binary runs on.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
