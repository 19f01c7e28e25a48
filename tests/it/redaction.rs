//! Secrets planted in every place that redaction knows, and in generated events.

use std::cell::RefCell;

use kubewitness::event::Event;
use kubewitness::event::redact::{Mode, Redaction, Redactor, Scratch};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const KEY: &[u8] = b"a key for tests";

/// A line of tests/corpus/redaction/cases.jsonl.
#[derive(Deserialize)]
struct Case<'c> {
    /// Which kind of secret material, by the list in the corpus' README; 0 for patterns and prose.
    row: u8,
    why: String,
    secrets: Vec<String>,
    keeps: Vec<String>,
    #[serde(borrow)]
    event: &'c RawValue,
}

/// Redacts with nothing known before, and compares with what comes of it where everything was.
fn redact(redactor: &Redactor, event: &Event<'_>, out: &mut Vec<u8>) -> Redaction {
    thread_local! {
        static KNOWING: RefCell<Scratch> = RefCell::default();
    }
    let start = out.len();
    let redaction = redactor.redact(event, &mut Scratch::default(), out);
    for _ in 0..2 {
        let mut again = Vec::new();
        let same = KNOWING.with_borrow_mut(|known| redactor.redact(event, known, &mut again));
        assert_eq!((same, &again[..]), (redaction, &out[start..]));
    }
    redaction
}

fn redacted(redactor: &Redactor, raw: &[u8]) -> (String, u32) {
    let event = Event::salvage(raw).expect("an event");
    let mut out = b"before".to_vec();
    let redaction = redact(redactor, &event, &mut out);
    (String::from_utf8(out.split_off(6)).unwrap(), redaction.count)
}

#[test]
fn no_secret_survives_and_nothing_else_goes() {
    let cases = include_str!("../corpus/redaction/cases.jsonl");
    let mut rows = std::collections::BTreeSet::new();
    let mut failures = Vec::new();
    for line in cases.lines() {
        let case: Case<'_> = serde_json::from_str(line).expect(line);
        rows.insert(case.row);
        let raw = case.event.get();
        for key in [None, Some(KEY)] {
            let redactor = Redactor::new(Mode::Secrets, key);
            let (text, count) = redacted(&redactor, raw.as_bytes());
            let mut fail = |what: &str| failures.push(format!("{}: {what}\n{text}\n", case.why));
            serde_json::from_str::<&RawValue>(&text).expect(&text);
            for secret in case.secrets.iter().filter(|secret| text.contains(*secret)) {
                fail(&format!("{secret} is still there"));
            }
            for kept in case.keeps.iter().filter(|kept| !text.contains(*kept)) {
                fail(&format!("{kept} is gone"));
            }
            if case.secrets.is_empty() && text != raw {
                fail("something is gone");
            }
            if redacted(&redactor, text.as_bytes()).0 != text {
                fail(&format!("redacting again gives {}", redacted(&redactor, text.as_bytes()).0));
            }
            if (count == 0) != (text == raw) || key.is_none() && text.contains("[REDACTED:") {
                fail("the count is wrong, or a fingerprint came from nowhere");
            }
            let mut off = Vec::new();
            let event = Event::parse(raw.as_bytes()).unwrap();
            redact(&Redactor::new(Mode::Off, key), &event, &mut off);
            assert_eq!(off, raw.as_bytes());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), (0..=17).collect::<Vec<_>>());
}

/// A cut leaves the beginning of a secret, in a value that cannot be read to its end.
#[test]
fn a_cut_at_every_byte_shows_no_part_of_a_secret() {
    let redactor = Redactor::new(Mode::Secrets, Some(KEY));
    for line in include_str!("../corpus/redaction/cases.jsonl").lines() {
        let case: Case<'_> = serde_json::from_str(line).unwrap();
        let raw = case.event.get().as_bytes();
        for cut in 0..raw.len() {
            let Some(event) = Event::salvage(&raw[..cut]) else { continue };
            let mut out = Vec::new();
            redact(&redactor, &event, &mut out);
            let text = String::from_utf8_lossy(&out);
            let is_planted = case.secrets.iter().any(|secret| secret.starts_with("Pl4nted-"));
            let is_shown = is_planted && text.contains("Pl4nted-");
            assert!(!is_shown, "{}, cut at {cut}: {text}", case.why);
            let mut again = Vec::new();
            let event = Event::salvage(&out).expect("what stands before the cut");
            redact(&redactor, &event, &mut again);
            assert_eq!(text, String::from_utf8_lossy(&again), "{}, cut at {cut}", case.why);
        }
    }
}

