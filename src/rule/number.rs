//! Numbers as rules and events write them.

use std::cmp::Ordering;
use std::fmt;

/// A number; whole ones are exact, for ids and counters go beyond what a float tells apart.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number.
    Whole(i128),
    /// Any other, or one of more than 38 digits; of one that no float can hold, infinity.
    Real(f64),
}

impl Number {
    /// The number that a text spells, blanks around it aside; the words for infinities and NaN are
    /// no numbers.
    pub fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some(Number::Whole(whole));
        }
        let real = text.parse().ok()?;
        text.contains(|c: char| c.is_ascii_digit()).then_some(Number::Real(real))
    }

    /// A finite number.
    pub fn real(number: f64) -> Option<Number> {
        number.is_finite().then_some(Number::Real(number))
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Whole(number) => number as f64,
            Number::Real(number) => number,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    /// Of two whole numbers exact, else as floats compare.
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(left), Number::Whole(right)) => Some(left.cmp(right)),
            _ => self.to_f64().partial_cmp(&other.to_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(number) => number.fmt(f),
            Number::Real(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_as_exactly_as_it_can() {
        for (left, right, expected) in [
            ("1", "2", Some(Ordering::Less)),
            ("9007199254740993", "9007199254740992", Some(Ordering::Greater)),
            ("18446744073709551615", "18446744073709551615", Some(Ordering::Equal)),
            ("-9007199254740993", "-9007199254740992", Some(Ordering::Less)),
            ("1.0", "1", Some(Ordering::Equal)),
            (" 5 ", "+5", Some(Ordering::Equal)),
            ("1e3", "1000", Some(Ordering::Equal)),
            ("-0.5", "0", Some(Ordering::Less)),
            (&"9".repeat(50), "9", Some(Ordering::Greater)),
            ("1e400", "1e308", Some(Ordering::Greater)),
            ("-1e400", "-1e308", Some(Ordering::Less)),
        ] {
            let number = |text| Number::parse(text).unwrap();
            assert_eq!(number(left).partial_cmp(&number(right)), expected, "{left} {right}");
        }
        for text in ["", "x", "inf", "-Infinity", "NaN", "0x10", "1 2"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }
}
