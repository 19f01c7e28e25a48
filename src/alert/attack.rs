//! MITRE ATT&CK techniques and tactics out of Sigma tags.

use serde::{Deserialize, Serialize};

use crate::rule::lint::TACTICS;

/// A technique with the tactics it serves, or tactics alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attack {
    /// `T1552.007`; absent when the rule names tactics only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technique: Option<String>,
    /// With hyphens, `credential-access`, in the order of the rule's tags.
    pub tactics: Vec<String>,
}

/// Reads ATT&CK out of Sigma tags.
///
/// Tags do not say which tactic belongs to which technique, so every technique gets all tactics of
/// the rule. Case does not matter; tactics may be written with underscores or hyphens; repeats,
/// other namespaces, groups (`attack.g…`) and software (`attack.s…`) are left out.
pub fn from_tags<S: AsRef<str>>(tags: &[S]) -> Vec<Attack> {
    let mut techniques: Vec<String> = Vec::new();
    let mut tactics: Vec<String> = Vec::new();
    for tag in tags {
        let tag = tag.as_ref().to_ascii_lowercase();
        let Some(word) = tag.strip_prefix("attack.") else { continue };
        let tactic = word.replace('_', "-");
        let (list, word) = if is_technique(word) {
            (&mut techniques, word.to_ascii_uppercase())
        } else if TACTICS.contains(&tactic.as_str()) {
            (&mut tactics, tactic)
        } else {
            continue;
        };
        if !list.contains(&word) {
            list.push(word);
        }
    }
    if techniques.is_empty() && !tactics.is_empty() {
        return vec![Attack { technique: None, tactics }];
    }
    techniques
        .into_iter()
        .map(|technique| Attack { technique: Some(technique), tactics: tactics.clone() })
        .collect()
}

/// `t1552` or `t1552.007`.
fn is_technique(word: &str) -> bool {
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let Some(number) = word.strip_prefix('t') else { return false };
    match number.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(number, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Techniques joined by `+`, then their tactics.
    fn read(tags: &[&str]) -> String {
        from_tags(tags)
            .iter()
            .map(|attack| {
                let technique = attack.technique.as_deref().unwrap_or("-");
                format!("{technique}({})", attack.tactics.join(","))
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn reads_tags() {
        let cases: &[(&[&str], &str)] = &[
            (&[], ""),
            (&["attack.t1552.007", "attack.credential_access"], "T1552.007(credential-access)"),
            (&["attack.credential-access", "attack.T1552.007"], "T1552.007(credential-access)"),
            (&["attack.defense_evasion"], "-(defense-evasion)"),
            (&["attack.stealth", "attack.defense-impairment"], "-(stealth,defense-impairment)"),
            (
                &["attack.t1078", "attack.t1613", "attack.discovery", "attack.initial-access"],
                "T1078(discovery,initial-access) T1613(discovery,initial-access)",
            ),
            (&["attack.t1078", "attack.t1078"], "T1078()"),
            (&["attack.g0016", "attack.s0002", "cve.2020-8554", "attack.t15", "t1078"], ""),
        ];
        for (tags, expected) in cases {
            assert_eq!(read(tags), *expected, "{tags:?}");
        }
    }
}
