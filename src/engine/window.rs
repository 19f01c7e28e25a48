//! The bounded sliding window of one correlation key; knows nothing about rules.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use rustc_hash::{FxBuildHasher, FxHashSet};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

/// One match inside a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark<E> {
    /// Event time, microseconds since the epoch.
    pub time_us: i64,
    /// Which of the correlation's rules matched.
    pub member: u32,
    /// Hash of the value that is counted, or the bits of the number that is aggregated, or 0.
    pub value: u64,
    /// What the alert will show.
    pub evidence: E,
}

/// What a match takes in a window beside its evidence.
const MARK_BYTES: usize = 120;

/// A piece of evidence.
pub trait Weigh: Clone {
    /// Bytes of memory that it holds beyond itself; the same after it was stored and taken up.
    fn weight(&self) -> usize;

    /// The last of these, which are in order of time, on its way into another correlation: with as
    /// many of the others as it can hold, `others_max` at most.
    fn joined(all: &[Self], others_max: usize) -> Option<Self> {
        let _ = others_max;
        all.last().cloned()
    }
}

impl Weigh for u64 {
    fn weight(&self) -> usize {
        0
    }
}

/// Matches of one key in order of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Window<E> {
    marks: VecDeque<Mark<E>>,
    /// How many matches of each rule there are.
    members: Vec<u32>,
    /// The ends of windows that fired, ascending: each speaks for those within a timespan of it.
    fired: Vec<i64>,
    /// With so many matches it is worth a look which are still needed.
    pub(crate) prune_at: u32,
    /// Of counted values: how many matches share their value with a later one. Not more than there
    /// are; fewer where it was not stored.
    #[serde(skip)]
    repeated: u32,
    /// Of many counted values, the values with the times of their matches: of one value no two have
    /// the same. An attacker chooses the values, so no hash decides how fast one is found.
    #[serde(skip)]
    index: Option<BTreeSet<(u64, i64)>>,
    /// What the matches take.
    #[serde(skip)]
    bytes: usize,
}

/// With fewer matches nothing is looked for.
const PRUNE_MIN: usize = 16;

/// Of so many counted values and more there is an index.
const INDEX_MIN: usize = 256;
/// What a value takes in it, the room in its nodes included.
const INDEXED_BYTES: usize = 32;

impl<E> Default for Window<E> {
    fn default() -> Window<E> {
        Window {
            marks: VecDeque::new(),
            members: Vec::new(),
            fired: Vec::new(),
            prune_at: PRUNE_MIN as u32,
            repeated: 0,
            index: None,
            bytes: 0,
        }
    }
}

impl<E: Weigh> Window<E> {
    /// Adds a match of a counted value as [`Window::add`] does. Of the matches of its value those
    /// go without which any window of `span_us` that ends at `until_us` or later still has one.
    pub fn add_value(&mut self, mark: Mark<E>, keep_us: i64, span_us: i64, until_us: i64) {
        let is_spare = |older: Option<i64>, own: i64, newer: Option<i64>| {
            newer.is_some_and(|newer| {
                let is_near = older.is_some_and(|older| newer - older <= span_us);
                newer == own || newer <= until_us || is_near
            })
        };
        let own = mark.time_us;
        let [before, last, next, behind] = self.neighbours(&mark);
        if is_spare(last, own, next) {
            return;
        }
        let spare_last = last.filter(|at| is_spare(before, *at, Some(own)));
        let spare_next = next.filter(|at| is_spare(Some(own), *at, behind));
        let is_repeated = (last.is_some() && spare_last.is_none())
            || (next.is_some() && spare_next.is_none())
            || before.is_some()
            || behind.is_some();
        for time_us in spare_last.into_iter().chain(spare_next) {
            self.remove_value(mark.value, time_us);
        }
        self.repeated += u32::from(is_repeated);
        self.add(mark, keep_us);
        if self.index.is_none() && self.marks.len() >= INDEX_MIN {
            let values = self.marks.iter().map(|mark| (mark.value, mark.time_us));
            self.index = Some(values.collect());
        }
    }

