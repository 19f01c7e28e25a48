//! What can be saved of bytes that are no whole event: where exactly they break, where the next
//! event starts behind a torn write, and an event without the body that nests too deep.

use memchr::memmem;

use crate::event::envelope::Fields;
use crate::event::json::{Stop, skip_blank, skip_value};
use crate::event::split::value_end;

/// How kube-apiserver starts every event line; inside a JSON string its quotes would be escaped.
pub(crate) const EVENT_START: &[u8] = b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/";

/// How kube-apiserver starts every webhook body.
pub(crate) const LIST_START: &[u8] = b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/";

/// Where the next event or list starts inside torn bytes; `None` when there is none.
///
/// A torn write breaks the JSON at the very byte where the next event starts. An event start
/// further inside is believed only outside request and response bodies: bodies are the client's,
/// and a cut event must not be a way to smuggle a forged one in.
pub(crate) fn next_start(bytes: &[u8]) -> Option<usize> {
    let mut candidates = starts(bytes).filter(|at| *at > 0);
    let first = candidates.next()?;
    let fault = fault(bytes).unwrap_or(bytes.len());
    let body = [&b"\"requestObject\":"[..], b"\"responseObject\":"]
        .iter()
        .filter_map(|key| memmem::find(bytes, key))
        .min()
        .unwrap_or(bytes.len());
    // The fault shows at the start itself, or behind its brace and quote where a string was open.
    let is_tear = |at: usize| fault <= at + 2 || at < body;
    std::iter::once(first).chain(candidates).find(|at| is_tear(*at))
}

/// Where the first event or list starts, whatever stands before it.
pub(crate) fn first_start(bytes: &[u8]) -> Option<usize> {
    starts(bytes).next()
}

fn starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    memmem::find_iter(bytes, b"{\"kind\":\"Event")
        .filter(|at| bytes[*at..].starts_with(EVENT_START) || bytes[*at..].starts_with(LIST_START))
}

/// Offset of the first byte that strict JSON does not allow in one value, or that opens an object
/// where an event never holds one; `None` when the bytes are one value, or a beginning of one.
pub(crate) fn fault(bytes: &[u8]) -> Option<usize> {
    let mut strict = Strict { bytes, at: 0, open: Vec::new(), plainness: Plainness::None };
    match strict.run() {
        Ok(()) => {
            let end = skip_blank(bytes, strict.at);
            (end < bytes.len()).then_some(end)
        }
        Err(Stop::Syntax(at)) => Some(at),
        Err(Stop::End | Stop::Depth(_)) => None,
    }
}

/// A JSON reader that believes nothing; for the few bytes in which a fault has to be found.
struct Strict<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The open brackets, outermost first.
    open: Vec<u8>,
    plainness: Plainness,
}

/// What is known of the outermost object's member that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plainness {
    /// Nothing.
    None,
    /// It is no object.
    Itself,
    /// The values of its members are no objects.
    Members,
}

impl Plainness {
    fn of(key: &[u8]) -> Plainness {
        match key {
            b"\"kind\"" | b"\"apiVersion\"" | b"\"level\"" | b"\"auditID\"" | b"\"stage\"" => {
                Plainness::Itself
            }
            b"\"requestURI\"" | b"\"verb\"" | b"\"userAgent\"" => Plainness::Itself,
            b"\"requestReceivedTimestamp\"" | b"\"stageTimestamp\"" => Plainness::Itself,
            b"\"annotations\"" => Plainness::Members,
            _ => Plainness::None,
        }
    }
}

