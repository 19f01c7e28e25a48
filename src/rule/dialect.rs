//! Regular expressions as Sigma authors write them (Python's and PCRE's common ground) in the
//! syntax of the `regex` crate.
//!
//! The two differ in a few literals: `{` that begins no repetition, `[`, `&&` and `--` inside of a
//! class, `\<`, `\>` and `\Z`; in octal numbers; and in comments, `(?#…)`. Look-around and
//! back-references have no linear-time equivalent; the `regex` crate refuses them, and so do we.

use std::iter::Peekable;
use std::str::Chars;

/// Rewrites an expression; what needs no rewriting stays as it is, and what is wrong stays wrong.
///
/// # Errors
/// What the `regex` crate would take for something else.
pub fn portable(source: &str) -> Result<String, String> {
    let mut text = String::with_capacity(source.len() + 8);
    let mut chars = source.chars().peekable();
    let mut is_repeated = false;
    while let Some(c) = chars.next() {
        let was_repeated = std::mem::take(&mut is_repeated);
        match c {
            '\\' => escape(&mut chars, false, &mut text),
            '[' => {
                text.push('[');
                class(&mut chars, &mut text);
            }
            '{' => is_repeated = repetition(&mut chars, &mut text),
            '+' if was_repeated => {
                return Err("possessive repetition (\"a++\") has no linear-time equivalent".into());
            }
            '*' | '+' | '?' => {
                is_repeated = !was_repeated;
                text.push(c);
            }
            '(' if follows(&chars, "?R)") => {
                return Err("recursion (\"(?R)\") has no linear-time equivalent".into());
            }
            '(' if follows(&chars, "?#") && chars.clone().any(|c| c == ')') => {
                chars.by_ref().find(|c| *c == ')');
                is_repeated = was_repeated;
            }
            c => text.push(c),
        }
    }
    Ok(text)
}

fn follows(chars: &Peekable<Chars<'_>>, text: &str) -> bool {
    chars.clone().take(text.len()).eq(text.chars())
}

/// What follows a backslash.
fn escape(chars: &mut Peekable<Chars<'_>>, in_class: bool, text: &mut String) {
    match (chars.next(), in_class) {
        (Some(c @ ('<' | '>')), _) => text.push(c),
        // The end, also before a last line break: what `$` is where it is not the end of each line.
        (Some('Z'), false) => text.push_str("(?-m:$)"),
        (Some('b'), true) => text.push_str("\\x08"),
        (Some(c), _) => {
            if let Some(code) = octal(c, chars, in_class) {
                return text.push_str(&format!("\\x{{{code:x}}}"));
            }
            text.push('\\');
            text.push(c);
            // The name of a class, or the number of a character.
            if "pPxuU".contains(c) && chars.peek() == Some(&'{') {
                copy_behind('}', chars, text);
            }
        }
        (None, _) => text.push('\\'),
    }
}

/// The character that a backslash and these digits name: by a zero and up to two more, by three, or
/// in a class by any. All others refer to a group.
fn octal(first: char, chars: &mut Peekable<Chars<'_>>, in_class: bool) -> Option<u32> {
    let more = chars.clone().take(2).take_while(|c| c.is_digit(8)).count();
    let first_digit = first.to_digit(8)?;
    if first_digit != 0 && more < 2 && !in_class {
        return None;
    }
    let digits = chars.by_ref().take(more).filter_map(|c| c.to_digit(8));
    Some(digits.fold(first_digit, |code, digit| code * 8 + digit))
}

/// Copies up to and including a character.
fn copy_behind(last: char, chars: &mut Peekable<Chars<'_>>, text: &mut String) {
    for c in chars.by_ref() {
        text.push(c);
        if c == last {
            return;
        }
    }
}

/// What a hyphen is behind some part of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// A character that may start a range.
    Start,
    /// The hyphen of a range.
    Hyphen,
    /// Nothing that a range can start with: a range, a class, or nothing.
    Other,
}

