//! Told by its keys: what a JSON object is that stands where an audit event may stand.

use std::borrow::Cow;
use std::ops::Range;

use crate::event::json::{skip_blank, skip_string, skip_value};
use crate::event::split::value_end;
use crate::event::value::{Value, unescape};
use crate::event::{LEVELS, STAGES};

/// A member of an object that may be cut.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    /// The key as written between its quotes.
    pub(crate) key: &'a [u8],
    /// Where the value stands; up to the end of the bytes when it is cut.
    pub(crate) value: Range<usize>,
    /// Whether the value's end was there.
    pub(crate) is_complete: bool,
}

/// Walks the top-level members of an object, of any depth; a cut value is the last.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Of the object that these bytes start with, behind blanks.
    pub(crate) fn of(bytes: &'a [u8]) -> Fields<'a> {
        let start = skip_blank(bytes, 0);
        let at = if bytes.get(start) == Some(&b'{') { start + 1 } else { bytes.len() };
        Fields { bytes, at }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let bytes = self.bytes;
        let mut at = skip_blank(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_blank(bytes, at + 1);
        }
        self.at = bytes.len();
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (behind_key, _) = skip_string(bytes, at).ok()?;
        let key = &bytes[at + 1..behind_key - 1];
        let colon = skip_blank(bytes, behind_key);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_blank(bytes, colon + 1);
        let end = match bytes.get(start)? {
            b'{' | b'[' => value_end(bytes, start),
            _ => skip_value(bytes, start).ok(),
        };
        let is_complete = end.is_some();
        let end = end.unwrap_or(bytes.len());
        self.at = end;
        Some(Field { key, value: start..end, is_complete })
    }
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An audit event, with or without `kind`.
    Event,
    /// One whose members a log store has flattened (`user.username`): who did it could not be told.
    Flat,
    /// A document whose array of events opens at this offset.
    List(usize),
    /// A member that holds an event, an envelope, or text: where, and in which form.
    Holds(Range<usize>, Form),
    /// An AKS diagnostic record.
    Aks,
    /// A row of the tables `AKSAudit` and `AKSAuditAdmin`.
    AksTable,
    /// A Google Cloud LogEntry.
    Gke,
    /// An object that is none of these.
    Unknown,
}

/// How the member of an envelope holds what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON or text in a string.
    Text,
    /// A line in a string, or a piece of one.
    Piece,
    /// Base64, maybe of gzip.
    Base64,
    /// A nested object.
    Object,
    /// An object as OTLP's list of keys and values.
    KeyValues,
}

/// Tells what an object is. Only what names itself an audit event is one whatever a shipper has put
/// before; else the first known key whose member speaks of audit events decides, then the only
/// member of another name that is an event, then the first known key.
pub(crate) fn shape(bytes: &[u8]) -> Shape {
    let (mut decided, mut holder, mut other) = (None, None, Other::None);
    let mut names = Names::default();
    for field in Fields::of(bytes) {
        names.note(bytes, &field);
        let shape = decides(bytes, &field);
        if decided.is_none() && shape == Some(Shape::Event) && field.key == b"level" {
            // An element of an EventList begins so, and there are many.
            return Shape::Event;
        }
        match &shape {
            Some(shape) if holder.is_none() && holds(bytes, &field, shape) => {
                holder = Some(shape.clone());
            }
            None => other.note(bytes, &field),
            _ => {}
        }
        decided = decided.or(shape);
    }
    let is_event = names.is_event() || decided == Some(Shape::Event);
    let is_flat = is_event && names.is_flat && !names.has_user;
    match (decided, holder) {
        // Members of an event that a shipper copied to beside it.
        (_, Some(holder)) if is_event && (is_flat || !names.has_request) => holder,
        _ if is_flat => Shape::Flat,
        _ if is_event => Shape::Event,
        (_, Some(holder)) => holder,
        (decided, None) => other.only().or(decided).unwrap_or(Shape::Unknown),
    }
}

/// Whether a member of a known name speaks of audit events.
fn holds(bytes: &[u8], field: &Field<'_>, shape: &Shape) -> bool {
    const SURE: [&[u8]; 4] =
        [b"protoPayload", b"textPayload", b"jsonPayload", b"protopayload_auditlog"];
    match shape {
        Shape::Event | Shape::Flat | Shape::Unknown | Shape::Holds(_, Form::Base64) => false,
        Shape::AksTable => true,
        // Of a Google Cloud entry's own names the others do not say what it holds.
        Shape::Gke => SURE.contains(&field.key),
        // GELF has the beginning of the message in one member and the whole in another.
        _ if field.key == b"short_message" => false,
        Shape::List(_) | Shape::Holds(..) | Shape::Aks => {
            speaks_of_audit(&bytes[field.value.clone()])
        }
    }
}