impl Strict<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        loop {
            self.blank();
            match self.peek()? {
                b'{' if self.is_plain() => return Err(Stop::Syntax(self.at)),
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.open.push(bracket);
                    self.blank();
                    if self.peek()? == closing(bracket) {
                        self.at += 1;
                        self.open.pop();
                    } else if bracket == b'{' {
                        self.key()?;
                        continue;
                    } else {
                        continue;
                    }
                }
                b'"' => self.string()?,
                _ => self.scalar()?,
            }
            if !self.behind_value()? {
                return Ok(());
            }
        }
    }

    /// Whether an event holds no object here.
    fn is_plain(&self) -> bool {
        match self.plainness {
            Plainness::None => false,
            Plainness::Itself => self.open == b"{",
            Plainness::Members => self.open == b"{{",
        }
    }

    /// Closes brackets and passes a comma; false when the outermost value is complete.
    fn behind_value(&mut self) -> Result<bool, Stop> {
        while let Some(&bracket) = self.open.last() {
            self.blank();
            let byte = self.peek()?;
            if byte == closing(bracket) {
                self.at += 1;
                self.open.pop();
                continue;
            }
            if byte != b',' {
                return Err(Stop::Syntax(self.at));
            }
            self.at += 1;
            self.blank();
            if bracket == b'{' {
                self.key()?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn key(&mut self) -> Result<(), Stop> {
        if self.peek()? != b'"' {
            return Err(Stop::Syntax(self.at));
        }
        let start = self.at;
        self.string()?;
        if self.open == b"{" {
            self.plainness = Plainness::of(&self.bytes[start..self.at]);
        }
        self.blank();
        if self.peek()? != b':' {
            return Err(Stop::Syntax(self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Stop> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                0..0x20 => return Err(Stop::Syntax(self.at)),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        match self.peek()? {
            b'u' => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek()?.is_ascii_hexdigit() {
                        return Err(Stop::Syntax(self.at));
                    }
                }
            }
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
            _ => return Err(Stop::Syntax(self.at)),
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Stop> {
        let rest = &self.bytes[self.at..];
        let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let word = &rest[..rest.iter().take_while(is_word).count()];
        let is_fine = serde_json::from_slice::<serde::de::IgnoredAny>(word).is_ok();
        let is_cut = word.len() == rest.len();
        self.at += word.len();
        match (is_fine, is_cut) {
            (_, true) if !word.is_empty() => Err(Stop::End),
            (true, _) => Ok(()),
            (false, _) => Err(Stop::Syntax(self.at)),
        }
    }

    fn blank(&mut self) {
        self.at = skip_blank(self.bytes, self.at);
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::End)
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'{' { b'}' } else { b']' }
}

/// Members and elements are looked at so far down; below it what nests too deep goes as a whole.
const LEVELS_MAX: usize = 16;

/// The event with `null` in place of each value that nests too deep, and where the first of them
/// stands; `None` when the event is cut as well. Only the part that is too deep is taken out, as
/// far as [`LEVELS_MAX`] goes: it must not hide what stands beside it.
pub(crate) fn flatten(bytes: &[u8]) -> Option<(Vec<u8>, std::ops::Range<usize>)> {
    let mut flat = Flat { bytes, text: Vec::with_capacity(4096), copied: 0, first: None };
    flat.inside(0, 0)?;
    flat.text.extend_from_slice(&bytes[flat.copied..]);
    flat.first.map(|range| (flat.text, range))
}

struct Flat<'a> {
    bytes: &'a [u8],
    text: Vec<u8>,
    copied: usize,
    first: Option<std::ops::Range<usize>>,
}

impl Flat<'_> {
    /// Looks at what the container at `start` holds.
    fn inside(&mut self, start: usize, level: usize) -> Option<()> {
        for child in children(self.bytes, start) {
            let child = child?;
            if !matches!(skip_value(self.bytes, child.start), Err(Stop::Depth(_))) {
                continue;
            }
            if level < LEVELS_MAX {
                self.inside(child.start, level + 1)?;
                continue;
            }
            self.text.extend_from_slice(&self.bytes[self.copied..child.start]);
            self.text.extend_from_slice(b"null");
            self.copied = child.end;
            self.first.get_or_insert(child);
        }
        Some(())
    }
}

/// Where the values in a container stand; `None` for one that is cut.
fn children(bytes: &[u8], start: usize) -> impl Iterator<Item = Option<std::ops::Range<usize>>> {
    let is_object = bytes.get(start) == Some(&b'{');
    let rest = &bytes[start..];
    let fields = Fields::of(if is_object { rest } else { b"" });
    let members = fields.map(move |field| {
        let range = start + field.value.start..start + field.value.end;
        field.is_complete.then_some(range)
    });
    let mut at = if is_object { bytes.len() } else { start + 1 };
    let elements = std::iter::from_fn(move || {
        at = skip_blank(bytes, at);
        if bytes.get(at) == Some(&b',') {
            at = skip_blank(bytes, at + 1);
        }
        let first = bytes.get(at).filter(|byte| **byte != b']')?;
        let end = match first {
            b'{' | b'[' => value_end(bytes, at),
            _ => skip_value(bytes, at).ok(),
        };
        let range = end.map(|end| at..end);
        at = end.unwrap_or(bytes.len());
        Some(range)
    });
    members.chain(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_fault() {
        for (text, at) in [
            (r#"{"a":[1,2.5e3,"x\u00e4",null,{}],"b":{}} "#, None),
            (r#"{"a":[1,"#, None),
            (r#"{"a":"us{"kind""#, Some(10)),
            (r#"{"a":1,{"kind""#, Some(7)),
            (r#"{"a":tru{"kind""#, Some(8)),
            (r#"{"a":"x\{"kind""#, Some(8)),
            (r#"{"a":"x"{"kind""#, Some(8)),
            (r#"{"a":[1}"#, Some(7)),
            ("{\"a\":\"x\u{1}\"}", Some(7)),
            (r#"{"a":1}{"b""#, Some(7)),
            (r#"{"verb":{"a":1}}"#, Some(8)),
            (r#"{"verb":["a"]}"#, None),
            (r#"{"a":{"verb":{}}}"#, None),
            (r#"[{"verb":{}}]"#, None),
            ("", None),
        ] {
            assert_eq!(fault(text.as_bytes()), at, "{text}");
        }
    }

    #[test]
    fn takes_out_only_what_is_too_deep() {
        let deep = format!("{}{}", "[".repeat(10_100), "]".repeat(10_100));
        let left = |levels: usize| format!("{}null{}", "[".repeat(levels), "]".repeat(levels));
        for (event, flat, at) in [
            (
                format!(r#"{{"a":1,"body":{{"x":{deep},"spec":[{{"b":"]"}}]}},"c":2}}"#),
                format!(r#"{{"a":1,"body":{{"x":{},"spec":[{{"b":"]"}}]}},"c":2}}"#, left(15)),
                34,
            ),
            (
                format!(r#"{{"x":[0, {deep} ,"y"],"z":{deep}}}"#),
                format!(r#"{{"x":[0, {} ,"y"],"z":{}}}"#, left(15), left(16)),
                24,
            ),
        ] {
            let (text, first) = flatten(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), flat);
            assert_eq!(first.start, at);
        }
        assert!(flatten(format!(r#"{{"x":{deep},"y":["#).as_bytes()).is_none());
    }

    #[test]
    fn believes_a_start_only_at_a_tear() {
        const NEXT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata"}"#;
        for (before, is_tear) in [
            (r#"{"kind":"Event","user":{"us"#, true),
            (r#"{"kind":"Event","requestObject":{"a":"x"#, true),
            (r#"{"kind":"Event","sourceIPs":["#, true),
            (r#"{"kind":"Event","requestObject":{"forged":"#, false),
            (r#"{"kind":"Event","requestObject":"#, false),
            (r#"{"kind":"Event","requestObject":{},"stageTimestamp":"#, true),
            (r#"{"kind":"Event","requestObject":{},"requestReceivedTimestamp" : "#, true),
            (r#"{"kind":"Event","requestObject":{},"annotations":{"a":"b","c":"#, true),
            (r#"{"kind":"Event","requestObject":{},"annotations":"#, false),
            (r#"{"kind":"Event","requestObject":{},"other":"#, false),
            (r#"{"kind":"Event","requestObject":{"stageTimestamp":"#, false),
            (r#"{"kind":"Event","requestObject":{"annotations":{"a":"#, false),
            (r#"{"kind":"Event","requestObject":{"a":[{"b":1},"#, false),
            (r#"{"kind":"Event","requestObject":{"stageTimestamp":1},"responseObject":"#, false),
            ("<14>host apiserver: ", true),
        ] {
            let text = format!("{before}{NEXT}");
            let expected = is_tear.then_some(before.len());
            assert_eq!(next_start(text.as_bytes()), expected, "{before}");
        }
    }
}
