//! Records and what they come to, as data. An event is written `verb@auditID`, with `~reason` when
//! partial, `#ordinal` when not the first, and `cluster/time` where the envelope says so.

use base64::Engine;
use proptest::prelude::*;
use std::io::Write;

mod held;

use super::*;
use crate::event::time;

const A: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"ResponseComplete","requestURI":"/version","verb":"get","user":{"username":"alice"},"responseStatus":{"code":200},"stageTimestamp":"2026-11-22T00:20:47.866160Z"}"#;
const B: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1beta1","level":"Request","auditID":"b","stage":"ResponseComplete","requestURI":"/api","verb":"create","user":{"username":"bob"},"requestObject":{"kind":"Pod"},"stageTimestamp":"2026-11-22T00:20:48.866160Z"}"#;

fn show(decoded: Decoded<'_>) -> String {
    match decoded {
        Decoded::Control => "control".to_owned(),
        Decoded::Reject(reject) => {
            format!("{}:{}+{}", reject.reason, reject.offset, reject.length)
        }
        Decoded::Event { event, ordinal, context } => {
            let text = |slot| event.text(slot).unwrap_or_default().into_owned();
            let mut shown = format!("{}@{}", text(Slot::Verb), text(Slot::AuditId));
            if ordinal > 0 {
                shown += &format!("#{ordinal}");
            }
            if let Some(reason) = context.partial {
                shown += &format!("~{}", reason.name());
            }
            assert_eq!(context.partial.is_some(), event.is_partial(), "{shown}");
            if let Some(cluster) = context.cluster {
                shown += &format!(" {cluster}");
            }
            if let Some(time_us) = context.time_us {
                shown += &format!(" {}", time::format_us(time_us));
            }
            shown
        }
    }
}

fn decoded(records: &[&[u8]]) -> Vec<String> {
    let mut scratch = Scratch::default();
    let mut found = Vec::new();
    for record in records {
        decode(record, &mut scratch, &mut |decoded| found.push(show(decoded)));
    }
    finish(&mut scratch, &mut |decoded| found.push(show(decoded)));
    found
}

