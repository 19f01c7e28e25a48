//! Patterns with wildcards inside (`*a*b`, `a?c`), matched in one pass without backtracking.

use memchr::memmem;

use crate::rule::Piece;

/// A pattern, cut at its `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// At least one; what stands before the first `*`, between two, behind the last. Several may be
    /// empty.
    segments: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// Exactly one character.
    AnyOne,
}

impl Wildcard {
    /// Compiles the pieces of a pattern, their literals as `fold` gives them.
    pub fn new(pieces: &[Piece], fold: impl Fn(&str) -> String) -> Wildcard {
        let mut segments = vec![Vec::new()];
        for piece in pieces {
            let part = match piece {
                Piece::AnyRun => {
                    segments.push(Vec::new());
                    continue;
                }
                Piece::AnyOne => Part::AnyOne,
                Piece::Literal(text) => Part::Literal(fold(text).into()),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(part);
            }
        }
        Wildcard { segments }
    }

    /// The longest literal: every match contains it.
    pub fn literal(&self) -> &str {
        let literals = self.segments.iter().flatten().filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::AnyOne => None,
        });
        literals.max_by_key(|text| text.len()).unwrap_or_default()
    }

    /// Whether the whole text is as the pattern says. Of each segment the first place is taken: its
    /// length in characters is fixed, so no other place leaves more of the text to the rest.
    pub fn is_match(&self, text: &str) -> bool {
        let Some((first, rest)) = self.segments.split_first() else { return text.is_empty() };
        let Some(mut left) = behind(first, text) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        for segment in middle {
            match find(segment, left) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        ends_with(last, left)
    }
}

/// What follows a segment that the text begins with.
fn behind<'t>(segment: &[Part], mut text: &'t str) -> Option<&'t str> {
    for part in segment {
        text = match part {
            Part::Literal(literal) => text.strip_prefix(&**literal)?,
            Part::AnyOne => {
                let mut characters = text.chars();
                characters.next()?;
                characters.as_str()
            }
        };
    }
    Some(text)
}

/// What follows the first place of a segment in the text.
fn find<'t>(segment: &[Part], text: &'t str) -> Option<&'t str> {
    match segment.first() {
        None => Some(text),
        Some(Part::Literal(literal)) => {
            let finder = memmem::Finder::new(literal.as_bytes());
            let mut start = 0;
            loop {
                let place = start + finder.find(text.as_bytes().get(start..)?)?;
                let from = text.get(place..)?;
                if let Some(rest) = behind(segment, from) {
                    return Some(rest);
                }
                start = place + from.chars().next().map_or(1, char::len_utf8);
            }
        }
        Some(Part::AnyOne) => {
            let mut from = text;
            loop {
                if let Some(rest) = behind(segment, from) {
                    return Some(rest);
                }
                let mut characters = from.chars();
                characters.next()?;
                from = characters.as_str();
            }
        }
    }
}

fn ends_with(segment: &[Part], mut text: &str) -> bool {
    for part in segment.iter().rev() {
        let before = match part {
            Part::Literal(literal) => text.strip_suffix(&**literal),
            Part::AnyOne => {
                let mut characters = text.chars();
                characters.next_back().map(|_| characters.as_str())
            }
        };
        match before {
            Some(before) => text = before,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same as an expression, tried by the regex crate.
    fn expected(pieces: &[Piece], text: &str) -> bool {
        let mut source = String::from("(?s)^");
        for piece in pieces {
            match piece {
                Piece::AnyRun => source.push_str(".*"),
                Piece::AnyOne => source.push('.'),
                Piece::Literal(text) => source.push_str(&regex::escape(text)),
            }
        }
        regex::Regex::new(&(source + "$")).unwrap().is_match(text)
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![Just(Piece::AnyRun), Just(Piece::AnyOne), "[abä]{1,3}".prop_map(Piece::Literal),]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn agrees_with_an_expression(
            pieces in prop::collection::vec(piece(), 0..7),
            text in "[abä\n]{0,10}",
        ) {
            let wildcard = Wildcard::new(&pieces, str::to_owned);
            prop_assert_eq!(wildcard.is_match(&text), expected(&pieces, &text), "{:?}", pieces);
        }
    }

    #[test]
    fn names_its_longest_literal() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let pieces = [literal("ab"), Piece::AnyRun, literal("CDE"), Piece::AnyOne];
        assert_eq!(Wildcard::new(&pieces, str::to_lowercase).literal(), "cde");
        assert_eq!(Wildcard::new(&[Piece::AnyOne], str::to_lowercase).literal(), "");
    }
}
