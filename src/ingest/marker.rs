//! What the head of a file says: whether it holds audit events at all, and in which form.

use crate::event::split::{Scanner, Step, value_end};
use crate::event::{STAGES, line};

/// How much of a file (decompressed, behind leading NUL bytes) is looked at.
pub const HEAD_BYTES: usize = 64 << 10;

/// How a file is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One record a line.
    Lines,
    /// A stream of JSON documents, over lines or not; the elements of their lists are the records.
    Documents,
}

/// Whether the head of a file shows audit events.
///
/// A mere mention is no marker: an audit policy names the same `apiVersion`, a table of verdicts
/// the same `auditID`. Keys must stand as JSON writes them (escaped where an envelope holds the
/// event in a string), with the values that events have.
pub fn is_audit(head: &[u8]) -> bool {
    let has = |key: &str| members(head, key).next().is_some();
    is_versioned(head)
        || is_item(head)
        || members(head, "logEvents").any(|value| value.starts_with(b"["))
        || members(head, "category").any(|value| value.starts_with(b"kube-audit"))
        || members(head, "@type")
            .any(|value| value.starts_with(b"type.googleapis.com/google.cloud.audit.AuditLog"))
        || members(head, "logName").any(is_cloud_audit)
        || has("AuditId") && has("StageReceivedTime")
        || has("kvlistValue") && members(head, "key").any(|key| key.starts_with(b"auditID"))
        || has("kinesis") && has("data")
        || has("SequenceNumber") && has("Data")
        || has("ackId") && has("data")
        || has("data_base64") && has("specversion")
        || has("rawData") && has("errorCode")
        || has("awslogs") && has("data")
        || has("requestId") && has("records") && has("data")
        || members(head, "subscription").any(|value| value.starts_with(b"projects/")) && has("data")
        || head.split(|byte| *byte == b'\n').any(line::is_legacy)
}

fn is_versioned(head: &[u8]) -> bool {
    members(head, "apiVersion").any(|value| {
        let at = head.len() - value.len();
        let near = &head[at.saturating_sub(64)..(at + 96).min(head.len())];
        value.starts_with(b"audit.k8s.io/") && memchr::memmem::find(near, b"Policy").is_none()
    })
}

/// An element of an EventList by itself, which has neither kind nor version.
fn is_item(head: &[u8]) -> bool {
    let is_stage = |value: &[u8]| STAGES.iter().any(|stage| value.starts_with(stage.as_bytes()));
    members(head, "stage").any(is_stage)
        && members(head, "auditID").next().is_some()
        && members(head, "requestURI").next().is_some()
}

fn is_cloud_audit(value: &[u8]) -> bool {
    let name = &value[..value.len().min(200)];
    memchr::memmem::find(name, b"cloudaudit.googleapis.com").is_some()
}

/// What stands behind each `"key":` in the head, without the opening quote; escaped quotes count
/// too.
fn members<'h>(head: &'h [u8], key: &str) -> impl Iterator<Item = &'h [u8]> {
    let length = key.len();
    let found: Vec<usize> = memchr::memmem::find_iter(head, key).collect();
    found.into_iter().filter_map(move |at| {
        if !head[..at].ends_with(b"\"") {
            return None;
        }
        let rest = quote(&head[at + length..])?.trim_ascii_start();
        let value = rest.strip_prefix(b":")?.trim_ascii_start();
        Some(quote(value).unwrap_or(value))
    })
}

/// Passes a quote and the backslashes before it, or a doubled one of comma-separated values.
fn quote(bytes: &[u8]) -> Option<&[u8]> {
    let escapes = bytes.iter().take_while(|byte| **byte == b'\\').count();
    let bytes = &bytes[escapes..];
    bytes.strip_prefix(b"\"\"").or_else(|| bytes.strip_prefix(b"\""))
}

/// The form of a file with this head. Lines are the common case and split fastest; documents are
/// read as a stream because one may be larger than memory.
pub fn form(head: &[u8]) -> Form {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match head.first() {
        Some(b'{') => object_form(head),
        Some(b'[') => Form::Documents,
        _ => Form::Lines,
    }
}

