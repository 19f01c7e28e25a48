//! Every case of tests/cases/sigma: a detection, events that it matches or not, or why it is refused.

use std::path::PathBuf;

use kubewitness::rule::load::{Options, load_texts};
use kubewitness::rule::placeholder::Placeholders;
use kubewitness::rule::yaml::{self, Node, Value};
use kubewitness::rule::{Body, Condition};

use crate::reference;

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        None => &[],
        Some(Value::List(items)) => items,
        Some(other) => panic!("a list, not {other:?}"),
    }
}

fn load(detection: &str, options: &Options) -> Result<Condition, String> {
    let body: String = detection.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("title: case\nlogsource: {{product: any}}\ndetection:\n{body}");
    let texts = [(PathBuf::from("case.yml"), text)];
    let rules = load_texts(&texts, options).map_err(|problems| {
        problems.iter().map(|problem| format!("{problem}\n")).collect::<String>()
    })?;
    match &rules.rules[0].body {
        Body::Detection(condition) => Ok(condition.clone()),
        Body::Correlation(_) => panic!("a detection"),
    }
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
    let condition = loaded.unwrap_or_else(|problem| panic!("{place}: {problem}"));
    for (key, expected) in [("match", true), ("no_match", false)] {
        for event in items(case.get(key)) {
            let event = event.as_text().expect("an event is JSON in quotes");
            assert_eq!(reference::holds(&condition, event), expected, "{place}{key}: {event}");
        }
    }
}

#[test]
fn the_reference_agrees_with_every_case() {
    let mut files: Vec<PathBuf> = glob::glob("tests/cases/sigma/*.yml")
        .expect("a glob")
        .map(|path| path.expect("readable"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
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
