//! The normal form of a rule in words: what `rules convert` prints, and what the fingerprint is of.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::rule::operand::NEVER;
use crate::rule::{
    Aggregate, Body, Comparison, Condition, Correlation, CorrelationKind, Matcher, Pattern, Piece,
    Place, Quantifier, Rule, RuleExpression, RuleSet, TemporalCondition, Test, Threshold, TimePart,
};

/// How long an expression may be before it is broken into lines.
const WIDTH: usize = 88;

/// The rule in its normal form, over several lines.
pub fn rule(rule: &Rule) -> String {
    let mut text = format!("rule {} ({}): {}\n", rule.id, rule.level.as_str(), rule.title);
    let alerts = if rule.alerts { "yes" } else { "no, only through a correlation" };
    text.push_str(&format!("alerts: {alerts}\n"));
    match &rule.body {
        Body::Detection(condition) => {
            text.push_str("looks for:\n");
            text.push_str(&broken(condition, 1));
            text.push('\n');
        }
        Body::Correlation(body) => {
            for line in correlation(body) {
                text.push_str(&format!("{line}\n"));
            }
        }
    }
    text
}

impl RuleSet {
    /// SHA-256 over everything that decides what the rules alert on and what an alert says, in
    /// hexadecimal. It does not depend on files, comments, or the way a condition is written.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for rule in &self.rules {
            let body = self.fingerprint_of(rule);
            let tags = rule.tags.join(" ");
            for part in [&*rule.id, &*rule.title, rule.level.as_str(), &tags, &body] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        hexadecimal(&hash.finalize())
    }

    /// SHA-256 over what one of the rules looks for, the rules it refers to included, in
    /// hexadecimal: while it stays the same, the state of a correlation stays good.
    pub fn fingerprint_of(&self, rule: &Rule) -> String {
        let mut hash = Sha256::new();
        match &rule.body {
            Body::Detection(condition) => hash.update(unnamed(condition).as_bytes()),
            Body::Correlation(body) => {
                hash.update(correlation(body).join("\n").as_bytes());
                hash.update([u8::from(body.generate)]);
                for id in &body.rules {
                    let base = self.rules.binary_search_by(|other| other.id.cmp(id));
                    if let Ok(base) = base {
                        hash.update(self.fingerprint_of(&self.rules[base]).as_bytes());
                    }
                }
            }
        }
        hexadecimal(&hash.finalize())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The condition on one line, names of selections left out.
fn unnamed(condition: &Condition) -> String {
    let joined = |parts: &[Condition], word: &str| {
        let parts: Vec<String> = parts.iter().map(unnamed).collect();
        format!("({})", parts.join(word))
    };
    match condition {
        Condition::And(parts) => joined(parts, " and "),
        Condition::Or(parts) => joined(parts, " or "),
        Condition::Not(inner) => format!("not {}", unnamed(inner)),
        Condition::Named(_, inner) => unnamed(inner),
        Condition::Test(test) => self::test(test),
    }
}

/// The condition on one line: `verb is "get" and not (a exists or b > 5)`.
pub fn condition(condition: &Condition) -> String {
    match condition {
        Condition::And(parts) => parts.iter().map(grouped).collect::<Vec<_>>().join(" and "),
        Condition::Or(parts) => parts.iter().map(grouped).collect::<Vec<_>>().join(" or "),
        Condition::Not(inner) => format!("not {}", grouped(inner)),
        Condition::Named(name, inner) => {
            format!("{name}: ({})", self::condition(inner))
        }
        Condition::Test(test) => self::test(test),
    }
}

fn grouped(part: &Condition) -> String {
    match part {
        Condition::And(_) | Condition::Or(_) => format!("({})", condition(part)),
        _ => condition(part),
    }
}

/// The condition over as many lines as it needs, indented.
fn broken(part: &Condition, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let flat = condition(part);
    if flat.len() + indent.len() <= WIDTH {
        return format!("{indent}{flat}");
    }
    let lines = |parts: &[Condition], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| broken(part, depth + 1)).collect();
        format!("{indent}{word}:\n{}", parts.join("\n"))
    };
    match part {
        Condition::And(parts) => lines(parts, "all of"),
        Condition::Or(parts) => lines(parts, "any of"),
        Condition::Not(inner) => format!("{indent}not:\n{}", broken(inner, depth + 1)),
        Condition::Named(name, inner) => {
            format!("{indent}{name}:\n{}", broken(inner, depth + 1))
        }
        Condition::Test(Test { field, matcher: Matcher::Elements { quantifier, inner } }) => {
            let head = elements(field.as_deref().unwrap_or_default(), *quantifier);
            format!("{indent}{head}:\n{}", broken(inner, depth + 1))
        }
        Condition::Test(_) => format!("{indent}{flat}"),
    }
}

