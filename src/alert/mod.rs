//! `Alert`: a match worth telling someone, with its rule, actor, evidence, and stable alert id.
//!
//! The types here are the native JSON form of an alert, field for field and in this order. Rules of
//! the form:
//! - a text or number that the event does not have is left out (readers accept `null` as well);
//! - a list is always there, empty when there is nothing to list;
//! - times are RFC 3339 in UTC with exactly six fraction digits;
//! - values are exact. Making them harmless to terminals, browsers and spreadsheets is the work of
//!   whatever prints them (`report`), never of the alert.

pub mod attack;
pub mod evidence;
pub mod id;
pub mod sighting;
pub mod context;
pub mod told;
pub mod trace;
pub mod raise;
pub mod summary;
pub mod throttle;
pub mod time;

use serde::{Deserialize, Deserializer, Serialize};

use crate::alert::attack::Attack;
use crate::alert::evidence::Evidence;
use crate::alert::time::EventTime;
use crate::event::actor::ActorKind;
use crate::rule::Level;

/// One alert, complete: nothing else is needed to act on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The stable identity, 32 hex digits; see [`id::alert_id`].
    pub id: String,
    /// Time of the event that raised it.
    pub time: EventTime,
    /// Whether one event raised it or several together.
    pub kind: AlertKind,
    /// The cluster it happened in, as configured; empty when none is.
    pub cluster: String,
    /// The rule that raised it.
    pub rule: AlertRule,
    /// MITRE ATT&CK, from the rule's tags; see [`attack::from_tags`].
    #[serde(default)]
    pub attack: Vec<Attack>,
    /// Who did it. Of a correlation: who did the last of it.
    pub actor: Actor,
    /// What was asked of the API server. Of a correlation: the last of it.
    pub request: Request,
    /// Why the rule matched.
    #[serde(default)]
    pub reason: Vec<Reason>,
    /// One sentence for a person; see [`summary::summarise`].
    pub summary: String,
    /// The evidence, oldest first; all of it up to a limit, see [`evidence::edges`].
    #[serde(default)]
    pub events: Vec<Evidence>,
    /// How many events are evidence, also those that `events` leaves out.
    pub count: u64,
    /// What to look at next, from the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
}

impl Alert {
    /// Writes it as JSON on one line behind what `bytes` holds.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        serde_json::to_writer(bytes, self).expect("an alert is JSON, and memory takes it");
    }
}

/// What raised an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// One request.
    Match,
    /// Several requests together.
    Correlation,
}

impl AlertKind {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertKind::Match => "match",
            AlertKind::Correlation => "correlation",
        }
    }
}

/// The part of a rule that an alert carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRule {
    /// The rule's identity.
    pub id: String,
    /// What happened, for people.
    pub title: String,
    /// How serious it is.
    #[serde(deserialize_with = "read_level")]
    pub level: Level,
    /// The rule's language.
    pub source: RuleSource,
    /// Sigma tags as the rule has them.
    #[serde(default)]
    pub tags: Vec<String>,
}

fn read_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    let word = String::deserialize(deserializer)?;
    Level::parse(&word)
        .ok_or_else(|| serde::de::Error::custom(format_args!("unknown level {word:?}")))
}

/// The language a rule is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleSource {
    /// A Sigma detection or correlation.
    Sigma,
    /// Built in: what is wrong with the audit trail itself.
    Builtin,
}

/// Who made a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Actor {
    /// The authenticated name; absent when authentication failed or the event was cut before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// What kind of name it is; absent with the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ActorKind>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The user it acted as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonated: Option<String>,
    /// Every address in the event; all but the last are the client's own claim.
    #[serde(default)]
    pub source_ips: Vec<String>,
    /// The last address that can be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<String>,
    /// The client's claim of what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Which certificate or token was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
}

/// What was asked of the API server and how it answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Kubernetes' verb: `get`, `list`, `create`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// The request URI, redacted where it has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// `objectRef.resource`; absent for paths that are no resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `objectRef.subresource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// `objectRef.apiGroup`; absent for the core group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// `objectRef.namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `objectRef.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The authorizer's decision: `allow` or `forbid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// The HTTP status of the answer; absent before the answer is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
}

/// One part of why a rule matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The field as the rule names it; `group-by` fields of a correlation as well.
    pub field: String,
    /// The value in the event, redacted where it has to be.
    pub value: String,
    /// What the rule asked of it, for people.
    pub matched: String,
}

#[cfg(test)]
mod tests;
