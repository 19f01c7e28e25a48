//! What the table of places says of fields as rules of detection name them.

use crate::event::redact::places::{PLACES, Rule, Step, below};
use crate::event::redact::scopes::Scopes;

/// Whether a key is part of the way to some place of secrets: what stands below it may be one.
pub(crate) fn is_on_the_way(key: &str) -> bool {
    let secret = PLACES.iter().filter(|place| place.rule != Rule::Search);
    let mut steps = secret.flat_map(|place| place.path);
    steps.any(|step| {
        let is_any = matches!(*step, "[]" | "*" | "**");
        !is_any && Step::of(step).leads_to(Some(key.as_bytes()))
    })
}

/// The rule for a field below an object as rules of detection name it: by its keys, without a word
/// about arrays, dots between keys and in them.
pub(crate) fn rule_of_field(path: &str, scopes: Scopes) -> Option<Rule> {
    let pieces: Vec<&str> = path.split('.').collect();
    let mut places = PLACES.iter().filter(|place| place.scopes & scopes != 0);
    let found = places.find_map(|place| {
        let (starts, steps) = match place.path {
            ["**", steps @ ..] => (pieces.len(), steps),
            steps => (1, steps),
        };
        if matches!(place.rule, Rule::Root | Rule::Keep) {
            return None;
        }
        let wanted = steps.iter().filter(|step| **step != "[]").flat_map(|s| s.split('.'));
        (0..starts).find_map(|start| {
            let mut rest = pieces[start..].iter();
            let is_there = wanted.clone().all(|text| {
                rest.next().is_some_and(|piece| Step::of(text).leads_to(Some(piece.as_bytes())))
            });
            is_there.then(|| match rest.as_slice() {
                [] => place.rule,
                // Keys of extras have dots of their own.
                keys if place.rule == Rule::Extra => {
                    below(Rule::Extra, Some(keys.join(".").as_bytes()))
                }
                [key, ..] => below(below_element(place.rule, key), Some(key.as_bytes())),
            })
        })
    });
    found.filter(|rule| *rule != Rule::Search)
}

/// Fields pass over arrays: `env.value` is a member of a pair.
fn below_element(rule: Rule, key: &str) -> Rule {
    match rule {
        Rule::Env if matches!(key, "name" | "value" | "valueFrom") => Rule::Pair,
        Rule::Parameters if matches!(key, "name" | "value" | "valueFrom") => Rule::Parameter,
        rule => rule,
    }
}
