#![doc = include_str!("../ARCHITECTURE.md")]

pub mod clock;
pub mod event;
pub mod rule;
pub mod engine;
pub mod alert;
pub mod report;
