//! All text predicates of one field, decided together: a hash map of whole values, and one
//! Aho-Corasick automaton for everything that must stand at the start, at the end, or inside.
//!
//! The cost is that of the value, whatever the number of predicates.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
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
    parts: Vec<Part>,
    automaton: Option<AhoCorasick>,
    /// Predicates that any text satisfies (`contains: ''`).
    always: Vec<PredicateId>,
}

/// The predicates that hang on one literal of the automaton.
#[derive(Clone, Debug, Default)]
struct Part {
    text: Box<str>,
    prefix: Vec<PredicateId>,
    suffix: Vec<PredicateId>,
    inside: Vec<PredicateId>,
}

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
        let mut parts: [FxHashMap<&str, Part>; 2] = Default::default();
        for (id, check) in predicates {
            let Check::Text { text, place, cased } = check else { continue };
            let side = if *cased { &mut matcher.cased } else { &mut matcher.folded };
            if *place == Place::Whole {
                side.whole.entry(text.as_bytes().into()).or_default().push(id);
            } else if text.is_empty() {
                side.always.push(id);
            } else {
                let part = parts[usize::from(*cased)].entry(text).or_default();
                match place {
                    Place::Prefix => part.prefix.push(id),
                    Place::Suffix => part.suffix.push(id),
                    Place::Inside | Place::Whole => part.inside.push(id),
                }
            }
        }
        let [folded, cased] = parts;
        matcher.folded.build(folded)?;
        matcher.cased.build(cased)?;
        Ok(matcher)
    }

    /// Whether this kind of check is decided here.
    pub fn decides(check: &Check) -> bool {
        matches!(check, Check::Text { .. })
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
    fn build(&mut self, parts: FxHashMap<&str, Part>) -> Result<(), aho_corasick::BuildError> {
        self.parts =
            parts.into_iter().map(|(text, part)| Part { text: text.into(), ..part }).collect();
        // The map's order must not show in anything; sorted parts make the automaton the same too.
        self.parts.sort_by(|left, right| left.text.cmp(&right.text));
        if !self.parts.is_empty() {
            let literals = self.parts.iter().map(|part| part.text.as_bytes());
            let bytes: usize = self.parts.iter().map(|part| part.text.len()).sum();
            let kind = if bytes <= DFA_BYTES_MAX {
                AhoCorasickKind::DFA
            } else {
                AhoCorasickKind::ContiguousNFA
            };
            // A prefilter looks ahead for rare bytes; in texts this short it costs more than it saves.
            let mut builder = AhoCorasickBuilder::new();
            builder.match_kind(MatchKind::Standard).kind(Some(kind)).prefilter(false);
            self.automaton = Some(builder.build(literals)?);
        }
        Ok(())
    }

    fn is_used(&self) -> bool {
        !self.whole.is_empty() || self.automaton.is_some() || !self.always.is_empty()
    }

    fn test(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        self.always.iter().for_each(|id| hit(*id));
        if let Some(ids) = self.whole.get(text) {
            ids.iter().for_each(|id| hit(*id));
        }
        let Some(automaton) = &self.automaton else { return };
        for found in automaton.find_overlapping_iter(text) {
            let part = &self.parts[found.pattern().as_usize()];
            part.inside.iter().for_each(|id| hit(*id));
            if found.start() == 0 {
                part.prefix.iter().for_each(|id| hit(*id));
            }
            if found.end() == text.len() {
                part.suffix.iter().for_each(|id| hit(*id));
            }
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
            let predicates = checks.iter().enumerate().map(|(n, check)| (PredicateId(n as u32), check));
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
