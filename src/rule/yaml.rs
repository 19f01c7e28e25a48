//! YAML with positions: every node knows its line, so that every error does.
//!
//! Scalars follow the YAML 1.2 core schema: `yes`, `on` and dates are text, quoted scalars are
//! always text, integers are exact whatever their size. A duplicate key is an error. Merge keys
//! (`<<`) are honoured, because older collections use them. Input is bounded in bytes, depth and
//! in the nodes that aliases may copy.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use crate::rule::problem::Fault;

/// The most bytes one text may have.
pub const TEXT_BYTES_MAX: usize = 32 << 20;
/// How deep lists and maps may nest, aliases included.
pub const DEPTH_MAX: usize = 64;
/// How many nodes aliases and merge keys may copy in one text.
pub const ALIAS_NODES_MAX: usize = 100_000;

/// A YAML value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// 1-based line of its first character.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// A YAML value of the core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer as plain decimal text without leading zeros, exact.
    Integer(String),
    /// Any other number.
    Float(f64),
    /// Text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as text, whatever its type.
    pub key: String,
    /// 1-based line of the key.
    pub line: usize,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The word for the node's type in messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Returns the value under a key, if the node is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
            }
            _ => None,
        }
    }

    /// Returns the text of a text node.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the text of any scalar but null, as the core schema writes it.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) | Value::Integer(text) => Some(text.clone()),
            Value::Float(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Returns the JSON form; integers beyond 64 bits become text, infinities null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Integer(text) => match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(number), _) => Json::from(number),
                (_, Ok(number)) => Json::from(number),
                _ => Json::String(text.clone()),
            },
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }
}

/// Reads all documents of a YAML text; empty documents are left out.
///
/// # Errors
/// The first fault: bad syntax, a duplicate key, or a limit that was passed.
pub fn read(text: &str) -> Result<Vec<Node>, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let size = text.len();
        return Err(Fault::new(
            1,
            format!("{size} bytes of YAML are more than {TEXT_BYTES_MAX}; split the file"),
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            Fault::new(error.marker().line(), format!("invalid YAML: {}", error.info()))
        })?;
        builder.event(event, span.start.line())?;
    }
    Ok(builder.documents)
}

/// A finished node with what copying it costs.
#[derive(Clone)]
struct Built {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A list or map under construction.
struct Open {
    line: usize,
    anchor: usize,
    nodes: usize,
    depth: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    keys: HashSet<String>,
    merged: Vec<Entry>,
    key: Option<Key>,
}

/// A key that waits for its value.
struct Key {
    text: String,
    line: usize,
    merge: bool,
}

impl OpenMap {
    /// Takes the next node: a key, or the value of the key before it.
    fn push(&mut self, node: Node, merge: bool) -> Result<(), Fault> {
        let Some(key) = self.key.take() else {
            self.key = Some(Key { text: key_text(&node)?, line: node.line, merge });
            return Ok(());
        };
        if key.merge {
            self.merged.extend(merge_entries(node, key.line)?);
            return Ok(());
        }
        if !self.keys.insert(key.text.clone()) {
            let message = format!("duplicate key {:?}; a later value would replace it", key.text);
            return Err(Fault::new(key.line, message));
        }
        self.entries.push(Entry { key: key.text, line: key.line, value: node });
        Ok(())
    }

