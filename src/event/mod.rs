//! `Event`: one audit.k8s.io/v1 event over its raw bytes.
//!
//! Parsing is one scan that remembers where the fields stand that nearly every rule asks for
//! ([`Slot`]); big subtrees (bodies, annotations, extras) are found, not read. Nothing is copied
//! and nothing is allocated, so an event that no rule is interested in costs its bytes and no more.

pub mod actor;
pub mod shape;
pub mod derived;
pub mod json;
pub mod identity;
pub mod redact;
pub mod scan;
pub mod time;
pub mod value;
pub mod reject;
pub mod split;
pub(crate) mod envelope;
pub(crate) mod salvage;
pub mod line;
pub(crate) mod csv;
pub(crate) mod pieces;
pub(crate) mod gke;
pub(crate) mod aks;
pub(crate) mod texts;
pub(crate) mod otlp;
pub mod decode;

use std::borrow::Cow;

use crate::event::value::Value;

/// Audit levels.
pub const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

/// Stages of a request.
pub const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// A field that the scan remembers; in the order in which kube-apiserver writes them
/// (`k8s.io/apiserver/pkg/apis/audit/v1`, struct `Event`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the audit field of that name, see Slot::path")]
pub enum Slot {
    Kind,
    ApiVersion,
    Level,
    AuditId,
    Stage,
    RequestUri,
    Verb,
    User,
    Username,
    UserUid,
    UserGroups,
    UserExtra,
    ImpersonatedUser,
    AuthenticationMetadata,
    SourceIps,
    UserAgent,
    ObjectRef,
    Resource,
    Namespace,
    Name,
    ObjectUid,
    ApiGroup,
    ObjectApiVersion,
    ResourceVersion,
    Subresource,
    ResponseStatus,
    StatusStatus,
    StatusMessage,
    StatusReason,
    StatusDetails,
    StatusCode,
    RequestObject,
    ResponseObject,
    RequestReceivedTimestamp,
    StageTimestamp,
    Annotations,
}

impl Slot {
    /// How many slots there are.
    pub const COUNT: usize = Slot::ALL.len();

    /// Every slot with the path by which rules name it.
    pub const ALL: [(Slot, &'static str); 36] = [
        (Slot::Kind, "kind"),
        (Slot::ApiVersion, "apiVersion"),
        (Slot::Level, "level"),
        (Slot::AuditId, "auditID"),
        (Slot::Stage, "stage"),
        (Slot::RequestUri, "requestURI"),
        (Slot::Verb, "verb"),
        (Slot::User, "user"),
        (Slot::Username, "user.username"),
        (Slot::UserUid, "user.uid"),
        (Slot::UserGroups, "user.groups"),
        (Slot::UserExtra, "user.extra"),
        (Slot::ImpersonatedUser, "impersonatedUser"),
        (Slot::AuthenticationMetadata, "authenticationMetadata"),
        (Slot::SourceIps, "sourceIPs"),
        (Slot::UserAgent, "userAgent"),
        (Slot::ObjectRef, "objectRef"),
        (Slot::Resource, "objectRef.resource"),
        (Slot::Namespace, "objectRef.namespace"),
        (Slot::Name, "objectRef.name"),
        (Slot::ObjectUid, "objectRef.uid"),
        (Slot::ApiGroup, "objectRef.apiGroup"),
        (Slot::ObjectApiVersion, "objectRef.apiVersion"),
        (Slot::ResourceVersion, "objectRef.resourceVersion"),
        (Slot::Subresource, "objectRef.subresource"),
        (Slot::ResponseStatus, "responseStatus"),
        (Slot::StatusStatus, "responseStatus.status"),
        (Slot::StatusMessage, "responseStatus.message"),
        (Slot::StatusReason, "responseStatus.reason"),
        (Slot::StatusDetails, "responseStatus.details"),
        (Slot::StatusCode, "responseStatus.code"),
        (Slot::RequestObject, "requestObject"),
        (Slot::ResponseObject, "responseObject"),
        (Slot::RequestReceivedTimestamp, "requestReceivedTimestamp"),
        (Slot::StageTimestamp, "stageTimestamp"),
        (Slot::Annotations, "annotations"),
    ];

    /// Those that are members of the event itself, with their keys.
    const MEMBERS: [(Slot, &'static str); 19] = {
        let mut members = [Slot::ALL[0]; 19];
        let (mut slot, mut count) = (0, 0);
        while slot < Slot::COUNT {
            if is_key(Slot::ALL[slot].1.as_bytes()) {
                members[count] = Slot::ALL[slot];
                count += 1;
            }
            slot += 1;
        }
        assert!(count == members.len(), "every member has its place");
        members
    };

    /// The path by which rules name the field.
    pub fn path(self) -> &'static str {
        Slot::ALL[self as usize].1
    }

    /// The slot whose path this is.
    pub fn of_path(path: &str) -> Option<Slot> {
        Slot::ALL.iter().find(|(_, name)| *name == path).map(|(slot, _)| *slot)
    }
}

/// Whether a path is one key.
const fn is_key(path: &[u8]) -> bool {
    let mut at = 0;
    while at < path.len() && path[at] != b'.' {
        at += 1;
    }
    at == path.len()
}

/// One audit event over its raw bytes.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    raw: &'a [u8],
    spans: [Span; Slot::COUNT],
    is_partial: bool,
}

