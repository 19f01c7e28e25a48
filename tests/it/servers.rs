//! Sinks against real servers: each is tested where its script in tests/servers has started it and
//! a variable names it; without them there is nothing to test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kubewitness::sinks::config::Config;
use kubewitness::sinks::frame::Frame;
use kubewitness::sinks::{Item, Outgoing};
use serde_json::{Value, json};

fn frame(config: Value) -> Frame {
    let config: Config = serde_json::from_value(config).unwrap();
    Frame::open(&config).unwrap()
}

/// An alert with this text where an attacker could have put it.
fn alert(id: u32, text: &str) -> String {
    json!({
        "id": format!("{id:032x}"), "time": "2026-11-22T00:16:53.715698Z", "kind": "match",
        "cluster": "prod-1",
        "rule": {"id": "r1", "title": "Exec into a pod", "level": "high", "source": "sigma"},
        "actor": {"username": text, "user_agent": text, "source_ip": "203.0.113.9"},
        "request": {"verb": "create", "resource": "pods", "namespace": "shop", "name": text},
        "summary": format!("{text} executed"), "count": 1,
    })
    .to_string()
}

async fn send(frame: &mut Frame, alerts: &[String]) {
    let items = alerts.iter().zip(1..);
    let items = items.map(|(json, seq)| Item { seq, outgoing: Outgoing::Alert(json.as_bytes()) });
    let mut load = frame.load_items(items);
    // Who closes early has confirmed nothing; as in a running instance, it is tried again.
    let mut attempts = 1;
    while let Err(unsent) = frame.send(&mut load).await {
        assert!(attempts < 5, "{unsent:?}");
        attempts += 1;
    }
    assert_eq!(load.dead_letters("s", 0), []);
}