/// The members of names that nobody knows which are events.
enum Other {
    None,
    One(Shape),
    /// Which of them is the event cannot be told.
    Several,
}

impl Other {
    fn note(&mut self, bytes: &[u8], field: &Field<'_>) {
        if let Some(shape) = other(bytes, field) {
            *self = match self {
                Other::None => Other::One(shape),
                Other::One(_) | Other::Several => Other::Several,
            };
        }
    }

    fn only(self) -> Option<Shape> {
        match self {
            Other::One(shape) => Some(shape),
            Other::None | Other::Several => None,
        }
    }
}

/// A member of any name that is an event itself, not one that mentions events; none under a name
/// whose values are the client's.
fn other(bytes: &[u8], field: &Field<'_>) -> Option<Shape> {
    /// In small letters, without what stands between words.
    const CLIENTS: [&[u8]; 9] = [
        b"agent",
        b"request",
        b"response",
        b"annotation",
        b"label",
        b"metadata",
        b"user",
        b"objectref",
        b"kubernetes",
    ];
    let letters = field.key.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let key: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
    let value = &bytes[field.value.clone()];
    if CLIENTS.iter().any(|name| memchr::memmem::find(&key, name).is_some())
        || !speaks_of_audit(value)
    {
        return None;
    }
    let range = field.value.clone();
    match value.first()? {
        b'{' => {
            let is_event = Fields::of(value).any(|field| field.key == b"auditID");
            is_event.then_some(Shape::Holds(range, Form::Object))
        }
        b'"' => {
            let text = value[1..].trim_ascii_start();
            text.starts_with(b"{").then_some(Shape::Holds(range, Form::Text))
        }
        _ => None,
    }
}

/// What an object is by one of its members; `None` when it can be anything.
fn decides(bytes: &[u8], field: &Field<'_>) -> Option<Shape> {
    let range = || field.value.clone();
    Some(match (field.key, bytes.get(field.value.start)) {
        (b"auditID" | b"level" | b"stage" | b"requestURI" | b"verb" | b"objectRef", _) => {
            return (!is_of_shipper(bytes, field)).then_some(Shape::Event);
        }
        (b"kind", Some(b'"')) if bytes[range()] == *b"\"Event\"" => Shape::Event,
        (b"items" | b"records" | b"logEvents" | b"events", Some(b'[')) => {
            Shape::List(field.value.start)
        }
        (b"awslogs" | b"message", Some(b'{')) => Shape::Holds(range(), Form::Object),
        (b"message" | b"short_message" | b"full_message" | b"log_s" | b"@message", Some(b'"')) => {
            Shape::Holds(range(), Form::Text)
        }
        (b"log", Some(b'"')) => Shape::Holds(range(), Form::Piece),
        (b"data" | b"Data" | b"data_base64" | b"rawData", Some(b'"')) => {
            let is_text = speaks_of_audit(&bytes[range()]);
            Shape::Holds(range(), if is_text { Form::Text } else { Form::Base64 })
        }
        (b"kinesis", Some(b'{')) => Shape::Holds(range(), Form::Object),
        (b"Records", Some(b'[')) => Shape::List(field.value.start),
        (b"StageReceivedTime", Some(b'"')) => Shape::AksTable,
        (b"category" | b"operationName" | b"properties", _) => Shape::Aks,
        (b"protoPayload" | b"insertId" | b"logName", _) => Shape::Gke,
        (b"textPayload" | b"jsonPayload" | b"protopayload_auditlog", _) => Shape::Gke,
        (key, Some(first)) => return exported(key, *first, bytes, range()),
        (_, None) => return None,
    })
}

/// Where the arrays of events of a document open.
pub(crate) fn lists(bytes: &[u8]) -> impl Iterator<Item = usize> {
    Fields::of(bytes).filter_map(|field| match decides(bytes, &field) {
        Some(Shape::List(open)) => Some(open),
        _ => None,
    })
}

