//! Packs: how much of the shipped rules a site wants to hear from.
//!
//! A rule names the smallest pack that holds it (`pack: standard`); a larger pack holds all of the
//! smaller ones. A rule that names none, as other people's rules do, is in every pack.

use std::collections::HashSet;
use std::sync::Arc;

use crate::rule::{Body, Rule, RuleSet};

/// A pack, smallest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    clap::ValueEnum,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    /// Only what hardly ever is a false alarm.
    Minimal,
    /// What a security team looks at every day.
    #[default]
    Standard,
    /// Everything, for hunts and for replays of an incident.
    Paranoid,
}

impl Pack {
    /// The pack that a rule names.
    pub fn of(rule: &Rule) -> Option<Pack> {
        match rule.custom.get("pack")?.as_str()? {
            "minimal" => Some(Pack::Minimal),
            "standard" => Some(Pack::Standard),
            "paranoid" => Some(Pack::Paranoid),
            _ => None,
        }
    }

    fn holds(self, rule: &Rule) -> bool {
        Pack::of(rule).is_none_or(|pack| pack <= self)
    }
}

/// The rules of a pack, with the rules that its correlations rest on; those are silent where the
/// pack does not hold them by themselves.
pub fn select(rules: RuleSet, pack: Pack) -> RuleSet {
    let mut needed: HashSet<Arc<str>> = HashSet::new();
    // A correlation may rest on another one: repeat until nothing is added.
    loop {
        let before = needed.len();
        for rule in &rules.rules {
            let Body::Correlation(correlation) = &rule.body else { continue };
            if pack.holds(rule) && rule.alerts || needed.contains(&rule.id) {
                needed.extend(correlation.rules.iter().cloned());
            }
        }
        if needed.len() == before {
            break;
        }
    }
    let mut kept: Vec<Rule> = Vec::new();
    for mut rule in rules.rules {
        let is_held = pack.holds(&rule);
        rule.alerts &= is_held;
        if rule.alerts || needed.contains(&rule.id) {
            kept.push(rule);
        }
    }
    RuleSet { rules: kept }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::rule::load::{Options, load_texts};

    const RULES: &str = "
title: a
id: a
pack: minimal
detection: {s: {verb: get}, condition: s}
---
title: b
id: b
pack: paranoid
detection: {s: {verb: get}, condition: s}
---
title: c
id: c
pack: standard
correlation: {type: event_count, rules: [b], timespan: 1m, condition: {gte: 2}, generate: true}
---
title: d
id: d
detection: {s: {verb: get}, condition: s}
---
title: e
id: e
pack: paranoid
correlation: {type: event_count, rules: [f], timespan: 1m, condition: {gte: 2}}
---
title: f
id: f
pack: minimal
detection: {s: {verb: get}, condition: s}
";

    fn check(pack: Pack, expected: &[(&str, bool)]) {
        let text = RULES.replace("detection:", "logsource: {product: kubernetes}\ndetection:");
        let texts = [(PathBuf::from("rules.yml"), text)];
        let rules = load_texts(&texts, &Options::default()).expect("valid rules");
        let kept: Vec<_> = select(rules, pack)
            .rules
            .iter()
            .map(|rule| (rule.id.to_string(), rule.alerts))
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(id, alerts)| (id.to_string(), *alerts)).collect();
        assert_eq!(kept, expected, "{pack:?}");
    }

    #[test]
    fn a_larger_pack_holds_the_smaller() {
        check(Pack::Minimal, &[("a", true), ("d", true)]);
        check(Pack::Standard, &[("a", true), ("b", false), ("c", true), ("d", true)]);
        let all = [("a", true), ("b", true), ("c", true), ("d", true), ("e", true), ("f", false)];
        check(Pack::Paranoid, &all);
    }
}
