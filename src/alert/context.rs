//! What an alert says of an event: who did it, what was asked, where it stands. Redacted.

use crate::alert::id::{RequestKey, RequestParts};
use crate::alert::{Actor, Request};
use crate::event::actor::ActorKind;
use crate::event::derived::{Derived, source_ip};
use crate::event::redact::{redact_command, redact_text, redact_uri};
use crate::event::value::Value;
use crate::event::{Event, Slot};
use ipnet::IpNet;
use std::borrow::Cow;

/// What all alerts on one event share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Who did it.
    pub actor: Actor,
    /// What was asked.
    pub request: Request,
    /// The command of an exec, redacted.
    pub command: Option<String>,
}

impl Context {
    /// Reads it in the bytes of an event. `proxies` are the networks whose X-Forwarded-For entries
    /// are believed.
    pub fn new(event: &[u8], proxies: &[IpNet]) -> Context {
        let Some(event) = Event::salvage(event) else { return Context::default() };
        Context {
            actor: actor(&event, proxies),
            request: request(&event),
            command: Derived::Command
                .value(&event, &[])
                .map(|command| redact_command(&command).into_owned()),
        }
    }
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

fn actor(event: &Event<'_>, proxies: &[IpNet]) -> Actor {
    // Some authenticators put what a client sent into the name.
    let name = |text: Option<Cow<'_, str>>| text.map(|text| redact_text(&text).into_owned());
    let username = name(event.text(Slot::Username));
    Actor {
        kind: Some(ActorKind::of(username.as_deref().unwrap_or_default())),
        username,
        groups: texts(event.slot(Slot::UserGroups)),
        impersonated: event
            .slot(Slot::ImpersonatedUser)
            .and_then(|user| user.member("username"))
            .and_then(|user| name(user.text())),
        source_ips: texts(event.slot(Slot::SourceIps)),
        source_ip: source_ip(event, proxies).map(std::borrow::Cow::into_owned),
        user_agent: event.text(Slot::UserAgent).map(|agent| redact_text(&agent).into_owned()),
        credential_id: Derived::CredentialId.value(event, &[]).map(std::borrow::Cow::into_owned),
    }
}

/// The texts of an array; at most a hundred, no alert needs more groups or addresses.
fn texts(array: Option<Value<'_>>) -> Vec<String> {
    let elements = array.into_iter().flat_map(|array| array.elements());
    let texts = elements.filter_map(|value| value.text()).take(100);
    texts.map(|text| redact_text(&text).into_owned()).collect()
}

fn request(event: &Event<'_>) -> Request {
    let text = |slot| event.text(slot).map(|text| redact_text(&text).into_owned());
    Request {
        verb: text(Slot::Verb),
        uri: event.text(Slot::RequestUri).map(|uri| redact_uri(&uri).into_owned()),
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
