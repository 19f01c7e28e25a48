//! What the records of the spool say. The spool keeps kinds and bytes; this is their meaning, for
//! whoever writes them and for every sink.
//!
//! ```text
//! EVENT       u8 version │ u8 flags │ i64 time_us │ i64 received_us │ [u8;16] duplicate key
//!             u16 len, cluster │ u16 len, source │ u16 len, position │ raw event (the rest)
//! ALERT       the alert's native JSON (contract.md), one object without a line end
//! MATCH       u8 version │ i64 time_us │ the packed matches of the event before it
//! CHECKPOINT  u8 version │ u16 len, source │ u16 len, key │ value (the rest)
//! RULES       u8 version │ table of the rule set that judges what follows (postcard: RuleTable)
//! TIME        u8 version │ i64 time_us: nothing arrived, and time went on to here
//! NOTICE      JSON object {kind, time, source, subject, text, lost_bytes}
//! ANCHOR      the same form: `text` is a signed checkpoint of an archive, `subject` its origin
//! QUARANTINE  the same form: `kind` says why input was refused, `subject` where it stood, `text`
//!             its shape without values; `sealed` its bytes for whoever has the key (base64)
//! ```
//! Integers are little-endian. In a batch an event stands before the records that it caused, its
//! MATCH directly behind it.

use crate::engine::table::RuleTable;

/// Kinds of records, as the spool's one byte.
pub mod kind {
    /// A raw event, redacted.
    pub const EVENT: u8 = 1;
    /// An alert.
    pub const ALERT: u8 = 2;
    /// A match that feeds the detector's state.
    pub const MATCH: u8 = 3;
    /// A source's position.
    pub const CHECKPOINT: u8 = 4;
    /// Another rule set judges from here on.
    pub const RULES: u8 = 5;
    /// Time passed without events.
    pub const TIME: u8 = 6;
    /// What a source noticed about the audit trail itself.
    pub const NOTICE: u8 = 7;
    /// A signed checkpoint of an archive.
    pub const ANCHOR: u8 = 8;
    /// Input that is no audit event.
    pub const QUARANTINE: u8 = 9;
}

/// The version that this release writes.
const VERSION: u8 = 1;

/// The event was cut, or a part of it could not be read.
pub const PARTIAL: u8 = 1;
/// Redaction replaced something in it.
pub const REDACTED: u8 = 2;

/// An event as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEvent<'r> {
    /// [`PARTIAL`], [`REDACTED`].
    pub flags: u8,
    /// Event time, microseconds since the epoch.
    pub time_us: i64,
    /// When it arrived here, microseconds since the epoch.
    pub received_us: i64,
    /// Equal for copies of one event: a keyed hash of the original bytes.
    pub duplicate_key: [u8; 16],
    /// The cluster.
    pub cluster: &'r str,
    /// The source's name.
    pub source: &'r str,
    /// Where in the source it stood.
    pub position: &'r str,
    /// The event's bytes as they came, redacted by splicing.
    pub raw: &'r [u8],
}

impl<'r> StoredEvent<'r> {
    /// Writes the record behind what `bytes` holds. Names beyond 65,535 bytes are cut.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&[VERSION, self.flags]);
        bytes.extend_from_slice(&self.time_us.to_le_bytes());
        bytes.extend_from_slice(&self.received_us.to_le_bytes());
        bytes.extend_from_slice(&self.duplicate_key);
        for text in [self.cluster, self.source, self.position] {
            put(text, bytes);
        }
        bytes.extend_from_slice(self.raw);
    }

    /// Reads what [`StoredEvent::encode`] wrote; `None` when the bytes are none, or of a later
    /// version.
    pub fn decode(bytes: &'r [u8]) -> Option<StoredEvent<'r>> {
        let mut rest = versioned(bytes)?;
        let [flags] = array(&mut rest)?;
        let time_us = i64::from_le_bytes(array(&mut rest)?);
        let received_us = i64::from_le_bytes(array(&mut rest)?);
        let duplicate_key = array(&mut rest)?;
        let [cluster, source, position] = [text(&mut rest)?, text(&mut rest)?, text(&mut rest)?];
        let raw = rest;
        Some(StoredEvent {
            flags,
            time_us,
            received_us,
            duplicate_key,
            cluster,
            source,
            position,
            raw,
        })
    }
}

