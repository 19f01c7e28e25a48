//! The re-encodings that modifiers apply to a text: base64 at three alignments, UTF-16, dashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::rule::{Pattern, Piece};

/// The most texts one value may become through `windash` (or placeholders): 5 to the power of 5.
pub const VARIANTS_MAX: usize = 3_125;

/// The most bytes of text one test may compare with; fields that rules test are far shorter.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// What Windows programs take for the dash before a parameter.
const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The base64 texts that stand for the bytes inside a longer encoded text, one for each of the
/// three alignments, without the characters that depend on the neighbours.
///
/// Returns nothing when the bytes are too few to leave a stable character at every alignment.
pub fn base64_offsets(bytes: &[u8]) -> Option<[String; 3]> {
    const STARTS: [usize; 3] = [0, 2, 3];
    const CUTS: [usize; 3] = [0, 3, 2];
    let mut texts = [const { String::new() }; 3];
    for (offset, text) in texts.iter_mut().enumerate() {
        let mut shifted = vec![b' '; offset];
        shifted.extend_from_slice(bytes);
        let encoded = STANDARD.encode(&shifted);
        let end = encoded.len() - CUTS[shifted.len() % 3];
        let stable = encoded.get(STARTS[offset]..end).filter(|stable| !stable.is_empty())?;
        stable.clone_into(text);
    }
    Some(texts)
}

/// A form of UTF-16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Utf16 {
    /// `utf16le`, also called `wide`.
    LittleEndian,
    /// `utf16be`.
    BigEndian,
    /// `utf16`: little endian after a byte order mark.
    Marked,
}

/// The bytes of a text in UTF-16.
pub fn utf16(text: &str, form: Utf16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * text.len() + 2);
    if form == Utf16::Marked {
        bytes.extend_from_slice(&[0xff, 0xfe]);
    }
    for unit in text.encode_utf16() {
        match form {
            Utf16::BigEndian => bytes.extend_from_slice(&unit.to_be_bytes()),
            Utf16::LittleEndian | Utf16::Marked => bytes.extend_from_slice(&unit.to_le_bytes()),
        }
    }
    bytes
}

/// `windash`: every combination of dashes for every dash that leads a parameter, as the expression
/// `\B[-/]\b` finds them.
///
/// Returns nothing when there would be more than [`VARIANTS_MAX`], or too long ones.
pub fn windash(pattern: &Pattern) -> Option<Vec<Pattern>> {
    if pattern.size() > TEXT_BYTES_MAX {
        return None;
    }
    let mut variants = vec![Pattern { pieces: Vec::new() }];
    for piece in &pattern.pieces {
        let Piece::Literal(text) = piece else {
            variants.iter_mut().for_each(|variant| variant.push(piece.clone()));
            continue;
        };
        let mut start = 0;
        for position in leading_dashes(text) {
            if variants.len() * DASHES.len() > VARIANTS_MAX {
                return None;
            }
            let before = &text[start..position];
            variants = variants
                .iter()
                .flat_map(|variant| DASHES.map(|dash| with(variant, &format!("{before}{dash}"))))
                .collect();
            start = position + 1;
        }
        variants = variants.iter().map(|variant| with(variant, &text[start..])).collect();
    }
    Some(variants)
}

fn with(pattern: &Pattern, text: &str) -> Pattern {
    let mut longer = pattern.clone();
    longer.push(Piece::Literal(text.to_owned()));
    longer
}

fn leading_dashes(text: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut after_word = false;
    let mut chars = text.char_indices().peekable();
    while let Some((position, c)) = chars.next() {
        let before_word = chars.peek().is_some_and(|(_, next)| is_word(*next));
        if matches!(c, '-' | '/') && !after_word && before_word {
            found.push(position);
        }
        after_word = is_word(c);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_found_at_every_alignment() {
        for text in ["cmd", "foobar", "/bin/sh", "kubectl exec"] {
            let texts = base64_offsets(text.as_bytes()).unwrap();
            for lead in 0..6 {
                for trail in 0..4 {
                    let whole = format!("{}{text}{}", "x".repeat(lead), "y".repeat(trail));
                    let encoded = base64(whole.as_bytes());
                    assert!(encoded.contains(&texts[lead % 3]), "{text} after {lead}");
                }
            }
        }
        assert_eq!(base64_offsets(b"a"), None);
    }

    #[test]
    fn windash_changes_leading_dashes_only() {
        let texts = |text: &str| -> Vec<String> {
            windash(&Pattern::parse(text)).unwrap().iter().map(Pattern::to_string).collect()
        };
        assert_eq!(
            texts(" -enc"),
            [" -enc", " /enc", " \u{2013}enc", " \u{2014}enc", " \u{2015}enc"]
        );
        assert_eq!(texts("-param-name").len(), 5);
        assert_eq!(texts("-a /b").len(), 25);
        assert_eq!(texts("*-a*"), ["*-a*", "*/a*", "*\u{2013}a*", "*\u{2014}a*", "*\u{2015}a*"]);
        assert_eq!(texts("a - b"), ["a - b"]);
        assert_eq!(windash(&Pattern::parse("-a -b -c -d -e -f")), None);
    }

    #[test]
    fn utf16_has_three_forms() {
        assert_eq!(utf16("a", Utf16::LittleEndian), [b'a', 0]);
        assert_eq!(utf16("a", Utf16::BigEndian), [0, b'a']);
        assert_eq!(utf16("a", Utf16::Marked), [0xff, 0xfe, b'a', 0]);
    }
}
