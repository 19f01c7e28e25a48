#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod event;
pub mod rule;
pub mod spool;
