//! Events whose objects stand in them as text, as stores with a column for each member hand them
//! out: `"user":"{\"username\":\"alice\"}"`. They are written anew with the objects themselves.

use crate::event::envelope::{Fields, held_text};
use crate::event::json::skip_value;
use crate::event::value::Type;
use crate::event::{Event, Slot};

/// The members of an event that are objects or lists.
const COMPOSED: [&[u8]; 9] = [
    b"user",
    b"impersonatedUser",
    b"authenticationMetadata",
    b"sourceIPs",
    b"objectRef",
    b"responseStatus",
    b"requestObject",
    b"responseObject",
    b"annotations",
];

/// Whether the event's objects are texts: every event has a user.
pub(crate) fn has_some(event: &Event<'_>) -> bool {
    event.slot(Slot::User).is_some_and(|user| user.kind() == Type::String)
}

/// The whole event with the objects that its texts are.
pub(crate) fn to_audit(event: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(event.len());
    let mut copied = 0;
    for field in Fields::of(event).filter(|field| COMPOSED.contains(&field.key)) {
        if event[field.value.start] != b'"' {
            continue;
        }
        json.extend_from_slice(&event[copied..field.value.start]);
        copied = field.value.end;
        let text = held_text(event, field.value.clone());
        let text = text.trim();
        // One whole value and nothing behind it, or the text could say what the event did not.
        let is_composed =
            text.starts_with(['{', '[']) && skip_value(text.as_bytes(), 0) == Ok(text.len());
        match is_composed {
            true => json.extend_from_slice(text.as_bytes()),
            // A user that is a name and no object is nobody: what is not read is not asked for.
            false if field.key == b"user" => json.extend_from_slice(b"{}"),
            false => json.extend_from_slice(b"null"),
        }
    }
    json.extend_from_slice(&event[copied..]);
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_objects() {
        for (event, expected) in [
            (
                r#"{"auditID":"a","user":"{\"username\":\"u\"}","sourceIPs":"[\"::1\"]","verb":"get"}"#,
                r#"{"auditID":"a","user":{"username":"u"},"sourceIPs":["::1"],"verb":"get"}"#,
            ),
            (r#"{"user":" {} ","objectRef":""}"#, r#"{"user":{},"objectRef":null}"#),
            (r#"{"user":"{},\"verb\":\"x\""}"#, r#"{"user":{}}"#),
            (r#"{"user":"u","annotations":{"a":"{}"}}"#, r#"{"user":{},"annotations":{"a":"{}"}}"#),
            (r#"{"userAgent":"{}","user":"{}"}"#, r#"{"userAgent":"{}","user":{}}"#),
        ] {
            let json = to_audit(event.as_bytes());
            assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
    }
}
