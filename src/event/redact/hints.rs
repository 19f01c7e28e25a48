//! Where in a text something may be that looks like a credential, found in one pass.
//!
//! Most strings hold none. To look at each by itself costs more than all of them together: here
//! the bytes are folded to one case, which the vector units do, and searched for all literals at
//! once, and every dot is looked at that may stand in a bootstrap token.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::packed;
use wide::u8x16;

use crate::event::redact::patterns::{is_bootstrap_dot, literals};

/// Folds letters to one case, and some other bytes into each other: a literal folded likewise is
/// found wherever it stands, and at times where it does not.
const FOLD: u8 = 0x20;

/// `None` where the processor has no instructions for it.
static SEARCHER: LazyLock<Option<packed::Searcher>> = LazyLock::new(|| {
    // A quote stands in no string but behind a backslash, and such strings are looked at alone.
    let pieces = literals().filter(|(text, _)| !text.contains('"'));
    let pieces: BTreeSet<Vec<u8>> = pieces.map(|(_, piece)| folded(piece.as_bytes())).collect();
    packed::Config::new().builder().extend(pieces).build()
});

fn folded(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| byte | FOLD).collect()
}

/// So much is looked through at once where there is as much: members are often shorter than it
/// pays to search.
const LOOK_BYTES_MIN: usize = 256;

/// Shorter texts are searched byte by byte.
const SEARCH_BYTES_MIN: usize = 32;

/// The hints of a part of a text, the one that was asked for last.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Where what was looked through ends; it begins where it was first asked for.
    known_to: usize,
    /// Where literals start and bootstrap tokens have their dots, in order.
    starts: Vec<usize>,
    /// The first of them that is not before what was asked for last.
    next: usize,
    /// Kept for its room.
    folded: Vec<u8>,
}

impl Hints {
    /// Before another text.
    pub(crate) fn forget(&mut self) {
        self.known_to = 0;
    }

    /// Whether something may be between two offsets that stand around strings without escapes.
    /// Those who ask go from the front of a text to its end; up to `reach` they are likely to.
    ///
    /// Literals are found apart from each other: one that overlaps another found before it is not,
    /// but then that one is in the same string.
    #[inline]
    pub(crate) fn may_be_in(
        &mut self,
        text: &[u8],
        (start, end): (usize, usize),
        reach: usize,
    ) -> bool {
        if end > self.known_to {
            self.look(text, start, end.max(reach));
        }
        while self.starts.get(self.next).is_some_and(|at| *at < start) {
            self.next += 1;
        }
        self.starts.get(self.next).is_some_and(|at| *at < end)
    }

    /// Looks through a part of the text.
    fn look(&mut self, text: &[u8], from: usize, reach: usize) {
        let to = text.len().min(reach.max(from + LOOK_BYTES_MIN));
        self.known_to = to;
        self.starts.clear();
        self.next = 0;
        let Some(searcher) = SEARCHER.as_ref() else {
            // Everything is suspicious.
            return self.starts.extend(from..to);
        };
        self.fold(text, (from, to));
        let Hints { starts, folded, .. } = self;
        let dots = starts.len();
        starts.extend(searcher.find_iter(folded).map(|found| from + found.start()));
        if dots > 0 {
            starts.sort_unstable();
        }
    }

    /// Folds a part of the text; adds the dots of bootstrap tokens on the way.
    fn fold(&mut self, text: &[u8], (from, to): (usize, usize)) {
        let Hints { starts, folded, .. } = self;
        folded.clear();
        folded.resize((to - from).max(SEARCH_BYTES_MIN), FOLD);
        let (blocks, rest) = text[from..to].as_chunks::<16>();
        for (number, (block, folded)) in blocks.iter().zip(folded.as_chunks_mut().0).enumerate() {
            let bytes = u8x16::new(*block);
            *folded = (bytes | u8x16::splat(FOLD)).to_array();
            let mut dots = bytes.simd_eq(u8x16::splat(b'.')).to_bitmask();
            while dots != 0 {
                let dot = from + number * 16 + dots.trailing_zeros() as usize;
                if is_bootstrap_dot(text, dot) {
                    starts.push(dot);
                }
                dots &= dots - 1;
            }
        }
        // Sixteen letters stand behind the dot of a token, so it stands in a whole block.
        let folded = folded[blocks.len() * 16..].iter_mut();
        folded.zip(rest).for_each(|(folded, byte)| *folded = byte | FOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_literal_is_found_in_its_string() {
        for (literal, _) in literals().filter(|(text, _)| !text.contains('"')) {
            for spelled in [literal.to_string(), literal.to_ascii_uppercase()] {
                let text = format!(r#"{{"before":"x{spelled}x","behind":"nothing at all here"}}"#);
                let bytes = text.as_bytes();
                let (mut hints, reach) = (Hints::default(), text.len());
                let at = text.find(&spelled).unwrap();
                assert_eq!(hints.may_be_in(bytes, (0, 9), reach), SEARCHER.is_none(), "{text}");
                let string = (at - 1, at + spelled.len() + 1);
                assert!(hints.may_be_in(bytes, string, reach), "{text}");
                let behind = text.find("nothing").unwrap();
                let is_behind = hints.may_be_in(bytes, (behind, text.len() - 2), reach);
                assert_eq!(is_behind, SEARCHER.is_none(), "{text}");
            }
        }
    }

    #[test]
    fn texts_are_looked_at_from_where_it_is_asked() {
        let token = r#"{"a":"abcdef.0123456789abcdef","b":"nothing"}"#;
        for (text, from, start, end, expected) in [
            (r#""apikeyJhbGciOiJIUzI1NiJ9""#, 0, 1, 25, true),
            (r#"{"a":"token","b":"nothing at all"}"#, 0, 5, 12, true),
            (r#"{"a":"token","b":"nothing at all"}"#, 12, 17, 33, false),
            (token, 0, 5, 30, true),
            (token, 30, 30, token.len(), false),
            (r#"{"a":"high_light","b":"GHS_"}"#, 0, 5, 17, false),
            (r#"{"a":"high_light","b":"GHS_"}"#, 0, 22, 28, true),
        ] {
            let mut hints = Hints::default();
            hints.may_be_in(text.as_bytes(), (from, from + 1), from + 1);
            let found = hints.may_be_in(text.as_bytes(), (start, end), end);
            assert_eq!(found, expected || SEARCHER.is_none(), "{text} {start}..{end}");
        }
    }

    #[test]
    fn what_lies_across_an_end_of_what_was_looked_through_is_found() {
        let secrets = ["token", "abcdef.0123456789abcdef"];
        for (secret, at) in secrets.iter().flat_map(|one| (180..300).map(move |at| (one, at))) {
            let text = format!("{:at$}{secret}{:300}", "", "");
            for (first, reach) in [(8, 0), (8, 270), (at, at), (at, 0)] {
                let mut hints = Hints::default();
                let bytes = text.as_bytes();
                assert_eq!(hints.may_be_in(bytes, (0, first), reach), SEARCHER.is_none());
                assert!(hints.may_be_in(bytes, (at, at + secret.len()), reach), "{at} {reach}");
                let behind = (at + secret.len(), text.len());
                assert_eq!(hints.may_be_in(bytes, behind, reach), SEARCHER.is_none(), "{at}");
            }
        }
    }
}
