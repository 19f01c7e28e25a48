//! The integration tests: one binary, one module a subject.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

/// `kubewitness run` with an archive and a witness.
mod archive;
/// A client that behaves as kube-apiserver's webhook backend.
mod apiserver;
/// Files in every form: tests/corpus/ingest.
mod ingest;
/// What `kubewitness check` says of sinks.
mod check;
/// The coverage page and the rows of the coverage table.
mod coverage;
/// The compiled engine against trying every shipped rule.
mod shipped;
/// `kubewitness run` as a process: a log and a webhook in, files out.
mod run;
/// A running instance that may open no more files.
mod starved;
/// The table of metrics against the sources.
mod metrics;
/// `kubewitness probe` against a server that answers and logs as an API server does.
mod probe;
/// A slow evaluator of conditions, straight from the specification.
mod reference;
/// Secrets planted everywhere, and all that leaves a running instance.
mod leaks;
/// Dead letters of sinks, sent once more.
mod redrive;
/// Secrets planted in events: tests/corpus/redaction.
mod redaction;
/// The recorded sample through the built binary: what is found, and the exit codes.
mod sample;
/// Sigma's detections: every case of tests/cases/sigma.
mod sigma;
/// The spool in a process that is killed again and again.
mod spool_kill;
/// `kubewitness run`, killed again and again under load.
mod live_kill;
/// The engine against the reference, on generated rules and events.
mod equivalence;
/// What is known to go wrong, and where it is tested.
mod nasty;
/// A real API server with both audit backends, where one is named.
mod kube_apiserver;
/// The Kafka sink and source against Apache Kafka, where one is named.
mod kafka;
/// The Elasticsearch sink against OpenSearch, where one is named.
mod opensearch;
/// Sinks against real servers, where they are named.
mod servers;
/// Documents of Sigma: what they become, and why they are refused.
mod rules;
/// The webhook source on real sockets.
mod webhook;
