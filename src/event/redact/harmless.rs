//! Members of events that were looked at and hold nothing to replace, by their bytes.
//!
//! Who asks, with what program, and why it was allowed is the same in thousands of events. What is
//! known says only that nothing is replaced, and every byte of it is compared: whoever chooses what
//! events hold can make others forgotten, which costs time, and nothing else.

use xxhash_rust::xxh3::xxh3_64;

/// Places of the table, a power of two; each knows one member.
const PLACES: usize = 1_024;
/// Longer members are looked at every time; the table takes a megabyte at most.
const BYTES_MAX: usize = 1_024;

/// A bounded table of harmless members.
#[derive(Debug, Default)]
pub(crate) struct Harmless {
    /// Empty until something is known; a place that knows nothing is empty too.
    places: Vec<Vec<u8>>,
}

impl Harmless {
    /// Whether this member, key and value, is known.
    pub(crate) fn has(&self, member: &[u8]) -> bool {
        member.len() <= BYTES_MAX
            && self.places.get(place(member)).is_some_and(|known| known == member)
    }

    /// Remembers a member in place of another.
    pub(crate) fn add(&mut self, member: &[u8]) {
        if member.len() > BYTES_MAX {
            return;
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, Vec::new());
        }
        let known = &mut self.places[place(member)];
        known.clear();
        known.extend_from_slice(member);
    }
}

fn place(member: &[u8]) -> usize {
    xxh3_64(member) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_was_added_last_in_a_place() {
        let mut harmless = Harmless::default();
        let members: Vec<String> = (0..5_000).map(|n| format!(r#""verb":"{n}""#)).collect();
        for member in &members {
            assert!(!harmless.has(member.as_bytes()));
            harmless.add(member.as_bytes());
            assert!(harmless.has(member.as_bytes()));
        }
        let known = members.iter().filter(|member| harmless.has(member.as_bytes())).count();
        assert!((PLACES / 2..=PLACES).contains(&known), "{known}");
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut harmless = Harmless::default();
        for (length, expected) in [(BYTES_MAX, true), (BYTES_MAX + 1, false)] {
            let member = vec![b'x'; length];
            harmless.add(&member);
            assert_eq!(harmless.has(&member), expected, "{length}");
        }
    }
}
