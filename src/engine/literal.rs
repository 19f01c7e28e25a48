//! Texts of which every match of a regular expression contains one: looking for them together with
//! all others of a field is nearly always enough to say no.

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

/// More alternatives are no help.
const ALTERNATIVES_MAX: usize = 32;

/// The texts of which one is needed, chosen so that the shortest is as long as can be; empty where
/// none is.
pub fn needed(source: &str) -> Vec<Literal> {
    let Ok(ast) = Parser::new().parse(source) else { return Vec::new() };
    let mut search = Search::default();
    search.read(&ast);
    search.end_run();
    search.best
}

#[derive(Default)]
struct Search {
    /// Whether `(?i)` is on.
    is_folded: bool,
    /// The literals read last, with nothing between them.
    run: String,
    best: Vec<Literal>,
}

impl Search {
    fn read(&mut self, ast: &Ast) {
        match ast {
            Ast::Concat(concat) => concat.asts.iter().for_each(|part| self.read(part)),
            Ast::Alternation(alternation) => self.read_alternatives(&alternation.asts),
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

    /// Where each alternative needs something, one of it is needed.
    fn read_alternatives(&mut self, alternatives: &[Ast]) {
        self.end_run();
        let mut union = Vec::new();
        let mut is_needed = true;
        for alternative in alternatives {
            let mut search = Search { is_folded: self.is_folded, ..Search::default() };
            search.read(alternative);
            search.end_run();
            // A flag holds on to the end of the group.
            self.is_folded = search.is_folded;
            is_needed &= !search.best.is_empty();
            union.extend(search.best);
        }
        if is_needed {
            self.consider(union);
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
        if !text.is_empty() {
            self.consider(vec![Literal { text, cased: !self.is_folded }]);
        }
    }

    fn consider(&mut self, texts: Vec<Literal>) {
        let shortest = |texts: &[Literal]| texts.iter().map(|one| one.text.len()).min();
        if texts.len() <= ALTERNATIVES_MAX && shortest(&texts) > shortest(&self.best) {
            self.best = texts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_longest_texts_that_are_needed() {
        for (source, text, cased) in [
            ("abc", "abc", true),
            ("^abc$", "abc", true),
            (r"\bghp_[A-Za-z0-9]{36}", "ghp_", true),
            ("must not include [^)]*\"(ALL|SYS)\"", "must not include ", true),
            ("ab(cdef)+gh", "cdef", true),
            ("ab(cdef)*gh", "ab", true),
            ("abc|def", "abc def", true),
            ("(abc|def)gh", "abc def", true),
            ("(abc|d)efg", "efg", true),
            ("abc|d*", "", true),
            ("(abc|(def|ghi)j)+", "abc def ghi", true),
            ("(?i)(curl|wget)", "curl wget", false),
            ("(?i:curl|wget) http:", " http:", true),
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
            let texts: Vec<&str> = found.iter().map(|one| &*one.text).collect();
            assert_eq!(texts.join(" ").trim_start(), text.trim_start(), "{source}");
            assert!(found.iter().all(|one| one.cased == cased), "{source}: case");
        }
    }

    proptest! {
        #[test]
        fn what_matches_contains_it(
            source in "(\\(\\?i\\))?[aKs]{0,2}(\\(((\\(\\?i\\))?[ab]{1,3}\\|?(\\(\\?i\\))?){1,3}[aS]{0,2}\\)[*+?]?)?[a-cK.|]{0,3}[*+?]?b{0,2}",
            text in "[abcksKSſK]{0,12}",
        ) {
            let Ok(regex) = regex::Regex::new(&source) else { return Ok(()) };
            let literals = needed(&source);
            if regex.is_match(&text) && !literals.is_empty() {
                let folded = crate::engine::letters::lowercase(&text);
                let within = |one: &Literal| if one.cased { &text } else { &folded };
                let is_in = |one: &Literal| within(one).contains(&one.text);
                prop_assert!(literals.iter().any(is_in), "{} {:?} {}", source, literals, text);
            }
        }
    }
}
