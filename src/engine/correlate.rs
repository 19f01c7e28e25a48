//! Stateful correlation over matches, keyed by group-by, driven by event time.
//!
//! Pure: what it says depends on the matches and their order alone. A window slides: it is checked
//! whenever a match arrives, for every span that the match can be part of, so a match that arrives
//! late is counted where it belongs. When a window first satisfies its condition the correlation
//! fires, and the same key stays quiet for one timespan. Everything is bounded ([`Limits`]) and
//! every eviction is counted.

pub mod state;

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::engine::terms::{Baseline, evict_oldest};
use crate::engine::verdict;
use crate::engine::window::{Mark, Window};
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
    /// How much later than younger matches a match may arrive and still be counted, microseconds.
    pub lateness_us: i64,
}

impl Default for Limits {
    /// 20,000 keys, 200,000 terms, 250 matches a window (an alert names a hundred), 120 s:
    /// kube-apiserver retries a webhook batch for up to 97 s (design.md, invariant 9 and the
    /// reference on the webhook backend).
    fn default() -> Limits {
        Limits { keys_max: 20_000, terms_max: 200_000, marks_max: 250, lateness_us: 120_000_000 }
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
    /// Time of the match that completed it.
    pub time_us: i64,
    /// The matches in the window, in order of time.
    pub evidence: Vec<E>,
}

/// The state of all correlations.
#[derive(Clone, Debug)]
pub struct Correlator<E> {
    rules: Vec<Correlation>,
    limits: Limits,
    windows: Vec<FxHashMap<u64, Window<E>>>,
    baselines: Vec<Baseline>,
    /// Windows to look at again when the time has passed: `a and not b` is known only then.
    pending: BTreeSet<(i64, u32, u64)>,
    newest_us: i64,
    /// Time does not pass beyond this, whatever matches say.
    latest_us: i64,
    evictions: u64,
}

impl<E: Clone> Correlator<E> {
    /// No state yet, for these correlations.
    pub fn new(rules: Vec<Correlation>, limits: Limits) -> Correlator<E> {
        Correlator {
            windows: rules.iter().map(|_| FxHashMap::default()).collect(),
            baselines: rules.iter().map(|_| Baseline::default()).collect(),
            rules,
            limits,
            pending: BTreeSet::new(),
            newest_us: i64::MIN,
            latest_us: i64::MAX,
            evictions: 0,
        }
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
        self.baselines[correlation] = baseline;
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
        let fired = match &self.rules[feed.correlation as usize].kind {
            CorrelationKind::NewTerms(_) => self.observe_term(feed, time_us, evidence),
            _ => self.observe_window(feed, time_us, evidence),
        };
        let Some(fired) = fired else { return };
        let evidence = if feed.parents.is_empty() { Vec::new() } else { fired.evidence.clone() };
        fire(fired);
        for parent in &feed.parents {
            // The chained correlation counts this firing as one match; its evidence is the last.
            let Some(last) = evidence.last() else { return };
            self.observe(parent, time_us, &mut || last.clone(), fire);
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
        for (rule, windows) in self.rules.iter().zip(&mut self.windows) {
            let oldest_us = due_us.saturating_sub(reach(rule));
            windows.retain(|_, window| window.newest_us() >= oldest_us);
            windows.shrink_to(windows.len() * 2);
        }
    }

    /// The end of all input: what waited is decided now.
    pub fn finish(&mut self, fire: &mut dyn FnMut(Fired<E>)) {
        self.decide_pending(i64::MAX, fire);
    }

    fn decide_pending(&mut self, due_us: i64, fire: &mut dyn FnMut(Fired<E>)) {
        while let Some(&(end, correlation, key)) = self.pending.first() {
            if end >= due_us {
                return;
            }
            self.pending.pop_first();
            if let Some(fired) = self.check(correlation, key, end) {
                fire(fired);
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
        let marks_max = self.limits.marks_max.max(verdict::marks_needed(rule));
        let windows = &mut self.windows[feed.correlation as usize];
        let window = windows.entry(feed.key).or_default();
        let mark = Mark {
            time_us,
            member: feed.member,
            value: feed.number.filter(|_| is_aggregate).map_or(feed.value, f64::to_bits),
            evidence: evidence(),
        };
        let keep = reach(rule).saturating_add(self.limits.lateness_us);
        window.add(mark, keep, is_distinct);
        if window.is_grown(marks_max) && verdict::can_prune(rule) {
            // Nothing that is still waited for ends earlier.
            let until = self.newest_us.saturating_sub(self.limits.lateness_us);
            window.prune(until, |old| verdict::needed(rule, old));
        }
        self.evictions += window.trim(marks_max);
        let is_possible = window.len() >= verdict::marks_min(rule)
            && (!verdict::needs_all(rule) || window.has_all(rule.rules.len()));
        let ends = if is_possible { window.ends(time_us, span) } else { Vec::new() };
        self.evictions += evict_oldest(windows, self.limits.keys_max, Window::newest_us);
        if waits {
            self.pending.insert((time_us.saturating_add(span), feed.correlation, feed.key));
            let is_full = self.pending.len() > self.limits.terms_max;
            self.evictions += u64::from(is_full && self.pending.pop_first().is_some());
            return None;
        }
        if !is_possible {
            return None;
        }
        ends.into_iter().find_map(|end| self.check(feed.correlation, feed.key, end))
    }

    /// Fires when the window that ends at `end_us` satisfies the condition and is not quiet.
    fn check(&mut self, correlation: u32, key: u64, end_us: i64) -> Option<Fired<E>> {
        let rule = &self.rules[correlation as usize];
        let window = self.windows[correlation as usize].get_mut(&key)?;
        if end_us < window.quiet_until_us {
            return None;
        }
        let marks: Vec<&Mark<E>> = window.within(end_us, rule.timespan_us).collect();
        let around: Vec<u32> = if verdict::waits(rule) {
            window.within(end_us, reach(rule)).map(|mark| mark.member).collect()
        } else {
            Vec::new()
        };
        let evidence = verdict::satisfies(rule, &marks, &around)?;
        let evidence: Vec<E> =
            evidence.into_iter().map(|index| marks[index].evidence.clone()).collect();
        if evidence.is_empty() {
            return None;
        }
        window.quiet_until_us = end_us.saturating_add(rule.timespan_us);
        Some(Fired { correlation, has_waited: verdict::waits(rule), time_us: end_us, evidence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::Body;
    use crate::rule::load::{Options, load_texts};

    const DETECTION: &str = "
logsource: {product: kubernetes, service: audit}
detection: {sel: {verb: get}, condition: sel}
---
";

    /// A correlation of detections `a`, `b` and `c`.
    fn correlation(text: &str) -> Vec<Correlation> {
        let detections =
            ["a", "b", "c"].map(|name| format!("title: {name}\nname: {name}{DETECTION}"));
        let whole = format!("{}title: Correlated\ncorrelation: {text}\n", detections.concat());
        let texts = [("rules.yml".into(), whole)];
        let rules = load_texts(&texts, &Options::default()).expect("the rules are right");
        let bodies = rules.rules.iter().filter_map(|rule| match &rule.body {
            Body::Correlation(correlation) => Some(correlation.clone()),
            Body::Detection(_) => None,
        });
        bodies.collect()
    }

    fn feed(member: u32, key: u64) -> Feed {
        Feed {
            correlation: 0,
            member,
            key,
            labels: Vec::new(),
            value: 0,
            number: None,
            is_valueless: false,
            parents: Vec::new(),
        }
    }

    /// What fires of matches (rule, key, seconds), and how many matches windows keep at the end.
    fn fired(
        rules: &[Correlation],
        matches: &[(u32, u64, i64)],
        prunes: bool,
    ) -> (Vec<Fired<usize>>, usize) {
        let limits =
            Limits { marks_max: 10_000, lateness_us: LATENESS * 1_000_000, ..Limits::default() };
        let mut correlator = Correlator::new(rules.to_vec(), limits);
        let mut fired = Vec::new();
        for (number, (member, key, seconds)) in matches.iter().enumerate() {
            let fire = &mut |one| fired.push(one);
            let time_us = seconds * 1_000_000;
            correlator.observe(&feed(*member, *key), time_us, &mut || number, fire);
            if !prunes {
                let windows = correlator.windows[0].values_mut();
                windows.for_each(|window| window.prune_at = u32::MAX);
            }
        }
        let kept = correlator.windows[0].values().map(Window::len).sum();
        (fired, kept)
    }

    const LATENESS: i64 = 5;

    fn matches() -> impl Strategy<Value = Vec<(u32, u64, i64)>> {
        // Few of the first rule, so that others gather without it; some late, none too late.
        let member = prop_oneof![1 => Just(0u32), 4 => Just(1), 4 => Just(2)];
        let one = (member, 0..2u64, 0..3i64, prop_oneof![3 => Just(0), 1 => 0..=LATENESS]);
        prop::collection::vec(one, 0..400).prop_map(|all| {
            let mut now = 1_000;
            let timed = all.into_iter().map(|(member, key, step, late)| {
                now += step;
                (member, key, now - late)
            });
            timed.collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_dropped_was_not_needed(matches in matches()) {
            for text in [
                "{type: temporal, rules: [a, b, c], timespan: 20s}",
                "{type: temporal, rules: [a, b, c], timespan: 20s, condition: {gte: 2}}",
                "{type: temporal_ordered, rules: [a, b, c], timespan: 20s}",
                "{type: temporal_ordered, rules: [c, a], timespan: 1m}",
            ] {
                let rules = correlation(text);
                let matches: Vec<_> = matches
                    .iter()
                    .filter(|(member, ..)| (*member as usize) < rules[0].rules.len())
                    .copied()
                    .collect();
                let (all, _) = fired(&rules, &matches, false);
                prop_assert_eq!(fired(&rules, &matches, true).0, all, "{}", text);
            }
        }
    }

    #[test]
    fn windows_keep_no_more_than_is_needed() {
        let rules = correlation("{type: temporal_ordered, rules: [a, b], timespan: 1h}");
        for first in [None, Some(0)] {
            // A thousand matches of the second rule, of which the first never did, or once.
            let opening = first.map(|member| (member, 7, 0));
            let rest = (0..1_000).map(|second| (1, 7, second));
            let matches: Vec<_> = opening.into_iter().chain(rest).collect();
            let (fired, kept) = fired(&rules, &matches, true);
            assert_eq!(fired.len(), usize::from(first.is_some()));
            assert!(kept <= 2 * 16, "{kept}");
        }
    }

    #[test]
    fn windows_that_are_over_are_forgotten() {
        let rules =
            correlation("{type: event_count, rules: [a], timespan: 1m, condition: {gte: 2}}");
        let mut correlator = Correlator::new(rules, Limits::default());
        let mut fired = Vec::new();
        let mut observe = |key: u64, seconds: i64| {
            let fire = &mut |one: Fired<i64>| fired.push((key, one.evidence));
            correlator.observe(&feed(0, key), seconds * 1_000_000, &mut || seconds, fire);
            correlator.windows[0].len()
        };
        (0..1_000).for_each(|key| _ = observe(key, 1));
        assert_eq!(observe(7, 599), 1_000, "nothing is looked for yet");
        // At ten minutes; what came late may still be counted with what is two minutes before.
        assert_eq!(observe(8, 600), 2, "the window of 599, and this one");
        assert_eq!(observe(7, 610), 2);
        assert_eq!(fired, [(7, vec![599, 610])]);
    }
}