/// Where a value stands in the raw bytes; an empty span is an absent field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    /// Length, with the highest bit set where the value is a string that holds escapes.
    length: u32,
}

const ESCAPED: u32 = 1 << 31;

/// Where a value starts in the raw bytes, and where it ends.
pub(crate) type Place = (usize, usize);

/// Bytes that are not one whole audit event, and where reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the first byte that could not be used.
    pub offset: usize,
    /// What is wrong there.
    pub kind: MalformedKind,
}

/// What is wrong with bytes that are not one whole audit event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedKind {
    /// The first byte opens no JSON object.
    NotAnObject,
    /// A byte that JSON does not allow there.
    Syntax,
    /// The bytes end inside the object.
    Truncated,
    /// A complete object, and more bytes behind it.
    Trailing,
    /// A body nests deeper than [`json::DEPTH_MAX`].
    TooDeep,
    /// A JSON object, but no audit event: another kind, or without auditID, stage and verb.
    NotAnAuditEvent,
    /// More than 2 GiB: the spans of an event count in 31 bits.
    TooLong,
}

impl<'a> Event<'a> {
    /// Reads bytes that are exactly one event (blanks around it allowed).
    ///
    /// Unknown keys are kept in the raw bytes and skipped; of repeated keys the last one counts, as
    /// Go's decoder has it.
    pub fn parse(raw: &'a [u8]) -> Result<Event<'a>, Malformed> {
        let mut event = Event::empty(raw);
        scan::scan(&mut event)?;
        if !event.is_audit() {
            return Err(Malformed { offset: 0, kind: MalformedKind::NotAnAuditEvent });
        }
        Ok(event)
    }

    /// Reads what stands before the first malformed byte: kube-apiserver writes its fields in one
    /// fixed order, so everything before a cut is as good as in a whole event. `None` when not even
    /// an audit id or a verb was there. The event says [`Event::is_partial`].
    pub fn salvage(raw: &'a [u8]) -> Option<Event<'a>> {
        let mut event = Event::empty(raw);
        event.is_partial = scan::scan(&mut event).is_err();
        let is_useful = event.slot(Slot::AuditId).is_some() || event.slot(Slot::Verb).is_some();
        (is_useful && event.is_of_audit_kind()).then_some(event)
    }

    fn empty(raw: &'a [u8]) -> Event<'a> {
        Event { raw, spans: [Span::default(); Slot::COUNT], is_partial: false }
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether something is missing: the event was cut, or a part could not be read.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Marks the event as one of which something is missing.
    pub fn set_partial(&mut self) {
        self.is_partial = true;
    }

    /// The value in a slot; `None` when the event has no such field.
    #[inline]
    pub fn slot(&self, slot: Slot) -> Option<Value<'a>> {
        let span = self.spans[slot as usize];
        if span.length == 0 {
            return None;
        }
        let start = span.start as usize;
        let end = start + (span.length & !ESCAPED) as usize;
        Some(Value::new(&self.raw[start..end], span.length & ESCAPED != 0))
    }

    /// Where a slot's value stands in the raw bytes: its start and its end.
    pub fn range(&self, slot: Slot) -> Option<(usize, usize)> {
        let span = self.spans[slot as usize];
        let start = span.start as usize;
        (span.length != 0).then(|| (start, start + (span.length & !ESCAPED) as usize))
    }

    /// Where the value of a member of the event ends that starts at this offset of the raw bytes;
    /// `None` where the scan does not remember it. The slots are looked through from `near` on,
    /// which is left behind the one that was found: values are asked for in their order.
    pub(crate) fn end_of_value(&self, start: usize, near: &mut usize) -> Option<usize> {
        let start = u32::try_from(start).ok()?;
        let is_it = |span: &Span| span.start == start && span.length != 0;
        // Those inside of a member start behind it.
        let (before, behind) = self.spans.split_at_checked(*near)?;
        let found = behind.iter().position(is_it).map(|place| *near + place);
        let found = found.or_else(|| before.iter().position(is_it))?;
        *near = found + 1;
        Some((start + (self.spans[found].length & !ESCAPED)) as usize)
    }

    /// The member of the event whose key starts at this offset of the raw bytes, and where its
    /// value stands, if it is the next one from the slot `near` on and spelled as kube-apiserver
    /// spells it; `near` is then left behind it.
    #[inline]
    pub(crate) fn expected_member(&self, at: usize, near: &mut usize) -> Option<(Slot, Place)> {
        let mut rest = Slot::MEMBERS.iter().filter(|(slot, _)| *slot as usize >= *near);
        let &(slot, key) = rest.find(|(slot, _)| self.spans[*slot as usize].length != 0)?;
        let (start, end) = self.range(slot)?;
        let spelled = self.raw.get(at..start)?;
        let inner = spelled.strip_prefix(b"\"")?.strip_suffix(b"\":")?;
        if inner != key.as_bytes() {
            return None;
        }
        *near = slot as usize + 1;
        Some((slot, (start, end)))
    }

    /// Where requestObject and responseObject stand in the raw bytes, in the order of the bytes.
    pub fn bodies(&self) -> Vec<(usize, usize)> {
        let slots = [Slot::RequestObject, Slot::ResponseObject];
        let mut bodies: Vec<_> = slots.into_iter().filter_map(|slot| self.range(slot)).collect();
        bodies.sort_unstable();
        bodies
    }

    /// The text of a string, number or boolean in a slot.
    pub fn text(&self, slot: Slot) -> Option<Cow<'a, str>> {
        self.slot(slot)?.text()
    }

    /// The bytes of a string slot when nothing in it is escaped; for comparisons on the hot path.
    #[inline]
    pub fn plain(&self, slot: Slot) -> Option<&'a [u8]> {
        self.slot(slot)?.plain()
    }

    /// The HTTP status code.
    pub fn code(&self) -> Option<u16> {
        let digits = self.plain(Slot::StatusCode)?;
        if let [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] = digits {
            return Some(digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')));
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Event time: `stageTimestamp`, else `requestReceivedTimestamp`; microseconds since the epoch.
    pub fn time_us(&self) -> Option<i64> {
        self.timestamp(Slot::StageTimestamp)
            .or_else(|| self.timestamp(Slot::RequestReceivedTimestamp))
    }

    /// A timestamp slot in microseconds since the epoch; `None` when absent, null or no time (see
    /// [`time::parse_any_us`]).
    pub fn timestamp(&self, slot: Slot) -> Option<i64> {
        let value = self.slot(slot)?;
        time::parse_any_us(value.plain().unwrap_or(value.raw()))
    }

    /// The annotation of this key.
    pub fn annotation(&self, key: &str) -> Option<Cow<'a, str>> {
        self.slot(Slot::Annotations)?.member(key)?.text()
    }

    /// The first value of a `user.extra` key.
    pub fn user_extra(&self, key: &str) -> Option<Cow<'a, str>> {
        self.slot(Slot::UserExtra)?.member(key)?.elements().next()?.text()
    }

    fn is_audit(&self) -> bool {
        let has = |slot| self.slot(slot).is_some();
        has(Slot::AuditId) && has(Slot::Stage) && has(Slot::Verb) && self.is_of_audit_kind()
    }

    /// Items of an EventList carry no kind; where there is one it must be right.
    fn is_of_audit_kind(&self) -> bool {
        let version = self.plain(Slot::ApiVersion);
        self.plain(Slot::Kind).is_none_or(|kind| kind == b"Event")
            && version.is_none_or(|version| version.starts_with(b"audit.k8s.io/"))
    }

    fn set(&mut self, slot: Slot, start: usize, end: usize, is_escaped: bool) {
        // `scan` refuses inputs whose offsets would not fit.
        let length = (end - start) as u32 | if is_escaped { ESCAPED } else { 0 };
        self.spans[slot as usize] = Span { start: start as u32, length };
    }

    fn clear(&mut self, slot: Slot) {
        self.spans[slot as usize] = Span::default();
    }
}
