//! Time of an event as an alert shows it: microseconds inside, RFC 3339 outside.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time in UTC, in microseconds since the Unix epoch.
///
/// Displays as `2026-11-22T00:16:52.710682Z`, always with six fraction digits. Times beyond the
/// years -9999 to 9999 display as the nearest time within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        f.write_str(&PRINTER.timestamp_to_string(&self.timestamp()))
    }
}

impl FromStr for EventTime {
    type Err = jiff::Error;

    /// Reads RFC 3339; digits beyond microseconds are cut off.
    fn from_str(text: &str) -> Result<EventTime, jiff::Error> {
        text.parse::<Timestamp>().map(|timestamp| EventTime(timestamp.as_microsecond()))
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EventTime, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_six_digits_and_reads_them_back() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_795_306_612_710_682, "2026-11-22T00:16:52.710682Z"),
            (1_795_306_612_000_000, "2026-11-22T00:16:52.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(EventTime(micros).to_string(), text);
            assert_eq!(text.parse::<EventTime>().unwrap(), EventTime(micros));
        }
        assert!(EventTime(i64::MAX).to_string().starts_with("9999-"));
        assert!(EventTime(i64::MIN).to_string().starts_with("-009999-"));
    }
}
