//! Secrets planted in events, requests and the configuration, and all that leaves the process: its
//! log at the finest level, its metrics and pages, the spool with its dead letters, every file that
//! a sink wrote, and what the commands say of them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubewitness::clock::Stopwatch;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Case<'c> {
    secrets: Vec<String>,
    #[serde(borrow)]
    event: &'c RawValue,
}

/// Matches everything, also by values of bodies.
const RULES: &str = "
title: Everything
id: everything
logsource: {product: kubernetes, service: audit}
detection: {s: {verb|exists: true}, t: {requestURI|contains: ''}, condition: s or t}
level: low
---
title: Anything in a body
id: body
logsource: {product: kubernetes, service: audit}
detection: {k: ['a', 'e', 'o'], condition: k}
level: low
";

/// What the operator keeps secret.
const KEY: &str = "Pl4nted-redaction-key-c0ffee";
const CALLERS_TOKEN: &str = "Pl4nted-callers-token-c0ffee";
const SPLUNK_TOKEN: &str = "Pl4nted-splunk-token-c0ffee";
const SEARCH_PASSWORD: &str = "Pl4nted-search-password-c0ffee";
/// What a stranger gives away.
const STRANGERS: [&str; 3] =
    ["Pl4nted-wrong-token-c0ffee", "Pl4nted-basic-c0ffee", "Pl4nted-query-c0ffee"];

const FORMATS: [&str; 6] = ["native", "ecs", "ocsf", "cef", "leef", "falco"];

fn configure(dir: &Path, far: &str) {
    let sinks = FORMATS.map(|format| {
        format!(
            "  - {{type: file, name: {format}, records: [events, alerts, notices], \
             format: {format}, path: DIR/{format}.out, batch: {{wait_max: 10ms}}}}\n"
        )
    });
    let text = "
cluster: test-1
sources:
  - {type: log, path: DIR/audit.log, poll_interval: 20ms}
  - {type: webhook, listen: '127.0.0.1:0', tokens: [{file: DIR/caller.token}]}
rules: {paths: [DIR/rules.yml]}
redaction: {key_file: DIR/redaction.key}
spool: {dir: DIR/spool}
sinks:
SINKS  - {type: splunk, name: siem, url: 'http://FAR', token: {file: DIR/splunk.token}}
  - {type: elasticsearch, name: search, url: 'http://FAR', records: [events],
     auth: {scheme: Basic, username: kubewitness, secret: {env: SEARCH_PASSWORD}}}
admin: {listen: '127.0.0.1:0'}
log: {format: json, filter: trace}
";
    let text = text.replace("SINKS", &sinks.concat()).replace("FAR", far);
    let write = |name: &str, text: &str| {
        let mut options = std::fs::File::options();
        let mut file =
            options.create_new(true).write(true).mode(0o600).open(dir.join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("config.yaml", &text.replace("DIR", dir.to_str().unwrap()));
    write("rules.yml", RULES);
    write("redaction.key", KEY);
    write("caller.token", CALLERS_TOKEN);
    write("splunk.token", SPLUNK_TOKEN);
}

/// A far side that refuses everything and says back what it was told, credentials first.
fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            std::thread::spawn(move || say_back(stream, [403, 400, 500][number % 3]));
        }
    });
    address
}

