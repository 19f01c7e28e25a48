//! Each format against golden files, and against values that want to break out of it.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::record::StoredEvent;

const FORMATS: [Format; 6] =
    [Format::Native, Format::Ecs, Format::Ocsf, Format::Cef, Format::Leef, Format::Falco];

const EXEC: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"0b1c9a52-4a57-4a0e-9c3e-2f1f6a1c7d10","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods/web-0/exec?command=sh&command=-c+id&stdin=true","verb":"create","user":{"username":"alice","uid":"u-0002","groups":["devs","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["X509SHA256=ab"]}},"impersonatedUser":{"username":"admin","groups":["system:masters"]},"sourceIPs":["203.0.113.9","10.0.0.7"],"userAgent":"kubectl/v1.36.2","objectRef":{"resource":"pods","namespace":"shop","name":"web-0","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2026-11-22T00:16:52.710682Z","stageTimestamp":"2026-11-22T00:16:53.715698Z","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"dev/shop\""}}"#;

const DENIED: &str = r#"{"level":"Metadata","auditID":"7c","stage":"ResponseComplete","requestURI":"/apis/rbac.authorization.k8s.io/v1/clusterroles/x","verb":"delete","user":{},"sourceIPs":["2001:db8::1"],"userAgent":"curl/8","objectRef":{"resource":"clusterroles","name":"x","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"},"responseStatus":{"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401},"requestReceivedTimestamp":"2026-11-22T00:16:52Z","stageTimestamp":"2026-11-22T00:16:52Z","annotations":{}}"#;

const NOTICE: &str = r#"{"kind":"gap","time":"2026-11-22T00:16:52.000000Z","source":"log","subject":"/var/log/a.log","text":"a.log was removed before it was read","lost_bytes":512}"#;

fn alert() -> String {
    let alert = serde_json::json!({
        "id": "00112233445566778899aabbccddeeff",
        "time": "2026-11-22T00:16:53.715698Z",
        "kind": "correlation",
        "cluster": "prod-1",
        "rule": {"id": "5b0a", "title": "Exec | into a = pod", "level": "high", "source": "sigma",
            "tags": ["attack.t1609", "attack.execution"]},
        "attack": [{"technique": "T1609", "tactics": ["execution"]},
            {"technique": "T1552.007", "tactics": ["execution"]}],
        "actor": {"username": "system:serviceaccount:shop:web", "kind": "service_account",
            "groups": ["system:serviceaccounts"], "source_ips": ["10.0.0.7"],
            "source_ip": "10.0.0.7", "user_agent": "curl/8\nforged: 1"},
        "request": {"verb": "create", "uri": "/api/v1/namespaces/shop/pods/web-0/exec",
            "resource": "pods", "subresource": "exec", "namespace": "shop", "name": "web-0",
            "decision": "allow", "code": 101},
        "reason": [{"field": "objectRef.subresource", "value": "exec", "matched": "exec"}],
        "summary": "web executed in web-0",
        "events": [{"audit_id": "0b1c", "stage": "ResponseStarted",
            "time": "2026-11-22T00:16:53.715698Z", "position": "audit.log:7"}],
        "count": 1,
        "runbook": "docs/runbooks/exec.md"
    });
    alert.to_string()
}

fn event(raw: &[u8]) -> Item<'_> {
    let stored = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 0,
        duplicate_key: [7; 16],
        cluster: "prod-1",
        source: "log",
        position: "audit.log:7",
        raw,
    };
    Item { seq: 1, outgoing: Outgoing::Event(stored) }
}

fn line(format: Format, item: &Item<'_>) -> String {
    let mut out = Vec::new();
    format.encode(item, &mut out);
    String::from_utf8(out).unwrap()
}

/// Compares with `tests/golden/encode/<name>`; `UPDATE_GOLDEN=1` rewrites the file instead.
fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encode").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == actual, "{name} differs; UPDATE_GOLDEN=1 rewrites it. Now:\n{actual}");
}

