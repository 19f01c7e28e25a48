//! A service that answers by a script.

use serde_json::Value;

use super::*;
use crate::sinks::Outgoing;
use crate::sinks::endpoint::fake::{Fake, answer};

const ALERT: &str = r#"{"id":"00112233445566778899aabbccddeeff","time":"2026-11-22T00:16:53.715698Z","kind":"match","cluster":"prod-1","rule":{"id":"r1","title":"Exec <!channel> into a pod","level":"high","source":"sigma"},"actor":{"username":"eve\n*bold* <https://evil|click>"},"request":{"verb":"create","namespace":"shop","name":"web-0","resource":"pods","subresource":"exec"},"summary":"eve \"executed\" in <!here>","count":1}"#;

fn items() -> [Item<'static>; 2] {
    [1, 2].map(|seq| Item { seq, outgoing: Outgoing::Alert(ALERT.as_bytes()) })
}

fn sink(url: &str, more: &str) -> Result<Http, String> {
    let config: Config =
        serde_json::from_str(&format!(r#"{{"url":"{url}"{more}}}"#)).map_err(|e| e.to_string())?;
    Http::new(config, &[RecordKind::Alerts])
}

#[tokio::test]
async fn each_shape_has_its_path_and_body() {
    let fake = Fake::start(|_| answer(200, "{}")).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "k3y").unwrap();
    let keyed =
        |shape: &str| format!(r#","shape":"{shape}","key":{{"file":"{}"}}"#, key.path().display());
    let template =
        r#","shape":"template","template":"{\"say\":\"{{ summary }}\",\"all\":{{json}}}""#;
    for (more, path, requests, pointer, expected) in [
        (r#","shape":"array""#.to_owned(), "/", 1, "/1/id", "00112233445566778899aabbccddeeff"),
        (r#","shape":"each""#.to_owned(), "/", 2, "/cluster", "prod-1"),
        (template.to_owned(), "/", 2, "/say", "eve \"executed\" in <!here>"),
        (r#","shape":"falcosidekick""#.to_owned(), "/", 2, "/priority", "Error"),
        (
            r#","shape":"alertmanager""#.to_owned(),
            "/api/v2/alerts",
            1,
            "/0/labels/severity",
            "high",
        ),
        (r#","shape":"slack""#.to_owned(), "/", 2, "/text", "eve \"executed\" in &lt;!here&gt;"),
        (
            r#","shape":"teams""#.to_owned(),
            "/",
            2,
            "/attachments/0/content/body/5/inlines/0/text",
            "Actor: eve *bold* <https://evil|click>",
        ),
        (keyed("pagerduty"), "/v2/enqueue", 2, "/routing_key", "k3y"),
        (r#","shape":"loki""#.to_owned(), "/loki/api/v1/push", 1, "/streams/1/values/0/1", ALERT),
        (keyed("datadog"), "/api/v2/logs", 1, "/1/message", ALERT),
        (
            r#","shape":"otlp""#.to_owned(),
            "/v1/logs",
            1,
            "/resourceLogs/0/scopeLogs/0/logRecords/1/timeUnixNano",
            "1795306613715698000",
        ),
    ] {
        let mut sink = sink(&fake.url, &more).unwrap();
        assert_eq!(sink.send(&items()).await, Ok(Delivered::default()), "{more}");
        let seen = fake.take();
        assert_eq!((seen.len(), seen[0].uri.path()), (requests, path), "{more}");
        let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
        assert_eq!(body.pointer(pointer), Some(&Value::from(expected)), "{more}: {body:#}");
        let is_datadog = more.contains("datadog");
        assert_eq!(seen[0].header("dd-api-key"), if is_datadog { "k3y" } else { "" });
    }
}

#[tokio::test]
async fn requests_are_signed_and_repeats_have_the_same_key() {
    let fake = Fake::start(|_| answer(202, "")).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "k3y").unwrap();
    let file = key.path().display();
    let more = format!(
        r#","signature_key":{{"file":"{file}"}},"headers":{{"x-team":"sec"}},
        "auth":{{"secret":{{"file":"{file}"}}}},"http":{{"gzip":true}}"#
    );
    let mut sink = sink(&fake.url, &more).unwrap();
    sink.send(&items()).await.unwrap();
    sink.send(&items()).await.unwrap();
    sink.send(&items()[..1]).await.unwrap();
    let seen = fake.take();
    let keys: Vec<&str> = seen.iter().map(|one| one.header("idempotency-key")).collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
    assert_eq!(seen[0].header("authorization"), "Bearer k3y");
    assert_eq!(seen[0].header("x-team"), "sec");
    assert_eq!(seen[0].text(), format!("{ALERT}\n{ALERT}\n"));
    let signed = seen[0].header("x-kubewitness-signature");
    let seconds = signed.strip_prefix("t=").unwrap().split(',').next().unwrap();
    assert_eq!(signature(b"k3y", seconds.parse().unwrap(), &seen[0].body), signed);
}

#[tokio::test]
async fn what_a_far_side_repeats_of_our_secrets_is_not_shown() {
    let fake = Fake::start(|_| answer(202, "")).await;
    let key = tempfile::NamedTempFile::new().unwrap();
    let file = key.path().display();
    let keyed = format!(r#","shape":"pagerduty","key":{{"file":"{file}"}}"#);
    let hidden = format!(r#"{{"shape":"slack","url_secret":{{"file":"{file}"}}}}"#);
    let in_url = format!("{}/services/T0123/B0123/Sl4ckT0kenOfOurs?code=Qu3ryOfOurs1", fake.url);
    for (secret, config, echo) in [
        ("R0utingKeyOfOurs", None, "no such key: R0utingKeyOfOurs"),
        (&*in_url, Some(&hidden), "no /services/T0123/B0123/Sl4ckT0kenOfOurs?code=Qu3ryOfOurs1"),
        (&in_url, Some(&hidden), "no Sl4ckT0kenOfOurs with Qu3ryOfOurs1"),
    ] {
        std::fs::write(key.path(), secret).unwrap();
        let mut sink = match config {
            Some(config) => {
                Http::new(serde_json::from_str(config).unwrap(), &[RecordKind::Alerts]).unwrap()
            }
            None => sink(&fake.url, &keyed).unwrap(),
        };
        for status in [400, 403, 503] {
            fake.next(answer(status, echo));
            let told = format!("{:?}", sink.send(&items()).await);
            assert!(told.contains("[REDACTED]") && !told.contains("OfOurs"), "{told}");
        }
    }
}

#[tokio::test]
async fn what_was_delivered_one_by_one_is_not_sent_again() {
    let fake = Fake::start(|_| answer(200, "")).await;
    let mut each = sink(&fake.url, r#","shape":"each""#).unwrap();
    fake.next(answer(200, ""));
    fake.next(answer(503, ""));
    let delivered = each.send(&items()).await.unwrap();
    assert_eq!(delivered.again, [1]);
    assert!(matches!(delivered.why, Some(SendError::Retry { .. })));
    fake.next(answer(422, "bad"));
    let delivered = each.send(&items()).await.unwrap();
    assert_eq!((delivered.rejected.len(), delivered.rejected[0].index), (1, 0));

    let mut otlp = sink(&fake.url, r#","shape":"otlp""#).unwrap();
    let body = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}"#;
    fake.next(answer(200, body));
    assert!(matches!(otlp.send(&items()).await, Err(SendError::Reject { .. })));
}

#[tokio::test]
async fn a_preflight_posts_nothing() {
    let fake = Fake::start(|_| answer(405, "")).await;
    sink(&fake.url, "").unwrap().check().await.unwrap();
    assert!(fake.take().iter().all(|seen| seen.body.is_empty()));
    fake.next(answer(401, ""));
    let error = sink(&fake.url, "").unwrap().check().await.unwrap_err().to_string();
    assert!(error.contains("mend the sink's secret"), "{error}");
}

#[test]
fn a_wrong_configuration_says_what_to_write() {
    for (more, part) in [
        (r#","shape":"template""#, "needs `template`"),
        (
            r#","shape":"template","template":"{{who}}""#,
            "unknown field \"who\", expected one of id",
        ),
        (r#","template":"x""#, "needs `shape: template`"),
        (r#","shape":"pagerduty""#, "needs `key`"),
        (r#","shape":"array","format":"cef""#, "a format that is JSON"),
        (r#","headers":{"a b":"c"}"#, "cannot be a header"),
        (r#","url_secret":{"env":"A"}"#, "either `url` or `url_secret`"),
    ] {
        let error = sink("https://a", more).err().expect(more);
        assert!(error.contains(part), "{error}");
    }
    let config = serde_json::from_str(r#"{"url":"https://a","shape":"slack"}"#).unwrap();
    assert!(Http::new(config, &[RecordKind::Events]).err().unwrap().contains("for people"));
}
