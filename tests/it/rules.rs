//! Every case of tests/cases/rules: documents with the rules they become, the problems for which
//! they are refused, or the advice that lint gives.

use std::path::PathBuf;

use kubewitness::rule::load::{Options, load_texts};
use kubewitness::rule::yaml::{self, Node, Value};
use kubewitness::rule::{convert, lint};
use proptest::prelude::*;

fn texts(node: Option<&Node>) -> Option<Vec<String>> {
    match node.map(|node| &node.value) {
        None => None,
        Some(Value::List(items)) => Some(items.iter().filter_map(Node::scalar_text).collect()),
        Some(other) => panic!("a list, not {other:?}"),
    }
}

fn check(file: &str, case: &Node) {
    let place = format!("{file}:{}", case.line);
    let documents = case.get("documents").and_then(Node::as_text).expect("documents");
    let sources = [(PathBuf::from("r.yml"), documents.to_owned())];
    let taxonomy = case.get("taxonomy").is_some();
    let options = Options { taxonomy, ..Options::default() };
    let loaded = load_texts(&sources, &options);
    if let Some(expected) = texts(case.get("problems")) {
        let problems = loaded.expect_err(&place);
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{place}: {found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            let (line, message) = expected.split_once(": ").expect("line: message");
            let start = format!("r.yml:{line}: ");
            assert!(found.starts_with(&start) && found.contains(message), "{place}: {found}");
        }
        return;
    }
    let rules = loaded.unwrap_or_else(|problems| panic!("{place}: {problems:#?}"));
    if let Some(expected) = case.get("rules").and_then(Node::as_text) {
        let printed: Vec<String> = rules.rules.iter().map(convert::rule).collect();
        let printed = printed.join("\n");
        assert_eq!(printed.trim(), expected.trim(), "{place}:\n{printed}");
    }
    if let Some(expected) = texts(case.get("advice")) {
        let advice = lint::lint(&sources, &options);
        let found: Vec<String> =
            advice.iter().map(|one| format!("{} {}", one.line, one.check)).collect();
        assert_eq!(found, expected, "{place}: {advice:#?}");
    }
}

#[test]
fn documents_become_what_the_cases_say() {
    let mut files: Vec<PathBuf> = glob::glob("tests/cases/rules/*.yml")
        .expect("a glob")
        .map(|path| path.expect("readable"))
        .collect();
    files.sort();
    assert!(files.len() > 3);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        for cases in yaml::read(&text).expect("YAML") {
            let Value::List(cases) = &cases.value else { panic!("a list of cases") };
            cases.iter().for_each(|case| check(&file.display().to_string(), case));
        }
    }
}

/// Rules without comments, in another order and form, for the same events.
#[test]
fn the_fingerprint_is_of_the_meaning() {
    let fingerprint = |text: &str| {
        let rules = load_texts(&[(PathBuf::from("r.yml"), text.to_owned())], &Options::default());
        let rules = rules.unwrap();
        (rules.fingerprint(), rules.fingerprint_of(&rules.rules[0]))
    };
    let first = "title: a\nid: a\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}";
    let second = "title: b\nid: b\nlogsource: {product: p}\ndetection: {s: {y: 1}, condition: s}";
    let counted = "title: 0\nid: 0\ncorrelation: {type: event_count, rules: [a], timespan: 5m, \
                   condition: {gte: 3}}";
    let one = fingerprint(&format!("{first}\n---\n{second}"));
    assert_eq!(one, fingerprint(&format!("# x\n{second}\n---\n{first}")));
    let renamed = first.replace("{s: {x: 1}, condition: s}", "{t: {x: 1}, condition: 1 of t*}");
    assert_eq!(one, fingerprint(&format!("{renamed}\n---\n{second}")));
    let changed = first.replace("x: 1", "x: 2");
    assert_ne!(one.0, fingerprint(&format!("{changed}\n---\n{second}")).0);
    let over_first = fingerprint(&format!("{counted}\n---\n{first}"));
    let over_changed = fingerprint(&format!("{counted}\n---\n{changed}"));
    assert_ne!(over_first.1, over_changed.1, "a changed base rule changes the correlation");
}

/// Words of Sigma and of YAML, to be thrown together.
const WORDS: [&str; 56] = [
    "title: t",
    "id: i",
    "logsource: {product: p}",
    "detection:",
    "  s:",
    "  condition: s",
    "condition",
    "a|contains",
    "a|re",
    "a|base64offset|contains",
    "a|windash",
    "a|cidr",
    "a[any]",
    "a[0].b",
    "|all",
    "\\",
    "\\[",
    "*",
    "?",
    "%x%",
    "-",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "|",
    ">",
    "&x ",
    "*x",
    "<<: ",
    "\n",
    "\n  ",
    "\n    ",
    "---\n",
    "action: global\n",
    "action: repeat\n",
    "correlation:",
    "type: temporal",
    "rules: [i]",
    "timespan: 1m",
    "filter:",
    "1 of them",
    "(",
    ")",
    " and ",
    " not ",
    "null",
    "5",
    "1e999",
    "ä",
    "\u{feff}",
    "#",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(
        words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40),
        base in any::<bool>(),
    ) {
        let start = "title: t\nlogsource: {product: p}\ndetection:\n  condition: s\n  s: ";
        let text = format!("{}{}", if base { start } else { "" }, words.concat());
        let sources = [(PathBuf::from("r.yml"), text)];
        let options = Options { taxonomy: true, ..Options::default() };
        if let Ok(rules) = load_texts(&sources, &options) {
            rules.fingerprint();
            lint::lint(&sources, &options);
        }
    }

    #[test]
    fn no_condition_makes_the_reader_panic(text in "[()a1|* _\\-ofandthem\\n\u{e4}]{0,40}") {
        let _ = kubewitness::rule::condition::parse(&text);
    }
}

#[test]
fn every_bare_name_is_documented_and_leads_to_an_audit_path() {
    let page = std::fs::read_to_string("docs/sigma.md").unwrap();
    for (name, path) in kubewitness::rule::taxonomy::NAMES {
        assert!(page.contains(&format!("`{name}`")), "docs/sigma.md does not name {name}");
        assert!(kubewitness::rule::taxonomy::is_path(path), "{path}");
    }
}
