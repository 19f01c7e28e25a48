//! What a look at the files brings up beside records: notices, keys to forget, counts.

use crate::ingest::batch::{Notice, NoticeKind};

/// How many names of files a notice spells out.
const NAMES_MAX: usize = 50;

/// Collected until the next batch takes it along.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// To be told.
    pub(crate) notices: Vec<Notice>,
    /// Keys of checkpoints to forget.
    pub(crate) forgotten: Vec<String>,
    /// The number that the next new file gets.
    pub(crate) next_id: u64,
    /// The wall clock, microseconds since the epoch.
    pub(crate) now_us: i64,
    /// The source, as a label of metrics.
    pub(crate) source: String,
}

impl Findings {
    /// A number for a new file.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Notes what is to be told, and counts it.
    pub(crate) fn notice(
        &mut self,
        kind: NoticeKind,
        subject: &str,
        lost_bytes: Option<u64>,
        text: String,
    ) {
        let source = self.source.clone();
        metrics::counter!(
            "kubewitness_log_notices_total", "source" => source, "kind" => kind.as_str()
        )
        .increment(1);
        tracing::warn!(kind = kind.as_str(), subject, lost_bytes, "{text}");
        let subject = subject.to_owned();
        self.notices.push(Notice { kind, at_us: self.now_us, text, subject, lost_bytes });
    }
}

/// Counts of what happened to files.
impl Findings {
    /// Something could not be opened or read.
    pub(crate) fn failure(&self) {
        metrics::counter!("kubewitness_log_read_failures_total", "source" => self.source.clone())
            .increment(1);
    }

    /// The file being written was renamed, or copied and truncated.
    pub(crate) fn rotation(&self) {
        metrics::counter!("kubewitness_log_rotations_total", "source" => self.source.clone())
            .increment(1);
    }

    /// A file became shorter, or other contents took its place.
    pub(crate) fn truncation(&self) {
        metrics::counter!("kubewitness_log_truncations_total", "source" => self.source.clone())
            .increment(1);
    }

    /// A file is gone that was not read to its end.
    pub(crate) fn gap(&self) {
        metrics::counter!("kubewitness_log_gaps_total", "source" => self.source.clone())
            .increment(1);
    }

    /// Records were read.
    pub(crate) fn bytes(&self, read: u64, nuls: u64) {
        metrics::counter!("kubewitness_log_read_bytes_total", "source" => self.source.clone())
            .increment(read);
        metrics::counter!("kubewitness_log_hole_bytes_total", "source" => self.source.clone())
            .increment(nuls);
    }
}

/// The names, or the first and the last of them when they are very many.
pub(crate) fn spelled(names: &[String]) -> String {
    match names {
        [first @ .., last] if first.len() > NAMES_MAX => {
            let more = first.len() - NAMES_MAX;
            format!("{} and {more} more up to {last}", first[..NAMES_MAX].join(", "))
        }
        names => names.join(", "),
    }
}
