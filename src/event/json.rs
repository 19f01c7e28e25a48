//! Finds where JSON values end, at memory speed.
//!
//! Audit events are mostly bytes nobody asks for (managed fields, bodies), so the one operation
//! that decides the speed is skipping a subtree. [`skip_value`] classifies 64 bytes at a time with
//! SIMD compares, masks out strings with a prefix XOR, and counts brackets; it never recurses, so
//! depth is a number with a limit and not a stack.
//!
//! The reader is lenient where the API server cannot err (kinds of brackets are not matched against
//! each other, numbers are not checked): it decides where a value ends, not whether it is
//! beautiful.

use wide::u8x16;

/// Nesting beyond this is refused, give or take a block of 64: no Kubernetes object comes near it.
/// The API server takes 10,000 levels (Go's `encoding/json`); what nests deeper than this is taken
/// out of an event, and nothing beside it.
pub const DEPTH_MAX: usize = 9_900;

/// Why a value could not be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bytes ended inside the value.
    End,
    /// The byte at this offset cannot start or continue a value.
    Syntax(usize),
    /// The value that starts before this offset nests deeper than [`DEPTH_MAX`].
    Depth(usize),
}

/// Returns the index of the first byte at or after `at` that is no JSON blank.
#[inline]
pub fn skip_blank(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            break;
        }
        at += 1;
    }
    at
}

/// Skips the string whose opening quote stands at `at`; returns the index behind its closing quote
/// and whether it holds escapes.
#[inline]
pub fn skip_string(bytes: &[u8], at: usize) -> Result<(usize, bool), Stop> {
    let mut index = at + 1;
    while let Some(block) = bytes.get(index..index + 16) {
        let block = load(block);
        let ends = block.simd_eq(u8x16::splat(b'"')) | block.simd_eq(u8x16::splat(b'\\'));
        let ends = ends.to_bitmask();
        if ends == 0 {
            index += 16;
            continue;
        }
        index += ends.trailing_zeros() as usize;
        return match bytes[index] {
            b'"' => Ok((index + 1, false)),
            _ => skip_escaped(bytes, index),
        };
    }
    while let Some(&byte) = bytes.get(index) {
        match byte {
            b'"' => return Ok((index + 1, false)),
            b'\\' => return skip_escaped(bytes, index),
            _ => index += 1,
        }
    }
    Err(Stop::End)
}

/// The rest of a string from its first backslash on.
fn skip_escaped(bytes: &[u8], mut index: usize) -> Result<(usize, bool), Stop> {
    loop {
        let rest = bytes.get(index..).unwrap_or_default();
        let step = memchr::memchr2(b'"', b'\\', rest).ok_or(Stop::End)?;
        if rest[step] == b'"' {
            return Ok((index + step + 1, true));
        }
        index += step + 2;
    }
}

/// Skips the value that starts at `at` (no blank before it); returns the index behind it.
#[inline]
pub fn skip_value(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match bytes.get(at) {
        Some(b'"') => skip_string(bytes, at).map(|(end, _)| end),
        Some(b'{' | b'[') => skip_container(bytes, at),
        Some(b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => skip_scalar(bytes, at),
        Some(_) => Err(Stop::Syntax(at)),
        None => Err(Stop::End),
    }
}

/// A number or one of the three words, up to the delimiter behind it.
fn skip_scalar(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let rest = &bytes[at..];
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    let is_fine = match word[0] {
        b't' => word == b"true",
        b'f' => word == b"false",
        b'n' => word == b"null",
        _ => word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')),
    };
    match (is_fine, at + length == bytes.len()) {
        (true, false) => Ok(at + length),
        (_, true) => Err(Stop::End),
        (false, false) => Err(Stop::Syntax(at)),
    }
}

/// Skips an object or array, 64 bytes a step.
fn skip_container(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let mut state = Strings::default();
    let mut depth = 0usize;
    let mut index = at;
    let mut tail = [b' '; 64];
    loop {
        let block: &[u8] = match bytes.get(index..index + 64) {
            Some(block) => block,
            None => {
                let rest = bytes.get(index..).unwrap_or_default();
                if rest.is_empty() {
                    return Err(Stop::End);
                }
                tail[..rest.len()].copy_from_slice(rest);
                &tail
            }
        };
        let masks = Masks::of(block);
        let outside = !state.inside(masks.quotes, masks.escapes);
        let (opens, mut closes) = (masks.opens & outside, masks.closes & outside);
        let closing = closes.count_ones() as usize;
        if closing >= depth {
            let mut closed = 0;
            while closes != 0 {
                let bit = closes.trailing_zeros();
                let opened = (opens & ((1u64 << bit) - 1)).count_ones() as usize;
                closed += 1;
                if depth + opened <= closed {
                    return Ok(index + bit as usize + 1);
                }
                closes &= closes - 1;
            }
        }
        depth = depth + opens.count_ones() as usize - closing;
        if depth > DEPTH_MAX {
            return Err(Stop::Depth(index));
        }
        index += 64;
        if index >= bytes.len() {
            return Err(Stop::End);
        }
    }
}

/// What stands where in a block of 64 bytes, a bit a byte.
pub(crate) struct Masks {
    pub(crate) quotes: u64,
    pub(crate) escapes: u64,
    pub(crate) opens: u64,
    pub(crate) closes: u64,
}

impl Masks {
    #[inline]
    pub(crate) fn of(block: &[u8]) -> Masks {
        let mut masks = Masks { quotes: 0, escapes: 0, opens: 0, closes: 0 };
        for (step, part) in block.chunks_exact(16).enumerate() {
            let bytes = load(part);
            // Setting bit 5 folds '[' onto '{' and ']' onto '}'.
            let folded = bytes | u8x16::splat(0x20);
            let shift = step * 16;
            masks.quotes |= u64::from(bytes.simd_eq(u8x16::splat(b'"')).to_bitmask()) << shift;
            masks.escapes |= u64::from(bytes.simd_eq(u8x16::splat(b'\\')).to_bitmask()) << shift;
            masks.opens |= u64::from(folded.simd_eq(u8x16::splat(b'{')).to_bitmask()) << shift;
            masks.closes |= u64::from(folded.simd_eq(u8x16::splat(b'}')).to_bitmask()) << shift;
        }
        masks
    }
}

/// What a block hands on to the next: an open string, a backslash whose victim is still to come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strings {
    is_escaping: bool,
    is_inside: bool,
}

