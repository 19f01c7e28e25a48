//! One event that some rule matched, packed: everything that an alert or a correlation needs of it.
//!
//! Most matched events only feed correlations and never become an alert, so nothing is spelled out
//! before it is asked for. A sighting is packed in two parts: what every matched event is asked
//! for, and its **head**, what only an alert tells of it: the event's bytes without its bodies.
//!
//! ```text
//! u8 stage │ [u8;16] request key │ u16 matches { u32 detection
//!            │ u8 reasons { str field │ str value │ str matched } │ count feeds { feed } }
//! feed: u32 correlation │ u32 member │ u64 key │ u64 value │ u8 flags │ f64 number
//!       count labels { str field │ str value } │ count parents { feed }
//! head: str audit id │ str cluster │ str position │ bytes event
//! ```
//! A `count` is a byte below 255, or 255 and a u32. Integers are little-endian, `str` and `bytes`
//! are a u32 length and the bytes. Detections and correlations are positions in the rule set that
//! made it: whoever keeps a sighting longer than the run keeps that set's table beside it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::alert::Reason;
use crate::alert::context::request_key;
use crate::alert::id::RequestKey;
use crate::engine::correlate::Feed;
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch, explain};
use crate::event::{Event, Slot};

/// A packed event with its matches, spelled out again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// Event time in microseconds since the epoch.
    pub time_us: i64,
    /// The audit stage.
    pub stage: Stage,
    /// The request that the event is a stage of.
    pub request_key: RequestKey,
    /// The detections that matched, ascending.
    pub matches: Vec<Match>,
    /// What an alert tells of it; empty where it is kept elsewhere.
    pub head: Head,
}

/// What alerts tell of an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// `auditID`, cut to [`AUDIT_ID_CHARS_MAX`] characters: clients choose it, at any length.
    pub audit_id: String,
    /// The cluster's name.
    pub cluster: String,
    /// Where the event was read.
    pub position: String,
    /// The event without its bodies.
    pub event: Vec<u8>,
}

/// One detection that matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The detection's position in the engine.
    pub detection: u32,
    /// Why it matched, redacted; empty where the rule raises no alerts itself.
    pub reasons: Vec<Reason>,
    /// The correlations it feeds.
    pub feeds: Vec<Feed>,
}

/// An audit stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The event was cut before its stage, or names another one.
    #[default]
    Unknown,
    /// Before the request is handled.
    RequestReceived,
    /// Headers are sent: sessions, watches, refused authentications.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The API server panicked.
    Panic,
}

/// Every stage with its name, in the order of the enum.
const STAGES: [(Stage, &str); 5] = [
    (Stage::Unknown, ""),
    (Stage::RequestReceived, "RequestReceived"),
    (Stage::ResponseStarted, "ResponseStarted"),
    (Stage::ResponseComplete, "ResponseComplete"),
    (Stage::Panic, "Panic"),
];

impl Stage {
    /// Kubernetes' name of the stage; empty for [`Stage::Unknown`].
    pub fn as_str(self) -> &'static str {
        STAGES[self as usize].1
    }

    /// Whether another stage of the same request can follow.
    pub fn is_open(self) -> bool {
        matches!(self, Stage::RequestReceived | Stage::ResponseStarted)
    }

    fn of(event: &Event<'_>) -> Stage {
        let name = event.plain(Slot::Stage).unwrap_or_default();
        STAGES.iter().find(|(_, known)| known.as_bytes() == name).map_or(Stage::Unknown, |s| s.0)
    }
}

/// Longer audit ids are cut in alerts; the request key has the whole.
pub const AUDIT_ID_CHARS_MAX: usize = 4_096;

/// So much of an event without its bodies is packed; kube-apiserver's own are a few thousand bytes.
pub const EVENT_BYTES_MAX: usize = 256 << 10;

/// Packs an event with the detections that `Engine::evaluate` just found with this scratch, and its
/// head, behind what `bytes` holds. `shown` is what alerts are made of: the event itself, or a
/// redacted copy.
pub fn pack(
    engine: &Engine,
    (event, shown): (&Event<'_>, &Event<'_>),
    matched: &[u32],
    (cluster, position): (&str, &str),
    scratch: &mut Scratch,
    bytes: &mut Vec<u8>,
) {
    pack_matches(engine, event, matched, cluster, scratch, None, bytes);
    pack_head(shown, cluster, &mut |bytes| bytes.extend_from_slice(position.as_bytes()), bytes);
}

