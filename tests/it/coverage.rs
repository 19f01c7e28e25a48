//! The coverage page says what the rules say, and every row of the table has a rule or a reason.

use std::collections::BTreeSet;
use std::path::Path;

use kubewitness::coverage::{page, rows};
use kubewitness::rule::RuleSet;
use kubewitness::rule::load::load_paths;
use kubewitness::rule::shipped;

fn rules() -> RuleSet {
    load_paths(&["detections".into()], &[], &shipped::options().unwrap()).unwrap()
}

#[test]
fn the_page_is_true() {
    let cases = |path: &Path| {
        let text = std::fs::read_to_string(kubewitness::cases::path_beside(path)).unwrap();
        text.lines().filter(|line| !line.trim().is_empty()).count()
    };
    let name = |path: &Path| path.strip_prefix("detections").unwrap().display().to_string();
    let page = page(&rules().rules, &name, &cases);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write("detections/COVERAGE.md", &page).unwrap();
    }
    let kept = std::fs::read_to_string("detections/COVERAGE.md").unwrap();
    let remedy = "UPDATE_GOLDEN=1 cargo test --test it coverage writes it anew";
    assert!(kept == page, "detections/COVERAGE.md is not what the rules say: {remedy}");
}

/// Letters with their last number, and the parts of S11.
fn table() -> BTreeSet<String> {
    let letters = [
        ("A", 27),
        ("B", 31),
        ("C", 21),
        ("D", 11),
        ("E", 19),
        ("F", 33),
        ("G", 9),
        ("H", 17),
        ("I", 12),
        ("S", 21),
    ];
    let mut table: BTreeSet<String> = letters
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n:02}")))
        .collect();
    table.remove("S11");
    table.extend("abcdefghi".chars().map(|part| format!("S11{part}")));
    table
}

#[test]
fn every_row_has_a_rule_or_a_reason() {
    let rules = rules();
    let covered: BTreeSet<String> = rules.rules.iter().flat_map(rows).collect();
    let table = table();
    let unknown: Vec<_> = covered.difference(&table).collect();
    assert!(unknown.is_empty(), "rules name rows that are not in the table: {unknown:?}");
    let readme = std::fs::read_to_string("detections/README.md").unwrap();
    let (_, reasons) = readme.split_once("Rows without a rule").unwrap();
    let missing: Vec<_> =
        table.difference(&covered).filter(|row| !reasons.contains(*row)).collect();
    assert!(missing.is_empty(), "rows without a rule and without a reason: {missing:?}");
}
