//! Which witnesses must have cosigned a checkpoint: a file of c2sp.org/tlog-policy, the same for
//! the writer (which asks those that have a URL) and for whoever verifies.
//!
//! ```text
//! log <key>                      # optional: which logs it is about
//! witness <name> <key> [<url>]
//! group <name> any|all|<k> <name>...
//! quorum <name>|none
//! ```

use std::collections::BTreeSet;

use crate::archive::cosignature::Witness;
use crate::archive::note::{self, Verifier};

/// Witnesses and groups that a policy may have.
const NAMES_MAX: usize = 1_000;

/// A policy that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Error {
    /// The line, from 1; 0 for the whole file.
    line: usize,
    /// What is wrong with it.
    reason: String,
}

/// A witness of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called in the policy.
    pub name: String,
    /// Its key.
    pub key: Witness,
    /// Where it is asked; absent where a policy is for verifying only.
    pub url: Option<String>,
}

/// Who witnesses: one of the policy's witnesses, or so many of the members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Witness(usize),
    Group(usize, Vec<usize>),
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<Verifier>,
    witnesses: Vec<Listed>,
    names: Vec<(String, Rule)>,
    /// Index into `names`; `None` when no cosignature is asked for.
    quorum: Option<usize>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Which line is wrong, and how.
    pub fn parse(text: &str) -> Result<Policy, Error> {
        let mut reading = Reading::default();
        for (index, line) in text.split('\n').enumerate() {
            let words: Vec<&str> = line.split([' ', '\t']).filter(|it| !it.is_empty()).collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            let read = reading.line(&words);
            read.map_err(|reason| Error { line: index + 1, reason })?;
        }
        let Reading { logs, witnesses, names, quorum, .. } = reading;
        let reason = || "it has no `quorum` line".to_owned();
        let quorum = quorum.ok_or_else(|| Error { line: 0, reason: reason() })?;
        Ok(Policy { logs, witnesses, names, quorum })
    }

    /// Its witnesses.
    pub fn witnesses(&self) -> &[Listed] {
        &self.witnesses
    }

    /// Whether the policy is about this log: it names it, or none.
    pub fn is_about(&self, log: &Verifier) -> bool {
        self.logs.is_empty() || self.logs.iter().any(|known| log.has(known))
    }

    /// When each witness cosigned the note, seconds since the epoch, in their order.
    ///
    /// # Errors
    /// A line that claims to be a witness's and does not hold.
    pub fn cosigned(&self, note: &str) -> Result<Vec<Option<u64>>, note::Error> {
        self.witnesses.iter().map(|listed| listed.key.cosigned(note)).collect()
    }

    /// Whether those that cosigned are enough.
    pub fn is_met(&self, cosigned: &[Option<u64>]) -> bool {
        let Some(quorum) = self.quorum else { return true };
        // A name stands behind those that it speaks of.
        let mut met: Vec<bool> = Vec::with_capacity(self.names.len());
        for (_, rule) in &self.names {
            let is_met = match rule {
                Rule::Witness(index) => cosigned.get(*index).is_some_and(Option::is_some),
                Rule::Group(least, members) => {
                    members.iter().filter(|member| met[**member]).count() >= *least
                }
            };
            met.push(is_met);
        }
        met.get(quorum).copied().unwrap_or(false)
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<Verifier>,
    witnesses: Vec<Listed>,
    names: Vec<(String, Rule)>,
    members: BTreeSet<usize>,
    quorum: Option<Option<usize>>,
}