/// An object that turns out to be a Secret is read once more; many in each other would be read as
/// often as there are, or oftener.
#[test]
fn what_would_be_read_again_and_again_is_replaced_whole() {
    let kinds = ["Secret", "ConfigMap"];
    for (depth, is_whole) in [(3, false), (1_000, true)] {
        let open = r#"{"data":{"p":"Pl4nted-1"},"b":"#.repeat(depth);
        let close: String =
            (0..depth).map(|at| format!(r#","kind":"{}"}}"#, kinds[at % 2])).collect();
        let raw = event_with(&format!("{open}1{close}"));
        let event = Event::parse(raw.as_bytes()).unwrap();
        let mut out = Vec::new();
        let redaction = redact(&Redactor::new(Mode::Secrets, None), &event, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("Pl4nted-1"), "{depth}: {text}");
        assert_eq!(redaction.unreadable == 1, is_whole, "{depth}: {text}");
    }
}

fn event_with(body: &str) -> String {
    format!(
        r#"{{"auditID":"a","stage":"ResponseComplete","verb":"create","objectRef":{{"resource":"widgets"}},"requestObject":{body}}}"#
    )
}

#[test]
fn a_fingerprint_tells_equal_secrets_by_one_key() {
    let mark = |value: &str, key: &[u8]| {
        let raw = event_with(&format!(r#"{{"kind":"Secret","data":{{"k":{value}}}}}"#));
        let text = redacted(&Redactor::new(Mode::Secrets, Some(key)), raw.as_bytes()).0;
        let value: Value = serde_json::from_str(&text).unwrap();
        value["requestObject"]["data"]["k"].as_str().unwrap().to_owned()
    };
    for (value, key, expected) in [
        (r#""hunter2hunter2hunter2""#, KEY, "[REDACTED:1d00edf3421e326f]"),
        (r#""hunter2\u0068unter2hunter2""#, KEY, "[REDACTED:1d00edf3421e326f]"),
        (r#""hunter2hunter2hunter2""#, b"another key".as_slice(), "[REDACTED:44248eddcd28d842]"),
        (r#""fifteen letters""#, KEY, "[REDACTED]"),
        (r#""hunter2hunter2hunter2""#, b"".as_slice(), "[REDACTED]"),
        (r#"{"a": 1}"#, KEY, "[REDACTED]"),
    ] {
        assert_eq!(mark(value, key), expected, "{value}");
    }
}

/// Values without letters that a credential or its name could be made of.
fn noise() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[0-9 a-g\"\\\\\n{}\\[\\]é😀,:/=&?]{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-g\"\\\\é]{1,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object with secrets at places that the table names.
fn object() -> impl Strategy<Value = Value> {
    let secret = || "Pl4nted-[0-9a-f\"\\\\\n😀]{0,20}-Z";
    let places =
        (secret(), noise(), noise(), 0..9usize).prop_map(|(secret, left, right, place)| {
            let (kind, key, value) = match place {
                0 => ("Secret", "data", json!({ "k": secret })),
                1 => ("Secret", "stringData", json!({ "a": null, "k": secret, "l": secret })),
                2 => ("ConfigMap", "binaryData", json!({ "k": secret })),
                3 => ("TokenReview", "spec", json!({ "a": left, "token": secret })),
                4 => ("TokenRequest", "status", json!({ "token": secret, "b": right })),
                5 => (
                    "Pod",
                    "spec",
                    json!({ "containers": [{"env": [{"name": "A", "value": secret}]}] }),
                ),
                6 => ("SubjectAccessReview", "spec", json!({ "extra": {"b": [secret]} })),
                7 => ("Widget", "bundle", json!([left, { "caBundle": secret }])),
                _ => ("HelmRelease", "spec", json!({ "values": { "a": [{ "b": secret }] } })),
            };
            // Of a secret everything goes but what is known to be part of one.
            match kind {
                "Secret" => {
                    json!({ "metadata": { "a": left, "b": right }, "kind": kind, key: value })
                }
                _ => json!({ "a": left, "kind": kind, "b": right, key: value, "c": left }),
            }
        });
    (places, 0..5usize).prop_map(|(object, wrapper)| match wrapper {
        0 => json!({ "kind": "List", "items": [object, object] }),
        1 => json!({ "type": "ADDED", "object": object }),
        2 => json!({ "kind": "Table", "rows": [{ "cells": [1], "object": object }] }),
        3 => json!([{ "op": "add", "path": "", "value": object }]),
        _ => object,
    })
}

/// The text with the planted strings replaced.
fn expected(text: &str, mark: &str) -> String {
    let mut parts = text.split("\"Pl4nted-");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(mark);
        out.push_str(&part[part.find("-Z\"").expect("the end of a secret") + 3..]);
    }
    out
}

proptest! {
    #[test]
    fn only_what_is_planted_goes(object in object(), is_pretty in any::<bool>()) {
        let body = if is_pretty { format!("{object:#}") } else { object.to_string() };
        let redactor = Redactor::new(Mode::Secrets, None);
        let raw = event_with(&body);
        let (text, _) = redacted(&redactor, raw.as_bytes());
        prop_assert_eq!(&text, &expected(&raw, "\"[REDACTED]\""));
        prop_assert_eq!(&redacted(&redactor, text.as_bytes()).0, &text);
        // The same inside a string: the copy of what was applied last.
        let copy = |body: &str| {
            let key = "kubectl.kubernetes.io/last-applied-configuration";
            event_with(&json!({ "metadata": { "annotations": { key: body } } }).to_string())
        };
        let (text, _) = redacted(&redactor, copy(&body).as_bytes());
        prop_assert_eq!(text, copy(&expected(&body, "\"[REDACTED]\"")));
    }

    #[test]
    fn survives_any_bytes(body in prop::collection::vec(any::<u8>(), 0..200), cut in 0..400usize) {
        let mut raw = event_with("").into_bytes();
        raw.pop();
        raw.extend_from_slice(&body);
        raw.truncate(cut.max(100));
        if let Some(event) = Event::salvage(&raw) {
            let mut out = Vec::new();
            redact(&Redactor::new(Mode::Secrets, Some(KEY)), &event, &mut out);
        }
    }
}