#[test]
fn formats_are_as_reviewed() {
    let alert = alert();
    let items = [
        ("exec", event(EXEC.as_bytes())),
        ("denied", event(DENIED.as_bytes())),
        ("cut", event(&EXEC.as_bytes()[..300])),
        ("alert", Item { seq: 2, outgoing: Outgoing::Alert(alert.as_bytes()) }),
        ("notice", Item { seq: 3, outgoing: Outgoing::Notice(NOTICE.as_bytes()) }),
    ];
    for format in FORMATS {
        let mut all = String::new();
        for (name, item) in &items {
            let line = line(format, item);
            assert!(!line.contains(['\n', '\r']), "{line}");
            all += &format!("== {name}\n");
            all += &match serde_json::from_str::<Value>(&line) {
                Ok(value) if format != Format::Native => {
                    serde_json::to_string_pretty(&value).unwrap()
                }
                _ => line,
            };
            all.push('\n');
        }
        golden(&format!("{}.txt", format.as_str()), &all);
    }
}

/// Reads a CEF line as a receiver does: seven header parts, then the keys of the extension.
fn read_cef(line: &str) -> (Vec<String>, Vec<String>) {
    let (mut parts, mut part, mut is_escaped) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while parts.len() < 7
        && let Some(letter) = letters.next()
    {
        match letter {
            _ if is_escaped => part.push(letter),
            '|' => parts.push(std::mem::take(&mut part)),
            '\\' => {}
            _ => part.push(letter),
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    let extension: Vec<char> = letters.collect();
    let (mut keys, mut is_escaped, mut word) = (Vec::new(), false, String::new());
    for letter in extension {
        match letter {
            '=' if !is_escaped => keys.push(std::mem::take(&mut word)),
            ' ' => word.clear(),
            _ => word.push(letter),
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    (parts, keys)
}

/// An event of which every text is the same one.
fn hostile(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"auditID":{text},"stage":{text},"level":{text},"requestURI":{text},"verb":{text},
        "user":{{"username":{text},"uid":{text},"groups":[{text}]}},"sourceIPs":[{text}],
        "userAgent":{text},"objectRef":{{"resource":{text},"name":{text},"namespace":{text}}},
        "annotations":{{{text}:{text}}}}}"#
    )
}

proptest! {
    #[test]
    fn no_value_breaks_out(text in "[a-z=|\\\\\t\r\n\u{0}-\u{1f}\u{7f}-\u{9f}\u{2028}\"'<@ ]{0,20}") {
        let raw = hostile(&text);
        let item = event(raw.as_bytes());
        let calm = hostile("x");
        let calm = event(calm.as_bytes());
        for format in FORMATS {
            let line = line(format, &item);
            prop_assert!(!line.contains(['\n', '\r']), "{}", line);
            if format.is_json() {
                serde_json::from_str::<Value>(&line).unwrap();
            } else {
                prop_assert!(!line.replace('\t', "").contains(char::is_control), "{}", line);
            }
        }
        let (parts, keys) = read_cef(&line(Format::Cef, &item));
        let (_, calm_keys) = read_cef(&line(Format::Cef, &calm));
        prop_assert_eq!(parts.len(), 7);
        let unknown: Vec<&String> = keys.iter().filter(|key| !calm_keys.contains(key)).collect();
        let known = ["c6a2", "src", "requestMethod"];
        prop_assert!(unknown.iter().all(|key| known.contains(&key.as_str())), "{:?}", unknown);
        let leef = line(Format::Leef, &item);
        let pairs = leef.split('|').nth(6).map(|rest| rest.split('\t').count());
        prop_assert!(pairs.is_some_and(|count| count <= 20), "{}", leef);
        prop_assert!(leef.matches("\tcat=").count() <= 1, "{}", leef);
    }

    #[test]
    fn any_bytes_are_one_line(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in FORMATS {
            for outgoing in [event(&raw).outgoing, Outgoing::Alert(&raw), Outgoing::Notice(&raw)] {
                let mut out = Vec::new();
                format.encode(&Item { seq: 1, outgoing }, &mut out);
                prop_assert!(memchr::memchr2(b'\n', b'\r', &out).is_none());
                if format.is_json() && format != Format::Native {
                    serde_json::from_slice::<Value>(&out).unwrap();
                }
            }
        }
    }
}
