//! Why a rule matched, or did not: the parts of its condition with the values they saw.

use std::fmt::Write as _;

use crate::engine::predicate::{Check, PredicateId};
use crate::engine::program::{Expression, Program, State};
use crate::engine::values::Subject;
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
            let reason = Reason {
                field: program.fields().name(program.predicate(*id).field).to_string(),
                value: witness(program, *id, state, subject).unwrap_or_default(),
                matched: program.label(*id).to_owned(),
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
}

/// The value that satisfies a predicate; for a check on the whole field, its first value.
fn witness(
    program: &Program,
    id: PredicateId,
    state: &mut State,
    subject: Subject<'_>,
) -> Option<String> {
    let predicate = program.predicate(id);
    state.values.find(program.fields(), subject, predicate.field);
    let holds = |item: &crate::engine::values::Item<'_>| match &predicate.check {
        Check::Elements(Quantifier::None, _) => false,
        Check::Elements(_, block) => block.holds_on_element(item, &mut block.state(&[])),
        Check::Null | Check::Exists(_) | Check::FieldRef(..) => true,
        check => check.holds_on(item),
    };
    let item = state.values.items(predicate.field, subject.raw()).find(holds)?;
    match &item {
        crate::engine::values::Item::Json(value) if item.is_container() => {
            // A whole body may be megabytes; no character takes more than four of its bytes.
            let start = &value.raw()[..value.raw().len().min(4 * VALUE_CHARS_MAX + 4)];
            Some(shorten(&String::from_utf8_lossy(start)))
        }
        item => Some(shorten(&item.text()?)),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// The whole condition, one part a line, indented, `+` before what holds and `-` before what does
/// not.
pub fn explain(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    subject: Subject<'_>,
) -> String {
    let mut text = String::new();
    write_part(program, expression, state, subject, 0, &mut text);
    text
}

fn write_part(
    program: &Program,
    expression: &Expression,
    state: &mut State,
    subject: Subject<'_>,
    depth: usize,
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
            let seen = seen.map_or("nothing".to_owned(), |seen| format!("{:?}", shorten(&seen)));
            (format!("{name} {} (saw {seen})", program.label(*id)), Vec::new())
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{mark} {indent}{line}");
    for part in parts {
        write_part(program, part, state, subject, depth + 1, text);
    }
}

/// What a matcher asks, for people. Equal labels mean equal checks, blocks aside.
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
                        shown.push_str(&text.replace('*', "\\*").replace('?', "\\?"));
                    }
                }
            }
            format!("is like {shown:?}")
        }
    }
}
