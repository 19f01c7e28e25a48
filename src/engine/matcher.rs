//! All text predicates of one field, decided together: a hash map for whole values, a search for
//! their ends, and one Aho-Corasick automaton for everything that may stand anywhere.
//!
//! The cost is that of the value, whatever the number of predicates.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind, packed};
use rustc_hash::FxHashMap;

use crate::engine::letters::lowercase;
use crate::engine::predicate::{Check, PredicateId};
use crate::engine::values::Item;
use crate::event::shape::ByteSet;
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
    /// The lengths of the whole values, a bit for each, the last for all beyond it.
    lengths: u64,
    /// Texts that must stand at the start.
    prefixes: Ends,
    /// Texts that must stand at the end.
    suffixes: Ends,
    /// Texts that may stand anywhere.
    insides: Parts,
    /// Predicates that any text satisfies (`contains: ''`).
    always: Vec<PredicateId>,
    /// Whether there is anything to look for.
    is_used: bool,
}

/// Texts that must stand at one end of a value, read from that end on.
#[derive(Clone, Debug, Default)]
struct Ends {
    /// Ascending.
    list: Vec<End>,
    /// The bytes with which they begin.
    firsts: ByteSet,
}

#[derive(Clone, Debug)]
struct End {
    text: Box<[u8]>,
    ids: Vec<PredicateId>,
    /// The longest of the other texts that this one begins with.
    within: Option<u32>,
}

/// An automaton and the predicates that hang on each of its literals.
#[derive(Clone, Debug, Default)]
struct Parts {
    automaton: Option<AhoCorasick>,
    /// Lengths of the shortest and the longest literal, in bytes.
    length_min: usize,
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

/// From so many bytes on a text is looked through by SIMD before the automaton reads it.
const LONG_BYTES: usize = 32;

impl FieldMatcher {
    /// A matcher for those of the predicates that are about text at a place; the others are left to
    /// [`Check::holds`].
    pub fn new<'c>(
        predicates: impl Iterator<Item = (PredicateId, &'c Check)>,
    ) -> Result<FieldMatcher, aho_corasick::BuildError> {
        let mut matcher = FieldMatcher::default();
        // By place, in folded and in cased texts.
        let mut literals: [[Literals; 3]; 2] = Default::default();
        for (id, check) in predicates {
            let Check::Text { text, place, cased } = check else { continue };
            let side = if *cased { &mut matcher.cased } else { &mut matcher.folded };
            let [prefixes, suffixes, insides] = &mut literals[usize::from(*cased)];
            let add = |to: &mut Literals| to.entry(text.clone()).or_default().push(id);
            side.is_used = true;
            match place {
                Place::Whole => {
                    side.lengths |= length_bit(text.len());
                    side.whole.entry(text.as_bytes().into()).or_default().push(id);
                }
                _ if text.is_empty() => side.always.push(id),
                Place::Prefix => add(prefixes),
                Place::Suffix => add(suffixes),
                Place::Inside => add(insides),
            }
        }
        let sides = [&mut matcher.folded, &mut matcher.cased];
        for (side, [prefixes, suffixes, insides]) in sides.into_iter().zip(literals) {
            side.insides = Parts::new(insides)?;
            side.prefixes = Ends::new(prefixes, |text| text.into());
            side.suffixes = Ends::new(suffixes, |text| text.iter().rev().copied().collect());
        }
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
                fold(window, buffer);
                self.folded.insides.test_long(buffer, hit);
            }
            start += WINDOW_BYTES;
        }
    }

    /// Calls `hit` for each predicate that the value satisfies, for one perhaps twice; `buffer` is
    /// scratch space.
    #[inline]
    pub fn test(&self, item: &Item<'_>, buffer: &mut Vec<u8>, hit: &mut dyn FnMut(PredicateId)) {
        if let Some(plain) = item.plain() {
            return self.test_text(plain, buffer, hit);
        }
        for text in item.texts() {
            self.test_text(text.as_bytes(), buffer, hit);
        }
    }

    #[inline]
    fn test_text(&self, text: &[u8], buffer: &mut Vec<u8>, hit: &mut dyn FnMut(PredicateId)) {
        if self.cased.is_used {
            self.cased.test(text, hit);
        }
        if self.folded.is_used {
            if is_folded(text) {
                return self.folded.test(text, hit);
            }
            fold(text, buffer);
            self.folded.test(buffer, hit);
        }
    }
}

