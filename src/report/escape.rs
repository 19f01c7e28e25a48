//! Makes hostile text harmless without hiding it.
//!
//! A character that a reader cannot see, or that acts on a terminal or on the direction of text, is
//! shown as `\u{1b}`. JSON for machines keeps the exact value and spells such characters as JSON
//! escapes instead, so that a file of alerts is safe to `cat`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// Whether a character acts instead of being seen: C0 and C1 controls, DEL, line and paragraph
/// separators, bidirectional controls, and everything else that Unicode displays as nothing
/// (zero-width characters, variation selectors, fillers, tags, noncharacters).
pub fn is_hostile(c: char) -> bool {
    if (' '..='~').contains(&c) {
        return false;
    }
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fdd0}'..='\u{fdef}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a text has nothing but characters between the space and `~`, none of which is hostile.
fn is_printable_ascii(text: &str) -> bool {
    text.bytes().fold(true, |is_printable, byte| is_printable & matches!(byte, b' '..=b'~'))
}

/// The text with every hostile character spelled out: one line, left to right, nothing hidden.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hostile(c) {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// How hostile characters appear inside JSON strings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spelling {
    /// As JSON escapes: a parser gets the exact value back.
    Exact,
    /// As [`visible`] shows them, and `<`, `>`, `&` as JSON escapes: for a page to show.
    Page,
}

/// Writes a value as JSON on one line, with hostile characters spelled as asked.
pub(crate) fn write_json(
    out: &mut dyn Write,
    value: &impl Serialize,
    spelling: Spelling,
) -> io::Result<()> {
    // An alert is a hundred small writes: they go to memory, and to what may be behind a call once.
    let mut line = Vec::with_capacity(LINE_BYTES);
    value.serialize(&mut Serializer::with_formatter(&mut line, spelling))?;
    out.write_all(&line)
}

/// Room for most alerts.
const LINE_BYTES: usize = 4 << 10;

impl Formatter for Spelling {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let acts = |c: char| match self {
            Spelling::Exact => is_hostile(c),
            Spelling::Page => is_hostile(c) || matches!(c, '<' | '>' | '&'),
        };
        let mut rest = fragment;
        // Nearly all text is of this kind, and told so many bytes at a time.
        if matches!(self, Spelling::Exact) && is_printable_ascii(fragment) {
            return writer.write_all(fragment.as_bytes());
        }
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| acts(c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            match self {
                Spelling::Page if is_hostile(c) => write!(writer, "\\\\u{{{:x}}}", u32::from(c))?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let control = match escape {
            CharEscape::Quote => return writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return writer.write_all(b"\\\\"),
            CharEscape::Solidus => return writer.write_all(b"\\/"),
            CharEscape::Backspace => 0x08,
            CharEscape::FormFeed => 0x0c,
            CharEscape::LineFeed => b'\n',
            CharEscape::CarriageReturn => b'\r',
            CharEscape::Tab => b'\t',
            CharEscape::AsciiControl(byte) => byte,
        };
        match self {
            Spelling::Exact => write!(writer, "\\u{control:04x}"),
            Spelling::Page => write!(writer, "\\\\u{{{control:x}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, spelling: Spelling) -> String {
        let mut out = Vec::new();
        write_json(&mut out, &text, spelling).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn spells_hostile_characters() {
        let cases = [
            ("plain ü 漢 🙂", "plain ü 漢 🙂", r#""plain ü 漢 🙂""#),
            ("\u{1b}[31mred", r"\u{1b}[31mred", r#""\u001b[31mred""#),
            ("a\nb\tc\r\0", r"a\u{a}b\u{9}c\u{d}\u{0}", r#""a\u000ab\u0009c\u000d\u0000""#),
            ("\u{7f}\u{9b}31m", r"\u{7f}\u{9b}31m", r#""\u007f\u009b31m""#),
            ("a\u{202e}gnp.exe", r"a\u{202e}gnp.exe", r#""a\u202egnp.exe""#),
            (
                "a\u{200b}b\u{2028}c\u{feff}",
                r"a\u{200b}b\u{2028}c\u{feff}",
                r#""a\u200bb\u2028c\ufeff""#,
            ),
            ("\u{e0041}", r"\u{e0041}", r#""\udb40\udc41""#),
            ("<b>&", "<b>&", r#""<b>&""#),
            (r#"a"b\c"#, r#"a"b\c"#, r#""a\"b\\c""#),
        ];
        for (text, shown, exact) in cases {
            assert_eq!(visible(text), shown);
            assert_eq!(json(text, Spelling::Exact), exact);
            assert_eq!(serde_json::from_str::<String>(exact).unwrap(), text);
            let page = json(text, Spelling::Page);
            assert!(!page.contains(['<', '>', '&']), "{page}");
            assert_eq!(serde_json::from_str::<String>(&page).unwrap(), shown);
        }
    }
}
