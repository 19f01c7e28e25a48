//! Elastic Common Schema 8: the fields that Elastic's Kubernetes integration uses, so that its
//! dashboards and detection rules work on them.
//!
//! Of an event the raw tree is kept under `kubernetes.audit`, with `.` in the keys of annotations
//! as `_`; an event that is no sound JSON, or whose tree an index refuses, is kept as text under
//! `event.original` instead.

use serde_json::value::RawValue;

use crate::event::actor::ActorKind;
use crate::event::derived::Outcome;
use crate::event::time::format_us;
use crate::event::value::{Type, Value};
use crate::rule::Level;
use crate::sinks::encode::facts::Effect;
use crate::sinks::encode::json::{Object, lossy};
use crate::sinks::encode::{Subject, VENDOR, VERSION};

/// The version of the schema.
const ECS_VERSION: &str = "8.17.0";

/// How the body of an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// As a tree under `kubernetes.audit`.
    Tree,
    /// As text under `event.original`: no mapping can refuse it.
    Text,
}

/// Elastic's risk scores of severities.
fn severity(level: Level) -> i64 {
    match level {
        Level::Informational => 1,
        Level::Low => 21,
        Level::Medium => 47,
        Level::High => 73,
        Level::Critical => 99,
    }
}

pub(crate) fn encode(subject: &Subject<'_>, body: Body, out: &mut Vec<u8>) {
    let facts = &subject.facts;
    let is_event = subject.alert.is_none() && !subject.is_notice;
    let is_tree = is_event
        && body == Body::Tree
        && serde_json::from_slice::<&RawValue>(subject.raw).is_ok()
        && subject.raw.first() == Some(&b'{');
    Object::write(out, |o| {
        o.text("@timestamp", &format_us(facts.time_us));
        o.object("ecs", |o| o.text("version", ECS_VERSION));
        o.text_if("message", facts.summary.as_deref());
        o.object("event", |o| event(subject, is_event && !is_tree, o));
        o.object("observer", |o| {
            o.text("vendor", VENDOR);
            o.text("product", VENDOR);
            o.text("version", VERSION);
        });
        o.object("orchestrator", |o| orchestrator(subject, o));
        o.object("user", |o| user(subject, o));
        o.object("source", |o| {
            o.text_if("ip", facts.address().map(|address| address.to_string()));
            o.text_if("address", facts.source_ip.as_deref());
        });
        o.object("client", |o| {
            o.text_if("ip", facts.address().map(|address| address.to_string()));
        });
        o.object("user_agent", |o| o.text_if("original", facts.user_agent.as_deref()));
        o.object("url", |o| {
            o.text_if("original", facts.uri.as_deref());
            o.text_if("path", facts.path());
            o.text_if("query", facts.query());
        });
        o.object("http", |o| {
            o.object("request", |o| {
                o.text_if("id", facts.audit_id.as_deref());
                o.text_if("method", facts.method());
            });
            o.object("response", |o| o.number_if("status_code", facts.code.map(i64::from)));
        });
        o.object("error", |o| {
            let is_error = facts.code.is_some_and(|code| code >= 400);
            o.text_if("message", facts.status_message.as_deref().filter(|_| is_error));
        });
        o.object("related", |o| {
            o.texts("ip", facts.addresses().map(|address| address.to_string()));
            o.texts("user", facts.username.iter().chain(&facts.impersonated));
        });
        o.object("process", |o| o.texts("args", facts.command()));
        alert(subject, o);
        o.object("kubernetes", |o| {
            o.text_if("namespace", facts.namespace.as_deref());
            o.object("audit", |o| if is_tree { tree(subject.raw, o) } else { summary(subject, o) });
        });
    });
}

fn event(subject: &Subject<'_>, is_text: bool, o: &mut Object<'_>) {
    let facts = &subject.facts;
    let alert = subject.alert.as_ref();
    o.text("kind", if alert.is_some() { "alert" } else { "event" });
    o.texts("category", categories(subject));
    o.texts("type", types(subject));
    o.text("module", "kubernetes");
    let dataset = match (alert, subject.is_notice) {
        (Some(_), _) => "kubewitness.alerts",
        (None, true) => "kubewitness.notices",
        (None, false) => "kubernetes.audit_logs",
    };
    o.text("dataset", dataset);
    o.text_if("action", facts.verb.as_deref());
    let outcome = match facts.outcome() {
        Outcome::Success => "success",
        Outcome::Denied | Outcome::Failed => "failure",
        Outcome::Unknown => "unknown",
    };
    o.text_if("outcome", (!subject.is_notice).then_some(outcome));
    o.text_if("reason", facts.status_reason.as_deref());
    match (alert, facts.audit_id.as_deref()) {
        (None, Some(audit_id)) => o.text("id", audit_id),
        _ => o.text("id", &subject.id),
    }
    o.text("hash", &subject.id);
    o.number_if("severity", alert.map(|alert| severity(alert.rule.level)));
    if let Some(start_us) = facts.start_us {
        o.text("start", &format_us(start_us));
        o.text("end", &format_us(facts.time_us));
        o.number("duration", (facts.time_us - start_us).max(0).saturating_mul(1_000));
    }
    if is_text {
        o.text("original", &lossy(subject.raw));
    }
}

