//! How messages are cut, and what a configuration may say.

use super::*;

const EVENT: &str =
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","stage":"Panic"}"#;

#[test]
fn every_message_is_cut_by_itself() {
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{EVENT},{EVENT}]}}"#
    );
    let hub = r#"{"records":[{"category":"kube-audit","properties":{"log":"{}"}}]}"#;
    let damaged = &EVENT[..40];
    let mut parcel = Parcel::new(7);
    for (payload, offset) in [EVENT, damaged, &list, "", hub, "no json", EVENT].iter().zip(7..) {
        parcel.push(payload.as_bytes(), offset);
    }
    assert_eq!((parcel.first, parcel.next), (7, 14));
    let (chunk, _) = parcel.finish();
    let records: Vec<String> =
        chunk.records().map(|record| String::from_utf8_lossy(record.bytes).into_owned()).collect();
    let whole = records.iter().filter(|record| *record == EVENT).count();
    assert_eq!(whole, 4, "{records:#?}");
    assert!(records.iter().any(|record| record == damaged), "{records:#?}");
    assert!(records.iter().any(|record| record.contains("kube-audit")), "{records:#?}");
}

#[test]
fn a_wrong_configuration_says_what_to_write() {
    let read = |text: &str| serde_json::from_str::<Config>(text).unwrap();
    let fine = read(r#"{"brokers":"a:9092","topics":["t"],"clusters":["prod-1"]}"#);
    assert_eq!(fine.check(), Ok(()));
    assert_eq!(fine.cluster_of(Some("prod-1")).as_deref(), Some("prod-1"));
    assert_eq!(fine.cluster_of(Some("prod-2")), None);
    assert_eq!(fine.cluster_of(None), None);
    for (text, part) in [
        (r#"{"topics":["t"]}"#, "`brokers` is empty"),
        (r#"{"brokers":"a:9092"}"#, "at least one topic"),
        (r#"{"brokers":"a","topics":["t"],"clusters":["A/.."]}"#, "other letters"),
        (
            r#"{"brokers":"a","topics":["t"],
                "sasl":{"mechanism":"PLAIN","username":"u","password":{}}}"#,
            "either `file` or `env`",
        ),
    ] {
        let error = read(text).check().unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
