//! Stateful correlation over matches, keyed by group-by, driven by event time.
//!
//! Pure: what it says depends on the matches and their order alone. A window slides: it is checked
//! whenever a match arrives, for every span that the match can be part of, so a match that arrives
//! late is counted where it belongs. When a window first satisfies its condition the correlation
//! fires, and the same key stays quiet for one timespan. Everything is bounded ([`Limits`]) and
//! every eviction is counted.

pub mod state;

use std::collections::BTreeMap;

use crate::engine::keyed::Keyed;
use crate::engine::terms::Baseline;
use crate::engine::verdict;
use crate::engine::window::{Mark, Weigh};
use crate::rule::{Correlation, CorrelationKind};

/// Bounds of correlation state.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys (windows) a correlation keeps; the longest silent go first.
    pub keys_max: usize,
    /// Terms and groups a `new_terms` correlation keeps.
    pub terms_max: usize,
    /// Matches a window keeps; a threshold above it raises it to one more than the threshold.
    pub marks_max: usize,
    /// Bytes that all correlations together keep, about; that which has most forgets first.
    pub bytes_max: usize,
    /// How much later than younger matches a match may arrive and still be counted, microseconds.
    pub lateness_us: i64,
}

impl Default for Limits {
    /// 20,000 keys, 200,000 terms, 250 matches a window (an alert names a hundred), 96 MiB, 120 s:
    /// kube-apiserver retries a webhook batch for up to 97 s (design.md, invariant 9 and the
    /// reference on the webhook backend).
    fn default() -> Limits {
        Limits {
            keys_max: 20_000,
            terms_max: 200_000,
            marks_max: 250,
            bytes_max: 96 << 20,
            lateness_us: 120_000_000,
        }
    }
}

/// How often windows are looked for that are over, in event time: state depends on nothing else.
const SWEEP_US: i64 = 600_000_000;

/// How far apart matches can be that are looked at together.
fn reach(rule: &Correlation) -> i64 {
    // What must not have happened is looked for on both sides of what did.
    let spans = if verdict::waits(rule) { 2 } else { 1 };
    rule.timespan_us.saturating_mul(spans)
}

/// How much later than lateness allows each of the correlations may be fed, because what feeds it
/// has waited; `chains` says which feeds which, by their indexes, the inner one first.
pub fn slack_us<'r>(
    rules: impl Iterator<Item = &'r Correlation>,
    chains: &[(usize, usize)],
) -> Vec<i64> {
    let own = |rule: &Correlation| if verdict::waits(rule) { rule.timespan_us } else { 0 };
    let own: Vec<i64> = rules.map(own).collect();
    let mut slack = vec![0i64; own.len()];
    // Each round settles one more link of every chain, and the reader refuses cycles.
    let mut is_settled = false;
    while !is_settled {
        is_settled = true;
        for &(inner, outer) in chains {
            let fed = slack[inner].saturating_add(own[inner]);
            is_settled &= fed <= slack[outer];
            slack[outer] = slack[outer].max(fed);
        }
    }
    slack
}

/// A match on its way into a correlation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Feed {
    /// Index of the correlation.
    pub correlation: u32,
    /// Which of its rules matched.
    pub member: u32,
    /// Hash of the group-by values.
    pub key: u64,
    /// The group-by fields and their values, where they stand in a body: the evidence of an alert
    /// has no bodies. Empty otherwise.
    pub labels: Vec<(String, String)>,
    /// Hash of the counted values, or of group and term; 0 when the correlation counts none.
    pub value: u64,
    /// The number to aggregate.
    pub number: Option<f64>,
    /// Whether the counted fields were all absent: such a match counts no value.
    pub is_valueless: bool,
    /// What the correlation, once it fires, is itself fed into.
    pub parents: Vec<Feed>,
}

/// A correlation whose condition is satisfied.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired<E> {
    /// Index of the correlation.
    pub correlation: u32,
    /// Whether it was known only when the window was over; the match that completed it is the last
    /// of the evidence, not the one observed now.
    pub has_waited: bool,
    /// When its window was complete: the end of the window, or, of what has waited, the time of the
    /// last match.
    pub time_us: i64,
    /// The matches in the window, in order of time.
    pub evidence: Vec<E>,
}

