//! Encodings of events, alerts and notices for the far side. Pure: bytes in, one line out.
//!
//! Whatever an event holds, a line stays one line and its fields stay apart: JSON is written by an
//! encoder, CEF and LEEF escape what they must and blank what they cannot say.

pub(crate) mod json;
pub(crate) mod facts;
pub(crate) mod native;
pub(crate) mod ecs;
pub(crate) mod ocsf;
pub(crate) mod cef;
pub(crate) mod leef;
pub(crate) mod falco;
pub(crate) mod services;
pub(crate) mod template;

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::event::Event;
use crate::sinks::{Item, Outgoing};

/// Who speaks, in formats that ask for it.
pub(crate) const VENDOR: &str = "kubewitness";
/// The version of who speaks.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How items are written for the far side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Raw events byte for byte as stored; alerts and notices in their native JSON.
    #[default]
    Native,
    /// Elastic Common Schema 8: JSON with the fields that Elastic's Kubernetes integration uses.
    Ecs,
    /// OCSF 1.5 JSON: API Activity (6003) for events, Detection Finding (2004) for alerts.
    Ocsf,
    /// ArcSight's Common Event Format, version 0.
    Cef,
    /// QRadar's Log Event Extended Format 2.0, attributes apart by tabs.
    Leef,
    /// The JSON that Falco sends, for falcosidekick.
    Falco,
}

impl Format {
    /// The format as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::Ecs => "ecs",
            Format::Ocsf => "ocsf",
            Format::Cef => "cef",
            Format::Leef => "leef",
            Format::Falco => "falco",
        }
    }

    /// Whether what it writes is a JSON object.
    pub fn is_json(self) -> bool {
        !matches!(self, Format::Cef | Format::Leef)
    }

    /// Writes an item behind what `out` holds: one line, without its end.
    pub fn encode(self, item: &Item<'_>, out: &mut Vec<u8>) {
        let subject = match self {
            Format::Native => return native::encode(item, out),
            _ => Subject::of(item),
        };
        match self {
            Format::Native => {}
            Format::Ecs => ecs::encode(&subject, ecs::Body::Tree, out),
            Format::Ocsf => ocsf::encode(&subject, out),
            Format::Cef => cef::encode(&subject, out),
            Format::Leef => leef::encode(&subject, out),
            Format::Falco => falco::encode(&subject, out),
        }
    }
}

/// An item as the encoders see it.
pub(crate) struct Subject<'r> {
    /// Equal for copies of one item, see [`Item::id`].
    pub(crate) id: String,
    /// What it says.
    pub(crate) facts: facts::Facts<'r>,
    /// The alert, where it is one.
    pub(crate) alert: Option<Alert>,
    /// The stored bytes of whatever else it is.
    pub(crate) raw: &'r [u8],
    /// Whether it is a notice about the audit trail, not an event.
    pub(crate) is_notice: bool,
}

impl<'r> Subject<'r> {
    pub(crate) fn of(item: &Item<'r>) -> Subject<'r> {
        let (id, raw) = (item.id(), item.bytes());
        let mut subject = Subject {
            id,
            facts: facts::Facts::default(),
            alert: None,
            raw,
            is_notice: !matches!(item.outgoing, Outgoing::Event(_) | Outgoing::Alert(_)),
        };
        match item.outgoing {
            Outgoing::Event(stored) => {
                let facts = match Event::salvage(raw) {
                    Some(event) => facts::Facts::of_event(&event),
                    None => facts::Facts::default(),
                };
                let cluster = stored.cluster.into();
                subject.facts = facts::Facts { cluster, time_us: stored.time_us, ..facts };
            }
            Outgoing::Alert(json) => {
                subject.alert = serde_json::from_slice(json).ok();
                subject.facts =
                    subject.alert.as_ref().map(facts::Facts::of_alert).unwrap_or_default();
            }
            _ => subject.facts = facts::Facts::of_notice(raw),
        }
        subject
    }

    /// What happened, in a few words.
    pub(crate) fn title(&self) -> String {
        match &self.alert {
            Some(alert) => alert.rule.title.clone(),
            None if self.is_notice => "Audit trail notice".to_owned(),
            None => {
                let verb = self.facts.verb.as_deref().unwrap_or("request");
                let what = self.facts.resource_type();
                let what = what.as_deref().or(self.facts.path()).unwrap_or("unknown");
                format!("{verb} {what}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
