//! All text predicates of one field, decided together: hash maps for whole values and for their
//! ends, and one Aho-Corasick automaton for everything that may stand anywhere.
//!
//! The cost is that of the value, whatever the number of predicates.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind, packed};
use rustc_hash::FxHashMap;

use crate::engine::predicate::{Check, PredicateId, lowercase};
use crate::engine::values::Item;
use crate::rule::Place;

/// The shared matcher of one field.
#[derive(Clone, Debug, Default)]
pub struct FieldMatcher {
    folded: TextMatcher,
    cased: TextMatcher,
}

/// The predicates of one case treatment.
#[derive(Clone, Debug, Default)]
struct TextMatcher {
    whole: FxHashMap<Box<[u8]>, Vec<PredicateId>>,
    /// Texts that must stand at the start.
    prefixes: Ends,
    /// Texts that must stand at the end.
    suffixes: Ends,
    /// Texts that may stand anywhere.
    insides: Parts,
    /// Predicates that any text satisfies (`contains: ''`).
    always: Vec<PredicateId>,
}

/// Texts that must stand at one end of a value: looked up by each of their lengths, which are few.
#[derive(Clone, Debug, Default)]
struct Ends {
    ids: FxHashMap<Box<[u8]>, Vec<PredicateId>>,
    lengths: Vec<usize>,
}

/// An automaton and the predicates that hang on each of its literals.
#[derive(Clone, Debug, Default)]
struct Parts {
    automaton: Option<AhoCorasick>,
    /// Length of the longest literal, in bytes.
    length_max: usize,
    /// Some literal holds a quote, a backslash or a control character.
    has_escapable: bool,
    /// Tells quickly of a long text that no literal is in it.
    filter: Option<packed::Searcher>,
    ids: Vec<Vec<PredicateId>>,
}

/// Literals with the predicates that ask for them, in an order of their own.
type Literals = BTreeMap<Box<str>, Vec<PredicateId>>;

/// So much of a whole event is looked through at once.
const WINDOW_BYTES: usize = 64 << 10;

/// Up to so many bytes of literals the automaton is a full DFA: one table look-up a byte. Its table
/// then stays below some ten megabytes.
const DFA_BYTES_MAX: usize = 16 << 10;

impl FieldMatcher {
    /// A matcher for those of the predicates that are about text at a place; the others are left to
    /// [`Check::holds`].
    pub fn new<'c>(
        predicates: impl Iterator<Item = (PredicateId, &'c Check)>,
    ) -> Result<FieldMatcher, aho_corasick::BuildError> {
        let mut matcher = FieldMatcher::default();
        let mut insides: [Literals; 2] = Default::default();
        for (id, check) in predicates {
            let Check::Text { text, place, cased } = check else { continue };
            let side = if *cased { &mut matcher.cased } else { &mut matcher.folded };
            match place {
                Place::Whole => side.whole.entry(text.as_bytes().into()).or_default().push(id),
                _ if text.is_empty() => side.always.push(id),
                Place::Prefix => side.prefixes.push(text, id),
                Place::Suffix => side.suffixes.push(text, id),
                Place::Inside => {
                    insides[usize::from(*cased)].entry(text.clone()).or_default().push(id);
                }
            }
        }
        let [folded, cased] = insides;
        matcher.folded.insides = Parts::new(folded)?;
        matcher.cased.insides = Parts::new(cased)?;
        Ok(matcher)
    }

    /// Whether this kind of check is decided here.
    pub fn decides(check: &Check) -> bool {
        matches!(check, Check::Text { .. })
    }

    /// Whether some keyword holds characters that JSON writes as escapes.
    pub fn has_escapable(&self) -> bool {
        self.folded.insides.has_escapable || self.cased.insides.has_escapable
    }

    /// Calls `hit` for each keyword that stands somewhere in the bytes of a whole event, window by
    /// window, so that no copy of the event is made. May name one twice.
    pub fn test_whole(&self, raw: &[u8], buffer: &mut Vec<u8>, hit: &mut dyn FnMut(PredicateId)) {
        let overlap = self.folded.insides.length_max.max(self.cased.insides.length_max);
        let mut start = 0;
        while start < raw.len() {
            let window = &raw[start..raw.len().min(start + WINDOW_BYTES + overlap)];
            self.cased.insides.test_long(window, hit);
            if self.folded.insides.automaton.is_some() {
                buffer.clear();
                if window.is_ascii() {
                    buffer.extend(window.iter().map(u8::to_ascii_lowercase));
                } else {
                    let text = String::from_utf8_lossy(window);
                    buffer.extend_from_slice(lowercase(&text).as_bytes());
                }
                self.folded.insides.test_long(buffer, hit);
            }
            start += WINDOW_BYTES;
        }
    }

