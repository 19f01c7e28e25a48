//! Names for the positions of an engine's rules, so that state outlives the rule set it was made
//! under: positions change from one set to the next, ids and definitions say what is the same.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::rule::{Body, Rule};

/// The rules of an engine by their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleTable {
    /// A hash of all that the rules say.
    pub hash: [u8; 16],
    /// The id of each detection.
    pub detections: Vec<String>,
    /// The id of each correlation, and a hash of what it and all rules it rests on say.
    pub correlations: Vec<(String, [u8; 16])>,
}

/// Where the rules of one table stand in another; absent where they are gone or have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// By the position of a detection.
    pub detections: Vec<Option<u32>>,
    /// By the index of a correlation.
    pub correlations: Vec<Option<u32>>,
    /// Correlations that both tables know and that start empty because they changed.
    pub changed: u64,
}

impl RuleTable {
    /// The table of an engine.
    pub fn of(engine: &Engine) -> RuleTable {
        let mut hasher = Sha256::new();
        for rule in &engine.rules().rules {
            let Rule { id, title, level, alerts, body, .. } = rule;
            hasher.update(format!("{id:?}{title:?}{level:?}{alerts}{body:?}"));
        }
        let detections = (0..engine.detections() as u32)
            .map(|position| engine.detection(position).id.to_string())
            .collect();
        let correlations = (0..engine.correlations() as u32)
            .map(|index| engine.correlation(index))
            .map(|rule| (rule.id.to_string(), definition(engine, rule)))
            .collect();
        RuleTable { hash: half(hasher), detections, correlations }
    }

    /// Where the rules of this table stand in `other`. A detection is the same when its id is; a
    /// correlation when its id and definition are.
    pub fn mapping(&self, other: &RuleTable) -> Mapping {
        let place = |(at, id): (usize, &String)| (id.clone(), at as u32);
        let detections: HashMap<String, u32> =
            other.detections.iter().enumerate().map(place).collect();
        let correlations: HashMap<&str, (u32, [u8; 16])> = other
            .correlations
            .iter()
            .enumerate()
            .map(|(at, (id, definition))| (id.as_str(), (at as u32, *definition)))
            .collect();
        let mut changed = 0;
        let correlations = self
            .correlations
            .iter()
            .map(|(id, definition)| {
                let (at, other) = correlations.get(id.as_str())?;
                changed += u64::from(other != definition);
                (other == definition).then_some(*at)
            })
            .collect();
        let detections = self.detections.iter().map(|id| detections.get(id).copied()).collect();
        Mapping { detections, correlations, changed }
    }
}

/// A hash of what a rule and the rules it rests on, at any depth, say. The reader refuses cycles
/// and long chains, so this ends.
fn definition(engine: &Engine, rule: &Rule) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(format!("{:?}", rule.body));
    if let Body::Correlation(correlation) = &rule.body {
        for id in &correlation.rules {
            let base = engine.rules().rules.iter().find(|known| known.id == *id);
            hasher.update(base.map_or([0; 16], |base| definition(engine, base)));
        }
    }
    half(hasher)
}

fn half(hasher: Sha256) -> [u8; 16] {
    let digest = hasher.finalize();
    let (half, _) = digest.split_first_chunk::<16>().expect("SHA-256 gives 32 bytes");
    *half
}
