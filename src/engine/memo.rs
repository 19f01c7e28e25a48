//! Remembers what was decided for a value: user agents, users, namespaces and reasons repeat from
//! event to event, and looking one up is cheaper than deciding it again.
//!
//! Keys are compared whole, so nobody can make one value pass for another. A memo whose values do
//! not repeat turns itself off.

use rustc_hash::FxHashMap;

use crate::engine::predicate::Check;
use crate::engine::values::Item;

/// Values a memo remembers; a full one starts afresh.
pub const ENTRIES_MAX: usize = 4_096;
/// Longer values are not worth remembering.
pub const KEY_BYTES_MAX: usize = 1_024;
/// After so many look-ups a memo decides whether it is worth its while.
const TRIAL: u32 = 2_000;

/// A bounded memory from values to what was decided for them.
#[derive(Clone, Debug)]
pub struct Memo<V> {
    known: FxHashMap<Box<[u8]>, V>,
    lookups: u32,
    hits: u32,
    is_off: bool,
}

impl<V> Default for Memo<V> {
    fn default() -> Memo<V> {
        Memo { known: FxHashMap::default(), lookups: 0, hits: 0, is_off: false }
    }
}

impl<V> Memo<V> {
    /// Whether values of this length are remembered at present.
    #[inline]
    pub fn is_on(&self, key: &[u8]) -> bool {
        !self.is_off && key.len() <= KEY_BYTES_MAX
    }

    /// What was decided for this value.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&V> {
        let found = self.known.get(key);
        self.lookups += 1;
        self.hits += u32::from(found.is_some());
        if self.lookups == TRIAL {
            // Fewer hits than three in four do not pay for the insertions.
            self.is_off = self.hits < TRIAL / 4 * 3;
            (self.lookups, self.hits) = (0, 0);
        }
        found
    }

    /// Remembers what was decided.
    pub fn insert(&mut self, key: &[u8], value: V) {
        if self.is_off {
            self.known = FxHashMap::default();
            return;
        }
        if self.known.len() >= ENTRIES_MAX {
            self.known.clear();
        }
        self.known.insert(key.into(), value);
    }
}

impl Memo<bool> {
    /// Whether a value satisfies a check.
    pub fn check(&mut self, check: &Check, item: &Item<'_>) -> bool {
        let key = item.key();
        if !self.is_on(key) {
            return check.holds_on(item);
        }
        if let Some(known) = self.get(key) {
            return *known;
        }
        let holds = check.holds_on(item);
        self.insert(key, holds);
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_repeats_and_gives_up_on_what_does_not() {
        let mut memo = Memo::default();
        for round in 0..TRIAL {
            let key = [(round % 10) as u8];
            if memo.get(&key).is_none() {
                memo.insert(&key, round);
            }
        }
        assert!(memo.is_on(b"x"));
        assert_eq!(memo.get(&[3]), Some(&3));
        let mut memo = Memo::default();
        for round in 0..TRIAL {
            let key = round.to_le_bytes();
            assert_eq!(memo.get(&key), None);
            memo.insert(&key, round);
        }
        assert!(!memo.is_on(b"x"));
        assert!(memo.known.len() <= ENTRIES_MAX);
    }
}
