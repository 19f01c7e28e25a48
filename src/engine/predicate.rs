//! One test of one field, compiled: the slow and certain way to decide it.
//!
//! [`matcher`](crate::engine::matcher) decides most text predicates for a whole field at once; what
//! it cannot share is decided here, predicate by predicate, only when a rule asks. Both must agree.

use std::sync::Arc;

use ipnet::IpNet;

use crate::engine::field::FieldId;
use crate::engine::letters::lowercase;
use crate::engine::program::Program;
use crate::engine::relation::{is_related, stands};
use crate::engine::search::LazyRegex;
use crate::engine::values::{Item, Subject, Values};
use crate::engine::wildcard::Wildcard;
use crate::rule::number::Number;
use crate::rule::{Comparison, Pattern, Piece, Place, Quantifier, TimePart};

/// Index of a predicate in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PredicateId(pub u32);

/// A compiled test.
#[derive(Clone, Debug)]
pub struct Predicate {
    /// The field it tests.
    pub field: FieldId,
    /// What a value must satisfy.
    pub check: Check,
}

/// What a value must satisfy.
#[derive(Clone, Debug)]
pub enum Check {
    /// Text at a place; lower case unless `cased`.
    Text {
        /// The text, lowercased unless `cased`.
        text: Box<str>,
        /// Where it must stand.
        place: Place,
        /// Case matters.
        cased: bool,
    },
    /// Any value that is not null; objects and arrays count.
    Any,
    /// A pattern with wildcards inside, over the (lowercased) text.
    Wildcard {
        /// The pattern, lowercased unless `cased`.
        pattern: Wildcard,
        /// Case matters.
        cased: bool,
    },
    /// A regular expression over the text as it is.
    Regex(LazyRegex),
    /// An address in a network.
    Cidr(IpNet),
    /// A number.
    Compare(Comparison, Number),
    /// Absent, or only nulls.
    Null,
    /// Present, or not.
    Exists(bool),
    /// Related to a value of another field.
    FieldRef(FieldId, Place, bool),
    /// A part of a timestamp.
    TimePart(TimePart, Comparison, i64),
    /// A condition on the elements.
    Elements(Quantifier, Arc<Program>),
}

impl Check {
    /// Whether it asks about the field as a whole, and not what one of its values is.
    pub fn is_about_field(&self) -> bool {
        matches!(self, Check::Null | Check::Exists(_) | Check::FieldRef(..) | Check::Elements(..))
    }

    /// Compiles a text pattern.
    pub fn of_pattern(pattern: &Pattern, cased: bool) -> Check {
        let fold = |text: &str| if cased { text.to_owned() } else { lowercase(text) };
        match pattern.pieces.as_slice() {
            [] => Check::Text { text: "".into(), place: Place::Whole, cased },
            [Piece::AnyRun] => Check::Any,
            [Piece::Literal(text)] => text_check(&fold(text), Place::Whole, cased),
            [Piece::Literal(text), Piece::AnyRun] => text_check(&fold(text), Place::Prefix, cased),
            [Piece::AnyRun, Piece::Literal(text)] => text_check(&fold(text), Place::Suffix, cased),
            [Piece::AnyRun, Piece::Literal(text), Piece::AnyRun] => {
                text_check(&fold(text), Place::Inside, cased)
            }
            pieces => Check::Wildcard { pattern: Wildcard::new(pieces, fold), cased },
        }
    }

    /// Whether the field's values satisfy it; they must have been found. Blocks are evaluated by
    /// their program, which has the state for it.
    pub fn holds(&self, field: FieldId, values: &Values, subject: Subject<'_>) -> bool {
        let mut items = values.items(field, subject.raw());
        match self {
            Check::Null => items.all(|item| item.is_null()),
            Check::Exists(wanted) => values.is_present(field) == *wanted,
            Check::FieldRef(other, place, cased) => {
                is_related(items, values.items(*other, subject.raw()), *place, *cased)
            }
            check => items.any(|item| check.holds_on(&item)),
        }
    }

