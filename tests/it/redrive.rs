//! `kubewitness spool dead-letters redrive` against a server that refuses some of them again.

use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use kubewitness::record::StoredEvent;
use kubewitness::spool::{DeadLetter, Options, Spool};
use serde_json::Value;

type Seen = Arc<Mutex<Vec<String>>>;

async fn answer(State(seen): State<Seen>, body: String) -> axum::http::StatusCode {
    if body.contains("poison") {
        return axum::http::StatusCode::BAD_REQUEST;
    }
    seen.lock().unwrap().push(body);
    axum::http::StatusCode::OK
}

fn letter(source: &str, position: &str, raw: &str) -> DeadLetter {
    let event = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 1_795_306_613_715_698,
        duplicate_key: [7; 16],
        cluster: "prod-7",
        source: "log",
        position: "audit.log:7",
        raw: b"",
    };
    let mut head = Vec::new();
    if position.starts_with("events") {
        event.encode(&mut head);
    }
    DeadLetter {
        at_us: 1,
        reason: "refused".into(),
        source: source.into(),
        position: position.into(),
        attempts: 1,
        is_sealed: false,
        head,
        bytes: raw.as_bytes().to_vec(),
    }
}

#[test]
fn what_is_accepted_is_removed_and_the_rest_stays() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = Seen::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    runtime.spawn(async { axum::serve(listener, app).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().join("spool");
    runtime.block_on(async {
        let (spool, _) = Spool::open(&spool_dir, Options::default()).unwrap();
        let letters = vec![
            letter("siem", "events:17", r#"{"auditID":"a","verb":"get"}"#),
            letter("siem", "events:18", r#"{"auditID":"poison","verb":"get"}"#),
            letter("other", "events:19", r#"{"auditID":"b","verb":"get"}"#),
            letter("siem", "alerts:20", r#"{"id":"00112233445566778899aabbccddeeff"}"#),
            letter("log", "audit.log:1", "12 bytes"),
        ];
        spool.dead_letters().append(letters).await.unwrap();
        spool.close().await.unwrap();
    });
    let config = format!(
        "cluster: test-1\nsources: [{{type: webhook, listen: '127.0.0.1:0'}}]\n\
         spool: {{dir: '{}'}}\nsinks:\n  - {{name: siem, type: http, url: '{url}', \
         format: ecs, filter: {{level: critical}}, records: [events, alerts]}}\n",
        spool_dir.display()
    );
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, config).unwrap();
    let run = |args: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_kubewitness")).args(args).output().unwrap();
        let error = String::from_utf8(command.stderr).unwrap();
        (command.status.code(), String::from_utf8(command.stdout).unwrap(), error)
    };
    let (code, _, said) =
        run(&["spool", "dead-letters", "redrive", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("sink siem: 2 dead letters delivered, 1 refused again"), "{said}");
    let (_, left, _) = run(&["spool", "dead-letters", "list", spool_dir.to_str().unwrap()]);
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    for (line, part) in left.iter().zip(["events:18", "events:19", "audit.log:1"]) {
        assert!(line.contains(part), "{line}");
    }
    let text = seen.lock().unwrap().join("");
    let documents: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2, "{text}");
    assert!(text.contains("prod-7"), "the event keeps its cluster: {text}");
}
