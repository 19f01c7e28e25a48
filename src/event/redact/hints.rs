//! Where in a whole text something may be that looks like a credential, found in one pass.
//!
//! Most strings hold none. To look at each by itself costs more than all of them together: here
//! the bytes are folded to one case, which the vector units do, and searched for all literals at
//! once.

use std::sync::LazyLock;

use aho_corasick::packed;

use crate::event::redact::patterns::{STRONG, WEAK};

/// Folds letters to one case, and some other bytes into each other: a literal folded likewise is
/// found wherever it stands, and at times where it does not.
const FOLD: u8 = 0x20;

/// `None` where the processor has no instructions for it.
static SEARCHER: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| {
    // A quote stands in no string but behind a backslash, and such strings are looked at alone.
    let literals = STRONG.iter().chain(&WEAK).filter(|literal| !literal.contains('"'));
    let folded = literals.map(|literal| folded(literal.as_bytes()));
    packed::Config::new().builder().extend(folded).build()
});

fn folded(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| byte | FOLD).collect()
}

/// The hints of a text.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Where literals start, in order; `None` where nobody looked.
    starts: Option<Vec<usize>>,
}

impl Hints {
    /// Looks through a text.
    pub(crate) fn of(text: &[u8]) -> Hints {
        let Some(searcher) = SEARCHER.as_ref() else { return Hints::default() };
        let text = folded(text);
        Hints { starts: Some(searcher.find_iter(&text).map(|found| found.start()).collect()) }
    }

    /// Whether a literal may start between two offsets that stand around a string without escapes.
    ///
    /// Literals are found apart from each other: one that overlaps another found before it is not,
    /// but then that one is in the same string.
    pub(crate) fn may_be_in(&self, start: usize, end: usize) -> bool {
        let Some(starts) = &self.starts else { return true };
        let first = starts.partition_point(|at| *at < start);
        starts.get(first).is_some_and(|at| *at < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_is_found_in_its_string() {
        for literal in STRONG.iter().chain(&WEAK).filter(|literal| !literal.contains('"')) {
            for spelled in [literal.to_string(), literal.to_ascii_uppercase()] {
                let text = format!(r#"{{"before":"x{spelled}x","behind":"nothing at all here"}}"#);
                let hints = Hints::of(text.as_bytes());
                let at = text.find(&spelled).unwrap();
                assert!(hints.may_be_in(at - 1, at + spelled.len() + 1), "{text}");
                let behind = text.find("nothing").unwrap();
                if hints.starts.is_some() {
                    assert!(!hints.may_be_in(behind, text.len() - 2), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_overlaps_is_found_as_one() {
        let hints = Hints::of(br#""apikeyJhbGciOiJIUzI1NiJ9""#);
        assert!(hints.may_be_in(1, 25));
    }
}
