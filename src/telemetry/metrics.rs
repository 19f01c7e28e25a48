//! Every metric that this binary emits, declared once: name, kind, unit, labels, help.
//!
//! Modules count with the macros of the `metrics` crate and literal names. A test finds every name
//! in the sources here, and every row in the sources. Labels come from closed sets: sources, sinks,
//! rules, reasons; never a user, a namespace or an address.

use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution in buckets.
    Histogram,
}

impl Kind {
    /// The word that Prometheus' text format has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// `kubewitness_<module>_<noun>_<unit>`, `_total` behind it for counters.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for the operator.
    pub help: &'static str,
}

/// Upper bounds of the buckets of every histogram of seconds.
const BUCKETS_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Seconds, labels, help }
}

/// The table, in the order of the names.
pub const METRICS: &[Metric] = &[
    gauge(
        "kubewitness_archive_committed_timestamp_seconds",
        Unit::Seconds,
        &["sink"],
        "When the archive's last record was committed, since the epoch.",
    ),
    gauge(
        "kubewitness_archive_cosignatures",
        Unit::Count,
        &["sink"],
        "Witnesses that cosigned the checkpoint that was published last.",
    ),
    counter(
        "kubewitness_archive_line_bytes_total",
        &["sink"],
        "Bytes of archived records before compression.",
    ),
    gauge(
        "kubewitness_archive_lock_days",
        Unit::Count,
        &["sink"],
        "Days for which the store locks what it is given, when it was asked last.",
    ),
    gauge(
        "kubewitness_archive_lock_ok",
        Unit::Count,
        &["sink"],
        "1 when the store locked as configured when it was asked last.",
    ),
    gauge("kubewitness_archive_records", Unit::Count, &["sink"], "Records of the archive's log."),
    counter("kubewitness_archive_segments_total", &["sink"], "Segments committed."),
    counter(
        "kubewitness_archive_stored_bytes_total",
        &["sink"],
        "Bytes of segments as they are stored.",
    ),
    counter(
        "kubewitness_archive_witness_refusals_total",
        &["sink", "witness", "reason"],
        "Checkpoints that a witness did not cosign; rollback and fork are alarms.",
    ),
    gauge(
        "kubewitness_archive_witnessed_records",
        Unit::Count,
        &["sink"],
        "Records of the newest checkpoint that enough witnesses cosigned.",
    ),
    gauge("kubewitness_build_info", Unit::Count, &["version"], "Always 1; says what runs."),
    gauge(
        "kubewitness_dead_letter_bytes",
        Unit::Bytes,
        &[],
        "Bytes of the files that hold dead letters.",
    ),
    gauge("kubewitness_dead_letters", Unit::Count, &[], "Dead letters that are kept."),
    gauge(
        "kubewitness_ingest_queue_bytes",
        Unit::Bytes,
        &[],
        "Bytes of batches between the sources and the spool.",
    ),
    gauge("kubewitness_log_files", Unit::Count, &["source"], "Files that are known of a log."),
    counter(
        "kubewitness_log_gaps_total",
        &["source"],
        "Files of a log that were gone before they were read to their end.",
    ),
    counter(
        "kubewitness_log_hole_bytes_total",
        &["source"],
        "Bytes of holes and NULs in a log that were passed over.",
    ),
    gauge(
        "kubewitness_log_loss_seconds",
        Unit::Seconds,
        &["source"],
        "Estimated time until rotation deletes what is not read yet; infinite while nothing grows.",
    ),
    counter(
        "kubewitness_log_notices_total",
        &["source", "kind"],
        "What a log source noticed about its files.",
    ),
    counter(
        "kubewitness_log_read_bytes_total",
        &["source"],
        "Bytes read from a log, decompressed; what is read again counts again.",
    ),
    counter(
        "kubewitness_log_read_failures_total",
        &["source"],
        "Files and directories of a log that could not be opened or read; each is tried again.",
    ),
    counter(
        "kubewitness_log_refusals_total",
        &["source"],
        "Times that the spool was full and a log was read again from what is durable.",
    ),
    counter("kubewitness_log_rotations_total", &["source"], "Rotations of a log that were seen."),
    counter(
        "kubewitness_log_truncations_total",
        &["source"],
        "Files of a log that became shorter, or were written anew.",
    ),
    gauge(
        "kubewitness_log_unread_bytes",
        Unit::Bytes,
        &["source"],
        "Bytes of a log that are on disk and not read yet; of compressed files, theirs.",
    ),
    counter(
        "kubewitness_pipeline_alerts_total",
        &["level"],
        "Alerts raised, before any throttling.",
    ),
    counter("kubewitness_pipeline_bytes_total", &["source"], "Bytes that sources handed over."),
    counter(
        "kubewitness_pipeline_dead_letters_lost_total",
        &[],
        "Rejected input that could not be kept: the dead letters are full.",
    ),
    counter(
        "kubewitness_pipeline_duplicates_total",
        &["source"],
        "Events that were stored before.",
    ),
    counter("kubewitness_pipeline_events_total", &["source"], "Events that became durable."),
    counter(
        "kubewitness_pipeline_evictions_total",
        &["state"],
        "What was forgotten before its time because a limit was reached.",
    ),
    counter("kubewitness_pipeline_matches_total", &["level"], "Events that a rule matched."),
    counter(
        "kubewitness_pipeline_notices_total",
        &["kind"],
        "What was wrong with the audit trail itself.",
    ),
    counter(
        "kubewitness_pipeline_oversized_total",
        &["source"],
        "Events that do not fit into one append.",
    ),
    counter(
        "kubewitness_pipeline_redactions_total",
        &["source"],
        "Values replaced before they became durable.",
    ),
    counter(
        "kubewitness_pipeline_refused_total",
        &["source", "reason"],
        "Batches that were not stored; the source sends them again.",
    ),
    counter(
        "kubewitness_pipeline_rejects_total",
        &["source", "reason"],
        "Input that is no audit event.",
    ),
    counter(
        "kubewitness_pipeline_salvaged_total",
        &["source"],
        "Events that were cut, and used as far as they go.",
    ),
    gauge(
        "kubewitness_pipeline_snapshot_bytes",
        Unit::Bytes,
        &[],
        "The detector's state as it was stored last.",
    ),
    counter(
        "kubewitness_pipeline_snapshot_failures_total",
        &[],
        "Times that the detector's state could not be stored.",
    ),
    counter(
        "kubewitness_pipeline_state_restarts_total",
        &[],
        "Rules that keep state and began anew, because they changed.",
    ),
    gauge("kubewitness_rules", Unit::Count, &[], "Rules that judge."),
    counter("kubewitness_rules_reloads_total", &["result"], "Times that rules were loaded again."),
    gauge(
        "kubewitness_sink_best_effort",
        Unit::Count,
        &["sink"],
        "1 where the far side confirms what it may still lose (Splunk without acks).",
    ),
    gauge(
        "kubewitness_sink_blocked",
        Unit::Count,
        &["sink"],
        "1 while a sink delivers nothing until a person acts.",
    ),
    counter(
        "kubewitness_sink_dead_letters_lost_total",
        &["sink"],
        "Refused records that could not be kept: the dead letters are full.",
    ),
    gauge("kubewitness_sink_failing", Unit::Count, &["sink"], "1 while a sink tries again."),
    gauge(
        "kubewitness_sink_lag_seconds",
        Unit::Seconds,
        &["sink"],
        "Age of what the sink accepted last.",
    ),
    counter(
        "kubewitness_sink_missing_records_total",
        &["sink"],
        "Records that were deleted or damaged before the sink had them.",
    ),
    counter(
        "kubewitness_sink_pointers_total",
        &[],
        "Records too large for the far side, in place of which a pointer was sent.",
    ),
    counter(
        "kubewitness_sink_rejected_total",
        &["sink", "reason"],
        "Records that a sink gave up for good; each is a dead letter.",
    ),
    counter(
        "kubewitness_sink_retries_total",
        &["sink", "outcome"],
        "Batches that were not taken, by what is done next.",
    ),
    histogram(
        "kubewitness_sink_send_seconds",
        &["sink"],
        "Time that the far side took for a batch.",
    ),
    counter(
        "kubewitness_sink_sent_bytes_total",
        &["sink"],
        "Bytes that the far side accepted, as stored.",
    ),
    counter(
        "kubewitness_sink_sent_total",
        &["sink", "kind"],
        "Records that the far side accepted.",
    ),
    counter(
        "kubewitness_sink_splits_total",
        &["sink"],
        "Batches that were halved: too large, or with an item that is refused.",
    ),
    counter(
        "kubewitness_sink_throttled_total",
        &["sink"],
        "Repeats of alerts that were hidden from the sink.",
    ),
    counter(
        "kubewitness_spool_appended_bytes_total",
        &[],
        "Bytes appended to the spool, frame headers included.",
    ),
    counter(
        "kubewitness_spool_appends_refused_total",
        &[],
        "Batches that the spool answered with an error.",
    ),
    gauge("kubewitness_spool_bytes", Unit::Bytes, &[], "Bytes of all segments of the spool."),
    gauge(
        "kubewitness_spool_bytes_max",
        Unit::Bytes,
        &[],
        "The configured limit, spool.bytes_max.",
    ),
    gauge(
        "kubewitness_spool_cursor_lag_bytes",
        Unit::Bytes,
        &["cursor"],
        "Bytes that a sink has not accepted yet, roughly.",
    ),
    gauge(
        "kubewitness_spool_cursor_lag_records",
        Unit::Count,
        &["cursor"],
        "Records that a sink has not accepted yet.",
    ),
    counter("kubewitness_spool_damages_total", &[], "Places of the spool that cannot be read."),
    counter("kubewitness_spool_records_total", &[], "Records appended to the spool."),
    gauge("kubewitness_spool_segments", Unit::Count, &[], "Segments of the spool."),
    counter("kubewitness_spool_syncs_total", &[], "Groups of batches made durable at once."),
    gauge(
        "kubewitness_spool_waiting_bytes",
        Unit::Bytes,
        &[],
        "Bytes of batches that wait for the disk.",
    ),
    gauge("kubewitness_webhook_connections", Unit::Count, &["source"], "Open connections."),
    counter(
        "kubewitness_webhook_connections_closed_total",
        &["source", "reason"],
        "Connections closed by a time limit.",
    ),
    counter(
        "kubewitness_webhook_connections_rejected_total",
        &["source", "reason"],
        "Connections beyond a limit.",
    ),
    counter(
        "kubewitness_webhook_denied_total",
        &["source", "reason"],
        "Requests of callers that may not post here.",
    ),
    counter(
        "kubewitness_webhook_handshakes_rejected_total",
        &["source", "reason"],
        "TLS handshakes that failed.",
    ),
    counter(
        "kubewitness_webhook_received_bytes_total",
        &["source"],
        "Bytes of bodies, decompressed.",
    ),
    counter(
        "kubewitness_webhook_refused_total",
        &["source", "reason"],
        "Requests that were answered with an error, by cause.",
    ),
    counter(
        "kubewitness_webhook_reloads_total",
        &["source", "result"],
        "Times that certificates or tokens were read again.",
    ),
    histogram(
        "kubewitness_webhook_request_seconds",
        &["source"],
        "Time from a request to its answer.",
    ),
    counter(
        "kubewitness_webhook_requests_total",
        &["source", "path", "status"],
        "Requests by class of status.",
    ),
    gauge(
        "kubewitness_webhook_silent_clusters",
        Unit::Count,
        &["source"],
        "Clusters that nothing arrived from for longer than configured.",
    ),
];

/// Installs the process's recorder, with every metric described.
///
/// # Errors
/// Another recorder is installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_SECONDS)
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    metrics::gauge!("kubewitness_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_and_stand_in_order() {
        assert!(METRICS.is_sorted_by(|left, right| left.name < right.name), "order of names");
        for metric in METRICS {
            let name = metric.name;
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(name.starts_with("kubewitness_") && name.bytes().all(is_plain), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.'), "{name}: {}", metric.help);
        }
    }
}
