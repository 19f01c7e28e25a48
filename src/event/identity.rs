//! When two copies are the same event: equal bytes, the top-level `kind` and `apiVersion` left out.
//!
//! A line of the log backend carries both keys, an item of a webhook's EventList carries neither,
//! and otherwise they are equal byte for byte. The audit id is no identity: clients choose it.

use std::borrow::Cow;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::event::json::{skip_blank, skip_string, skip_value};

/// How kube-apiserver begins every line of the log backend.
const LINE_START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
/// How it begins every item of an EventList.
const ITEM_START: &[u8] = br#"{"level":"#;

/// A hash of the event for finding its copies; compare only events of equal time. `seed` is secret
/// to the run, so that nobody can make two different events collide.
///
/// Bytes as kube-apiserver writes them are hashed as they are. Whatever wrote them again (blanks
/// between tokens, other escapes) is brought to one form first.
pub fn fingerprint(raw: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&identity(raw), seed)
}

/// The same for events that are kept: 128 bits of a hash that nobody without the key can make
/// collide, over the event, its cluster and its time. `distinction` is what else tells two events
/// apart where they carry no time.
pub fn duplicate_key(
    raw: &[u8],
    cluster: &str,
    time_us: Option<i64>,
    distinction: &str,
    key: &[u8; 16],
) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u64(cluster.len() as u64);
    hasher.write(cluster.as_bytes());
    match time_us {
        Some(time_us) => hasher.write_i64(time_us),
        None => {
            hasher.write_u64(distinction.len() as u64);
            hasher.write(distinction.as_bytes());
        }
    }
    hasher.write(&identity(raw));
    hasher.finish128().as_bytes()
}

/// The bytes that copies of an event have in common.
fn identity(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = raw.trim_ascii();
    let rest = match raw.strip_prefix(LINE_START) {
        Some(rest) => rest,
        None if raw.starts_with(ITEM_START) => &raw[1..],
        None => b"",
    };
    let is_plain = memchr::memmem::find(rest, br"\u").is_none();
    if rest.first() == Some(&b'"') && !rest.starts_with(br#""level": "#) && is_plain {
        return Cow::Borrowed(rest);
    }
    Cow::Owned(normalised(raw))
}

/// The members but `kind` and `apiVersion`, in their order, without blanks between tokens and with
/// `\u` escapes spelled out where they need not be escapes; what follows a malformed byte as it is.
fn normalised(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut index = skip_blank(raw, 0) + 1;
    loop {
        index = skip_blank(raw, index);
        if raw.get(index) == Some(&b',') {
            index = skip_blank(raw, index + 1);
        }
        let Some(end) = member_end(raw, index) else { break };
        let member = &raw[index..end];
        if !member.starts_with(br#""kind""#) && !member.starts_with(br#""apiVersion""#) {
            if !text.is_empty() {
                text.push(b',');
            }
            push_compact(member, &mut text);
        }
        index = end;
    }
    push_compact(raw.get(index..).unwrap_or_default(), &mut text);
    text
}

fn member_end(raw: &[u8], start: usize) -> Option<usize> {
    if raw.get(start) != Some(&b'"') {
        return None;
    }
    let (behind_key, _) = skip_string(raw, start).ok()?;
    let colon = skip_blank(raw, behind_key);
    if raw.get(colon) != Some(&b':') {
        return None;
    }
    skip_value(raw, skip_blank(raw, colon + 1)).ok()
}

/// Copies JSON without the blanks outside strings.
fn push_compact(json: &[u8], text: &mut Vec<u8>) {
    let mut index = 0;
    while let Some(&byte) = json.get(index) {
        let end = match byte {
            b'"' => skip_string(json, index).map_or(json.len(), |(end, _)| end),
            b' ' | b'\n' | b'\r' | b'\t' => {
                index += 1;
                continue;
            }
            _ => index + 1,
        };
        let token = &json[index..end];
        if byte == b'"' && memchr::memmem::find(token, br"\u").is_some() {
            let plain = crate::event::value::Value::new(token, true).text().unwrap_or_default();
            // serde_json escapes what must be escaped, and in one way.
            text.extend_from_slice(serde_json::Value::from(&*plain).to_string().as_bytes());
        } else {
            text.extend_from_slice(token);
        }
        index = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal_and_others_are_not() {
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a b","user":{"x":[1, 2]}}"#;
        let compact = line.replace("1, 2", "1,2");
        for (text, is_same) in [
            (compact.replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, ""), true),
            (compact.replace(r#"{"kind""#, "{ \"kind\""), true),
            (compact.replace(",\"", ",\n  \"").replace("\":", "\" : "), true),
            (format!("{compact}\r\n"), true),
            (compact.replace("a b", "a\\u0020b"), true),
            (compact.replace(r#""level":"#, r#""level": "#).replace(",", ", "), true),
            (compact.replace("a b", "ab"), false),
            (compact.replace("Metadata", "Request"), false),
        ] {
            let equal = fingerprint(text.as_bytes(), 7) == fingerprint(compact.as_bytes(), 7);
            assert_eq!(equal, is_same, "{text}");
        }
        assert_ne!(fingerprint(compact.as_bytes(), 7), fingerprint(compact.as_bytes(), 8));
    }
}
