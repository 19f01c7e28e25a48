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
    frame.send(&mut load).await.unwrap();
    assert_eq!(load.dead_letters("s", 0), []);
}

/// What rsyslog wrote of these alerts: it has read everything, and writes in its own time.
async fn received(dir: &Path, expected: &[String]) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for _ in 0..100 {
        let text = std::fs::read_to_string(dir.join("received")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_ours = |line: &Value| {
            expected.iter().any(|id| line["data"].as_str().is_some_and(|data| data.contains(id)))
        };
        found = lines.filter(is_ours).collect();
        if found.len() >= expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_against_rsyslog() {
    let Some(dir) = std::env::var_os("KUBEWITNESS_TEST_RSYSLOG").map(PathBuf::from) else { return };
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let other = tempfile::NamedTempFile::new().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(other.path(), own.cert.pem()).unwrap();
    let tls = |ca: &str| json!({"ca_file": ca});
    let plain = json!({"type": "syslog", "name": "s", "address": "127.0.0.1:26514"});
    let with = |more: Value| {
        let mut config = plain.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame(config)
    };
    let secure = "localhost:26515";
    for (more, expected) in [
        (json!({}), ""),
        (json!({"address": secure, "tls": tls(&file("ca.pem"))}), ""),
        (
            json!({"address": secure, "tls": tls(other.path().to_str().unwrap())}),
            "invalid peer certificate",
        ),
        (json!({"address": "127.0.0.1:1"}), "cannot connect"),
    ] {
        let found = with(more.clone()).check().await;
        let found = found.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(expected), "{more}: {found}");
        assert!(!expected.is_empty() || found.is_empty(), "{more}: {found}");
    }
    // Nothing that an event holds begins another message.
    let forged = "eve\n<13>1 - evil forged - - - x\r\n99 <13>1 - evil forged - - - \u{2028}";
    let mut id = std::process::id() * 100;
    let mut expected = Vec::new();
    for more in [
        json!({"format": "native"}),
        json!({"format": "native", "framing": "lf"}),
        json!({"format": "cef", "address": secure, "tls": tls(&file("ca.pem"))}),
        json!({"format": "leef", "framing": "lf", "address": secure, "tls": tls(&file("ca.pem"))}),
    ] {
        let alerts: Vec<String> = (0..50).map(|n| alert(id + n, forged)).collect();
        expected.extend((id..id + 50).map(|id| format!("{id:032x}")));
        id += 50;
        send(&mut with(more), &alerts).await;
    }
    let long = alert(id, &"x".repeat(9_000));
    expected.push(format!("{id:032x}"));
    send(&mut with(json!({})), &[long]).await;

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
