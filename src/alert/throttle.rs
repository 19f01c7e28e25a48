//! Hides repeats of an alert for a while and counts what it hid; never anywhere but in front of a
//! reader (design: throttling hides, never deletes).

use std::hash::{Hash as _, Hasher as _};

use rustc_hash::{FxHashMap, FxHasher};

use crate::alert::Alert;

/// For how long repeats of an alert are hidden, by event time: an hour.
pub const WINDOW_US: i64 = 3_600_000_000;

/// Repeats of so many different alerts are told apart; then the table starts afresh, which shows a
/// few repeats more.
pub const KEYS_MAX: usize = 100_000;

/// Remembers what was shown.
#[derive(Debug, Default)]
pub struct Throttle {
    shown: FxHashMap<u64, i64>,
    hidden: u64,
}

impl Throttle {
    /// Whether the alert is to be shown: the first of its rule, actor, resource, namespace and name
    /// within the window.
    pub fn shows(&mut self, alert: &Alert) -> bool {
        let time = alert.time.as_micros();
        let key = repeat_key(alert);
        if self.shown.get(&key).is_some_and(|shown| time - shown < WINDOW_US) {
            self.hidden += 1;
            return false;
        }
        if self.shown.len() >= KEYS_MAX {
            self.shown.clear();
        }
        self.shown.insert(key, time);
        true
    }

    /// How many alerts were hidden.
    pub fn hidden(&self) -> u64 {
        self.hidden
    }
}

/// What makes an alert a repeat of another.
fn repeat_key(alert: &Alert) -> u64 {
    let mut hasher = FxHasher::default();
    let request = &alert.request;
    let parts = [&request.resource, &request.subresource, &request.namespace, &request.name];
    (&alert.rule.id, &alert.cluster, &alert.actor.username, parts).hash(&mut hasher);
    hasher.finish()
}
