//! One sentence a person can act on: who did what to what, and whether it worked.
//!
//! Values stand as they are in the event, long ones shortened in the middle; whoever shows the
//! sentence makes it harmless, as for every other value.

mod act;

use std::fmt::Write;

use crate::alert::summary::act::Act;
use crate::alert::{Actor, Request};
use crate::event::actor::ActorKind;

/// The longest value that a summary quotes whole, in characters.
const VALUE_CHARS_MAX: usize = 120;

/// The longest summary, in characters; beyond what ordinary names can make.
const SUMMARY_CHARS_MAX: usize = 700;

/// What a summary is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who did it.
    pub actor: &'a Actor,
    /// What was asked.
    pub request: &'a Request,
    /// The command of an exec, decoded (`request.command`); `None` or empty when there is none.
    pub command: Option<&'a str>,
    /// The rule's title: all there is to say of an event that was cut before its verb.
    pub rule_title: &'a str,
    /// Of a correlation: what came together.
    pub window: Option<Window<'a>>,
}

/// What came together in a correlation.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// How many events.
    pub count: u64,
    /// The fields that they share and their values, in the rule's order.
    pub group_by: &'a [(String, String)],
    /// The rule's time span, in microseconds.
    pub timespan_us: i64,
}

/// Says what happened.
///
/// `alice (user, from 10.0.0.7) listed secrets in all namespaces: allowed (200)`; of a correlation
/// `Burst of failed authentication: 12 events from 10.0.0.7 within 1m, the last: …`.
pub fn summarise(facts: Facts<'_>) -> String {
    let sentence = request_sentence(&facts);
    let summary = match facts.window {
        None => sentence.unwrap_or_else(|| facts.rule_title.to_owned()),
        Some(window) => window_sentence(facts.rule_title, window, sentence),
    };
    shorten(&summary, SUMMARY_CHARS_MAX)
}

fn window_sentence(rule_title: &str, window: Window<'_>, sentence: Option<String>) -> String {
    let mut summary = rule_title.to_owned();
    if window.count > 1 {
        let _ = write!(summary, ": {} events", window.count);
        for (field, value) in window.group_by {
            let _ = write!(summary, " {}", shared(field, &shorten(value, VALUE_CHARS_MAX)));
        }
        let _ = write!(summary, " within {}", span(window.timespan_us));
        if let Some(sentence) = sentence {
            let _ = write!(summary, ", the last: {sentence}");
        }
    } else if let Some(sentence) = sentence {
        let _ = write!(summary, ": {sentence}");
    }
    summary
}

fn request_sentence(facts: &Facts<'_>) -> Option<String> {
    let act = Act::of(facts.request, facts.command)?;
    let who = subject(facts.actor, facts.request);
    let (outcome, known) = outcome(facts.request);
    let Act { base, past, object, .. } = act;
    let mut sentence = match known {
        Outcome::Done => format!("{who} {past} {object}"),
        Outcome::Refused => format!("{who} tried to {base} {object}"),
        Outcome::Unknown => format!("{who} asked to {base} {object}"),
    };
    if is_dry_run(facts.request) {
        sentence.push_str(" as a dry run");
    }
    if !outcome.is_empty() {
        let _ = write!(sentence, ": {outcome}");
    }
    Some(sentence)
}

fn is_dry_run(request: &Request) -> bool {
    let query = request.uri.as_deref().and_then(|uri| uri.split_once('?')).map(|(_, query)| query);
    query.is_some_and(|query| query.split('&').any(|pair| pair == "dryRun=All"))
}

/// `alice (user, from 10.0.0.7) as root`; the kind only where the name does not tell it.
fn subject(actor: &Actor, request: &Request) -> String {
    let name = match actor.username.as_deref() {
        None | Some("") if request.code == Some(401) => "an unauthenticated client".to_owned(),
        None | Some("") => "an unknown user".to_owned(),
        Some(name) => shorten(name, VALUE_CHARS_MAX),
    };
    let kind = match actor.kind {
        Some(ActorKind::User) if actor.username.is_some() => "user",
        Some(ActorKind::Anonymous) => "not authenticated",
        _ => "",
    };
    let from = match actor.source_ip.as_deref() {
        None | Some("") => String::new(),
        Some(address) => format!("from {}", shorten(address, VALUE_CHARS_MAX)),
    };
    let mut subject = match (kind, from.as_str()) {
        ("", "") => name,
        ("", detail) | (detail, "") => format!("{name} ({detail})"),
        (kind, from) => format!("{name} ({kind}, {from})"),
    };
    if let Some(other) = actor.impersonated.as_deref().filter(|other| !other.is_empty()) {
        let _ = write!(subject, " acting as {}", shorten(other, VALUE_CHARS_MAX));
    }
    subject
}

enum Outcome {
    Done,
    Refused,
    Unknown,
}

/// The words for the answer, and which form of the verb is true.
fn outcome(request: &Request) -> (String, Outcome) {
    let forbidden = request.decision.as_deref() == Some("forbid");
    match request.code {
        Some(401) => ("not authenticated (401)".to_owned(), Outcome::Refused),
        Some(403) => ("denied (403)".to_owned(), Outcome::Refused),
        Some(code) if forbidden => (format!("denied ({code})"), Outcome::Refused),
        Some(code) if code >= 400 => (format!("failed ({code})"), Outcome::Refused),
        Some(code) => (format!("allowed ({code})"), Outcome::Done),
        None if forbidden => ("denied".to_owned(), Outcome::Refused),
        None if request.decision.as_deref() == Some("allow") => {
            ("allowed, answer unknown".to_owned(), Outcome::Unknown)
        }
        None => (String::new(), Outcome::Unknown),
    }
}

/// What the events of a correlation have in common.
fn shared(field: &str, value: &str) -> String {
    match field {
        "actor.source_ip" | "sourceIPs" => format!("from {value}"),
        "actor.name" | "user.username" => format!("by {value}"),
        "impersonatedUser.username" => format!("acting as {value}"),
        "objectRef.namespace" => format!("in namespace {value}"),
        "objectRef.resource" | "objectRef.name" => format!("on {value}"),
        "userAgent" | "actor.user_agent_family" => format!("with {value}"),
        _ => format!("with {field} {value}"),
    }
}

/// `90s` as `1m30s`: the two largest units that are not zero.
fn span(timespan_us: i64) -> String {
    const UNITS: [(&str, i64); 5] = [
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1000),
    ];
    let mut rest = timespan_us.max(0);
    let mut text = String::new();
    let mut written = 0;
    for (unit, micros) in UNITS {
        let whole = rest / micros;
        if whole > 0 && written < 2 {
            let _ = write!(text, "{whole}{unit}");
            written += 1;
            rest %= micros;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Cuts the middle out of a text of more than `chars_max` characters.
fn shorten(text: &str, chars_max: usize) -> String {
    let chars = text.chars().count();
    if chars <= chars_max {
        return text.to_owned();
    }
    let head = chars_max / 2;
    let tail = chars_max - head - 1;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(chars - tail).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests;