#[track_caller]
fn check(record: impl AsRef<[u8]>, expected: &[&str]) {
    let record = record.as_ref();
    assert_eq!(decoded(&[record]), expected, "{}", String::from_utf8_lossy(record));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn item(event: &str) -> String {
    event.replacen(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "", 1)
}

#[test]
fn lines_and_lists() {
    check(A, &["get@a"]);
    check(B, &["create@b"]);
    check(format!("\u{feff}  {A}\r"), &["get@a"]);
    check("", &[]);
    check(" \r", &[]);
    check(item(A), &["get@a"]);
    check(A.replace("\":", "\" : "), &["get@a"]);
    let list = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    check(format!("{list}{},\n {}]}}", item(A), B), &["get@a", "create@b#1"]);
    check(format!("{list}]}}"), &["control"]);
    check(format!("{list}{},{}", item(A), &B[..200]), &["get@a", "create@b#1~truncated"]);
    check(format!("[{A},{B}]"), &["get@a", "create@b#1"]);
    check(format!("{list}{}],\"x\":[1],\"items\":[{B}]}}", item(A)), &["get@a", "create@b#1"]);
    check(A.replace(r#""verb":"get""#, r#""verb":"get","verb":"delete""#), &["delete@a"]);
}

#[test]
fn what_is_no_event() {
    check("null", &["not_audit_event:0+4"]);
    check("[]", &["not_audit_event:0+2"]);
    check("{}", &["not_audit_event:0+2"]);
    check("[1,\"x\"]", &["not_audit_event:1+1", "not_audit_event:3+3"]);
    check(r#"{"auditID":"a","scenario":"s"}"#, &["not_audit_event:0+30"]);
    check(r#"{"kind":"Event","apiVersion":"v1","verb":"x"}"#, &["not_audit_event:0+45"]);
    check("kind: Policy", &["not_json:0+12"]);
    check("{\"a\" 1}", &["malformed_json:0+7"]);
    check("{\"kind\":\"Ev", &["truncated:0+11"]);
    check(
        r#"2026-11-22T00:26:03.050366313Z AUDIT: id="38b" stage="ResponseComplete" ip="::1""#,
        &["legacy_format:0+80"],
    );
}

#[test]
fn what_log_stores_and_collectors_hand_out() {
    let (a, b) = (quoted(A), quoted(B));
    check(format!(r#"{{"_index":"i","_id":"1","_score":null,"_source":{A}}}"#), &["get@a"]);
    check(format!(r#"{{"_source":{{"@timestamp":"t","message":{a}}}}}"#), &["get@a"]);
    check(
        format!(
            r#"{{"took":1,"hits":{{"total":{{}},"hits":[{{"_source":{A}}},{{"_source":{B}}}]}}}}"#
        ),
        &["get@a", "create@b#1"],
    );
    check(
        format!(r#"{{"event":{{"kind":"event","dataset":"d"}},"kubernetes":{{"audit":{A}}}}}"#),
        &["get@a"],
    );
    check(format!(r#"{{"kubernetes":{{"pod_name":"audit"}},"log":{a}}}"#), &["get@a"]);
    check(format!(r#"{{"preview":false,"result":{{"_raw":{a},"_time":"x"}}}}"#), &["get@a"]);
    check(format!(r#"{{"results":[{{"_raw":{a}}},{{"_raw":{b}}}]}}"#), &["get@a", "create@b#1"]);
    check(
        format!(r#"{{"time":1700000000.5,"host":"h","event":{A}}}"#),
        &["get@a 2023-11-14T22:13:20.500000Z"],
    );
    check(format!(r#"{{"labels":{{}},"line":{a},"timestamp":"t"}}"#), &["get@a"]);
    check(
        format!(
            r#"{{"status":"success","data":{{"resultType":"streams","result":[{{"stream":{{}},"values":[["1700000000000000000",{a}],["1",{b}]]}}]}}}}"#
        ),
        &["control", "get@a", "control", "create@b#1"],
    );
    check(
        format!(
            r#"{{"resourceLogs":[{{"resource":{{}},"scopeLogs":[{{"scope":{{}},"logRecords":[{{"timeUnixNano":"1","body":{{"stringValue":{a}}}}}]}}]}}]}}"#
        ),
        &["get@a"],
    );
    check(
        r#"{"body":{"kvlistValue":{"values":[{"key":"auditID","value":{"stringValue":"a"}},{"key":"stage","value":{"stringValue":"Panic"}},{"key":"verb","value":{"stringValue":"get"}}]}}}"#,
        &["get@a"],
    );
    check(
        r#"{"body":{"kvlistValue":{"values":[{"key":"auditID","value":"a"}]}}}"#,
        &["not_audit_event:23+42"],
    );
    check(A.replace(r#"{"username":"alice"}"#, r#""{\"username\":\"alice\"}""#), &["get@a"]);
    check(format!(r#"{{"__CURSOR":"s","MESSAGE":{a},"PRIORITY":"6"}}"#), &["get@a"]);
    check(format!(r#"{{"specversion":"1.0","id":"1","data":{A}}}"#), &["get@a"]);
    for key in ["json", "payload", "value", "log", "record", "attributes"] {
        check(format!(r#"{{"x":1,"{key}":{A}}}"#), &["get@a"]);
    }
    check(format!(r#"{{"event":{{"original":{a}}}}}"#), &["get@a"]);
    check(format!(r#"{{"topic":"t","value":{a}}}"#), &["get@a"]);
    check(format!(r#"{{"line":{}}}"#, quoted("I1122 klog")), &["not_audit_event:0+21"]);
    // A body that looks like one of them is a body.
    let body = format!(r#""requestObject":{{"_source":{A},"line":{a}}}"#);
    check(B.replace(r#""requestObject":{"kind":"Pod"}"#, &body), &["create@b"]);
    check(B.replace(r#"{"kind":"Event""#, &format!(r#"{{{body},"kind":"Event""#)), &["create@b"]);
}

#[test]
fn torn_and_glued_lines() {
    let cut = A.find("alice").expect("it is there") - 10;
    check(format!("{}{B}", &A[..cut]), &["get@a~truncated", "create@b#1"]);
    check(format!("{A}{B}"), &["get@a", "create@b#1"]);
    check(format!("{A}{}", &B[..210]), &["get@a", "create@b#1~truncated"]);
    check(
        format!("{}{}{B}", &A[..cut], &A[..120]),
        &["get@a~truncated", "@a#1~truncated", "create@b#2"],
    );
    for prefix in [
        "<14>host apiserver: ",
        "<134>1 2026-11-22T00:20:47Z host kube-apiserver 1 - - ",
        "Nov 22 00:20:47 host kube-apiserver[1]: ",
        "audit.log:78:",
    ] {
        check(format!("{prefix}{A}"), &["get@a"]);
    }
    check(format!("tail\"}} {A}"), &["not_json:0+7", "get@a"]);
    check(format!("{} {A}", "x".repeat(600)), &["not_json:0+601", "get@a"]);
    check(format!("{{\"kind\":\"Ev{A}"), &["truncated:0+11", "get@a"]);
    check(&A[..A.len() - 1], &["get@a~truncated"]);
    let forged = A.replace("\"a\"", "\"forged\"");
    let cut = B.find(",\"requestObject").expect("it is there");
    let body = format!("{},\"requestObject\":{{\"spec\":{forged}", &B[..cut]);
    check(&body, &["create@b~truncated"]);
    check(format!("{body}}}}}"), &["create@b"]);
}

#[test]
fn damaged_bytes() {
    check(format!("\0\0\0{A}"), &["nul_run:0+3", "get@a"]);
    check(format!("{}\0\0{B}", &A[..150]), &["get@a~truncated", "nul_run:150+2", "create@b#1"]);
    let mut bytes = A.as_bytes().to_vec();
    bytes[A.find("alice").expect("it is there")] = 0xff;
    check(&bytes, &["get@a~invalid_utf8"]);
    check(A.replace("alice", r"al\ud800ice"), &["get@a"]);
    let numbers = r#""verb":"get","n":[1e400,-99999999999999999999999,0.1e-9999]"#;
    check(A.replace(r#""verb":"get""#, numbers), &["get@a"]);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    check(&deep, &["envelope_too_deep:8+19984"]);
    check("[".repeat(10_000), &["envelope_too_deep:8+9992"]);
    let event = B.replace("{\"kind\":\"Pod\"}", &deep);
    check(event, &["nesting_too_deep:205+19968", "create@b~nesting_too_deep"]);
    let event = B.replace("{\"kind\":\"Pod\"}", &deep[..15_000]);
    check(&event, &[&format!("nesting_too_deep:0+{}", event.len()), "create@b~nesting_too_deep"]);
}

#[test]
fn framed_lines() {
    let time = "2026-01-02T03:04:05.000000Z";
    let prefix = "2026-01-02T03:04:05.000000001Z stdout";
    check(format!("{time} {A}"), &[&format!("get@a {time}")]);
    check(format!("{time} not an event"), &["control"]);
    check(format!("{prefix} F {A}"), &[&format!("get@a {time}")]);
    let line = |flag: &str, text: &str| format!("{prefix} {flag} {text}");
    let error = line("F", B).replace("stdout", "stderr");
    let lines = [line("P", &A[..20]), error, line("P", &A[20..90]), line("F", &A[90..])];
    let records: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    assert_eq!(decoded(&records), [format!("create@b {time}"), format!("get@a {time}")]);
    assert_eq!(decoded(&records[..3])[1..], [format!("@a~truncated {time}")]);
}

#[test]
fn events_behind_other_text() {
    let time = "2026-01-02T03:04:05.000000Z";
    let found = format!("get@a {time}");
    check(format!("{time} kube-apiserver-audit-0123 {A}"), &[&found]);
    check(format!("{time} cp1 kube-apiserver[1]: {A}"), &[&found]);
    check(format!("{time} host {A}{B}"), &[&found, &format!("create@b#1 {time}")]);
    check(format!("{time} host {}", &A[..222]), &[&format!("get@a~truncated {time}")]);
    check(format!("{time} the audit.k8s.io/v1 backend has started"), &["control"]);
    let message = |text: &str| format!(r#"{{"message":{}}}"#, quoted(text));
    check(message(&format!("<134>Nov 22 00:17:27 cp1 kube-apiserver[1]: {A}")), &["get@a"]);
    check(message(&format!("{time} {A}")), &[&found]);
    check(message(&format!("{time} cp1 kube-apiserver[1]: {A}")), &[&found]);
    check(message(&format!("{time} not an event")), &["control"]);
    check(message(&format!("{time} {{}}")), &["control"]);
    check(format!(r#"{{"log":{}}}"#, quoted(&format!("ip-10-0-1-1 {A}\n"))), &["get@a"]);
}

#[test]
fn lines_in_pieces() {
    let docker = |text: &str| format!(r#"{{"log":{},"stream":"stdout"}}"#, quoted(text));
    let tagged = |tag: &str, text: &str| format!(r#"{{"logtag":"{tag}","log":{}}}"#, quoted(text));
    let bare = |text: &str| format!(r#"{{"log":{}}}"#, quoted(text));
    let lines = |lines: &[String]| {
        let records: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        decoded(&records)
    };
    let end = |text: &str| format!("{text}\n");
    for cut in 1..A.len() {
        let (first, rest) = A.split_at(cut);
        for pieces in [
            [docker(first), docker(&end(rest))],
            [tagged("P", first), tagged("F", rest)],
            [bare(first), bare(rest)],
            [bare(&format!("host {first}")), bare(rest)],
        ] {
            // A prefix that ends inside the start of the event is nothing to wait for.
            let is_known = cut > 60 || !pieces[0].contains("host");
            assert!(!is_known || lines(&pieces) == ["get@a"], "{pieces:?}");
        }
    }
    let error = docker(&end(B)).replace("stdout", "stderr");
    let three = [docker(&A[..20]), error, docker(&A[20..90]), docker(&end(&A[90..])), docker(A)];
    assert_eq!(lines(&three), ["create@b", "get@a", "get@a"]);
    assert_eq!(lines(&three[..3]), ["create@b", "@a~truncated"]);

    // A cut before an object of a body: its piece is no event of its own.
    let forged = A.replace("\"a\"", "\"forged\"");
    let (head, tail) = B.split_at(B.find(":{\"kind\":\"Pod").expect("it is there") + 1);
    let tail = tail.replacen(r#"{"kind":"Pod"}"#, &forged, 1);
    for pieces in [
        vec![docker(head), docker(&end(&tail))],
        vec![tagged("P", head), tagged("F", &tail)],
        vec![bare(head), bare(&tail)],
        vec![docker(head), docker(&forged), docker(&end(&tail[forged.len()..]))],
        vec![bare(head), bare(&forged), bare(&tail[forged.len()..])],
    ] {
        assert_eq!(lines(&pieces), ["create@b"], "{pieces:?}");
    }

    // What is cut for good does not take the next event along.
    let cut = A.find("alice").expect("it is there");
    assert_eq!(lines(&[bare(&A[..cut]), bare(B)]), ["get@a~truncated", "create@b#1"]);
    assert_eq!(lines(&[docker(&A[..cut]), docker(&end(B))]), ["get@a~truncated", "create@b#1"]);
    assert_eq!(lines(&[tagged("F", &A[..cut]), tagged("F", B)]), ["get@a~truncated", "create@b"]);
    let comma = A.find(",\"verb").expect("it is there") + 1;
    assert_eq!(lines(&[bare(&A[..comma]), bare(B)]), ["@a~truncated", "create@b#1"]);
    assert_eq!(lines(&[bare("{cut"), bare("I1122 klog")]).len(), 1);
    assert_eq!(lines(&[bare("I1122 klog"), bare(A)]), ["control", "get@a"]);
}

#[test]
fn eks() {
    let document = |stream: &str, kind: &str, messages: &[&str]| {
        let events: Vec<String> = messages
            .iter()
            .map(|text| {
                format!(r#"{{"id":"1","timestamp":1767225600123,"message":{}}}"#, quoted(text))
            })
            .collect();
        format!(
            r#"{{"messageType":"{kind}","owner":"1","logGroup":"/aws/eks/prod/cluster","logStream":"{stream}","subscriptionFilters":["all"],"logEvents":[{}]}}"#,
            events.join(",")
        )
    };
    let time = "2026-01-01T00:00:00.123000Z";
    let cut = format!("{}[Truncated...]", &A[..220]);
    let audit = document("kube-apiserver-audit-0123", "DATA_MESSAGE", &[A, &cut]);
    let expected = [format!("get@a prod {time}"), format!("get@a#1~truncated prod {time}")];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&audit, &expected);
    check(document("kube-apiserver-0123", "DATA_MESSAGE", &["I1122 klog"]), &["control"]);
    check(document("x", "CONTROL_MESSAGE", &["CWL CONTROL MESSAGE: x"]), &["control"]);
    check(document("kube-apiserver-audit-0", "DATA_MESSAGE", &["klog"]), &["control"]);
    let engine = base64::engine::general_purpose::STANDARD;
    let packed = engine.encode(gzip(audit.as_bytes()));
    check(format!(r#"{{"awslogs":{{"data":"{packed}"}}}}"#), &expected);
    let members = [gzip(audit.as_bytes()), gzip(audit.as_bytes())].concat();
    let firehose = |data: &str| {
        format!(r#"{{"requestId":"r","timestamp":1578090901599,"records":[{{"data":"{data}"}}]}}"#)
    };
    let twice = engine.encode(members);
    let found = decoded(&[firehose(&twice).as_bytes()]);
    assert_eq!(
        (found.len(), found[3].as_str()),
        (4, format!("get@a#3~truncated prod {time}").as_str())
    );
    check(firehose("%%%"), &["invalid_base64:62+5"]);
    check(
        format!(
            r#"{{"events":[{{"logStreamName":"s","timestamp":1767225600123,"message":{}}}],"searchedLogStreams":[]}}"#,
            quoted(A)
        ),
        &[&format!("get@a {time}")],
    );
}

#[test]
fn payloads_have_a_limit() {
    let bomb = gzip(&vec![b' '; INFLATED_BYTES_MAX + 10]);
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(bomb);
    let found = decoded(&[format!(r#"{{"data":"{text}"}}"#).as_bytes()]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("decompressed_too_large:8+"), "{found:?}");
}

#[test]
fn aks() {
    let record = |category: &str, log: &str| {
        format!(
            r#"{{"category":"{category}","operationName":"o","properties":{{"log":{log},"stream":"stdout"}},"resourceId":"/SUBSCRIPTIONS/S/MANAGEDCLUSTERS/TEST-CLUSTER","time":"2025-10-07T16:19:19.647880072Z"}}"#
        )
    };
    let suffix = "TEST-CLUSTER 2025-10-07T16:19:19.647880Z";
    check(record("kube-audit", &quoted(A)), &[&format!("get@a {suffix}")]);
    check(record("kube-audit-admin", A), &[&format!("get@a {suffix}")]);
    check(record("kube-audit", &quoted(&A[..222])), &[&format!("get@a~truncated {suffix}")]);
    check(record("kube-apiserver", "\"I1122 klog\""), &["control"]);
    let both = format!(
        r#"{{"records":[{},{}]}}"#,
        record("guard", "\"x\""),
        record("kube-audit", &quoted(B))
    );
    check(both, &["control", &format!("create@b {suffix}")]);
    let whole = record("kube-audit", &quoted(A));
    check(&whole[..whole.len() - 170], &["get@a~truncated"]);
}

#[test]
fn gke_and_others() {
    let entry = include_str!("../../../tests/corpus/ingest/gke/log-entry.json");
    check(entry, &["create@1b2c prod-1"]);
    let mut scratch = Scratch::default();
    let mut shown = String::new();
    decode(entry.as_bytes(), &mut scratch, &mut |decoded| {
        if let Decoded::Event { event, .. } = decoded {
            shown = String::from_utf8_lossy(event.raw()).into_owned();
        }
    });
    assert_eq!(
        shown,
        include_str!("../../../tests/corpus/ingest/gke/log-entry.audit.json").trim_end()
    );
    check(r#"{"insertId":"x","textPayload":"hello"}"#, &["control"]);
    let data = base64::engine::general_purpose::STANDARD.encode(entry);
    let push = format!(
        r#"{{"message":{{"data":"{data}","messageId":"1","publishTime":"2025-05-27T04:49:00Z"}},"subscription":"projects/p/subscriptions/s"}}"#
    );
    let found = decoded(&[push.as_bytes()]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("create@1b2c prod-1"), "{found:?}");
    let gelf = quoted(&format!(r#"{{"_appID":"x","short_message":{}}}"#, quoted(A)));
    check(format!(r#"{{"message":{gelf}}}"#), &["get@a"]);
    check(
        format!(
            r#"{{"log":{},"stream":"stdout","time":"2025-05-27T04:49:00Z"}}"#,
            quoted(&format!("{A}\n"))
        ),
        &["get@a 2025-05-27T04:49:00.000000Z"],
    );
}

#[test]
fn cloud_logging_entries_of_other_payloads() {
    let entry = |payload: &str| {
        format!(
            r#"{{"insertId":"1",{payload},"timestamp":"2026-11-22T00:16:52.71Z","resource":{{"type":"k8s_container","labels":{{"cluster_name":"c"}}}}}}"#
        )
    };
    let found = "get@a c 2026-11-22T00:16:52.710000Z";
    check(entry(&format!(r#""textPayload":{}"#, quoted(A))), &[found]);
    check(entry(&format!(r#""textPayload":{}"#, quoted(&format!("host {A}")))), &[found]);
    check(entry(&format!(r#""jsonPayload":{A}"#)), &[found]);
    check(format!(r#"{{"jsonPayload":{A},"insertId":"1"}}"#), &["get@a"]);
    let wrapped = format!(r#""jsonPayload":{{"message":{}}}"#, quoted(A));
    check(entry(&wrapped), &[found]);
    check(entry(r#""textPayload":"{\"a\":1}""#), &["control"]);
    check(entry(r#""textPayload":"the audit.k8s.io backend has started""#), &["control"]);
    check(entry(r#""jsonPayload":{"message":"hello"}"#), &["control"]);
    let other = r#""jsonPayload":{"apiVersion":"audit.k8s.io/v1","kind":"Policy"}"#;
    check(entry(other), &["control"]);
    let row = |service: &str| {
        format!(
            r#""protopayload_auditlog":{{{service}"methodName":"io.k8s.core.v1.pods.get","resourceName":"core/v1/pods","requestJson":"{{\"a\":1}}"}}"#
        )
    };
    let k8s = entry(&row(r#""serviceName":"k8s.io","#));
    check(&k8s, &["get@1 c"]);
    check(k8s.replace("T00:16:52.71Z", " 00:16:52.71 UTC"), &["get@1 c"]);
    check(entry(&row(r#""serviceName":"compute.googleapis.com","#)), &["control"]);
    check(entry(&row("")), &[&format!("not_audit_event:0+{}", entry(&row("")).len())]);
}

#[test]
fn every_cut_of_every_form_ends_in_something() {
    let list =
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#, item(A));
    let wrapped = format!(r#"{{"id":"1","timestamp":1,"message":{}}}"#, quoted(A));
    let gke = include_str!("../../../tests/corpus/ingest/gke/log-entry.json").trim_end();
    for text in [A, B, &list, &wrapped, gke] {
        for cut in 1..text.len() {
            let found = decoded(&[&text.as_bytes()[..cut]]);
            assert!(!found.is_empty(), "{}", &text[..cut]);
        }
    }
}

#[test]
fn hostile_records_end_in_time() {
    let start = String::from_utf8_lossy(salvage::EVENT_START).into_owned();
    for text in [
        start.repeat(50_000),
        "{".repeat(1 << 20),
        "{\"a\":[".repeat(200_000),
        "\\\"".repeat(1 << 20),
    ] {
        assert!(!decoded(&[text.as_bytes()]).is_empty());
    }
}

proptest! {
    #[test]
    fn survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decoded(&[&bytes]);
    }

    #[test]
    fn survives_mangled_records(at in 0usize..250, patch in "[\\x00-\\x7f]{0,12}", cut in 0usize..20) {
        for text in [A, B, include_str!("../../../tests/corpus/ingest/gke/log-entry.json")] {
            let mut bytes = text.as_bytes().to_vec();
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, patch.bytes());
            prop_assert!(!decoded(&[&bytes]).is_empty());
        }
    }
}