/// What an object is by a member under whose name log stores and collectors hand out what they were
/// given. The names say little, so what they hold must speak of audit events: Elasticsearch
/// (`hits`, `_source`; the Elastic Agent's `kubernetes.audit`), Splunk (`results`, `result`,
/// `_raw`, `event`), Loki (`data.result[].values`, `line`), OTLP (`resourceLogs` down to
/// `body.stringValue` and `body.kvlistValue`), journald (`MESSAGE`), CloudEvents (`data`), Filebeat
/// (`json`), Kafka's tools (`payload`, `value`), Fluentd (`log`), Datadog (`attributes`).
fn exported(key: &[u8], first: u8, bytes: &[u8], range: Range<usize>) -> Option<Shape> {
    let shape = match (key, first) {
        (b"hits" | b"results" | b"result" | b"values", b'[')
        | (b"resourceLogs" | b"scopeLogs" | b"logRecords", b'[') => Shape::List(range.start),
        (b"hits" | b"_source" | b"result" | b"data" | b"event" | b"body" | b"audit", b'{')
        | (b"json" | b"payload" | b"value" | b"log" | b"record" | b"attributes", b'{')
        | (b"@message" | b"log_processed" | b"logContent", b'{') => {
            Shape::Holds(range.clone(), Form::Object)
        }
        (b"kvlistValue", b'{') => Shape::Holds(range.clone(), Form::KeyValues),
        // Others tell there whose log it is.
        (b"kubernetes", b'{') => {
            let audit = Fields::of(&bytes[range.clone()]).find(|field| field.key == b"audit")?;
            let audit = range.start + audit.value.start..range.start + audit.value.end;
            return exported(b"audit", *bytes.get(audit.start)?, bytes, audit);
        }
        (b"_raw" | b"line" | b"MESSAGE" | b"stringValue" | b"event" | b"body", b'"')
        | (b"payload" | b"value" | b"original", b'"') => Shape::Holds(range.clone(), Form::Text),
        _ => return None,
    };
    speaks_of_audit(&bytes[range]).then_some(shape)
}

/// Whether the bytes name what every event has in it, of the API server or of Google Cloud. The
/// word audit alone stands in paths of log files and names of datasets, too.
pub(crate) fn speaks_of_audit(bytes: &[u8]) -> bool {
    let has = |name: &[u8]| memchr::memmem::find(bytes, name).is_some();
    has(b"auditID")
        || has(b"cloudaudit.googleapis.com")
        || has(b"google.cloud.audit.AuditLog")
        || has(b"StageReceivedTime")
}

/// The members by which an object says itself that it is an audit event.
#[derive(Debug, Default)]
struct Names {
    has_kind: bool,
    has_version: bool,
    has_id: bool,
    has_request: bool,
    has_user: bool,
    is_flat: bool,
}

/// What members begin with that were members of members.
const FLAT: [&[u8]; 4] = [b"user.", b"user_username", b"objectRef.", b"objectRef_"];

impl Names {
    fn note(&mut self, bytes: &[u8], field: &Field<'_>) {
        let value = &bytes[field.value.clone()];
        match field.key {
            b"kind" => self.has_kind = value == b"\"Event\"",
            b"apiVersion" => self.has_version = value.starts_with(b"\"audit.k8s.io/"),
            b"auditID" => self.has_id = true,
            b"user" => (self.has_user, self.has_request) = (true, true),
            b"requestURI" | b"objectRef" => self.has_request = true,
            key => self.is_flat |= FLAT.iter().any(|flat| key.starts_with(flat)),
        }
    }

    fn is_event(&self) -> bool {
        self.has_kind && self.has_version && self.has_id
    }
}

/// Log shippers put a `level` (`info`) or `stage` (`prod`) of their own beside the message; only
/// the API server's count.
fn is_of_shipper(bytes: &[u8], field: &Field<'_>) -> bool {
    let known = match field.key {
        b"level" => LEVELS,
        b"stage" => STAGES,
        _ => return false,
    };
    let value = bytes[field.value.clone()].strip_prefix(b"\"");
    let word = value.and_then(|value| value.strip_suffix(b"\""));
    field.is_complete && !known.iter().any(|known| word == Some(known.as_bytes()))
}

/// The text of a member with this key, wherever it stands.
pub(crate) fn text(bytes: &[u8], key: &str) -> Option<String> {
    let bytes = bytes.trim_ascii_start();
    Value::of(bytes).member(key)?.text().map(|text| text.into_owned())
}

/// The text of the string at `range`, unescaped; of a cut string what is there of it.
pub(crate) fn held_text(bytes: &[u8], range: Range<usize>) -> String {
    let quoted = &bytes[range];
    let inner = quoted.get(1..).unwrap_or_default();
    let is_whole = skip_string(quoted, 0).is_ok();
    unescape(lossy(&inner[..inner.len() - usize::from(is_whole)]).as_bytes())
}

/// Beyond this, a byte that is no UTF-8 is replaced by a question mark and not by U+FFFD, which
/// takes three bytes: a copy is never much larger than what it copies.
const LOSSY_BYTES_MAX: usize = 1 << 20;

/// The bytes as text; each sequence that is no UTF-8 is replaced.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    if bytes.len() <= LOSSY_BYTES_MAX {
        return String::from_utf8_lossy(bytes);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    Cow::Owned(text)
}

/// What a CloudWatch Logs document says about all of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    /// The cluster, from the log group `/aws/eks/<cluster>/cluster`.
    pub(crate) cluster: Option<String>,
    /// Whether the events come from another component, or the document is a reachability probe.
    pub(crate) is_control: bool,
}

