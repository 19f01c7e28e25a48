//! The record: one small JSON object a leaf of the log, and what it says.
//!
//! A record's bytes are hashed as they are written, so no canonical form is needed; what a reader
//! does not know it passes over. docs/archive-format.md is the specification.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of records that this release writes.
pub const VERSION: u8 = 1;
/// Bytes of a record: entry bundles carry lengths in 16 bits.
pub const RECORD_BYTES_MAX: usize = 65_535;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The log's first record: its key, and what wrote it.
    Genesis,
    /// A segment of audit events.
    Events,
    /// A segment of alerts in their native JSON.
    Alerts,
    /// A segment of what sources noticed about the audit trail itself.
    Notices,
    /// A segment of input that could not be read, each piece as a JSON string.
    Quarantine,
    /// The writer started, is alive, or stopped.
    Mark,
    /// Something is known not to have been archived.
    Gap,
    /// A key is announced or retired.
    Key,
    /// Nothing follows in this log.
    Close,
    /// Of a later release; proven like the others, its meaning is not known here.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// Its name, as it stands in records and paths.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Genesis => "genesis",
            Kind::Events => "events",
            Kind::Alerts => "alerts",
            Kind::Notices => "notices",
            Kind::Quarantine => "quarantine",
            Kind::Mark => "mark",
            Kind::Gap => "gap",
            Kind::Key => "key",
            Kind::Close => "close",
            Kind::Unknown => "unknown",
        }
    }
}

/// One leaf of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this form.
    pub v: u8,
    /// Its place in the log, from 0.
    pub seq: u64,
    /// What it is about.
    pub kind: Kind,
    /// When it was sealed, RFC 3339.
    pub sealed_at: String,
    /// Which spool the numbers are of: random, made when a writer's state is made.
    pub spool: String,
    /// Up to here the spool had been archived before. Records of one append share both numbers.
    pub after: u64,
    /// Up to here it is archived with the records of this append.
    pub through: u64,
    /// The object that the record vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
    /// What records without an object say, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub says: BTreeMap<String, String>,
}

/// The object of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it lies under the log's prefix.
    pub object: String,
    /// SHA-256 of the object, hexadecimal.
    pub sha256: String,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes of the lines in it, line ends included.
    pub raw_size: u64,
    /// Lines in it.
    pub count: u64,
    /// Root of the RFC 6962 tree over the lines, base64.
    pub event_root: String,
    /// The first line's number in the spool.
    pub first: u64,
    /// The last line's number in the spool.
    pub last: u64,
    /// The least event time, RFC 3339.
    pub t_min: String,
    /// The greatest event time, RFC 3339.
    pub t_max: String,
    /// The cluster that every line is of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// Lines in which a line end was replaced by a space.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rewritten: u64,
    /// Until when the store was told to keep the object, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_until: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// The record's bytes: one line of JSON without its end; `None` when a record would not fit
    /// into an entry bundle.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = serde_json::to_vec(self).ok()?;
        (bytes.len() <= RECORD_BYTES_MAX).then_some(bytes)
    }

    /// Reads a record; `None` when the bytes are none, or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        if bytes.len() > RECORD_BYTES_MAX {
            return None;
        }
        let record: Record = serde_json::from_slice(bytes).ok()?;
        let is_sound = record.segment.as_ref().is_none_or(Segment::is_sound);
        (record.v == VERSION && is_sound).then_some(record)
    }
}

impl Segment {
    /// Whether the object's key can be followed: below `data/`, without steps up or back.
    fn is_sound(&self) -> bool {
        let is_step = |part: &str| part.is_empty() || part == "." || part == "..";
        self.object.starts_with("data/")
            && !self.object.split('/').any(is_step)
            && self.object.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            v: VERSION,
            seq: 7,
            kind: Kind::Mark,
            sealed_at: "2026-11-21T23:00:00.000000Z".into(),
            spool: "00".into(),
            after: 1,
            through: 2,
            segment: None,
            says: BTreeMap::from([("mark".into(), "start".into())]),
        }
    }

    #[test]
    fn records_are_read_back_and_unknown_parts_are_passed_over() {
        let bytes = record().encode().unwrap();
        assert_eq!(Record::decode(&bytes), Some(record()));
        let text = String::from_utf8(bytes).unwrap();
        let later = text.replace("\"mark\",", "\"later\",\"x\":[],");
        assert_eq!(Record::decode(later.as_bytes()).unwrap().kind, Kind::Unknown);
        assert_eq!(Record::decode(text.replace("\"v\":1", "\"v\":2").as_bytes()), None);
    }

    #[test]
    fn a_key_that_leads_out_of_the_archive_is_no_record() {
        for object in
            ["../x", "data/../x", "/data/x", "data//x", "data/a\\b", "data/\n", "commit/1"]
        {
            let segment = Segment {
                object: object.into(),
                sha256: String::new(),
                size: 0,
                raw_size: 0,
                count: 0,
                event_root: String::new(),
                first: 0,
                last: 0,
                t_min: String::new(),
                t_max: String::new(),
                cluster: String::new(),
                rewritten: 0,
                retain_until: None,
            };
            let bytes = Record { segment: Some(segment), ..record() }.encode().unwrap();
            assert_eq!(Record::decode(&bytes), None, "{object}");
        }
    }

    #[test]
    fn a_record_that_no_bundle_holds_is_not_written() {
        let says = BTreeMap::from([("text".into(), "x".repeat(RECORD_BYTES_MAX))]);
        assert_eq!(Record { says, ..record() }.encode(), None);
    }
}