fn say_back(mut stream: TcpStream, status: u16) {
    let mut told = vec![0; 64 << 10];
    let length = stream.read(&mut told).unwrap_or(0);
    told.truncate(length);
    let head = format!(
        "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    // Whoever went away does not hear it.
    let _ = stream.write_all(&[head.as_bytes(), &told].concat());
}

struct Instance {
    child: Child,
    dir: PathBuf,
    webhook: String,
    admin: String,
}

impl Instance {
    fn start(dir: &Path) -> Instance {
        let log = std::fs::File::create(dir.join("stderr")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(["run", "--config", "config.yaml"])
            .current_dir(dir)
            .env("SEARCH_PASSWORD", SEARCH_PASSWORD)
            .stdout(std::fs::File::create(dir.join("stdout")).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let (dir, webhook, admin) = (dir.to_owned(), String::new(), String::new());
        let mut instance = Instance { child, dir, webhook, admin };
        instance.webhook = instance.address("receiving");
        instance.admin = instance.address("serving /livez, /readyz and /metrics");
        instance
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap()
    }

    /// The address in the line with this message.
    fn address(&self, message: &str) -> String {
        let mut address = None;
        until(message, || {
            let log = self.stderr();
            let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            address = lines
                .filter(|line: &serde_json::Value| line["message"] == message)
                .find_map(|line| Some(line["address"].as_str()?.to_owned()));
            address.is_some()
        });
        address.unwrap()
    }

    fn get(&self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        exchange(&self.admin, head.as_bytes())
    }

    /// Posts as whoever these headers make of the caller.
    fn post(&self, target: &str, headers: &str, body: &str) -> String {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        exchange(&self.webhook, &[head.as_bytes(), body.as_bytes()].concat())
    }
}

fn exchange(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A caller that is refused early may find the connection reset behind the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !holds() {
        assert!(watch.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Everything is planted; the secrets, and what was answered.
fn plant(instance: &Instance) -> (Vec<String>, Vec<String>) {
    let cases = include_str!("../corpus/redaction/cases.jsonl");
    let mut secrets: Vec<String> = STRANGERS.map(str::to_owned).into();
    secrets.extend([KEY, CALLERS_TOKEN, SPLUNK_TOKEN, SEARCH_PASSWORD].map(str::to_owned));
    secrets.push(BASE64.encode(format!("kubewitness:{SEARCH_PASSWORD}")));
    let (mut lines, mut items, mut answers) = (String::new(), Vec::new(), Vec::new());
    for line in cases.lines() {
        let case: Case<'_> = serde_json::from_str(line).unwrap();
        let raw = case.event.get();
        secrets.extend(case.secrets);
        // Whole, cut, torn, and no event at all.
        let parts = [raw, &raw[..raw.len() * 2 / 3], &raw[raw.len() / 3..]];
        let list = raw.replacen('{', "[", 1);
        for part in parts.into_iter().chain([list.as_str()]) {
            lines.push_str(part);
            lines.push('\n');
        }
        items.push(raw.replacen("\"auditID\":\"", "\"auditID\":\"posted-", 1));
    }
    std::fs::write(instance.dir.join("audit.log"), lines).unwrap();
    let own = format!("Authorization: Bearer {CALLERS_TOKEN}\r\n");
    let list = format!("{{\"kind\":\"EventList\",\"items\":[{}]}}", items.join(","));
    let [wrong, basic, query] = STRANGERS;
    let wrong = format!("Authorization: Bearer {wrong}\r\n");
    let basic = format!("Authorization: Basic {basic}\r\nX-Token: {basic}\r\nCookie: {basic}\r\n");
    let target = format!("/audit?access_token={query}");
    for (target, headers, body) in [
        ("/audit", own.as_str(), list.as_str()),
        ("/audit", &own, &list[..list.len() / 2]),
        ("/audit", &own, &list.replace("\"items\":[", "\"items\":[[")),
        ("/audit", &own, &list[list.len() / 2..]),
        ("/audit", &wrong, &list),
        ("/audit", &basic, &list),
        (&target, "", &list),
        (&target, &own, "{"),
        ("/elsewhere", &wrong, &list),
    ] {
        answers.push(instance.post(target, headers, body));
    }
    (secrets, answers)
}

/// Every file below a directory but those in which the operator wrote the secrets down.
fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files(&path, found);
        } else if !name.ends_with(".token") && name != "redaction.key" && name != "audit.log" {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
}

#[test]
fn no_planted_secret_leaves_the_process() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &refusing());
    let mut instance = Instance::start(dir.path());
    let (secrets, answers) = plant(&instance);
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(statuses, ["200", "200", "200", "200", "401", "401", "401", "200", "404"]);
    until("both halves in the file", || {
        let native = std::fs::read_to_string(dir.path().join("native.out")).unwrap_or_default();
        let is_posted = |line: &&str| line.contains("\"auditID\":\"posted-");
        let posted = native.lines().filter(is_posted).count();
        let log = instance.get("/metrics");
        posted > 0 && log.contains("kubewitness_log_unread_bytes{source=\"log\"} 0")
    });
    until("the far side refused", || {
        let log = instance.stderr();
        ["siem", "search"].iter().all(|sink| log.contains(&format!("\"sink\":\"{sink}\"")))
    });
    let mut found: Vec<(String, Vec<u8>)> = ["/metrics", "/livez", "/readyz", "/none"]
        .map(|path| (path.to_owned(), instance.get(path).into_bytes()))
        .into();
    found.extend(answers.into_iter().map(|answer| ("an answer".to_owned(), answer.into_bytes())));
    let pid = rustix::process::Pid::from_child(&instance.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    instance.child.wait().unwrap();
    for args in [
        &["check", "--config", "config.yaml"][..],
        &["spool", "inspect", "spool", "--format", "json"],
        &["spool", "verify", "spool", "--format", "json"],
        &["spool", "dead-letters", "list", "spool", "--format", "json"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(args)
            .current_dir(dir.path())
            .env("SEARCH_PASSWORD", SEARCH_PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_ne!(output.stdout.len() + output.stderr.len(), 0, "{args:?} says something");
        found.push((args.join(" "), [output.stdout, output.stderr].concat()));
    }
    files(dir.path(), &mut found);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.iter().filter(|name| name.ends_with(".seg")).count() >= 2, "{names:?}");
    let log = &found.iter().find(|(name, _)| name == "stderr").unwrap().1;
    assert!(memchr::memmem::find(log, b"\"level\":\"TRACE\"").is_some(), "it says everything");
    let mut leaks: Vec<String> = Vec::new();
    for (name, content) in &found {
        let leaked = |secret: &&String| memchr::memmem::find(content, secret.as_bytes()).is_some();
        leaks.extend(secrets.iter().filter(leaked).map(|secret| format!("{secret} in {name}")));
    }
    leaks.sort();
    leaks.dedup();
    assert!(leaks.is_empty(), "{} secrets:\n{}", secrets.len(), leaks.join("\n"));
}
