//! The cases of tests/cases/config.txt.

use super::read::load_text;
use super::*;

const CASES: &str = include_str!("../../tests/cases/config.txt");

/// Overrides, file and expectation of every case.
fn cases() -> Vec<(&'static str, Vec<Override>, String, Vec<&'static str>)> {
    let minimal = CASES.split("@@ minimal\n---\n").nth(1).unwrap().split("\n=>").next().unwrap();
    let mut cases = Vec::new();
    for block in CASES.split("\n@@ ").skip(1) {
        let (name, body) = block.split_once('\n').unwrap();
        let (before, expected) = body.split_once("=> ").unwrap();
        let of = |line: &str| {
            let line = line.strip_prefix("$ ")?;
            let option = line.strip_prefix("--set ").map(|text| Override::of_option(text).unwrap());
            let (name, value) = line.split_once('=').unwrap();
            option.or_else(|| Override::of_variable(name, value))
        };
        let overrides = before.lines().filter_map(of).collect();
        let lines = before.lines().filter(|line| !line.starts_with("$ "));
        let file: String = lines.map(|line| format!("{line}\n")).collect();
        let file = match file.strip_prefix("---\n") {
            Some(whole) => whole.to_owned(),
            None => format!("{minimal}\n{file}"),
        };
        let expected = expected.trim_end().split("\n=> ").collect();
        cases.push((name, overrides, file, expected));
    }
    cases
}

#[test]
fn every_problem_has_a_place_and_a_remedy() {
    let cases = cases();
    assert!(cases.len() > 25, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, overrides, file, expected) in cases {
        let found = match load_text("c.yaml", &file, &overrides) {
            Ok(_) => vec!["fine".to_owned()],
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        if found != expected {
            wrong.push(format!("{name}\n  found:\n{}", found.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn overrides_win_in_order() {
    let file = "
cluster: a
sources: [{type: webhook}]
spool: {dir: spool, bytes_max: 1GiB}
sinks: [{type: stdout, name: out}]";
    let overrides = [
        Override::of_variable("KUBEWITNESS__SPOOL__BYTES_MAX", "2GiB").unwrap(),
        Override::of_variable("KUBEWITNESS__SINKS__0__NAME", "screen").unwrap(),
        Override::of_option("spool.bytes_max=3GiB").unwrap(),
        Override::of_option("rules.placeholders={admins: [root]}").unwrap(),
    ];
    let config = load_text("c.yaml", file, &overrides).unwrap();
    assert_eq!(config.spool.bytes_max, Size(3 << 30));
    assert_eq!(config.sinks[0].common.name, "screen");
    assert_eq!(config.rules.placeholders["admins"], ["root"]);
    assert_eq!(config.redaction.mode, Mode::Secrets);
    assert_eq!(config.spool.options(), {
        let bytes_max = 3 << 30;
        spool::Options { bytes_max, ..spool::Options::default() }
    });
}
