//! A map of selections with its condition: what `detection:` and `filter:` have in common.

use crate::rule::Condition;
use crate::rule::condition::{self, Expression, Selection};
use crate::rule::detection;
use crate::rule::keys::line_of;
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::Fault;
use crate::rule::yaml::{Node, Value};

/// A rule's parts that the model folds away, for lint and explanations.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The selections, in the order written.
    pub selections: Vec<Selection>,
    /// The conditions; several are alternatives.
    pub conditions: Vec<Expression>,
}

impl Parts {
    /// Reads a map of selections with its `condition`; `reserved` keys are no selections.
    ///
    /// # Errors
    /// All faults in it.
    pub fn read(
        body: &Node,
        reserved: &[&str],
        placeholders: &Placeholders,
    ) -> Result<Parts, Vec<Fault>> {
        let Value::Map(entries) = &body.value else {
            let message = format!("selections and a condition are a map, not {}", body.kind());
            return Err(vec![Fault::new(body.line, message)]);
        };
        let own = entries.iter().filter(|entry| !reserved.contains(&entry.key.as_str()));
        let mut faults = Vec::new();
        let selections = detection::selections(own, placeholders).unwrap_or_else(|more| {
            faults.extend(more);
            Vec::new()
        });
        let conditions = conditions(body).unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        });
        if faults.is_empty() && selections.is_empty() {
            faults.push(Fault::new(body.line, "no search identifier; add a selection"));
        }
        if faults.is_empty() { Ok(Parts { selections, conditions }) } else { Err(faults) }
    }

    /// The whole condition, with `prefix` before the names of the selections. `body` is the node
    /// that the parts were read from.
    ///
    /// # Errors
    /// An undefined identifier, or nothing left to test.
    pub fn condition(&self, body: &Node, prefix: &str) -> Result<Condition, Vec<Fault>> {
        let line = line_of(body, "condition");
        let fault = |message: String| vec![Fault::new(line, format!("condition: {message}"))];
        let mut alternatives = Vec::new();
        for expression in &self.conditions {
            let resolved = expression.resolve(&self.selections, prefix).map_err(fault)?;
            alternatives.extend(resolved);
        }
        Condition::any_of(alternatives)
            .ok_or_else(|| fault("its patterns select nothing, so nothing is tested".to_owned()))
    }
}

fn conditions(body: &Node) -> Result<Vec<Expression>, Fault> {
    let Some(node) = body.get("condition") else {
        return Err(Fault::new(body.line, "no condition; name the selection that must hold"));
    };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        return Err(Fault::new(node.line, "an empty list of conditions"));
    }
    let read = |item: &Node| {
        let Some(text) = item.scalar_text() else {
            let message = format!("a condition is a text, not {}", item.kind());
            return Err(Fault::new(item.line, message));
        };
        condition::parse(&text)
            .map_err(|message| Fault::new(item.line, format!("condition: {message}")))
    };
    items.iter().map(read).collect()
}
