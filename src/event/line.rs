//! Prefixes that log shippers and container runtimes put before an event on its line.

use crate::event::envelope::speaks_of_audit;
use crate::event::json::skip_string;
use crate::event::time;

/// The longest CRI line that is joined from its parts.
pub const CRI_JOINED_BYTES_MAX: usize = 64 << 20;

/// A line as the kubelet writes it: `2026-11-22T00:20:47.843025123Z stdout F {…}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriLine<'a> {
    /// When the runtime read it, microseconds since the epoch.
    pub time_us: i64,
    /// Whether it comes from standard error.
    pub is_stderr: bool,
    /// Whether the next line of the same stream continues it (flag `P`; the runtime cuts at 16
    /// KiB).
    pub is_partial: bool,
    /// What the container wrote.
    pub content: &'a [u8],
}

impl<'a> CriLine<'a> {
    /// Reads a line; `None` when it is not framed.
    pub fn parse(line: &'a [u8]) -> Option<CriLine<'a>> {
        let (time_us, rest) = timestamp(line)?;
        let (is_stderr, rest) = match rest.strip_prefix(b"stdout ") {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix(b"stderr ")?),
        };
        let (flag, rest) = rest.split_first()?;
        let is_partial = match flag {
            b'P' => true,
            b'F' => false,
            _ => return None,
        };
        // Tags behind the flag (`P:tag`) are reserved for later versions of the format.
        let space = memchr::memchr(b' ', &rest[..rest.len().min(64)]);
        let content = match space {
            Some(at) => &rest[at + 1..],
            None if rest.is_empty() => rest,
            None => return None,
        };
        Some(CriLine { time_us, is_stderr, is_partial, content })
    }
}

/// Splits the RFC 3339 timestamp off that a line starts with.
pub(crate) fn timestamp(line: &[u8]) -> Option<(i64, &[u8])> {
    if !line.first()?.is_ascii_digit() {
        return None;
    }
    let end = memchr::memchr(b' ', &line[..line.len().min(40)])?;
    Some((time::parse_us(&line[..end])?, &line[end + 1..]))
}

/// Whether this is a line of the log backend's `legacy` format.
pub fn is_legacy(line: &[u8]) -> bool {
    memchr::memmem::find(&line[..line.len().min(512)], b" AUDIT: id=\"").is_some()
}

/// The parts of lines that are still to be joined, one a stream.
#[derive(Debug, Default)]
pub(crate) struct CriParts {
    streams: [Parts; 2],
}

#[derive(Debug, Default)]
struct Parts {
    bytes: Vec<u8>,
    time_us: i64,
    is_too_long: bool,
}

/// A line that is complete or given up.
#[derive(Debug)]
pub(crate) enum Joined {
    /// More parts are to come.
    Waiting,
    /// The whole line and the time of its first part.
    Line(Vec<u8>, i64),
    /// The first bytes of a line longer than [`CRI_JOINED_BYTES_MAX`], and the time.
    TooLong(Vec<u8>, i64),
}

impl CriParts {
    /// Whether the stream of this line waits for more of it.
    pub(crate) fn is_waiting(&self, line: &CriLine<'_>) -> bool {
        let parts = &self.streams[usize::from(line.is_stderr)];
        !parts.bytes.is_empty() || parts.is_too_long
    }

    /// Adds a line; gives the joined bytes back when it was the last part.
    pub(crate) fn push(&mut self, line: &CriLine<'_>) -> Joined {
        let parts = &mut self.streams[usize::from(line.is_stderr)];
        if parts.bytes.is_empty() {
            parts.time_us = line.time_us;
        }
        let mut too_long = Joined::Waiting;
        if !parts.is_too_long && parts.bytes.len() + line.content.len() > CRI_JOINED_BYTES_MAX {
            parts.is_too_long = true;
            too_long = Joined::TooLong(std::mem::take(&mut parts.bytes), parts.time_us);
        }
        if !parts.is_too_long {
            parts.bytes.extend_from_slice(line.content);
        }
        if line.is_partial || parts.is_too_long {
            parts.is_too_long &= line.is_partial;
            return too_long;
        }
        Joined::Line(std::mem::take(&mut parts.bytes), parts.time_us)
    }

    /// The unfinished lines at the end of the input.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = (Vec<u8>, i64)> {
        let parts = std::mem::take(&mut self.streams);
        parts
            .into_iter()
            .filter(|part| !part.bytes.is_empty())
            .map(|part| (part.bytes, part.time_us))
    }
}

/// Where the JSON stands, or the string that is all of the rest, behind what a shipper puts before
/// an event on its line; `None` where it does not speak of audit events soon.
pub(crate) fn json_start(text: &[u8]) -> Option<usize> {
    /// Further on an event has said its id.
    const SOON_BYTES: usize = 8 << 10;
    let near = &text[..text.len().min(PREFIX_BYTES_MAX + 1)];
    let at = memchr::memchr(b'{', near)?;
    let start = match (at.checked_sub(1).map(|before| text[before]), text[at + 1..].first()) {
        (Some(b'"'), Some(b'\\')) => at - 1,
        (_, Some(b'"' | b' ' | b'\t')) => at,
        _ => return None,
    };
    let rest = &text[start..];
    let is_whole = rest[0] == b'{' || skip_string(rest, 0).is_ok_and(|(end, _)| end == rest.len());
    let soon = &rest[..rest.len().min(SOON_BYTES)];
    (is_prefix(&text[..start]) && is_whole && speaks_of_audit(soon)).then_some(start)
}

/// Longer text before an event is more than a prefix.
const PREFIX_BYTES_MAX: usize = 512;

/// Whether text before an event is what a shipper or `grep` puts there (priority, time, host,
/// program, place), and no rest of something that was torn: it has no mark of JSON.
pub(crate) fn is_prefix(text: &[u8]) -> bool {
    let is_mark =
        |byte: &u8| *byte != b'\t' && matches!(byte, b'{' | b'}' | b'"' | b'\\' | 0..0x20 | 0x7f);
    text.len() <= PREFIX_BYTES_MAX
        && matches!(text.last(), Some(b' ' | b'\t' | b':' | b']' | b'>'))
        && std::str::from_utf8(text).is_ok()
        && !text.iter().any(is_mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_framed_lines() {
        for (text, expected) in [
            ("2026-11-22T00:20:47.843025123Z stdout F {}", Some((false, false, "{}"))),
            ("2026-11-22T00:20:47.843025123+01:00 stderr P {", Some((true, true, "{"))),
            ("2026-11-22T00:20:47.843025123Z stdout F:x ", Some((false, false, ""))),
            ("2026-11-22T00:20:47.843025123Z stdout F", Some((false, false, ""))),
            ("2026-11-22T00:20:47.843025123Z {}", None),
            ("yesterday stdout F {}", None),
            ("", None),
        ] {
            let found = CriLine::parse(text.as_bytes());
            let found = found.map(|line| (line.is_stderr, line.is_partial, line.content));
            assert_eq!(found, expected.map(|(e, p, c)| (e, p, c.as_bytes())), "{text}");
        }
    }
}