/// What rsyslog wrote of these alerts: it has read everything, and writes in its own time.
async fn received(dir: &Path, expected: &[String]) -> Vec<Value> {
    let ours = || {
        let text = std::fs::read_to_string(dir.join("received")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_ours = |line: &Value| {
            expected.iter().any(|id| line["data"].as_str().is_some_and(|data| data.contains(id)))
        };
        lines.filter(is_ours).collect::<Vec<Value>>()
    };
    wait_for(|| ours().len() >= expected.len()).await;
    ours()
}

/// Waits for what a server does in its own time; gives up after long.
async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Where a receiver of syslog listens, as its script in tests/servers has it.
struct Receiver {
    variable: &'static str,
    plain: &'static str,
    secure: &'static str,
    /// Whether it wants a client's certificate.
    is_mutual: bool,
    framings: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_against_rsyslog() {
    let receiver = Receiver {
        variable: "KUBEWITNESS_TEST_RSYSLOG",
        plain: "127.0.0.1:26514",
        secure: "localhost:26515",
        is_mutual: false,
        framings: &["octet_counting", "lf"],
    };
    syslog_against(&receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_against_syslog_ng() {
    let receiver = Receiver {
        variable: "KUBEWITNESS_TEST_SYSLOG_NG",
        plain: "127.0.0.1:26614",
        secure: "localhost:26615",
        is_mutual: true,
        framings: &["octet_counting"],
    };
    syslog_against(&receiver).await;
}

/// A sink of type syslog with more settings.
fn syslog(address: &str, more: Value) -> Frame {
    let mut config = json!({"type": "syslog", "name": "s", "address": address});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    frame(config)
}

async fn syslog_against(receiver: &Receiver) {
    let Some(dir) = std::env::var_os(receiver.variable).map(PathBuf::from) else { return };
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let tls = match receiver.is_mutual {
        true => json!({"ca_file": file("ca.pem"), "cert_file": file("client.crt"),
            "key_file": file("client.key")}),
        false => json!({"ca_file": file("ca.pem")}),
    };
    what_check_says(receiver, &tls, &file("ca.pem")).await;
    // Nothing that an event holds begins another message.
    let forged = "eve\n<13>1 - evil forged - - - x\r\n99 <13>1 - evil forged - - - \u{2028}";
    let mut id = std::process::id() * 1_000;
    let mut expected = Vec::new();
    for framing in receiver.framings {
        for (address, format, tls) in [
            (receiver.plain, "native", Value::Null),
            (receiver.plain, "cef", Value::Null),
            (receiver.secure, "native", tls.clone()),
            (receiver.secure, "leef", tls.clone()),
        ] {
            let alerts: Vec<String> = (0..50).map(|n| alert(id + n, forged)).collect();
            expected.extend((id..id + 50).map(|id| format!("{id:032x}")));
            id += 50;
            let more = json!({"format": format, "framing": framing, "tls": tls});
            send(&mut syslog(address, more), &alerts).await;
        }
    }
    let long = alert(id, &"x".repeat(9_000));
    expected.push(format!("{id:032x}"));
    send(&mut syslog(receiver.plain, json!({})), &[long]).await;

    let found = received(&dir, &expected).await;
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, id) in found.iter().zip(&expected) {
        assert!(line["data"].as_str().unwrap().contains(id.as_str()), "{line}");
        assert_eq!((&line["host"], &line["app"]), (&json!("prod-1"), &json!("kubewitness")));
    }
    let text = std::fs::read_to_string(dir.join("received")).unwrap();
    assert!(!text.contains("\"app\":\"forged\""), "a message was forged");
    let native: Value = serde_json::from_str(found[0]["message"].as_str().unwrap()).unwrap();
    assert_eq!(native["actor"]["username"], forged);
    let last = found.last().unwrap()["message"].as_str().unwrap();
    assert!(last.contains("the archive has it whole"), "{last}");
}

async fn what_check_says(receiver: &Receiver, tls: &Value, ca: &str) {
    let other = tempfile::NamedTempFile::new().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(other.path(), own.cert.pem()).unwrap();
    let mut cases = vec![
        (receiver.plain, json!({}), ""),
        (receiver.secure, json!({"tls": tls}), ""),
        (
            receiver.secure,
            json!({"tls": {"ca_file": other.path()}}),
            "the certificate is self-signed, or of an authority unknown here",
        ),
        ("127.0.0.1:1", json!({}), "cannot connect"),
    ];
    if receiver.is_mutual {
        let without = json!({"tls": {"ca_file": ca}});
        cases.push((receiver.secure, without, "wants a client's certificate"));
    }
    for (address, more, expected) in cases {
        let found = syslog(address, more.clone()).check().await;
        let found = found.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(expected), "{more}: {found}");
        assert!(!expected.is_empty() || found.is_empty(), "{more}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_against_a_receiver_of_otlp() {
    let Some(dir) = std::env::var_os("KUBEWITNESS_TEST_OTLP").map(PathBuf::from) else {
        return;
    };
    let mut id = std::process::id() * 1_000;
    let mut expected = Vec::new();
    for gzip in [false, true] {
        let mut sink = frame(json!({"type": "http", "name": "s", "shape": "otlp",
            "url": "http://127.0.0.1:24318", "http": {"gzip": gzip}}));
        sink.check().await.unwrap();
        let alerts: Vec<String> = (0..20).map(|n| alert(id + n, "eve")).collect();
        expected.extend((id..id + 20).map(|id| format!("{id:032x}")));
        id += 20;
        send(&mut sink, &alerts).await;
    }
    let file = dir.join("received");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for(|| expected.iter().all(|id| read().contains(id.as_str()))).await;
    let text = read();
    for part in ["SeverityText: high", "Str(prod-1)", "Exec into a pod"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_against_alertmanager() {
    let Some(url) = std::env::var_os("KUBEWITNESS_TEST_ALERTMANAGER") else { return };
    let url = url.into_string().unwrap();
    let mut sink = frame(json!({"type": "http", "name": "s", "shape": "alertmanager", "url": url}));
    sink.check().await.unwrap();
    let user = format!("eve-{} <b>&\n\"", std::process::id());
    send(&mut sink, &[alert(1, &user), alert(1, &user)]).await;
    let answer = reqwest::get(format!("{url}/api/v2/alerts")).await.unwrap();
    let alerts: Vec<Value> = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let shown = user.replace('\n', " ");
    let ours: Vec<&Value> =
        alerts.iter().filter(|alert| alert["labels"]["username"] == shown.as_str()).collect();
    assert_eq!(ours.len(), 1, "{alerts:#?}");
    assert_eq!(ours[0]["labels"]["alertname"], "Exec into a pod");
    assert_eq!(ours[0]["labels"]["severity"], "high");
    let summary = ours[0]["annotations"]["summary"].as_str().unwrap();
    assert_eq!(summary, format!("{shown} executed"));
}

#[test]
fn an_archive_signed_by_openbao() {
    let Some(dir) = std::env::var_os("KUBEWITNESS_TEST_OPENBAO").map(PathBuf::from) else { return };
    let own = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kubewitness"));
        command.args(args).current_dir(own.path()).env("XDG_STATE_HOME", own.path());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let good = |args: &[&str]| {
        let (code, out, err) = run(args);
        assert_eq!(code, Some(0), "{args:?} {out} {err}");
        out.trim_end().to_owned()
    };
    let (token, ca) = (dir.join("token"), dir.join("ca.pem"));
    let service = ["--token-file", token.to_str().unwrap(), "--ca-file", ca.to_str().unwrap()];
    let keys = "https://127.0.0.1:28200/v1/transit/keys";
    let origin = "audit.example.com/prod-1";
    let describe = |name: &str, file: &str, version: &str| {
        let key = format!("{keys}/{name}");
        let args = ["archive", "keygen", origin, "-o", file, "--kms", &key, "--key-version"];
        run(&[&args[..], &[version], &service].concat())
    };
    let (code, public, said) = describe("audit", "one.key", "1");
    assert_eq!(code, Some(0), "{said}");
    let public = public.trim_end().to_owned();
    let text = std::fs::read_to_string(own.path().join("one.key")).unwrap();
    assert!(text.contains("\"vault\"") && !text.contains("PRIVATE"), "{text}");
    for (name, version, expected) in [
        ("absent", "1", "check `mount`, `key`"),
        ("audit", "9", "no version 9, the latest is 2"),
        ("rsa", "1", "type=ed25519"),
    ] {
        let (code, _, said) = describe(name, "none.key", version);
        assert!(code == Some(2) && said.contains(expected), "{said}");
    }
    std::fs::write(own.path().join("lines"), "{\"auditID\":\"a\"}\n".repeat(50)).unwrap();
    let append = |key: &str| {
        let args = ["archive", "append", "archive", "lines", "--lines-max", "7"];
        run(&[&args[..], &["--state-dir", "state", "--key-file", key]].concat())
    };
    assert_eq!(append("one.key").0, Some(0));
    // A rotation over there is none here before the log says so.
    assert_eq!(describe("audit", "two.key", "2").0, Some(0));
    assert_eq!(append("two.key").0, Some(1));
    let rotate = ["archive", "rotate", "archive", "--state-dir", "state", "--key-file"];
    good(&[&rotate[..], &["one.key", "--next", "two.key"]].concat());
    assert_eq!(append("two.key").0, Some(0));
    good(&["archive", "keygen", origin, "-o", "three.key"]);
    good(&[&rotate[..], &["two.key", "--next", "three.key"]].concat());
    assert_eq!(append("three.key").0, Some(0));
    let verified = good(&["verify", "--no-state", "--key", &public, "archive"]);
    assert!(verified.contains("150 lines"), "{verified}");
    let (code, _, said) = append("one.key");
    assert!(code == Some(1) && said.contains("the state directory is of the log"), "{said}");
}