/// The state of all correlations.
#[derive(Clone, Debug)]
pub struct Correlator<E> {
    rules: Vec<Correlation>,
    limits: Limits,
    windows: Vec<Keyed<E>>,
    baselines: Vec<Baseline>,
    /// How much later than lateness allows a correlation may be fed: what feeds it has waited.
    slack_us: Vec<i64>,
    /// What all of them take.
    bytes: usize,
    /// Windows to look at again when the time has passed, `a and not b` is known only then; with
    /// what is fed should they fire.
    pending: BTreeMap<(i64, u32, u64), Vec<Feed>>,
    newest_us: i64,
    /// Time does not pass beyond this, whatever matches say.
    latest_us: i64,
    /// The correlations and keys that the event at hand was counted for.
    counted: Vec<(u32, u64)>,
    evictions: u64,
}

impl<E: Weigh> Correlator<E> {
    /// No state yet, for these correlations.
    pub fn new(rules: Vec<Correlation>, limits: Limits) -> Correlator<E> {
        Correlator {
            windows: rules.iter().map(|_| Keyed::default()).collect(),
            baselines: rules.iter().map(|_| Baseline::default()).collect(),
            slack_us: vec![0; rules.len()],
            bytes: 0,
            rules,
            limits,
            pending: BTreeMap::new(),
            newest_us: i64::MIN,
            latest_us: i64::MAX,
            counted: Vec::new(),
            evictions: 0,
        }
    }

    /// The same, told which correlation feeds which (their indexes, the inner one first).
    pub fn chained(mut self, chains: &[(usize, usize)]) -> Correlator<E> {
        self.slack_us = slack_us(self.rules.iter(), chains);
        self
    }

    /// What is observed from now on, up to the next call, is of one event.
    pub fn begin_event(&mut self) {
        self.counted.clear();
    }

    /// Whether a match is one more: a correlation over several rules that does not ask which of
    /// them matched counts events, and not how many of its rules an event matched.
    fn is_counted(&mut self, feed: &Feed) -> bool {
        let rule = &self.rules[feed.correlation as usize];
        if rule.rules.len() < 2 || verdict::is_temporal(rule) {
            return true;
        }
        let key = (feed.correlation, feed.key);
        let is_new = !self.counted.contains(&key);
        self.counted.extend(is_new.then_some(key));
        is_new
    }

    /// How many keys, terms and matches had to be forgotten to stay within the limits.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// What the `new_terms` correlations have learnt, by the correlation's index.
    pub fn baselines(&self) -> &[Baseline] {
        &self.baselines
    }

    /// Takes over what was learnt earlier.
    pub fn set_baseline(&mut self, correlation: usize, baseline: Baseline) {
        let before = self.weight_of(correlation);
        self.baselines[correlation] = baseline;
        self.bytes = self.bytes + self.weight_of(correlation) - before;
    }