impl Document {
    /// Reads the part of a document before its array of events.
    pub(crate) fn read(header: &[u8]) -> Document {
        let mut document = Document::default();
        for field in Fields::of(header).filter(|field| field.is_complete) {
            let value = || held_text(header, field.value.clone());
            match field.key {
                b"messageType" => document.is_control |= value() == "CONTROL_MESSAGE",
                b"logGroup" => document.cluster = eks_cluster(&value()),
                b"logStream" => document.is_control |= is_other_component(&value()),
                _ => {}
            }
        }
        document
    }
}

fn eks_cluster(log_group: &str) -> Option<String> {
    let name = log_group.strip_prefix("/aws/eks/")?.strip_suffix("/cluster")?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The other log streams of an EKS control plane share the log group.
fn is_other_component(log_stream: &str) -> bool {
    const OTHERS: [&str; 5] = [
        "kube-apiserver-",
        "authenticator-",
        "kube-controller-manager-",
        "cloud-controller-manager-",
        "kube-scheduler-",
    ];
    !log_stream.starts_with("kube-apiserver-audit")
        && OTHERS.iter().any(|other| log_stream.starts_with(other))
}

/// The cluster in an Azure resource id (`/SUBSCRIPTIONS/…/MANAGEDCLUSTERS/<cluster>`).
pub(crate) fn aks_cluster(resource_id: &str) -> Option<String> {
    let mut parts = resource_id.split('/');
    parts.find(|part| part.eq_ignore_ascii_case("managedClusters"))?;
    parts.next().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_objects_by_their_keys() {
        for (text, expected) in [
            (r#"{"level":"Metadata","auditID":"a"}"#, Shape::Event),
            (r#"{"kind":"Event","apiVersion":"v1"}"#, Shape::Event),
            (r#"{"kind":"EventList","metadata":{},"items":[{}]}"#, Shape::List(42)),
            (r#"{"requestId":"r","timestamp":1,"records":[]}"#, Shape::List(41)),
            (r#"{"awslogs":{"data":"x"}}"#, Shape::Holds(11..23, Form::Object)),
            (r#"{"level":"info","message":"{}"}"#, Shape::Holds(26..30, Form::Text)),
            (r#"{"message":"cut"#, Shape::Holds(11..15, Form::Text)),
            (r#"{"time":"t","category":"kube-audit"}"#, Shape::Aks),
            (r#"{"insertId":"x"}"#, Shape::Gke),
            (r#"{"_id":"x","_source":{"auditID":1}}"#, Shape::Holds(21..34, Form::Object)),
            (r#"{"_id":"x","_source":{"message":1}}"#, Shape::Unknown),
            (r#"{"event":{"kind":"x"},"event":"auditID"}"#, Shape::Holds(30..39, Form::Text)),
            (r#"{"hits":[{"auditID":1}]}"#, Shape::List(8)),
            (r#"{"kubernetes":{"pod_name":"p"},"log":"x"}"#, Shape::Holds(37..40, Form::Piece)),
            (
                r#"{"message":"m","kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a"}"#,
                Shape::Event,
            ),
            (
                r#"{"auditID":"a","category":"c","apiVersion":"audit.k8s.io/v1","kind":"Event"}"#,
                Shape::Event,
            ),
            (
                r#"{"events":[],"apiVersion":"audit.k8s.io/v1","kind":"Event","auditID":"a"}"#,
                Shape::Event,
            ),
            (
                r#"{"log":"{}","kind":"Event","apiVersion":"v1","auditID":"a"}"#,
                Shape::Holds(7..11, Form::Piece),
            ),
            (
                r#"{"log":"{}","kind":"Event","apiVersion":"audit.k8s.io/v1"}"#,
                Shape::Holds(7..11, Form::Piece),
            ),
            (r#"{"kind":"Pod"}"#, Shape::Unknown),
            ("{}", Shape::Unknown),
        ] {
            assert_eq!(shape(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn reads_what_a_document_says() {
        for (header, cluster, is_control) in [
            (r#"{"messageType":"CONTROL_MESSAGE","logEvents":["#, None, true),
            (
                r#"{"logGroup":"/aws/eks/prod/cluster","logStream":"kube-apiserver-audit-0"#,
                Some("prod"),
                false,
            ),
            (
                r#"{"logGroup":"/aws/eks/prod/cluster","logStream":"authenticator-01",""#,
                Some("prod"),
                true,
            ),
            (r#"{"kind":"EventList","items":["#, None, false),
        ] {
            let cluster = cluster.map(str::to_owned);
            assert_eq!(
                Document::read(header.as_bytes()),
                Document { cluster, is_control },
                "{header}"
            );
        }
    }
}