/// One test in words: `objectRef.name starts with "kube-"`.
pub fn test(test: &Test) -> String {
    let field = test.field.as_deref().unwrap_or("the event");
    match &test.matcher {
        Matcher::Text { pattern, cased } => {
            let exactly = if *cased { " (case matters)" } else { "" };
            let pattern = match test.field {
                Some(_) => pattern.clone(),
                None => inner(pattern),
            };
            let verb = if test.field.is_none() { "contains" } else { "" };
            format!("{field} {}{exactly}", text(&pattern, verb))
        }
        Matcher::Regex { source } if **source == *NEVER => {
            format!("{field} is in an empty list (never)")
        }
        Matcher::Regex { source } => format!("{field} matches {:?}", &**source),
        Matcher::Cidr(net) => format!("{field} is in {net}"),
        Matcher::Compare { op, than } => format!("{field} {} {than}", sign(*op)),
        Matcher::Null => format!("{field} is null"),
        Matcher::Exists(true) => format!("{field} exists"),
        Matcher::Exists(false) => format!("{field} does not exist"),
        Matcher::FieldRef { other, place, cased } => {
            let exactly = if *cased { " (case matters)" } else { "" };
            format!("{field} {} the value of {other}{exactly}", place_word(*place))
        }
        Matcher::TimePart { part, op, than } => {
            format!("{} of {field} {} {than}", part_word(*part), sign(*op))
        }
        Matcher::Elements { quantifier, inner } => {
            format!("{} ({})", elements(field, *quantifier), condition(inner))
        }
    }
}

/// A keyword's pattern without the runs around it.
fn inner(pattern: &Pattern) -> Pattern {
    let mut pieces = pattern.pieces.as_slice();
    if let [Piece::AnyRun, rest @ ..] = pieces {
        pieces = rest;
    }
    if let [rest @ .., Piece::AnyRun] = pieces {
        pieces = rest;
    }
    Pattern { pieces: pieces.to_vec() }
}

fn text(pattern: &Pattern, verb: &str) -> String {
    let word = |default: &str| if verb.is_empty() { default.to_owned() } else { verb.to_owned() };
    match pattern.pieces.as_slice() {
        [] => format!("{} \"\"", word("is")),
        [Piece::Literal(text)] => format!("{} {text:?}", word("is")),
        [Piece::Literal(text), Piece::AnyRun] => format!("{} {text:?}", word("starts with")),
        [Piece::AnyRun, Piece::Literal(text)] => format!("{} {text:?}", word("ends with")),
        [Piece::AnyRun, Piece::Literal(text), Piece::AnyRun] => {
            format!("{} {text:?}", word("contains"))
        }
        [Piece::AnyRun] => format!("{} anything", word("is")),
        _ => format!("{} like {:?}", word("is"), pattern.to_string()),
    }
}

fn sign(op: Comparison) -> &'static str {
    match op {
        Comparison::Eq => "=",
        Comparison::Neq => "!=",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
    }
}

fn place_word(place: Place) -> &'static str {
    match place {
        Place::Whole => "is",
        Place::Prefix => "starts with",
        Place::Suffix => "ends with",
        Place::Inside => "contains",
    }
}

fn part_word(part: TimePart) -> &'static str {
    match part {
        TimePart::Minute => "minute",
        TimePart::Hour => "hour",
        TimePart::Day => "day",
        TimePart::Week => "week",
        TimePart::Month => "month",
        TimePart::Year => "year",
    }
}