    /// Whether one value satisfies it; the checks on a field as a whole say no.
    pub fn holds_on(&self, item: &Item<'_>) -> bool {
        if let Check::Any = self {
            return !item.is_null();
        }
        if let Check::Text { text: wanted, place: Place::Whole, cased: false } = self
            && let Some(plain) = item.plain().filter(|plain| plain.is_ascii())
        {
            return plain.eq_ignore_ascii_case(wanted.as_bytes());
        }
        let Some(text) = item.text() else { return false };
        match self {
            Check::Cidr(net) => item.address().is_some_and(|address| net.contains(&address)),
            Check::Compare(op, than) => {
                Number::parse(&text).is_some_and(|left| op.holds(left, *than))
            }
            Check::TimePart(part, op, than) => {
                time_part(&text, *part).is_some_and(|left| op.holds(left, *than))
            }
            // A pattern may be of the number, or of the way in which it is written.
            _ => self.is_like(&text) || item.written().is_some_and(|text| self.is_like(text)),
        }
    }

    /// Whether a text is as a pattern says; the checks of other kinds say no.
    fn is_like(&self, text: &str) -> bool {
        match self {
            Check::Text { text: wanted, place, cased: true } => stands(text, wanted, *place),
            Check::Text { text: wanted, place, cased: false } => {
                stands(&lowercase(text), wanted, *place)
            }
            Check::Wildcard { pattern, cased: true } => pattern.is_match(text),
            Check::Wildcard { pattern, cased: false } => pattern.is_match(&lowercase(text)),
            Check::Regex(regex) => regex.is_match(text),
            _ => false,
        }
    }
}

impl Quantifier {
    /// Whether so many elements hold.
    pub fn holds<'v>(
        self,
        mut items: impl Iterator<Item = Item<'v>>,
        holds: &mut dyn FnMut(Item<'v>) -> bool,
    ) -> bool {
        match self {
            Quantifier::Any => items.any(holds),
            Quantifier::None => !items.any(holds),
            Quantifier::AllOrEmpty => items.all(holds),
            Quantifier::All => {
                let mut items = items.peekable();
                items.peek().is_some() && items.all(holds)
            }
            Quantifier::Index(index) => items.nth(index).is_some_and(holds),
        }
    }
}

fn text_check(text: &str, place: Place, cased: bool) -> Check {
    Check::Text { text: text.into(), place, cased }
}

/// A part of an RFC 3339 timestamp in the offset that it is written in.
fn time_part(text: &str, part: TimePart) -> Option<i64> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    // A date alone is its midnight.
    let date = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    Some(match part {
        TimePart::Minute => i64::from(date.minute()),
        TimePart::Hour => i64::from(date.hour()),
        TimePart::Day => i64::from(date.day()),
        TimePart::Week => i64::from(date.date().iso_week_date().week()),
        TimePart::Month => i64::from(date.month()),
        TimePart::Year => i64::from(date.year()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(pieces: &[Piece]) -> Pattern {
        Pattern { pieces: pieces.to_vec() }
    }

    #[test]
    fn compiles_patterns_to_the_cheapest_check() {
        let literal = || Piece::Literal("Ab".into());
        for (pieces, value, is_match) in [
            (vec![literal()], "aB", true),
            (vec![literal()], "aBc", false),
            (vec![literal(), Piece::AnyRun], "abc", true),
            (vec![Piece::AnyRun, literal()], "cab", true),
            (vec![Piece::AnyRun, literal(), Piece::AnyRun], "cabc", true),
            (vec![literal(), Piece::AnyOne, literal()], "ab\nAB", true),
            (vec![literal(), Piece::AnyOne, literal()], "abab", false),
            (vec![], "", true),
            (vec![], "x", false),
        ] {
            let check = Check::of_pattern(&pattern(&pieces), false);
            assert_eq!(check.holds_on(&Item::Made(value)), is_match, "{pieces:?} {value}");
        }
    }

    #[test]
    fn reads_parts_of_timestamps_as_written() {
        let text = "2026-08-01T01:15:30.123456+02:00";
        for (part, value) in [
            (TimePart::Minute, 15),
            (TimePart::Hour, 1),
            (TimePart::Day, 1),
            (TimePart::Week, 31),
            (TimePart::Month, 8),
            (TimePart::Year, 2026),
        ] {
            assert_eq!(time_part(text, part), Some(value), "{part:?}");
        }
        assert_eq!(time_part("no time", TimePart::Hour), None);
    }
}
