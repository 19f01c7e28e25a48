//! A slow, obvious evaluator: what a condition means, written down straight from the specification.
//!
//! It parses the event anew into its own tree (numbers keep their text), and looks at every value
//! for every test. The engine must agree with it.

use std::net::IpAddr;

use kubewitness::rule::number::Number;
use kubewitness::rule::{
    Comparison, Condition, Matcher, Pattern, Piece, Place, Quantifier, Test, TimePart,
};
use serde_json::value::RawValue;

/// A JSON value; a number is its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    /// Numbers and booleans: with equal numbers as equal texts, and as they are written.
    Token(String, String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Json {
        let text = text.trim();
        let raw = |value: &RawValue| Json::parse(value.get());
        match text.as_bytes()[0] {
            b'n' => Json::Null,
            b'"' => Json::Text(serde_json::from_str(text).unwrap()),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
                Json::Array(items.into_iter().map(raw).collect())
            }
            b'{' => {
                let members: Members<'_> = serde_json::from_str(text).unwrap();
                let member = |(key, value): (String, &RawValue)| (key, raw(value));
                Json::Object(members.0.into_iter().map(member).collect())
            }
            _ => Json::Token(plain_number(text), text.to_owned()),
        }
    }

    fn text(&self) -> Option<&str> {
        self.texts().next()
    }

    /// Whatever a text may be compared with.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let (text, written) = match self {
            Json::Token(text, written) => (Some(text), Some(written)),
            Json::Text(text) => (Some(text), None),
            Json::Null | Json::Array(_) | Json::Object(_) => (None, None),
        };
        text.into_iter().chain(written).map(String::as_str)
    }
}

/// A number without exponent and needless zeros: `5.0` and `50e-1` are `5`. By moving the point a
/// digit at a time.
fn plain_number(text: &str) -> String {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (Ok(_), Ok(mut exponent @ -50..=50)) = (text.parse::<f64>(), exponent.parse::<i32>())
    else {
        return text.to_owned();
    };
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (mut whole, mut fraction) = (whole.to_owned(), fraction.to_owned());
    while exponent > 0 {
        whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        exponent -= 1;
    }
    while exponent < 0 {
        fraction.insert(0, whole.pop().unwrap_or('0'));
        exponent += 1;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// The members of an object in their order, duplicates kept.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: serde::de::MapAccess<'de>>(
                self,
                mut map: M,
            ) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Whether the condition holds for an event, given as JSON text.
pub fn holds(condition: &Condition, event: &str) -> bool {
    Event { text: event, json: Json::parse(event) }.holds(condition)
}

struct Event<'a> {
    text: &'a str,
    json: Json,
}

impl Event<'_> {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::And(parts) => parts.iter().all(|part| self.holds(part)),
            Condition::Or(parts) => parts.iter().any(|part| self.holds(part)),
            Condition::Not(inner) => !self.holds(inner),
            Condition::Named(_, inner) => self.holds(inner),
            Condition::Test(test) => self.test(test),
        }
    }

    fn test(&self, test: &Test) -> bool {
        let found = match &test.field {
            Some(field) => found(&self.json, field),
            // A keyword looks at the whole event as text, its JSON escapes resolved.
            None => vec![Json::Text(unescaped(self.text))],
        };
        match &test.matcher {
            Matcher::Exists(expected) => *expected != found.is_empty(),
            Matcher::Null => spread(found).iter().all(|value| *value == Json::Null),
            Matcher::Elements { quantifier: Quantifier::Index(index), inner } => {
                let at = |value: Json| match value {
                    Json::Array(items) => items.get(*index).cloned(),
                    other => Some(other).filter(|_| *index == 0),
                };
                let holds = |element: Json| Event { text: "", json: element }.holds(inner);
                found.into_iter().filter_map(at).any(holds)
            }
            Matcher::Elements { quantifier, inner } => {
                let elements = spread(found);
                let holds = |element: &Json| Event { text: "", json: element.clone() }.holds(inner);
                match quantifier {
                    Quantifier::Any => elements.iter().any(holds),
                    Quantifier::All => !elements.is_empty() && elements.iter().all(holds),
                    Quantifier::AllOrEmpty => elements.iter().all(holds),
                    Quantifier::None => !elements.iter().any(holds),
                    Quantifier::Index(_) => unreachable!("asked above"),
                }
            }
            Matcher::FieldRef { other, place, cased } => {
                let others = spread(self.found(other));
                let values = spread(found);
                let mut pairs = values.iter().flat_map(Json::texts).flat_map(|value| {
                    others.iter().flat_map(Json::texts).map(move |other| (value, other))
                });
                pairs.any(|(value, other)| {
                    stands(&fold(value, *cased), &fold(other, *cased), *place)
                })
            }
            matcher => spread(found).iter().any(|value| value_holds(value, matcher)),
        }
    }

    fn found(&self, field: &str) -> Vec<Json> {
        found(&self.json, field)
    }
}

fn value_holds(value: &Json, matcher: &Matcher) -> bool {
    if let Matcher::Text { pattern: Pattern { pieces }, .. } = matcher
        && *pieces == [Piece::AnyRun]
    {
        return *value != Json::Null;
    }
    let Some(text) = value.text() else { return false };
    match matcher {
        Matcher::Cidr(net) => {
            text.parse::<IpAddr>().is_ok_and(|address| net.contains(&address.to_canonical()))
        }
        Matcher::Compare { op, than } => numbers_compare(text, *op, *than),
        Matcher::TimePart { part, op, than } => {
            time_part(text, *part).is_some_and(|left| compares(left, *op, *than))
        }
        matcher => value.texts().any(|text| text_holds(text, matcher)),
    }
}

