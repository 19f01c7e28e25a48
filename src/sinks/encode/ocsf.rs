//! Open Cybersecurity Schema Framework 1.5: API Activity (6003) for events, Detection Finding
//! (2004) for alerts and notices.
//!
//! Choices that the schema leaves open: the impersonated user is `unmapped.impersonated_user` (the
//! actor is who authenticated), a resource's type has its subresource (`pods/exec`), an exec is
//! activity 99 with its own name, and the event's bytes are `raw_data`.

use crate::event::actor::ActorKind;
use crate::event::derived::Outcome;
use crate::rule::Level;
use crate::sinks::encode::facts::{Effect, Facts};
use crate::sinks::encode::json::{Object, lossy};
use crate::sinks::encode::{Subject, VENDOR, VERSION};

/// The version of the schema.
const OCSF_VERSION: &str = "1.5.0";

pub(crate) fn encode(subject: &Subject<'_>, out: &mut Vec<u8>) {
    Object::write(out, |o| match subject.alert.is_some() || subject.is_notice {
        true => finding(subject, o),
        false => activity(subject, o),
    });
}

/// Milliseconds since the epoch.
fn ms(time_us: i64) -> i64 {
    time_us.div_euclid(1_000)
}

fn severity(level: Level) -> (i64, &'static str) {
    match level {
        Level::Informational => (1, "Informational"),
        Level::Low => (2, "Low"),
        Level::Medium => (3, "Medium"),
        Level::High => (4, "High"),
        Level::Critical => (5, "Critical"),
    }
}

/// What the class, the activity and their sums are called and numbered.
fn class(
    o: &mut Object<'_>,
    category: (i64, &str),
    class: (i64, &str),
    activity: (i64, &str),
    severity: (i64, &str),
) {
    o.number("category_uid", category.0);
    o.text("category_name", category.1);
    o.number("class_uid", class.0);
    o.text("class_name", class.1);
    o.number("activity_id", activity.0);
    o.text("activity_name", activity.1);
    o.number("type_uid", class.0 * 100 + activity.0);
    o.text("type_name", &format!("{}: {}", class.1, activity.1));
    o.number("severity_id", severity.0);
    o.text("severity", severity.1);
}

fn metadata(subject: &Subject<'_>, o: &mut Object<'_>) {
    o.object("metadata", |o| {
        o.text("version", OCSF_VERSION);
        o.object("product", |o| {
            o.text("name", VENDOR);
            o.text("vendor_name", VENDOR);
            o.text("version", VERSION);
        });
        o.text("uid", &subject.id);
        o.text_if("correlation_uid", subject.facts.audit_id.as_deref());
        o.text("log_name", "kube-apiserver audit");
        o.text("log_provider", "kube-apiserver");
        o.text_if("tenant_uid", Some(&subject.facts.cluster));
        o.text_if("log_level", subject.facts.level.as_deref());
    });
}

fn activity(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    let session = facts.subresource.as_deref().unwrap_or("session");
    let activity = match facts.effect() {
        Effect::Create => (1, "Create"),
        Effect::Read => (2, "Read"),
        Effect::Update => (3, "Update"),
        Effect::Delete => (4, "Delete"),
        Effect::Session => (99, session),
        Effect::Other => (99, facts.verb.as_deref().unwrap_or("unknown")),
    };
    class(
        o,
        (6, "Application Activity"),
        (6003, "API Activity"),
        activity,
        severity(Level::Informational),
    );
    o.number("time", ms(facts.time_us));
    o.number_if("start_time", facts.start_us.map(ms));
    o.number("end_time", ms(facts.time_us));
    metadata(subject, o);
    let (status_id, status) = match facts.outcome() {
        Outcome::Success => (1, "Success"),
        Outcome::Denied | Outcome::Failed => (2, "Failure"),
        Outcome::Unknown => (0, "Unknown"),
    };
    o.number("status_id", status_id);
    o.text("status", status);
    o.text_if("status_code", facts.code.map(|code| code.to_string()));
    o.text_if("status_detail", facts.status_reason.as_deref());
    request(facts, o);
    o.objects("resources", resource(facts), |facts, o| put_resource(facts, o));
    o.object("unmapped", |o| {
        o.text_if("stage", facts.stage.as_deref());
        o.text_if("impersonated_user", facts.impersonated.as_deref());
        o.text_if("authorization_decision", facts.decision.as_deref());
        o.text_if("authorization_reason", facts.decision_reason.as_deref());
    });
    o.text("raw_data", &lossy(subject.raw));
}

