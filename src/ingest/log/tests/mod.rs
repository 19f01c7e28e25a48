//! The log source against a disk of its own.

pub(crate) mod sim;
mod lumberjack;
mod bench;
mod cases;
mod random;
mod system;
