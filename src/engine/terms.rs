//! First-seen baselines: which terms a group has shown, and when last. Bounded.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::rule::NewTerms;

/// What a term and a group take, in a table that is half empty at worst.
const TERM_BYTES: usize = 36;
const GROUP_BYTES: usize = 52;

/// What one `new_terms` correlation has learnt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Baseline {
    /// Time of the first match of all.
    first_us: Option<i64>,
    /// Last time of each term, by the hash of group and term.
    terms: FxHashMap<u64, i64>,
    /// Matches of each group, by its hash, with the time of the last one.
    groups: FxHashMap<u64, (u64, i64)>,
}

impl Baseline {
    /// Learns a term; says whether it is worth an alert.
    pub fn observe(
        &mut self,
        rule: &NewTerms,
        timespan_us: i64,
        group: u64,
        term: u64,
        time_us: i64,
    ) -> bool {
        let first = self.first_us.map_or(time_us, |first| first.min(time_us));
        self.first_us = Some(first);
        let seen = self.terms.insert(term, time_us);
        if let Some(seen) = seen.filter(|seen| *seen > time_us) {
            self.terms.insert(term, seen);
        }
        let (matches, last) = self.groups.entry(group).or_insert((0, time_us));
        let is_known_group = *matches >= rule.group_matches_min;
        *matches += 1;
        *last = (*last).max(time_us);
        let is_wanted = match (rule.dormant_us, seen) {
            (None, None) => true,
            (None, Some(seen)) => time_us - seen > timespan_us,
            (Some(dormant), Some(seen)) => time_us - seen >= dormant,
            (Some(_), None) => false,
        };
        is_wanted && is_known_group && time_us - first >= rule.learning_us
    }

    /// About what it takes in memory; not less than in a snapshot.
    pub fn bytes(&self) -> usize {
        self.terms.len() * TERM_BYTES + self.groups.len() * GROUP_BYTES
    }

    /// Makes itself smaller by about a fifth; returns how many terms and groups went.
    pub fn shrink(&mut self) -> u64 {
        let (terms, groups) = (self.terms.len(), self.groups.len());
        evict_oldest(&mut self.terms, terms - terms / 8, |time| *time, drop)
            + evict_oldest(&mut self.groups, groups - groups / 8, |(_, time)| *time, drop)
    }

    /// Forgets the terms and groups that were silent longest until at most `keys_max` of each are
    /// left; returns how many went. Does nothing while there is room.
    pub fn evict(&mut self, keys_max: usize) -> u64 {
        let terms = evict_oldest(&mut self.terms, keys_max, |time| *time, drop);
        terms + evict_oldest(&mut self.groups, keys_max, |(_, time)| *time, drop)
    }
}

/// Removes the entries with the least time once there are more than `keys_max`, a tenth at once so
/// that the search is paid rarely; `gone` is told of each. Returns how many went.
pub fn evict_oldest<V>(
    map: &mut FxHashMap<u64, V>,
    keys_max: usize,
    time: impl Fn(&V) -> i64,
    mut gone: impl FnMut(V),
) -> u64 {
    if map.len() <= keys_max {
        return 0;
    }
    let surplus = map.len() - keys_max + keys_max / 10;
    let mut times: Vec<(i64, u64)> = map.iter().map(|(key, value)| (time(value), *key)).collect();
    // Ties are broken by the key, so that eviction does not depend on the map's order.
    let going = &mut times[..];
    let (oldest, ..) = going.select_nth_unstable(surplus.min(going.len() - 1));
    for (_, key) in oldest.iter() {
        map.remove(key).into_iter().for_each(&mut gone);
    }
    oldest.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: NewTerms =
        NewTerms { fields: Vec::new(), learning_us: 10, group_matches_min: 0, dormant_us: None };

    #[test]
    fn learns_first_and_then_speaks_once() {
        let mut baseline = Baseline::default();
        for (time, term, is_alert) in [
            (0, 1, false),
            (5, 2, false),
            (12, 2, false),
            (13, 3, true),
            (14, 3, false),
            (200, 3, true),
        ] {
            assert_eq!(baseline.observe(&RULE, 100, 0, term, time), is_alert, "{term} at {time}");
        }
    }

    #[test]
    fn time_begins_with_the_earliest() {
        let rule = NewTerms { learning_us: 0, ..RULE };
        let mut baseline = Baseline::default();
        for (time, term) in [(10, 1), (9, 2), (5, 3)] {
            assert!(baseline.observe(&rule, 100, 0, term, time), "{term} at {time}");
        }
    }

    #[test]
    fn knows_rare_and_dormant() {
        let rare = NewTerms { learning_us: 0, group_matches_min: 2, ..RULE };
        let mut baseline = Baseline::default();
        let alerts: Vec<_> = (0..4).map(|n| baseline.observe(&rare, 100, 7, n, n as i64)).collect();
        assert_eq!(alerts, [false, false, true, true]);
        let dormant = NewTerms { learning_us: 0, dormant_us: Some(50), ..RULE };
        let mut baseline = Baseline::default();
        let alerts: Vec<_> =
            [0, 10, 70].map(|time| baseline.observe(&dormant, 1_000, 7, 1, time)).into();
        assert_eq!(alerts, [false, false, true]);
    }

    #[test]
    fn forgets_the_oldest() {
        let mut baseline = Baseline::default();
        for n in 0..200u64 {
            baseline.observe(&RULE, 100, n, n, n as i64);
        }
        assert_eq!(baseline.evict(200), 0);
        assert!(baseline.evict(100) > 0);
        assert!(baseline.terms.len() <= 100);
        assert!(baseline.terms.contains_key(&199) && !baseline.terms.contains_key(&0));
    }
}