/// What follows a `[`, up to its `]`.
fn class(chars: &mut Peekable<Chars<'_>>, text: &mut String) {
    if chars.next_if_eq(&'^').is_some() {
        text.push('^');
    }
    let mut behind = Behind::Other;
    if chars.next_if_eq(&']').is_some() {
        text.push_str("\\]");
        behind = Behind::Start;
    }
    while let Some(c) = chars.next() {
        let mut is_class = false;
        match c {
            ']' => {
                text.push(']');
                return;
            }
            '-' if behind == Behind::Start && chars.peek() != Some(&']') => {
                text.push('-');
                behind = Behind::Hyphen;
                continue;
            }
            '\\' => {
                is_class = chars.peek().is_some_and(|c| "dDsSwWpP".contains(*c));
                escape(chars, true, text);
            }
            '[' if is_posix(chars) => {
                is_class = true;
                text.push('[');
                copy_behind(']', chars, text);
            }
            '[' | '&' | '~' | '-' => {
                text.push('\\');
                text.push(c);
            }
            c => text.push(c),
        }
        behind = if is_class || behind == Behind::Hyphen { Behind::Other } else { Behind::Start };
    }
}

/// Whether `[:alpha:]` or its like follows the `[`.
fn is_posix(chars: &Peekable<Chars<'_>>) -> bool {
    let rest: String = chars.clone().take(12).collect();
    rest.strip_prefix(':').and_then(|rest| rest.split_once(":]")).is_some_and(|(name, _)| {
        name.strip_prefix('^').unwrap_or(name).bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// What follows a `{`: a repetition, whose end is copied too, or a literal. Says which.
fn repetition(chars: &mut Peekable<Chars<'_>>, text: &mut String) -> bool {
    let inside: String = chars.clone().take_while(|c| *c != '}').take(16).collect();
    let is_closed = chars.clone().nth(inside.chars().count()) == Some('}');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_repetition = is_closed
        && match inside.split_once(',') {
            Some((least, most)) => {
                digits(least) && digits(most) && !(least.is_empty() && most.is_empty())
            }
            None => !inside.is_empty() && digits(&inside),
        };
    match (is_repetition, inside.starts_with(',')) {
        (true, true) => text.push_str("{0"),
        (true, false) => text.push('{'),
        (false, _) => text.push_str("\\{"),
    }
    if is_repetition {
        copy_behind('}', chars, text);
    }
    is_repetition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_other_dialects_stay_literals() {
        let cases = [
            (r"^a\.b{2}c{1,}d{2,3}$", r"^a\.b{2}c{1,}d{2,3}$"),
            (r"a{,3}", r"a{0,3}"),
            (r"\${jndi:", r"\$\{jndi:"),
            (r"{a}", r"\{a}"),
            (r"[[]x", r"[\[]x"),
            (r"[^]]", r"[^\]]"),
            (r"[[:alpha:]_]", r"[[:alpha:]_]"),
            (r"[a&&b]", r"[a\&\&b]"),
            (r"\<script\>", r"<script>"),
            (r"end\Z", r"end(?-m:$)"),
            (r"a\0b\07\0101", r"a\x{0}b\x{7}\x{8}1"),
            (r"\101\377", r"\x{41}\x{ff}"),
            (r"[\1-\18]", r"[\x{1}-\x{1}8]"),
            (r"[\b]", r"[\x08]"),
            (r"\p{L}\P{Lu}\pL\x{4a}", r"\p{L}\P{Lu}\pL\x{4a}"),
            (r"[\p{Greek}-]", r"[\p{Greek}\-]"),
            (r"a(?#a { [ b)b", r"ab"),
            (r"a+?b*?c??d{2}?", r"a+?b*?c??d{2}?"),
            (r"\++[+]+", r"\++[+]+"),
            (r"[+--]", r"[+-\-]"),
            (r"[--0a]", r"[\--0a]"),
            (r"[a-z-9]", r"[a-z\-9]"),
            (r"[\w-z]", r"[\w\-z]"),
            (r"[[:alpha:]-z]", r"[[:alpha:]\-z]"),
            (r"[^-a-]", r"[^\-a\-]"),
            (r"[]-a]", r"[\]-a]"),
            (r"[Z-\]]", r"[Z-\]]"),
            (r"\[a", r"\[a"),
            (r"trailing\", r"trailing\"),
        ];
        for (source, expected) in cases {
            assert_eq!(portable(source).as_deref(), Ok(expected), "{source}");
            if !source.ends_with('\\') {
                regex::Regex::new(expected).unwrap();
            }
        }
        for source in ["a++", "a*+b", "a?+", "a{2}+", "a+(?#x)+", r"\((?:[^()]|(?R))*\)"] {
            assert!(portable(source).is_err(), "{source}");
        }
        assert!(regex::Regex::new(&portable("a(?#b").unwrap()).is_err());
    }
}
