//! A JSON value over its raw bytes: its type, its text, its members and elements, nothing copied.

use std::borrow::Cow;

use crate::event::json::{skip_blank, skip_string, skip_value};

/// A JSON value by its raw bytes; the first byte tells its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    bytes: &'a [u8],
    is_escaped: bool,
}

/// The type of a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

impl<'a> Value<'a> {
    /// The value whose bytes these are; `is_escaped` says that a string holds backslashes.
    pub fn new(bytes: &'a [u8], is_escaped: bool) -> Value<'a> {
        Value { bytes, is_escaped }
    }

    /// The value whose bytes these are, looked through for backslashes.
    pub fn of(bytes: &'a [u8]) -> Value<'a> {
        let is_escaped = bytes.first() == Some(&b'"') && memchr::memchr(b'\\', bytes).is_some();
        Value { bytes, is_escaped }
    }

    /// The raw bytes, quotes included.
    pub fn raw(&self) -> &'a [u8] {
        self.bytes
    }

    /// The type, by the first byte.
    #[inline]
    pub fn kind(&self) -> Type {
        match self.bytes.first() {
            Some(b'"') => Type::String,
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b't' | b'f') => Type::Bool,
            Some(b'n') | None => Type::Null,
            Some(_) => Type::Number,
        }
    }

    /// The bytes as they are written between the quotes, or of the scalar; what is compared when
    /// nothing is escaped.
    #[inline]
    pub fn plain(&self) -> Option<&'a [u8]> {
        match self.bytes {
            [b'"', inner @ .., b'"'] if !self.is_escaped => Some(inner),
            [b'"', ..] => None,
            [b'0'..=b'9' | b'-', ..] if is_rewritten(self.bytes) => None,
            other => Some(other),
        }
    }

    /// A scalar as text: strings unescaped (invalid UTF-8 and lone surrogates become U+FFFD),
    /// equal numbers as equal texts, booleans as written; `None` for null, objects and arrays.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Type::String => match self.plain() {
                Some(inner) => Some(utf8(inner)),
                None => Some(Cow::Owned(unescape(inside(self.bytes)))),
            },
            Type::Number => Some(number(self.bytes)),
            Type::Bool => Some(utf8(self.bytes)),
            Type::Null | Type::Object | Type::Array => None,
        }
    }

    /// A number as it is written, where its text may be another.
    pub fn written(&self) -> Option<&'a str> {
        let is_other = self.kind() == Type::Number && is_rewritten(self.bytes);
        std::str::from_utf8(self.bytes).ok().filter(|_| is_other)
    }

    /// The members of an object in the order written; ends early at malformed bytes.
    pub fn members(&self) -> Members<'a> {
        Members { walk: Walk::new(self.bytes, b'{') }
    }

    /// The elements of an array in the order written; ends early at malformed bytes.
    pub fn elements(&self) -> Elements<'a> {
        Elements { walk: Walk::new(self.bytes, b'[') }
    }

    /// The element of an array that holds one string and nothing else, written without blanks and
    /// escapes, as Go's encoder does: most lists of addresses are of this kind.
    #[inline]
    pub fn only_text(&self) -> Option<Value<'a>> {
        let [b'[', text @ .., b']'] = self.bytes else { return None };
        let [b'"', inner @ .., b'"'] = text else { return None };
        let is_one = memchr::memchr2(b'"', b'\\', inner).is_none();
        is_one.then_some(Value { bytes: text, is_escaped: false })
    }

    /// The member of an object with this key; the last one where a key is repeated, as Go's decoder
    /// has it.
    pub fn member(&self, key: &str) -> Option<Value<'a>> {
        let is_key = |name: &Value<'_>| match name.plain() {
            Some(plain) => plain == key.as_bytes(),
            None => name.text().is_some_and(|name| name == key),
        };
        let mut found = None;
        let mut members = self.members();
        while let Some((name, value)) = members.step() {
            if is_key(&name) {
                found = Some(value);
            }
        }
        found
    }
}

