//! From a file, variables and options to a [`Config`], or to everything that is wrong.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::config::node::{read, refine};
use crate::config::{Admin, Config, Network, Problem, Redaction, Rules, Source, Spool, check};
use crate::rule::problem::nearest;
use crate::rule::yaml::{self, Entry, Node, Value};
use crate::{pipeline, sinks, telemetry};

/// What a variable's name begins with; `__` stands between the keys behind it.
const VARIABLE_PREFIX: &str = "KUBEWITNESS__";
/// Wrong keys and values that are named at once.
const PROBLEMS_MAX: usize = 20;

/// One value from outside of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// What messages call it: a variable's name, or an option.
    pub origin: String,
    /// Keys from the top; a number is an item of a list.
    pub path: Vec<String>,
    /// The value in YAML.
    pub value: String,
}

impl Override {
    /// The variables of this process, in the order of their names.
    pub fn from_environment() -> Vec<Override> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let mut found: Vec<Override> = std::env::vars_os()
            .filter_map(text)
            .filter_map(|(name, value)| Override::of_variable(&name, &value))
            .collect();
        found.sort_by(|left, right| left.origin.cmp(&right.origin));
        found
    }

    /// `KUBEWITNESS__SPOOL__BYTES_MAX`; `None` for other variables.
    pub fn of_variable(name: &str, value: &str) -> Option<Override> {
        let path = name.strip_prefix(VARIABLE_PREFIX)?;
        let path = path.split("__").map(str::to_ascii_lowercase).collect();
        Some(Override { origin: name.to_owned(), path, value: value.to_owned() })
    }

    /// `spool.bytes_max=20GiB`, as given with `--set`.
    ///
    /// # Errors
    /// A text without `=`.
    pub fn of_option(text: &str) -> Result<Override, String> {
        let (path, value) =
            text.split_once('=').ok_or("write KEY=VALUE, such as spool.bytes_max=20GiB")?;
        Ok(Override {
            origin: format!("--set {path}"),
            path: path.split('.').map(str::to_owned).collect(),
            value: value.to_owned(),
        })
    }
}

/// Reads the file, applies the overrides in order, and checks the whole.
///
/// # Errors
/// Everything that is wrong, in order of place.
pub fn load(path: &Path, overrides: &[Override]) -> Result<Config, Vec<Problem>> {
    let label = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = "name a readable YAML file with --config";
        vec![Problem {
            origin: label.clone(),
            message: format!("cannot be read: {error}; {remedy}"),
        }]
    })?;
    load_text(&label, &text, overrides)
}

/// As [`load`], of a text.
pub(crate) fn load_text(
    label: &str,
    text: &str,
    overrides: &[Override],
) -> Result<Config, Vec<Problem>> {
    let origins = Origins { label, lines: text.lines().count() + 1, overrides };
    let problem = |line, message| vec![origins.problem(line, message)];
    let mut documents = yaml::read(text).map_err(|fault| problem(fault.line, fault.message))?;
    let mut root = match documents.len() {
        0 => Node { line: 1, value: Value::Map(Vec::new()) },
        1 => documents.remove(0),
        _ => {
            let message = "a second document; write one configuration a file".to_owned();
            return Err(problem(documents[1].line, message));
        }
    };
    if !matches!(root.value, Value::Map(_)) {
        return Err(problem(root.line, format!("is {}, not a map of keys", root.kind())));
    }
    for (index, one) in overrides.iter().enumerate() {
        let line = origins.lines + 1 + index;
        set(&mut root, one, line).map_err(|message| problem(line, message))?;
    }
    let config = decode(&root).map_err(|errors| {
        errors.into_iter().map(|(line, message)| origins.problem(line, message)).collect::<Vec<_>>()
    })?;
    let faults = check::check(&config);
    if faults.is_empty() {
        return Ok(config);
    }
    let place = |path: &str| line_of(&root, path);
    Err(faults.into_iter().map(|(path, text)| origins.problem(place(&path), text)).collect())
}

/// What a line number stands for: those beyond the file's are overrides.
struct Origins<'a> {
    label: &'a str,
    lines: usize,
    overrides: &'a [Override],
}

impl Origins<'_> {
    fn problem(&self, line: usize, message: String) -> Problem {
        let index = line.checked_sub(self.lines + 1);
        let origin = match index.and_then(|index| self.overrides.get(index)) {
            Some(one) => one.origin.clone(),
            None => format!("{}:{line}", self.label),
        };
        Problem { origin, message }
    }
}

/// Puts an override into the tree; maps on its way are made.
fn set(root: &mut Node, one: &Override, line: usize) -> Result<(), String> {
    let mut documents = yaml::read(&one.value)
        .map_err(|fault| format!("{:?} is no YAML value: {}", one.value, fault.message))?;
    let mut value = match documents.len() {
        0 => Node { line, value: Value::Null },
        1 => documents.remove(0),
        _ => return Err(format!("{:?} is more than one value", one.value)),
    };
    number(&mut value, line);
    let mut node = root;
    for key in &one.path {
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        let kind = node.kind();
        node = match &mut node.value {
            Value::Map(entries) => child(entries, key, line),
            Value::List(items) => {
                let count = items.len();
                let item = key.parse::<usize>().ok().and_then(|index| items.get_mut(index));
                item.ok_or_else(|| format!("{key:?} is no item of a list of {count}, from 0"))?
            }
            _ => return Err(format!("{key:?} cannot be set inside {kind}")),
        };
    }
    *node = value;
    Ok(())
}

