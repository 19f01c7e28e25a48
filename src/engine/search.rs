//! Regular expressions as rules ask them: a search, compiled when it is first needed.
//!
//! Rules are written for PCRE and Python, where `$` is the end of the text and also the place
//! before a line break that ends it. The `regex` crate knows the end alone, so `$` is put in other
//! words before an expression is compiled; people are shown it as it was written.

use std::sync::OnceLock;

use regex::Regex;
use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{AssertionKind, Ast, Flag, Flags, GroupKind, Span};

/// What `$` means where it does not mean the end of each line. A search does not ask where a match
/// ends, so the line break may be part of it.
const END: &str = r"(?:\n?\z)";

/// A regular expression that is compiled when it is first needed: of hundreds most never are.
#[derive(Clone, Debug)]
pub struct LazyRegex {
    source: Box<str>,
    /// For texts of ASCII alone, where the whole expression is, too: it then means the same without
    /// Unicode's tables, and is compiled ten times as fast.
    ascii: OnceLock<Option<meta::Regex>>,
    compiled: OnceLock<Option<Regex>>,
}

impl LazyRegex {
    /// Takes an expression that is known to compile: the rules' reader has tried.
    pub fn new(source: &str) -> LazyRegex {
        LazyRegex { source: source.into(), ascii: OnceLock::new(), compiled: OnceLock::new() }
    }

    /// The expression as it is written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        if text.is_ascii()
            && let Some(regex) = self.ascii.get_or_init(|| ascii_regex(&with_ends(&self.source)))
        {
            return regex.is_match(text.as_bytes());
        }
        let compiled = self.compiled.get_or_init(|| Regex::new(&with_ends(&self.source)).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// The expression without Unicode; `None` where it names characters beyond ASCII, or may do so by
/// an escape: `(?i)\u017f` is `s`, too. Values are short and are tried once: nothing is prepared
/// that would pay for itself only in long texts.
fn ascii_regex(source: &str) -> Option<meta::Regex> {
    let escapes = [r"\u", r"\U", r"\x", r"\p", r"\P"];
    if !source.is_ascii() || escapes.iter().any(|escape| source.contains(escape)) {
        return None;
    }
    let config = meta::Config::new()
        .auto_prefilter(false)
        .onepass(false)
        .backtrack(false)
        .utf8_empty(false)
        .which_captures(WhichCaptures::None);
    let syntax = syntax::Config::new().unicode(false).utf8(false);
    meta::Builder::new().configure(config).syntax(syntax).build(source).ok()
}

/// The expression with the meaning of `$` spelled out; what is no expression stays as it is.
fn with_ends(source: &str) -> String {
    let Ok(ast) = Parser::new().parse(source) else { return source.to_owned() };
    let mut ends = Ends::default();
    ends.read(&ast);
    let mut text = String::with_capacity(source.len() + ends.found.len() * END.len());
    let mut start = 0;
    for span in ends.found {
        text.push_str(&source[start..span.start.offset]);
        text.push_str(END);
        start = span.end.offset;
    }
    text + &source[start..]
}

/// Finds every `$`, in the order written.
#[derive(Default)]
struct Ends {
    /// Whether `(?m)` is on.
    is_by_line: bool,
    found: Vec<Span>,
}

impl Ends {
    /// The parser allows no more depth than a stack has.
    fn read(&mut self, ast: &Ast) {
        match ast {
            Ast::Concat(concat) => concat.asts.iter().for_each(|part| self.read(part)),
            Ast::Alternation(all) => all.asts.iter().for_each(|part| self.read(part)),
            Ast::Repetition(repetition) => self.read(&repetition.ast),
            Ast::Flags(set) => self.set(&set.flags),
            Ast::Group(group) => {
                let before = self.is_by_line;
                if let GroupKind::NonCapturing(flags) = &group.kind {
                    self.set(flags);
                }
                self.read(&group.ast);
                self.is_by_line = before;
            }
            Ast::Assertion(assertion) if assertion.kind == AssertionKind::EndLine => {
                self.found.extend((!self.is_by_line).then_some(assertion.span));
            }
            _ => {}
        }
    }

    fn set(&mut self, flags: &Flags) {
        self.is_by_line = flags.flag_state(Flag::MultiLine).unwrap_or(self.is_by_line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_also_before_a_last_line_break() {
        for (source, text, is_match) in [
            ("foo$", "foo", true),
            ("foo$", "foo\n", true),
            ("foo$", "foo\n\n", false),
            ("foo$", "foo\nx", false),
            ("^$", "\n", true),
            ("(^|,)foo($|,)", "x,foo\n", true),
            ("(foo|bar$)+", "bar\n", true),
            (r"foo\z", "foo\n", false),
            ("foo[$]", "foo\n", false),
            (r"foo\$", "foo\n", false),
            (r"foo\$$", "foo$\n", true),
            ("(?m)foo$", "foo\n\n", true),
            ("(?m:foo$)|bar$", "foo\n\n", true),
            ("(?m:foo$)|bar$", "bar\n\n", false),
            ("((?m)foo)$", "foo\n\n", false),
            ("(?m)(?-m:foo$)", "foo\n", true),
            ("(?m)(?-m:foo$)", "foo\n\n", false),
            ("(?x) foo $ # the end", "foo\n", true),
            ("é$", "é\n", true),
            ("$", "", true),
        ] {
            assert_eq!(LazyRegex::new(source).is_match(text), is_match, "{source:?} on {text:?}");
        }
        assert_eq!(with_ends("a(?m)b$"), "a(?m)b$");
        assert_eq!(with_ends("(a$"), "(a$");
    }

    #[test]
    fn expressions_mean_the_same_with_and_without_unicode() {
        let sources = [
            "(?i)^curl/",
            "K",
            "(?i)k",
            r"^\w+$",
            r"\bsys\b",
            r"^[^a-z]*$",
            r"\d{2,}",
            "(?s)^a.b$",
            "(?m)^x$",
            "",
            "a|b|",
            r"^\S+@\S+$",
            "(?i)ſ",
            r"(?i)\u017f",
            "é",
            r"(?-u:a)",
            r"\W",
        ];
        let texts = [
            "", "curl/8", "CURL/8", "k", "K", "K", "s", "S", "a\nb", "x\ny", "sys 12", "a@b", "é",
            "ABC é", "_1", " ", "sys", "\u{7f}",
        ];
        for source in sources {
            let regex = Regex::new(&with_ends(source)).unwrap();
            let lazy = LazyRegex::new(source);
            for text in texts {
                assert_eq!(lazy.is_match(text), regex.is_match(text), "{source:?} on {text:?}");
            }
        }
        assert!(ascii_regex("(?i)^curl/").is_some() && ascii_regex("(?i)ſ").is_none());
    }
}