/// Whether a number is written with a fraction or an exponent, or is a zero with a sign: all others
/// have one spelling.
fn is_rewritten(digits: &[u8]) -> bool {
    digits == b"-0" || digits.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// A number as text: `5.0` is `5`, `4.03e2` is `403`, `1.50` is `1.5` and `-0` is `0`, so that
/// equal numbers are equal texts.
fn number(digits: &[u8]) -> Cow<'_, str> {
    let text = utf8(digits);
    match is_rewritten(digits).then(|| decimal(&text)).flatten() {
        Some(decimal) => Cow::Owned(decimal),
        None => text,
    }
}

/// The shortest text of a number without an exponent; `None` where that would be long, and for what
/// is no number.
fn decimal(text: &str) -> Option<String> {
    /// More zeros than this are not written out.
    const PLACES_MAX: i64 = 64;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    // The value is 0.digits times ten to the power of the point.
    let point = (whole.len() as i64 - zeros as i64).checked_add(exponent.parse().ok()?)?;
    let (length, zeros) = (digits.len() as i64, |count: i64| "0".repeat(count.max(0) as usize));
    match point {
        _ if !(-PLACES_MAX..=length.saturating_add(PLACES_MAX)).contains(&point) => None,
        ..=0 => Some(format!("{sign}0.{}{digits}", zeros(-point))),
        _ if point >= length => Some(format!("{sign}{digits}{}", zeros(point - length))),
        _ => {
            let (whole, fraction) = digits.split_at(point as usize);
            Some(format!("{sign}{whole}.{fraction}"))
        }
    }
}

/// The bytes as text; the checked way first, it is several times as fast as the lossy one.
fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// The bytes between the quotes.
fn inside(quoted: &[u8]) -> &[u8] {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// The text of a string's inside with its escapes resolved.
pub fn unescape(inner: &[u8]) -> String {
    let mut text = Vec::with_capacity(inner.len());
    let mut index = 0;
    while index < inner.len() {
        if inner[index] != b'\\' {
            let end = memchr::memchr(b'\\', &inner[index..]).map_or(inner.len(), |n| index + n);
            text.extend_from_slice(&inner[index..end]);
            index = end;
            continue;
        }
        let escape = inner.get(index + 1).copied().unwrap_or(b'\\');
        index += 2;
        let plain = match escape {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let (character, used) = unicode_escape(inner, index);
                index += used;
                character
            }
            other => char::from(other),
        };
        let mut buffer = [0u8; 4];
        text.extend_from_slice(plain.encode_utf8(&mut buffer).as_bytes());
    }
    match String::from_utf8(text) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The character of `\uXXXX` (digits at `at`), with its low surrogate; and how many bytes it took.
pub(crate) fn unicode_escape(inner: &[u8], at: usize) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(inner.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(at) else { return (char::REPLACEMENT_CHARACTER, 0) };
    if (0xD800..0xDC00).contains(&first)
        && inner.get(at + 4..at + 6) == Some(b"\\u")
        && let Some(second @ 0xDC00..0xE000) = unit(at + 6)
    {
        let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

/// A step through the members or elements of a container.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    is_over: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], open: u8) -> Walk<'a> {
        Walk { bytes, at: 1, is_over: bytes.first() != Some(&open) }
    }

    /// Moves to the next member or element; false at the end.
    #[inline]
    fn advance(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        self.at = skip_blank(self.bytes, self.at);
        if self.bytes.get(self.at) == Some(&b',') {
            self.at = skip_blank(self.bytes, self.at + 1);
        }
        self.is_over = matches!(self.bytes.get(self.at), None | Some(b'}' | b']'));
        !self.is_over
    }

    #[inline]
    fn value(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        let (end, is_escaped) = match self.bytes.get(start) {
            Some(b'"') => skip_string(self.bytes, start).ok()?,
            _ => (skip_value(self.bytes, start).ok()?, false),
        };
        self.at = end;
        Some(Value { bytes: &self.bytes[start..end], is_escaped })
    }
}

/// Iterates over the members of an object.
pub struct Members<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.step()?;
        Some((key.text()?, value))
    }
}

