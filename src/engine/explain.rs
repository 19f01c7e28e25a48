//! Why a rule matched, or did not: the parts of its condition with the values they saw.

use std::fmt::Write as _;

use crate::engine::predicate::Check;
use crate::engine::program::{Expression, Program, State};
use crate::engine::values::{Item, Subject};
use crate::rule::{Comparison, Matcher, Pattern, Piece, Place, Quantifier};

/// One test that held, with the value that satisfied it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The field.
    pub field: String,
    /// The value, at most [`VALUE_CHARS_MAX`] characters of it; not redacted yet.
    pub value: String,
    /// What was asked: `endswith ":default"`.
    pub matched: String,
}

/// Longer values are cut in a reason; the event has them whole.
pub const VALUE_CHARS_MAX: usize = 300;
/// Reasons beyond this number add nothing for a reader.
const REASONS_MAX: usize = 20;

/// The positive tests that made an expression hold, in the order of evaluation.
pub fn reasons(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    subject: Subject<'_>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    collect(program, expression, state, subject, &mut reasons);
    reasons.truncate(REASONS_MAX);
    reasons
}

fn collect(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    subject: Subject<'_>,
    reasons: &mut Vec<Reason>,
) {
    match expression {
        Expression::And(parts) => {
            parts.iter().for_each(|part| collect(program, part, state, subject, reasons));
        }
        Expression::Or(parts) => {
            for part in parts.iter() {
                if program.holds(part, state, subject) {
                    collect(program, part, state, subject, reasons);
                }
            }
        }
        Expression::Not(_) => {}
        Expression::Named(_, part) => collect(program, part, state, subject, reasons),
        Expression::Predicate(id) => {
            let predicate = program.predicate(*id);
            let field = program.fields().name(predicate.field);
            state.values.find(program.fields(), subject, predicate.field);
            let mut items = state.values.items(predicate.field, subject.raw());
            let item = match &predicate.check {
                Check::Elements(Quantifier::None, _) => None,
                Check::Elements(_, block) => {
                    let mut inner = block.state(&[]);
                    let item = items.find(|item| block.holds_on_element(item, &mut inner));
                    if let Some(item) = item {
                        return collect_inside(block, field, &item, &mut inner, reasons);
                    }
                    None
                }
                Check::Null | Check::Exists(_) | Check::FieldRef(..) => items.next(),
                check => items.find(|item| check.holds_on(item)),
            };
            let reason = Reason {
                field: field.to_string(),
                value: item.map(|item| shown(&item)).unwrap_or_default(),
                matched: program.label(*id).to_owned(),
            };
            push(reason, reasons);
        }
    }
}

fn push(reason: Reason, reasons: &mut Vec<Reason>) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}

/// The reasons of a block of conditions for the element that satisfies it, by the fields' whole
/// paths: by them it is known which values are secret.
fn collect_inside(
    block: &Program,
    field: &str,
    item: &Item<'_>,
    state: &mut State,
    reasons: &mut Vec<Reason>,
) {
    let mut inside = Vec::new();
    block.with_element(item, state, &mut |subject, state| {
        for expression in block.expressions() {
            collect(block, expression, state, subject, &mut inside);
        }
    });
    for reason in inside {
        let field = match reason.field.as_str() {
            "." => field.to_owned(),
            path => format!("{field}.{path}"),
        };
        push(Reason { field, ..reason }, reasons);
    }
}

