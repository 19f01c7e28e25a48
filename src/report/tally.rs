//! Counts alerts by level, rule and actor as they pass.

use std::collections::{BTreeMap, HashMap};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::alert::Alert;
use crate::event::actor::ActorKind;
use crate::rule::Level;

/// So many actors are told apart; alerts about further ones count for no actor.
pub const ACTORS_MAX: usize = 100_000;

/// The length of the lists of top rules and top actors.
pub const TOP_MAX: usize = 10;

/// A number for every level. In JSON an object with every level, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelCounts([u64; Level::ALL.len()]);

impl LevelCounts {
    /// Counts one.
    pub fn add(&mut self, level: Level) {
        self.0[level as usize] += 1;
    }

    /// The number of a level.
    pub fn of(&self, level: Level) -> u64 {
        self.0[level as usize]
    }
}

impl Serialize for LevelCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Level::ALL.len()))?;
        for level in Level::ALL {
            map.serialize_entry(level.as_str(), &self.of(level))?;
        }
        map.end()
    }
}

/// How much a rule raised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleCount {
    /// The rule's identity.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its level.
    pub level: Level,
    /// How many alerts.
    pub count: u64,
}

/// How many alerts are about an actor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActorCount {
    /// The user name; empty for requests without one.
    pub username: String,
    /// What kind of name it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ActorKind>,
    /// The highest level among its alerts.
    pub level: Level,
    /// How many alerts.
    pub count: u64,
}

/// Counts alerts; memory is bounded by the number of rules and [`ACTORS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Tally {
    alerts: u64,
    levels: LevelCounts,
    rules: BTreeMap<String, RuleCount>,
    actors: HashMap<String, ActorCount>,
}

impl Tally {
    /// Has counted nothing.
    pub fn new() -> Tally {
        Tally::default()
    }

    /// Counts one alert.
    pub fn add(&mut self, alert: &Alert) {
        self.alerts += 1;
        self.levels.add(alert.rule.level);
        let rule = &alert.rule;
        match self.rules.get_mut(&rule.id) {
            Some(counted) => counted.count += 1,
            None => {
                let (id, title, level) = (rule.id.clone(), rule.title.clone(), rule.level);
                self.rules.insert(id.clone(), RuleCount { id, title, level, count: 1 });
            }
        }
        let username = alert.actor.username.as_deref().unwrap_or_default();
        if let Some(counted) = self.actors.get_mut(username) {
            counted.count += 1;
            counted.level = counted.level.max(rule.level);
        } else if self.actors.len() < ACTORS_MAX {
            let username = username.to_owned();
            let (kind, level) = (alert.actor.kind, rule.level);
            self.actors.insert(username.clone(), ActorCount { username, kind, level, count: 1 });
        }
    }

    /// How many alerts.
    pub fn alerts(&self) -> u64 {
        self.alerts
    }

    /// How many alerts of each level.
    pub fn levels(&self) -> LevelCounts {
        self.levels
    }

    /// How many alerts of each rule, by its id.
    pub fn by_rule(&self) -> BTreeMap<String, u64> {
        self.rules.iter().map(|(id, rule)| (id.clone(), rule.count)).collect()
    }

    /// The rules that raised alerts, in order of level, then count, then title: however noisy the
    /// small ones are, the grave ones stay in sight.
    pub fn top_rules(&self) -> Vec<RuleCount> {
        let mut rules: Vec<&RuleCount> = self.rules.values().collect();
        rules.sort_by(|a, b| {
            (b.level, b.count, &a.title, &a.id).cmp(&(a.level, a.count, &b.title, &b.id))
        });
        rules.into_iter().take(TOP_MAX).cloned().collect()
    }

    /// The actors that alerts are about, in order of their highest level, then count, then name.
    pub fn top_actors(&self) -> Vec<ActorCount> {
        let mut actors: Vec<&ActorCount> = self.actors.values().collect();
        actors
            .sort_by(|a, b| (b.level, b.count, &a.username).cmp(&(a.level, a.count, &b.username)));
        actors.into_iter().take(TOP_MAX).cloned().collect()
    }
}
