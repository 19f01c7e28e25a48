//! Windows over matches: what fires, what is kept, what is forgotten.

mod floods;

use std::collections::BTreeSet;

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
    let detections = ["a", "b", "c"].map(|name| format!("title: {name}\nname: {name}{DETECTION}"));
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
            let windows = correlator.windows[0].iter_mut();
            windows.for_each(|(_, window)| window.prune_at = u32::MAX);
        }
    }
    let kept = correlator.windows[0].iter().map(|(_, window)| window.len()).sum();
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
            "{type: temporal_ordered, rules: [b, c, b], timespan: 20s}",
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

/// The values of a key's matches (value, key, seconds) in the window that ends here.
fn values(matches: &[(u32, u64, i64)], key: u64, end: i64, span: i64) -> BTreeSet<u32> {
    let is_inside = |one: &&(u32, u64, i64)| one.1 == key && (end - span..=end).contains(&one.2);
    matches.iter().filter(is_inside).map(|one| one.0).collect()
}

proptest! {
    #[test]
    fn values_are_counted_as_if_all_matches_were_kept(
        matches in matches(), span in 1..12i64, least in 1..4usize,
    ) {
        let rules = correlation(&format!(
            "{{type: value_count, rules: [a], timespan: {span}s, \
             condition: {{field: verb, gte: {least}}}}}"
        ));
        let limits = Limits { lateness_us: LATENESS * 1_000_000, ..Limits::default() };
        let mut correlator = Correlator::new(rules, limits);
        let mut ends = Vec::new();
        for (number, (value, key, now)) in matches.iter().enumerate() {
            let known = &matches[..=number];
            let feed = Feed { value: u64::from(*value), ..feed(0, *key) };
            let mut fired = None;
            let fire = &mut |one: Fired<usize>| fired = Some(one);
            correlator.observe(&feed, now * 1_000_000, &mut || number, fire);
            if let Some(one) = fired {
                let end = one.time_us / 1_000_000;
                let told: Vec<u32> = one.evidence.iter().map(|at| matches[*at].0).collect();
                let all = values(known, *key, end, span);
                prop_assert_eq!(told.len(), all.len());
                prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), all);
                ends.push((*key, end));
            }
            // Whatever window has enough of them fired, or one did that speaks for its neighbours.
            for end in known.iter().filter(|one| one.1 == *key).map(|one| one.2) {
                let is_enough = values(known, *key, end, span).len() >= least;
                let is_near = |fired: i64| (fired - end).abs() < 2 * span;
                let is_told = ends.iter().any(|one| one.0 == *key && is_near(one.1));
                let is_due = (*now..=now + span).contains(&end);
                prop_assert!(!is_enough || !is_due || is_told, "{}", end);
            }
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
    let rules = correlation("{type: event_count, rules: [a], timespan: 1m, condition: {gte: 2}}");
    let mut correlator = Correlator::new(rules, Limits::default());
    let mut fired = Vec::new();
    let mut observe = |key: u64, seconds: i64| {
        let fire = &mut |one: Fired<i64>| fired.push((key, one.evidence));
        correlator.observe(&feed(0, key), seconds * 1_000_000, &mut || seconds, fire);
        correlator.windows[0].iter().count()
    };
    (0..1_000).for_each(|key| _ = observe(key, 1));
    assert_eq!(observe(7, 599), 1_000, "nothing is looked for yet");
    // At ten minutes; what came late may still be counted with what is two minutes before.
    assert_eq!(observe(8, 600), 2, "the window of 599, and this one");
    assert_eq!(observe(7, 610), 2);
    assert_eq!(fired, [(7, vec![599, 610])]);
}

/// What fires of matches (rule, seconds, value or number) of one key, in the order in which they
/// come: the seconds of the first and the last match of the evidence.
fn spans(text: &str, matches: &[(u32, i64, u32)]) -> Vec<(i64, i64)> {
    let rules = correlation(text);
    let is_aggregate = matches!(rules[0].kind, CorrelationKind::Aggregate { .. });
    let mut correlator = Correlator::new(rules, Limits::default());
    let mut fired = Vec::new();
    for (member, seconds, value) in matches {
        let number = is_aggregate.then_some(f64::from(*value));
        let feed = Feed { value: u64::from(*value), number, ..feed(*member, 7) };
        let fire = &mut |one| fired.push(one);
        correlator.observe(&feed, seconds * 1_000_000, &mut || *seconds, fire);
    }
    correlator.finish(&mut |one| fired.push(one));
    let ends = |one: Fired<i64>| (one.evidence[0], *one.evidence.last().unwrap());
    fired.into_iter().map(ends).collect()
}

