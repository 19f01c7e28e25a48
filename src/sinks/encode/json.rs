//! Writes JSON objects straight to bytes; what is absent or empty is left out.

use std::borrow::Cow;
use std::io::Write as _;

/// An object that is being written.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Writes one object.
    pub(crate) fn write(out: &'o mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, is_empty: true };
        members(&mut object);
        object.out.push(b'}');
    }

    /// The program's own keys hold nothing to escape.
    fn key(&mut self, key: &'static str) {
        self.part();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn part(&mut self) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(b',');
        }
    }

    /// A member whose key is not the program's own; its value is JSON already, on one line.
    pub(crate) fn member(&mut self, key: &str, json: &[u8]) {
        self.part();
        put_text(key, self.out);
        self.out.push(b':');
        crate::sinks::encode::native::put_flat(json, self.out);
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        put_text(value, self.out);
    }

    /// A text, unless it is absent or empty.
    pub(crate) fn text_if(&mut self, key: &'static str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value.as_ref().map(AsRef::as_ref).filter(|value| !value.is_empty()) {
            self.text(key, value);
        }
    }

    /// A whole number.
    pub(crate) fn number(&mut self, key: &'static str, value: i64) {
        self.key(key);
        write!(self.out, "{value}").expect("a vector takes every write");
    }

    /// A whole number, unless it is absent.
    pub(crate) fn number_if(&mut self, key: &'static str, value: Option<i64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self, key: &'static str, value: bool) {
        self.raw(key, if value { b"true" } else { b"false" });
    }

    /// A value that is JSON already, on one line.
    pub(crate) fn raw(&mut self, key: &'static str, json: &[u8]) {
        self.key(key);
        crate::sinks::encode::native::put_flat(json, self.out);
    }

    /// An object, unless nothing is written into it.
    pub(crate) fn object(&mut self, key: &'static str, members: impl FnOnce(&mut Object<'_>)) {
        let (start, was_empty) = (self.out.len(), self.is_empty);
        self.key(key);
        self.out.push(b'{');
        let mut inner = Object { out: self.out, is_empty: true };
        members(&mut inner);
        if inner.is_empty {
            self.out.truncate(start);
            self.is_empty = was_empty;
        } else {
            self.out.push(b'}');
        }
    }

    /// A list of texts, unless it is empty.
    pub(crate) fn texts<T: AsRef<str>>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
    ) {
        self.list(key, values, |value, out| put_text(value.as_ref(), out));
    }

    /// A list of objects, unless it is empty.
    pub(crate) fn objects<T>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
        members: impl Fn(T, &mut Object<'_>),
    ) {
        self.list(key, values, |value, out| Object::write(out, |object| members(value, object)));
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        values: impl IntoIterator<Item = T>,
        put: impl Fn(T, &mut Vec<u8>),
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        self.key(key);
        for (index, value) in values.enumerate() {
            self.out.push(if index == 0 { b'[' } else { b',' });
            put(value, self.out);
        }
        self.out.push(b']');
    }
}

/// Writes a JSON string.
pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // Without a way out of the loop it looks at many bytes at a time.
    if bytes.iter().fold(false, |found, byte| found | (*byte < b' ')) {
        serde_json::to_writer(&mut *out, text).expect("a vector takes every write");
        return;
    }
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut start = 0;
    for at in memchr::memchr2_iter(b'"', b'\\', bytes) {
        out.extend_from_slice(&bytes[start..at]);
        out.push(b'\\');
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Bytes as text: invalid UTF-8 becomes U+FFFD.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
