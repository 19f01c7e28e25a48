//! Hides repeats of an alert from one sink for a while, and counts what it hid.
//!
//! Only alerts, never events; only here, never in the spool or the archive. After a restart the
//! first repeat of everything is shown again.

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::alert::throttle::{Part, Throttle};
use crate::units::Span;

/// What is configured of a throttle.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For how long repeats are hidden, by event time. Default: 1h.
    pub window: Span,
    /// What repeats have in common, the cluster aside: `rule`, `actor`, `resource`, `namespace`,
    /// `name`, `verb`, `source_ip`. Default: rule, actor, resource, namespace, name.
    pub by: Vec<Part>,
}

impl Default for Config {
    fn default() -> Config {
        Config { window: Span::from_secs(3_600), by: Part::DEFAULT.to_vec() }
    }
}

impl Config {
    /// A throttle of this configuration that has shown nothing yet.
    pub(crate) fn throttle(&self) -> Throttle {
        Throttle::new(self.window.as_micros(), &self.by)
    }
}

/// Whether the sink is to get the alert; one that cannot be read is always shown.
pub(crate) fn shows(throttle: &mut Throttle, json: &[u8]) -> bool {
    serde_json::from_slice::<Alert>(json).map_or(true, |alert| throttle.shows(&alert))
}
