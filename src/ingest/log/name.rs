//! The names that rotation gives to files, and the order of writing that they tell.
//!
//! ```text
//! lumberjack (kube-apiserver)  audit-2026-03-03T14-28-05.286.log   before the extension, UTC
//! kubelet                      0.log.20260303-142805               behind the name
//! logrotate                    audit.log.1   audit.log-20260303    behind the name
//! logrotate, `extension .log`  audit-20260303.log                  before the extension
//! ```
//! Each may be followed by `.gz` (or `.zst`), a stamped name also by a number (logrotate on top of
//! another rotation). The extension is what Go's `filepath.Ext` says: from the last dot on.

use std::cmp::Reverse;

/// When a file was the live one, as far as its name tells; less is older.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Rotated by counting up: a higher number is older.
    Numbered(Reverse<u32>),
    /// Rotated at this time: the digits of the stamp, year first.
    Stamped(String),
    /// Being written.
    Live,
}

/// What a name says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// Its place among its siblings.
    pub rank: Rank,
    /// The name without the suffix of compression: equal for a file and its compressed twin.
    pub plain: String,
    /// Whether the name ends as a compressed file's.
    pub is_packed: bool,
}

impl LogName {
    /// Reads `name` as a sibling of the file that is written under the name `live`; `None` when it
    /// is none.
    pub fn parse(live: &str, name: &str) -> Option<LogName> {
        if name == live {
            return Some(LogName { rank: Rank::Live, plain: name.to_owned(), is_packed: false });
        }
        let (plain, is_packed) = unpacked(name);
        let rank = match plain == live {
            true => Rank::Numbered(Reverse(0)),
            false => stamped(live, plain).or_else(|| suffixed(live, plain))?,
        };
        Some(LogName { rank, plain: plain.to_owned(), is_packed })
    }
}

/// The name under which a file was written, when `name` is one that rotation gives; else `name`
/// itself. For patterns, which match live and rotated files alike.
pub fn live_name(name: &str) -> String {
    let whole = unpacked(name).0;
    let (plain, number) = unnumbered(whole);
    if let Some(live) = before_stamp(whole).or_else(|| before_stamp(plain)) {
        return live;
    }
    let is_rotated = number.is_some() && plain.contains('.');
    if is_rotated { plain.to_owned() } else { whole.to_owned() }
}

/// The name without the stamp that is in it, if one is.
fn before_stamp(plain: &str) -> Option<String> {
    for at in plain.match_indices('-').map(|(at, _)| at) {
        if let Some((stamp, extension)) = plain[at + 1..].split_at_checked(LUMBERJACK.len())
            && is_shaped(stamp, LUMBERJACK)
            && (extension.is_empty() || extension.starts_with('.'))
        {
            return Some(format!("{}{extension}", &plain[..at]));
        }
    }
    if let Some((live, stamp)) = plain.rsplit_once('.')
        && is_shaped(stamp, KUBELET)
    {
        return Some(live.to_owned());
    }
    let (live, day) = plain.rsplit_once('-')?;
    (live.contains('.') && is_shaped(day, "dddddddd")).then(|| live.to_owned())
}

const LUMBERJACK: &str = "dddd-dd-ddTdd-dd-dd.ddd";
const KUBELET: &str = "dddddddd-dddddd";

/// The name without the suffix of compression, and whether it has one.
pub(crate) fn unpacked(name: &str) -> (&str, bool) {
    match name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")) {
        Some(plain) => (plain, true),
        None => (name, false),
    }
}

/// Splits the number off that logrotate appends.
fn unnumbered(name: &str) -> (&str, Option<u32>) {
    match name.rsplit_once('.') {
        Some((rest, number)) if is_number(number) => (rest, number.parse().ok()),
        _ => (name, None),
    }
}

