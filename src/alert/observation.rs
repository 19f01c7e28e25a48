//! One event that some rule matched, self-contained: everything that an alert or a correlation needs
//! of it, redacted, so that the event's bytes can go.

use serde::{Deserialize, Serialize};

use crate::alert::id::{RequestKey, RequestParts};
use crate::alert::{Actor, Reason, Request};
use crate::engine::correlate::Feed;
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch};
use crate::event::actor::ActorKind;
use crate::event::derived::{Derived, source_ip};
use crate::event::redact::{redact_field, redact_text};
use crate::event::value::Value;
use crate::event::{Event, Slot};

/// A matched event and its matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What the matches share.
    pub context: Context,
    /// The detections that matched, ascending.
    pub matches: Vec<Match>,
}

/// What all matches of one event share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The request that the event is a stage of.
    pub request_key: RequestKey,
    /// Event time in microseconds since the epoch.
    pub time_us: i64,
    /// The cluster's name.
    pub cluster: String,
    /// `auditID`, cut to [`AUDIT_ID_CHARS_MAX`] characters: clients choose it, at any length.
    pub audit_id: String,
    /// The audit stage.
    pub stage: String,
    /// Where the event was read.
    pub position: String,
    /// Who did it.
    pub actor: Actor,
    /// What was asked.
    pub request: Request,
    /// The command of an exec, redacted.
    pub command: Option<String>,
}

/// One detection that matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The detection's position in the engine.
    pub detection: u32,
    /// Why it matched; empty where the rule raises no alerts itself.
    pub reasons: Vec<Reason>,
    /// The correlations it feeds.
    pub feeds: Vec<Feed>,
}

/// Longer audit ids are cut in alerts; the request key has the whole.
pub const AUDIT_ID_CHARS_MAX: usize = 4_096;

/// Where and when an event was met.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    /// The cluster's name.
    pub cluster: &'p str,
    /// Event time, for events that lost theirs too.
    pub time_us: i64,
    /// Where it was read.
    pub position: &'p str,
}

impl Observation {
    /// Describes an event by the detections that `Engine::evaluate` just found with this scratch.
    pub fn new(
        engine: &Engine,
        event: &Event<'_>,
        matched: &[u32],
        place: Place<'_>,
        scratch: &mut Scratch,
    ) -> Observation {
        let subject = Subject::Audit(event);
        let resource = event.text(Slot::Resource).unwrap_or_default();
        let matches = matched
            .iter()
            .map(|&detection| {
                let reasons = if engine.detection(detection).alerts {
                    engine
                        .reasons(detection, subject, scratch)
                        .into_iter()
                        .map(|reason| redacted(reason, &resource))
                        .collect()
                } else {
                    Vec::new()
                };
                let feeds = engine.feeds(detection, subject, place.cluster, scratch);
                Match { detection, reasons, feeds }
            })
            .collect();
        Observation { context: Context::new(engine, event, place), matches }
    }
}

impl Observation {
    /// Appends the observation in MessagePack with named fields, which `rmp_serde` reads back.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        rmp_serde::encode::write_named(bytes, self)
            .expect("plain data is written to a Vec without failing");
    }
}

fn redacted(reason: crate::engine::explain::Reason, resource: &str) -> Reason {
    let value = redact_field(&reason.field, resource, &reason.value).into_owned();
    Reason { field: reason.field, value, matched: reason.matched }
}

impl Context {
    fn new(engine: &Engine, event: &Event<'_>, place: Place<'_>) -> Context {
        let text = |slot| event.text(slot).map(std::borrow::Cow::into_owned);
        let audit_id = text(Slot::AuditId).unwrap_or_default();
        Context {
            request_key: request_key(event, place.cluster),
            time_us: place.time_us,
            cluster: place.cluster.to_owned(),
            audit_id: cut(audit_id, AUDIT_ID_CHARS_MAX),
            stage: text(Slot::Stage).unwrap_or_default(),
            position: place.position.to_owned(),
            actor: actor(engine, event),
            request: request(event),
            command: Derived::Command
                .value(event, &[])
                .map(|command| redact_text(&command).into_owned()),
        }
    }
}

fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
    text
}

/// The key of the request that an event is a stage of.
pub fn request_key(event: &Event<'_>, cluster: &str) -> RequestKey {
    let text = |slot| event.text(slot).unwrap_or_default();
    RequestKey::new(RequestParts {
        cluster,
        audit_id: &text(Slot::AuditId),
        username: &text(Slot::Username),
        verb: &text(Slot::Verb),
        uri: &text(Slot::RequestUri),
        received_at: &text(Slot::RequestReceivedTimestamp),
    })
}

fn actor(engine: &Engine, event: &Event<'_>) -> Actor {
    let username = event.text(Slot::Username).map(std::borrow::Cow::into_owned);
    Actor {
        kind: Some(ActorKind::of(username.as_deref().unwrap_or_default())),
        username,
        groups: texts(event.slot(Slot::UserGroups)),
        impersonated: event
            .slot(Slot::ImpersonatedUser)
            .and_then(|user| user.member("username"))
            .and_then(|name| name.text())
            .map(std::borrow::Cow::into_owned),
        source_ips: texts(event.slot(Slot::SourceIps)),
        source_ip: source_ip(event, engine.proxies()).map(std::borrow::Cow::into_owned),
        user_agent: event.text(Slot::UserAgent).map(|agent| redact_text(&agent).into_owned()),
        credential_id: Derived::CredentialId.value(event, &[]).map(std::borrow::Cow::into_owned),
    }
}

/// The texts of an array; at most a hundred, no alert needs more groups or addresses.
fn texts(array: Option<Value<'_>>) -> Vec<String> {
    let elements = array.into_iter().flat_map(|array| array.elements());
    elements.filter_map(|value| value.text()).take(100).map(|text| text.into_owned()).collect()
}

fn request(event: &Event<'_>) -> Request {
    let text = |slot| event.text(slot).map(std::borrow::Cow::into_owned);
    Request {
        verb: text(Slot::Verb),
        uri: event.text(Slot::RequestUri).map(|uri| redact_text(&uri).into_owned()),
        resource: text(Slot::Resource),
        subresource: text(Slot::Subresource),
        api_group: text(Slot::ApiGroup),
        namespace: text(Slot::Namespace),
        name: text(Slot::Name),
        decision: event
            .annotation("authorization.k8s.io/decision")
            .map(std::borrow::Cow::into_owned),
        code: event.code().map(i32::from),
    }
}
