//! Remembers what was decided for a value: user agents, users, namespaces and reasons repeat from
//! event to event, and looking one up is cheaper than deciding it again.
//!
//! What a look-up costs is what it has to fetch from memory, so a value that is not long stands in
//! the table itself, on one cache line with its hash and what was decided. Keys are compared whole,
//! so nobody can make one value pass for another, and few places are tried for each, so nobody can
//! make look-ups slow. A memo whose values do not repeat turns itself off.

use std::hash::Hasher as _;

use rustc_hash::FxHasher;

use crate::engine::predicate::Check;
use crate::engine::values::Item;

/// Places for values; once there are so many, new values take the places of old ones.
const PLACES_MAX: usize = 8_192;
/// Places of a memo's first value.
const PLACES_MIN: usize = 16;
/// A value stands in one of so many places.
const TRIES: usize = 4;
/// Longer values are not worth remembering.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Values up to here stand in the table: what is left of a cache line.
const SHORT_BYTES_MAX: usize = 54;
/// After so many look-ups a memo decides whether it is worth its while.
const TRIAL: u32 = 2_000;

/// A bounded memory from values to what was decided for them.
#[derive(Clone, Debug)]
pub struct Memo<V> {
    /// A power of two, or none.
    places: Vec<Place<V>>,
    taken: usize,
    lookups: u32,
    hits: u32,
    is_off: bool,
}

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Place<V> {
    /// Half of the value's hash.
    tag: u32,
    decided: V,
    key: Key,
}

#[derive(Clone, Debug, Default)]
enum Key {
    #[default]
    None,
    Short(u8, [u8; SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl Key {
    fn new(bytes: &[u8]) -> Key {
        if bytes.len() > SHORT_BYTES_MAX {
            return Key::Long(bytes.into());
        }
        let mut short = [0; SHORT_BYTES_MAX];
        short[..bytes.len()].copy_from_slice(bytes);
        Key::Short(bytes.len() as u8, short)
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Key::None => None,
            Key::Short(len, bytes) => bytes.get(..usize::from(*len)),
            Key::Long(bytes) => Some(bytes),
        }
    }
}

impl<V> Default for Memo<V> {
    fn default() -> Memo<V> {
        Memo { places: Vec::new(), taken: 0, lookups: 0, hits: 0, is_off: false }
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

impl<V: Clone + Default> Memo<V> {
    /// Whether values of this length are remembered at present.
    #[inline]
    pub fn is_on(&self, key: &[u8]) -> bool {
        !self.is_off && key.len() <= KEY_BYTES_MAX
    }

    /// What was decided for this value.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&V> {
        let hash = hash(key);
        let tag = (hash >> 32) as u32;
        let mask = self.places.len().wrapping_sub(1);
        let mut tries = (0..TRIES).map(|place| (hash as usize).wrapping_add(place) & mask);
        let is_it =
            |place: &Place<V>| place.tag == tag && place.key.bytes().is_some_and(|k| k == key);
        let found = tries.find_map(|at| self.places.get(at).filter(|place| is_it(place)));
        self.lookups += 1;
        self.hits += u32::from(found.is_some());
        if self.lookups == TRIAL {
            // Fewer hits than three in four do not pay for the insertions.
            self.is_off = self.hits < TRIAL / 4 * 3;
            (self.lookups, self.hits) = (0, 0);
        }
        found.map(|place| &place.decided)
    }

    /// Remembers what was decided for a value that is not known.
    pub fn insert(&mut self, key: &[u8], decided: V) {
        if self.is_off {
            self.places = Vec::new();
            self.taken = 0;
            return;
        }
        let places = self.places.len();
        if self.taken * 2 >= places && places < PLACES_MAX {
            let larger = vec![Place::default(); (places * 2).max(PLACES_MIN)];
            let old = std::mem::replace(&mut self.places, larger);
            self.taken = 0;
            for Place { decided, key, .. } in old {
                if let Some(hash) = key.bytes().map(hash) {
                    self.put(hash, key, decided);
                }
            }
        }
        self.put(hash(key), Key::new(key), decided);
    }

    /// Puts a value where it is looked for, if need be instead of another.
    fn put(&mut self, hash: u64, key: Key, decided: V) {
        let mask = self.places.len() - 1;
        let place_of = |place: usize| (hash as usize).wrapping_add(place) & mask;
        let is_free = |at: &usize| matches!(self.places[*at].key, Key::None);
        let free = (0..TRIES).map(place_of).find(is_free);
        self.taken += usize::from(free.is_some());
        let at = free.unwrap_or(place_of(0));
        self.places[at] = Place { tag: (hash >> 32) as u32, decided, key };
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
        assert!(memo.places.len() <= PLACES_MAX);
    }
}
