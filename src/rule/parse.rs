//! Sigma documents to rules: the keys at the root of a document, and its kind.
//!
//! A document with `correlation:` is a correlation rule, one with `filter:` a filter, every other
//! one a detection rule. The older `action: global`, `reset` and `repeat` are honoured within one
//! file. A rule without `id` is known by its `name`, and without either by
//! `title-` and the first 16 hexadecimal digits of the SHA-256 of its title.

use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::rule::correlation::Draft;
use crate::rule::filter::Filter;
use crate::rule::keys::{line_of, normal_id, text, texts};
use crate::rule::parts::Parts;
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::{Fault, did_you_mean, nearest};
use crate::rule::yaml::{self, Entry, Node, Value};
use crate::rule::{Body, Condition, Level, Logsource, Origin, Rule};

/// The words that `status` may have.
pub const STATUSES: [&str; 5] = ["stable", "test", "experimental", "deprecated", "unsupported"];

/// The root keys that [`Rule`] has fields for; every other one is custom.
const KNOWN: [&str; 15] = [
    "title",
    "id",
    "name",
    "level",
    "status",
    "description",
    "tags",
    "falsepositives",
    "references",
    "fields",
    "logsource",
    "detection",
    "correlation",
    "filter",
    "generate",
];

/// What a document is.
#[derive(Clone, Debug)]
pub enum Document {
    /// A detection rule.
    Rule(Rule),
    /// A correlation rule; its body in [`Rule`] is empty until the draft's references are resolved.
    Correlation(Rule, Draft),
    /// A filter.
    Filter(Filter),
}

