//! The table of metrics against the sources: whatever is counted is in it, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kubewitness::telemetry::metrics::METRICS;

const TABLE: &str = "src/telemetry/metrics.rs";

/// Names of metrics in a text's literals, with the macro that stands before each.
fn named(text: &str) -> Vec<(String, String)> {
    let literals = text.match_indices("\"kubewitness_").map(|(at, _)| at);
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let before = |at: usize| {
        let head = text[..at].trim_end().strip_suffix('(')?.strip_suffix('!')?;
        let from = head.rfind(|c: char| !c.is_ascii_lowercase() && c != '_')? + 1;
        Some(head[from..].to_owned())
    };
    literals.map(|at| (word(&text[at + 1..]), before(at).unwrap_or_default())).collect()
}

fn sources(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if !path.ends_with(TABLE) {
            let text = std::fs::read_to_string(&path).unwrap();
            let live = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (name, kind) in named(live) {
                found.entry(name).or_default().insert(kind);
            }
        }
    }
}

#[test]
fn every_metric_is_in_the_table_and_every_row_is_used() {
    let mut found = BTreeMap::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let rows: BTreeMap<&str, &str> =
        METRICS.iter().map(|metric| (metric.name, metric.kind.as_str())).collect();
    let mut wrong = Vec::new();
    for (name, kinds) in &found {
        match rows.get(name.as_str()) {
            None => wrong.push(format!("{name} has no row in {TABLE}")),
            Some(row) => {
                let others = kinds.iter().filter(|kind| !kind.is_empty() && kind != row);
                wrong.extend(others.map(|kind| format!("{name} is a {row}, used as {kind}")));
            }
        }
    }
    let unused = rows
        .keys()
        .filter(|name| !found.contains_key(**name) && **name != "kubewitness_build_info");
    wrong.extend(unused.map(|name| format!("{name} has a row, and nothing sets it")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
