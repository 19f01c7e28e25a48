//! Which records a sink gets: by kind, level, rule and namespace.

use serde::{Deserialize, Deserializer, Serialize};

use crate::alert::Alert;
use crate::event::{Event, Slot};
use crate::rule::Level;
use crate::sinks::{Item, Outgoing};

/// What is configured of a filter. Whatever is not named lets everything through. Notices about
/// the audit trail itself always pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The least level of an alert: `informational`, `low`, `medium`, `high` or `critical`.
    #[serde(deserialize_with = "read_level", skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Ids of the only rules whose alerts pass; empty for all.
    pub rules: Vec<String>,
    /// The only namespaces whose events and alerts pass; a `*` at the end stands for any rest.
    /// Empty for all, and for what is in no namespace.
    pub namespaces: Vec<String>,
}

fn read_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?;
    let unknown = |word: &str| {
        let words = Level::ALL.map(Level::as_str).join(", ");
        serde::de::Error::custom(format_args!("unknown level {word:?}, expected one of {words}"))
    };
    word.map(|word| Level::parse(&word).ok_or_else(|| unknown(&word))).transpose()
}

impl Config {
    /// Whether the item passes. `alert` is the item as far as it is a readable alert; one that
    /// cannot be read passes, so that nothing is lost by it.
    pub fn passes(&self, item: &Item<'_>, alert: Option<&Alert>) -> bool {
        match (item.outgoing, alert) {
            (Outgoing::Event(event), _) => {
                self.namespaces.is_empty()
                    || Event::salvage(event.raw).is_none_or(|event| {
                        self.has_namespace(event.text(Slot::Namespace).as_deref())
                    })
            }
            (Outgoing::Alert(_), Some(alert)) => {
                self.level.is_none_or(|least| alert.rule.level >= least)
                    && (self.rules.is_empty() || self.rules.contains(&alert.rule.id))
                    && self.has_namespace(alert.request.namespace.as_deref())
            }
            _ => true,
        }
    }

    /// Whether alerts have to be read for it.
    pub fn asks_alerts(&self) -> bool {
        self.level.is_some() || !self.rules.is_empty() || !self.namespaces.is_empty()
    }

    fn has_namespace(&self, namespace: Option<&str>) -> bool {
        let fits = |wanted: &String| match (wanted.strip_suffix('*'), namespace) {
            (_, None) => false,
            (Some(prefix), Some(namespace)) => namespace.starts_with(prefix),
            (None, Some(namespace)) => namespace == wanted,
        };
        self.namespaces.is_empty() || self.namespaces.iter().any(fits)
    }
}
