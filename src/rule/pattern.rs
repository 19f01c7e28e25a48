//! Sigma's text patterns: wildcards, and the escapes that make them literal.

use crate::rule::{Pattern, Piece};

impl Pattern {
    /// Reads a Sigma text value.
    ///
    /// `*` and `?` are wildcards; `\*`, `\?` and `\\` stand for the second character; a backslash
    /// before anything else, or at the end, is a backslash.
    pub fn parse(text: &str) -> Pattern {
        let mut pattern = Pattern { pieces: Vec::new() };
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' => pattern.push(Piece::AnyRun),
                '?' => pattern.push(Piece::AnyOne),
                '\\' => match chars.next_if(|next| matches!(next, '*' | '?' | '\\')) {
                    Some(escaped) => pattern.push_char(escaped),
                    None => pattern.push_char('\\'),
                },
                _ => pattern.push_char(c),
            }
        }
        pattern
    }

    /// A pattern that is this text, without wildcards.
    pub fn literal(text: &str) -> Pattern {
        let mut pattern = Pattern { pieces: Vec::new() };
        pattern.push(Piece::Literal(text.to_owned()));
        pattern
    }

    /// Appends a piece and keeps the form: no empty literal, no two literals or two runs in a row.
    pub fn push(&mut self, piece: Piece) {
        match (self.pieces.last_mut(), piece) {
            (_, Piece::Literal(text)) if text.is_empty() => {}
            (Some(Piece::AnyRun), Piece::AnyRun) => {}
            (Some(Piece::Literal(last)), Piece::Literal(text)) => last.push_str(&text),
            (_, piece) => self.pieces.push(piece),
        }
    }

    fn push_char(&mut self, c: char) {
        match self.pieces.last_mut() {
            Some(Piece::Literal(last)) => last.push(c),
            _ => self.pieces.push(Piece::Literal(c.to_string())),
        }
    }

    /// Appends all pieces of another pattern.
    pub fn extend(&mut self, other: &Pattern) {
        for piece in &other.pieces {
            self.push(piece.clone());
        }
    }

    /// This pattern after a run of anything.
    pub fn with_any_before(self) -> Pattern {
        let mut pattern = Pattern { pieces: vec![Piece::AnyRun] };
        pattern.extend(&self);
        pattern
    }

    /// This pattern before a run of anything.
    pub fn with_any_after(mut self) -> Pattern {
        self.push(Piece::AnyRun);
        self
    }

    /// Whether there is a wildcard in it.
    pub fn has_wildcard(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, Piece::Literal(_)))
    }

    /// The bytes of its literals, and one for each wildcard.
    pub fn size(&self) -> usize {
        let bytes = |piece: &Piece| match piece {
            Piece::Literal(text) => text.len(),
            Piece::AnyRun | Piece::AnyOne => 1,
        };
        self.pieces.iter().map(bytes).sum()
    }

    /// Returns the text when there is no wildcard.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Writes the pattern as a Sigma value: `parse` reads it back.
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::AnyRun => f.write_str("*")?,
                Piece::AnyOne => f.write_str("?")?,
                Piece::Literal(text) => {
                    f.write_str(
                        &text.replace('\\', "\\\\").replace('*', "\\*").replace('?', "\\?"),
                    )?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn escapes_follow_the_specification() {
        let cases: [(&str, Vec<Piece>); 13] = [
            ("", vec![]),
            ("plain", vec![literal("plain")]),
            ("a*b?c", {
                vec![literal("a"), Piece::AnyRun, literal("b"), Piece::AnyOne, literal("c")]
            }),
            ("**", vec![Piece::AnyRun]),
            ("??", vec![Piece::AnyOne, Piece::AnyOne]),
            (r"C:\x", vec![literal(r"C:\x")]),
            (r"C:\\x", vec![literal(r"C:\x")]),
            (r"a\*b", vec![literal("a*b")]),
            (r"a\?b", vec![literal("a?b")]),
            (r"a\\*", vec![literal(r"a\"), Piece::AnyRun]),
            (r"a\\\*", vec![literal(r"a\*")]),
            (r"a\\\\b", vec![literal(r"a\\b")]),
            (r"end\", vec![literal(r"end\")]),
        ];
        for (text, pieces) in cases {
            let pattern = Pattern::parse(text);
            assert_eq!(pattern.pieces, pieces, "{text}");
            assert_eq!(Pattern::parse(&pattern.to_string()), pattern, "{text} printed");
        }
    }
}
