//! Advice on rules that load: what they forgot to say, and what will not do what it seems to.

pub mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rule::condition::{self, Expression};
use crate::rule::filter::{Filter, is_named};
use crate::rule::keys::normal_id;
use crate::rule::load::Options;
use crate::rule::parse::{self, DETECTION_RESERVED, Document};
use crate::rule::parts::Parts;
use crate::rule::problem::did_you_mean;
use crate::rule::taxonomy::{self, AUDIT_LEVELS, PATHS};
use crate::rule::yaml::{Entry, Node, Value};
use crate::rule::{Body, Condition, Rule, reach};

/// Tactics of ATT&CK for Enterprise, with hyphens: version 19, and the spelling that it replaced.
/// Tags may write them with underscores too.
pub const TACTICS: [&str; 16] = [
    "reconnaissance",
    "resource-development",
    "initial-access",
    "execution",
    "persistence",
    "privilege-escalation",
    "defense-evasion",
    "stealth",
    "defense-impairment",
    "credential-access",
    "discovery",
    "lateral-movement",
    "collection",
    "command-and-control",
    "exfiltration",
    "impact",
];

/// Paths whose values redaction replaces: by their end below an object, or whole.
pub const REDACTED: [&str; 12] = [
    "request.command",
    "requestURI",
    "data",
    "stringData",
    "binaryData",
    "status.token",
    "spec.token",
    "env.value",
    "command",
    "args",
    "clientConfig.url",
    "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
];

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// The file as it was named.
    pub path: PathBuf,
    /// 1-based line.
    pub line: usize,
    /// The check that speaks, in kebab case; a stable name to switch it off by.
    pub check: &'static str,
    /// What was seen and what to do.
    pub message: String,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.path.display(), self.line, self.message, self.check)
    }
}

/// Looks at every document of the texts; documents that do not parse are left to
/// [`load_texts`](crate::rule::load::load_texts), which reports them.
pub fn lint(texts: &[(PathBuf, String)], options: &Options) -> Vec<Advice> {
    let mut found = Vec::new();
    let bases = silent_bases(texts, options);
    let mut known: Vec<String> = Vec::new();
    let mut filters: Vec<Filter> = Vec::new();
    for (path, text) in texts {
        let shared = Arc::new(path.clone());
        for node in parse::nodes(text).unwrap_or_default() {
            let mut linter = Linter { path, found: &mut found };
            match parse::document(&shared, &node, &options.placeholders) {
                Ok(Document::Rule(mut rule)) => {
                    known.extend(rule.name.iter().cloned().chain([rule.id.to_string()]));
                    let alerts = !bases.iter().any(|base| is_named(&rule, base));
                    linter.header(&node, &rule, alerts);
                    linter.detection(&node, options);
                    if options.taxonomy {
                        taxonomy::apply(&mut rule);
                    }
                    linter.reach(&node, &rule);
                }
                Ok(Document::Correlation(rule, _)) => {
                    known.extend(rule.name.iter().cloned().chain([rule.id.to_string()]));
                    let alerts = !bases.iter().any(|base| is_named(&rule, base));
                    linter.header(&node, &rule, alerts);
                    linter.correlation(&node, options);
                }
                Ok(Document::Filter(filter)) => {
                    linter.filter(&node, &filter, options);
                    filters.push(filter);
                }
                Err(_) => {}
            }
        }
    }
    found.extend(filters.iter().flat_map(|filter| unknown_targets(filter, &known)));
    found.sort();
    found
}

/// The references to rules that only feed correlations and never speak to a person.
fn silent_bases(texts: &[(PathBuf, String)], options: &Options) -> Vec<String> {
    let mut bases = Vec::new();
    for (path, text) in texts {
        let shared = Arc::new(path.clone());
        for node in parse::nodes(text).unwrap_or_default() {
            if node.get("correlation").is_none() {
                continue;
            }
            let document = parse::document(&shared, &node, &options.placeholders);
            if let Ok(Document::Correlation(_, draft)) = document
                && !draft.generate
            {
                bases.extend(draft.rules);
            }
        }
    }
    bases
}

/// A filter for a rule that is not there applies to nothing, and may well be misspelt.
fn unknown_targets(filter: &Filter, known: &[String]) -> Vec<Advice> {
    let crate::rule::filter::Targets::Rules(names) = &filter.targets else { return Vec::new() };
    let missing = names.iter().filter(|name| !known.contains(&normal_id(name)));
    missing
        .map(|name| Advice {
            path: filter.origin.path.to_path_buf(),
            line: filter.origin.line,
            check: "filter-rule",
            message: format!(
                "no rule {name:?} to filter{}",
                did_you_mean(name, known.iter().map(String::as_str))
            ),
        })
        .collect()
}

struct Linter<'a> {
    path: &'a Path,
    found: &'a mut Vec<Advice>,
}

