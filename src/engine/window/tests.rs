//! What a window keeps, and in which order.

use super::*;

impl Weigh for i64 {
    fn weight(&self) -> usize {
        0
    }
}

impl Weigh for usize {
    fn weight(&self) -> usize {
        0
    }
}

fn mark(time_us: i64, value: u64) -> Mark<i64> {
    Mark { time_us, member: 0, value, evidence: time_us }
}

fn times(window: &Window<i64>, end: i64, span: i64) -> Vec<i64> {
    window.within(end, span).map(|mark| mark.time_us).collect()
}

#[test]
fn keeps_the_order_of_time() {
    let mut window = Window::default();
    for time in [10, 30, 20, 5] {
        window.add(mark(time, 0), 100);
    }
    assert_eq!(times(&window, 30, 100), [5, 10, 20, 30]);
    assert_eq!(times(&window, 20, 10), [10, 20]);
    assert_eq!(window.ends(20, 10), [20, 30]);
    assert_eq!(window.ends(30, 10), [30]);
}

#[test]
fn drops_the_old_and_the_surplus() {
    let mut window = Window::default();
    for (time, trimmed, expected) in [
        (0, 0, &[0][..]),
        (11, 0, &[11]),
        (12, 0, &[11, 12]),
        (13, 0, &[11, 12, 13]),
        (14, 1, &[12, 13, 14]),
    ] {
        window.add(mark(time, 0), 10);
        assert_eq!(window.trim(3), trimmed);
        assert_eq!(times(&window, time, 100), expected);
    }
}

#[test]
fn drops_evenly() {
    let mut window = Window::default();
    let member = |time, member| Mark { member, ..mark(time, 0) };
    for one in [member(0, 1), member(1, 0), member(2, 0), member(3, 0), member(4, 2)] {
        window.add(one, 100);
    }
    for (marks_max, expected) in [(4, &[0, 2, 3, 4][..]), (3, &[0, 3, 4]), (2, &[0, 3])] {
        assert_eq!(window.trim_evenly(marks_max), 1);
        assert_eq!(times(&window, 9, 100), expected);
    }
}

#[test]
fn what_fired_speaks_for_its_neighbours() {
    let mut window = Window::default();
    window.add(mark(100, 0), 50);
    window.set_fired(100, 50);
    for (end, expected) in [(89, false), (90, false), (91, true), (109, true), (110, false)] {
        assert_eq!(window.is_quiet(end, 10), expected, "{end}");
    }
    window.set_fired(60, 50);
    assert!(window.is_quiet(65, 10) && window.is_quiet(95, 10) && !window.is_quiet(75, 10));
    window.add(mark(150, 0), 50);
    window.set_fired(150, 50);
    assert!(!window.is_quiet(65, 10) && window.is_quiet(95, 10));
}

#[test]
fn drops_what_is_old_and_not_needed() {
    let mut window = Window::default();
    for time in 0..16 {
        assert!(!window.is_grown(1_000));
        window.add(Mark { member: time as u32 % 2, ..mark(time, 0) }, 100);
    }
    assert!(window.is_grown(1_000) && window.is_grown(3));
    window.prune(12, |old| {
        assert_eq!(old.len(), 12);
        vec![1, 2]
    });
    assert_eq!(times(&window, 16, 100), [1, 2, 12, 13, 14, 15]);
    assert!(!window.is_grown(1_000) && window.is_grown(3) && window.has_all(2));
    window.prune(100, |_| vec![4]);
    assert_eq!(times(&window, 16, 100), [14]);
    assert!(!window.has_all(2));
}

#[test]
fn of_a_value_stays_what_some_window_needs() {
    let mut window = Window::default();
    for (time, value, until, expected) in [
        (1, 7, 0, &[1][..]),
        (2, 8, 0, &[1, 2]),
        (3, 7, 0, &[1, 2, 3]),
        // Between two that are a span apart at most.
        (2, 7, 0, &[1, 2, 3]),
        (8, 7, 0, &[1, 2, 8]),
        (8, 7, 0, &[1, 2, 8]),
        (21, 7, 0, &[1, 2, 8, 21]),
        (23, 7, 0, &[1, 2, 8, 21, 23]),
        (15, 7, 0, &[1, 2, 8, 15, 23]),
        (0, 7, 0, &[0, 2, 8, 15, 23]),
        // Before one that is older than what is waited for.
        (27, 7, 30, &[0, 2, 8, 15, 27]),
        (26, 7, 30, &[0, 2, 8, 15, 27]),
    ] {
        window.add_value(mark(time, value), 100, 10, until);
        assert_eq!(times(&window, 99, 100), expected, "{time}");
        let marks: Vec<&Mark<i64>> = window.marks.iter().collect();
        assert_eq!(window.values_max(), last_of_each_value(&marks).len());
    }
    assert_eq!(window.trim_values(3), 0);
    assert_eq!(times(&window, 99, 100), [2, 27]);
}

#[test]
fn thinning_leaves_no_window_without_a_match_that_had_one() {
    for times in [vec![0, 1, 2, 3, 9, 10, 11, 20, 21, 40], (0..100).collect(), vec![0, 10, 21]] {
        let mut window = Window::default();
        for (number, time) in times.iter().enumerate() {
            window.add(Mark { member: number as u32 % 2, ..mark(*time, 0) }, 1_000);
        }
        let members = |window: &Window<i64>, end: i64| {
            window
                .within(end, 10)
                .map(|mark| mark.member)
                .collect::<std::collections::BTreeSet<_>>()
        };
        let before: Vec<_> = (0..120).map(|end| members(&window, end)).collect();
        let count = window.len();
        window.thin(10);
        assert_eq!((0..120).map(|end| members(&window, end)).collect::<Vec<_>>(), before);
        assert_eq!(window.len() < count, count > 3, "{times:?}");
        assert_eq!(window.bytes(), window.len() * MARK_BYTES);
    }
}

#[test]
fn many_values_are_kept_as_few_are() {
    let random = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    for (values, late, until) in [(400, 0, 0), (400, 30, 0), (700, 500, 900), (3, 9, 0)] {
        let (mut window, mut plain) = (Window::default(), Window::default());
        for n in 0..3_000u64 {
            let time = n as i64 / 2 - (random(n) % (late + 1)) as i64;
            let one = mark(time, random(n + 7) % values);
            window.add_value(one.clone(), 900, 300, until);
            plain.index = None;
            plain.add_value(one, 900, 300, until);
            // Without what is known of repeats everything is looked at.
            plain.recount();
        }
        assert_eq!(window.index.is_some(), values > 3);
        assert_eq!(window.marks, plain.marks, "{values} values");
        let known: BTreeSet<_> = window.marks.iter().map(|one| (one.value, one.time_us)).collect();
        assert_eq!(known.len(), window.len());
        assert!(window.index.as_ref().is_none_or(|index| *index == known));
        window.trim_values(100);
        assert!(window.index.as_ref().is_none_or(|index| index.len() == window.len()));
    }
}

#[test]
fn no_number_of_values_makes_one_more_dear() {
    let mut window = Window::default();
    for n in 0..200_000 {
        window.add_value(mark(7, n), 100, 10, 0);
        assert_eq!(window.ends(7, 10), [7]);
    }
    assert_eq!((window.len(), window.values_max()), (200_000, 200_000));
}
