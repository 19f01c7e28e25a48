//! The JSON that Falco sends: what falcosidekick takes, and through it its many outputs.

use crate::event::time::format_us;
use crate::rule::Level;
use crate::sinks::encode::Subject;
use crate::sinks::encode::json::Object;

/// Falco's priorities.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Informational => "Informational",
        Level::Low => "Notice",
        Level::Medium => "Warning",
        Level::High => "Error",
        Level::Critical => "Critical",
    }
}

pub(crate) fn encode(subject: &Subject<'_>, out: &mut Vec<u8>) {
    let facts = &subject.facts;
    let rule = subject.alert.as_ref().map(|alert| &alert.rule);
    let title = subject.title();
    let priority = match rule {
        Some(rule) => priority(rule.level),
        None if subject.is_notice => "Warning",
        None => "Debug",
    };
    Object::write(out, |o| {
        o.text("uuid", &subject.id);
        o.text("output", facts.summary.as_deref().unwrap_or(&title));
        o.text("priority", priority);
        o.text("rule", &title);
        o.text("time", &format_us(facts.time_us));
        o.text("source", "k8s_audit");
        o.text_if("hostname", Some(&facts.cluster));
        o.texts("tags", rule.iter().flat_map(|rule| &rule.tags));
        o.object("output_fields", |o| fields(subject, o));
    });
}

/// Falco's names of the fields of its Kubernetes audit source, and what it has no name for.
fn fields(subject: &Subject<'_>, o: &mut Object<'_>) {
    let facts = &subject.facts;
    o.text_if("ka.auditid", facts.audit_id.as_deref());
    o.text_if("ka.stage", facts.stage.as_deref());
    o.text_if("ka.verb", facts.verb.as_deref());
    o.text_if("ka.uri", facts.uri.as_deref());
    o.text_if("ka.user.name", facts.username.as_deref());
    o.text_if("ka.user.groups", Some(facts.groups.join(",")));
    o.text_if("ka.impuser.name", facts.impersonated.as_deref());
    o.text_if("ka.sourceips", Some(facts.source_ips.join(",")));
    o.text_if("ka.useragent", facts.user_agent.as_deref());
    o.text_if("ka.target.resource", facts.resource.as_deref());
    o.text_if("ka.target.subresource", facts.subresource.as_deref());
    o.text_if("ka.target.namespace", facts.namespace.as_deref());
    o.text_if("ka.target.name", facts.name.as_deref());
    o.text_if("ka.response.code", facts.code.map(|code| code.to_string()));
    o.text_if("ka.response.reason", facts.status_reason.as_deref());
    o.text_if("ka.auth.decision", facts.decision.as_deref());
    o.text_if("ka.auth.reason", facts.decision_reason.as_deref());
    if let Some(alert) = &subject.alert {
        o.text("kubewitness.alert.id", &alert.id);
        o.text("kubewitness.rule.id", &alert.rule.id);
        o.text("kubewitness.level", alert.rule.level.as_str());
        o.number("kubewitness.count", i64::try_from(alert.count).unwrap_or(i64::MAX));
    }
    o.text_if("kubewitness.cluster", Some(&facts.cluster));
    o.text_if("kubewitness.source_ip", facts.source_ip.as_deref());
}