fn elements(field: &str, quantifier: Quantifier) -> String {
    match quantifier {
        Quantifier::Any => format!("some element of {field} holds"),
        Quantifier::All => format!("every element of {field}, and there is one, holds"),
        Quantifier::AllOrEmpty => format!("every element of {field} holds"),
        Quantifier::None => format!("no element of {field} holds"),
        Quantifier::Index(index) => format!("element {index} of {field} holds"),
    }
}

/// A correlation in words, a line a fact.
fn correlation(body: &Correlation) -> Vec<String> {
    let mut lines = vec![format!("over rules: {}", body.rules.join(", "))];
    lines.push(format!("alerts when: {}", kind(&body.kind, &body.rules)));
    lines.push(format!("within: {}", span(body.timespan_us)));
    if !body.group_by.is_empty() {
        lines.push(format!("for each: {}", body.group_by.join(", ")));
    }
    for (alias, fields) in &body.aliases {
        let fields: Vec<String> =
            fields.iter().map(|(rule, field)| format!("{field} of {rule}")).collect();
        lines.push(format!("where {alias} is: {}", fields.join(", ")));
    }
    lines
}

fn kind(kind: &CorrelationKind, ids: &[Arc<str>]) -> String {
    match kind {
        CorrelationKind::EventCount(limits) => format!("the number of matches {}", all(limits)),
        CorrelationKind::ValueCount { fields, thresholds } => {
            format!("the number of different values of {} {}", fields.join(" + "), all(thresholds))
        }
        CorrelationKind::Temporal(condition) => temporal(condition, ids, "in any order"),
        CorrelationKind::TemporalOrdered(condition) => temporal(condition, ids, "in this order"),
        CorrelationKind::Aggregate { function, field, thresholds } => {
            let function = match function {
                Aggregate::Sum => "sum".to_owned(),
                Aggregate::Avg => "mean".to_owned(),
                Aggregate::Percentile(percent) => format!("{percent}th percentile"),
            };
            format!("the {function} of {field} {}", all(thresholds))
        }
        CorrelationKind::NewTerms(terms) => {
            let what = match terms.dormant_us {
                Some(dormant) => format!("was not seen for {}", span(dormant)),
                None => "was never seen".to_owned(),
            };
            let learning = span(terms.learning_us);
            let least = terms.group_matches_min;
            let fields = terms.fields.join(" + ");
            format!("{fields} {what} (silent for {learning} and {least} matches)")
        }
    }
}

fn temporal(condition: &TemporalCondition, ids: &[Arc<str>], order: &str) -> String {
    match condition {
        TemporalCondition::All => format!("all of them matched {order}"),
        TemporalCondition::Count(limits) => {
            format!("the number of different ones that matched {order} {}", all(limits))
        }
        TemporalCondition::Expression(expression) => {
            format!("{} {order}", over_rules(expression, ids))
        }
    }
}

fn over_rules(expression: &RuleExpression, ids: &[Arc<str>]) -> String {
    let joined = |parts: &[RuleExpression], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| over_rules(part, ids)).collect();
        format!("({})", parts.join(word))
    };
    match expression {
        RuleExpression::Rule(index) => ids.get(*index).map(ToString::to_string).unwrap_or_default(),
        RuleExpression::And(parts) => joined(parts, " and "),
        RuleExpression::Or(parts) => joined(parts, " or "),
        RuleExpression::Not(inner) => format!("not {}", over_rules(inner, ids)),
    }
}

/// A span in the largest unit of Sigma that divides it.
fn span(span_us: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = span_us / 1_000_000;
    let unit = UNITS.iter().find(|(length, _)| seconds % length == 0 && seconds != 0);
    unit.map_or("0s".to_owned(), |(length, word)| format!("{}{word}", seconds / length))
}

fn all(limits: &[Threshold]) -> String {
    let limits: Vec<String> =
        limits.iter().map(|limit| format!("{} {}", sign(limit.op), limit.than)).collect();
    format!("is {}", limits.join(" and "))
}
