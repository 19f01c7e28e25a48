//! The windows of one correlation, by the hash of their group-by values, and what they take.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::engine::terms::evict_oldest;
use crate::engine::window::{Weigh, Window};

/// What a window takes beside its matches: its place in the table, which is half empty at worst,
/// and its counts.
const WINDOW_BYTES: usize = 240;

/// With fewer windows matches go instead, of the one that has most.
const FEW: usize = 8;

/// The windows of one correlation.
#[derive(Clone, Debug)]
pub struct Keyed<E> {
    windows: FxHashMap<u64, Window<E>>,
    bytes: usize,
}

impl<E> Default for Keyed<E> {
    fn default() -> Keyed<E> {
        Keyed { windows: FxHashMap::default(), bytes: 0 }
    }
}

impl<E: Weigh> Keyed<E> {
    /// Changes the window of a key, which is there then.
    pub fn change<T>(&mut self, key: u64, change: impl FnOnce(&mut Window<E>) -> T) -> T {
        let window = match self.windows.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.bytes += WINDOW_BYTES;
                new.insert(Window::default())
            }
        };
        let before = window.bytes();
        let outcome = change(window);
        self.bytes = self.bytes + window.bytes() - before;
        outcome
    }

    /// The window of a key, if it is there, for whatever leaves its matches alone.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut Window<E>> {
        self.windows.get_mut(&key)
    }

    /// The windows with their keys, for whatever leaves their matches alone.
    #[cfg(test)]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut Window<E>)> {
        self.windows.iter_mut()
    }

    /// About what all of them take in memory; not less than they take in a snapshot.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The windows with their keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&u64, &Window<E>)> + Clone {
        self.windows.iter()
    }

    /// Forgets those whose newest match is older than this.
    pub fn retain_since(&mut self, oldest_us: i64) {
        self.windows.retain(|_, window| window.newest_us() >= oldest_us);
        self.windows.shrink_to(self.windows.len() * 2);
        self.weigh();
    }

    /// Forgets those that were silent longest once there are more than `keys_max`; returns how many
    /// went.
    pub fn evict(&mut self, keys_max: usize) -> u64 {
        let Keyed { windows, bytes } = self;
        let gone = |window: Window<E>| *bytes -= WINDOW_BYTES + window.bytes();
        evict_oldest(windows, keys_max, Window::newest_us, gone)
    }

    /// Makes itself smaller by about a fifth: the windows go that were silent longest, of a few
    /// large ones the oldest matches. Returns how many went.
    pub fn shrink(&mut self) -> u64 {
        let count = self.windows.len();
        if count >= FEW {
            return self.evict(count - count / FEW);
        }
        let heaviest = self.windows.iter().max_by_key(|(key, window)| (window.bytes(), **key));
        let Some(key) = heaviest.map(|(key, _)| *key) else { return 0 };
        self.change(key, |window| window.trim(window.len() / 2))
    }

    fn weigh(&mut self) {
        let marks: usize = self.windows.values().map(Window::bytes).sum();
        self.bytes = marks + self.windows.len() * WINDOW_BYTES;
    }
}

impl<E: Weigh> FromIterator<(u64, Window<E>)> for Keyed<E> {
    fn from_iter<I: IntoIterator<Item = (u64, Window<E>)>>(windows: I) -> Keyed<E> {
        let mut keyed = Keyed { windows: windows.into_iter().collect(), bytes: 0 };
        keyed.weigh();
        keyed
    }
}

impl<E> IntoIterator for Keyed<E> {
    type Item = (u64, Window<E>);
    type IntoIter = std::collections::hash_map::IntoIter<u64, Window<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.windows.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::window::Mark;

    fn add(keyed: &mut Keyed<u64>, key: u64, time_us: i64) {
        let mark = Mark { time_us, member: 0, value: 0, evidence: 0 };
        keyed.change(key, |window| window.add(mark, 1_000));
    }

    /// What it says it takes is what its windows say.
    fn check(keyed: &Keyed<u64>) {
        let again: Keyed<u64> = keyed.clone().into_iter().collect();
        assert_eq!(again.bytes(), keyed.bytes());
    }

    #[test]
    fn the_weight_follows_every_change() {
        let mut keyed = Keyed::default();
        for n in 0..100 {
            add(&mut keyed, n % 10, n as i64 * 30);
            check(&keyed);
        }
        assert!(keyed.bytes() > 10 * WINDOW_BYTES);
        keyed.retain_since(2_800);
        check(&keyed);
        assert_eq!(keyed.iter().count(), 6);
        for _ in 0..100 {
            let before = keyed.bytes();
            let evicted = keyed.shrink();
            check(&keyed);
            assert!(if evicted > 0 { keyed.bytes() < before } else { keyed.bytes() == before });
        }
        assert!(keyed.iter().all(|(_, window)| window.is_empty()));
    }

    #[test]
    fn those_that_were_silent_longest_go() {
        let mut keyed = Keyed::default();
        for n in 0..80 {
            add(&mut keyed, n, n as i64);
        }
        let evicted = keyed.shrink();
        assert!((10..20).contains(&evicted), "{evicted}");
        check(&keyed);
        let mut left: Vec<u64> = keyed.iter().map(|(key, _)| *key).collect();
        left.sort_unstable();
        assert_eq!(left, (evicted..80).collect::<Vec<_>>());
    }
}
