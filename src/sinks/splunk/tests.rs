//! A collector that answers by a script, with indexers behind a balancer.

use super::*;
use crate::sinks::endpoint::fake::{Fake, answer, event};

const RAW: &str = r#"{"auditID":"a","verb":"get","stage":"ResponseComplete"}"#;
const ALERT: &[u8] = br#"{"id":"00112233445566778899aabbccddeeff","time":"2026-11-22T00:16:53.715698Z","cluster":"prod-1"}"#;
const FINE: &str = r#"{"text":"Success","code":0}"#;

struct Token(tempfile::NamedTempFile);

impl Token {
    fn new() -> Token {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1234-5678\n").unwrap();
        Token(file)
    }

    fn sink(&self, url: &str, more: &str) -> Splunk {
        let file = self.0.path().display();
        let config = format!(r#"{{"url":"{url}","token":{{"file":"{file}"}}{more}}}"#);
        Splunk::new(serde_json::from_str(&config).unwrap(), &[RecordKind::Events]).unwrap()
    }
}

#[tokio::test]
async fn events_carry_time_host_and_id() {
    let fake = Fake::start(|_| answer(200, FINE)).await;
    let token = Token::new();
    let mut sink = token.sink(&fake.url, r#","index":"k8s""#);
    let batch =
        [event(1, RAW), event(2, "{\"cut\":"), Item { seq: 3, outgoing: Outgoing::Alert(ALERT) }];
    assert_eq!(sink.send(&batch).await, Ok(Delivered::default()));
    let seen = fake.take().remove(0);
    assert_eq!(seen.uri.path(), "/services/collector/event");
    assert_eq!(seen.header("authorization"), "Splunk 1234-5678");
    let lines: Vec<serde_json::Value> =
        seen.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(seen.text().contains(r#""time":1795306613.715698,"#), "{}", seen.text());
    assert_eq!(lines[0]["event"]["auditID"], "a");
    assert_eq!(lines[0]["host"], "prod-1");
    assert_eq!(lines[0]["index"], "k8s");
    assert_eq!(lines[0]["fields"]["kubewitness_id"], batch[0].id());
    assert_eq!(lines[1]["event"], "{\"cut\":");
    assert_eq!(lines[2]["sourcetype"], "kubewitness:alert");
    assert!(seen.text().contains(RAW), "byte for byte");

    let mut raw = token.sink(&fake.url, r#","endpoint":"raw","source":"a&b=c""#);
    raw.send(&batch[..1]).await.unwrap();
    let seen = fake.take().remove(0);
    assert_eq!(seen.text(), format!("{RAW}\n"));
    let query = seen.uri.query().unwrap();
    assert!(query.contains("source=a%26b%3Dc&sourcetype=kube%3Aapiserver%3Aaudit"), "{query}");
}

#[tokio::test]
async fn an_acknowledgement_is_waited_for_and_never_mistaken() {
    // The first question reaches an indexer that knows nothing of the channel.
    let mut asked = 0;
    let fake = Fake::start(move |seen| {
        if seen.uri.path().ends_with("/ack") {
            asked += 1;
            let is_there = asked >= 3;
            assert_eq!(seen.header("cookie"), "indexer=2");
            return answer(200, format!(r#"{{"acks":{{"7":{is_there}}}}}"#));
        }
        axum::http::Response::builder()
            .header("set-cookie", "indexer=2; Path=/; HttpOnly")
            .body(r#"{"text":"Success","code":0,"ackId":7}"#.into())
            .unwrap()
    })
    .await;
    let token = Token::new();
    let mut sink = token.sink(&fake.url, r#","acks":true"#);
    assert_eq!(sink.send(&[event(1, RAW)]).await, Ok(Delivered::default()));
    let seen = fake.take();
    assert_eq!(seen.len(), 4);
    let channel = seen[0].header("x-splunk-request-channel");
    assert_eq!(channel.len(), 36);
    assert_eq!(seen[1].uri.query().unwrap(), format!("channel={channel}"));
    assert_eq!(seen[1].text(), r#"{"acks":[7]}"#);
    assert_ne!(super::channel(&[event(1, RAW)]), super::channel(&[event(2, RAW)]));
}

#[tokio::test]
async fn without_an_acknowledgement_it_is_sent_again() {
    let fake = Fake::start(|seen| match seen.uri.path().ends_with("/ack") {
        true => answer(200, r#"{"acks":{"0":false}}"#),
        false => answer(200, r#"{"code":0,"ackId":0}"#),
    })
    .await;
    let token = Token::new();
    let mut sink = token.sink(&fake.url, r#","acks":true,"ack_timeout":"0s""#);
    let error = sink.send(&[event(1, RAW)]).await.unwrap_err();
    assert!(matches!(error, SendError::Retry { .. }), "{error}");
}

#[tokio::test]
async fn every_code_has_its_verdict() {
    let fake = Fake::start(|_| answer(200, FINE)).await;
    let token = Token::new();
    let mut sink = token.sink(&fake.url, "");
    for (status, code, expected) in [
        (503, 9, "retry"),
        (500, 8, "retry"),
        (429, 0, "retry"),
        (413, 27, "split"),
        (400, 6, "bisect"),
        (400, 12, "bisect"),
        (400, 15, "bisect"),
        (400, 7, "block: name an index"),
        (400, 10, "block: the token wants acknowledgement"),
        (400, 14, "block: the token has no acknowledgement"),
        (401, 2, "block: mend the token"),
        (403, 4, "block: mend the token"),
        (404, 0, "block: mend the sink's `url`"),
    ] {
        fake.next(answer(status, format!(r#"{{"text":"t","code":{code}}}"#)));
        let found = match sink.send(&[event(1, RAW)]).await.unwrap_err() {
            SendError::Retry { .. } => "retry".to_owned(),
            SendError::TooLarge { .. } => "split".to_owned(),
            SendError::Reject { .. } => "bisect".to_owned(),
            SendError::Block { remedy, .. } => format!("block: {remedy}"),
        };
        assert!(found.starts_with(expected), "{status} {code}: {found}");
    }
    fake.next(answer(400, r#"{"text":"No data","code":5}"#));
    sink.check().await.unwrap();
    fake.next(answer(403, r#"{"text":"Invalid token","code":4}"#));
    let error = sink.check().await.unwrap_err().to_string();
    assert!(error.contains("Invalid token") && error.contains("mend the token"), "{error}");
}
