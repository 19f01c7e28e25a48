//! RFC 3339 timestamps as microseconds since the epoch.

/// Reads a timestamp; the API server's own form (`2026-11-22T00:20:47.843025Z`) by arithmetic,
/// every other form of RFC 3339 (offsets, zero to nine digits: clouds print those) by `jiff`.
/// Digits beyond microseconds are cut.
pub fn parse_us(text: &[u8]) -> Option<i64> {
    if text.len() == 27
        && text[19] == b'.'
        && text[26] == b'Z'
        && let (Some(seconds), Some(us)) = (seconds(&text[..19]), digits(&text[20..26]))
    {
        return Some(seconds * 1_000_000 + us);
    }
    let text = std::str::from_utf8(text).ok()?;
    let stamp: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(stamp.as_nanosecond().div_euclid(1_000)).ok()
}

/// Reads a timestamp as log stores hand it out again: RFC 3339, or a number since the epoch, whose
/// size tells whether it counts seconds (maybe with a fraction), milli-, micro- or nanoseconds.
/// Numbers that would mean a time before 1973 are none: a year alone looks like one.
pub fn parse_any_us(text: &[u8]) -> Option<i64> {
    if !matches!(text.get(..9), Some(start) if start.iter().all(u8::is_ascii_digit)) {
        return parse_us(text);
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.parse::<i64>() {
        Ok(number @ ..100_000_000_000) => Some(number * 1_000_000),
        Ok(number @ ..100_000_000_000_000) => Some(number * 1_000),
        Ok(number @ ..100_000_000_000_000_000) => Some(number),
        Ok(number) => Some(number / 1_000),
        Err(_) => {
            let number: f64 = text.parse().ok()?;
            let factor = if number < 1e11 { 1e6 } else { 1e3 };
            // What is no time of this age is cut to the nearest number that can be written.
            (number < 1e14).then_some((number * factor).round() as i64)
        }
    }
}

/// Seconds since the epoch of `2026-11-22T00:20:47`.
fn seconds(date: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', time @ ..] = date else { return None };
    let [h1, h2, b':', i1, i2, b':', s1, s2] = time else { return None };
    let year = digits(&[*y1, *y2, *y3, *y4])?;
    let month = digits(&[*m1, *m2])?;
    let day = digits(&[*d1, *d2])?;
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*i1, *i2])?, digits(&[*s1, *s2])?);
    let is_fine = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    is_fine.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years count from March, so that the
/// leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Prints microseconds since the epoch as the API server does: UTC, six digits.
pub fn format_us(time_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(time_us) {
        Ok(stamp) => format!("{stamp:.6}"),
        Err(_) => format!("{time_us}us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_servers_and_clouds_print() {
        for (text, expected) in [
            ("2026-11-22T00:20:47.843025Z", Some(1_795_306_847_843_025)),
            ("2026-11-22T00:20:47Z", Some(1_795_306_847_000_000)),
            ("2026-11-22T00:20:47.8Z", Some(1_795_306_847_800_000)),
            ("2026-11-22T02:20:47.843025123+02:00", Some(1_795_306_847_843_025)),
            ("1970-01-01T00:00:00.000000Z", Some(0)),
            ("2024-02-29T23:59:59.999999Z", Some(1_709_251_199_999_999)),
            ("2026-13-22T00:20:47.843025Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse_us(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn reads_numbers_by_their_size() {
        for (text, expected) in [
            ("1795306847", Some(1_795_306_847_000_000)),
            ("1795306847.843025", Some(1_795_306_847_843_025)),
            ("1795306847843", Some(1_795_306_847_843_000)),
            ("1795306847843.025", Some(1_795_306_847_843_025)),
            ("1795306847843025", Some(1_795_306_847_843_025)),
            ("1795306847843025999", Some(1_795_306_847_843_025)),
            ("2026-11-22T00:20:47Z", Some(1_795_306_847_000_000)),
            ("2026-11-22 00:20:47.843025Z", Some(1_795_306_847_843_025)),
            ("2026", None),
            ("0", None),
            ("99999999999999999999", None),
            ("1795306847s", None),
            ("", None),
        ] {
            assert_eq!(parse_any_us(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(time in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            prop_assert_eq!(parse_us(format_us(time).as_bytes()), Some(time));
        }
    }
}
