//! The log source against a disk of its own.

mod sim;
mod lumberjack;
mod bench;
mod cases;
