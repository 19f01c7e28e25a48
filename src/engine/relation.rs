//! Whether some value of a field stands in some value of another one (`fieldref`).
//!
//! Whoever sends a request chooses how many values both fields have, so no pair of them is looked
//! at where there are many: the time grows with their bytes.

use std::borrow::Cow;
use std::ops::Range;

use crate::engine::letters::lowercase;
use crate::engine::values::Item;
use crate::rule::Place;

/// So many values are compared one by one.
const FEW: usize = 4;

/// Whether `wanted` stands at the place in `text`.
pub fn stands(text: &str, wanted: &str, place: Place) -> bool {
    match place {
        Place::Whole => text == wanted,
        Place::Prefix => text.starts_with(wanted),
        Place::Suffix => text.ends_with(wanted),
        Place::Inside => {
            // To prepare a search takes time, too.
            wanted.len() <= text.len()
                && memchr::memmem::find(text.as_bytes(), wanted.as_bytes()).is_some()
        }
    }
}

/// Whether one of the others stands at the place in one of the values.
pub fn is_related<'v>(
    values: impl Iterator<Item = Item<'v>>,
    others: impl Iterator<Item = Item<'v>>,
    place: Place,
    cased: bool,
) -> bool {
    let fold = |text: Cow<'v, str>| if cased { text.into_owned() } else { lowercase(&text) };
    let others: Vec<String> = others.flat_map(|item| item.texts()).map(fold).collect();
    let mut values = values.flat_map(|item| item.texts()).map(fold);
    if others.len() <= FEW {
        return values.any(|value| others.iter().any(|other| stands(&value, other, place)));
    }
    match place {
        Place::Whole => {
            let others: std::collections::BTreeSet<String> = others.into_iter().collect();
            values.any(|value| others.contains(&value))
        }
        Place::Prefix => {
            let beginnings = Beginnings::new(others.into_iter().map(String::into_bytes));
            values.any(|value| beginnings.has_begun(value.as_bytes()))
        }
        Place::Suffix => {
            let beginnings = Beginnings::new(others.into_iter().map(reversed));
            values.any(|value| beginnings.has_begun(&reversed(value)))
        }
        Place::Inside => {
            let beginnings = Beginnings::new(others.into_iter().map(String::into_bytes));
            let automaton = Automaton::new(&beginnings.0);
            values.any(|value| automaton.is_match(value.as_bytes()))
        }
    }
}

fn reversed(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    bytes.reverse();
    bytes
}

/// Texts of which none begins with another, ascending.
struct Beginnings(Vec<Vec<u8>>);

impl Beginnings {
    /// Those of the texts that begin with no other.
    fn new(texts: impl Iterator<Item = Vec<u8>>) -> Beginnings {
        let mut texts: Vec<Vec<u8>> = texts.collect();
        texts.sort_unstable();
        // Behind a text come all that begin with it.
        texts.dedup_by(|text, before| text.starts_with(before));
        Beginnings(texts)
    }

    /// Whether a text begins with one of them: with the last that is not greater, or with none.
    fn has_begun(&self, text: &[u8]) -> bool {
        let behind = self.0.partition_point(|one| one.as_slice() <= text);
        behind.checked_sub(1).is_some_and(|at| text.starts_with(&self.0[at]))
    }
}

/// A search for many texts at once, by Aho and Corasick. The crate of that name searches faster,
/// but the time to build it is not linear in the number of texts, and this one is used once.
struct Automaton {
    /// The root, then what is a byte longer, and so on.
    nodes: Vec<Node>,
}

/// What some of the texts begin with.
struct Node {
    /// Its last byte.
    byte: u8,
    /// What is a byte longer, by that byte ascending; empty where a text has been found.
    longer: Range<usize>,
    /// The longest other node with which this one ends.
    ending: usize,
    /// Whether it ends with a text.
    is_found: bool,
}

impl Automaton {
    /// Of texts of which none begins with another, ascending.
    fn new(texts: &[Vec<u8>]) -> Automaton {
        let is_found = texts.first().is_some_and(Vec::is_empty);
        let mut automaton =
            Automaton { nodes: vec![Node { byte: 0, longer: 0..0, ending: 0, is_found }] };
        // The texts that begin with a node, and its length.
        let mut begun = vec![(0..texts.len(), 0)];
        let mut at = 0;
        while let Some((these, length)) = begun.get(at).cloned() {
            let first = automaton.nodes.len();
            let mut rest = these.filter(|_| !automaton.nodes[at].is_found).peekable();
            let mut longer = Vec::new();
            while let Some(start) = rest.next() {
                let byte = texts[start][length];
                let mut end = start + 1;
                while rest.next_if(|text| texts[*text][length] == byte).is_some() {
                    end += 1;
                }
                // What a node ends with is shorter, so what is longer than that is known.
                let ending = match at {
                    0 => 0,
                    _ => automaton.step(automaton.nodes[at].ending, byte),
                };
                let is_whole = texts[start].len() == length + 1;
                let is_found = is_whole || automaton.nodes[ending].is_found;
                longer.push(Node { byte, longer: 0..0, ending, is_found });
                begun.push((start..end, length + 1));
            }
            automaton.nodes[at].longer = first..first + longer.len();
            automaton.nodes.extend(longer);
            at += 1;
        }
        automaton
    }

    /// The longest node with which a node ends when a byte is added.
    fn step(&self, mut node: usize, byte: u8) -> usize {
        loop {
            let Node { longer, ending, .. } = &self.nodes[node];
            let found = self.nodes[longer.clone()].binary_search_by_key(&byte, |one| one.byte);
            match found {
                Ok(place) => return longer.start + place,
                Err(_) if node == 0 => return 0,
                Err(_) => node = *ending,
            }
        }
    }

    /// Whether one of the texts is somewhere in this one.
    fn is_match(&self, text: &[u8]) -> bool {
        let mut node = 0;
        self.nodes[0].is_found
            || text.iter().any(|byte| {
                node = self.step(node, *byte);
                self.nodes[node].is_found
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACES: [Place; 4] = [Place::Whole, Place::Prefix, Place::Suffix, Place::Inside];

    fn related(values: &[String], others: &[String], place: Place, cased: bool) -> bool {
        let values = values.iter().map(|text| Item::Made(text));
        let others = others.iter().map(|text| Item::Made(text));
        is_related(values, others, place, cased)
    }

    proptest! {
        #[test]
        fn many_are_compared_as_pairs_would_be(
            values in prop::collection::vec("[abAB]{0,9}", 0..4),
            others in prop::collection::vec("[abAB]{1,6}|", 0..12),
        ) {
            for place in PLACES {
                for cased in [false, true] {
                    let fold = |text: &String| if cased { text.clone() } else { lowercase(text) };
                    let expected = values.iter().any(|value| {
                        others.iter().any(|other| stands(&fold(value), &fold(other), place))
                    });
                    prop_assert_eq!(related(&values, &others, place, cased), expected);
                }
            }
        }
    }

    #[test]
    fn as_many_as_an_event_holds_take_no_time() {
        let numbered = |letter: char| (0..100_000).map(|n| format!("{letter}{n}")).collect();
        let nested = |letter: char| (0..1_500).map(|n| letter.to_string().repeat(n + 1)).collect();
        let texts: [[Vec<String>; 2]; 2] =
            [[numbered('a'), numbered('b')], [nested('a'), nested('b')]];
        for [values, others] in texts {
            for place in PLACES {
                assert!(!related(&values, &others, place, false), "{place:?}");
                assert!(related(&values, &values, place, false), "{place:?}");
            }
        }
    }
}
