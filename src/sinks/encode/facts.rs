//! What every encoding asks of an event or an alert, in Kubernetes' words.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::alert::Alert;
use crate::event::derived::{Outcome, percent_decode, source_ip};
use crate::event::value::Value;
use crate::event::{Event, Slot, time};

type Text<'r> = Option<Cow<'r, str>>;

/// What an event or an alert says. Absent is `None` or empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts<'r> {
    pub(crate) cluster: Cow<'r, str>,
    /// Event time, microseconds since the epoch.
    pub(crate) time_us: i64,
    /// When the request began, microseconds since the epoch.
    pub(crate) start_us: Option<i64>,
    pub(crate) audit_id: Text<'r>,
    pub(crate) stage: Text<'r>,
    pub(crate) level: Text<'r>,
    pub(crate) verb: Text<'r>,
    pub(crate) uri: Text<'r>,
    pub(crate) username: Text<'r>,
    pub(crate) user_uid: Text<'r>,
    pub(crate) groups: Vec<Cow<'r, str>>,
    pub(crate) impersonated: Text<'r>,
    pub(crate) impersonated_groups: Vec<Cow<'r, str>>,
    pub(crate) credential_id: Text<'r>,
    /// All addresses; all but the last are the client's claim.
    pub(crate) source_ips: Vec<Cow<'r, str>>,
    pub(crate) source_ip: Text<'r>,
    pub(crate) user_agent: Text<'r>,
    pub(crate) resource: Text<'r>,
    pub(crate) subresource: Text<'r>,
    pub(crate) api_group: Text<'r>,
    pub(crate) api_version: Text<'r>,
    pub(crate) namespace: Text<'r>,
    pub(crate) name: Text<'r>,
    pub(crate) uid: Text<'r>,
    pub(crate) resource_version: Text<'r>,
    pub(crate) code: Option<u16>,
    pub(crate) status_reason: Text<'r>,
    pub(crate) status_message: Text<'r>,
    pub(crate) decision: Text<'r>,
    pub(crate) decision_reason: Text<'r>,
    /// One sentence for a person, of alerts and notices.
    pub(crate) summary: Text<'r>,
}

/// What a verb does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Create,
    Read,
    Update,
    Delete,
    /// A session or a process: exec, attach, port-forward, proxy.
    Session,
    Other,
}

impl<'r> Facts<'r> {
    pub(crate) fn of_event(event: &Event<'r>) -> Facts<'r> {
        let text = |slot| event.text(slot);
        let impersonated = event.slot(Slot::ImpersonatedUser);
        Facts {
            cluster: Cow::Borrowed(""),
            time_us: event.time_us().unwrap_or_default(),
            start_us: event.timestamp(Slot::RequestReceivedTimestamp),
            audit_id: text(Slot::AuditId),
            stage: text(Slot::Stage),
            level: text(Slot::Level),
            verb: text(Slot::Verb),
            uri: text(Slot::RequestUri),
            username: text(Slot::Username),
            user_uid: text(Slot::UserUid),
            groups: texts(event.slot(Slot::UserGroups)),
            impersonated: impersonated.and_then(|user| user.member("username")?.text()),
            impersonated_groups: texts(impersonated.and_then(|user| user.member("groups"))),
            credential_id: event.user_extra("authentication.kubernetes.io/credential-id"),
            source_ips: texts(event.slot(Slot::SourceIps)),
            source_ip: source_ip(event, &[]),
            user_agent: text(Slot::UserAgent),
            resource: text(Slot::Resource),
            subresource: text(Slot::Subresource),
            api_group: text(Slot::ApiGroup),
            api_version: text(Slot::ObjectApiVersion),
            namespace: text(Slot::Namespace),
            name: text(Slot::Name),
            uid: text(Slot::ObjectUid),
            resource_version: text(Slot::ResourceVersion),
            code: event.code(),
            status_reason: text(Slot::StatusReason),
            status_message: text(Slot::StatusMessage),
            decision: event.annotation("authorization.k8s.io/decision"),
            decision_reason: event.annotation("authorization.k8s.io/reason"),
            summary: None,
        }
    }

    pub(crate) fn of_alert(alert: &Alert) -> Facts<'r> {
        let own = |text: &Option<String>| text.clone().map(Cow::Owned);
        let all = |texts: &[String]| texts.iter().cloned().map(Cow::Owned).collect();
        let (actor, request) = (&alert.actor, &alert.request);
        let last = alert.events.last();
        Facts {
            cluster: Cow::Owned(alert.cluster.clone()),
            time_us: alert.time.as_micros(),
            audit_id: last.map(|event| Cow::Owned(event.audit_id.clone())),
            stage: last.map(|event| Cow::Owned(event.stage.clone())),
            verb: own(&request.verb),
            uri: own(&request.uri),
            username: own(&actor.username),
            groups: all(&actor.groups),
            impersonated: own(&actor.impersonated),
            credential_id: own(&actor.credential_id),
            source_ips: all(&actor.source_ips),
            source_ip: own(&actor.source_ip),
            user_agent: own(&actor.user_agent),
            resource: own(&request.resource),
            subresource: own(&request.subresource),
            api_group: own(&request.api_group),
            namespace: own(&request.namespace),
            name: own(&request.name),
            code: request.code.and_then(|code| u16::try_from(code).ok()),
            decision: own(&request.decision),
            summary: Some(Cow::Owned(alert.summary.clone())),
            ..Facts::default()
        }
    }

