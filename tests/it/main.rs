//! The integration tests: one binary, one module a subject.

/// A slow evaluator of conditions, straight from the specification.
mod reference;
/// The recorded sample through the built binary: what is found, and the exit codes.
mod sample;
/// Sigma's detections: every case of tests/cases/sigma.
mod sigma;
