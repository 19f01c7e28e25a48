//! Bodies written by the user: a text with `{{field}}` in it.
//!
//! A field is written as the inside of a JSON string, so that no value of an event can end the
//! string it stands in; `{{json}}` is the whole item as JSON, to stand where a value may.

use crate::event::time::format_us;
use crate::sinks::encode::Subject;
use crate::sinks::encode::json::{lossy, put_text};
use crate::sinks::encode::native::put_flat;

/// A template that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// Text and the field behind it.
    parts: Vec<(String, Option<Field>)>,
}

/// What a template may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Time,
    Level,
    Title,
    Summary,
    RuleId,
    Cluster,
    Username,
    SourceIp,
    UserAgent,
    Verb,
    Resource,
    Namespace,
    Name,
    Code,
    Runbook,
    Json,
}

const FIELDS: [(&str, Field); 17] = [
    ("id", Field::Id),
    ("time", Field::Time),
    ("level", Field::Level),
    ("title", Field::Title),
    ("summary", Field::Summary),
    ("rule_id", Field::RuleId),
    ("cluster", Field::Cluster),
    ("username", Field::Username),
    ("source_ip", Field::SourceIp),
    ("user_agent", Field::UserAgent),
    ("verb", Field::Verb),
    ("resource", Field::Resource),
    ("namespace", Field::Namespace),
    ("name", Field::Name),
    ("code", Field::Code),
    ("runbook", Field::Runbook),
    ("json", Field::Json),
];

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("{{") {
            let (name, after) =
                behind.split_once("}}").ok_or("`template`: a {{ without its }}".to_owned())?;
            let field =
                FIELDS.iter().find(|(known, _)| *known == name.trim()).ok_or_else(|| {
                    let names = FIELDS.map(|(name, _)| name).join(", ");
                    format!("`template`: unknown field {name:?}, expected one of {names}")
                })?;
            parts.push((before.to_owned(), Some(field.1)));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        Ok(Template { parts })
    }

    /// Writes the body for an item; `json` are its stored bytes.
    pub(crate) fn write(&self, subject: &Subject<'_>, out: &mut Vec<u8>) {
        for (text, field) in &self.parts {
            out.extend_from_slice(text.as_bytes());
            match field {
                None => {}
                Some(Field::Json) => put_json(subject.raw, out),
                Some(field) => put_inside(&value(subject, *field), out),
            }
        }
    }
}

/// The item as JSON; as a text where it is none.
fn put_json(raw: &[u8], out: &mut Vec<u8>) {
    match serde_json::from_slice::<&serde_json::value::RawValue>(raw) {
        Ok(_) => put_flat(raw, out),
        Err(_) => put_text(&lossy(raw), out),
    }
}

/// A JSON string without its quotes.
fn put_inside(text: &str, out: &mut Vec<u8>) {
    let mut quoted = Vec::new();
    put_text(text, &mut quoted);
    out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default());
}

fn value(subject: &Subject<'_>, field: Field) -> String {
    let facts = &subject.facts;
    let rule = subject.alert.as_ref().map(|alert| &alert.rule);
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match field {
        Field::Id => subject.id.clone(),
        Field::Time => format_us(facts.time_us),
        Field::Level => own(rule.map(|rule| rule.level.as_str())),
        Field::Title => subject.title(),
        Field::Summary => own(facts.summary.as_deref()),
        Field::RuleId => own(rule.map(|rule| rule.id.as_str())),
        Field::Cluster => facts.cluster.to_string(),
        Field::Username => own(facts.username.as_deref()),
        Field::SourceIp => own(facts.source_ip.as_deref()),
        Field::UserAgent => own(facts.user_agent.as_deref()),
        Field::Verb => own(facts.verb.as_deref()),
        Field::Resource => own(facts.resource_type().as_deref()),
        Field::Namespace => own(facts.namespace.as_deref()),
        Field::Name => own(facts.name.as_deref()),
        Field::Code => facts.code.map(|code| code.to_string()).unwrap_or_default(),
        Field::Runbook => own(subject.alert.as_ref().and_then(|alert| alert.runbook.as_deref())),
        Field::Json => String::new(),
    }
}