/// Packs an event without its head. Returns whether what is raised later may depend on it: it feeds
/// a correlation, or another stage of its request can follow.
///
/// Why the detections matched that raise alerts goes to `told` where there is one, with their
/// places in `matched`; else it is packed.
pub fn pack_matches(
    engine: &Engine,
    event: &Event<'_>,
    matched: &[u32],
    cluster: &str,
    scratch: &mut Scratch,
    mut told: Option<&mut Vec<(usize, Vec<Reason>)>>,
    bytes: &mut Vec<u8>,
) -> bool {
    let stage = Stage::of(event);
    let mut is_kept = stage.is_open();
    bytes.push(stage as u8);
    bytes.extend_from_slice(&request_key(event, cluster).0);
    let matched = &matched[..matched.len().min(usize::from(u16::MAX))];
    bytes.extend_from_slice(&(matched.len() as u16).to_le_bytes());
    let subject = Subject::Audit(event);
    for (place, &detection) in matched.iter().enumerate() {
        bytes.extend_from_slice(&detection.to_le_bytes());
        let mut reasons = Vec::new();
        if engine.detection(detection).alerts {
            reasons = reasons_of(engine, event, detection, scratch);
            if let Some(told) = &mut told {
                told.push((place, std::mem::take(&mut reasons)));
            }
        }
        put_reasons(bytes, &reasons);
        let feeds = engine.feeds(detection, subject, cluster, scratch);
        is_kept |= !feeds.is_empty();
        put_feeds(bytes, &feeds);
    }
    is_kept
}

/// Why a detection matched, as it may be shown.
fn reasons_of(
    engine: &Engine,
    event: &Event<'_>,
    detection: u32,
    scratch: &mut Scratch,
) -> Vec<Reason> {
    let resource = event.text(Slot::Resource).unwrap_or_default();
    let reasons = engine.reasons(detection, Subject::Audit(event), scratch).into_iter();
    let shown = reasons.map(|explain::Reason { field, value, matched }| {
        let value = scratch.redact(&field, &resource, &value).into_owned();
        Reason { field, value, matched }
    });
    shown.collect()
}

fn put_reasons(bytes: &mut Vec<u8>, reasons: &[Reason]) {
    bytes.push(reasons.len() as u8);
    for Reason { field, value, matched } in reasons {
        put(bytes, field.as_bytes());
        put(bytes, value.as_bytes());
        put(bytes, matched.as_bytes());
    }
}

/// Packs the head of an event; `put_position` adds where it was read.
pub fn pack_head(
    shown: &Event<'_>,
    cluster: &str,
    put_position: &mut dyn FnMut(&mut Vec<u8>),
    bytes: &mut Vec<u8>,
) {
    pack_audit_id(shown, bytes);
    put(bytes, cluster.as_bytes());
    put_with(bytes, put_position);
    put_with(bytes, &mut |bytes| put_event(bytes, shown));
}

/// Packs what alerts show as an event's audit id.
pub fn pack_audit_id(shown: &Event<'_>, bytes: &mut Vec<u8>) {
    put(bytes, audit_id(shown).as_bytes());
}

/// The text that [`pack_audit_id`] wrote, which the head of a sighting begins with, too.
pub fn unpack_audit_id(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(Reader { bytes }.part()?).ok()
}

/// The audit id of an event, cut to [`AUDIT_ID_CHARS_MAX`] characters.
fn audit_id<'e>(event: &Event<'e>) -> Cow<'e, str> {
    let whole = event.text(Slot::AuditId).unwrap_or_default();
    if whole.len() <= AUDIT_ID_CHARS_MAX {
        return whole;
    }
    match whole.char_indices().nth(AUDIT_ID_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(whole[..end].to_owned()),
        None => whole,
    }
}

/// Puts the bytes behind their length (u32, little-endian).
pub(crate) fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    bytes.extend_from_slice(part);
}

/// Puts what `add` adds, behind its length (u32, little-endian).
pub fn put_with(bytes: &mut Vec<u8>, add: &mut dyn FnMut(&mut Vec<u8>)) {
    let length_at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    add(bytes);
    let length = (bytes.len() - length_at - 4) as u32;
    bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// The event's bytes with `null` in place of the bodies.
fn put_event(bytes: &mut Vec<u8>, event: &Event<'_>) {
    let raw = event.raw();
    let event_at = bytes.len();
    let mut at = 0;
    for (start, end) in event.bodies() {
        bytes.extend_from_slice(&raw[at..start]);
        bytes.extend_from_slice(b"null");
        at = end;
    }
    bytes.extend_from_slice(&raw[at..]);
    // An event whose metadata alone is that long is cut: what an alert says of it stands before.
    bytes.truncate(event_at + EVENT_BYTES_MAX.min(bytes.len() - event_at));
}

/// Puts a count: one byte, or from 255 on that byte and four more.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    match u8::try_from(count) {
        Ok(count) if count < u8::MAX => bytes.push(count),
        _ => {
            bytes.push(u8::MAX);
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
    }
}

fn put_feeds(bytes: &mut Vec<u8>, feeds: &[Feed]) {
    put_count(bytes, feeds.len());
    for feed in feeds {
        bytes.extend_from_slice(&feed.correlation.to_le_bytes());
        bytes.extend_from_slice(&feed.member.to_le_bytes());
        bytes.extend_from_slice(&feed.key.to_le_bytes());
        bytes.extend_from_slice(&feed.value.to_le_bytes());
        bytes.push(u8::from(feed.number.is_some()) | u8::from(feed.is_valueless) << 1);
        bytes.extend_from_slice(&feed.number.unwrap_or_default().to_le_bytes());
        put_count(bytes, feed.labels.len());
        for (field, value) in &feed.labels {
            put(bytes, field.as_bytes());
            put(bytes, value.as_bytes());
        }
        put_feeds(bytes, &feed.parents);
    }
}

