//! Every case of tests/cases/sigma: a detection, events that it matches or not, or why it is
//! refused.

use std::path::PathBuf;

use kubewitness::engine::Engine;
use kubewitness::engine::field::Shape;
use kubewitness::engine::values::Subject;
use kubewitness::rule::load::{Options, load_texts};
use kubewitness::rule::placeholder::Placeholders;
use kubewitness::rule::yaml::{self, Node, Value};
use kubewitness::rule::{Body, RuleSet};

use crate::reference;

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        None => &[],
        Some(Value::List(items)) => items,
        Some(other) => panic!("a list, not {other:?}"),
    }
}

fn load(detection: &str, options: &Options) -> Result<RuleSet, String> {
    let body: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("title: case\nlogsource: {{product: any}}\ndetection:\n{body}");
    load_texts(&[(PathBuf::from("case.yml"), text)], options).map_err(|problems| {
        problems.iter().map(|problem| format!("{problem}\n")).collect::<String>()
    })
}

fn check(file: &str, case: &Node, placeholders: &Placeholders) {
    let detection = case.get("detection").and_then(Node::as_text).expect("a detection");
    let options = Options { placeholders: placeholders.clone(), ..Options::default() };
    let place = format!("{file}:{}\n{detection}", case.line);
    let loaded = load(detection, &options);
    if let Some(reason) = case.get("reject").and_then(Node::as_text) {
        let problem = loaded.expect_err(&place);
        assert!(problem.contains(reason), "{place}: {problem}");
        return;
    }
    let rules = loaded.unwrap_or_else(|problem| panic!("{place}: {problem}"));
    let Body::Detection(condition) = &rules.rules[0].body else { panic!("{place}: no detection") };
    let engine = Engine::compile(rules.clone(), Shape::Json, &[]).expect(&place);
    let mut scratch = engine.scratch();
    for (key, expected) in [("match", true), ("no_match", false)] {
        for event in items(case.get(key)) {
            let event = event.as_text().expect("an event is JSON in quotes");
            let place = format!("{place}{key}: {event}");
            assert_eq!(reference::holds(condition, event), expected, "reference, {place}");
            let subject = Subject::Json(event.as_bytes());
            let matched = engine.evaluate(subject, &mut scratch);
            assert_eq!(!matched.is_empty(), expected, "engine, {place}");
        }
    }
}

#[test]
fn reference_and_engine_agree_with_every_case() {
    let mut files: Vec<PathBuf> = glob::glob("tests/cases/sigma/*.yml")
        .expect("a glob")
        .map(|path| path.expect("readable"))
        .collect();
    files.sort();
    assert!(files.len() > 5);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let mut documents = yaml::read(&text).expect("YAML").into_iter();
        let cases = documents.next().expect("cases");
        let placeholders = match documents.next() {
            Some(_) => {
                let lists = text.rsplit("\n---\n").next().unwrap_or_default();
                Placeholders::read(lists).expect("placeholders")
            }
            None => Placeholders::default(),
        };
        for case in items(Some(&cases)) {
            check(&file.display().to_string(), case, &placeholders);
        }
    }
}