    /// Own entries first; merged ones only where no own or earlier merged one has the key.
    fn finish(mut self) -> Value {
        for entry in self.merged {
            if self.keys.insert(entry.key.clone()) {
                self.entries.push(entry);
            }
        }
        Value::Map(self.entries)
    }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    copied: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let value = scalar(&text, plain, tag.as_deref(), line)?;
                let merge = plain && text == "<<";
                self.place(Built { node: Node { line, value }, nodes: 1, depth: 0 }, anchor, merge)
            }
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor) else {
                    return Err(Fault::new(line, "an alias inside of its own anchor"));
                };
                self.copied += built.nodes;
                if self.copied > ALIAS_NODES_MAX {
                    let message = format!("aliases copy more than {ALIAS_NODES_MAX} nodes");
                    return Err(Fault::new(line, message));
                }
                let built = built.clone();
                self.place(built, 0, false)
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(line, anchor, Content::Map(OpenMap::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, content: Content) -> Result<(), Fault> {
        if self.open.len() >= DEPTH_MAX {
            return Err(Fault::new(line, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(Open { line, anchor, nodes: 1, depth: 0, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(map) => map.finish(),
        };
        let node = Node { line: open.line, value };
        self.place(Built { node, nodes: open.nodes, depth: open.depth + 1 }, open.anchor, false)
    }

    /// Puts a finished node where it belongs: into the innermost open list or map, or on the top.
    fn place(&mut self, built: Built, anchor: usize, merge: bool) -> Result<(), Fault> {
        let line = built.node.line;
        if self.open.len() + built.depth > DEPTH_MAX {
            return Err(Fault::new(line, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.open.last_mut() else {
            if built.node.value != Value::Null {
                self.documents.push(built.node);
            }
            return Ok(());
        };
        open.nodes += built.nodes;
        open.depth = open.depth.max(built.depth);
        match &mut open.content {
            Content::List(items) => items.push(built.node),
            Content::Map(map) => map.push(built.node, merge)?,
        }
        Ok(())
    }
}

fn key_text(node: &Node) -> Result<String, Fault> {
    match node.value {
        Value::Null => Ok("null".to_owned()),
        _ => node.scalar_text().ok_or_else(|| {
            Fault::new(node.line, format!("a key must be a text, not {}", node.kind()))
        }),
    }
}

/// The entries that `<<: *anchor` brings in.
fn merge_entries(node: Node, line: usize) -> Result<Vec<Entry>, Fault> {
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(merge_entries(item, line)?);
            }
            Ok(all)
        }
        _ => Err(Fault::new(line, "a merge key (<<) needs a map")),
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, line: usize) -> Result<Value, Fault> {
    let Some(tag) = tag else {
        return Ok(if plain { plain_scalar(text) } else { Value::Text(text.to_owned()) });
    };
    if tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(Value::Text(text.to_owned()));
    }
    let value = match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => Value::Text(text.to_owned()),
        (true, "int" | "float" | "bool" | "null") => plain_scalar(text),
        _ => return Err(Fault::new(line, format!("the tag {tag} is not supported; remove it"))),
    };
    Ok(value)
}

/// Resolves a plain scalar by the core schema (YAML 1.2.2, 10.3.2).
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Some(integer) = integer(text) {
        return Value::Integer(integer);
    }
    match is_float(text).then(|| text.parse::<f64>()) {
        Some(Ok(number)) => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<String> {
    if let Some(digits) = text.strip_prefix("0x").filter(|d| !d.starts_with('+')) {
        return u128::from_str_radix(digits, 16).ok().map(|number| number.to_string());
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|d| !d.starts_with('+')) {
        return u128::from_str_radix(digits, 8).ok().map(|number| number.to_string());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = unsigned.trim_start_matches('0');
    match (digits.is_empty(), text.starts_with('-')) {
        (true, _) => Some("0".to_owned()),
        (false, true) => Some(format!("-{digits}")),
        (false, false) => Some(digits.to_owned()),
    }
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|part| {
        let part = part.strip_prefix(['-', '+']).unwrap_or(part);
        !part.is_empty() && digits(part)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        let mut documents = read(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0).value
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let cases = [
            ("yes", Value::Text("yes".into())),
            ("2024-01-01", Value::Text("2024-01-01".into())),
            ("'5'", Value::Text("5".into())),
            ("!!str 5", Value::Text("5".into())),
            ("12:30", Value::Text("12:30".into())),
            ("1_000", Value::Text("1_000".into())),
            ("True", Value::Bool(true)),
            ("007", Value::Integer("7".into())),
            ("-0", Value::Integer("0".into())),
            ("0x1F", Value::Integer("31".into())),
            ("9007199254740993", Value::Integer("9007199254740993".into())),
            ("340282366920938463463374607431768211456999", {
                Value::Integer("340282366920938463463374607431768211456999".into())
            }),
            ("5.50", Value::Float(5.5)),
            ("1e3", Value::Float(1000.0)),
            (".", Value::Text(".".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("e5", Value::Text("e5".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(one(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_are_those_of_the_text() {
        let documents = read("a: 1\nb:\n  - x\n  - y\n---\nc: 2\n").unwrap();
        let list = documents[0].get("b").unwrap();
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        assert_eq!((documents[0].line, items[1].line, documents[1].line), (1, 4, 6));
    }

    #[test]
    fn faults_name_the_line() {
        let cases = [
            ("a: 1\nb: 2\na: 3", 3, "duplicate key \"a\""),
            ("a: {x: 1, x: 2}", 1, "duplicate key \"x\""),
            ("a: 1\n? [x]\n: 2", 2, "a key must be a text"),
            ("a: [1\nb: 2", 2, "invalid YAML"),
            ("a: !python/object x", 1, "not supported"),
            ("a: &a [*a]", 1, "an alias inside of its own anchor"),
        ];
        for (text, line, message) in cases {
            let fault = read(text).unwrap_err();
            assert!(fault.message.contains(message), "{text}: {fault:?}");
            assert_eq!(fault.line, line, "{text}: {fault:?}");
        }
    }

    #[test]
    fn merge_keys_fill_what_is_missing() {
        let value = one("base: &b {x: 1, y: 2}\nuse: {<<: *b, x: 9}");
        let node = Node { line: 1, value };
        let used = node.get("use").unwrap();
        assert_eq!(used.get("x").unwrap().value, Value::Integer("9".into()));
        assert_eq!(used.get("y").unwrap().value, Value::Integer("2".into()));
    }

    #[test]
    fn limits_hold() {
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert!(read(&deep).is_err());
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(read(&bomb).unwrap_err().message.contains("aliases copy more than"));
    }
}
