//! The scan behind [`Event::parse`]: one pass over an event's top level, `user`, `objectRef` and
//! `responseStatus`; everything else is skipped as a value.

use crate::event::json::{Stop, skip_blank, skip_string, skip_value};
use crate::event::{Event, Malformed, MalformedKind, Slot};

/// The longest input whose offsets fit a span.
const LENGTH_MAX: usize = (1 << 31) - 1;

/// Fills the event's slots from its raw bytes. On an error the slots read so far stay set.
pub(crate) fn scan(event: &mut Event<'_>) -> Result<(), Malformed> {
    let raw = event.raw;
    if raw.len() > LENGTH_MAX {
        return Err(Malformed { offset: 0, kind: MalformedKind::TooLong });
    }
    let start = skip_blank(raw, 0);
    if raw.get(start) != Some(&b'{') {
        return Err(Malformed { offset: start, kind: MalformedKind::NotAnObject });
    }
    let end = object(event, start, top_level)?;
    let rest = skip_blank(raw, end);
    if rest < raw.len() {
        return Err(Malformed { offset: rest, kind: MalformedKind::Trailing });
    }
    Ok(())
}

/// What to do with the member of an object.
enum Member {
    /// Remember where its value stands.
    Keep(Slot),
    /// Remember it, and look inside with this table.
    Enter(Slot, fn(&[u8]) -> Member),
    /// Pass over it.
    Skip,
}

fn top_level(key: &[u8]) -> Member {
    match key {
        b"kind" => Member::Keep(Slot::Kind),
        b"apiVersion" => Member::Keep(Slot::ApiVersion),
        b"level" => Member::Keep(Slot::Level),
        b"auditID" => Member::Keep(Slot::AuditId),
        b"stage" => Member::Keep(Slot::Stage),
        b"requestURI" => Member::Keep(Slot::RequestUri),
        b"verb" => Member::Keep(Slot::Verb),
        b"user" => Member::Enter(Slot::User, user),
        b"impersonatedUser" => Member::Keep(Slot::ImpersonatedUser),
        b"authenticationMetadata" => Member::Keep(Slot::AuthenticationMetadata),
        b"sourceIPs" => Member::Keep(Slot::SourceIps),
        b"userAgent" => Member::Keep(Slot::UserAgent),
        b"objectRef" => Member::Enter(Slot::ObjectRef, object_ref),
        b"responseStatus" => Member::Enter(Slot::ResponseStatus, response_status),
        b"requestObject" => Member::Keep(Slot::RequestObject),
        b"responseObject" => Member::Keep(Slot::ResponseObject),
        b"requestReceivedTimestamp" => Member::Keep(Slot::RequestReceivedTimestamp),
        b"stageTimestamp" => Member::Keep(Slot::StageTimestamp),
        b"annotations" => Member::Keep(Slot::Annotations),
        _ => Member::Skip,
    }
}

fn user(key: &[u8]) -> Member {
    match key {
        b"username" => Member::Keep(Slot::Username),
        b"uid" => Member::Keep(Slot::UserUid),
        b"groups" => Member::Keep(Slot::UserGroups),
        b"extra" => Member::Keep(Slot::UserExtra),
        _ => Member::Skip,
    }
}

fn object_ref(key: &[u8]) -> Member {
    match key {
        b"resource" => Member::Keep(Slot::Resource),
        b"namespace" => Member::Keep(Slot::Namespace),
        b"name" => Member::Keep(Slot::Name),
        b"uid" => Member::Keep(Slot::ObjectUid),
        b"apiGroup" => Member::Keep(Slot::ApiGroup),
        b"apiVersion" => Member::Keep(Slot::ObjectApiVersion),
        b"resourceVersion" => Member::Keep(Slot::ResourceVersion),
        b"subresource" => Member::Keep(Slot::Subresource),
        _ => Member::Skip,
    }
}

fn response_status(key: &[u8]) -> Member {
    match key {
        b"status" => Member::Keep(Slot::StatusStatus),
        b"message" => Member::Keep(Slot::StatusMessage),
        b"reason" => Member::Keep(Slot::StatusReason),
        b"details" => Member::Keep(Slot::StatusDetails),
        b"code" => Member::Keep(Slot::StatusCode),
        _ => Member::Skip,
    }
}

/// Reads the object that opens at `at`; returns the index behind it. Entered at most twice deep.
fn object(
    event: &mut Event<'_>,
    at: usize,
    member: fn(&[u8]) -> Member,
) -> Result<usize, Malformed> {
    let raw = event.raw;
    let mut index = skip_blank(raw, at + 1);
    if raw.get(index) == Some(&b'}') {
        return Ok(index + 1);
    }
    loop {
        if raw.get(index) != Some(&b'"') {
            return Err(unexpected(raw, index));
        }
        let (behind_key, _) = skip_string(raw, index).map_err(|stop| malformed(raw, stop))?;
        let key = &raw[index + 1..behind_key - 1];
        let colon = skip_blank(raw, behind_key);
        if raw.get(colon) != Some(&b':') {
            return Err(unexpected(raw, colon));
        }
        let start = skip_blank(raw, colon + 1);
        let end = read_member(event, member(key), start)?;
        index = skip_blank(raw, end);
        match raw.get(index) {
            Some(b',') => index = skip_blank(raw, index + 1),
            Some(b'}') => return Ok(index + 1),
            _ => return Err(unexpected(raw, index)),
        }
    }
}