fn object_form(head: &[u8]) -> Form {
    let is_one_line = |end: usize| memchr::memchr(b'\n', &head[..end]).is_none();
    let step = Scanner::document().scan(head, &mut 0, true);
    let end = match step {
        Step::List(_) => match value_end(head, 0) {
            Some(end) => end,
            None => return Form::Documents,
        },
        Step::End(end) => end,
        // A line feed inside a string, or a line that starts anew, ends a line that was torn.
        Step::Torn(end) if is_one_line(head[..end].trim_ascii_end().len()) => return Form::Lines,
        Step::Torn(_) => return Form::Documents,
        Step::More if is_one_line(head.len()) => return Form::Lines,
        Step::More => return Form::Documents,
    };
    let behind = head[end..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    match (is_one_line(end), behind) {
        (true, None | Some(b'\n' | 0)) => Form::Lines,
        (true, Some(b'{' | b'[')) | (false, _) => Form::Documents,
        (true, Some(_)) => Form::Lines,
    }
}

/// Whether bytes that start a very long line start a document with a list, whose elements can be
/// read one by one.
pub fn is_list(head: &[u8]) -> bool {
    let head = head.trim_ascii_start();
    match head.first() {
        Some(b'[') => true,
        Some(b'{') => matches!(Scanner::document().scan(head, &mut 0, true), Step::List(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_audit_logs_from_their_neighbours() {
        for (text, expected) in [
            (r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata""#, true),
            (r#"{ "apiVersion" : "audit.k8s.io/v1", "items" : ["#, true),
            (r#"{"log":"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\""#, true),
            (
                r#"{"message":"{\"short_message\":\"{\\\"apiVersion\\\":\\\"audit.k8s.io/v1\\\""#,
                true,
            ),
            (r#"{"level":"Metadata","auditID":"a","stage":"Panic","requestURI":"/""#, true),
            (r#"{"messageType":"DATA_MESSAGE","logEvents":[]}"#, true),
            (r#"{"time":"t","category":"kube-audit-admin"}"#, true),
            (r#"{"logName":"projects/p/logs/cloudaudit.googleapis.com%2Factivity"}"#, true),
            (r#"{"awslogs":{"data":"H4sI"}}"#, true),
            (r#"2026-11-22T00:26:03.050366313Z AUDIT: id="x" stage="Panic""#, true),
            (r#"t,"{""kind"":""Event"",""apiVersion"":""audit.k8s.io/v1"",""#, true),
            ("x\n2026-11-22T00:26:03.050366313Z AUDIT: id=\"x\"", true),
            (r#"{"kvlistValue":{"values":[{"key":"auditID","value":{"stringValue":"a""#, true),
            (r#"{"kvlistValue":{"values":[{"key":"log","value":{"stringValue":"auditID""#, false),
            (r#"{"auditID":"a","scenario":"s","class":"attack","expect":"high"}"#, false),
            ("apiVersion: audit.k8s.io/v1\nkind: Policy\n", false),
            ("apiVersion: \"audit.k8s.io/v1\"\nkind: Policy\n", false),
            (r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[]}"#, false),
            (r#"{"kind":"Policy","apiVersion":"audit.k8s.io/v1"}"#, false),
            (r#"{"annotations":{"audit.k8s.io/truncated":"true"}}"#, false),
            ("the log name holds cloudaudit.googleapis.com", false),
            (r#"{"kind":"Event","apiVersion":"v1","message":"Pulled"}"#, false),
            ("", false),
        ] {
            assert_eq!(is_audit(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn tells_lines_from_documents() {
        for (text, expected) in [
            ("{\"a\":1}\n{\"a\":2}\n", Form::Lines),
            ("{\"a\":1}", Form::Lines),
            ("{\"items\":[1]} \r\n{\"items\":[1]}", Form::Lines),
            ("2026-01-01T00:00:00.000Z {\"a\":1}", Form::Lines),
            ("{\"a\":\"us{\"kind\":\"Event\"}\n{", Form::Lines),
            ("{\"a\":\"long", Form::Lines),
            ("{\"a\":1,\n{\"kind\":\"Event\"}\n{", Form::Lines),
            ("{\n\"a\":1}\n", Form::Documents),
            ("{\n \"a\": 1,\n{\n \"a\": 1\n}", Form::Documents),
            ("\u{feff}{\n\"a\":1", Form::Documents),
            ("{\"a\":1}{\"a\":2}", Form::Documents),
            ("{\"items\":[1,", Form::Documents),
            ("[{}]", Form::Documents),
        ] {
            assert_eq!(form(text.as_bytes()), expected, "{text}");
        }
    }
}
