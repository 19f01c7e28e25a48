//! The keys of a document: texts, lists of texts, ids.

use crate::rule::problem::Fault;
use crate::rule::yaml::{Node, Value};

/// A UUID is the same in upper and lower case; other ids stay as they are.
pub fn normal_id(id: &str) -> String {
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(position, byte)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if is_uuid { id.to_ascii_lowercase() } else { id.to_owned() }
}

/// The line of the value at a key, or of the node itself.
pub fn line_of(node: &Node, key: &str) -> usize {
    node.get(key).map_or(node.line, |value| value.line)
}

/// A text at a key; absent and null alike are `None`.
///
/// # Errors
/// A list or a map at the key.
pub fn text(node: &Node, key: &str) -> Result<Option<String>, Fault> {
    match node.get(key) {
        None | Some(Node { value: Value::Null, .. }) => Ok(None),
        Some(value) => match value.scalar_text() {
            Some(text) => Ok(Some(text)),
            None => Err(Fault::new(value.line, format!("{key} is a text, not {}", value.kind()))),
        },
    }
}

/// A list of texts at a key; one text counts as a list, absent as an empty one.
///
/// # Errors
/// A map at the key, or something in the list that is no text.
pub fn texts(node: &Node, key: &str) -> Result<Vec<String>, Fault> {
    let Some(value) = node.get(key) else { return Ok(Vec::new()) };
    let items = match &value.value {
        Value::Null => return Ok(Vec::new()),
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let read = |item: &Node| {
        item.scalar_text().ok_or_else(|| {
            Fault::new(item.line, format!("{key} is a list of texts, not of {}", item.kind()))
        })
    };
    items.iter().map(read).collect()
}
