//! The search identifiers of `detection:` (and of `filter:`), lowered to conditions.
//!
//! A map is an AND of its items, a list of maps an OR, a list of scalars an OR of keywords. A list
//! of values is an OR unless `all` makes it an AND; `neq` negates the item. `field[any]: {…}` asks
//! that one and the same element of an array holds the whole block.

use std::sync::Arc;

use crate::rule::condition::{NODES_MAX, Selection};
use crate::rule::modifier::Modifier;
use crate::rule::operand::{NEVER, Operand};
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::Fault;
use crate::rule::yaml::{Entry, Node, Value};
use crate::rule::{Condition, Matcher, Quantifier, Test};

/// Lowers the entries, each a search identifier with its value.
///
/// # Errors
/// Every fault that was found, not only the first.
pub fn selections<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    placeholders: &Placeholders,
) -> Result<Vec<Selection>, Vec<Fault>> {
    let context = Context { placeholders, in_block: false };
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for entry in entries {
        match selection(entry, context) {
            Ok(condition) => {
                let name = Arc::from(entry.key.as_str());
                found.push(Selection { name, line: entry.line, condition });
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// What holds for everything below a selection.
#[derive(Clone, Copy)]
struct Context<'a> {
    placeholders: &'a Placeholders,
    /// Inside of an element block, where fields are relative and keywords have no meaning.
    in_block: bool,
}

fn selection(entry: &Entry, context: Context<'_>) -> Result<Condition, Fault> {
    let name = &entry.key;
    match &entry.value.value {
        Value::Map(entries) => map(entries, &entry.value, context),
        Value::List(items) => alternatives(items, &entry.value, context),
        Value::Null => {
            Err(Fault::new(entry.line, format!("{name:?} is empty; name a field and a value")))
        }
        _ => keywords(std::slice::from_ref(&entry.value), &[], entry.value.line, context),
    }
}

/// A list: maps are alternatives, scalars are keywords.
fn alternatives(items: &[Node], node: &Node, context: Context<'_>) -> Result<Condition, Fault> {
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        parts.push(match &item.value {
            Value::Map(entries) => map(entries, item, context)?,
            _ => keywords(std::slice::from_ref(item), &[], item.line, context)?,
        });
    }
    Condition::any_of(parts)
        .ok_or_else(|| Fault::new(node.line, "an empty list; name a field and a value"))
}

fn map(entries: &[Entry], node: &Node, context: Context<'_>) -> Result<Condition, Fault> {
    let mut parts = Vec::with_capacity(entries.len());
    for entry in entries {
        parts.push(item(entry, context)?);
    }
    Condition::all_of(parts)
        .ok_or_else(|| Fault::new(node.line, "an empty map; name a field and a value"))
}

/// One `field|modifier: value` of a map.
fn item(entry: &Entry, context: Context<'_>) -> Result<Condition, Fault> {
    let mut parts = entry.key.split('|');
    let field = parts.next().unwrap_or_default();
    let modifiers = parts
        .map(Modifier::parse)
        .collect::<Result<Vec<Modifier>, String>>()
        .map_err(|message| Fault::new(entry.line, format!("{}: {message}", entry.key)))?;
    if let Some(defined) = context.placeholders.defined(field).filter(|_| !context.in_block) {
        return asked(defined, &modifiers, entry);
    }
    let path = Path::parse(field)
        .map_err(|message| Fault::new(entry.line, format!("{}: {message}", entry.key)))?;
    let inner = match &entry.value.value {
        Value::Map(_) | Value::List(_) if path.is_block(&entry.value) => {
            if !modifiers.is_empty() {
                let message = format!("{}: a block takes no modifiers", entry.key);
                return Err(Fault::new(entry.line, message));
            }
            let context = Context { in_block: true, ..context };
            match &entry.value.value {
                Value::Map(entries) => map(entries, &entry.value, context)?,
                Value::List(items) => alternatives(items, &entry.value, context)?,
                _ => return Err(Fault::new(entry.line, "a block is a map or a list of maps")),
            }
        }
        Value::List(items) if !items.is_empty() => {
            values(path.leaf(), items, &modifiers, entry, context)?
        }
        _ => values(path.leaf(), std::slice::from_ref(&entry.value), &modifiers, entry, context)?,
    };
    Ok(path.wrap(inner))
}

/// A field that is defined by a condition: whether that holds.
fn asked(defined: &Condition, modifiers: &[Modifier], entry: &Entry) -> Result<Condition, Fault> {
    match entry.value.scalar_text().as_deref() {
        Some("true") if modifiers.is_empty() => Ok(defined.clone()),
        Some("false") if modifiers.is_empty() => Ok(Condition::Not(Box::new(defined.clone()))),
        _ => {
            let message = "a defined field is true or false, without modifiers";
            Err(Fault::new(entry.line, format!("{}: {message}", entry.key)))
        }
    }
}

fn keywords(
    nodes: &[Node],
    modifiers: &[Modifier],
    line: usize,
    context: Context<'_>,
) -> Result<Condition, Fault> {
    lower(None, nodes, modifiers, context)
        .map_err(|fault| Fault::new(line, format!("keyword: {}", fault.message)))
}

fn values(
    field: Option<&Arc<str>>,
    nodes: &[Node],
    modifiers: &[Modifier],
    entry: &Entry,
    context: Context<'_>,
) -> Result<Condition, Fault> {
    lower(field, nodes, modifiers, context)
        .map_err(|fault| Fault::new(fault.line, format!("{}: {}", entry.key, fault.message)))
}

/// Applies the chain to every value and joins the tests.
fn lower(
    field: Option<&Arc<str>>,
    nodes: &[Node],
    modifiers: &[Modifier],
    context: Context<'_>,
) -> Result<Condition, Fault> {
    let line = nodes.first().map_or(1, |node| node.line);
    if field.is_none() && context.in_block {
        let message = "a keyword has no meaning inside of a block; write `.|contains`";
        return Err(Fault::new(line, message));
    }
    let all = modifiers.contains(&Modifier::All);
    let neq = modifiers.contains(&Modifier::Neq);
    check_item(field, nodes, modifiers).map_err(|message| Fault::new(line, message))?;
    let mut tests = Vec::with_capacity(nodes.len());
    let mut is_short = false;
    let mut size = 0;
    for node in nodes {
        let fault = |message| Fault::new(node.line, message);
        if nodes.len() > 1 && node.value == Value::Null {
            let message = "null cannot stand in a list of values; write a selection of its own";
            return Err(fault(message.to_owned()));
        }
        let mut operand = Operand::from_node(node).map_err(fault)?;
        for (position, modifier) in modifiers.iter().enumerate() {
            operand = modifier.apply(operand, position, context.placeholders).map_err(fault)?;
        }
        match operand.lower(field).map_err(fault)? {
            Some(test) => {
                size += test.size();
                if size > NODES_MAX {
                    return Err(fault(format!("more than {NODES_MAX} tests in one list")));
                }
                tests.push(test);
            }
            None => is_short = true,
        }
    }
    let joined = match all {
        true if is_short => None,
        true => Condition::all_of(tests),
        false => Condition::any_of(tests),
    };
    Ok(match joined {
        Some(condition) if neq => Condition::Not(Box::new(condition)),
        Some(condition) => condition,
        None => never(field),
    })
}

fn check_item(
    field: Option<&Arc<str>>,
    nodes: &[Node],
    modifiers: &[Modifier],
) -> Result<(), String> {
    if modifiers.iter().filter(|modifier| **modifier == Modifier::Windash).count() > 1 {
        return Err("\"windash\" stands there twice; once is enough".to_owned());
    }
    if modifiers.contains(&Modifier::All) && nodes.len() < 2 {
        return Err("\"all\" needs a list of at least two values".to_owned());
    }
    if modifiers.contains(&Modifier::Exists) {
        if field.is_none() {
            return Err("\"exists\" needs a field".to_owned());
        }
        if modifiers.len() > 1 || nodes.len() > 1 {
            return Err("\"exists\" stands alone, with true or false".to_owned());
        }
    }
    Ok(())
}

/// A test that never holds: what an item with an empty placeholder means.
fn never(field: Option<&Arc<str>>) -> Condition {
    let matcher = Matcher::Regex { source: Arc::from(NEVER) };
    Condition::Test(Test { field: field.cloned(), matcher })
}

/// The most keys in a path. Keys may hold dots, so every cut of a path is tried.
const SEGMENTS_MAX: usize = 64;

/// A field with its element blocks: `a[any].b[0]` is a block over `a`, inside of it one over `b`.
struct Path {
    blocks: Vec<(Arc<str>, Quantifier)>,
    leaf: Option<Arc<str>>,
}

impl Path {
    fn parse(field: &str) -> Result<Path, String> {
        let mut blocks = Vec::new();
        let mut rest = field;
        if field.matches(['.', '[']).count() >= SEGMENTS_MAX {
            return Err(format!("a path of more than {SEGMENTS_MAX} keys; no event has one"));
        }
        while let Some(open) = unescaped(rest, '[') {
            let name = &rest[..open];
            let Some(length) = rest[open..].find(']') else {
                return Err("\"[\" without \"]\"; a literal bracket is written \\[".to_owned());
            };
            let word = &rest[open + 1..open + length];
            let quantifier = quantifier(word).ok_or_else(|| {
                format!(
                    "[{word}] is none of any, all, all_or_empty, none or an index; \
                     a literal bracket is written \\["
                )
            })?;
            let after = &rest[open + length + 1..];
            if name.is_empty() {
                return Err(format!("[{word}] follows no field"));
            }
            blocks.push((Arc::from(name), quantifier));
            rest = match after.strip_prefix('.') {
                Some(inner) if !inner.is_empty() => inner,
                None if after.is_empty() => ".",
                _ => return Err(format!("{after:?} after [{word}]; a path goes on with a dot")),
            };
        }
        let leaf = if rest.is_empty() { None } else { Some(Arc::from(rest)) };
        Ok(Path { blocks, leaf })
    }

    /// Whether the value is a block: the path ends in one, and the value holds maps.
    fn is_block(&self, value: &Node) -> bool {
        let is_element = !self.blocks.is_empty() && self.leaf.as_deref() == Some(".");
        is_element
            && match &value.value {
                Value::Map(_) => true,
                Value::List(items) => items.iter().any(|i| matches!(i.value, Value::Map(_))),
                _ => false,
            }
    }

    fn leaf(&self) -> Option<&Arc<str>> {
        self.leaf.as_ref()
    }

    fn wrap(&self, inner: Condition) -> Condition {
        self.blocks.iter().rev().fold(inner, |inner, (field, quantifier)| {
            let matcher = Matcher::Elements { quantifier: *quantifier, inner: Box::new(inner) };
            Condition::Test(Test { field: Some(Arc::clone(field)), matcher })
        })
    }
}

fn quantifier(word: &str) -> Option<Quantifier> {
    match word {
        "any" => Some(Quantifier::Any),
        "all" => Some(Quantifier::All),
        "all_or_empty" => Some(Quantifier::AllOrEmpty),
        "none" => Some(Quantifier::None),
        _ if word.bytes().all(|byte| byte.is_ascii_digit()) => {
            word.parse().ok().map(Quantifier::Index)
        }
        _ => None,
    }
}

fn unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    for (position, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == wanted => return Some(position),
            _ => {}
        }
    }
    None
}
