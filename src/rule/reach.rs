//! Whether a rule about audit events can ever fire, and the audit level it needs.
//!
//! Everything here errs towards silence: a rule is called dead only when no event of the API server
//! can satisfy it.

use crate::rule::taxonomy::{RESOURCE_VERBS, STAGES};
use crate::rule::{Comparison, Condition, Matcher, Test};

/// Fields that only a request body fills.
const REQUEST_BODY: [&str; 4] = ["requestObject", "pod", "object", "csr"];
/// Verbs whose requests have no body.
const READS: [&str; 3] = ["get", "list", "watch"];

/// The least audit level at which the condition can hold, in Sigma's and Kubernetes' spelling.
pub fn audit_level(condition: &Condition) -> &'static str {
    if needs(condition, &["responseObject"]) {
        "RequestResponse"
    } else if needs(condition, &REQUEST_BODY) {
        "Request"
    } else {
        "Metadata"
    }
}

/// Why no audit event can satisfy the condition; `None` when one may.
pub fn dead(condition: &Condition) -> Option<String> {
    let verbs = allowed(condition, "verb");
    let stages = allowed(condition, "stage");
    let levels = allowed(condition, "level");
    let codes = allowed(condition, "responseStatus.code");
    for (field, words) in [("verb", &verbs), ("stage", &stages), ("level", &levels)] {
        if words.as_ref().is_some_and(Vec::is_empty) {
            return Some(format!("the values that {field} must have exclude one another"));
        }
    }
    let none_of = |words: &Option<Vec<String>>, known: &[&str]| {
        let words = words.as_ref()?;
        let known = |word: &String| known.iter().any(|known| known.eq_ignore_ascii_case(word));
        (!words.iter().any(known)).then(|| words.join(", "))
    };
    let only = |words: &Option<Vec<String>>, within: &[&str]| {
        words.as_ref().is_some_and(|words| {
            let inside = |word: &String| within.iter().any(|one| one.eq_ignore_ascii_case(word));
            !words.is_empty() && words.iter().all(inside)
        })
    };
    if needs(condition, &["objectRef"])
        && let Some(words) = none_of(&verbs, &[&RESOURCE_VERBS[..], &[""]].concat())
    {
        return Some(format!("no request for a resource has the verb {words}"));
    }
    if let Some(words) = none_of(&stages, &STAGES) {
        return Some(format!("no audit event has the stage {words}"));
    }
    if let Some(words) = none_of(&levels, &["Metadata", "Request", "RequestResponse"]) {
        return Some(format!("no audit event has the level {words}"));
    }
    if only(&verbs, &READS) && needs(condition, &REQUEST_BODY) {
        return Some("requests that get, list or watch have no requestObject".to_owned());
    }
    if only(&levels, &["Metadata"]) && needs(condition, &["requestObject", "responseObject", "pod"])
    {
        return Some("events of the level Metadata have no bodies".to_owned());
    }
    if only(&codes, &["401"]) && only(&stages, &["ResponseComplete"]) {
        return Some("a failed authentication (401) is logged at ResponseStarted only".to_owned());
    }
    if only(&stages, &["RequestReceived"]) && needs(condition, &["responseStatus"]) {
        return Some("there is no responseStatus at RequestReceived".to_owned());
    }
    None
}

/// The values that the field must have one of; `None` when any value may do.
fn allowed(condition: &Condition, field: &str) -> Option<Vec<String>> {
    match condition {
        Condition::And(parts) => {
            let sets: Vec<Vec<String>> =
                parts.iter().filter_map(|part| allowed(part, field)).collect();
            let (first, rest) = sets.split_first()?;
            let in_all = |word: &&String| {
                rest.iter().all(|set| set.iter().any(|other| other.eq_ignore_ascii_case(word)))
            };
            Some(first.iter().filter(in_all).cloned().collect())
        }
        Condition::Or(parts) => {
            let mut union = Vec::new();
            for part in parts {
                union.extend(allowed(part, field)?);
            }
            Some(union)
        }
        Condition::Not(_) => None,
        Condition::Named(_, inner) => allowed(inner, field),
        Condition::Test(Test { field: Some(tested), matcher }) if **tested == *field => {
            match matcher {
                Matcher::Text { pattern, .. } => Some(vec![pattern.as_literal()?.to_owned()]),
                Matcher::Compare { op: Comparison::Eq, than } => Some(vec![than.to_string()]),
                _ => None,
            }
        }
        Condition::Test(_) => None,
    }
}

/// Whether the condition can only hold when some path below one of the roots has a value.
fn needs(condition: &Condition, roots: &[&str]) -> bool {
    match condition {
        Condition::And(parts) => parts.iter().any(|part| needs(part, roots)),
        Condition::Or(parts) => parts.iter().all(|part| needs(part, roots)),
        Condition::Not(_) => false,
        Condition::Named(_, inner) => needs(inner, roots),
        Condition::Test(Test { field: Some(field), matcher }) => {
            let is_below = |root: &&str| {
                field
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let is_absence = match matcher {
                Matcher::Null | Matcher::Exists(false) => true,
                Matcher::Elements { quantifier, .. } => matches!(
                    quantifier,
                    crate::rule::Quantifier::None | crate::rule::Quantifier::AllOrEmpty
                ),
                _ => false,
            };
            !is_absence && roots.iter().any(is_below)
        }
        Condition::Test(_) => false,
    }
}
