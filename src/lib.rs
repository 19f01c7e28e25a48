#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod event;
pub mod ingest;
pub mod rule;
pub mod engine;
pub mod alert;
pub mod spool;
pub mod record;
pub mod archive;
pub mod cases;
pub mod coverage;
pub mod report;
pub mod replay;
pub mod cli;
