//! Hides repeats of an alert for a while and counts what it hid; never anywhere but in front of a
//! reader (design: throttling hides, never deletes).

use std::hash::{Hash as _, Hasher as _};

use rustc_hash::{FxHashMap, FxHasher};
use serde::{Deserialize, Serialize};

use crate::alert::Alert;

/// For how long repeats of an alert are hidden, by event time: an hour.
pub const WINDOW_US: i64 = 3_600_000_000;

/// Repeats of so many different alerts are told apart; then the table starts afresh, which shows a
/// few repeats more.
pub const KEYS_MAX: usize = 100_000;

/// What repeats of an alert may have in common, the cluster aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The rule.
    Rule,
    /// The authenticated name.
    Actor,
    /// The kind of object, its subresource included.
    Resource,
    /// The object's namespace.
    Namespace,
    /// The object's name.
    Name,
    /// The verb.
    Verb,
    /// The address that can be trusted.
    SourceIp,
}

impl Part {
    /// What makes a repeat where nothing else is said.
    pub const DEFAULT: [Part; 5] =
        [Part::Rule, Part::Actor, Part::Resource, Part::Namespace, Part::Name];
}

/// Remembers what was shown.
#[derive(Debug)]
pub struct Throttle {
    window_us: i64,
    by: Vec<Part>,
    shown: FxHashMap<u64, i64>,
    hidden: u64,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle::new(WINDOW_US, &Part::DEFAULT)
    }
}

impl Throttle {
    /// A throttle that has shown nothing: repeats are equal in `by`, and hidden for `window_us`
    /// microseconds of event time.
    pub fn new(window_us: i64, by: &[Part]) -> Throttle {
        Throttle { window_us, by: by.to_vec(), shown: FxHashMap::default(), hidden: 0 }
    }

    /// Whether the alert is to be shown: the first of its kind within the window.
    pub fn shows(&mut self, alert: &Alert) -> bool {
        let time = alert.time.as_micros();
        let key = repeat_key(alert, &self.by);
        if self.shown.get(&key).is_some_and(|shown| time - shown < self.window_us) {
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
fn repeat_key(alert: &Alert, by: &[Part]) -> u64 {
    let mut hasher = FxHasher::default();
    let (actor, request) = (&alert.actor, &alert.request);
    alert.cluster.hash(&mut hasher);
    for part in by {
        match part {
            Part::Rule => alert.rule.id.hash(&mut hasher),
            Part::Actor => actor.username.hash(&mut hasher),
            Part::Resource => (&request.resource, &request.subresource).hash(&mut hasher),
            Part::Namespace => request.namespace.hash(&mut hasher),
            Part::Name => request.name.hash(&mut hasher),
            Part::Verb => request.verb.hash(&mut hasher),
            Part::SourceIp => actor.source_ip.hash(&mut hasher),
        }
    }
    hasher.finish()
}
