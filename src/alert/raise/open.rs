//! Requests of which another stage may follow: what a rule said of the first one counts for all.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::alert::id::RequestKey;
use crate::engine::Engine;

/// How many matches of requests that may go on are remembered: sessions and watches that were
/// opened, refused authentications. Half of them at least: the older half goes at once. A multiple
/// of seven, because a hash table doubles when seven eighths of it are taken.
pub const OPEN_REQUESTS_MAX: usize = 2 * (7 << 14);

/// Pairs of a request and a rule that matched it. The rule counts by its id, so that what is
/// remembered outlives the rule set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpenRequests {
    young: FxHashSet<u128>,
    old: FxHashSet<u128>,
    #[serde(skip)]
    forgotten: u64,
}

impl OpenRequests {
    /// Whether the pair is remembered.
    pub fn contains(&self, request: RequestKey, rule: u128) -> bool {
        let pair = pair(request, rule);
        self.young.contains(&pair) || self.old.contains(&pair)
    }

    /// Remembers a pair that is not.
    pub fn insert(&mut self, request: RequestKey, rule: u128) {
        if self.young.len() >= OPEN_REQUESTS_MAX / 2 {
            self.forgotten += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pair(request, rule));
    }

    /// How many had to be forgotten, since the start.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Both parts are the halves of SHA-256, so a pair that equals another costs as much to find as two
/// equal requests.
fn pair(request: RequestKey, rule: u128) -> u128 {
    u128::from_le_bytes(request.0) ^ rule
}

/// What stands for each detection of an engine, by its position.
pub fn rules(engine: &Engine) -> Vec<u128> {
    let detections = (0..engine.detections() as u32).map(|position| engine.detection(position));
    let half = |id: &str| {
        let digest = Sha256::digest(id);
        let (half, _) = digest.split_first_chunk::<16>().expect("SHA-256 gives 32 bytes");
        u128::from_le_bytes(*half)
    };
    detections.map(|rule| half(&rule.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_pairs_and_forgets_the_oldest() {
        let mut open = OpenRequests::default();
        let request = |n: usize| RequestKey((n as u128).to_le_bytes());
        for n in 0..OPEN_REQUESTS_MAX {
            assert!(!open.contains(request(n), 1 << 100));
            open.insert(request(n), 1 << 100);
        }
        assert_eq!(open.forgotten(), 0);
        assert!(open.contains(request(0), 1 << 100) && !open.contains(request(0), 2 << 100));
        open.insert(request(0), 2 << 100);
        assert_eq!(open.forgotten() as usize, OPEN_REQUESTS_MAX / 2);
        assert!(!open.contains(request(0), 1 << 100) && open.contains(request(0), 2 << 100));
        assert!(open.contains(request(OPEN_REQUESTS_MAX / 2), 1 << 100));
    }
}