    /// The times of two matches of the same value up to the time of this one, and of two behind.
    fn neighbours(&self, mark: &Mark<E>) -> [Option<i64>; 4] {
        let (value, own) = (mark.value, mark.time_us);
        if let Some(index) = &self.index {
            let mut up_to = index.range((value, i64::MIN)..=(value, own)).map(|(_, at)| *at);
            let (last, before) = (up_to.next_back(), up_to.next_back());
            let mut behind = index.range((value, own)..=(value, i64::MAX)).map(|(_, at)| *at);
            let mut later = behind.by_ref().filter(|at| *at > own);
            return [before, last, later.next(), later.next()];
        }
        let [mut before, mut last, mut next, mut behind] = [None; 4];
        // What repeats has mostly been here lately, and mostly once.
        for known in self.marks.iter().rev().filter(|known| known.value == value) {
            let at = Some(known.time_us);
            if known.time_us > own {
                (next, behind) = (at, next);
            } else if last.is_none() {
                last = at;
                if self.repeated == 0 {
                    break;
                }
            } else {
                before = at;
                break;
            }
        }
        [before, last, next, behind]
    }

    /// Removes the match of a value at this time.
    fn remove_value(&mut self, value: u64, time_us: i64) {
        let first = self.marks.partition_point(|mark| mark.time_us < time_us);
        let of_value = self.marks.range(first..).position(|mark| mark.value == value);
        if let Some(place) = of_value {
            self.remove(first + place);
        }
    }

    /// Adds a match at its place in time and drops what is older than `keep_us` before the newest.
    pub fn add(&mut self, mark: Mark<E>, keep_us: i64) {
        let place = self.end_of(mark.time_us);
        let member = mark.member as usize;
        if self.members.len() <= member {
            self.members.reserve_exact(member + 1 - self.members.len());
            self.members.resize(member + 1, 0);
        }
        self.members[member] += 1;
        self.bytes += mark.bytes();
        if self.marks.len() == self.marks.capacity() {
            // Of most keys there is one match and never another.
            self.marks.reserve_exact((self.marks.len() / 2).max(1));
        }
        if let Some(index) = &mut self.index {
            index.insert((mark.value, mark.time_us));
        }
        self.marks.insert(place, mark);
        let newest = self.newest_us();
        while self.marks.front().is_some_and(|oldest| newest - oldest.time_us > keep_us) {
            self.remove(0);
        }
    }

    /// Whether it is worth a look which matches are still needed: there are twice as many as the
    /// last look left, or more than `marks_max`.
    pub fn is_grown(&self, marks_max: usize) -> bool {
        self.marks.len() >= self.prune_at as usize || self.marks.len() > marks_max
    }

    /// Drops of the matches before `until_us` those whose index `needed` does not name, ascending.
    pub fn prune(&mut self, until_us: i64, needed: impl FnOnce(&[&Mark<E>]) -> Vec<usize>) {
        let old: Vec<&Mark<E>> =
            self.marks.iter().take_while(|mark| mark.time_us < until_us).collect();
        let (count, needed) = (old.len(), needed(&old));
        self.keep_of(count, needed);
        self.marks.shrink_to(self.marks.len() * 2);
        let twice = u32::try_from(self.marks.len() * 2).unwrap_or(u32::MAX);
        self.prune_at = twice.max(PRUNE_MIN as u32);
    }

    /// Drops of the first `count` matches those whose index is not named, ascending.
    fn keep_of(&mut self, count: usize, named: Vec<usize>) {
        let mut named = named.into_iter().peekable();
        let Window { marks, members, index: values, bytes, .. } = self;
        let mut index = 0;
        marks.retain(|mark| {
            let is_kept = index >= count || named.next_if_eq(&index).is_some();
            if !is_kept {
                members[mark.member as usize] -= 1;
                *bytes -= mark.bytes();
                if let Some(values) = values {
                    values.remove(&(mark.value, mark.time_us));
                }
            }
            index += 1;
            is_kept
        });
    }

    /// Drops of each rule the matches that have others of it within `span_us` on both sides: every
    /// window of that length that had one still has one.
    pub fn thin(&mut self, span_us: i64) {
        let mut before: Vec<Option<i64>> = vec![None; self.members.len()];
        let mut kept = Vec::new();
        for (index, mark) in self.marks.iter().enumerate() {
            let is_of = |other: &&Mark<E>| other.member == mark.member;
            let next = self.marks.range(index + 1..).find(is_of).map(|next| next.time_us);
            let before = &mut before[mark.member as usize];
            let is_spare =
                matches!((*before, next), (Some(before), Some(next)) if next - before <= span_us);
            if !is_spare {
                *before = Some(mark.time_us);
                kept.push(index);
            }
        }
        self.keep_of(self.marks.len(), kept);
    }