fn shown(item: &Item<'_>) -> String {
    match item {
        Item::Json(value) if item.is_container() => {
            // A whole body may be megabytes; no character takes more than four of its bytes.
            let start = &value.raw()[..value.raw().len().min(4 * VALUE_CHARS_MAX + 4)];
            shorten(&String::from_utf8_lossy(start))
        }
        item => item.text().map(|text| shorten(&text)).unwrap_or_default(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// Makes of the value of a field what may be shown of it.
type Show<'s> = &'s mut dyn FnMut(&str, &str) -> String;

/// The whole condition, one part a line, indented, `+` before what holds and `-` before what does
/// not. `show` makes of a field's value what may be shown.
pub fn explain(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    subject: Subject<'_>,
    show: Show<'_>,
) -> String {
    let mut text = String::new();
    write_part(program, expression, state, (subject, 0), show, &mut text);
    text
}

fn write_part(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    (subject, depth): (Subject<'_>, usize),
    show: Show<'_>,
    text: &mut String,
) {
    let mark = if program.holds(expression, state, subject) { '+' } else { '-' };
    let indent = "  ".repeat(depth);
    let (line, parts): (String, Vec<&Expression>) = match expression {
        Expression::And(parts) => ("all of".to_owned(), parts.iter().collect()),
        Expression::Or(parts) => ("any of".to_owned(), parts.iter().collect()),
        Expression::Not(part) => ("not".to_owned(), vec![part]),
        Expression::Named(name, part) => (format!("{name}:"), vec![part]),
        Expression::Predicate(id) => {
            let field = program.predicate(*id).field;
            let name = program.fields().name(field);
            let seen = program.text(field, state, subject);
            let seen = seen.map(|seen| format!("{:?}", shorten(&show(name, &seen))));
            let seen = seen.unwrap_or_else(|| "nothing".to_owned());
            (format!("{name} {} (saw {seen})", program.label(*id)), Vec::new())
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{mark} {indent}{line}");
    for part in parts {
        write_part(program, part, state, (subject, depth + 1), show, text);
    }
}

/// What a matcher asks, for people. Equal labels mean equal checks, blocks and kinds of numbers
/// aside: literals in it are escaped.
pub fn label(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Text { pattern, cased } => {
            let cased = if *cased { "cased " } else { "" };
            format!("{cased}{}", pattern_label(pattern))
        }
        Matcher::Regex { source } => format!("re {source:?}"),
        Matcher::Cidr(net) => format!("cidr {net}"),
        Matcher::Compare { op, than } => format!("{} {than}", comparison(*op)),
        Matcher::Null => "is null or absent".to_owned(),
        Matcher::Exists(true) => "exists".to_owned(),
        Matcher::Exists(false) => "does not exist".to_owned(),
        Matcher::FieldRef { other, place, cased } => {
            let place = match place {
                Place::Whole => "equals",
                Place::Prefix => "startswith",
                Place::Suffix => "endswith",
                Place::Inside => "contains",
            };
            format!("{}{place} field {other}", if *cased { "cased " } else { "" })
        }
        Matcher::TimePart { part, op, than } => {
            format!("{part:?} {} {than}", comparison(*op)).to_lowercase()
        }
        Matcher::Elements { quantifier, .. } => match quantifier {
            Quantifier::Any => "has an element as described".to_owned(),
            Quantifier::All => "has only elements as described".to_owned(),
            Quantifier::AllOrEmpty => "has no element other than described".to_owned(),
            Quantifier::None => "has no element as described".to_owned(),
            Quantifier::Index(index) => format!("has element {index} as described"),
        },
    }
}

fn comparison(op: Comparison) -> &'static str {
    match op {
        Comparison::Eq => "=",
        Comparison::Neq => "!=",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
    }
}

fn pattern_label(pattern: &Pattern) -> String {
    match pattern.pieces.as_slice() {
        [] => "is empty".to_owned(),
        [Piece::AnyRun] => "has a value".to_owned(),
        [Piece::Literal(text)] => format!("is {text:?}"),
        [Piece::Literal(text), Piece::AnyRun] => format!("startswith {text:?}"),
        [Piece::AnyRun, Piece::Literal(text)] => format!("endswith {text:?}"),
        [Piece::AnyRun, Piece::Literal(text), Piece::AnyRun] => format!("contains {text:?}"),
        pieces => {
            let mut shown = String::new();
            for piece in pieces {
                match piece {
                    Piece::AnyRun => shown.push('*'),
                    Piece::AnyOne => shown.push('?'),
                    Piece::Literal(text) => {
                        for c in text.chars() {
                            shown.extend(matches!(c, '*' | '?' | '\\').then_some('\\'));
                            shown.push(c);
                        }
                    }
                }
            }
            format!("is like {shown:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::field::Shape;
    use crate::event::Event;
    use crate::rule::load::{Options, load_texts};

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","level":"RequestResponse","stage":"ResponseComplete","verb":"create","objectRef":{"resource":"pods"},"requestObject":{"kind":"Pod","spec":{"containers":[{"name":"x"},{"name":"c","env":[{"name":"DB_PASSWORD","value":"hunter2"}]}]}}}"#;

    fn reasons_for(detection: &str) -> Vec<(String, String)> {
        let text = format!(
            "title: t\nid: t\nlogsource: {{product: kubernetes, service: audit}}\n\
             detection:\n  s:\n    {detection}\n  condition: s\n"
        );
        let rules = load_texts(&[("t.yml".into(), text)], &Options::default()).unwrap();
        let engine = Engine::compile(rules, Shape::Audit, &[]).unwrap();
        let event = Event::parse(EVENT.as_bytes()).unwrap();
        let mut scratch = engine.scratch();
        assert_eq!(engine.evaluate(Subject::Audit(&event), &mut scratch), [0], "{detection}");
        let reasons = engine.reasons(0, Subject::Audit(&event), &mut scratch);
        reasons.into_iter().map(|reason| (reason.field, reason.value)).collect()
    }

    #[test]
    fn no_reason_shows_what_stands_around() {
        const CONTAINERS: &str = "requestObject.spec.containers";
        for (detection, field, value) in [
            (
                "requestObject.spec.containers[any].env[any].name|contains: pass",
                format!("{CONTAINERS}.env.name"),
                "DB_PASSWORD",
            ),
            ("requestObject.spec.containers[any]: {name: c}", format!("{CONTAINERS}.name"), "c"),
            ("requestObject.spec.containers[1]: {name: c}", format!("{CONTAINERS}.name"), "c"),
            (
                "pod.container.env[any]: {name|endswith: WORD}",
                "pod.container.env.name".to_owned(),
                "DB_PASSWORD",
            ),
        ] {
            let reasons = reasons_for(detection);
            assert_eq!(reasons, [(field, value.to_owned())], "{detection}");
        }
    }
}
