//! How far reading is behind, and for how long that is harmless.
//!
//! ```text
//! seconds until loss = ((backups + 1) · bytes of a file − unread bytes) / bytes written a second
//! ```
//! `backups` and `bytes of a file` are the most that were seen of either, so the figure is too low
//! rather than too high while a log has not reached its limits; the rate is a moving average over
//! about a minute. The oldest unread byte is deleted once the writer has filled the space that
//! rotation leaves; that it is deleted at all is assumed. Without writing the figure is infinite.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ingest::log::family::Family;
use crate::ingest::log::name::Rank;

const EVERY: Duration = Duration::from_secs(1);
const AVERAGED_SECONDS: f64 = 60.0;

/// What is known of growth, by log.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    updated_at: Option<Duration>,
    growth: BTreeMap<PathBuf, Growth>,
}

#[derive(Debug, Default)]
struct Growth {
    /// The file that was being written, and its size.
    last: Option<(u64, u64)>,
    bytes_per_second: f64,
}

impl Gauges {
    /// Sets the gauges of a source, once a second.
    pub(crate) fn update(
        &mut self,
        source: &Arc<str>,
        families: &BTreeMap<PathBuf, Family>,
        now: Duration,
    ) {
        let Some(since) = self.updated_at.map(|at| now.saturating_sub(at)) else {
            self.updated_at = Some(now);
            return;
        };
        if since < EVERY {
            return;
        }
        self.updated_at = Some(now);
        self.growth.retain(|path, _| families.contains_key(path));
        let (mut unread, mut files, mut seconds) = (0, 0, f64::INFINITY);
        for (path, family) in families {
            let behind = family.segments.iter().map(|segment| segment.unread_bytes()).sum();
            unread += behind;
            files += family.segments.len();
            let growth = self.growth.entry(path.clone()).or_default();
            growth.observe(family, since);
            seconds = seconds.min(seconds_until_loss(family, behind, growth.bytes_per_second));
        }
        let source = || source.to_string();
        metrics::gauge!("kubewitness_log_unread_bytes", "source" => source()).set(unread as f64);
        metrics::gauge!("kubewitness_log_files", "source" => source()).set(files as f64);
        metrics::gauge!("kubewitness_log_loss_seconds", "source" => source()).set(seconds);
    }
}

impl Growth {
    fn observe(&mut self, family: &Family, since: Duration) {
        let live = family.segments.iter().rfind(|segment| segment.rank == Rank::Live);
        let now = live.map(|live| (live.id, live.stat.size));
        let grown = match (self.last, now) {
            (Some((before, size)), Some((id, now))) if before == id => now.saturating_sub(size),
            (Some(_), Some((_, size))) => size,
            _ => 0,
        };
        self.last = now;
        let seconds = since.as_secs_f64();
        let share = (seconds / AVERAGED_SECONDS).min(1.0);
        self.bytes_per_second += share * (grown as f64 / seconds - self.bytes_per_second);
    }
}

/// See the formula above.
fn seconds_until_loss(family: &Family, unread: u64, bytes_per_second: f64) -> f64 {
    // Less than a byte a minute is no writing.
    if bytes_per_second * AVERAGED_SECONDS < 1.0 || family.backups_max == 0 {
        return f64::INFINITY;
    }
    let room = (family.backups_max as f64 + 1.0) * family.file_bytes_max as f64;
    (room - unread as f64).max(0.0) / bytes_per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_when_rotation_overtakes_reading() {
        let mut family = Family::new(PathBuf::from("/l/audit.log"), true);
        family.backups_max = 9;
        family.file_bytes_max = 1_000;
        for (unread, rate, expected) in
            [(0, 100.0, 100.0), (9_000, 100.0, 10.0), (20_000, 100.0, 0.0), (0, 0.0, f64::INFINITY)]
        {
            assert_eq!(seconds_until_loss(&family, unread, rate), expected);
        }
        family.backups_max = 0;
        assert_eq!(seconds_until_loss(&family, 0, 100.0), f64::INFINITY);
    }
}