/// A source's position as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint<'r> {
    /// The source's name.
    pub source: &'r str,
    /// Which of its positions.
    pub key: &'r str,
    /// The position; empty when it is forgotten.
    pub value: &'r [u8],
}

impl<'r> StoredCheckpoint<'r> {
    /// Writes the record behind what `bytes` holds.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        put(self.source, bytes);
        put(self.key, bytes);
        bytes.extend_from_slice(self.value);
    }

    /// Reads what [`StoredCheckpoint::encode`] wrote; `None` when the bytes are none.
    pub fn decode(bytes: &'r [u8]) -> Option<StoredCheckpoint<'r>> {
        let mut rest = versioned(bytes)?;
        let (source, key) = (text(&mut rest)?, text(&mut rest)?);
        Some(StoredCheckpoint { source, key, value: rest })
    }
}

/// Bytes of a MATCH record's payload before the packed matches.
pub const MATCH_HEADER_BYTES: usize = 9;

/// Writes a MATCH record's payload.
pub fn encode_match(time_us: i64, matches: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(VERSION);
    bytes.extend_from_slice(&time_us.to_le_bytes());
    bytes.extend_from_slice(matches);
}

/// The time and the packed matches of a MATCH record; `None` when the bytes are none.
pub fn decode_match(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut rest = versioned(bytes)?;
    let time_us = i64::from_le_bytes(array(&mut rest)?);
    Some((time_us, rest))
}

/// Writes a TIME record's payload.
pub fn encode_time(time_us: i64, bytes: &mut Vec<u8>) {
    bytes.push(VERSION);
    bytes.extend_from_slice(&time_us.to_le_bytes());
}

/// The time of a TIME record; `None` when the bytes are none.
pub fn decode_time(bytes: &[u8]) -> Option<i64> {
    let mut rest = versioned(bytes)?;
    Some(i64::from_le_bytes(array(&mut rest)?))
}

/// A RULES record's payload.
pub fn encode_rules(table: &RuleTable) -> Vec<u8> {
    postcard::to_extend(table, vec![VERSION]).expect("a table of texts can be written")
}

/// The table of a RULES record; `None` when the bytes are none.
pub fn decode_rules(bytes: &[u8]) -> Option<RuleTable> {
    postcard::from_bytes(versioned(bytes)?).ok()
}

fn versioned(bytes: &[u8]) -> Option<&[u8]> {
    let (version, rest) = bytes.split_first()?;
    (*version == VERSION).then_some(rest)
}

fn put(text: &str, bytes: &mut Vec<u8>) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    bytes.extend_from_slice(&(end as u16).to_le_bytes());
    bytes.extend_from_slice(&text.as_bytes()[..end]);
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*array)
}

fn text<'r>(rest: &mut &'r [u8]) -> Option<&'r str> {
    let length = usize::from(u16::from_le_bytes(array(rest)?));
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_cut_bytes_are_not() {
        let event = StoredEvent {
            flags: PARTIAL,
            time_us: -5,
            received_us: 1_767_225_600_000_000,
            duplicate_key: [7; 16],
            cluster: "prod-1",
            source: "log",
            position: "audit.log:17",
            raw: b"{\"level\":\"Metadata\"}\xff",
        };
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        assert_eq!(StoredEvent::decode(&bytes), Some(event));
        let checkpoint = StoredCheckpoint { source: "log", key: "8:17", value: b"{}" };
        let mut stored = Vec::new();
        checkpoint.encode(&mut stored);
        assert_eq!(StoredCheckpoint::decode(&stored), Some(checkpoint));
        let head = bytes.len() - event.raw.len();
        assert!((0..head).all(|end| StoredEvent::decode(&bytes[..end]).is_none()));
        bytes[0] = 2;
        assert_eq!(StoredEvent::decode(&bytes), None);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let name = "ü".repeat(40_000);
        let checkpoint = StoredCheckpoint { source: &name, key: "", value: b"" };
        let mut bytes = Vec::new();
        checkpoint.encode(&mut bytes);
        let read = StoredCheckpoint::decode(&bytes).unwrap();
        assert_eq!(read.source.len(), 65_534);
    }
}