/// Who asked what, from where: of an activity, and of the evidence of a finding.
fn request(facts: &Facts<'_>, o: &mut Object<'_>) {
    o.object("actor", |o| {
        o.object("user", |o| user(facts, o));
        o.object("session", |o| o.text_if("credential_uid", facts.credential_id.as_deref()));
    });
    o.object("api", |o| {
        o.text("operation", facts.verb.as_deref().unwrap_or("unknown"));
        o.object("request", |o| o.text_if("uid", facts.audit_id.as_deref()));
        o.object("response", |o| {
            o.number_if("code", facts.code.map(i64::from));
            o.text_if("error", facts.status_reason.as_deref());
            o.text_if("error_message", facts.status_message.as_deref());
        });
        o.object("service", |o| o.text("name", "kube-apiserver"));
        o.object("group", |o| o.text_if("name", facts.api_group.as_deref()));
        o.text_if("version", facts.api_version.as_deref());
    });
    o.object("src_endpoint", |o| match facts.address() {
        Some(address) => {
            o.text("ip", &address.to_string());
            let others = facts.addresses().filter(|other| *other != address);
            o.texts("intermediate_ips", others.map(|other| other.to_string()));
        }
        None => o.text("name", facts.source_ip.as_deref().unwrap_or("unknown")),
    });
    o.object("http_request", |o| {
        // The schema's list of methods has no PATCH; `api.operation` says it.
        o.text_if("http_method", facts.method().filter(|method| *method != "PATCH"));
        o.object("url", |o| {
            o.text_if("url_string", facts.uri.as_deref());
            o.text_if("path", facts.path());
            o.text_if("query_string", facts.query());
        });
        o.text_if("user_agent", facts.user_agent.as_deref());
        let is_forwarded = facts.source_ips.len() > 1;
        let forwarded = facts.addresses().filter(|_| is_forwarded);
        o.texts("x_forwarded_for", forwarded.map(|address| address.to_string()));
    });
    o.object("http_response", |o| o.number_if("code", facts.code.map(i64::from)));
}

fn user(facts: &Facts<'_>, o: &mut Object<'_>) {
    let name = facts.username.as_deref().unwrap_or_default();
    let (type_id, kind) = match ActorKind::of(name) {
        ActorKind::User => (1, "User"),
        ActorKind::System | ActorKind::Node => (3, "System"),
        ActorKind::ServiceAccount => (99, "Service Account"),
        ActorKind::Anonymous => (0, "Unknown"),
    };
    o.text("name", if name.is_empty() { "unknown" } else { name });
    o.text_if("uid", facts.user_uid.as_deref());
    o.number("type_id", type_id);
    o.text("type", kind);
    o.objects("groups", &facts.groups, |name, o| o.text("name", name));
}

fn resource<'f, 'r>(facts: &'f Facts<'r>) -> Option<&'f Facts<'r>> {
    (facts.resource.is_some() || facts.name.is_some()).then_some(facts)
}

fn put_resource(facts: &Facts<'_>, o: &mut Object<'_>) {
    let kind = facts.resource_type();
    o.text("name", facts.name.as_deref().or(kind.as_deref()).unwrap_or("unknown"));
    o.text_if("type", kind.as_deref());
    o.text_if("namespace", facts.namespace.as_deref());
    o.text_if("uid", facts.uid.as_deref());
    o.text_if("version", facts.resource_version.as_deref());
}

fn finding(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    let alert = subject.alert.as_ref();
    let level = alert.map_or(Level::Medium, |alert| alert.rule.level);
    class(o, (2, "Findings"), (2004, "Detection Finding"), (1, "Create"), severity(level));
    o.number("time", ms(facts.time_us));
    metadata(subject, o);
    o.number("status_id", 1);
    o.text("status", "New");
    o.bool("is_alert", true);
    o.text_if("message", facts.summary.as_deref());
    o.number_if("count", alert.map(|alert| i64::try_from(alert.count).unwrap_or(i64::MAX)));
    o.object("finding_info", |o| finding_info(subject, o));
    if alert.is_some() {
        o.objects("evidences", [facts], |facts, o| request(facts, o));
        o.objects("resources", resource(facts), |facts, o| put_resource(facts, o));
    }
    o.object("unmapped", |o| {
        o.text_if("impersonated_user", facts.impersonated.as_deref());
        o.text_if("cluster", Some(&facts.cluster));
        o.text_if("runbook", alert.and_then(|alert| alert.runbook.as_deref()));
    });
    if subject.is_notice {
        o.text("raw_data", &lossy(subject.raw));
    }
}

fn finding_info(subject: &Subject<'_>, o: &mut Object<'_>) {
    let alert = subject.alert.as_ref();
    o.text("uid", &subject.id);
    o.text("title", &subject.title());
    o.text_if("desc", subject.facts.summary.as_deref());
    o.number("created_time", ms(subject.facts.time_us));
    o.object("analytic", |o| {
        o.number("type_id", 1);
        o.text("type", "Rule");
        o.text("uid", alert.map_or("audit-trail-notice", |alert| &alert.rule.id));
        o.text("name", &subject.title());
    });
    let Some(alert) = alert else { return };
    let times = || alert.events.iter().map(|event| event.time.as_micros());
    o.number_if("first_seen_time", times().min().map(ms));
    o.number_if("last_seen_time", times().max().map(ms));
    o.objects("attacks", &alert.attack, |attack, o| {
        o.text("version", "17.1");
        o.objects("tactics", &attack.tactics, |tactic, o| o.text("name", tactic));
        let technique = attack.technique.as_deref();
        let parent = technique.map(|id| id.split_once('.').map_or(id, |(parent, _)| parent));
        o.object("technique", |o| o.text_if("uid", parent));
        let sub = technique.filter(|id| id.contains('.'));
        o.object("sub_technique", |o| o.text_if("uid", sub));
    });
    o.objects("related_events", &alert.events, |event, o| {
        o.text("uid", if event.audit_id.is_empty() { "unknown" } else { &event.audit_id });
    });
}
