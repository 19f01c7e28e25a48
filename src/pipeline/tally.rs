//! What is counted of a batch once it is durable.

use crate::event::reject::RejectReason;
use crate::pipeline::worker::Counts;
use crate::rule::Level;

/// Counts of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The batch's source.
    pub source: String,
    /// Events that are stored because of it.
    pub events: u64,
    /// Events that were stored before.
    pub duplicates: u64,
    /// What the workers counted.
    pub counts: Counts,
    /// Detections that matched, by level.
    pub matches: [u64; Level::ALL.len()],
    /// Alerts, by level.
    pub alerts: [u64; Level::ALL.len()],
    /// Notices, by kind.
    pub notices: Vec<&'static str>,
    /// State that had to be forgotten.
    pub evictions: [(&'static str, u64); 3],
}

impl Tally {
    /// Puts everything into the metrics.
    pub fn count(&self) {
        let source = || self.source.clone();
        let add = |name: &'static str, value: u64| {
            if value > 0 {
                metrics::counter!(name, "source" => source()).increment(value);
            }
        };
        add("kubewitness_pipeline_bytes_total", self.counts.bytes);
        add("kubewitness_pipeline_events_total", self.events);
        add("kubewitness_pipeline_duplicates_total", self.duplicates);
        add("kubewitness_pipeline_salvaged_total", self.counts.salvaged);
        add("kubewitness_pipeline_oversized_total", self.counts.oversized);
        add("kubewitness_pipeline_redactions_total", self.counts.redactions);
        for (reason, count) in RejectReason::ALL.iter().zip(self.counts.rejects) {
            if count > 0 {
                let labels = [("source", source()), ("reason", reason.name().to_owned())];
                metrics::counter!("kubewitness_pipeline_rejects_total", &labels).increment(count);
            }
        }
        for (level, (matches, alerts)) in
            Level::ALL.iter().zip(self.matches.iter().zip(self.alerts))
        {
            let level = level.as_str();
            if *matches > 0 {
                metrics::counter!("kubewitness_pipeline_matches_total", "level" => level)
                    .increment(*matches);
            }
            if alerts > 0 {
                metrics::counter!("kubewitness_pipeline_alerts_total", "level" => level)
                    .increment(alerts);
            }
        }
        for kind in &self.notices {
            metrics::counter!("kubewitness_pipeline_notices_total", "kind" => *kind).increment(1);
        }
        for (what, count) in self.evictions.iter().filter(|(_, count)| *count > 0) {
            metrics::counter!("kubewitness_pipeline_evictions_total", "state" => *what)
                .increment(*count);
        }
    }
}