/// Reads every document of a text.
///
/// # Errors
/// All faults of all documents; a fault in the YAML itself hides what follows it.
pub fn documents(
    path: &Arc<PathBuf>,
    text: &str,
    placeholders: &Placeholders,
) -> Result<Vec<Document>, Vec<Fault>> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for node in nodes(text)? {
        match document(path, &node, placeholders) {
            Ok(document) => found.push(document),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// The documents of a text with `action` applied and removed.
///
/// # Errors
/// A fault in the YAML, or an unknown action.
pub fn nodes(text: &str) -> Result<Vec<Node>, Vec<Fault>> {
    let mut found = Vec::new();
    let mut global: Option<Node> = None;
    let mut previous: Option<Node> = None;
    for mut node in yaml::read(text).map_err(|fault| vec![fault])? {
        let Value::Map(entries) = &mut node.value else {
            let message = format!("a Sigma document is a map, not {}", node.kind());
            return Err(vec![Fault::new(node.line, message)]);
        };
        let action = entries
            .iter()
            .position(|entry| entry.key == "action")
            .map(|position| entries.remove(position).value);
        let word = action.as_ref().map(|action| (action.as_text().unwrap_or_default(), action));
        let node = match word {
            None => overlay(global.as_ref(), node),
            Some(("global", _)) => {
                global = Some(overlay(global.as_ref(), node));
                continue;
            }
            Some(("reset", _)) => {
                global = None;
                continue;
            }
            Some(("repeat", _)) => overlay(previous.as_ref(), node),
            Some((_, action)) => {
                let message = "unknown action; known are global, reset and repeat";
                return Err(vec![Fault::new(action.line, message)]);
            }
        };
        previous = Some(node.clone());
        found.push(node);
    }
    Ok(found)
}

/// The keys of `over` on top of those of `under`; maps are joined, everything else is replaced.
fn overlay(under: Option<&Node>, over: Node) -> Node {
    let Some(Node { value: Value::Map(base), .. }) = under else { return over };
    let Node { line, value: Value::Map(mut entries) } = over else { return over };
    for entry in &mut entries {
        let below = base.iter().find(|below| below.key == entry.key).map(|below| &below.value);
        let value = std::mem::replace(&mut entry.value, Node { line, value: Value::Null });
        entry.value = overlay(below, value);
    }
    let missing = |below: &&Entry| entries.iter().all(|entry| entry.key != below.key);
    let mut joined: Vec<Entry> = base.iter().filter(missing).cloned().collect();
    joined.extend(entries);
    Node { line, value: Value::Map(joined) }
}

/// Reads one document.
///
/// # Errors
/// All faults that were found in it.
pub fn document(
    path: &Arc<PathBuf>,
    node: &Node,
    placeholders: &Placeholders,
) -> Result<Document, Vec<Fault>> {
    let origin = Origin { path: Arc::clone(path), line: node.line };
    let single = |fault: Fault| vec![fault];
    if let Some(filter) = node.get("filter") {
        let title = title(node).map_err(single)?;
        let logsource = logsource(node).map_err(single)?;
        return Filter::read(filter, title, logsource, origin, placeholders).map(Document::Filter);
    }
    let mut rule = header(node, origin).map_err(single)?;
    if let Some(body) = node.get("correlation") {
        let draft = Draft::read(body, node.get("generate")).map_err(single)?;
        return Ok(Document::Correlation(rule, draft));
    }
    let body = detection_of(node).map_err(single)?;
    rule.logsource = logsource(node).map_err(single)?;
    let parts = Parts::read(body, &DETECTION_RESERVED, placeholders)?;
    rule.body = Body::Detection(parts.condition(body, "")?);
    Ok(Document::Rule(rule))
}

/// The keys of `detection:` that are no search identifiers.
pub const DETECTION_RESERVED: [&str; 2] = ["condition", "timeframe"];

fn detection_of(node: &Node) -> Result<&Node, Fault> {
    node.get("detection").ok_or_else(|| {
        let keys: Vec<&str> = match &node.value {
            Value::Map(entries) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        };
        let typo = nearest("detection", keys.iter().copied())
            .or_else(|| nearest("correlation", keys.iter().copied()));
        let hint = typo.map(|key| format!(" ({key:?} is unknown)")).unwrap_or_default();
        Fault::new(node.line, format!("no detection, correlation or filter{hint}"))
    })
}

/// Everything that all kinds of rules have.
fn header(node: &Node, origin: Origin) -> Result<Rule, Fault> {
    let title = title(node)?;
    let name = text(node, "name")?;
    let id = match text(node, "id")? {
        Some(id) => normal_id(&id),
        None => name.clone().unwrap_or_else(|| hashed_title(&title)),
    };
    let Value::Map(entries) = &node.value else {
        return Err(Fault::new(node.line, "a Sigma document is a map"));
    };
    let custom = entries
        .iter()
        .filter(|entry| !KNOWN.contains(&entry.key.as_str()))
        .map(|entry| (entry.key.clone(), entry.value.to_json()))
        .collect();
    Ok(Rule {
        id: Arc::from(id),
        name,
        title: Arc::from(title),
        level: level(node)?,
        status: status(node)?,
        description: text(node, "description")?.unwrap_or_default(),
        tags: texts(node, "tags")?.iter().map(|tag| tag.to_lowercase()).collect(),
        falsepositives: texts(node, "falsepositives")?,
        references: texts(node, "references")?,
        fields: texts(node, "fields")?,
        logsource: Logsource::default(),
        custom,
        alerts: true,
        origin,
        body: Body::Detection(Condition::And(Vec::new())),
    })
}

fn hashed_title(title: &str) -> String {
    let digest = Sha256::digest(title.as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("title-{hex}")
}

fn title(node: &Node) -> Result<String, Fault> {
    text(node, "title")?
        .filter(|title| !title.trim().is_empty())
        .ok_or_else(|| Fault::new(node.line, "no title; say what happens in a few words"))
}

fn level(node: &Node) -> Result<Level, Fault> {
    let Some(word) = text(node, "level")? else { return Ok(Level::Medium) };
    Level::parse(&word).ok_or_else(|| {
        let hint = did_you_mean(&word, Level::ALL.map(Level::as_str));
        Fault::new(line_of(node, "level"), format!("unknown level {word:?}{hint}"))
    })
}

fn status(node: &Node) -> Result<String, Fault> {
    let Some(word) = text(node, "status")? else { return Ok(String::new()) };
    if STATUSES.contains(&word.as_str()) {
        return Ok(word);
    }
    let hint = did_you_mean(&word, STATUSES);
    Err(Fault::new(line_of(node, "status"), format!("unknown status {word:?}{hint}")))
}

fn logsource(node: &Node) -> Result<Logsource, Fault> {
    let Some(body) = node.get("logsource") else {
        return Err(Fault::new(node.line, "no logsource; name product and service"));
    };
    if !matches!(body.value, Value::Map(_)) {
        return Err(Fault::new(body.line, "a logsource is a map of category, product, service"));
    }
    let logsource = Logsource {
        category: text(body, "category")?,
        product: text(body, "product")?,
        service: text(body, "service")?,
    };
    if logsource == Logsource::default() {
        let message = "an empty logsource; name category, product or service";
        return Err(Fault::new(body.line, message));
    }
    Ok(logsource)
}
