#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod units;
pub mod telemetry;
pub mod event;
pub mod ingest;
pub mod rule;
pub mod engine;
pub mod alert;
pub mod spool;
pub mod record;
pub mod sinks;
pub mod cases;
pub mod coverage;
pub mod report;
pub mod replay;
pub mod cli;
