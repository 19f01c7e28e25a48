//! What a running instance stored of a probe's requests: an answer of its operator HTTP.
//!
//! `GET /probe?mark=<mark>` says where its spool ends, `GET /probe?mark=<mark>&after=<seq>` what
//! was stored behind it. Whoever asks knows the mark, which nobody can guess, and learns of the
//! requests that carried it and of nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::probe::trail::{Trace, note_alert, note_event};
use crate::record::{StoredEvent, kind};
use crate::spool::{self, Limits, Spool};

/// What every mark begins with.
pub const MARK: &str = "kubewitness-probe/";
/// A mark is a version and sixteen digits behind that.
const MARK_BYTES: std::ops::Range<usize> = 35..100;
/// So much is read for an answer; the next one goes on behind it.
const READ_BYTES_MAX: usize = 64 << 20;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The last record that was looked at.
    pub seq: u64,
    /// Of requests with the mark, by user agent.
    pub traces: BTreeMap<String, Trace>,
}

/// Whether this can be the mark of a probe.
pub fn is_mark(mark: &str) -> bool {
    mark.starts_with(MARK) && MARK_BYTES.contains(&mark.len())
}

/// Looks for a mark behind a record; without one, says which is the last.
///
/// # Errors
/// The spool cannot be read.
pub async fn seen(spool: &Spool, mark: &str, after: Option<u64>) -> Result<Seen, spool::Error> {
    let mut seen = Seen { seq: spool.stats().seq_durable, ..Seen::default() };
    let Some(after) = after.filter(|after| *after < seen.seq) else { return Ok(seen) };
    seen.seq = after;
    let kinds = Some(vec![kind::EVENT, kind::ALERT]);
    let limits = Limits { kinds, ..Limits::default() };
    let (mut reader, mut bytes) = (spool.reader(after + 1), 0);
    while bytes < READ_BYTES_MAX
        && let Some(records) = reader.try_read(&limits).await?
    {
        for record in records.iter() {
            bytes += record.payload.len();
            match record.kind {
                kind::EVENT => {
                    let event = StoredEvent::decode(record.payload);
                    let raw = event.map_or(&[][..], |event| event.raw);
                    note_event(mark, raw, &mut seen.traces);
                }
                _ => note_alert(mark, record.payload, &mut seen.traces),
            }
        }
        seen.seq = records.seq_last;
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_mark_is_one() {
        for (mark, expected) in [
            ("kubewitness-probe/0.1.0 0123456789abcdef", true),
            ("kubewitness-probe/0.1.0 ", false),
            ("kubewitness-probe/", false),
            ("curl/8.0 0123456789abcdef0123456789abcdef", false),
            (&format!("kubewitness-probe/{}", "x".repeat(100)), false),
        ] {
            assert_eq!(is_mark(mark), expected, "{mark}");
        }
    }
}
