//! QRadar's Log Event Extended Format 2.0: `LEEF:2.0|vendor|product|version|event|x09|attributes`.
//!
//! Attributes stand apart by tabs; a value has no escape for a tab or a line end, so control
//! characters become blanks. In the header `|` becomes a blank too.

use crate::event::time;
use crate::rule::Level;
use crate::sinks::encode::cef::put_letter;
use crate::sinks::encode::{Subject, VENDOR, VERSION};

/// The longest value, in characters.
const VALUE_MAX: usize = 4_000;

/// 1 to 10, as the format has it.
fn severity(level: Level) -> &'static str {
    match level {
        Level::Informational => "1",
        Level::Low => "3",
        Level::Medium => "5",
        Level::High => "8",
        Level::Critical => "10",
    }
}

pub(crate) fn encode(subject: &Subject<'_>, out: &mut Vec<u8>) {
    let event = match (&subject.alert, subject.is_notice) {
        (Some(alert), _) => alert.rule.id.clone(),
        (None, true) => "audit-trail-notice".to_owned(),
        (None, false) => subject.title(),
    };
    out.extend_from_slice(b"LEEF:2.0|");
    for part in [VENDOR, VENDOR, VERSION, &event] {
        let part = part.replace(['|', '\t'], " ");
        part.chars().take(VALUE_MAX).for_each(|letter| put_letter(letter, out));
        out.push(b'|');
    }
    out.extend_from_slice(b"x09|");
    let start = out.len();
    attributes(subject, &mut |key, value| {
        if out.len() > start {
            out.push(b'\t');
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        value.chars().take(VALUE_MAX).for_each(|letter| put_letter(letter, out));
    });
}

/// Writes every attribute that the subject has; the first ones are QRadar's own.
fn attributes(subject: &Subject<'_>, put: &mut dyn FnMut(&str, &str)) {
    let facts = &subject.facts;
    let mut text = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            put(key, value);
        }
    };
    text("devTime", Some(&time::format_us(facts.time_us)));
    text("devTimeFormat", Some("yyyy-MM-dd'T'HH:mm:ss.SSSSSSX"));
    let rule = subject.alert.as_ref().map(|alert| &alert.rule);
    text("sev", Some(rule.map_or("1", |rule| severity(rule.level))));
    text("cat", Some(&subject.title()));
    text("usrName", facts.username.as_deref());
    text("src", facts.address().map(|address| address.to_string()).as_deref());
    text("role", Some(&facts.groups.join(",")));
    text("resource", facts.resource_type().as_deref());
    text("url", facts.uri.as_deref());
    text("identHostName", Some(&facts.cluster));
    text("id", Some(&subject.id));
    text("verb", facts.verb.as_deref());
    text("namespace", facts.namespace.as_deref());
    text("name", facts.name.as_deref());
    text("impersonated", facts.impersonated.as_deref());
    text("code", facts.code.map(|code| code.to_string()).as_deref());
    text("decision", facts.decision.as_deref());
    text("userAgent", facts.user_agent.as_deref());
    text("auditId", facts.audit_id.as_deref());
    text("stage", facts.stage.as_deref());
    if let Some(alert) = &subject.alert {
        text("level", Some(alert.rule.level.as_str()));
        text("count", Some(&alert.count.to_string()));
        let techniques = alert.attack.iter().filter_map(|attack| attack.technique.as_deref());
        text("technique", Some(&techniques.collect::<Vec<_>>().join(",")));
    }
    text("msg", facts.summary.as_deref());
}