fn read_member(event: &mut Event<'_>, member: Member, start: usize) -> Result<usize, Malformed> {
    let raw = event.raw;
    let (end, is_escaped, slot) = match member {
        Member::Enter(slot, inner) if raw.get(start) == Some(&b'{') => {
            let end = object(event, start, inner)?;
            (end, false, slot)
        }
        Member::Keep(slot) | Member::Enter(slot, _) => {
            let (end, is_escaped) = match raw.get(start) {
                Some(b'"') => skip_string(raw, start),
                _ => skip_value(raw, start).map(|end| (end, false)),
            }
            .map_err(|stop| malformed(raw, stop))?;
            (end, is_escaped, slot)
        }
        Member::Skip => return skip_value(raw, start).map_err(|stop| malformed(raw, stop)),
    };
    match raw[start] {
        b'n' => event.clear(slot),
        _ => event.set(slot, start, end, is_escaped),
    }
    Ok(end)
}

fn malformed(raw: &[u8], stop: Stop) -> Malformed {
    match stop {
        Stop::End => Malformed { offset: raw.len(), kind: MalformedKind::Truncated },
        Stop::Syntax(offset) => Malformed { offset, kind: MalformedKind::Syntax },
        Stop::Depth(offset) => Malformed { offset, kind: MalformedKind::TooDeep },
    }
}

fn unexpected(raw: &[u8], offset: usize) -> Malformed {
    let kind = if offset >= raw.len() { MalformedKind::Truncated } else { MalformedKind::Syntax };
    Malformed { offset, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/secrets?limit=500\u0026x=1","verb":"list","user":{"username":"alice","groups":["dev"],"extra":{"k":["v"]}},"sourceIPs":["10.0.0.1"],"userAgent":"kubectl","objectRef":{"resource":"secrets","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-22T00:20:47.843025Z","stageTimestamp":"2026-11-22T00:20:47.866160Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;

    #[test]
    fn remembers_the_fields() {
        let event = Event::parse(EVENT.as_bytes()).expect("an event");
        for (slot, text) in [
            (Slot::Verb, "list"),
            (Slot::Username, "alice"),
            (Slot::Resource, "secrets"),
            (Slot::StatusCode, "200"),
            (Slot::RequestUri, "/api/v1/secrets?limit=500&x=1"),
        ] {
            assert_eq!(event.text(slot).as_deref(), Some(text), "{slot:?}");
        }
        assert!(event.slot(Slot::Namespace).is_none());
        assert_eq!(event.annotation("authorization.k8s.io/decision").as_deref(), Some("allow"));
        assert_eq!(event.user_extra("k").as_deref(), Some("v"));
        assert_eq!(event.time_us(), Some(1_795_306_847_866_160));
        assert_eq!(event.code(), Some(200));
    }

    #[test]
    fn a_time_is_a_text_or_a_number() {
        for (time, expected) in [
            (r#""2026-11-22T00:20:47.866160Z""#, Some(1_795_306_847_866_160)),
            ("1795306847866", Some(1_795_306_847_866_000)),
            ("1795306847.866160", Some(1_795_306_847_866_160)),
            ("1.79530684786616E9", None),
            ("null", None),
            ("0", None),
        ] {
            let event = format!(
                r#"{{"auditID":"a","stage":"Panic","verb":"get","stageTimestamp":{time}}}"#
            );
            let event = Event::parse(event.as_bytes()).expect("an event");
            assert_eq!(event.time_us(), expected, "{time}");
        }
    }

    #[test]
    fn slots_stand_in_their_order() {
        for (index, (slot, path)) in Slot::ALL.iter().enumerate() {
            assert_eq!(*slot as usize, index);
            assert_eq!(Slot::of_path(path), Some(*slot));
        }
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (text, offset, kind) in [
            ("", 0, MalformedKind::NotAnObject),
            ("  [1]", 2, MalformedKind::NotAnObject),
            (r#"{"a":1}"#, 0, MalformedKind::NotAnAuditEvent),
            (
                r#"{"kind":"Event","apiVersion":"v1","auditID":"a","stage":"s","verb":"v"}"#,
                0,
                MalformedKind::NotAnAuditEvent,
            ),
            (r#"{"auditID":"a","stage":"s","verb":"v"} x"#, 39, MalformedKind::Trailing),
            (r#"{"auditID":"a","stage":"s","verb":"v""#, 37, MalformedKind::Truncated),
            (r#"{"auditID":"a","stage";"s"}"#, 22, MalformedKind::Syntax),
        ] {
            let error = Event::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error, Malformed { offset, kind }, "{text}");
        }
    }

    #[test]
    fn a_cut_at_every_byte_keeps_what_stands_before_it() {
        let whole = Event::parse(EVENT.as_bytes()).expect("an event");
        for cut in 0..EVENT.len() {
            assert!(Event::parse(&EVENT.as_bytes()[..cut]).is_err(), "cut at {cut}");
            let Some(part) = Event::salvage(&EVENT.as_bytes()[..cut]) else { continue };
            assert!(part.is_partial());
            for (slot, path) in Slot::ALL {
                if let Some(value) = part.slot(slot) {
                    assert_eq!(Some(value.raw()), whole.slot(slot).map(|v| v.raw()), "{path}");
                }
            }
        }
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let text = r#"{"auditID":"a","stage":"s","verb":"get","verb":"delete"}"#;
        let event = Event::parse(text.as_bytes()).expect("an event");
        assert_eq!(event.text(Slot::Verb).as_deref(), Some("delete"));
    }
}
