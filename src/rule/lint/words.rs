//! Values that a field of an audit event, or a part of a time, never has.

use crate::rule::TimePart;
use crate::rule::modifier::Modifier;
use crate::rule::problem::did_you_mean;
use crate::rule::taxonomy::{AUDIT_LEVELS, METHOD_VERBS, RESOURCE_VERBS, STAGES};
use crate::rule::yaml::{Node, Value};

/// The words that stand for a decision in the place of a status code.
const DECISIONS: [&str; 3] = ["ALLOW", "FORBID", "DENY"];

/// What is wrong with the values of a field that are compared whole: lines and messages.
pub fn of_field(field: &str, node: &Node) -> Vec<(usize, String)> {
    let known = match field {
        "verb" => [&RESOURCE_VERBS[..], &METHOD_VERBS].concat(),
        "stage" => STAGES.to_vec(),
        "level" => AUDIT_LEVELS.to_vec(),
        "responseStatus.code" => DECISIONS.to_vec(),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for item in items(node) {
        let Some(word) = item.as_text().filter(|word| !word.contains(['*', '?', '%'])) else {
            continue;
        };
        if known.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            continue;
        }
        let hint = match (field, word) {
            ("verb", "replace") => " (did you mean \"update\"?)".to_owned(),
            ("responseStatus.code", _) if word.bytes().all(|byte| byte.is_ascii_digit()) => {
                continue;
            }
            ("responseStatus.code", _) => ", but a number".to_owned(),
            _ => did_you_mean(word, known.iter().copied()),
        };
        // Clients send what methods they like: only what looks misspelt is worth a word.
        if field == "verb" && (hint.is_empty() || word.len() < 4) {
            continue;
        }
        found.push((item.line, format!("{field} is never {word:?}{hint}")));
    }
    found
}

/// What is wrong with values that a part of a time is compared with.
pub fn of_times<'m>(modifiers: impl Iterator<Item = &'m str>, node: &Node) -> Vec<(usize, String)> {
    let part = modifiers.filter_map(|name| match Modifier::parse(name) {
        Ok(Modifier::Part(part)) => Some((name, part)),
        _ => None,
    });
    let Some((name, part)) = part.last() else { return Vec::new() };
    let (least, most) = match part {
        TimePart::Minute => (0, 59),
        TimePart::Hour => (0, 23),
        TimePart::Day => (1, 31),
        TimePart::Week => (1, 53),
        TimePart::Month => (1, 12),
        TimePart::Year => (0, 9_999),
    };
    let mut found = Vec::new();
    for item in items(node) {
        if let Value::Integer(number) = &item.value
            && number.parse().is_ok_and(|number: i64| !(least..=most).contains(&number))
        {
            let message = format!("{name} is never {number}, but from {least} to {most}");
            found.push((item.line, message));
        }
    }
    found
}

/// What is wrong with a date of a rule.
pub fn of_date(node: &Node) -> Option<String> {
    if node.value == Value::Null {
        return None;
    }
    let text = node.scalar_text().unwrap_or_default();
    let is_date = text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    (!is_date).then(|| format!("{text:?} is no date; write for instance 2026-08-01"))
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    }
}