    /// Drops the oldest matches until there are at most `marks_max`; returns how many went.
    pub fn trim(&mut self, marks_max: usize) -> u64 {
        let surplus = self.marks.len().saturating_sub(marks_max);
        (0..surplus).for_each(|_| self.remove(0));
        surplus as u64
    }

    /// The same, of counted values: first goes what a later match of the value stands for.
    pub fn trim_values(&mut self, marks_max: usize) -> u64 {
        if self.marks.len() > marks_max && self.repeated > 0 {
            let marks: Vec<&Mark<E>> = self.marks.iter().collect();
            let (count, last) = (marks.len(), last_of_each_value(&marks));
            self.keep_of(count, last);
            self.repeated = 0;
        }
        self.trim(marks_max)
    }

    /// The same, each time of the rule that has most: no rule's only match goes because another has
    /// hundreds.
    pub fn trim_evenly(&mut self, marks_max: usize) -> u64 {
        let surplus = self.marks.len().saturating_sub(marks_max);
        for _ in 0..surplus {
            let most = (0..self.members.len()).max_by_key(|member| self.members[*member]);
            let is_of = |mark: &Mark<E>| Some(mark.member as usize) == most;
            let oldest = self.marks.iter().position(is_of).unwrap_or(0);
            self.remove(oldest);
        }
        surplus as u64
    }

    /// Whether a window that fired speaks for the one that ends here.
    pub fn is_quiet(&self, end_us: i64, span_us: i64) -> bool {
        self.fired.iter().any(|fired| end_us.abs_diff(*fired) < span_us.unsigned_abs())
    }

    /// Notes that the window which ends here fired. What ends more than `keep_us` before the newest
    /// match is forgotten: no window can any more.
    pub fn set_fired(&mut self, end_us: i64, keep_us: i64) {
        let oldest_us = self.newest_us().max(end_us).saturating_sub(keep_us);
        self.fired.retain(|fired| *fired >= oldest_us);
        let place = self.fired.partition_point(|fired| *fired <= end_us);
        self.fired.insert(place, end_us);
    }

    /// Counts again what is not stored: the matches of counted values that others stand for.
    pub fn recount(&mut self) {
        let marks: Vec<&Mark<E>> = self.marks.iter().collect();
        self.repeated = (marks.len() - last_of_each_value(&marks).len()) as u32;
    }

    /// What its matches take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.index.as_ref().map_or(0, |index| index.len() * INDEXED_BYTES)
    }

    fn remove(&mut self, index: usize) {
        if let Some(mark) = self.marks.remove(index) {
            self.members[mark.member as usize] -= 1;
            self.bytes -= mark.bytes();
            if let Some(index) = &mut self.index {
                index.remove(&(mark.value, mark.time_us));
            }
            if self.repeated > 0 && self.has_value(mark.value) {
                self.repeated -= 1;
            }
        }
    }

    fn has_value(&self, value: u64) -> bool {
        match &self.index {
            Some(index) => index.range((value, i64::MIN)..=(value, i64::MAX)).next().is_some(),
            None => self.marks.iter().any(|mark| mark.value == value),
        }
    }
}

impl<E> Window<E> {
    /// The same window with other evidence.
    pub fn map<F: Weigh>(self, evidence: &mut impl FnMut(E) -> F) -> Window<F> {
        let marks = self.marks.into_iter().map(|mark| mark.with(&mut *evidence));
        let marks: VecDeque<Mark<F>> = marks.collect();
        Window {
            bytes: marks.iter().map(Mark::bytes).sum(),
            marks,
            members: self.members,
            fired: self.fired,
            prune_at: self.prune_at,
            repeated: self.repeated,
            index: self.index,
        }
    }

    /// The same window with other evidence, as it is written.
    pub fn view<'w, F: Serialize, S: Fn(&E) -> F>(&'w self, store: &'w S) -> impl Serialize + 'w {
        View { window: self, store }
    }

    /// The evidence of its matches, in order.
    pub fn evidence(&self) -> impl Iterator<Item = &E> {
        self.marks.iter().map(|mark| &mark.evidence)
    }

