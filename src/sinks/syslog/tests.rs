//! What is written, and when it counts as read.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::sinks::Outgoing;

const ALERT: &str = r#"{"id":"00112233445566778899aabbccddeeff","time":"2026-11-22T00:16:53.715698Z","kind":"match","cluster":"prod 1","rule":{"id":"r1","title":"Exec","level":"high","source":"sigma"},"actor":{"username":"eve"},"request":{},"summary":"eve","count":1}"#;

fn sink(address: &str, more: &str) -> Syslog {
    let text = format!(r#"{{"address":"{address}"{more}}}"#);
    Syslog::new(serde_json::from_str(&text).unwrap()).unwrap()
}

fn alert(json: &str) -> Item<'_> {
    Item { seq: 7, outgoing: Outgoing::Alert(json.as_bytes()) }
}

#[tokio::test]
async fn a_batch_is_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let receiver = tokio::spawn(async move {
        let mut texts = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            texts.push(text);
        }
        texts
    });
    let batch = [alert(ALERT), alert(ALERT)];
    assert_eq!(sink(&address, "").send(&batch).await, Ok(Delivered::default()));
    sink(&address, r#","framing":"lf","format":"cef","facility":4"#).send(&batch).await.unwrap();
    let texts = receiver.await.unwrap();
    let message = format!(
        "<107>1 2026-11-22T00:16:53.715698Z prod1 kubewitness - alerts [kubewitness@32473 \
         id=\"00112233445566778899aabbccddeeff\" seq=\"7\"] {ALERT}"
    );
    let framed = format!("{} {message}", message.len());
    assert_eq!(texts[0], format!("{framed}{framed}"));
    let lines: Vec<&str> = texts[1].lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("<35>1 ") && lines[0].contains("] CEF:0|"), "{}", lines[0]);
}

#[tokio::test]
async fn a_connection_that_breaks_or_hangs_is_no_delivery() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut hasty = sink(&address, r#","timeout":"300ms""#);
    // Nobody accepts: the bytes are in the kernel's buffers, and nobody has read them.
    let batch = [alert(ALERT)];
    let error = hasty.send(&batch).await.unwrap_err().to_string();
    assert!(error.contains("wants `confirm: none`"), "{error}");
    let mut trusting = sink(&address, r#","confirm":"none""#);
    trusting.send(&batch).await.unwrap();
    drop(listener);
    let error = hasty.send(&batch).await.unwrap_err();
    assert!(matches!(error, SendError::Retry { .. }), "{error}");
    assert!(hasty.check().await.unwrap_err().to_string().contains("cannot connect"));
}

#[tokio::test]
async fn an_end_that_crosses_a_batch_confirms_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Its end is under way before it reads anything.
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.len()
    });
    // More than buffers hold, so that it is written no earlier than it is read.
    let long = "x".repeat(24 << 20);
    let long = ALERT.replace("\"summary\":\"eve\"", &format!("\"summary\":\"{long}\""));
    let mut sink = sink(&address, r#","message_bytes_max":"32MiB""#);
    let error = sink.send(&[alert(&long)]).await.unwrap_err();
    assert!(error.to_string().contains("closed the connection before its end"), "{error}");
    assert!(receiver.await.unwrap() > 24 << 20);
}

#[test]
fn a_long_record_is_replaced_by_where_it_is() {
    let long =
        ALERT.replace("\"summary\":\"eve\"", &format!("\"summary\":\"{}\"", "x".repeat(500)));
    for (format, parts) in [
        ("native", ["\"bytes\":", "\"cluster\":\"prod_1\"", "the archive has it whole"]),
        ("cef", ["limit 700", "alerts 00112233445566778899aabbccddeeff", "has it whole"]),
    ] {
        let sink = sink("a:1", &format!(r#","message_bytes_max":"700B","format":"{format}""#));
        let mut out = Vec::new();
        sink.put(&alert(&long), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.len() < 710 && parts.iter().all(|part| text.contains(part)), "{text}");
        let mut out = Vec::new();
        sink.put(&alert(ALERT), &mut out);
        assert!(!String::from_utf8(out).unwrap().contains("archive"));
    }
}

#[test]
fn a_wrong_configuration_says_what_to_write() {
    for (text, part) in [
        (r#"{"address":"siem"}"#, "must be host:port"),
        (r#"{"address":"siem:1","facility":24}"#, "0 to 23"),
        (r#"{"address":"siem:1","message_bytes_max":100}"#, "480 or more"),
    ] {
        let error = Syslog::new(serde_json::from_str(text).unwrap()).err().unwrap();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(name("a b\n\u{e4}]"), "ab]");
    assert_eq!(name("\n"), "-");
}
