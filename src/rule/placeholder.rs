//! Placeholders: the `%name%` of the `expand` modifier, and the lists that fill them.
//!
//! A list is a YAML list of texts, which may hold wildcards. A name that no list has is an error.
//! An empty list makes the whole item never match, `neq` included: a list that nobody filled says
//! nothing about an event.

use std::collections::BTreeMap;

use crate::rule::problem::Fault;
use crate::rule::yaml::{self, Node, Value};
use crate::rule::{Condition, Pattern, Piece};

/// What a site tells the rules: lists by name, and fields that are defined by a condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placeholders {
    lists: BTreeMap<String, Vec<String>>,
    fields: BTreeMap<String, Condition>,
}

impl Placeholders {
    /// Reads a YAML map of names to lists; a single text counts as a list of one.
    ///
    /// # Errors
    /// The first fault with its line.
    pub fn read(text: &str) -> Result<Placeholders, Fault> {
        let mut placeholders = Placeholders::default();
        for document in yaml::read(text)? {
            let Value::Map(entries) = &document.value else {
                let message = "placeholders are a map of names to lists of texts";
                return Err(Fault::new(document.line, message));
            };
            for entry in entries {
                let values = list(&entry.value)?;
                placeholders.set(&entry.key, values);
            }
        }
        Ok(placeholders)
    }

    /// Sets one list; a list of that name is replaced.
    pub fn set(&mut self, name: &str, values: Vec<String>) {
        self.lists.insert(name.to_owned(), values);
    }

    /// Takes over all lists of another set; a list of the same name is replaced.
    pub fn replace(&mut self, other: Placeholders) {
        self.lists.extend(other.lists);
    }

    /// Returns the list of a name.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.lists.get(name).map(Vec::as_slice)
    }

    /// Defines a field; a definition of that name is replaced.
    pub fn define(&mut self, field: &str, condition: Condition) {
        self.fields.insert(field.to_owned(), condition);
    }

    /// What a defined field means.
    pub fn defined(&self, field: &str) -> Option<&Condition> {
        self.fields.get(field)
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lists.keys().map(String::as_str)
    }
}

fn list(node: &Node) -> Result<Vec<String>, Fault> {
    let wrong = |node: &Node| {
        let message = format!("a placeholder holds texts, not {}; quote it", node.kind());
        Fault::new(node.line, message)
    };
    match &node.value {
        Value::List(items) => {
            items.iter().map(|item| item.scalar_text().ok_or_else(|| wrong(item))).collect()
        }
        Value::Null => Ok(Vec::new()),
        _ => Ok(vec![node.scalar_text().ok_or_else(|| wrong(node))?]),
    }
}

/// A stretch of a text that may name placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Plain text, `\%` already read as `%`.
    Text(String),
    /// `%name%`.
    Name(String),
}

/// Splits a text at its placeholders. A `%` that opens no name stays a `%`.
pub fn stretches(text: &str) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\%") {
            plain.push('%');
            rest = after;
        } else if let Some((name, after)) = leading_name(rest) {
            if !plain.is_empty() {
                found.push(Stretch::Text(std::mem::take(&mut plain)));
            }
            found.push(Stretch::Name(name.to_owned()));
            rest = after;
        } else {
            plain.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    if !plain.is_empty() {
        found.push(Stretch::Text(plain));
    }
    found
}

fn leading_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('%')?.split_once('%')?;
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_name.then_some((name, after))
}

/// A pattern as the text of a regular expression that matches the same.
pub fn pattern_as_regex(pattern: &Pattern) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => regex::escape(text),
        Piece::AnyRun => "(?s:.*)".to_owned(),
        Piece::AnyOne => "(?s:.)".to_owned(),
    };
    pattern.pieces.iter().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_find_names() {
        let text = |text: &str| Stretch::Text(text.to_owned());
        let name = |name: &str| Stretch::Name(name.to_owned());
        let cases = [
            ("%a%", vec![name("a")]),
            ("x%a%%b%y", vec![text("x"), name("a"), name("b"), text("y")]),
            ("100% of %a b%", vec![text("100% of %a b%")]),
            (r"\%a%", vec![text("%a%")]),
            ("%%", vec![text("%%")]),
        ];
        for (input, expected) in cases {
            assert_eq!(stretches(input), expected, "{input}");
        }
    }

    #[test]
    fn lists_are_read() {
        let placeholders = Placeholders::read("a: [x, 'y*', 5]\nb: []\nc: one\nd:\n").unwrap();
        assert_eq!(placeholders.get("a").unwrap(), ["x", "y*", "5"]);
        assert_eq!(placeholders.get("b").unwrap(), [] as [&str; 0]);
        assert_eq!(placeholders.get("c").unwrap(), ["one"]);
        assert_eq!(placeholders.get("d").unwrap(), [] as [&str; 0]);
        assert_eq!(placeholders.get("e"), None);
        assert_eq!(Placeholders::read("a:\n  - {x: 1}").unwrap_err().line, 2);
    }
}
