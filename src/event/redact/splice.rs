//! Spans to replace, and the copy that replaces them; offsets through escapes and back.

use std::borrow::Cow;

/// What stands in place of a value whose fingerprint must not be known.
pub(crate) const MARK: &[u8] = b"[REDACTED]";

/// A part of a text that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The first 64 bits of the HMAC; none for values that could be guessed.
    pub(crate) fingerprint: Option<[u8; 8]>,
    /// In how many JSON strings the quotes around the mark stand; `None` inside of a string, where
    /// the mark takes none.
    pub(crate) quotes: Option<u8>,
}

impl Edit {
    /// Writes the mark.
    fn write(&self, out: &mut Vec<u8>) {
        let quote: &[u8] = match self.quotes {
            None => b"",
            Some(0) => b"\"",
            Some(1) => b"\\\"",
            Some(_) => b"\\\\\\\"",
        };
        out.extend_from_slice(quote);
        write_mark(self.fingerprint, out);
        out.extend_from_slice(quote);
    }
}

/// Writes what stands in place of a value.
pub(crate) fn write_mark(fingerprint: Option<[u8; 8]>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let Some(bytes) = fingerprint else {
        out.extend_from_slice(MARK);
        return;
    };
    out.extend_from_slice(b"[REDACTED:");
    for byte in bytes {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    out.push(b']');
}

/// Copies a text with its edits, which stand in order and apart from each other.
pub(crate) fn splice(text: &[u8], edits: &[Edit], out: &mut Vec<u8>) {
    out.reserve(text.len() + edits.len() * 8);
    let mut copied = 0;
    for edit in edits {
        out.extend_from_slice(&text[copied..edit.start]);
        edit.write(out);
        copied = edit.end;
    }
    out.extend_from_slice(&text[copied..]);
}

/// A text whose escapes are resolved, and the way back to where its bytes came from.
pub(crate) struct Decoded<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Behind every escape: the offset in `bytes`, and in the original.
    jumps: Vec<(usize, usize)>,
}

impl<'a> Decoded<'a> {
    /// The inside of a JSON string.
    pub(crate) fn json(inner: &'a [u8]) -> Decoded<'a> {
        Decoded::new(inner, b'\\', json_escape)
    }

    /// A part of a URI's query.
    pub(crate) fn percent(part: &'a [u8]) -> Decoded<'a> {
        let mut decoded = Decoded::new(part, b'%', percent_escape);
        if memchr::memchr(b'+', &decoded.bytes).is_some() {
            // A `%2B` becomes a blank too; it changes no offset, and patterns do not mind.
            decoded.bytes.to_mut().iter_mut().filter(|byte| **byte == b'+').for_each(|b| *b = b' ');
        }
        decoded
    }

    /// `escape` reads one that stands at an offset: its length, and what it means.
    fn new(
        text: &'a [u8],
        sign: u8,
        escape: fn(&[u8], usize, &mut Vec<u8>) -> usize,
    ) -> Decoded<'a> {
        let Some(first) = memchr::memchr(sign, text) else {
            return Decoded { bytes: Cow::Borrowed(text), jumps: Vec::new() };
        };
        let mut bytes = Vec::with_capacity(text.len());
        bytes.extend_from_slice(&text[..first]);
        let mut jumps = Vec::new();
        let mut at = first;
        while at < text.len() {
            at += escape(text, at, &mut bytes);
            jumps.push((bytes.len(), at));
            let rest = &text[at..];
            let plain = memchr::memchr(sign, rest).unwrap_or(rest.len());
            bytes.extend_from_slice(&rest[..plain]);
            at += plain;
        }
        Decoded { bytes: Cow::Owned(bytes), jumps }
    }

    /// Where the byte at an offset of `bytes` stands in the original; for an end, what is behind.
    pub(crate) fn origin(&self, offset: usize) -> usize {
        let after = self.jumps.partition_point(|(decoded, _)| *decoded <= offset);
        match after.checked_sub(1).map(|index| self.jumps[index]) {
            Some((decoded, original)) => original + (offset - decoded),
            None => offset,
        }
    }
}

fn json_escape(text: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let Some(&byte) = text.get(at + 1) else {
        out.push(b'\\');
        return 1;
    };
    let plain = match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        b'u' => {
            let (character, used) = crate::event::value::unicode_escape(text, at + 2);
            let mut buffer = [0u8; 4];
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            return 2 + used;
        }
        other => other,
    };
    out.push(plain);
    2
}

fn percent_escape(text: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (digit(at + 1), digit(at + 2)) {
        (Some(high), Some(low)) => {
            out.push((high * 16 + low) as u8);
            3
        }
        _ => {
            out.push(b'%');
            1
        }
    }
}