impl Reading {
    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["log", key] | ["log", key, _] => {
                let key = Verifier::parse(key).map_err(|error| error.to_string())?;
                self.logs.push(key);
                Ok(())
            }
            ["witness", name, key] => self.witness(name, key, None),
            ["witness", name, key, url] => self.witness(name, key, Some((*url).to_owned())),
            ["group", name, least, members @ ..] if !members.is_empty() => {
                self.group(name, least, members)
            }
            ["quorum", name] => {
                let quorum = if *name == "none" { None } else { Some(self.index(name)?) };
                match self.quorum.replace(quorum) {
                    None => Ok(()),
                    Some(_) => Err("a second `quorum` line".to_owned()),
                }
            }
            _ => Err("not a line of c2sp.org/tlog-policy (log, witness, group, quorum)".to_owned()),
        }
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        let found = self.names.iter().position(|(known, _)| known == name);
        found.ok_or_else(|| format!("{name:?} is not named on a line before"))
    }

    fn name(&mut self, name: &str, rule: Rule) -> Result<(), String> {
        if name == "none" || self.names.iter().any(|(known, _)| known == name) {
            return Err(format!("{name:?} is taken"));
        }
        if self.names.len() >= NAMES_MAX {
            return Err(format!("more than {NAMES_MAX} names"));
        }
        self.names.push((name.to_owned(), rule));
        Ok(())
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<String>) -> Result<(), String> {
        let key = Witness::parse(key).map_err(|error| error.to_string())?;
        if self.witnesses.iter().any(|listed| listed.key.key() == key.key()) {
            return Err("a second witness with this key".to_owned());
        }
        self.name(name, Rule::Witness(self.witnesses.len()))?;
        self.witnesses.push(Listed { name: name.to_owned(), key, url });
        Ok(())
    }

    fn group(&mut self, name: &str, least: &str, members: &[&str]) -> Result<(), String> {
        let mut indexes = Vec::with_capacity(members.len());
        for member in members {
            let index = self.index(member)?;
            if !self.members.insert(index) {
                return Err(format!("{member:?} is a member twice"));
            }
            indexes.push(index);
        }
        let least = match least {
            "any" => 1,
            "all" => members.len(),
            number => number
                .parse()
                .ok()
                .filter(|it| (1..=members.len()).contains(it))
                .ok_or(format!("{number:?} is not `any`, `all` or 1 to {}", members.len()))?,
        };
        self.name(name, Rule::Group(least, indexes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::cosignature::Cosigner;
    use crate::archive::note::Signer;

    fn key(seed: u8) -> String {
        Cosigner::new(&format!("w{seed}"), &[seed; 32]).unwrap().witness().to_string()
    }

    #[test]
    fn a_quorum_is_of_witnesses_and_groups() {
        let log = Signer::new("log.example.com", &[9; 32]).unwrap().verifier();
        let text = format!(
            "# two of X, one of Y\nlog {log}\n\nwitness X1 {}\n witness X2 {} https://x2\n\
             witness X3\t{}\ngroup X 2 X1 X2 X3\nwitness Y1 {}\nwitness Y2 {}\ngroup Y any Y1 Y2\n\
             group both all X Y\nquorum both\n",
            key(1),
            key(2),
            key(3),
            key(4),
            key(5),
        );
        let policy = Policy::parse(&text).unwrap();
        assert_eq!(policy.witnesses()[1].url.as_deref(), Some("https://x2"));
        assert!(policy.is_about(&log));
        assert!(!policy.is_about(&Signer::new("log.example.com", &[8; 32]).unwrap().verifier()));
        for (who, is_met) in
            [("11010", true), ("11000", false), ("00111", false), ("10101", true), ("11111", true)]
        {
            let cosigned: Vec<_> = who.bytes().map(|it| (it == b'1').then_some(1)).collect();
            assert_eq!(policy.is_met(&cosigned), is_met, "{who}");
        }
        assert!(Policy::parse("quorum none\n").unwrap().is_met(&[]));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_line() {
        let one = format!("witness a {}\n", key(1));
        for (text, expected) in [
            (String::new(), "line 0: it has no `quorum` line"),
            ("quorum a".into(), "line 1: \"a\" is not named on a line before"),
            (format!("{one}{one}"), "line 2: a second witness with this key"),
            (format!("{one}witness a {}", key(2)), "line 2: \"a\" is taken"),
            (format!("{one}group g 2 a\n"), "line 2: \"2\" is not `any`, `all` or 1 to 1"),
            (format!("{one}group g any a\ngroup h any a"), "line 3: \"a\" is a member twice"),
            (format!("{one}quorum a\nquorum a"), "line 3: a second `quorum` line"),
            ("witnes a b".into(), "line 1: not a line of c2sp.org/tlog-policy"),
            (format!("log {}", key(1)), "line 1: not an Ed25519 public key"),
        ] {
            let error = Policy::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