/// Matches of rules by their letters, a second apart.
fn each_second(rules: &str) -> Vec<(u32, i64, u32)> {
    rules.bytes().zip(0..).map(|(rule, second)| (u32::from(rule - b'a'), second, 0)).collect()
}

#[test]
fn rules_in_order_with_a_condition() {
    for (condition, rules, fires) in [
        ("{gte: 3}", "abac", true),
        ("{eq: 3}", "abac", true),
        ("a and b and c", "abac", true),
        ("{gte: 3}", "acb", false),
        ("{gte: 2}", "cab", true),
        ("{gte: 2}", "cba", false),
        ("{gte: 1}", "c", true),
        ("{lte: 1}", "cba", true),
        ("{eq: 2}", "abc", true),
        ("a and c", "cab", false),
        ("a and c", "cabc", true),
        ("b or (a and c)", "cb", true),
        ("(a and b) or (a and c)", "ca", false),
    ] {
        let text = format!(
            "{{type: temporal_ordered, rules: [a, b, c], timespan: 10s, condition: {condition}}}"
        );
        let fired = spans(&text, &each_second(rules));
        assert_eq!(!fired.is_empty(), fires, "{condition} of {rules}: {fired:?}");
    }
}

#[test]
fn many_matches_change_no_answer() {
    let numbers = |count: i64, number: u32| (0..count).map(move |_| (0, 1, number));
    let opened = |rule: u32, count: i64| -> Vec<(u32, i64, u32)> {
        std::iter::once((rule, 0, 0)).chain((0..count).map(|_| (1, 2, 0))).collect()
    };
    for (text, matches, fires) in [
        (
            "{type: value_sum, rules: [a], timespan: 1h, condition: {field: n, gte: 1500}}",
            numbers(1500, 1).collect(),
            true,
        ),
        (
            "{type: value_avg, rules: [a], timespan: 1h, condition: {field: n, lt: 1}}",
            std::iter::once((0, 0, 1000)).chain(numbers(900, 0)).collect(),
            false,
        ),
        (
            "{type: value_median, rules: [a], timespan: 1h, condition: {field: n, gte: 10}}",
            numbers(1000, 1).chain(numbers(130, 10)).collect(),
            false,
        ),
        (
            "{type: temporal, rules: [a, b], timespan: 10s, condition: b and not a}",
            opened(0, 400),
            false,
        ),
        (
            "{type: temporal, rules: [a, b, c], timespan: 10s, condition: a and b and not c}",
            opened(0, 400),
            true,
        ),
        (
            "{type: temporal, rules: [a, b, c], timespan: 10s, condition: b and not c}",
            opened(2, 400),
            false,
        ),
        ("{type: temporal_ordered, rules: [a, b], timespan: 10s}", opened(0, 400), true),
    ] {
        let fired = spans(text, &matches);
        assert_eq!(!fired.is_empty(), fires, "{text}: {fired:?}");
    }
}

#[test]
fn a_burst_that_comes_late_is_not_silenced_by_a_later_one() {
    let text = "{type: event_count, rules: [a], timespan: 10s, condition: {gte: 2}}";
    for (seconds, expected) in [
        (&[50, 51, 100, 101][..], &[(50, 51), (100, 101)][..]),
        (&[100, 101, 50, 51], &[(100, 101), (50, 51)]),
        (&[100, 101, 102, 50, 51, 52, 103], &[(100, 101), (50, 51)]),
        // Of one burst, whichever of its matches come late.
        (&[100, 101, 95, 94], &[(100, 101)]),
        (&[100, 101, 111, 112], &[(100, 101), (101, 111)]),
    ] {
        let matches: Vec<_> = seconds.iter().map(|second| (0, *second, 0)).collect();
        assert_eq!(spans(text, &matches), expected, "{seconds:?}");
    }
}