impl Linter<'_> {
    fn say(&mut self, line: usize, check: &'static str, message: impl Into<String>) {
        let path = self.path.to_owned();
        self.found.push(Advice { path, line, check, message: message.into() });
    }

    fn header(&mut self, node: &Node, rule: &Rule, alerts: bool) {
        let mut wanted = vec!["id", "status"];
        if alerts {
            wanted.extend(["level", "description", "falsepositives"]);
        }
        let is_correlation = node.get("correlation").is_some();
        if !is_correlation && rule.logsource.product.is_none() {
            let message = "the logsource names no product; the rule is tried on every event";
            self.say(node.line, "logsource", message);
        }
        if alerts && rule.logsource.is_kubernetes_audit() && rule.logsource.product.is_some() {
            wanted.extend(["audit_level", "pack", "runbook"]);
        }
        for key in wanted {
            if node.get(key).is_none_or(|value| value.value == Value::Null) {
                self.say(node.line, "missing-key", format!("no {key}"));
            }
        }
        if let Some(id) = node.get("id").filter(|_| !is_uuid(&rule.id)) {
            self.say(
                id.line,
                "id",
                "the id is no UUID; make one with uuidgen and keep it for ever",
            );
        }
        for date in ["date", "modified"].iter().filter_map(|key| node.get(key)) {
            if let Some(message) = words::of_date(date) {
                self.say(date.line, "date", message);
            }
        }
        for tag in &rule.tags {
            let line = node.get("tags").map_or(node.line, |tags| tags.line);
            if let Some(message) = tag_fault(tag) {
                self.say(line, "tag", message);
            }
        }
        if let Some(level) = node.get("audit_level")
            && let Some(word) = level.as_text()
            && !AUDIT_LEVELS.contains(&word)
        {
            let hint = did_you_mean(word, AUDIT_LEVELS);
            self.say(level.line, "audit-level", format!("unknown audit level {word:?}{hint}"));
        }
        for field in &rule.fields {
            let line = node.get("fields").map_or(node.line, |fields| fields.line);
            if is_redacted(field) && !field.starts_with("request.") && field != "requestURI" {
                let message = format!("{field} is redacted; the alert will not show its value");
                self.say(line, "redacted-field", message);
            }
        }
    }

    fn detection(&mut self, node: &Node, options: &Options) {
        let Some(body) = node.get("detection") else { return };
        let Ok(parts) = Parts::read(body, &DETECTION_RESERVED, &options.placeholders) else {
            return;
        };
        self.selections(body, &parts);
        if let Some(timeframe) = body.get("timeframe") {
            let message = "timeframe means nothing without an aggregation; write a correlation";
            self.say(timeframe.line, "timeframe", message);
        }
        let is_audit = node.get("logsource").is_some_and(|logsource| {
            logsource.get("product").and_then(Node::as_text) == Some("kubernetes")
                && logsource.get("service").and_then(Node::as_text) == Some("audit")
        });
        if is_audit && let Value::Map(entries) = &body.value {
            for entry in entries.iter().filter(|e| !DETECTION_RESERVED.contains(&e.key.as_str())) {
                self.fields(&entry.value, options);
            }
        }
    }

    /// Selections that no condition uses, and patterns that select nothing.
    fn selections(&mut self, body: &Node, parts: &Parts) {
        let line = body.get("condition").map_or(body.line, |condition| condition.line);
        let mut used: Vec<&str> = Vec::new();
        let mut empty: Vec<&str> = Vec::new();
        for condition in &parts.conditions {
            condition.visit(&mut |leaf| match leaf {
                Expression::Identifier(name) => used.push(name),
                Expression::Of { target, .. } => {
                    let names = parts.selections.iter().map(|selection| &*selection.name);
                    let before = used.len();
                    used.extend(names.filter(|name| condition::is_selected(name, target)));
                    if used.len() == before {
                        empty.push(target);
                    }
                }
                _ => {}
            });
        }
        for target in &empty {
            let message = format!("{target:?} selects nothing and is left out of the condition");
            self.say(line, "empty-pattern", message);
        }
        let unused = parts.selections.iter().filter(|selection| !used.contains(&&*selection.name));
        for selection in unused {
            let message = format!("{:?} is not used by the condition", &*selection.name);
            self.say(selection.line, "unused-selection", message);
        }
    }

    /// Fields that no audit event has, and words that their values never are.
    fn fields(&mut self, node: &Node, options: &Options) {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::List(items) => return items.iter().for_each(|item| self.fields(item, options)),
            _ => return,
        };
        for entry in entries {
            let mut parts = entry.key.split('|');
            let written = parts.next().unwrap_or_default();
            let is_plain = parts.clone().all(|modifier| matches!(modifier, "neq" | "cased"));
            let path = written.split('[').next().unwrap_or_default();
            let path = path.replace('\\', "");
            if path.is_empty() {
                continue;
            }
            let canonical = taxonomy::canonical(&path);
            let is_known = match options.taxonomy {
                true => canonical.is_some() || taxonomy::is_path(&path),
                false => taxonomy::is_path(&path),
            };
            let is_derived = matches!(path.as_str(), "isWrite" | "isServiceAccount" | "isNode");
            let is_defined = options.placeholders.defined(&path).is_some();
            if let Some(canonical) = canonical {
                let message = format!("{path} is a bare name; write {canonical}");
                self.say(entry.line, "bare-field", message);
            } else if !is_known && !is_derived && !is_defined {
                let hint = did_you_mean(&path, PATHS);
                self.say(entry.line, "unknown-field", format!("no audit event has {path}{hint}"));
            }
            let mut never = words::of_times(parts, &entry.value);
            if is_plain {
                never.extend(words::of_field(&path, &entry.value));
            }
            for (line, message) in never {
                self.say(line, "unknown-value", message);
            }
        }
    }

    fn reach(&mut self, node: &Node, rule: &Rule) {
        let Body::Detection(condition) = &rule.body else { return };
        if !rule.logsource.is_kubernetes_audit() || rule.logsource.product.is_none() {
            return;
        }
        let line = node.get("detection").map_or(node.line, |body| body.line);
        if let Some(reason) = reach::dead(condition) {
            self.say(line, "never-fires", format!("the rule can never fire: {reason}"));
        }
        let Some(level) = node.get("audit_level") else { return };
        let rank = |word: &str| AUDIT_LEVELS.iter().position(|known| *known == word);
        let needed = reach::audit_level(condition);
        if let Some(said) = level.as_text().and_then(rank)
            && rank(needed).is_some_and(|needed| said < needed)
        {
            let message = format!("the rule tests bodies and needs the audit level {needed}");
            self.say(level.line, "audit-level", message);
        }
    }

    /// Fields of the key and of the values, which are kept and shown.
    fn correlation(&mut self, node: &Node, options: &Options) {
        let Some(body) = node.get("correlation") else { return };
        let field = body.get("condition").and_then(|condition| condition.get("field"));
        let aliases: Vec<&str> = match body.get("aliases").map(|aliases| &aliases.value) {
            Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        };
        for list in body.get("group-by").into_iter().chain(field) {
            let items = match &list.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(list),
            };
            for item in items {
                let Some(name) = item.as_text().filter(|name| !aliases.contains(name)) else {
                    continue;
                };
                if is_redacted(name) {
                    let message =
                        format!("{name} is redacted and must not be a key or a counted value");
                    self.say(item.line, "redacted-field", message);
                } else if options.taxonomy
                    && taxonomy::canonical(name).is_none()
                    && !taxonomy::is_path(name)
                {
                    let hint = did_you_mean(name, PATHS);
                    let message = format!("no audit event has {name}{hint}");
                    self.say(item.line, "unknown-field", message);
                }
            }
        }
    }

    /// The specification's example writes an exclusion as `condition: selection`.
    fn filter(&mut self, node: &Node, filter: &Filter, options: &Options) {
        let Some(body) = node.get("filter") else { return };
        if let Ok(parts) = Parts::read(body, &["condition", "rules"], &options.placeholders) {
            self.selections(body, &parts);
        }
        if !has_not(&filter.condition) {
            let line = body.get("condition").map_or(body.line, |condition| condition.line);
            let message = "the filter keeps only what its selections match; \
                           an exclusion is written `condition: not selection`";
            self.say(line, "filter-polarity", message);
        }
    }
}

