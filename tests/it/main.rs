//! The integration tests: one binary, one module a subject.

/// Files in every form: tests/corpus/ingest.
mod ingest;
/// A slow evaluator of conditions, straight from the specification.
mod reference;
/// Sigma's detections: every case of tests/cases/sigma.
mod sigma;
