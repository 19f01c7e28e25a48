//! The window in which copies of an event are found: keys of events, the oldest forgotten first.
//!
//! Two generations of keys: when the younger is full or old enough, the elder is forgotten. So a
//! key is remembered for at least half of `duplicates_max` events and half of `duplicates_window`.
//! What it does depends on the stored events and their order alone, so that reading them again
//! gives the same window.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

/// Bounds of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Keys that are remembered at most.
    pub duplicates_max: usize,
    /// For how long, microseconds of arrival.
    pub duplicates_window_us: i64,
}

/// The part of a key that is remembered: 80 bits of a keyed hash that nobody outside can compute.
/// That two of a million events agree in it by chance happens once in ten million years of 4,000
/// events a second, and it takes five eighths of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key([u8; 10]);

impl Key {
    fn of(key: &[u8; 16]) -> Key {
        let (part, _) = key.split_first_chunk().expect("sixteen bytes have ten");
        Key(*part)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (head, _) = self.0.split_first_chunk().expect("ten bytes have eight");
        state.write_u64(u64::from_le_bytes(*head));
    }
}

/// Keys of the events that were stored lately.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Duplicates {
    young: FxHashSet<Key>,
    old: FxHashSet<Key>,
    /// When the younger generation began.
    began_us: i64,
    /// Keys that were forgotten because there were too many.
    #[serde(skip)]
    forgotten: u64,
}

impl Duplicates {
    /// Whether an event of this key was stored in the window.
    pub fn contains(&self, key: &[u8; 16]) -> bool {
        let key = Key::of(key);
        self.young.contains(&key) || self.old.contains(&key)
    }

    /// Remembers an event that is stored now.
    pub fn insert(&mut self, key: &[u8; 16], received_us: i64, bounds: &Bounds) {
        let age_us = received_us.saturating_sub(self.began_us);
        let is_full = self.young.len() >= (bounds.duplicates_max / 2).max(1);
        if is_full || age_us > bounds.duplicates_window_us / 2 {
            if is_full {
                self.forgotten += self.old.len() as u64;
            }
            self.old = std::mem::take(&mut self.young);
            self.began_us = received_us;
        }
        self.young.insert(Key::of(key));
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys forgotten since the last call because there were more than `duplicates_max`.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_within_its_bounds() {
        let bounds = Bounds { duplicates_max: 20, duplicates_window_us: 100 };
        let mut window = Duplicates::default();
        let key = |n: u8| [n; 16];
        for n in 0..30 {
            assert!(!window.contains(&key(n)));
            window.insert(&key(n), 0, &bounds);
            assert!(window.contains(&key(n)));
        }
        assert!((10..30).all(|n| window.contains(&key(n))));
        assert!((0..10).all(|n| !window.contains(&key(n))), "the oldest go");
        assert_eq!((window.take_forgotten(), window.take_forgotten()), (10, 0));
        window.insert(&key(100), 51, &bounds);
        assert_eq!(window.take_forgotten(), 10, "the younger generation was full");
        window.insert(&key(101), 102, &bounds);
        assert!(!window.contains(&key(29)) && window.contains(&key(100)));
        assert_eq!(window.take_forgotten(), 0);
    }
}