impl Sighting {
    /// Unpacks what [`pack`] wrote, into the buffers of an earlier sighting; `None` when the bytes
    /// are none.
    pub fn unpack(&mut self, bytes: &[u8], time_us: i64) -> Option<()> {
        let head = self.unpack_matches(bytes, time_us)?;
        self.head.unpack(head)
    }

    /// Unpacks what [`pack_matches`] wrote; returns the bytes behind it. The head stays as it is.
    pub fn unpack_matches<'b>(&mut self, bytes: &'b [u8], time_us: i64) -> Option<&'b [u8]> {
        let mut reader = Reader { bytes };
        self.time_us = time_us;
        self.stage = STAGES.get(usize::from(reader.byte()?))?.0;
        self.request_key = RequestKey(reader.array()?);
        let matches = usize::from(u16::from_le_bytes(reader.array()?));
        self.matches.clear();
        for _ in 0..matches {
            self.matches.push(reader.found()?);
        }
        Some(reader.bytes)
    }
}

impl Head {
    /// The head of an event that stood at `position`.
    pub fn new(shown: &Event<'_>, cluster: &str, position: &str) -> Head {
        let mut event = Vec::new();
        put_event(&mut event, shown);
        Head {
            audit_id: audit_id(shown).into_owned(),
            cluster: cluster.to_owned(),
            position: position.to_owned(),
            event,
        }
    }

    /// Packs it as [`pack_head`] packs the head of an event.
    pub fn pack(&self, bytes: &mut Vec<u8>) {
        for part in [self.audit_id.as_bytes(), self.cluster.as_bytes(), self.position.as_bytes()] {
            put(bytes, part);
        }
        put(bytes, &self.event);
    }

    /// Unpacks what [`pack_head`] wrote, into the buffers of an earlier head; `None` when the bytes
    /// are none.
    pub fn unpack(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes };
        reader.text_into(&mut self.audit_id)?;
        reader.text_into(&mut self.cluster)?;
        reader.text_into(&mut self.position)?;
        self.event.clear();
        self.event.extend_from_slice(reader.part()?);
        Some(())
    }
}

/// Reads what was packed, part by part.
pub(crate) struct Reader<'r> {
    /// What is left.
    pub(crate) bytes: &'r [u8],
}

impl<'r> Reader<'r> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn part(&mut self) -> Option<&'r [u8]> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (part, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(part)
    }

    fn text_into(&mut self, text: &mut String) -> Option<()> {
        text.clear();
        text.push_str(std::str::from_utf8(self.part()?).ok()?);
        Some(())
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        Some(std::str::from_utf8(self.part()?).ok()?.to_owned())
    }

    fn count(&mut self) -> Option<u32> {
        match self.byte()? {
            u8::MAX => Some(u32::from_le_bytes(self.array()?)),
            count => Some(u32::from(count)),
        }
    }

    fn found(&mut self) -> Option<Match> {
        let detection = u32::from_le_bytes(self.array()?);
        let mut reasons = Vec::new();
        for _ in 0..self.byte()? {
            let (field, value, matched) = (self.text()?, self.text()?, self.text()?);
            reasons.push(Reason { field, value, matched });
        }
        Some(Match { detection, reasons, feeds: self.feeds()? })
    }

    fn feeds(&mut self) -> Option<Vec<Feed>> {
        let mut feeds = Vec::new();
        for _ in 0..self.count()? {
            let correlation = u32::from_le_bytes(self.array()?);
            let member = u32::from_le_bytes(self.array()?);
            let key = u64::from_le_bytes(self.array()?);
            let value = u64::from_le_bytes(self.array()?);
            let flags = self.byte()?;
            let number = f64::from_le_bytes(self.array()?);
            let mut labels = Vec::new();
            for _ in 0..self.count()? {
                labels.push((self.text()?, self.text()?));
            }
            feeds.push(Feed {
                correlation,
                member,
                key,
                value,
                number: (flags & 1 != 0).then_some(number),
                is_valueless: flags & 2 != 0,
                labels,
                parents: self.feeds()?,
            });
        }
        Some(feeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_come_back_however_many_there_are() {
        for count in [0, 1, 254, 255, 256, 300, 70_000] {
            let labels = (0..count).map(|number| (format!("f{number}"), "v".to_owned())).collect();
            let feed = |number: u32| Feed {
                correlation: number,
                member: 0,
                key: 7,
                labels: Vec::new(),
                value: 0,
                number: None,
                is_valueless: false,
                parents: Vec::new(),
            };
            let parents = (0..count).map(feed).collect();
            let feeds = vec![Feed { labels, parents, ..feed(1) }];
            let mut bytes = Vec::new();
            put_feeds(&mut bytes, &feeds);
            let mut reader = Reader { bytes: &bytes };
            assert_eq!(reader.feeds(), Some(feeds), "{count}");
            assert!(reader.bytes.is_empty());
        }
    }
}
