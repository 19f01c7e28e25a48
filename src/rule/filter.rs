//! Sigma filters: conditions that a site adds to rules that others wrote.
//!
//! The rule and the filter's condition must both hold, as in the reference implementation: an
//! exclusion is written `condition: not selection`. (The specification's own example writes
//! `condition: selection`; lint names filters of that form.) Selections, `them` and patterns mean
//! the filter's own. A filter applies to a rule that it names (or to `any`) when its logsource
//! contains the rule's, and never to a correlation, which inherits through its base rules.

use std::sync::Arc;

use crate::rule::keys;
use crate::rule::parts::Parts;
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::Fault;
use crate::rule::yaml::{Node, Value};
use crate::rule::{Body, Condition, Logsource, Origin, Rule};

/// A Sigma filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// What it is for.
    pub title: Arc<str>,
    /// Which logs it is about.
    pub logsource: Logsource,
    /// The rules it applies to.
    pub targets: Targets,
    /// What must hold beside the rule.
    pub condition: Condition,
    /// Where it was read.
    pub origin: Origin,
}

/// The rules that a filter applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every rule of the logsource: `any`, or an empty list.
    Any,
    /// Rules by id or name.
    Rules(Vec<String>),
}

impl Filter {
    /// Reads what stands under `filter:`.
    ///
    /// # Errors
    /// All faults in it.
    pub fn read(
        body: &Node,
        title: String,
        logsource: Logsource,
        origin: Origin,
        placeholders: &Placeholders,
    ) -> Result<Filter, Vec<Fault>> {
        let targets = targets(body).map_err(|fault| vec![fault])?;
        let parts = Parts::read(body, &["condition", "rules"], placeholders)?;
        let condition = parts.condition(body, &format!("{title}/"))?;
        Ok(Filter { title: Arc::from(title), logsource, targets, condition, origin })
    }

    /// Whether the filter applies to the rule.
    pub fn applies_to(&self, rule: &Rule) -> bool {
        let is_target = match &self.targets {
            Targets::Any => true,
            Targets::Rules(names) => names.iter().any(|name| is_named(rule, name)),
        };
        is_target
            && matches!(rule.body, Body::Detection(_))
            && self.logsource.contains(&rule.logsource)
    }

    /// Folds the filter into a rule it applies to; leaves other rules alone.
    pub fn apply(&self, rule: &mut Rule) {
        if !self.applies_to(rule) {
            return;
        }
        if let Body::Detection(condition) = &mut rule.body {
            let own = std::mem::replace(condition, Condition::And(Vec::new()));
            *condition = Condition::And(vec![own, self.condition.clone()]);
        }
    }
}

/// Whether a reference by id or name means the rule.
pub fn is_named(rule: &Rule, reference: &str) -> bool {
    *rule.id == *keys::normal_id(reference) || rule.name.as_deref() == Some(reference)
}

impl Logsource {
    /// Whether every log that `other` is about is one of these.
    pub fn contains(&self, other: &Logsource) -> bool {
        let part = |own: &Option<String>, other: &Option<String>| own.is_none() || own == other;
        part(&self.category, &other.category)
            && part(&self.product, &other.product)
            && part(&self.service, &other.service)
    }
}

fn targets(body: &Node) -> Result<Targets, Fault> {
    let Some(rules) = body.get("rules") else {
        return Err(Fault::new(body.line, "a filter names its rules, or `rules: any`"));
    };
    match &rules.value {
        Value::Text(word) if word == "any" => Ok(Targets::Any),
        Value::List(items) if items.is_empty() => Ok(Targets::Any),
        Value::List(_) | Value::Text(_) => Ok(Targets::Rules(keys::texts(body, "rules")?)),
        _ => Err(Fault::new(rules.line, "rules is a list of ids or names, or the word any")),
    }
}
