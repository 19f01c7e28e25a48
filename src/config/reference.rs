//! deploy/config.reference.yaml and deploy/config.minimal.yaml against the program.

use std::collections::{BTreeMap, BTreeSet};

use super::node::read;
use super::read::load_text;
use super::*;
use crate::rule::yaml::{self, Entry, Node, Value};

const REFERENCE: &str = include_str!("../../deploy/config.reference.yaml");
const MANIFESTS: [&str; 2] = [
    include_str!("../../deploy/kubernetes/webhook.yaml"),
    include_str!("../../deploy/kubernetes/log-daemonset.yaml"),
];
const MINIMAL: &str = include_str!("../../deploy/config.minimal.yaml");
/// A key that nothing has; what is said of it lists those that are known.
const PROBE: &str = "zzzzzzzzzzzzzzzz";

/// Parts that several types of sinks and sources have.
const SHARED: [&str; 6] = ["filter", "batch", "throttle", "http", "auth", "sasl"];

/// The keys of every map of the reference, and those that the program knows there, by path; items
/// of a list go by their type.
type Keys = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

fn walk(root: &mut Node, path: &mut Vec<usize>, name: &str, keys: &mut Keys) {
    let node = at(root, path);
    match &node.value {
        Value::List(items) => {
            let types: Vec<String> = items.iter().map(type_of).collect();
            for (index, kind) in types.iter().enumerate() {
                path.push(index);
                walk(root, path, &format!("{name}[{kind}]"), keys);
                path.pop();
            }
        }
        Value::Map(entries) => {
            let here: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            let (mut known, common) = known(root, path);
            // What every sink has is shown at the first.
            if name == ".sinks[file]" {
                known.extend(common);
            }
            // A reference to a secret is a file or a variable, never both.
            let is_secret = known.contains("env") && known.contains("file");
            let is_free = name == ".rules.placeholders" || name.ends_with(".headers");
            if !is_free && !is_secret {
                // What several sinks have alike may be shown in parts.
                let last = name.rsplit('.').next().unwrap_or_default();
                let is_shared = name.contains("].") && SHARED.contains(&last);
                let shared = format!("sinks: {last}");
                let name = if is_shared { &shared } else { name };
                let both = keys.entry(name.to_owned()).or_default();
                both.0.extend(here.iter().filter(|key| *key != "type").cloned());
                both.1.extend(known);
            }
            for (index, key) in here.iter().enumerate() {
                path.push(index);
                walk(root, path, &format!("{name}.{key}"), keys);
                path.pop();
            }
        }
        _ => {}
    }
}

fn type_of(item: &Node) -> String {
    item.get("type").and_then(Node::as_text).unwrap_or_default().to_owned()
}

fn at<'n>(root: &'n mut Node, path: &[usize]) -> &'n mut Node {
    path.iter().fold(root, |node, index| match &mut node.value {
        Value::List(items) => &mut items[*index],
        Value::Map(entries) => &mut entries[*index].value,
        _ => unreachable!("the path was walked"),
    })
}

/// What the program knows beside a key that it does not know; and what it knows of every sink.
fn known(root: &mut Node, path: &[usize]) -> (BTreeSet<String>, BTreeSet<String>) {
    let Value::Map(entries) = &mut at(root, path).value else { unreachable!("a map was walked") };
    let value = Node { line: 1, value: Value::Null };
    entries.push(Entry { key: PROBE.to_owned(), line: 1, value });
    let said = read::<Config>(root).err().map(|error| error.message).unwrap_or_default();
    let Value::Map(entries) = &mut at(root, path).value else { unreachable!("a map was walked") };
    entries.pop();
    let (own, common) = said.split_once("; every sink:").unwrap_or((&said, ""));
    let words = |text: &str| -> BTreeSet<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| *word != PROBE)
            .map(str::to_owned)
            .collect()
    };
    (words(own), words(common))
}

/// The types that a list's items can be of.
fn types(list: &str) -> BTreeSet<String> {
    let text = "cluster: a\nsources: []\nsinks: []\nspool: {dir: a}\n".to_owned();
    let text =
        text.replace(&format!("{list}: []"), &format!("{list}: [{{type: {PROBE}, name: a}}]"));
    let root = yaml::read(&text).unwrap().remove(0);
    let said = read::<Config>(&root).unwrap_err().message;
    let expected = said.split("expected").nth(1).unwrap().split(';').next().unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let mut root = yaml::read(REFERENCE).unwrap().remove(0);
    let mut keys = Keys::new();
    walk(&mut root, &mut Vec::new(), "", &mut keys);
    assert!(keys.len() > 15, "{keys:?}");
    let mut lacks = Vec::new();
    for (name, (here, known)) in &keys {
        let missing = known.difference(here);
        lacks.extend(missing.map(|key| format!("{name}.{key}")));
    }
    assert!(lacks.is_empty(), "the reference lacks {lacks:?}");
    for list in ["sources", "sinks"] {
        let Value::List(items) = &root.get(list).unwrap().value else { panic!("{list}") };
        let here: BTreeSet<String> = items.iter().map(type_of).collect();
        // OpenSearch is another name for Elasticsearch here.
        let known: BTreeSet<String> =
            types(list).into_iter().filter(|name| name != "opensearch").collect();
        assert_eq!(here, known, "types of {list}");
    }
}

#[test]
fn the_reference_shows_defaults() {
    let root = yaml::read(REFERENCE).unwrap().remove(0);
    let config = read::<Config>(&root).unwrap();
    assert_eq!(config.rules, Rules::default());
    assert_eq!(config.admin, Admin::default());
    assert_eq!(config.log, telemetry::Config::default());
    assert_eq!(config.pipeline, pipeline::config::Config::default());
    assert_eq!(config.spool.options(), spool::Options::default());
    assert_eq!(config.redaction.mode, Mode::default());
    assert_eq!(config.sinks[0].common.batch, sinks::config::BatchConfig::default());
    let Source::Webhook(webhook) = &config.sources[1] else { panic!("the second is a webhook") };
    assert_eq!(webhook.limits, crate::ingest::webhook::config::Limits::default());
    // Its files are not here; everything else is sound.
    let faults = check::check(&config);
    let others: Vec<_> = faults.iter().filter(|(at, _)| at != "redaction.key_file").collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_minimal_configuration_is_sound() {
    let config = load_text("config.minimal.yaml", MINIMAL, &[]).unwrap();
    assert_eq!(config.sources.len(), 1);
}

#[test]
fn the_manifests_hold_sound_configurations() {
    for manifest in MANIFESTS {
        let documents = yaml::read(manifest).unwrap();
        let held = |document: &Node| {
            let text = document.get("data")?.get("kubewitness.yaml")?.as_text()?;
            Some(text.to_owned())
        };
        let text = documents.iter().find_map(held).expect("a ConfigMap");
        let config = read::<Config>(&yaml::read(&text).unwrap()[0]).unwrap();
        let faults = check::check(&config);
        let others: Vec<_> = faults.iter().filter(|(at, _)| at != "redaction.key_file").collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