    /// About what the state takes in memory; not less than in a snapshot.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn weight_of(&self, correlation: usize) -> usize {
        self.windows[correlation].bytes() + self.baselines[correlation].bytes()
    }

    /// How much later than younger matches a correlation may be fed.
    fn late_us(&self, correlation: usize) -> i64 {
        self.limits.lateness_us.saturating_add(self.slack_us[correlation])
    }

    fn weigh(&mut self) {
        self.bytes = (0..self.rules.len()).map(|correlation| self.weight_of(correlation)).sum();
    }

    /// Lets the correlation that has most forget of its own until all of it fits: who floods one
    /// does not empty the others.
    fn stay_within_bytes(&mut self) {
        while self.bytes > self.limits.bytes_max {
            let all = 0..self.rules.len();
            let Some(most) = all.max_by_key(|correlation| self.weight_of(*correlation)) else {
                return;
            };
            let evicted = self.windows[most].shrink() + self.baselines[most].shrink();
            if evicted == 0 {
                return;
            }
            self.evictions += evicted;
            self.weigh();
        }
    }

    /// Takes a match; calls `fire` for every correlation that it completes, inner ones first.
    /// `evidence` is asked for only when something keeps it.
    pub fn observe(
        &mut self,
        feed: &Feed,
        time_us: i64,
        evidence: &mut dyn FnMut() -> E,
        fire: &mut dyn FnMut(Fired<E>),
    ) {
        self.advance(time_us, fire);
        if !self.is_counted(feed) {
            return;
        }
        // What comes from the future would be the newest of its window for ever.
        self.take(feed, (time_us.min(self.latest_us), false), evidence, fire);
    }

    /// Takes a match of whatever time, and whether it has waited.
    fn take(
        &mut self,
        feed: &Feed,
        (time_us, has_waited): (i64, bool),
        evidence: &mut dyn FnMut() -> E,
        fire: &mut dyn FnMut(Fired<E>),
    ) {
        let index = feed.correlation as usize;
        let before = self.weight_of(index);
        let fired = match &self.rules[index].kind {
            CorrelationKind::NewTerms(_) => self.observe_term(feed, time_us, evidence),
            _ => self.observe_window(feed, time_us, evidence),
        };
        self.bytes = self.bytes + self.weight_of(index) - before;
        self.stay_within_bytes();
        if let Some(mut fired) = fired {
            fired.has_waited |= has_waited;
            self.hand_on(fired, &feed.parents, fire);
        }
    }

    /// Fires, and feeds what is chained: it counts this firing as one match, whose evidence is all
    /// of the firing's in one, at the time at which its window was complete.
    fn hand_on(&mut self, fired: Fired<E>, parents: &[Feed], fire: &mut dyn FnMut(Fired<E>)) {
        let join = || E::joined(&fired.evidence, self.limits.marks_max);
        let joined = (!parents.is_empty()).then(join).flatten();
        let at = (fired.time_us, fired.has_waited);
        fire(fired);
        let Some(joined) = joined else { return };
        for parent in parents {
            self.take(parent, at, &mut || joined.clone(), fire);
        }
    }

    /// Says what time it can be at the latest: a match from the future, by a wrong clock or a
    /// caller's, must not decide for everybody what is still to come.
    pub fn set_latest(&mut self, latest_us: i64) {
        self.latest_us = latest_us;
    }

    /// Lets time pass: decides the windows that waited for something not to happen.
    pub fn advance(&mut self, time_us: i64, fire: &mut dyn FnMut(Fired<E>)) {
        let before_us = self.newest_us;
        self.newest_us = self.newest_us.max(time_us.min(self.latest_us));
        let due = self.newest_us.saturating_sub(self.limits.lateness_us);
        self.decide_pending(due, fire);
        if before_us.div_euclid(SWEEP_US) != self.newest_us.div_euclid(SWEEP_US) {
            self.sweep(due);
        }
    }

    /// Forgets the windows that no match from `due_us` on can share.
    fn sweep(&mut self, due_us: i64) {
        let rules = self.rules.iter().zip(&self.slack_us);
        for ((rule, slack_us), windows) in rules.zip(&mut self.windows) {
            let oldest_us = due_us.saturating_sub(reach(rule)).saturating_sub(*slack_us);
            windows.retain_since(oldest_us);
        }
        self.weigh();
    }

    /// The end of all input: what waited is decided now.
    pub fn finish(&mut self, fire: &mut dyn FnMut(Fired<E>)) {
        self.decide_pending(i64::MAX, fire);
    }

    fn decide_pending(&mut self, due_us: i64, fire: &mut dyn FnMut(Fired<E>)) {
        while let Some(first) = self.pending.first_entry() {
            let &(end, correlation, key) = first.key();
            if end >= due_us {
                return;
            }
            let parents = first.remove();
            if let Some(fired) = self.check(correlation, key, end, None) {
                // What it feeds is said by the match that it is told by: the last, which has an
                // end of its own.
                let span = self.rules[correlation as usize].timespan_us;
                let own = (fired.time_us.saturating_add(span), correlation, key);
                let parents = self.pending.get(&own).cloned().unwrap_or(parents);
                self.hand_on(fired, &parents, fire);
            }
        }
    }

    fn observe_term(
        &mut self,
        feed: &Feed,
        time_us: i64,
        evidence: &mut dyn FnMut() -> E,
    ) -> Option<Fired<E>> {
        let index = feed.correlation as usize;
        let CorrelationKind::NewTerms(rule) = &self.rules[index].kind else { return None };
        if feed.is_valueless {
            return None;
        }
        let timespan = self.rules[index].timespan_us;
        let baseline = &mut self.baselines[index];
        let is_alert = baseline.observe(rule, timespan, feed.key, feed.value, time_us);
        self.evictions += baseline.evict(self.limits.terms_max);
        is_alert.then(|| Fired {
            correlation: feed.correlation,
            has_waited: false,
            time_us,
            evidence: vec![evidence()],
        })
    }

    fn observe_window(
        &mut self,
        feed: &Feed,
        time_us: i64,
        evidence: &mut dyn FnMut() -> E,
    ) -> Option<Fired<E>> {
        let rule = &self.rules[feed.correlation as usize];
        let is_distinct = matches!(rule.kind, CorrelationKind::ValueCount { .. });
        let is_aggregate = matches!(rule.kind, CorrelationKind::Aggregate { .. });
        if (is_distinct && feed.is_valueless) || (is_aggregate && feed.number.is_none()) {
            return None;
        }
        let span = rule.timespan_us;
        let waits = verdict::waits(rule);
        let marks_max = verdict::marks_max(rule, self.limits.marks_max);
        let mark = Mark {
            time_us,
            member: feed.member,
            value: feed.number.filter(|_| is_aggregate).map_or(feed.value, f64::to_bits),
            evidence: evidence(),
        };
        let late_us = self.late_us(feed.correlation as usize);
        let keep = reach(rule).saturating_add(late_us);
        // Nothing that is still waited for ends earlier.
        let until = self.newest_us.saturating_sub(late_us);
        let windows = &mut self.windows[feed.correlation as usize];
        let (evicted, ends) = windows.change(feed.key, |window| {
            match is_distinct {
                // Of a full window's values the last match is all there is room for.
                true if window.len() >= marks_max => window.add_value(mark, keep, span, i64::MAX),
                true => window.add_value(mark, keep, span, until),
                false => window.add(mark, keep),
            }
            if window.is_grown(marks_max) && verdict::can_prune(rule) {
                window.prune(until, |old| verdict::needed(rule, old));
            }
            // Who floods one rule must not push out what others wait for: of a full window that
            // is kept which decides as all would, had nothing come late.
            if window.len() > marks_max && waits {
                window.thin(span);
            } else if window.len() > marks_max && verdict::is_temporal(rule) {
                window.prune(i64::MAX, |old| verdict::needed(rule, old));
            }
            let evicted = match verdict::is_temporal(rule) {
                true => window.trim_evenly(marks_max),
                false if is_distinct => window.trim_values(marks_max),
                false => window.trim(marks_max),
            };
            let is_possible = window.values_max() >= verdict::marks_min(rule)
                && (!verdict::needs_all(rule) || window.has_all(rule.rules.len()));
            (evicted, if is_possible { window.ends(time_us, span) } else { Vec::new() })
        });
        self.evictions += evicted + windows.evict(self.limits.keys_max);
        if waits {
            let end = time_us.saturating_add(span);
            self.pending.insert((end, feed.correlation, feed.key), feed.parents.clone());
            let is_full = self.pending.len() > self.limits.terms_max;
            self.evictions += u64::from(is_full && self.pending.pop_first().is_some());
            return None;
        }
        // A sequence is completed by a match that is part of it.
        let part = verdict::is_ordered(rule).then_some((time_us, feed.member));
        ends.into_iter().find_map(|end| self.check(feed.correlation, feed.key, end, part))
    }

    /// Fires when the window that ends at `end_us` satisfies the condition and is not quiet; with
    /// `part`, the time and rule of a match, only when that is part of the evidence.
    fn check(
        &mut self,
        correlation: u32,
        key: u64,
        end_us: i64,
        part: Option<(i64, u32)>,
    ) -> Option<Fired<E>> {
        let rule = &self.rules[correlation as usize];
        let late_us = self.late_us(correlation as usize);
        let window = self.windows[correlation as usize].get_mut(key)?;
        if window.is_quiet(end_us, rule.timespan_us) {
            return None;
        }
        let count = window.places_within(end_us, rule.timespan_us).len();
        if !verdict::is_possible(rule, count) {
            return None;
        }
        let marks: Vec<&Mark<E>> = window.within(end_us, rule.timespan_us).collect();
        let around: Vec<u32> = if verdict::waits(rule) {
            window.within(end_us, reach(rule)).map(|mark| mark.member).collect()
        } else {
            Vec::new()
        };
        let evidence = verdict::satisfies(rule, &marks, &around)?;
        let is_part = |index: &usize| part == Some((marks[*index].time_us, marks[*index].member));
        if part.is_some() && !evidence.iter().any(is_part) {
            return None;
        }
        let last = marks[*evidence.last()?].time_us;
        let evidence = evidence.into_iter().map(|index| marks[index].evidence.clone()).collect();
        window.set_fired(end_us, reach(rule).saturating_add(late_us));
        let has_waited = verdict::waits(rule);
        let time_us = if has_waited { last } else { end_us };
        Some(Fired { correlation, has_waited, time_us, evidence })
    }
}

#[cfg(test)]
mod tests;
