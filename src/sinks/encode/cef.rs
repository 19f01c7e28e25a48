//! ArcSight's Common Event Format: `CEF:0|vendor|product|version|signature|name|severity|fields`.
//!
//! In the header `\` and `|` are escaped, in a value `\`, `=` and line ends; other control
//! characters become blanks. Values are cut where the format's dictionary limits them.

use crate::rule::Level;
use crate::sinks::encode::{Subject, VENDOR, VERSION};

/// The longest value, in characters; the dictionary's limit for a message.
const VALUE_MAX: usize = 1_023;
/// The longest custom string, in characters.
const CUSTOM_MAX: usize = 4_000;

/// 0 to 10, as the format has it.
fn severity(level: Level) -> u8 {
    match level {
        Level::Informational => 1,
        Level::Low => 3,
        Level::Medium => 5,
        Level::High => 7,
        Level::Critical => 9,
    }
}

pub(crate) fn encode(subject: &Subject<'_>, out: &mut Vec<u8>) {
    let rule = subject.alert.as_ref().map(|alert| &alert.rule);
    let signature = match (rule, subject.is_notice) {
        (Some(rule), _) => rule.id.as_str(),
        (None, true) => "audit-trail-notice",
        (None, false) => "audit-event",
    };
    let severity = match rule {
        Some(rule) => severity(rule.level),
        None => u8::from(subject.is_notice) * 4 + 1,
    };
    out.extend_from_slice(b"CEF:0|");
    for part in [VENDOR, VENDOR, VERSION, signature, &subject.title()] {
        put_header(part, out);
        out.push(b'|');
    }
    out.extend_from_slice(format!("{severity}|").as_bytes());
    let start = out.len();
    fields(subject, &mut |key, value| {
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        put_value(value, if key.starts_with("cs") { CUSTOM_MAX } else { VALUE_MAX }, out);
    });
}

/// Writes every field that the subject has.
fn fields(subject: &Subject<'_>, put: &mut dyn FnMut(&str, &str)) {
    let facts = &subject.facts;
    let mut text = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            put(key, value);
        }
    };
    let mut custom = |number: u8, label: &str, value: Option<&str>| {
        if value.is_some_and(|value| !value.is_empty()) {
            text(&format!("cs{number}"), value);
            text(&format!("cs{number}Label"), Some(label));
        }
    };
    let groups = facts.groups.join(",");
    let forwarded = facts.source_ips.join(",");
    let is_forwarded = facts.source_ips.len() > 1;
    custom(1, "authorizationReason", facts.decision_reason.as_deref());
    custom(2, "groups", Some(&groups));
    custom(3, "forwardedFor", is_forwarded.then_some(forwarded.as_str()));
    custom(4, "apiGroup", facts.api_group.as_deref());
    custom(5, "credentialId", facts.credential_id.as_deref());
    let techniques = subject.alert.iter().flat_map(|alert| &alert.attack);
    let techniques: Vec<&str> =
        techniques.filter_map(|attack| attack.technique.as_deref()).collect();
    match &subject.alert {
        Some(_) => custom(6, "attackTechniques", Some(&techniques.join(","))),
        None => custom(6, "stage", facts.stage.as_deref()),
    }
    let code = facts.code.map(|code| code.to_string());
    text("cn1", code.as_deref());
    text("cn1Label", code.as_deref().map(|_| "code"));
    text("rt", Some(&facts.time_us.div_euclid(1_000).to_string()));
    let start = facts.start_us.map(|at| at.div_euclid(1_000).to_string());
    text("start", start.as_deref());
    text("externalId", Some(&subject.id));
    text("act", facts.verb.as_deref());
    text("outcome", (!subject.is_notice).then(|| facts.outcome().as_str()));
    text("suser", facts.username.as_deref());
    text("suid", facts.user_uid.as_deref());
    text("duser", facts.impersonated.as_deref());
    let address = facts.address().map(|address| address.to_string());
    let is_v6 = address.as_deref().is_some_and(|address| address.contains(':'));
    text(if is_v6 { "c6a2" } else { "src" }, address.as_deref());
    text("c6a2Label", is_v6.then_some("Source IPv6 Address"));
    text("requestClientApplication", facts.user_agent.as_deref());
    text("request", facts.uri.as_deref());
    text("requestMethod", facts.method());
    text("fileType", facts.resource_type().as_deref());
    text("fname", facts.name.as_deref());
    let path = facts
        .namespace
        .as_deref()
        .map(|namespace| format!("{namespace}/{}", facts.name.as_deref().unwrap_or_default()));
    text("filePath", path.as_deref());
    text("fileId", facts.uid.as_deref());
    text("deviceExternalId", Some(&facts.cluster));
    text("reason", facts.status_reason.as_deref());
    if let Some(alert) = &subject.alert {
        text("cat", Some(&format!("{}/{}", alert.kind.as_str(), alert.rule.level.as_str())));
        text("cnt", Some(&alert.count.to_string()));
        let last = alert.events.iter().map(|event| event.time.as_micros()).max();
        text("end", last.map(|at| at.div_euclid(1_000).to_string()).as_deref());
    }
    let message = facts.summary.as_deref().or(facts.status_message.as_deref());
    text("msg", message);
}

/// A header's part: `\` and `|` escaped, nothing that ends a line.
fn put_header(text: &str, out: &mut Vec<u8>) {
    if is_plain(text, VALUE_MAX) {
        return out.extend_from_slice(text.as_bytes());
    }
    for letter in text.chars().take(VALUE_MAX) {
        if matches!(letter, '\\' | '|') {
            out.push(b'\\');
        }
        put_letter(letter, out);
    }
}

/// A value: `\`, `=` and line ends escaped.
fn put_value(text: &str, letters_max: usize, out: &mut Vec<u8>) {
    if is_plain(text, letters_max) {
        return out.extend_from_slice(text.as_bytes());
    }
    for letter in text.chars().take(letters_max) {
        match letter {
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\\' | '=' => out.extend_from_slice(&[b'\\', letter as u8]),
            _ => put_letter(letter, out),
        }
    }
}

/// Whether nothing in it has to be cut, escaped or blanked; most texts are so.
fn is_plain(text: &str, letters_max: usize) -> bool {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'|' | b'=');
    text.len() <= letters_max && text.bytes().all(is_plain)
}

/// A character; what a terminal or a parser would take for a command is a blank.
pub(crate) fn put_letter(letter: char, out: &mut Vec<u8>) {
    let is_line_end = matches!(letter, '\u{2028}' | '\u{2029}');
    let letter = if letter.is_control() || is_line_end { ' ' } else { letter };
    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
}