fn has_not(condition: &Condition) -> bool {
    match condition {
        Condition::Not(_) => true,
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(has_not),
        Condition::Named(_, inner) => has_not(inner),
        Condition::Test(_) => false,
    }
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36 && id.bytes().filter(|byte| *byte == b'-').count() == 4
}

/// Whether redaction replaces the values of the path.
pub fn is_redacted(field: &str) -> bool {
    let below = ["requestObject.", "responseObject.", "object.", "pod."]
        .iter()
        .find_map(|root| field.strip_prefix(root));
    match below {
        None => REDACTED.contains(&field) && field.starts_with("request"),
        Some(path) => REDACTED.iter().filter(|path| !path.starts_with("request")).any(|hidden| {
            path == *hidden
                || path.ends_with(&format!(".{hidden}"))
                || path.starts_with(&format!("{hidden}."))
        }),
    }
}

/// What is wrong with a tag, if anything.
fn tag_fault(tag: &str) -> Option<String> {
    let is_word = |word: &str, more: &str| {
        !word.is_empty()
            && word.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || more.as_bytes().contains(&b)
            })
    };
    let Some((namespace, word)) = tag.split_once('.') else {
        return Some(format!("the tag {tag:?} has no namespace, such as attack."));
    };
    if !is_word(namespace, "_-") || !is_word(word, "_-.") {
        return Some(format!("the tag {tag:?} is not of the form namespace.word"));
    }
    if namespace != "attack" {
        return None;
    }
    let tactic = word.replace('_', "-");
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let numbered = match (word.get(..1), word.get(1..)) {
        (Some("t"), Some(number)) => match number.split_once('.') {
            Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
            None => digits(number, 4),
        },
        (Some("g" | "s" | "c" | "m"), Some(number)) => digits(number, 4),
        _ => false,
    };
    if numbered || TACTICS.contains(&tactic.as_str()) {
        return None;
    }
    let hint = did_you_mean(&tactic, TACTICS);
    Some(format!("the tag {tag:?} is neither a tactic nor a technique of ATT&CK{hint}"))
}
