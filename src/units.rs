//! Spans of time and sizes as people write them: `30s`, `10GiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time: `500ms`, `30s`, `5m`, `2h`, `7d`. A number without a unit is refused, `0` aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes: `512B`, `64KiB`, `16MiB`, `10GiB`, `1TiB`, or a bare number of bytes. The
/// decimal units (`10GB`) are a thousand each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A text that is no span or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct ParseError {
    text: String,
    what: &'static str,
}

const SPAN: &str = "span of time; write a whole number and ms, s, m, h or d, such as 30s";
const SIZE: &str = "size; write a whole number and B, KiB, MiB, GiB or TiB, such as 64MiB";

/// Units with their milliseconds, largest first.
const SPAN_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units with their bytes; those that [`Size`] is shown in come first, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Span {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Span {
        Span(Duration::from_millis(milliseconds))
    }

    /// The span in microseconds; `i64::MAX` beyond it.
    pub fn as_micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl Size {
    /// So many MiB.
    pub const fn mib(number: u64) -> Size {
        Size(number << 20)
    }

    /// The size for what is in memory; `usize::MAX` beyond it.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        span.0
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> u64 {
        size.0
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Span, ParseError> {
        let (number, unit) = split(text);
        let factor = match unit {
            "" if number == "0" => Some(1),
            _ => SPAN_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        let milliseconds =
            factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        let wrong = || ParseError { text: text.to_owned(), what: SPAN };
        Ok(Span::from_millis(milliseconds.ok_or_else(wrong)?))
    }
}

impl FromStr for Size {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Size, ParseError> {
        let (number, unit) = split(text);
        let factor = match unit {
            "" => Some(1),
            _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
        };
        let bytes = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        Ok(Size(bytes.ok_or_else(|| ParseError { text: text.to_owned(), what: SIZE })?))
    }
}

/// Digits and what follows them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// The number in the largest unit that it is a whole multiple of.
fn whole<'u>(number: u64, units: &[(&'u str, u64)], least: &'u str) -> (u64, &'u str) {
    let fits = |(_, factor): &&(&str, u64)| number > 0 && number.is_multiple_of(*factor);
    units.iter().find(fits).map_or((number, least), |(unit, factor)| (number / factor, unit))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (number, unit) = whole(milliseconds, &SPAN_UNITS, "s");
        write!(f, "{number}{unit}")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = whole(self.0, &SIZE_UNITS[..5], "B");
        write!(f, "{number}{unit}")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = deserializer.deserialize_any(Written(SPAN))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let text = deserializer.deserialize_any(Written(SIZE))?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Takes a text, or a number as its digits.
struct Written(&'static str);

impl Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_show() {
        for (text, milliseconds, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("5 m", 300_000, "5m"),
            ("48h", 172_800_000, "2d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span, span.to_string().as_str()), (Span::from_millis(milliseconds), shown));
        }
        for text in ["", "s", "30", "-1s", "1.5s", "1S", "1min", "99999999999999999999d", "1s1s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_show() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("1000", 1_000, "1000B"),
            ("1kB", 1_000, "1000B"),
            ("64KiB", 65_536, "64KiB"),
            ("16 MiB", 16 << 20, "16MiB"),
            ("10GiB", 10 << 30, "10GiB"),
            ("1536MiB", 1_536 << 20, "1536MiB"),
            ("1TB", 1_000_000_000_000, "976562500KiB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size, size.to_string().as_str()), (Size(bytes), shown));
        }
        for text in ["", "GiB", "-1", "1.5GiB", "1Gi", "1gib", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn both_read_from_json() {
        let read: (Span, Size, Size) = serde_json::from_str(r#"["5m", "1MiB", 7]"#).unwrap();
        assert_eq!(read, (Span::from_secs(300), Size::mib(1), Size(7)));
        let error = serde_json::from_str::<Span>("30").unwrap_err().to_string();
        assert!(error.contains("such as 30s"), "{error}");
    }
}
