//! One alert a row, for spreadsheets.
//!
//! A cell that a spreadsheet would take for a formula gets a leading `'`. That is also done after a
//! `;` inside a cell: where the list separator is `;`, a spreadsheet splits there in spite of the
//! quotes. All cells are quoted. Several values in a cell are separated by ` | `.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::alert::Alert;
use crate::report::escape::visible;

const HEADER: [&str; 33] = [
    "id",
    "time",
    "level",
    "kind",
    "cluster",
    "rule_id",
    "rule",
    "techniques",
    "tactics",
    "username",
    "actor_kind",
    "impersonated",
    "groups",
    "source_ip",
    "source_ips",
    "user_agent",
    "credential_id",
    "verb",
    "uri",
    "resource",
    "subresource",
    "api_group",
    "namespace",
    "name",
    "decision",
    "code",
    "summary",
    "reason",
    "count",
    "audit_id",
    "position",
    "tags",
    "runbook",
];

pub(crate) struct Csv<'w> {
    rows: csv::Writer<&'w mut dyn Write>,
}

impl<'w> Csv<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> io::Result<Csv<'w>> {
        let mut rows =
            csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(out);
        rows.write_record(HEADER)?;
        Ok(Csv { rows })
    }

    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        let cells = cells(alert);
        self.rows.write_record(cells.iter().map(|cell| neutral(cell).into_owned()))?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.rows.flush()
    }
}

/// The values of a row, parallel to [`HEADER`].
fn cells(alert: &Alert) -> [Cow<'_, str>; 33] {
    let Alert { rule, actor, request, .. } = alert;
    let techniques = alert.attack.iter().filter_map(|attack| attack.technique.as_deref());
    let mut tactics: Vec<&str> =
        alert.attack.iter().flat_map(|attack| &attack.tactics).map(String::as_str).collect();
    let mut seen = Vec::new();
    tactics.retain(|tactic| {
        !seen.contains(tactic) && {
            seen.push(*tactic);
            true
        }
    });
    let reasons = alert
        .reason
        .iter()
        .map(|reason| format!("{}: {} ({})", reason.field, reason.value, reason.matched))
        .collect::<Vec<_>>();
    let first = alert.events.first();
    [
        text(&alert.id),
        alert.time.to_string().into(),
        rule.level.as_str().into(),
        alert.kind.as_str().into(),
        text(&alert.cluster),
        text(&rule.id),
        text(&rule.title),
        joined(techniques),
        joined(tactics),
        option(&actor.username),
        actor.kind.map_or("", |kind| kind.as_str()).into(),
        option(&actor.impersonated),
        joined(actor.groups.iter().map(String::as_str)),
        option(&actor.source_ip),
        joined(actor.source_ips.iter().map(String::as_str)),
        option(&actor.user_agent),
        option(&actor.credential_id),
        option(&request.verb),
        option(&request.uri),
        option(&request.resource),
        option(&request.subresource),
        option(&request.api_group),
        option(&request.namespace),
        option(&request.name),
        option(&request.decision),
        request.code.map_or(Cow::Borrowed(""), |code| code.to_string().into()),
        text(&alert.summary),
        joined(reasons.iter().map(String::as_str)),
        alert.count.to_string().into(),
        first.map_or(Cow::Borrowed(""), |event| text(&event.audit_id)),
        first.map_or(Cow::Borrowed(""), |event| text(&event.position)),
        joined(rule.tags.iter().map(String::as_str)),
        option(&alert.runbook),
    ]
}

fn text(value: &str) -> Cow<'_, str> {
    Cow::Borrowed(value)
}

fn option(value: &Option<String>) -> Cow<'_, str> {
    Cow::Borrowed(value.as_deref().unwrap_or_default())
}

fn joined<'a>(values: impl IntoIterator<Item = &'a str>) -> Cow<'static, str> {
    Cow::Owned(values.into_iter().collect::<Vec<_>>().join(" | "))
}

/// The cell as a spreadsheet may see it: visible, and no formula.
fn neutral(cell: &str) -> Cow<'_, str> {
    let shown = visible(cell);
    let starts = starts_formula(cell);
    if !starts && !shown.split(';').skip(1).any(starts_formula) {
        return shown;
    }
    let mut safe = String::with_capacity(shown.len() + 4);
    for (index, part) in shown.split(';').enumerate() {
        if index > 0 {
            safe.push(';');
        }
        if (index == 0 && starts) || starts_formula(part) {
            safe.push('\'');
        }
        safe.push_str(part);
    }
    Cow::Owned(safe)
}

/// Whether a spreadsheet may read the text as a formula: `=`, `+`, `-`, `@` or their full-width
/// forms, also after blanks, or a leading tab or line break.
fn starts_formula(text: &str) -> bool {
    text.starts_with(['\t', '\r', '\n'])
        || text
            .trim_start_matches(|c: char| c.is_whitespace() || c == '"')
            .starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '−', '﹢', '﹣'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_neutralised() {
        let cases = [
            ("plain", "plain"),
            ("a=b", "a=b"),
            ("=HYPERLINK(\"x\")", "'=HYPERLINK(\"x\")"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\\u{9}=1"),
            ("\r=1", "'\\u{d}=1"),
            ("  =1", "'  =1"),
            ("＝1", "'＝1"),
            ("a;=cmd|' /C calc'!A0", "a;'=cmd|' /C calc'!A0"),
            ("Mozilla (x; y)", "Mozilla (x; y)"),
            ("\u{1b}]0;pwn\u{7}", "\\u{1b}]0;pwn\\u{7}"),
        ];
        for (cell, expected) in cases {
            assert_eq!(neutral(cell), expected);
        }
    }
}
