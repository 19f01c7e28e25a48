//! The events that an alert names, in bounded number.

use serde::{Deserialize, Serialize};

use crate::alert::time::EventTime;

/// So much evidence is kept whole.
pub const EVENTS_MAX: usize = 100;

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

/// Of all events that something rests on, in their order, so many: all of them, or else as many of
/// the first as of the last.
pub fn edges<T>(all: &[T], events_max: usize) -> impl Iterator<Item = &T> {
    let edge = events_max / 2;
    let (first, last) = match all.len() {
        count if count <= events_max => (all, &[][..]),
        count => (&all[..edge], &all[count - edge..]),
    };
    first.iter().chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_all_up_to_the_limit_and_both_ends_beyond() {
        let named = |count| {
            let all: Vec<usize> = (0..count).collect();
            edges(&all, EVENTS_MAX).copied().collect::<Vec<_>>()
        };
        for count in [0, 1, 49, 50, 51, 99, 100] {
            assert_eq!(named(count), (0..count).collect::<Vec<_>>());
        }
        for count in [101, 102, 150, 100_000] {
            assert_eq!(named(count), (0..50).chain(count - 50..count).collect::<Vec<_>>());
        }
    }
}