impl<'a> Members<'a> {
    /// The next member, its key unread.
    fn step(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        if !self.walk.advance() || self.walk.bytes[self.walk.at] != b'"' {
            return None;
        }
        let key = self.walk.value()?;
        self.walk.at = skip_blank(self.walk.bytes, self.walk.at);
        if self.walk.bytes.get(self.walk.at) != Some(&b':') {
            self.walk.is_over = true;
            return None;
        }
        self.walk.at = skip_blank(self.walk.bytes, self.walk.at + 1);
        match self.walk.value() {
            Some(value) => Some((key, value)),
            None => {
                self.walk.is_over = true;
                None
            }
        }
    }
}

/// Iterates over the elements of an array.
pub struct Elements<'a> {
    walk: Walk<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if !self.walk.advance() {
            return None;
        }
        let value = self.walk.value();
        self.walk.is_over = value.is_none();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_escapes() {
        for (raw, text) in [
            (r#""a\u0026b""#, "a&b"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\n\t\\\"\/""#, "\n\t\\\"/"),
            (r#""\uZZZZ""#, "\u{fffd}ZZZZ"),
        ] {
            assert_eq!(Value::of(raw.as_bytes()).text().expect("a string"), text, "{raw}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_texts() {
        for (written, text) in [
            ("5", "5"),
            ("5.0", "5"),
            ("4.03e2", "403"),
            ("40300E-2", "403"),
            ("1.50", "1.5"),
            ("15e-1", "1.5"),
            ("-0.050", "-0.05"),
            ("-5e-3", "-0.005"),
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0e99999999999999999999", "0"),
            ("1e20", "100000000000000000000"),
            ("9007199254740993.0", "9007199254740993"),
            ("1e64", &format!("1{}", "0".repeat(64))),
            ("1e400", "1e400"),
            ("1e-400", "1e-400"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            ("1.2.3", "1.2.3"),
            ("-.", "-."),
            ("-e", "-e"),
        ] {
            let value = Value::of(written.as_bytes());
            assert_eq!(value.text().as_deref(), Some(text), "{written}");
            assert_eq!(value.plain().is_some(), value.written().is_none(), "{written}");
            assert!(value.written().is_none_or(|known| known == written));
        }
    }

    #[test]
    fn knows_an_array_of_one_text() {
        for (raw, only) in [
            (r#"["10.0.0.1"]"#, Some(r#""10.0.0.1""#)),
            (r#"[""]"#, Some(r#""""#)),
            (r#"["a","b"]"#, None),
            (r#"["a\""]"#, None),
            (r#"["]"#, None),
            (r#"[1]"#, None),
            ("[]", None),
            ("[", None),
        ] {
            let found = Value::of(raw.as_bytes()).only_text();
            assert_eq!(found.map(|value| value.raw()), only.map(str::as_bytes), "{raw}");
        }
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let value = Value::of(br#"{"a":1,"b":{"a":3},"a":2}"#);
        assert_eq!(value.member("a").map(|found| found.raw()), Some(&b"2"[..]));
    }

    proptest! {
        #[test]
        fn walks_what_serde_json_holds(keys in prop::collection::vec("[a-z\\\\\"\n]{0,9}", 0..9), text in ".{0,40}") {
            let object: serde_json::Map<_, _> =
                keys.iter().map(|key| (key.clone(), text.clone().into())).collect();
            let raw = serde_json::Value::Object(object.clone()).to_string();
            let mine: Vec<_> = Value::of(raw.as_bytes())
                .members()
                .map(|(key, value)| (key.into_owned(), value.text().expect("a string").into_owned()))
                .collect();
            let theirs: Vec<_> = object.keys().map(|key| (key.clone(), text.clone())).collect();
            prop_assert_eq!(mine, theirs);
        }

        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let value = Value::of(&bytes);
            let _ = (value.members().count(), value.elements().count(), value.text());
        }
    }
}