    /// Calls `hit` for each predicate that the value satisfies; `buffer` is scratch space.
    #[inline]
    pub fn test(&self, item: &Item<'_>, buffer: &mut Vec<u8>, hit: &mut dyn FnMut(PredicateId)) {
        let decoded;
        let text: &[u8] = match item.plain() {
            Some(plain) => plain,
            None => match item.text() {
                Some(text) => {
                    decoded = text.into_owned();
                    decoded.as_bytes()
                }
                None => return,
            },
        };
        if self.cased.is_used() {
            self.cased.test(text, hit);
        }
        if self.folded.is_used() {
            buffer.clear();
            if text.is_ascii() {
                buffer.extend(text.iter().map(u8::to_ascii_lowercase));
            } else {
                buffer.extend_from_slice(lowercase(&String::from_utf8_lossy(text)).as_bytes());
            }
            self.folded.test(buffer, hit);
        }
    }
}

impl TextMatcher {
    fn is_used(&self) -> bool {
        !self.whole.is_empty()
            || !self.always.is_empty()
            || !self.prefixes.ids.is_empty()
            || !self.suffixes.ids.is_empty()
            || self.insides.automaton.is_some()
    }

    fn test(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        self.always.iter().for_each(|id| hit(*id));
        if let Some(ids) = self.whole.get(text) {
            ids.iter().for_each(|id| hit(*id));
        }
        for length in self.prefixes.lengths_up_to(text.len()) {
            self.prefixes.test(&text[..length], hit);
        }
        for length in self.suffixes.lengths_up_to(text.len()) {
            self.suffixes.test(&text[text.len() - length..], hit);
        }
        self.insides.test(text, hit);
    }
}

impl Ends {
    fn push(&mut self, text: &str, id: PredicateId) {
        self.ids.entry(text.as_bytes().into()).or_default().push(id);
        if let Err(place) = self.lengths.binary_search(&text.len()) {
            self.lengths.insert(place, text.len());
        }
    }

    fn lengths_up_to(&self, length_max: usize) -> impl Iterator<Item = usize> {
        self.lengths.iter().copied().take_while(move |length| *length <= length_max)
    }

    fn test(&self, end: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        self.ids.get(end).into_iter().flatten().for_each(|id| hit(*id));
    }
}

impl Parts {
    fn new(literals: Literals) -> Result<Parts, aho_corasick::BuildError> {
        if literals.is_empty() {
            return Ok(Parts::default());
        }
        let bytes: usize = literals.keys().map(|text| text.len()).sum();
        let kind = if bytes <= DFA_BYTES_MAX {
            AhoCorasickKind::DFA
        } else {
            AhoCorasickKind::ContiguousNFA
        };
        // A prefilter looks ahead for rare bytes; in texts this short it costs more than it saves.
        let mut builder = AhoCorasickBuilder::new();
        builder.match_kind(MatchKind::Standard).kind(Some(kind)).prefilter(false);
        let automaton = builder.build(literals.keys().map(|t| t.as_bytes()))?;
        let length_max = literals.keys().map(|text| text.len()).max().unwrap_or(0);
        let is_escapable = |c: char| matches!(c, '"' | '\\') || c.is_control();
        let has_escapable = literals.keys().any(|text| text.contains(is_escapable));
        let mut packed = packed::Config::new().builder();
        packed.extend(literals.keys().map(|text| text.as_bytes()));
        let filter = packed.build();
        let ids = literals.into_values().collect();
        Ok(Parts { automaton: Some(automaton), length_max, has_escapable, filter, ids })
    }

    /// As [`Parts::test`], for texts in which there is hardly ever a hit.
    fn test_long(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        if self.filter.as_ref().is_none_or(|filter| filter.find(text).is_some()) {
            self.test(text, hit);
        }
    }

    fn test(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        let Some(automaton) = &self.automaton else { return };
        for found in automaton.find_overlapping_iter(text) {
            self.ids[found.pattern().as_usize()].iter().for_each(|id| hit(*id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checks(words: &[(String, u8, bool)]) -> Vec<Check> {
        let place = [Place::Whole, Place::Prefix, Place::Suffix, Place::Inside];
        words
            .iter()
            .map(|(word, which, cased)| Check::Text {
                text: if *cased { word.as_str().into() } else { lowercase(word).into() },
                place: place[usize::from(*which % 4)],
                cased: *cased,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_one_check_at_a_time(
            words in prop::collection::vec(("[abAB\u{e4}\u{c4}ς]{0,4}", any::<u8>(), any::<bool>()), 0..20),
            value in "[abAB\u{e4}\u{c4}Σς]{0,12}",
        ) {
            let checks = checks(&words);
            let numbered = checks.iter().enumerate();
            let predicates = numbered.map(|(n, check)| (PredicateId(n as u32), check));
            let matcher = FieldMatcher::new(predicates).expect("small automata build");
            let mut hits = vec![false; checks.len()];
            let item = Item::Made(&value);
            matcher.test(&item, &mut Vec::new(), &mut |id| hits[id.0 as usize] = true);
            for (check, hit) in checks.iter().zip(hits) {
                prop_assert_eq!(check.holds_on(&item), hit, "{:?} on {:?}", check, value);
            }
        }
    }
}
