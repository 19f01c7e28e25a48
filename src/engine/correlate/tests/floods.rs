//! Floods, bounds, and what is chained on what has waited.

use super::*;

#[test]
fn who_floods_one_correlation_does_not_empty_the_others() {
    let counting = "{type: event_count, rules: [a], timespan: 1h, condition: {gte: 3}}";
    let first_seen = "{type: new_terms, rules: [a], timespan: 1d, condition: {field: verb}}";
    for flooded in [counting, first_seen] {
        let rules = [correlation(counting), correlation(flooded)].concat();
        let bytes_max = 100_000;
        let limits = Limits { bytes_max, ..Limits::default() };
        let mut correlator = Correlator::new(rules, limits);
        let mut fired = Vec::new();
        let mut see = |correlation: u32, key: u64, seconds: i64| {
            let feed = Feed { correlation, value: key, ..feed(0, key) };
            let fire = &mut |one: Fired<i64>| fired.push((one.correlation, seconds));
            correlator.begin_event();
            correlator.observe(&feed, seconds * 1_000_000, &mut || seconds, fire);
            assert!(correlator.bytes() <= bytes_max, "{}", correlator.bytes());
            let counted = correlator.bytes();
            correlator.weigh();
            assert_eq!(correlator.bytes(), counted);
        };
        see(0, 1, 1);
        see(0, 1, 2);
        for key in 0..10_000 {
            see(1, key, 3);
        }
        see(0, 1, 4);
        // What was seen last is known still.
        see(1, 10_000, 5);
        see(1, 10_000, 6);
        see(1, 10_000, 7);
        let of = |wanted: u32| fired.iter().filter(move |(one, _)| *one == wanted);
        assert_eq!(of(0).collect::<Vec<_>>(), [&(0, 4)]);
        let last = of(1).filter(|(_, seconds)| *seconds > 3).collect::<Vec<_>>();
        let expected = if flooded == counting { (1, 7) } else { (1, 5) };
        assert_eq!(last, [&expected], "{flooded}");
        assert!(correlator.evictions() > 9_000, "{}", correlator.evictions());
    }
}

#[test]
fn one_window_alone_forgets_its_oldest_matches() {
    let rules = correlation("{type: event_count, rules: [a], timespan: 1h, condition: {gte: 60}}");
    let limits = Limits { bytes_max: 5_000, ..Limits::default() };
    let mut correlator = Correlator::new(rules, limits);
    for seconds in 0..200 {
        let fire = &mut |_: Fired<i64>| panic!("not so many are kept");
        correlator.observe(&feed(0, 7), seconds * 1_000_000, &mut || seconds, fire);
        assert!(correlator.bytes() <= 5_000);
    }
    assert!(correlator.evictions() > 100);
}

/// What fires of one correlation (seconds of its evidence) for matches (rule, seconds) of one key.
fn evidence(text: &str, matches: &[(u32, i64)]) -> Vec<Vec<i64>> {
    let mut correlator = Correlator::new(correlation(text), Limits::default());
    let mut fired = Vec::new();
    for (member, seconds) in matches {
        let fire = &mut |one: Fired<i64>| fired.push(one.evidence);
        correlator.begin_event();
        correlator.observe(&feed(*member, 7), seconds * 1_000_000, &mut || *seconds, fire);
    }
    correlator.finish(&mut |one| fired.push(one.evidence));
    fired
}

#[test]
fn a_sequence_is_completed_by_its_own_matches_alone() {
    let two = "{type: temporal_ordered, rules: [a, b], timespan: 1h}";
    let some = "{type: temporal_ordered, rules: [a, b, c], timespan: 1h, condition: {gte: 2}}";
    for (text, matches, expected) in [
        // When the quiet time is over, another `a` completes nothing that `b` had completed in it.
        (two, &[(0, 0), (1, 5), (0, 1_800), (1, 2_400), (0, 3_700)][..], &[[0, 5]][..]),
        (two, &[(0, 0), (1, 5), (0, 1_800), (1, 2_400), (1, 3_700)], &[[0, 5], [1_800, 3_700]]),
        (some, &[(1, 0), (2, 5), (1, 1_800), (2, 2_400), (0, 3_700)], &[[0, 5]]),
        // What comes late completes it, too.
        (two, &[(1, 5), (0, 3)], &[[3, 5]]),
    ] {
        assert_eq!(evidence(text, matches), expected, "{text} {matches:?}");
    }
}