#[test]
fn what_waited_is_counted_by_what_is_chained_on_it() {
    let waiting = "{type: temporal, rules: [a, b], timespan: 10s, condition: a and not b}";
    let counting = "{type: event_count, rules: [a], timespan: 10m, condition: {gte: 2}}";
    let rules = [correlation(waiting), correlation(counting)].concat();
    for (matches, expected) in [
        (&[(0, 0), (0, 60), (0, 400)][..], &[(0, 0), (0, 60), (1, 60), (0, 400)][..]),
        (&[(0, 0), (0, 60), (1, 62), (0, 400)], &[(0, 0), (0, 400), (1, 400)]),
        (&[(0, 0), (1, 1)], &[]),
    ] {
        let mut correlator = Correlator::new(rules.clone(), Limits::default());
        let mut fired = Vec::new();
        for (member, seconds) in matches {
            let parents = vec![Feed { correlation: 1, ..feed(0, 9) }];
            let feed = Feed { parents, ..feed(*member, 7) };
            let fire = &mut |one: Fired<i64>| fired.push((one.correlation, one.evidence));
            correlator.observe(&feed, seconds * 1_000_000, &mut || *seconds, fire);
        }
        correlator.finish(&mut |one| fired.push((one.correlation, one.evidence)));
        let last =
            |(correlation, evidence): &(u32, Vec<i64>)| (*correlation, *evidence.last().unwrap());
        assert_eq!(fired.iter().map(last).collect::<Vec<_>>(), expected, "{matches:?}");
    }
}

#[test]
fn a_rule_that_is_listed_twice_must_match_twice() {
    let text = "{type: temporal_ordered, rules: [a, b, a], timespan: 10s}";
    for (matches, fires) in [
        // An event of both rules is fed as each of them.
        (&[(0, 1), (1, 1), (2, 1)][..], false),
        (&[(0, 1), (2, 1), (1, 2)], false),
        (&[(0, 1), (2, 1), (1, 2), (0, 3), (2, 3)], true),
        (&[(0, 1), (2, 1), (0, 2), (1, 2), (2, 2)], true),
    ] {
        let matches: Vec<_> = matches.iter().map(|(member, at)| (*member, *at, 0)).collect();
        assert_eq!(!spans(text, &matches).is_empty(), fires, "{matches:?}");
    }
}

#[test]
fn an_event_of_several_rules_counts_once() {
    let rules =
        correlation("{type: event_count, rules: [a, b], timespan: 1h, condition: {gte: 2}}");
    let mut correlator = Correlator::new(rules, Limits::default());
    let mut fired = Vec::new();
    for second in [1, 2] {
        correlator.begin_event();
        for member in [0, 1] {
            let fire = &mut |one: Fired<i64>| fired.push(one.evidence);
            correlator.observe(&feed(member, 7), second * 1_000_000, &mut || second, fire);
        }
    }
    assert_eq!(fired, [[1, 2]]);
}

#[test]
fn a_match_from_the_future_hides_none_of_its_key() {
    let counting = "{type: event_count, rules: [a], timespan: 10s, condition: {gte: 3}}";
    let first_seen = "{type: new_terms, rules: [a], timespan: 1d, condition: {field: verb}}";
    for (text, expected) in [(counting, 1), (first_seen, 6)] {
        let mut correlator = Correlator::new(correlation(text), Limits::default());
        let mut fired = 0;
        for (number, seconds) in [4_000_000_000i64, 11, 12, 13, 14, 15].into_iter().enumerate() {
            let feed = Feed { value: number as u64, ..feed(0, 7) };
            correlator.set_latest(20_000_000 + number as i64);
            correlator.begin_event();
            let fire = &mut |_: Fired<i64>| fired += 1;
            correlator.observe(&feed, seconds * 1_000_000, &mut || seconds, fire);
        }
        assert_eq!(fired, expected, "{text}");
    }
}

#[test]
fn what_is_chained_has_the_time_at_which_the_inner_was_complete() {
    let inner = "{type: event_count, rules: [a], timespan: 10s, condition: {gte: 2}}";
    let outer = "{type: temporal_ordered, rules: [a, b], timespan: 1m}";
    let rules = [correlation(inner), correlation(outer)].concat();
    for order in [[5, 6, 8], [8, 6, 5]] {
        let mut correlator = Correlator::new(rules.clone(), Limits::default());
        let mut fired = Vec::new();
        for seconds in order {
            let parents = vec![Feed { correlation: 1, ..feed(0, 9) }];
            let one = match seconds {
                6 => Feed { correlation: 1, ..feed(1, 9) },
                _ => Feed { parents, ..feed(0, 7) },
            };
            let fire =
                &mut |one: Fired<i64>| fired.push((one.correlation, one.time_us / 1_000_000));
            correlator.observe(&one, seconds * 1_000_000, &mut || seconds, fire);
        }
        assert_eq!(fired, [(0, 8)], "{order:?}");
    }
}
