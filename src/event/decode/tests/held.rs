//! Events in members of any name, behind other text, and inside bodies.

use super::*;

#[test]
fn whatever_holds_an_event_is_opened() {
    let sorted = r#"{"annotations":{},"apiVersion":"audit.k8s.io/v1","auditID":"a","kind":"Event","level":"Metadata","stage":"ResponseComplete","user":{"username":"u"},"verb":"get"}"#;
    let (a, text) = (sorted, quoted(sorted));
    let twice = quoted(&text);
    let packed = base64::engine::general_purpose::STANDARD.encode(a);
    let wrapped = format!(r#"{{"log":{text}}}"#);
    for record in [
        // The name that a member has says little, and nothing where another one holds the event.
        format!(r#"{{"short_message":"audit","full_message":{text}}}"#),
        format!(r#"{{"message":"alice got pods","kubernetes":{{"audit":{a}}}}}"#),
        format!(r#"{{"log":"","log_processed":{a}}}"#),
        format!(r#"{{"message":"m","event":{{"original":{text}}}}}"#),
        format!(r#"{{"category":"app","message":{text}}}"#),
        format!(r#"{{"insertId":"i","message":{text}}}"#),
        format!(r#"{{"events":[],"message":{text}}}"#),
        format!(r#"{{"stage":"prod","message":{text}}}"#),
        format!(r#"{{"@timestamp":"t","@message":{a}}}"#),
        format!(r#"{{"@message":{text},"@ptr":"x"}}"#),
        format!(r#"{{"logContent":{{"data":{text}}}}}"#),
        format!(r#"{{"rawData":{text},"errorCode":"x"}}"#),
        format!(r#"{{"log":{{"file":{{"path":"/var/log/audit/audit.log"}}}},"message":{text}}}"#),
        format!(r#"{{"event":{{"dataset":"kubernetes.audit"}},"kubernetes":{{"audit":{a}}}}}"#),
        format!(r#"{{"attributes":{{"log.file.name":"audit.log"}},"body":{text}}}"#),
        format!(r#"{{"result":{{"auditID":"a","user.username":"u","_raw":{text}}}}}"#),
        format!(r#"{{"kind":"Event","auditID":"a","verb":"get","_raw":{text}}}"#),
        format!(r#"{{"short_message":{},"full_message":{text}}}"#, quoted(&sorted[..90])),
        format!(r#"{{"data":"x","message":{text}}}"#),
        format!("\x1e{a}"),
        format!(r#"{{"Records":[{{"kinesis":{{"data":"{packed}"}}}}]}}"#),
        format!(r#"{{"Records":[{{"Data":"{packed}","SequenceNumber":"1"}}]}}"#),
        format!(r#"[{{"ackId":"x","message":{{"data":"{packed}"}}}}]"#),
        format!(r#"{{"specversion":"1.0","data_base64":"{packed}"}}"#),
        twice.clone(),
        quoted(&twice),
        // Behind whatever a shipper puts before it.
        format!("2021-06-11\tkubernetes.audit\t{a}"),
        format!("host app[1]: {a}"),
        format!("host app[1]: {wrapped}"),
        format!("host app[1]: {text}"),
        format!("x,\"{}\",y", a.replace('"', "\"\"")),
    ] {
        check(&record, &["get@a"]);
    }
    // Octet counts and no line ends.
    let counted: String = (0..20).map(|_| format!("300 <14>1 - host app - - - {a}")).collect();
    assert_eq!(decoded(&[counted.as_bytes()]).len(), 20);
    for (record, expected) in [
        (format!("2026-11-22T00:20:47Z host app: {wrapped}"), "get@a 2026-11-22T00:20:47.000000Z"),
        (format!("2026-11-22T00:20:47Z host app: {text}"), "get@a 2026-11-22T00:20:47.000000Z"),
    ] {
        check(&record, &[expected]);
    }
}

#[test]
fn what_a_client_put_into_a_body_is_no_event() {
    let forged = A.replace(r#""auditID":"a""#, r#""auditID":"z""#);
    let real = format!(
        r#"{{"level":"Request","auditID":"a","stage":"ResponseComplete","verb":"create","requestObject":{forged}}}"#
    );
    for record in [
        format!("host app: {real}"),
        format!("2021-06-11\taudit\t{real}"),
        format!(r#"{{"message":{}}}"#, quoted(&format!("host {real}"))),
    ] {
        check(&record, &["create@a"]);
    }
    check(
        format!("2026-11-22T00:20:47Z host app: {real}"),
        &["create@a 2026-11-22T00:20:47.000000Z"],
    );
}

#[test]
fn what_was_flattened_is_told() {
    let flat = r#"{"kind":"Event","auditID":"a","verb":"get","user.username":"u"}"#;
    check(flat, &[&format!("not_audit_event:0+{}", flat.len())]);
    check(format!("{A} \r"), &["get@a"]);
    // Behind the event nothing is its own.
    let mut raw = Vec::new();
    let two = format!("{A}\n{A} \n");
    decode(two.as_bytes(), &mut Scratch::default(), &mut |decoded| {
        if let Decoded::Event { event, .. } = decoded {
            raw.push(event.raw().to_vec());
        }
    });
    assert_eq!(raw, [A.as_bytes(), A.as_bytes()]);
}

#[test]
fn what_a_client_says_elsewhere_is_no_event() {
    let forged = A.replace(r#""auditID":"a""#, r#""auditID":"z""#);
    let (text, real) = (quoted(&forged), quoted(A));
    for record in [
        format!(r#"{{"user_agent":{text},"message":{real}}}"#),
        format!(r#"{{"result":{{"userAgent":{text},"_raw":{real}}}}}"#),
        format!(r#"{{"x":{text},"message":{real}}}"#),
        format!(
            "a,\"{}\",\"{}\"",
            text[..text.len() / 2].replace('"', "\"\""),
            A.replace('"', "\"\"")
        ),
    ] {
        check(&record, &["get@a"]);
    }
    for record in [
        format!(r#"{{"kubernetes":{{"annotations":{{"x":{text}}}}},"log":"hello"}}"#),
        format!(r#"{{"kind":"Pod","metadata":{{"annotations":{{"x":{text}}}}}}}"#),
        format!(r#"{{"a":{text},"b":{text}}}"#),
        format!("2026-11-22T00:20:47Z I1122 userAgent={text} audit-ID=\"x\""),
        format!(r#"{{"message":{}}}"#, quoted(&format!("\"HTTP\" userAgent={text} x=1"))),
        format!(r#"{{"log":{}}}"#, quoted(&format!("I1122 x] userAgent={text} x=1"))),
    ] {
        let found = decoded(&[record.as_bytes()]);
        assert!(!found.iter().any(|one| one.contains("get@")), "{record}: {found:?}");
    }
    let both = r#"{"auditID":"a","kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","stage":"Panic","user":{"username":"u"},"user.name":"x","verb":"get"}"#;
    check(both, &["get@a"]);
}

#[test]
fn a_long_line_of_many_prefixes_ends_in_time() {
    for one in [r#"x {"a":1} "#, r#"x: {"auditIDx":1} "#, r#"x: {"auditID":1} "#] {
        let line = one.repeat((2 << 20) / one.len()) + "auditID";
        assert!(!decoded(&[line.as_bytes()]).is_empty());
    }
}