#[test]
fn a_flood_of_one_rule_hides_no_sequence() {
    for (text, last) in [
        ("{type: temporal_ordered, rules: [a, b, c], timespan: 30m}", vec![0, 5, 115]),
        (
            "{type: temporal_ordered, rules: [a, b, c], timespan: 30m, condition: {gte: 3}}",
            vec![0, 5, 115],
        ),
        ("{type: temporal, rules: [a, b, c], timespan: 30m}", vec![5, 110, 115]),
    ] {
        for flood in [0, 200, 260, 2_000] {
            let flood = (0..flood).map(|n| (0, 6 + n * 104 / 2_000));
            let mut matches = vec![(0, 0), (1, 5)];
            matches.extend(flood);
            matches.extend([(0, 110), (2, 115)]);
            assert_eq!(evidence(text, &matches), [&last[..]], "{text} {}", matches.len());
        }
    }
}

#[test]
fn a_flood_does_not_hide_what_nothing_followed() {
    let text = "{type: temporal, rules: [a, b], timespan: 10s, condition: a and not b}";
    for rate in [1, 3, 5, 20] {
        let mut matches: Vec<_> = (0..600 * rate).map(|n| (0, n / rate)).collect();
        // What was followed by the other is not told.
        matches.push((1, 605));
        let fired = evidence(text, &matches);
        assert!((55..=60).contains(&fired.len()), "{} at {rate} a second", fired.len());
    }
}

#[test]
fn what_is_chained_on_what_waits_has_waited() {
    let inner = "{type: temporal, rules: [a, b], timespan: 1m, condition: a and not b}";
    let outer = "{type: event_count, rules: [a], timespan: 10m, condition: {gte: 2}}";
    // Another event moves the time on, or the input ends.
    for other in [true, false] {
        let rules = [correlation(inner), correlation(outer)].concat();
        let mut correlator = Correlator::new(rules, Limits::default()).chained(&[(0, 1)]);
        let mut fired = Vec::new();
        // By the match that it is told by, not by that which began the window.
        for (seconds, key, group) in [(0, 10, 1), (3, 11, 1), (5, 10, 2), (6, 12, 2)] {
            let parents = vec![Feed { correlation: 1, ..feed(0, group) }];
            let fire = &mut |one: Fired<i64>| fired.push(one);
            let one = Feed { parents, ..feed(0, key) };
            correlator.observe(&one, seconds * 1_000_000, &mut || seconds, fire);
        }
        if other {
            let fire = &mut |one: Fired<i64>| fired.push(one);
            correlator.observe(&feed(1, 99), 5_000_000_000, &mut || 5_000, fire);
        }
        correlator.finish(&mut |one| fired.push(one));
        assert!(fired.iter().all(|one| one.has_waited));
        let outer = fired.iter().filter(|one| one.correlation == 1);
        let outer: Vec<_> = outer.map(|one| (one.time_us / 1_000_000, &one.evidence[..])).collect();
        assert_eq!(outer, [(6, &[5, 6][..])]);
    }
}

#[test]
fn windows_wait_for_what_they_are_fed_late() {
    let inner = "{type: temporal, rules: [a, b], timespan: 1h, condition: a and not b}";
    let outer = "{type: event_count, rules: [a], timespan: 30m, condition: {gte: 2}}";
    for others in [&[9_000][..], &[4_000, 9_000]] {
        let rules = [correlation(inner), correlation(outer)].concat();
        let mut correlator = Correlator::new(rules, Limits::default()).chained(&[(0, 1)]);
        let mut fired = Vec::new();
        let matches = [(0, 0, 1), (0, 600, 2)];
        let others = others.iter().map(|seconds| (1, *seconds, 99));
        for (member, seconds, key) in matches.into_iter().chain(others) {
            let parents = vec![Feed { correlation: 1, ..feed(0, 9) }];
            let fire = &mut |one: Fired<i64>| fired.push((one.correlation, one.evidence));
            let one = Feed { parents, ..feed(member, key) };
            correlator.observe(&one, seconds * 1_000_000, &mut || seconds, fire);
        }
        correlator.finish(&mut |_| {});
        assert!(fired.contains(&(1, vec![0, 600])), "{fired:?}");
    }
}