fn child<'e>(entries: &'e mut Vec<Entry>, key: &str, line: usize) -> &'e mut Node {
    let place = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let value = Node { line, value: Value::Null };
        entries.push(Entry { key: key.to_owned(), line, value });
        entries.len() - 1
    });
    entries[place].line = line;
    &mut entries[place].value
}

/// Gives a tree and everything in it one line.
fn number(node: &mut Node, line: usize) {
    node.line = line;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| number(item, line)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.line = line;
            number(&mut entry.value, line);
        }),
        _ => {}
    }
}

/// The line of the deepest key of a path (`sinks.1.name`) that is there.
fn line_of(root: &Node, path: &str) -> usize {
    let mut node = root;
    let mut line = root.line;
    for key in path.split('.') {
        let found = match &node.value {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| (&entry.value, entry.line)),
            Value::List(items) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index))
                .map(|item| (item, item.line)),
            _ => None,
        };
        let Some((next, at)) = found else { break };
        (node, line) = (next, at);
    }
    line
}

/// The configuration, or what is wrong in each part of it, by line.
fn decode(root: &Node) -> Result<Config, Vec<(usize, String)>> {
    let whole = match read::<Config>(root) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    let mut found = Vec::new();
    if let Value::Map(entries) = &root.value {
        entries.iter().for_each(|entry| part(entry, &mut found));
    }
    let whole = (refine(root, &whole), explain(&whole.message));
    // What is wrong at the top is told beside what is wrong in a part.
    let is_top = whole.1.contains("missing key") || found.is_empty();
    if is_top && !found.contains(&whole) {
        found.push(whole);
    }
    found.sort();
    found.dedup();
    found.truncate(PROBLEMS_MAX);
    Err(found)
}

/// What is wrong with one key of the top and its value.
fn part(entry: &Entry, found: &mut Vec<(usize, String)>) {
    let node = &entry.value;
    match entry.key.as_str() {
        "cluster" => value::<String>(node, found),
        "sources" => each::<Source>(node, found),
        "trusted_proxies" => value::<Vec<Network>>(node, found),
        "rules" => value::<Rules>(node, found),
        "redaction" => value::<Redaction>(node, found),
        "pipeline" => value::<pipeline::config::Config>(node, found),
        "spool" => value::<Spool>(node, found),
        "sinks" => each::<sinks::config::Config>(node, found),
        "admin" => value::<Admin>(node, found),
        "log" => value::<telemetry::Config>(node, found),
        _ => {
            let only = Node { line: entry.line, value: Value::Map(vec![entry.clone()]) };
            if let Err(error) = read::<Config>(&only) {
                found.push((refine(&only, &error), explain(&error.message)));
            }
        }
    }
}

fn each<T: DeserializeOwned>(node: &Node, found: &mut Vec<(usize, String)>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| value::<T>(item, found)),
        _ => value::<Vec<T>>(node, found),
    }
}

/// Tries to read a value; what is wrong is left out, one after the other, so that all is named.
fn value<T: DeserializeOwned>(node: &Node, found: &mut Vec<(usize, String)>) {
    let mut node = node.clone();
    for round in 0..PROBLEMS_MAX {
        let Err(error) = read::<T>(&node) else { return };
        let is_consequence = round > 0 && error.message.contains("missing field");
        if is_consequence {
            return;
        }
        let around = Node { line: node.line, value: Value::List(vec![node.clone()]) };
        let line = refine(&around, &error);
        found.push((line, explain(&error.message)));
        let key =
            error.message.split("unknown field `").nth(1).and_then(|rest| rest.split('`').next());
        if !remove(&mut node, line, key) {
            return;
        }
    }
}

/// Takes an entry at a line out of the tree: that with the key, or the only one that is there.
/// False when there is none.
fn remove(node: &mut Node, line: usize, key: Option<&str>) -> bool {
    match &mut node.value {
        Value::Map(entries) => {
            let is_meant = |entry: &Entry| {
                let is_leaf = !matches!(entry.value.value, Value::Map(_) | Value::List(_));
                entry.line == line && key.map_or(is_leaf, |key| entry.key == key)
            };
            let meant = entries.iter().filter(|entry| is_meant(entry)).count();
            if meant == 1 {
                entries.retain(|entry| !is_meant(entry));
                return true;
            }
            meant == 0 && entries.iter_mut().any(|entry| remove(&mut entry.value, line, key))
        }
        Value::List(items) => items.iter_mut().any(|item| remove(item, line, key)),
        _ => false,
    }
}

/// Serde's message in the words of a configuration, with the nearest known word.
pub(crate) fn explain(message: &str) -> String {
    for (before, what) in [("unknown field `", "key"), ("unknown variant `", "value")] {
        let Some((head, rest)) = message.split_once(before) else { continue };
        let Some((word, expected)) = rest.split_once('`') else { continue };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let hint = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if known.is_empty() => "no key is known here".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        return format!("{head}unknown {what} {word:?}; {hint}");
    }
    if let Some((head, rest)) = message.split_once("invalid type: ")
        && rest.contains(", expected struct ")
    {
        // What stands in place of keys may be a secret: it is not repeated.
        return format!("{head}keys of its own are wanted here, no value");
    }
    match message.split_once("missing field `") {
        Some((head, rest)) => {
            let key = rest.split('`').next().unwrap_or_default();
            format!("{head}missing key {key:?}; deploy/config.reference.yaml says what it is")
        }
        None => message.to_owned(),
    }
}
