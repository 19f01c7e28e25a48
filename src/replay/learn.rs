//! Baselines on disk: what `new_terms` correlations learnt from old logs, for the next run.
//!
//! One JSON document: `{"version": 2, "baselines": {"<rule id>": {"definition": "<hash>",
//! "baseline": …}}}`. A rule whose definition changed starts afresh. Terms are kept as
//! hashes, never as text.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::alert::raise::Raiser;
use crate::engine::Engine;
use crate::engine::terms::Baseline;
use crate::replay::heads::HeadPlace;
use crate::rule::{Body, Rule};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Learnt {
    version: u32,
    baselines: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    definition: String,
    baseline: Baseline,
}

const VERSION: u32 = 2;

/// Takes over what an earlier run learnt; nothing when the file does not exist yet. Returns how
/// many rules start afresh although the file knows them.
///
/// # Errors
/// The file cannot be read, or is no such file.
pub fn load(
    path: &Path,
    engine: &Engine,
    raiser: &mut Raiser<HeadPlace>,
) -> std::io::Result<usize> {
    let text = match std::fs::read(path) {
        Ok(text) if text.is_empty() => return Ok(0),
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let learnt: Learnt = serde_json::from_slice(&text)?;
    if learnt.version != VERSION {
        return Err(std::io::Error::other(format!("version {} is not known", learnt.version)));
    }
    let mut baselines = learnt.baselines;
    let mut changed = 0;
    for index in 0..engine.correlations() {
        let rule = engine.correlation(index as u32);
        match baselines.remove(&*rule.id) {
            Some(entry) if entry.definition == definition(engine, rule) => {
                raiser.correlator().set_baseline(index, entry.baseline);
            }
            Some(_) => changed += 1,
            None => {}
        }
    }
    Ok(changed)
}

/// Writes what was learnt; the file is replaced whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn save(path: &Path, engine: &Engine, raiser: &mut Raiser<HeadPlace>) -> std::io::Result<()> {
    let mut baselines = BTreeMap::new();
    let learnt = raiser.correlator().baselines();
    for (index, baseline) in learnt.iter().enumerate() {
        let rule = engine.correlation(index as u32);
        if is_learning(rule) {
            let entry = Entry { definition: definition(engine, rule), baseline: baseline.clone() };
            baselines.insert(rule.id.to_string(), entry);
        }
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    serde_json::to_writer(&mut file, &Learnt { version: VERSION, baselines })?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn is_learning(rule: &Rule) -> bool {
    matches!(&rule.body, Body::Correlation(correlation)
        if matches!(correlation.kind, crate::rule::CorrelationKind::NewTerms(_)))
}

/// A hash of what the correlation and the rules it rests on say.
fn definition(engine: &Engine, rule: &Rule) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?}", rule.body));
    if let Body::Correlation(correlation) = &rule.body {
        for id in &correlation.rules {
            let base = engine.rules().rules.iter().find(|known| known.id == *id);
            hasher.update(format!("{:?}", base.map(|base| &base.body)));
        }
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
