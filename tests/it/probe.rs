//! `kubewitness probe` against a server that answers as an API server does, and logs as it does.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FORBIDDEN: &str = r#"{"kind":"Status","status":"Failure","reason":"Forbidden","code":403}"#;

/// What the server says: status line and body, by path, token aside.
type Say = fn(&str) -> (&'static str, &'static str);

/// A cluster as kubeadm makes it.
fn hardened(path: &str) -> (&'static str, &'static str) {
    match path {
        "/version" => ("200 OK", r#"{"major":"1","gitVersion":"v1.33.2\u001b[2J"}"#),
        "/healthz" | "/livez" => ("200 OK", "ok"),
        "/readyz" => ("500 Internal Server Error", "[-]etcd failed"),
        _ => ("403 Forbidden", FORBIDDEN),
    }
}

/// A cluster where somebody bound anonymous callers to cluster-admin.
fn open(path: &str) -> (&'static str, &'static str) {
    match path {
        "/openapi/v2" => ("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        _ if path.contains("/proxy/") => ("404 Not Found", FORBIDDEN),
        _ => ("200 OK", "{}"),
    }
}

/// Serves in the background until the process ends; writes an event for every request whose path
/// the audit policy does not leave out.
fn serve(say: Say, events: PathBuf, silent: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), say, &events, silent);
        }
    });
    address
}

fn answer(mut stream: TcpStream, say: Say, events: &Path, silent: &[&str]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let head: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let value = |name: &str| {
        let mut found = head.iter().filter_map(|line| line.split_once(": "));
        found.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let target = first.split(' ').nth(1).unwrap().to_owned();
    let path = target.split('?').next().unwrap();
    let has_token = value("authorization").is_some();
    let (status, body) = if has_token { ("401 Unauthorized", "{}") } else { say(path) };
    let agent = value("user-agent").unwrap();
    if !silent.contains(&path) {
        let stage = if has_token { "ResponseStarted" } else { "ResponseComplete" };
        let event = serde_json::json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": agent, "stage": stage, "verb": "get", "requestURI": target,
            "userAgent": agent, "stageTimestamp": "2026-11-22T00:00:00.000000Z",
            "user": {"username": "system:anonymous"},
        });
        let mut file = std::fs::File::options().append(true).create(true).open(events).unwrap();
        writeln!(file, "{event}").unwrap();
    }
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    let _ = write!(stream, "Connection: close\r\n\r\n{body}");
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 16]);
}

/// A hardened server that audits everything to a file.
pub(crate) fn serve_hardened(events: PathBuf) -> SocketAddr {
    serve(hardened, events, &[])
}

pub(crate) fn probe(address: SocketAddr, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubewitness"))
        .args(["probe", &format!("http://{address}")])
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_hardened_server_gives_away_its_version_only() {
    let dir = tempfile::tempdir().unwrap();
    let address = serve(hardened, dir.path().join("events"), &[]);
    let output = probe(address, &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(r"GET /version"), "{text}");
    assert!(text.contains(r"public, as by default (says v1.33.2\u{1b}[2J)"), "{text}");
    assert!(text.contains("secrets?limit=1  refused: anonymous callers may not"), "{text}");
    assert!(text.contains("(unknown token)") && text.contains("refused: unknown caller"), "{text}");
    assert!(text.ends_with("14 of 14 answered, 0 open to everybody\n"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn an_open_server_is_named_and_redirects_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let address = serve(open, dir.path().join("events"), &[]);
    let output = probe(address, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output);
    let of = |target: &str| -> (u64, String) {
        let mut values =
            lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let found = values.find(|value| value["target"].as_str().unwrap().starts_with(target));
        let found = found.unwrap();
        (found["status"].as_u64().unwrap(), found["verdict"].as_str().unwrap().to_owned())
    };
    for (target, status, verdict) in [
        ("/version", 200, "public"),
        ("/metrics", 200, "open"),
        ("/openapi/v2", 302, "other"),
        ("/api/v1/namespaces/kube-system/secrets", 200, "open"),
        ("/api/v1/nodes/kubewitness-probe/proxy", 404, "open"),
        ("/api?timeout=1s", 401, "unauthorized"),
    ] {
        assert_eq!(of(target), (status, verdict.to_owned()), "{target}");
    }
}

#[test]
fn the_audit_trail_is_followed_in_a_file_of_events() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events.jsonl");
    std::fs::write(&events, "{\"userAgent\":\"kubewitness-probe/0 old-1\"}\n").unwrap();
    let args = ["--events", events.to_str().unwrap(), "--wait", "20s", "--format", "json"];
    let output = probe(serve(hardened, events.clone(), &[]), &args);
    let lines = text(&output);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let values: Vec<_> = lines.lines().map(read).collect();
    assert_eq!(values.len(), 14);
    let agents: BTreeSet<_> = values.iter().map(|value| value["user_agent"].to_string()).collect();
    assert_eq!(agents.len(), 14, "every request has a user agent of its own");
    assert!(values.iter().all(|value| value["audit_event"]["events"] == 1), "{lines}");
    assert_eq!(values[13]["audit_event"]["stage"], "ResponseStarted");
    assert_eq!(values[0]["audit_event"]["username"], "system:anonymous");
}

#[test]
fn what_the_audit_policy_leaves_out_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events.jsonl");
    let args = ["--events", events.to_str().unwrap(), "--wait", "300ms"];
    let output = probe(serve(hardened, events.clone(), &["/version", "/livez"]), &args);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let blind: Vec<&str> = text.lines().filter(|line| line.ends_with("; no audit event")).collect();
    assert_eq!(blind.len(), 2, "{text}");
    assert!(text.contains("audit events of 12 of 14 requests arrived"), "{text}");
}

#[test]
fn what_cannot_be_asked_is_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for (args, said) in [
        (&["https://a:6443/api"][..], "without path, query or credentials"),
        (&["https://user:secret@a:6443"], "without path, query or credentials"),
        (&["ftp://a"], "write https://HOST:PORT"),
        (&["https://a:6443", "--ca-file", "/nonexistent"], "/nonexistent: No such file"),
        (&["https://a:6443", "--ca-file", "Cargo.toml"], "Cargo.toml: holds no certificate"),
        (&["https://a:6443", "--spool", dir], "is no spool"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubewitness"));
        let output = command.arg("probe").args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(said) && !error.contains("secret"), "{args:?}: {error}");
    }
}