fn text_holds(text: &str, matcher: &Matcher) -> bool {
    match matcher {
        Matcher::Text { pattern, cased } => {
            let text: Vec<char> = fold(text, *cased).chars().collect();
            matches(&pattern.pieces, &text, *cased)
        }
        Matcher::Regex { source } => {
            let regex = regex::Regex::new(source).unwrap();
            // `$` is also before a line break that ends the text, `\z` is not.
            let before = text.strip_suffix('\n').filter(|_| !source.contains(r"\z"));
            regex.is_match(text) || before.is_some_and(|before| regex.is_match(before))
        }
        _ => unreachable!("tested on the field as a whole"),
    }
}

/// Every value at a path. A key may hold dots, so every way to cut the path is tried; an array on
/// the way stands for each of its elements. `.` is the value itself.
fn found(value: &Json, path: &str) -> Vec<Json> {
    if path == "." {
        return vec![value.clone()];
    }
    let mut segments = vec![String::new()];
    let mut escaped = false;
    for c in path.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' if !escaped => segments.push(String::new()),
            c => {
                segments.last_mut().unwrap().push(c);
                escaped = false;
            }
        }
    }
    below(value, &segments)
}

fn below(value: &Json, segments: &[String]) -> Vec<Json> {
    if segments.is_empty() {
        return vec![value.clone()];
    }
    match value {
        Json::Array(items) => items.iter().flat_map(|item| below(item, segments)).collect(),
        Json::Object(members) => {
            let mut values = Vec::new();
            for (key, member) in members {
                for taken in 1..=segments.len() {
                    if *key == segments[..taken].join(".") {
                        values.extend(below(member, &segments[taken..]));
                    }
                }
            }
            values
        }
        _ => Vec::new(),
    }
}

/// Arrays are their elements, at any depth.
fn spread(values: Vec<Json>) -> Vec<Json> {
    let each = |value| match value {
        Json::Array(items) => spread(items),
        other => vec![other],
    };
    values.into_iter().flat_map(each).collect()
}

fn fold(text: &str, cased: bool) -> String {
    match cased {
        true => text.to_owned(),
        // Character by character, so that the final sigma is no different; `İ` is `i`.
        false => {
            let text = text.replace('İ', "i");
            text.chars().flat_map(char::to_lowercase).collect::<String>().replace('ς', "σ")
        }
    }
}

fn matches(pieces: &[Piece], text: &[char], cased: bool) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::AnyRun, rest)) => {
            (0..=text.len()).any(|skipped| matches(rest, &text[skipped..], cased))
        }
        Some((Piece::AnyOne, rest)) => !text.is_empty() && matches(rest, &text[1..], cased),
        Some((Piece::Literal(literal), rest)) => {
            let literal: Vec<char> = fold(literal, cased).chars().collect();
            text.starts_with(&literal) && matches(rest, &text[literal.len()..], cased)
        }
    }
}

fn stands(text: &str, wanted: &str, place: Place) -> bool {
    match place {
        Place::Whole => text == wanted,
        Place::Prefix => text.starts_with(wanted),
        Place::Suffix => text.ends_with(wanted),
        Place::Inside => text.contains(wanted),
    }
}

fn number(text: &str) -> Option<f64> {
    let has_digits = text.contains(|c: char| c.is_ascii_digit());
    text.trim().parse::<f64>().ok().filter(|_| has_digits)
}

/// Whole numbers exactly, all others as floats.
fn numbers_compare(left: &str, op: Comparison, right: Number) -> bool {
    match (left.trim().parse::<i128>(), right, number(left)) {
        (Ok(left), Number::Whole(right), _) => compares(left, op, right),
        (.., Some(left)) => compares(left, op, right.to_f64()),
        _ => false,
    }
}

fn compares<N: PartialOrd>(left: N, op: Comparison, right: N) -> bool {
    match op {
        Comparison::Eq => left == right,
        Comparison::Neq => left != right,
        Comparison::Gt => left > right,
        Comparison::Gte => left >= right,
        Comparison::Lt => left < right,
        Comparison::Lte => left <= right,
    }
}

/// A part of `2026-08-01T22:15:30…` as it is written, whatever the offset behind it.
fn time_part(text: &str, part: TimePart) -> Option<i64> {
    let civil: jiff::civil::DateTime = match text.get(..19) {
        Some(time) => time.parse().ok()?,
        None => text.parse::<jiff::civil::Date>().ok()?.into(),
    };
    Some(match part {
        TimePart::Minute => civil.minute().into(),
        TimePart::Hour => civil.hour().into(),
        TimePart::Day => civil.day().into(),
        TimePart::Week => civil.date().iso_week_date().week().into(),
        TimePart::Month => civil.month().into(),
        TimePart::Year => civil.year().into(),
    })
}

/// The text of the event with the escapes of its JSON strings resolved.
fn unescaped(event: &str) -> String {
    let mut text = String::new();
    let mut rest = event;
    while let Some(position) = rest.find('\\') {
        text.push_str(&rest[..position]);
        let mut length = if rest[position + 1..].starts_with('u') { 6 } else { 2 };
        if length == 6 && rest[position + 6..].starts_with("\\u") {
            let pair = format!("\"{}\"", &rest[position..position + 12]);
            if let Ok(pair) = serde_json::from_str::<String>(&pair)
                && pair.chars().count() == 1
            {
                length = 12;
            }
        }
        let escape = format!("\"{}\"", &rest[position..position + length]);
        text.push_str(&serde_json::from_str::<String>(&escape).unwrap());
        rest = &rest[position + length..];
    }
    text + rest
}
