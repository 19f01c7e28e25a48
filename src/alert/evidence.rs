//! The events that an alert rests on, in bounded number.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::alert::time::EventTime;

/// So much evidence is kept whole.
pub const EVENTS_MAX: usize = 100;

/// Of more evidence, so many of the first and as many of the last are kept.
const EDGE: usize = EVENTS_MAX / 2;

/// One event that an alert rests on, and where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `auditID`, which the client may choose: a place to look, no identity. Empty when absent.
    pub audit_id: String,
    /// The audit stage; empty when the event was cut before it.
    pub stage: String,
    /// Time of the event.
    pub time: EventTime,
    /// Where it was read: `file:line`, or whatever the source calls a place.
    pub position: String,
}

/// Collects evidence in the order of events and keeps [`EVENTS_MAX`] of it: all, or else the first
/// and the last half of that number. Memory is bounded whatever is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceList {
    first: Vec<Evidence>,
    last: VecDeque<Evidence>,
    count: u64,
}

impl EvidenceList {
    /// Holds nothing.
    pub fn new() -> EvidenceList {
        EvidenceList::default()
    }

    /// Adds the next event.
    pub fn push(&mut self, evidence: Evidence) {
        self.count += 1;
        if self.first.len() < EDGE {
            self.first.push(evidence);
            return;
        }
        if self.last.len() == EDGE {
            self.last.pop_front();
        }
        self.last.push_back(evidence);
    }

    /// How many were pushed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What was kept, in the order pushed, and how many were pushed: `Alert::events` and
    /// `Alert::count`.
    pub fn into_parts(self) -> (Vec<Evidence>, u64) {
        let mut events = self.first;
        events.extend(self.last);
        (events, self.count)
    }
}

impl Extend<Evidence> for EvidenceList {
    fn extend<I: IntoIterator<Item = Evidence>>(&mut self, evidence: I) {
        evidence.into_iter().for_each(|one| self.push(one));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pushed: u64) -> (Vec<u64>, u64) {
        let mut list = EvidenceList::new();
        list.extend((0..pushed).map(|n| Evidence {
            audit_id: n.to_string(),
            stage: String::new(),
            time: EventTime(0),
            position: String::new(),
        }));
        let (events, count) = list.into_parts();
        (events.iter().map(|event| event.audit_id.parse().unwrap()).collect(), count)
    }

    #[test]
    fn keeps_all_up_to_the_limit_and_both_ends_beyond() {
        for pushed in [0, 1, 49, 50, 51, 99, 100] {
            assert_eq!(kept(pushed), ((0..pushed).collect(), pushed));
        }
        for pushed in [101, 102, 150, 100_000] {
            let ends = (0..50).chain(pushed - 50..pushed).collect();
            assert_eq!(kept(pushed), (ends, pushed));
        }
    }
}
