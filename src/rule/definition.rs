//! Defined fields: conditions that have a name, written once for all rules that need them.
//!
//! A file of definitions holds one document a field: `field`, `description`, and `detection` as a
//! rule has it. A rule asks for the field with `true` or `false`, and means what the condition says
//! of the event. The condition is put into the rule when that is read, so the engine knows nothing
//! of it. A definition may use those that stand before it.

use std::sync::Arc;

use crate::rule::Condition;
use crate::rule::keys::{line_of, text};
use crate::rule::parse::DETECTION_RESERVED;
use crate::rule::parts::Parts;
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::{Fault, did_you_mean};
use crate::rule::taxonomy;
use crate::rule::yaml::{self, Node, Value};

/// The root keys of a definition.
const KEYS: [&str; 3] = ["field", "description", "detection"];

/// Reads definitions into the lists that their conditions use; one of a known name replaces it for
/// what is read later.
///
/// # Errors
/// The first fault with its line.
pub fn read(text: &str, lists: &mut Placeholders) -> Result<(), Fault> {
    for node in yaml::read(text)? {
        let (field, condition) = definition(&node, lists)?;
        lists.define(&field, Condition::Named(Arc::from(field.as_str()), Box::new(condition)));
    }
    Ok(())
}

fn definition(node: &Node, lists: &Placeholders) -> Result<(String, Condition), Fault> {
    let Value::Map(entries) = &node.value else {
        let message = format!("a definition is a map, not {}", node.kind());
        return Err(Fault::new(node.line, message));
    };
    if let Some(other) = entries.iter().find(|entry| !KEYS.contains(&entry.key.as_str())) {
        let hint = did_you_mean(&other.key, KEYS);
        let message = format!("a definition has no key {:?}{hint}", other.key);
        return Err(Fault::new(other.line, message));
    }
    let Some(field) = text(node, "field")? else {
        return Err(Fault::new(node.line, "no field; name what the definition defines"));
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !field.chars().all(is_plain) || taxonomy::is_path(&field) {
        let message = format!("{field:?} cannot be defined; choose a name that no event has");
        return Err(Fault::new(line_of(node, "field"), message));
    }
    let Some(body) = node.get("detection") else {
        return Err(Fault::new(node.line, "no detection; say when the field is true"));
    };
    let first = |mut faults: Vec<Fault>| faults.swap_remove(0);
    let parts = Parts::read(body, &DETECTION_RESERVED, lists).map_err(first)?;
    let condition = parts.condition(body, &format!("{field}/")).map_err(first)?;
    Ok((field, condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "field: actor.is_ours\ndetection: {s: {user.username|expand: '%ours%'}, condition: s}\n---\nfield: actor.is_other\ndetection: {s: {actor.is_ours: true}, condition: not s}";

    fn lists() -> Placeholders {
        Placeholders::read("ours: [alice, bob]").unwrap()
    }

    #[test]
    fn a_definition_uses_lists_and_those_before_it() {
        let mut lists = lists();
        read(TWO, &mut lists).unwrap();
        let other = format!("{:?}", lists.defined("actor.is_other").unwrap());
        assert!(other.contains("actor.is_ours") && other.contains("alice"), "{other}");
        assert!(lists.defined("actor.is_unknown").is_none());
    }

    /// What a rule with this item says of the one test `user.username: alice`, or its fault.
    fn asked(item: &str) -> Result<String, String> {
        let mut lists = Placeholders::read("ours: alice").unwrap();
        read(TWO, &mut lists).unwrap();
        let rule = format!(
            "title: t\nlogsource: {{product: p}}\ndetection: {{s: {{{item}}}, condition: s}}"
        );
        let path = Arc::new("r.yml".into());
        match crate::rule::parse::documents(&path, &rule, &lists) {
            Ok(documents) => Ok(format!("{documents:?}").replace('"', "")),
            Err(faults) => Err(faults[0].message.clone()),
        }
    }

    #[test]
    fn a_rule_asks_for_true_or_false() {
        let plain = asked("actor.is_ours: true").unwrap();
        assert!(plain.contains("Literal(alice)") && !plain.contains("Not("), "{plain}");
        let negated = asked("actor.is_ours: 'false'").unwrap();
        assert!(negated.contains("Not(Named(actor.is_ours"), "{negated}");
        let inside = asked("'list[any]': {actor.is_ours: true}").unwrap();
        assert!(inside.contains("Literal(true)"), "an element's own field: {inside}");
        for item in ["actor.is_ours: maybe", "actor.is_ours|neq: true", "actor.is_ours: [true]"] {
            let fault = asked(item).unwrap_err();
            assert!(fault.contains("true or false, without modifiers"), "{item}: {fault}");
        }
    }

    #[test]
    fn faults_are_told_with_their_line() {
        let cases = [
            ("[]", 1, "a definition is a map"),
            ("detection: {s: {a: 1}, condition: s}", 1, "no field"),
            ("field: verb\ndetection: {s: {a: 1}, condition: s}", 1, "no event has"),
            ("field: a b\ndetection: {s: {a: 1}, condition: s}", 1, "cannot be defined"),
            ("field: x.y", 1, "no detection"),
            ("field: x.y\nfields: z", 2, "did you mean"),
            ("field: x.y\ndetection: {s: {a|expand: '%no%'}, condition: s}", 2, "no"),
            ("field: x.y\ndetection:\n  s: {a: 1}\n  condition: t", 4, "condition"),
        ];
        for (text, line, part) in cases {
            let fault = read(text, &mut lists()).unwrap_err();
            assert!(fault.line == line && fault.message.contains(part), "{text}: {fault:?}");
        }
    }

    #[test]
    fn definitions_on_definitions_cannot_grow_without_bound() {
        let mut text = "field: d.f0\ndetection: {s: {a: [x, y, z]}, condition: s}".to_owned();
        for level in 1..40 {
            text += &format!(
                "\n---\nfield: d.f{level}\ndetection: {{s: {{d.f{0}: true}}, t: {{d.f{0}: false}}, \
                 condition: s or t}}",
                level - 1
            );
        }
        let fault = read(&text, &mut lists()).unwrap_err();
        assert!(fault.message.contains("more than"), "{fault:?}");
    }
}
