//! The condition language: `selection and not 1 of filter_*`.
//!
//! ```text
//! or    := and ('or' and)*            not  := 'not'* primary
//! and   := not ('and' not)*           primary := '(' or ')' | quantifier 'of' target | identifier
//! quantifier := '1' | 'any' | 'all'   target := 'them' | a pattern with '*'
//! ```
//! `them` and patterns leave out identifiers that begin with `_`, unless the pattern does too. A
//! pattern that selects nothing is taken out of the condition; lint names it.

use std::sync::Arc;

use crate::rule::problem::did_you_mean;
use crate::rule::{Condition, Matcher, Test};

/// How deep a condition may nest.
pub const DEPTH_MAX: usize = 64;
/// The most nodes a condition may have once its identifiers are put in.
pub const NODES_MAX: usize = 200_000;

/// A search identifier with what it means.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Its name.
    pub name: Arc<str>,
    /// 1-based line of the name.
    pub line: usize,
    /// What it looks for, not yet wrapped in [`Condition::Named`].
    pub condition: Condition,
}

/// A condition as written, before the identifiers mean anything.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A search identifier.
    Identifier(String),
    /// `1 of target` (`all` false) or `all of target`.
    Of {
        /// Every identifier must hold, not only one.
        all: bool,
        /// `them` or a pattern.
        target: String,
    },
    /// Every part.
    And(Vec<Expression>),
    /// Some part.
    Or(Vec<Expression>),
    /// Not the part.
    Not(Box<Expression>),
}

/// Reads a condition.
///
/// # Errors
/// What is wrong with it, with the word at which reading stopped.
pub fn parse(text: &str) -> Result<Expression, String> {
    if text.contains('|') {
        return Err("aggregations after \"|\" are no longer Sigma; write a correlation rule that \
                    refers to this one"
            .to_owned());
    }
    let mut parser = Grammar { words: words(text)?, position: 0, depth: 0 };
    let expression = parser.or()?;
    match parser.next() {
        None => Ok(expression),
        Some(word) => Err(format!("unexpected {word:?}; expected \"and\", \"or\" or the end")),
    }
}

fn words(text: &str) -> Result<Vec<&str>, String> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '*' | '.');
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '(' | ')' => 1,
            _ => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        };
        if length == 0 {
            return Err(format!("unexpected character {c:?}"));
        }
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

struct Grammar<'a> {
    words: Vec<&'a str>,
    position: usize,
    depth: usize,
}

impl<'a> Grammar<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.position).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.position += 1;
        Some(word)
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        self.position += usize::from(is_next);
        is_next
    }

    fn or(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.and()?];
        while self.take("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.not()?];
        while self.take("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn not(&mut self) -> Result<Expression, String> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let primary = self.primary()?;
        Ok(if negated { Expression::Not(Box::new(primary)) } else { primary })
    }

    fn primary(&mut self) -> Result<Expression, String> {
        let Some(word) = self.next() else {
            return Err("the condition ends where an identifier should stand".to_owned());
        };
        match word {
            "(" => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(format!("parentheses nest deeper than {DEPTH_MAX}"));
                }
                let inner = self.or()?;
                self.depth -= 1;
                if self.take(")") { Ok(inner) } else { Err("a \"(\" is not closed".to_owned()) }
            }
            ")" | "and" | "or" => Err(format!("unexpected {word:?}; expected an identifier")),
            _ if self.peek() == Some("of") => {
                self.position += 1;
                self.of(word)
            }
            _ if word.contains('*') => {
                Err(format!("{word:?} is a pattern; write \"1 of {word}\" or \"all of {word}\""))
            }
            _ => Ok(Expression::Identifier(word.to_owned())),
        }
    }

    fn of(&mut self, quantifier: &str) -> Result<Expression, String> {
        let all = match quantifier {
            "1" | "any" => false,
            "all" => true,
            _ => return Err(format!("\"{quantifier} of\" is not known; use 1, any or all")),
        };
        match self.next() {
            Some("(" | ")") | None => {
                Err(format!("\"{quantifier} of\" needs \"them\" or a pattern"))
            }
            Some(target) => Ok(Expression::Of { all, target: target.to_owned() }),
        }
    }
}

impl Expression {
    /// Puts the selections in. `None` when nothing is left, because no pattern selects anything.
    /// `prefix` goes before the names in [`Condition::Named`].
    ///
    /// # Errors
    /// An identifier that no selection has, or more than [`NODES_MAX`] nodes.
    pub fn resolve(
        &self,
        selections: &[Selection],
        prefix: &str,
    ) -> Result<Option<Condition>, String> {
        let mut budget = NODES_MAX;
        self.resolve_within(selections, prefix, &mut budget)
    }

