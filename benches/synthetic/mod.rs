//! Many rules made of the shipped ones, in two ways: copies that an index can rule out, and copies
//! that are candidates on the same events as their original.

use kubewitness::rule::number::Number;
use kubewitness::rule::{Body, Condition, Matcher, Pattern, Piece, Rule, RuleSet, Test};

/// How a copy differs from its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Every value but verbs is one of its own.
    Distinct,
    /// The condition stays, and one of a few users or user agents that nobody has must hold too.
    Live,
}

/// How many originals there are.
pub const ORIGINALS: usize = 100;

/// A hundred shipped detections, evenly picked, each with its copies: `100 * copies` rules.
pub fn synthetic(shipped: &RuleSet, copies: usize, way: Way) -> RuleSet {
    let is_detection = |rule: &&Rule| matches!(rule.body, Body::Detection(_));
    let detections: Vec<&Rule> = shipped.rules.iter().filter(is_detection).collect();
    let originals = (0..ORIGINALS).map(|n| detections[n * detections.len() / ORIGINALS]);
    let rules = originals.flat_map(|rule| (0..copies).map(move |number| copy(rule, number, way)));
    RuleSet { rules: rules.collect() }
}

/// Copy 0 is the original.
fn copy(rule: &Rule, number: usize, way: Way) -> Rule {
    let mut copy = rule.clone();
    copy.alerts = true;
    if let (Body::Detection(condition), true) = (&mut copy.body, number > 0) {
        copy.id = format!("{}-{number}", rule.id).into();
        match way {
            Way::Distinct => make_distinct(condition, number),
            Way::Live => *condition = Condition::And(vec![condition.clone(), nobody(number)]),
        }
    }
    copy
}

fn make_distinct(condition: &mut Condition, number: usize) {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter_mut().for_each(|part| make_distinct(part, number));
        }
        Condition::Not(part) | Condition::Named(_, part) => make_distinct(part, number),
        Condition::Test(test) if test.field.as_deref() == Some("verb") => {}
        Condition::Test(test) => match &mut test.matcher {
            Matcher::Text { pattern, .. } => {
                let literal = pattern.pieces.iter_mut().rev().find_map(|piece| match piece {
                    Piece::Literal(text) => Some(text),
                    Piece::AnyRun | Piece::AnyOne => None,
                });
                literal.into_iter().for_each(|text| text.push_str(&format!("-k{number}")));
            }
            Matcher::Regex { source } => *source = format!("(?:{source})-k{number}").into(),
            Matcher::Compare { than, .. } => {
                *than = Number::Real(than.to_f64() * 1_000.0 + number as f64)
            }
            Matcher::Elements { inner, .. } => make_distinct(inner, number),
            _ => {}
        },
    }
}

/// A condition that no event satisfies, on two fields that every event has.
fn nobody(number: usize) -> Condition {
    let contains = |field: &str, text: String| {
        let pieces = vec![Piece::AnyRun, Piece::Literal(text), Piece::AnyRun];
        let matcher = Matcher::Text { pattern: Pattern { pieces }, cased: false };
        Condition::Test(Test { field: Some(field.into()), matcher })
    };
    Condition::Or(vec![
        contains("user.username", format!("attacker-{number}")),
        contains("user.username", format!("mallory-{number}@")),
        contains("user.username", format!("evil-{number}:")),
        contains("userAgent", format!("evil-tool-{number}/")),
        contains("userAgent", format!("scanner{number}")),
    ])
}