fn is_number(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `<prefix>-<stamp><extension>`.
fn stamped(live: &str, name: &str) -> Option<Rank> {
    let dot = live.rfind('.').unwrap_or(live.len());
    let (prefix, extension) = live.split_at(dot);
    let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
    if let Some(rank) = rest.strip_suffix(extension).and_then(day) {
        return Some(rank);
    }
    let (stamp, rest) = rest.split_at_checked(LUMBERJACK.len())?;
    let behind = rest.strip_prefix(extension)?;
    let number = behind.strip_prefix('.').filter(|number| is_number(number));
    let is_name = is_shaped(stamp, LUMBERJACK) && (behind.is_empty() || number.is_some());
    is_name.then(|| Rank::Stamped(digits(stamp)))
}

/// logrotate's `dateext`; with `dateformat -%Y%m%d-%s` seconds follow.
fn day(stamp: &str) -> Option<Rank> {
    let (day, seconds) = stamp.split_once('-').unwrap_or((stamp, "0"));
    let is_stamp = is_shaped(day, "dddddddd")
        && seconds.len() <= 10
        && seconds.bytes().all(|byte| byte.is_ascii_digit());
    is_stamp.then(|| Rank::Stamped(format!("{day}{seconds:0>10}")))
}

/// `<live>.<stamp>`, `<live>-<day>`, `<live>.<number>`.
fn suffixed(live: &str, name: &str) -> Option<Rank> {
    let rest = name.strip_prefix(live)?;
    if let Some(stamp) = rest.strip_prefix('-') {
        return day(stamp);
    }
    let rest = rest.strip_prefix('.')?;
    if is_number(rest) {
        return Some(Rank::Numbered(Reverse(rest.parse().ok()?)));
    }
    let (stamp, _) = unnumbered(rest);
    is_shaped(stamp, KUBELET).then(|| Rank::Stamped(digits(stamp)))
}

fn digits(stamp: &str) -> String {
    stamp.chars().filter(char::is_ascii_digit).collect()
}

/// Whether the text has a digit for every `d` of the shape, and is the shape otherwise.
fn is_shaped(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_rotated_names_from_foreign_ones() {
        for (live, name, expected) in [
            ("audit.log", "audit.log", "live"),
            ("audit.log", "audit-2026-03-03T14-28-05.286.log", "20260303142805286"),
            ("audit.log", "audit-2026-03-03T14-28-05.286.log.gz", "20260303142805286 packed"),
            ("audit.log", "audit-2026-03-03T14-28-05.286.log.1.gz", "20260303142805286 packed"),
            ("audit", "audit-2026-03-03T14-28-05.286", "20260303142805286"),
            ("kube-audit.json", "kube-audit-2026-03-03T14-28-05.286.json", "20260303142805286"),
            ("a.b.log", "a.b-2026-03-03T14-28-05.286.log", "20260303142805286"),
            ("0.log", "0.log.20260101-000000", "20260101000000"),
            ("0.log", "0.log.20260101-000000.gz", "20260101000000 packed"),
            ("audit.log", "audit.log.12", "number 12"),
            ("audit.log", "audit.log.2.gz", "number 2 packed"),
            ("audit.log", "audit.log-20260303", "202603030000000000"),
            ("audit.log", "audit.log-20260303-1772548085.gz", "202603031772548085 packed"),
            ("audit.log", "audit-20260303.log", "202603030000000000"),
            ("audit.log", "audit-20260303-1772548085.log.gz", "202603031772548085 packed"),
            ("audit.log", "audit-foo.log", ""),
            ("audit.log", "audit-2026.log.1", ""),
            ("audit.log", "audit-2026-03-03T14-28-05.286.json", ""),
            ("audit.log", "audit-2026-03-03T14-28-05.28.log", ""),
            ("audit.log", "audit-2026-03-03T14-28-05.286.log.tmp", ""),
            ("audit.log", "audit.log.gz", "number 0 packed"),
            ("audit.log", "audit.log.bak", ""),
            ("audit.log", "xaudit.log.1", ""),
            ("0.log", "0.log.20260101-000000.tmp", ""),
            ("0.log", "1.log", ""),
            ("audit.log", "audit-é026-03-03T14-28-05.286.log", ""),
        ] {
            let found = LogName::parse(live, name).map(|found| {
                let rank = match found.rank {
                    Rank::Live => "live".to_owned(),
                    Rank::Numbered(Reverse(number)) => format!("number {number}"),
                    Rank::Stamped(digits) => digits,
                };
                if found.is_packed { format!("{rank} packed") } else { rank }
            });
            assert_eq!(found.unwrap_or_default(), expected, "{live} {name}");
        }
    }

    #[test]
    fn finds_the_name_under_which_a_file_was_written() {
        for (name, expected) in [
            ("audit.log", "audit.log"),
            ("audit-2026-03-03T14-28-05.286.log", "audit.log"),
            ("audit-2026-03-03T14-28-05.286.log.gz", "audit.log"),
            ("my-audit-2026-03-03T14-28-05.286", "my-audit"),
            ("0.log.20260101-000000.gz", "0.log"),
            ("audit.log-20260303", "audit.log"),
            ("audit.log.3.gz", "audit.log"),
            ("0.log", "0.log"),
            ("audit-foo.log", "audit-foo.log"),
            ("server.1", "server.1"),
            ("old.log.gz", "old.log"),
        ] {
            assert_eq!(live_name(name), expected, "{name}");
        }
    }

    #[test]
    fn orders_by_age() {
        let ranks = |names: &[&str], live: &str| -> Vec<Rank> {
            names.iter().map(|name| LogName::parse(live, name).unwrap().rank).collect()
        };
        for (live, names) in [
            (
                "a.log",
                &[
                    "a-2025-12-31T23-59-59.999.log.gz",
                    "a-2026-01-01T00-00-00.000.log",
                    "a-2026-01-01T00-00-00.001.log",
                    "a.log",
                ][..],
            ),
            ("a.log", &["a.log.10.gz", "a.log.9.gz", "a.log.1", "a.log"]),
        ] {
            let ranks = ranks(names, live);
            assert!(ranks.is_sorted(), "{ranks:?}");
        }
    }
}
