//! A text that every match of a regular expression contains: looking for it together with all
//! others of a field is nearly always enough to say no.

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{
    Ast, Flag, Flags, FlagsItemKind, GroupKind, RepetitionKind, RepetitionRange,
};

/// A text that is needed somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Literal {
    /// The text; in lower case where case does not matter.
    pub text: String,
    /// Whether case matters.
    pub cased: bool,
}

/// The longest text that is needed; empty where none is.
pub fn needed(source: &str) -> Literal {
    let Ok(ast) = Parser::new().parse(source) else { return Literal::default() };
    let mut search = Search { is_folded: false, run: String::new(), longest: Literal::default() };
    search.read(&ast);
    search.end_run();
    search.longest
}

struct Search {
    /// Whether `(?i)` is on.
    is_folded: bool,
    /// The literals read last, with nothing between them.
    run: String,
    longest: Literal,
}

impl Search {
    fn read(&mut self, ast: &Ast) {
        match ast {
            Ast::Concat(concat) => concat.asts.iter().for_each(|part| self.read(part)),
            Ast::Literal(literal) => self.take(literal.c),
            // What stands between characters does not part them.
            Ast::Empty(_) | Ast::Assertion(_) => {}
            Ast::Flags(set) => self.set(&set.flags),
            Ast::Group(group) => {
                let before = self.is_folded;
                self.end_run();
                if let GroupKind::NonCapturing(flags) = &group.kind {
                    self.set(flags);
                }
                self.read(&group.ast);
                self.end_run();
                self.is_folded = before;
            }
            Ast::Repetition(repetition) => {
                self.end_run();
                let is_needed = match &repetition.op.kind {
                    RepetitionKind::OneOrMore => true,
                    RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore => false,
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(least)
                        | RepetitionRange::AtLeast(least)
                        | RepetitionRange::Bounded(least, _),
                    ) => *least > 0,
                };
                if is_needed {
                    self.read(&repetition.ast);
                    self.end_run();
                }
            }
            _ => self.end_run(),
        }
    }

    fn take(&mut self, character: char) {
        // Beyond ASCII there are characters that fold to `k` and to `s`, and not by being put in
        // lower case.
        let is_plain = character.is_ascii() && !matches!(character, 'k' | 'K' | 's' | 'S');
        match (self.is_folded, is_plain) {
            (false, _) => self.run.push(character),
            (true, true) => self.run.push(character.to_ascii_lowercase()),
            (true, false) => self.end_run(),
        }
    }

    fn set(&mut self, flags: &Flags) {
        let folded = flags.flag_state(Flag::CaseInsensitive);
        let is_changed = folded.is_some_and(|folded| folded != self.is_folded);
        if is_changed || flags.items.iter().any(|item| item.kind == FlagsItemKind::Negation) {
            self.end_run();
        }
        self.is_folded = folded.unwrap_or(self.is_folded);
    }

    fn end_run(&mut self) {
        let text = std::mem::take(&mut self.run);
        if text.len() > self.longest.text.len() {
            self.longest = Literal { text, cased: !self.is_folded };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_longest_text_that_is_needed() {
        for (source, text, cased) in [
            ("abc", "abc", true),
            ("^abc$", "abc", true),
            (r"\bghp_[A-Za-z0-9]{36}", "ghp_", true),
            ("must not include [^)]*\"(ALL|SYS)\"", "must not include ", true),
            ("ab(cdef)+gh", "cdef", true),
            ("ab(cdef)*gh", "ab", true),
            ("abc|def", "", true),
            ("(abc|def)gh", "gh", true),
            ("ab?c", "a", true),
            ("a{0,3}bc", "bc", true),
            ("(?i)CURL/", "curl/", false),
            ("(?i)secret", "ecret", false),
            ("a(?i:PRIVATE)b", "private", false),
            ("(?i:a)bcd", "bcd", true),
            ("ab(?i)cde(?-i)f", "cde", false),
            (r"a\.b\x41c", "a.bAc", true),
            (".*", "", true),
            ("(", "", false),
        ] {
            let found = needed(source);
            assert_eq!(found.text, text, "{source}");
            assert!(found.text.is_empty() || found.cased == cased, "{source}: case");
        }
    }

    proptest! {
        #[test]
        fn what_matches_contains_it(
            source in "(\\(\\?i\\))?[aKs]{0,2}(\\([ab]{1,3}\\|?[aS]{0,2}\\)[*+?]?)?[a-cK.]{0,3}[*+?]?b{0,2}",
            text in "[abcksKSſK]{0,12}",
        ) {
            let Ok(regex) = regex::Regex::new(&source) else { return Ok(()) };
            let literal = needed(&source);
            if regex.is_match(&text) {
                let folded = crate::engine::predicate::lowercase(&text);
                let within = if literal.cased { text.as_str() } else { folded.as_str() };
                prop_assert!(within.contains(&literal.text), "{} {:?} {}", source, literal, text);
            }
        }
    }
}