impl Strings {
    /// Whether the block ended inside a string.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// The bytes of the block that stand inside strings (opening quote included).
    #[inline]
    pub(crate) fn inside(&mut self, quotes: u64, escapes: u64) -> u64 {
        let quotes = if escapes == 0 && !self.is_escaping {
            quotes
        } else {
            quotes & !self.escaped(escapes)
        };
        let mut mask = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            mask ^= mask << shift;
        }
        if self.is_inside {
            mask = !mask;
        }
        self.is_inside = mask >> 63 == 1;
        mask
    }

    /// The bytes of the block that a backslash escapes; pairs of backslashes are rare, so a walk
    /// over the set bits is cheap enough.
    fn escaped(&mut self, mut escapes: u64) -> u64 {
        let mut escaped = u64::from(self.is_escaping);
        self.is_escaping = false;
        escapes &= !escaped;
        while escapes != 0 {
            let bit = escapes.trailing_zeros();
            if bit == 63 {
                self.is_escaping = true;
                break;
            }
            escaped |= 1 << (bit + 1);
            escapes &= !(3u64 << bit);
        }
        escaped
    }
}

/// Sixteen bytes as a vector.
#[inline]
pub(crate) fn load(part: &[u8]) -> u8x16 {
    let mut array = [0u8; 16];
    array.copy_from_slice(part);
    u8x16::new(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn skips_what_serde_json_reads() {
        for (text, rest) in [
            (r#"{"a":1},x"#, ",x"),
            (r#"{"a":"}\"]\\"}]"#, "]"),
            (r#""a\\" ,"#, " ,"),
            (r#"[[],[{}],"[",{"k":"{"}]:"#, ":"),
            ("true,", ","),
            ("-1.5e3}", "}"),
        ] {
            let end = skip_value(text.as_bytes(), 0).expect(text);
            assert_eq!(&text[end..], rest, "{text}");
        }
    }

    #[test]
    fn says_why_it_stops() {
        for (text, stop) in [
            ("{\"a\":", Stop::End),
            ("\"abc\\\"", Stop::End),
            ("x", Stop::Syntax(0)),
            ("trux,", Stop::Syntax(0)),
            ("12", Stop::End),
        ] {
            assert_eq!(skip_value(text.as_bytes(), 0), Err(stop), "{text}");
        }
        let deep = "[".repeat(DEPTH_MAX + 200);
        assert!(matches!(skip_value(deep.as_bytes(), 0), Err(Stop::Depth(_))));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(Into::into),
            "[ -~\\\\\"{}\\[\\]\u{e4}\n]{0,90}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::vec(("[a-z\\\\\"]{0,9}", inner), 0..8)
                    .prop_map(|list| serde_json::Value::Object(list.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_end_that_serde_json_finds(value in json(), behind in "[,} \\]]") {
            let text = format!("{value}{behind}");
            prop_assert_eq!(skip_value(text.as_bytes(), 0), Ok(text.len() - 1));
        }

        #[test]
        fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(end) = skip_value(&bytes, 0) {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