    fn resolve_within(
        &self,
        selections: &[Selection],
        prefix: &str,
        budget: &mut usize,
    ) -> Result<Option<Condition>, String> {
        let mut parts = |parts: &[Expression]| -> Result<Vec<Condition>, String> {
            let mut resolved = Vec::with_capacity(parts.len());
            for part in parts {
                resolved.extend(part.resolve_within(selections, prefix, budget)?);
            }
            Ok(resolved)
        };
        match self {
            Expression::And(inner) => Ok(Condition::all_of(parts(inner)?)),
            Expression::Or(inner) => Ok(Condition::any_of(parts(inner)?)),
            Expression::Not(inner) => {
                let inner = inner.resolve_within(selections, prefix, budget)?;
                Ok(inner.map(|inner| Condition::Not(Box::new(inner))))
            }
            Expression::Identifier(name) => {
                let found = selections.iter().find(|selection| *selection.name == **name);
                match found {
                    Some(selection) => named(selection, prefix, budget).map(Some),
                    None => {
                        let names = selections.iter().map(|selection| &*selection.name);
                        let hint = did_you_mean(name, names);
                        Err(format!("no search identifier {name:?}{hint}"))
                    }
                }
            }
            Expression::Of { all, target } => {
                let mut found = Vec::new();
                for selection in selections.iter().filter(|s| is_selected(&s.name, target)) {
                    found.push(named(selection, prefix, budget)?);
                }
                Ok(if *all { Condition::all_of(found) } else { Condition::any_of(found) })
            }
        }
    }

    /// Calls `visit` with every identifier and every `of` target in the order written.
    pub fn visit<'a>(&'a self, visit: &mut impl FnMut(&'a Expression)) {
        match self {
            Expression::And(parts) | Expression::Or(parts) => {
                parts.iter().for_each(|part| part.visit(visit));
            }
            Expression::Not(inner) => inner.visit(visit),
            Expression::Identifier(_) | Expression::Of { .. } => visit(self),
        }
    }
}

fn named(selection: &Selection, prefix: &str, budget: &mut usize) -> Result<Condition, String> {
    let size = selection.condition.size();
    match budget.checked_sub(size) {
        Some(left) => *budget = left,
        None => return Err(format!("the condition has more than {NODES_MAX} tests")),
    }
    let name = match prefix {
        "" => Arc::clone(&selection.name),
        _ => Arc::from(format!("{prefix}{}", selection.name)),
    };
    Ok(Condition::Named(name, Box::new(selection.condition.clone())))
}

/// Whether `of` with this target speaks of the identifier.
pub fn is_selected(name: &str, target: &str) -> bool {
    if target == "them" {
        return !name.starts_with('_');
    }
    (!name.starts_with('_') || target.starts_with('_')) && matches_stars(name, target)
}

/// Whether the name matches a pattern in which `*` is any run of characters.
fn matches_stars(name: &str, target: &str) -> bool {
    let mut parts = target.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    if !target.contains('*') {
        return rest.is_empty();
    }
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Condition {
    /// All of these: `None` for none, the part itself for one.
    pub fn all_of(mut parts: Vec<Condition>) -> Option<Condition> {
        match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(Condition::And(parts)),
        }
    }

    /// Any of these: `None` for none, the part itself for one.
    pub fn any_of(mut parts: Vec<Condition>) -> Option<Condition> {
        match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(Condition::Or(parts)),
        }
    }

    /// The number of nodes in the tree, element blocks included; long texts count more than once.
    pub fn size(&self) -> usize {
        match self {
            Condition::And(parts) | Condition::Or(parts) => {
                1 + parts.iter().map(Condition::size).sum::<usize>()
            }
            Condition::Not(inner) | Condition::Named(_, inner) => 1 + inner.size(),
            Condition::Test(test) => 1 + test.matcher_size(),
        }
    }
}

impl Test {
    /// One, and one more for every 64 bytes of text.
    fn matcher_size(&self) -> usize {
        let bytes = match &self.matcher {
            Matcher::Elements { inner, .. } => return inner.size(),
            Matcher::Text { pattern, .. } => pattern.size(),
            Matcher::Regex { source } => source.len(),
            _ => 0,
        };
        bytes / 64
    }
}
