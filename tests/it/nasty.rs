//! The list of what is known to go wrong between a source and the spool, against the tests.

use std::path::Path;

const LIST: &str = include_str!("../cases/nasty.txt");

#[test]
fn everything_that_is_known_to_go_wrong_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (_, list) = LIST.split_once("\n\n").unwrap();
    let mut named = 0;
    let mut is_first = true;
    for line in list.lines() {
        let Some(place) = line.strip_prefix("  ") else {
            assert!(named > 0 || is_first, "nothing is named before {line:?}");
            (named, is_first) = (0, false);
            continue;
        };
        let (file, text) = place.split_once(": ").unwrap();
        let content = std::fs::read_to_string(root.join(file)).unwrap();
        let is_there = match text.starts_with("# ") {
            true => content.lines().any(|line| line == text),
            false => content.contains(text),
        };
        assert!(is_there, "{file} has no {text:?}");
        named += 1;
    }
    assert!(named > 0 && !is_first);
}