/// ECS's categories: what the request is about.
fn categories(subject: &Subject<'_>) -> Vec<&'static str> {
    const IAM: [&str; 7] = [
        "serviceaccounts",
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "certificatesigningrequests",
        "tokenreviews",
    ];
    let facts = &subject.facts;
    let resource = facts.resource.as_deref();
    let mut categories = Vec::new();
    if facts.code == Some(401) {
        categories.push("authentication");
    }
    match resource {
        Some(name) if IAM.contains(&name) => categories.extend(["iam", "configuration"]),
        Some(_) if facts.effect() == Effect::Session => categories.push("process"),
        Some(_) => categories.push("configuration"),
        None => categories.push("web"),
    }
    if subject.is_notice { vec!["host"] } else { categories }
}

/// ECS's types: what the request does.
fn types(subject: &Subject<'_>) -> Vec<&'static str> {
    let facts = &subject.facts;
    let mut types = match facts.effect() {
        Effect::Create => vec!["creation"],
        Effect::Read => vec!["access"],
        Effect::Update => vec!["change"],
        Effect::Delete => vec!["deletion"],
        Effect::Session => vec!["start", "access"],
        Effect::Other => vec!["info"],
    };
    if subject.alert.is_some() {
        types = vec!["indicator"];
    }
    match facts.decision.as_deref() {
        Some("allow") => types.push("allowed"),
        Some("forbid") => types.push("denied"),
        _ => {}
    }
    types
}

fn orchestrator(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    o.text("type", "kubernetes");
    o.object("cluster", |o| o.text_if("name", Some(&facts.cluster)));
    o.text_if("namespace", facts.namespace.as_deref());
    o.text_if("api_version", facts.api_version.as_deref());
    o.object("resource", |o| {
        o.text_if("type", facts.resource_type());
        o.text_if("name", facts.name.as_deref());
        o.text_if("id", facts.uid.as_deref());
    });
}

fn user(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    o.text_if("name", facts.username.as_deref());
    o.text_if("id", facts.user_uid.as_deref());
    o.texts("roles", &facts.groups);
    o.object("effective", |o| {
        o.text_if("name", facts.impersonated.as_deref());
        o.texts("roles", &facts.impersonated_groups);
    });
}

/// What only an alert has.
fn alert(subject: &Subject<'_>, o: &mut Object<'_>) {
    let Some(alert) = &subject.alert else { return };
    o.object("rule", |o| {
        o.text("id", &alert.rule.id);
        o.text("name", &alert.rule.title);
        o.text("ruleset", "sigma");
        o.text_if("reference", alert.runbook.as_deref());
    });
    o.object("log", |o| o.text("level", alert.rule.level.as_str()));
    o.texts("tags", &alert.rule.tags);
    if !alert.attack.is_empty() {
        o.object("threat", |o| {
            o.text("framework", "MITRE ATT&CK");
            let tactics = alert.attack.first().map(|attack| &attack.tactics);
            o.object("tactic", |o| o.texts("name", tactics.into_iter().flatten()));
            let techniques = alert.attack.iter().filter_map(|attack| attack.technique.as_deref());
            let (sub, whole): (Vec<&str>, Vec<&str>) = techniques.partition(|id| id.contains('.'));
            let parents = sub.iter().filter_map(|id| Some(id.split_once('.')?.0)).chain(whole);
            let mut parents: Vec<&str> = parents.collect();
            parents.dedup();
            o.object("technique", |o| {
                o.texts("id", parents);
                o.object("subtechnique", |o| o.texts("id", sub));
            });
        });
    }
    o.object("kubewitness", |o| {
        o.object("alert", |o| {
            o.text("kind", alert.kind.as_str());
            o.number("count", i64::try_from(alert.count).unwrap_or(i64::MAX));
            o.text_if("actor_kind", alert.actor.kind.map(ActorKind::as_str));
            o.texts("audit_ids", alert.events.iter().map(|event| &event.audit_id));
            o.objects("reason", &alert.reason, |reason, o| {
                o.text("field", &reason.field);
                o.text("value", &reason.value);
                o.text("matched", &reason.matched);
            });
        });
    });
}

/// The members of the event itself; annotations without `.` in their keys, as Elastic's
/// integration has them.
fn tree(raw: &[u8], o: &mut Object<'_>) {
    for (key, value) in Value::of(raw).members() {
        if key == "annotations" && value.kind() == Type::Object {
            o.object("annotations", |o| {
                for (key, value) in value.members() {
                    o.member(&key.replace('.', "_"), value.raw());
                }
            });
        } else {
            o.member(&key, value.raw());
        }
    }
}

/// What is known of an event that is kept as text, and of an alert's last event.
fn summary(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    o.text_if("auditID", facts.audit_id.as_deref());
    o.text_if("stage", facts.stage.as_deref());
    o.text_if("level", facts.level.as_deref());
    o.text_if("verb", facts.verb.as_deref());
    o.text_if("requestURI", facts.uri.as_deref());
    o.object("user", |o| {
        o.text_if("username", facts.username.as_deref());
        o.texts("groups", &facts.groups);
    });
    o.object("objectRef", |o| {
        o.text_if("resource", facts.resource.as_deref());
        o.text_if("subresource", facts.subresource.as_deref());
        o.text_if("namespace", facts.namespace.as_deref());
        o.text_if("name", facts.name.as_deref());
        o.text_if("apiGroup", facts.api_group.as_deref());
    });
    o.object("responseStatus", |o| o.number_if("code", facts.code.map(i64::from)));
}