    /// Of a notice: its time and its sentence.
    pub(crate) fn of_notice(json: &'r [u8]) -> Facts<'r> {
        let notice = Value::of(json);
        let text = |key| notice.member(key).and_then(|value| value.text());
        let time_us = text("time").and_then(|at| time::parse_us(at.as_bytes()));
        Facts {
            time_us: time_us.unwrap_or_default(),
            cluster: text("cluster").unwrap_or_default(),
            summary: text("text"),
            ..Facts::default()
        }
    }

    /// `pods`, `pods/exec`; `None` for paths that are no resource.
    pub(crate) fn resource_type(&self) -> Option<Cow<'_, str>> {
        let resource = self.resource.as_deref()?;
        Some(match self.subresource.as_deref() {
            Some(subresource) => Cow::Owned(format!("{resource}/{subresource}")),
            None => Cow::Borrowed(resource),
        })
    }

    /// The URI before its query.
    pub(crate) fn path(&self) -> Option<&str> {
        self.uri.as_deref().map(|uri| uri.split_once('?').map_or(uri, |(path, _)| path))
    }

    /// The URI's query.
    pub(crate) fn query(&self) -> Option<&str> {
        self.uri.as_deref().and_then(|uri| Some(uri.split_once('?')?.1))
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(self.code)
    }

    /// The HTTP method that Kubernetes' verb stands for; a connect's is not known.
    pub(crate) fn method(&self) -> Option<&'static str> {
        let verb = self.verb.as_deref()?;
        let is_session = self.effect() == Effect::Session;
        Some(match verb {
            "get" if is_session => return None,
            "get" | "list" | "watch" => "GET",
            "create" if is_session => return None,
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" | "deletecollection" => "DELETE",
            "head" => "HEAD",
            "options" => "OPTIONS",
            _ => return None,
        })
    }

    pub(crate) fn effect(&self) -> Effect {
        let sessions = ["exec", "attach", "portforward", "proxy"];
        if self.subresource.as_deref().is_some_and(|name| sessions.contains(&name)) {
            return Effect::Session;
        }
        let is_review = self.resource.as_deref().is_some_and(|name| name.ends_with("reviews"));
        match self.verb.as_deref().unwrap_or_default() {
            "create" if is_review => Effect::Read,
            "patch" if self.code == Some(201) => Effect::Create,
            "create" => Effect::Create,
            "get" | "list" | "watch" | "head" => Effect::Read,
            "update" | "patch" | "put" => Effect::Update,
            "delete" | "deletecollection" => Effect::Delete,
            _ => Effect::Other,
        }
    }

    /// The addresses that are addresses, in their order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.source_ips.iter().filter_map(|text| text.parse().ok())
    }

    /// The address that can be trusted, where it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.source_ip.as_deref()?.parse().ok()
    }

    /// The commands of an exec, from the query.
    pub(crate) fn command(&self) -> Vec<String> {
        let query = self.query().unwrap_or_default();
        let values = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
        values.map(|value| percent_decode(value, true)).collect()
    }
}

fn texts(list: Option<Value<'_>>) -> Vec<Cow<'_, str>> {
    list.map(|list| list.elements().filter_map(|value| value.text()).collect()).unwrap_or_default()
}