    /// How many matches there are that no later one of the same value stands for, if not fewer.
    pub fn values_max(&self) -> usize {
        self.marks.len() - self.repeated as usize
    }

    /// How many matches there are up to this time: mostly it is not before the newest.
    fn end_of(&self, time_us: i64) -> usize {
        match self.newest_us() <= time_us {
            true => self.marks.len(),
            false => self.marks.partition_point(|mark| mark.time_us <= time_us),
        }
    }

    /// How many matches there are.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Time of the newest match; the beginning of time when there is none.
    pub fn newest_us(&self) -> i64 {
        self.marks.back().map_or(i64::MIN, |mark| mark.time_us)
    }

    /// The matches within `span_us` up to and including `end_us`.
    pub fn within(&self, end_us: i64, span_us: i64) -> impl DoubleEndedIterator<Item = &Mark<E>> {
        self.marks.range(self.places_within(end_us, span_us))
    }

    /// Where they stand; how many there are is told without a look at each.
    pub fn places_within(&self, end_us: i64, span_us: i64) -> Range<usize> {
        let start_us = end_us.saturating_sub(span_us);
        let is_all = self.marks.front().is_none_or(|oldest| oldest.time_us >= start_us);
        let start = match is_all {
            true => 0,
            false => self.marks.partition_point(|mark| mark.time_us < start_us),
        };
        start..self.end_of(end_us).max(start)
    }

    /// Whether each of the first `members` rules has a match here.
    pub fn has_all(&self, members: usize) -> bool {
        let known = self.members.iter().take(members).filter(|count| **count > 0).count();
        known == members
    }

    /// The ends of all windows of `span_us` that a match at `time_us` can be in: its own time, and
    /// that of each later match close enough. In order of time there is exactly one.
    pub fn ends(&self, time_us: i64, span_us: i64) -> Vec<i64> {
        let mut ends: Vec<i64> = Vec::new();
        let mut behind = self.marks.len();
        while let Some(last) = behind.checked_sub(1).and_then(|place| self.marks.get(place))
            && last.time_us >= time_us
        {
            ends.extend((last.time_us - time_us <= span_us).then_some(last.time_us));
            // Thousands may have the same time.
            behind = self.marks.partition_point(|mark| mark.time_us < last.time_us);
        }
        // A match that another one stands for is not kept.
        if ends.last() != Some(&time_us) {
            ends.push(time_us);
        }
        ends.reverse();
        ends
    }
}

impl<E: Weigh> Mark<E> {
    fn bytes(&self) -> usize {
        MARK_BYTES + self.evidence.weight()
    }
}

impl<E> Mark<E> {
    /// The number that is aggregated.
    pub fn number(&self) -> f64 {
        f64::from_bits(self.value)
    }

    fn with<F>(self, evidence: impl FnOnce(E) -> F) -> Mark<F> {
        let Mark { time_us, member, value, .. } = self;
        Mark { time_us, member, value, evidence: evidence(self.evidence) }
    }
}

/// Where among matches in order of time the last one of each value stands, ascending.
pub fn last_of_each_value<E>(marks: &[&Mark<E>]) -> Vec<usize> {
    let mut seen = FxHashSet::with_capacity_and_hasher(marks.len(), FxBuildHasher);
    let is_last = |index: &usize| seen.insert(marks[*index].value);
    let mut last: Vec<usize> = (0..marks.len()).rev().filter(is_last).collect();
    last.reverse();
    last
}

/// A window with `store` for each piece of its evidence.
struct View<'w, E, S> {
    window: &'w Window<E>,
    store: &'w S,
}

/// What is written one behind the other.
pub(crate) struct Each<I>(pub(crate) I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Each<I> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

impl<E, F: Serialize, S: Fn(&E) -> F> Serialize for View<'_, E, S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let View { window, store } = self;
        let marks = window.marks.iter().map(|mark| Mark {
            time_us: mark.time_us,
            member: mark.member,
            value: mark.value,
            evidence: store(&mark.evidence),
        });
        let mut state = serializer.serialize_struct("Window", 4)?;
        state.serialize_field("marks", &Each(marks))?;
        state.serialize_field("members", &window.members)?;
        state.serialize_field("fired", &window.fired)?;
        state.serialize_field("prune_at", &window.prune_at)?;
        state.end()
    }
}

#[cfg(test)]
mod tests;