/// The bit of a length.
fn length_bit(length: usize) -> u64 {
    1 << length.min(u64::BITS as usize - 1)
}

/// Whether the text is as a comparison without case sees it; every byte is looked at, so that
/// several are at once.
#[inline]
fn is_folded(text: &[u8]) -> bool {
    !text.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase() | !byte.is_ascii())
}

/// Puts the text as a comparison without case sees it into the buffer.
fn fold(text: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    if text.is_ascii() {
        buffer.extend_from_slice(text);
        buffer.make_ascii_lowercase();
    } else {
        buffer.extend_from_slice(lowercase(&String::from_utf8_lossy(text)).as_bytes());
    }
}

impl TextMatcher {
    fn test(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        self.always.iter().for_each(|id| hit(*id));
        if self.lengths & length_bit(text.len()) != 0
            && let Some(ids) = self.whole.get(text)
        {
            ids.iter().for_each(|id| hit(*id));
        }
        let (Some(first), Some(last)) = (text.first(), text.last()) else { return };
        if self.prefixes.firsts.has(*first) {
            self.prefixes.test(|end| end.cmp(text), |end| text.starts_with(end), hit);
        }
        if self.suffixes.firsts.has(*last) {
            self.suffixes.test(
                |end| end.iter().cmp(text.iter().rev()),
                |end| end.len() <= text.len() && end.iter().eq(text.iter().rev().take(end.len())),
                hit,
            );
        }
        if text.len() < LONG_BYTES {
            self.insides.test(text, hit);
        } else {
            self.insides.test_long(text, hit);
        }
    }
}

impl Ends {
    /// `read` gives a text as it is read from its end of the value.
    fn new(literals: Literals, read: impl Fn(&[u8]) -> Box<[u8]>) -> Ends {
        let mut ends: Vec<End> = literals
            .into_iter()
            .map(|(text, ids)| End { text: read(text.as_bytes()), ids, within: None })
            .collect();
        ends.sort_by(|one, other| one.text.cmp(&other.text));
        for place in 1..ends.len() {
            // What it begins with is its neighbour or one that the neighbour begins with.
            let mut within = Some(place as u32 - 1);
            while let Some(other) = within.map(|other| &ends[other as usize])
                && !ends[place].text.starts_with(&other.text)
            {
                within = other.within;
            }
            ends[place].within = within;
        }
        let mut firsts = ByteSet::default();
        ends.iter().filter_map(|end| end.text.first()).for_each(|byte| firsts.add(*byte));
        Ends { list: ends, firsts }
    }

    /// Calls `hit` for the texts with which a value begins, given how a text compares with it: the
    /// longest is the last text that is not greater than the value, or one with which that begins.
    fn test(
        &self,
        compare: impl Fn(&[u8]) -> Ordering,
        begins: impl Fn(&[u8]) -> bool,
        hit: &mut dyn FnMut(PredicateId),
    ) {
        let behind = self.list.partition_point(|end| compare(&end.text).is_le());
        let mut at = behind.checked_sub(1);
        while let Some(end) = at.map(|at| &self.list[at]) {
            if begins(&end.text) {
                end.ids.iter().for_each(|id| hit(*id));
            }
            at = end.within.map(|within| within as usize);
        }
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
        let lengths = || literals.keys().map(|text| text.len());
        let length_min = lengths().min().unwrap_or(0);
        let length_max = lengths().max().unwrap_or(0);
        let is_escapable = |c: char| matches!(c, '"' | '\\') || c.is_control();
        let has_escapable = literals.keys().any(|text| text.contains(is_escapable));
        let mut packed = packed::Config::new().builder();
        packed.extend(literals.keys().map(|text| text.as_bytes()));
        let filter = packed.build();
        let ids = literals.into_values().collect();
        let automaton = Some(automaton);
        Ok(Parts { automaton, length_min, length_max, has_escapable, filter, ids })
    }

    /// As [`Parts::test`], for texts in which there is hardly ever a hit.
    fn test_long(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        if self.filter.as_ref().is_none_or(|filter| filter.find(text).is_some()) {
            self.test(text, hit);
        }
    }

    fn test(&self, text: &[u8], hit: &mut dyn FnMut(PredicateId)) {
        let Some(automaton) = &self.automaton else { return };
        if text.len() < self.length_min {
            return;
        }
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
