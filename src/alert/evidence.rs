//! The events that an alert names, in bounded number.

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

/// Of all events that an alert rests on, in their order, those that it names: all of them, or else
/// the first and the last half of [`EVENTS_MAX`].
pub fn edges<T>(all: &[T]) -> impl Iterator<Item = &T> {
    let (first, last) = match all.len() {
        0..=EVENTS_MAX => (all, &[][..]),
        count => (&all[..EDGE], &all[count - EDGE..]),
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
            edges(&all).copied().collect::<Vec<_>>()
        };
        for count in [0, 1, 49, 50, 51, 99, 100] {
            assert_eq!(named(count), (0..count).collect::<Vec<_>>());
        }
        for count in [101, 102, 150, 100_000] {
            assert_eq!(named(count), (0..50).chain(count - 50..count).collect::<Vec<_>>());
        }
    }
}
