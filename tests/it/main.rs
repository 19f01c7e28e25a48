//! The integration tests: one binary, one module a subject.

/// A slow evaluator of conditions, straight from the specification.
mod reference;
/// Sigma's detections: every case of tests/cases/sigma.
mod sigma;
/// The spool in a process that is killed again and again.
mod spool_kill;
