//! `kubewitness run` as a process: a log and a webhook in, files out, signals, and what `check` and
//! `spool` say of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kubewitness::clock::Stopwatch;
use kubewitness::telemetry::metrics::METRICS;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const RULE: &str = "
title: Anything
id: 00000000-0000-0000-0000-000000000001
logsource: {product: kubernetes, service: audit}
level: high
detection: {s: {verb: '*'}, condition: s}
";

/// A directory with a configuration, and what runs on it.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

/// A running instance.
pub(crate) struct Instance {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) webhook: String,
    admin: String,
}

impl Site {
    pub(crate) fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.path("rules")).unwrap();
        std::fs::create_dir(site.path("logs")).unwrap();
        site.write("rules/any.yml", RULE);
        let config = "
cluster: test-1
sources:
  - {type: log, path: DIR/logs/audit.log}
  - {type: webhook, listen: '127.0.0.1:0'}
rules: {paths: [DIR/rules]}
spool: {dir: DIR/spool}
sinks:
  - {type: file, name: alerts, records: [alerts, notices], path: DIR/alerts.jsonl}
  - {type: file, name: events, records: [events], path: DIR/events.jsonl}
admin: {listen: '127.0.0.1:0'}
";
        site.write("c.yaml", &config.replace("DIR", site.dir.path().to_str().unwrap()));
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn append(&self, name: &str, text: &[u8]) {
        let mut options = std::fs::File::options();
        let mut file = options.append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text).unwrap();
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        std::fs::read_to_string(self.path(name)).map_or(0, |text| text.lines().count())
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    pub(crate) fn start(&self) -> Instance {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(["run", "--config", "c.yaml", "--set", "log.format=json"])
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut instance = Instance { child, lines, webhook: String::new(), admin: String::new() };
        let mut is_running = false;
        // In whatever order its parts say so.
        while !is_running || instance.webhook.is_empty() || instance.admin.is_empty() {
            let line = instance.line("message");
            let address = || line["address"].as_str().unwrap().to_owned();
            match line["message"].as_str().unwrap() {
                "running" => is_running = true,
                "receiving" => instance.webhook = address(),
                "serving /livez, /readyz and /metrics" => instance.admin = address(),
                _ => {}
            }
        }
        instance
    }
}

impl Instance {
    /// The next log line that holds a text.
    pub(crate) fn line(&self, part: &str) -> serde_json::Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect(part);
            if line.contains(part) {
                return serde_json::from_str(&line).expect("a log line is JSON");
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    pub(crate) fn end(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }

    fn get(&self, path: &str) -> (u16, String) {
        request(&self.admin, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }

    fn post(&self, body: &str) -> u16 {
        let length = body.len();
        let head = format!("POST /audit HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n");
        let rest = "Content-Type: application/json\r\nConnection: close\r\n\r\n";
        request(&self.webhook, &format!("{head}{rest}{body}")).0
    }
}

pub(crate) fn request(address: &str, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits until it holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !holds() {
        assert!(watch.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn event(number: usize) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
         \"auditID\":\"id-{number}\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/pods\",\
         \"verb\":\"list\",\"user\":{{\"username\":\"u-{number}\"}},\"sourceIPs\":[\"192.0.2.1\"],\
         \"objectRef\":{{\"resource\":\"pods\",\"apiVersion\":\"v1\"}},\
         \"responseStatus\":{{\"code\":200}},\
         \"requestReceivedTimestamp\":\"2026-11-22T00:00:00.{number:06}Z\",\
         \"stageTimestamp\":\"2026-11-22T00:00:00.{number:06}Z\"}}"
    )
}

pub(crate) fn list(numbers: std::ops::Range<usize>) -> String {
    let items: Vec<String> = numbers.map(event).collect();
    let items = items.join(",");
    format!("{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"items\":[{items}]}}")
}

pub(crate) fn lines(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.map(|number| event(number) + "\n").collect::<String>().into_bytes()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn events_come_in_by_log_and_webhook_and_go_out_once() {
    let site = Site::new();
    site.append("logs/audit.log", &lines(0..50));
    let instance = site.start();
    assert_eq!(instance.get("/livez").0, 200);
    let (status, ready) = instance.get("/readyz");
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("[+]sources ok: 2 up"), "{ready}");
    until("the log", || site.count("events.jsonl") == 50);
    // The first half is that of the log: copies count once.
    assert_eq!(instance.post(&list(25..75)), 200);
    site.append("logs/audit.log", &lines(75..100));
    until("all events", || site.count("events.jsonl") == 100);
    until("all alerts", || site.count("alerts.jsonl") == 100);
    metrics_are_those_of_the_table(&instance.get("/metrics").1);
    assert_eq!(instance.end(), Some(0));

    // The next run goes on where this one ended.
    site.append("logs/audit.log", &lines(100..110));
    let instance = site.start();
    until("the rest", || site.count("events.jsonl") == 110);
    assert_eq!(instance.post(&list(0..110)), 200);
    assert_eq!(instance.end(), Some(0));
    assert_eq!((site.count("events.jsonl"), site.count("alerts.jsonl")), (110, 110));
    let output = site.command(&["spool", "verify", "spool", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(state["cursors"].as_array().unwrap().iter().all(|cursor| cursor["lag_records"] == 0));
}

/// The text form of Prometheus, by the table and nothing else.
fn metrics_are_those_of_the_table(page: &str) {
    let sample = regex::Regex::new(
        r#"^([a-z_]+?)(_bucket|_sum|_count)?(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? \S+$"#,
    );
    let (sample, label) = (sample.unwrap(), regex::Regex::new(r#"([a-z_]+)=""#).unwrap());
    let row = |name: &str| METRICS.iter().find(|metric| metric.name == name);
    let mut seen = 0;
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(row(name).map(|metric| metric.kind.as_str()), Some(kind), "{line}");
        } else if !line.starts_with('#') {
            let found = sample.captures(line).unwrap_or_else(|| panic!("{line:?}"));
            let metric = row(&found[1]).or_else(|| {
                row(&format!("{}{}", &found[1], found.get(2).map_or("", |part| part.as_str())))
            });
            let metric = metric.unwrap_or_else(|| panic!("{line:?} is not in the table"));
            let labels = found.get(3).map_or("", |part| part.as_str());
            for name in label.captures_iter(labels) {
                assert!(metric.labels.contains(&&name[1]) || &name[1] == "le", "{line:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} samples");
    assert!(page.contains("kubewitness_pipeline_events_total{source=\"log\"} 75"), "{page}");
}

#[test]
fn a_running_instance_is_asked_for_a_probes_events() {
    let site = Site::new();
    let instance = site.start();
    // Who is probed writes its audit log to where the instance reads.
    let server = crate::probe::serve_hardened(site.path("logs/audit.log"));
    let admin = format!("http://{}", instance.admin);
    let args = ["--admin", &admin, "--wait", "60s", "--format", "json"];
    let output = crate::probe::probe(server, &args);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    for value in said.lines().map(read) {
        let event = &value["audit_event"];
        assert_eq!((&event["events"], &event["alerts"][0]), (&1.into(), &"Anything".into()));
    }
    let (status, body) = instance.get("/probe?mark=kubewitness-probe/");
    assert_eq!((status, body.as_str()), (400, "no mark of a probe\n"));
    let wrong = crate::probe::probe(server, &["--admin", "http://127.0.0.1:1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("give the address of `admin.listen`"));
    assert_eq!(instance.end(), Some(0));
}

#[test]
fn bad_rules_are_refused_and_good_ones_taken_up() {
    let site = Site::new();
    let instance = site.start();
    site.write("rules/any.yml", "title: broken\n");
    instance.signal("-HUP");
    let refused = instance.line("rules refused");
    assert!(refused["problem"].as_str().unwrap().contains("rules/any.yml:"), "{refused}");
    until("a notice", || {
        let alerts = std::fs::read_to_string(site.path("alerts.jsonl")).unwrap_or_default();
        alerts.contains("kubewitness-rules-refused")
    });
    site.append("logs/audit.log", &lines(0..1));
    until("the old rule", || {
        let alerts = std::fs::read_to_string(site.path("alerts.jsonl")).unwrap_or_default();
        alerts.contains("\"title\":\"Anything\"")
    });
    site.write("rules/any.yml", &RULE.replace("Anything", "Everything"));
    instance.signal("-HUP");
    instance.line("rules loaded");
    instance.line("rules taken up");
    site.append("logs/audit.log", &lines(1..2));
    until("the new rule", || {
        let alerts = std::fs::read_to_string(site.path("alerts.jsonl")).unwrap_or_default();
        alerts.contains("\"title\":\"Everything\"")
    });
    assert_eq!(instance.end(), Some(0));
}

#[test]
fn what_is_no_event_is_a_dead_letter_that_cannot_act_on_a_terminal() {
    let site = Site::new();
    let instance = site.start();
    site.append("logs/audit.log", b"\x1b[2J\x1b]0;owned\x07 no event \xe2\x80\xae\n");
    site.append("logs/audit.log", &lines(0..1));
    until("the event behind it", || site.count("events.jsonl") == 1);
    let page = instance.get("/metrics").1;
    assert!(page.contains("kubewitness_pipeline_rejects_total{source=\"log\""), "{page}");
    // What a process has open is not changed under it.
    let output = site.command(&["spool", "dead-letters", "remove", "spool", "--all"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(instance.end(), Some(0));
    let letters = |args: &[&str]| {
        let output = site.command(&[&["spool", "dead-letters"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let listed = letters(&["list", "spool"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let id = listed.split(' ').next().unwrap();
    for shown in [
        &listed,
        &letters(&["show", "spool", id]),
        &letters(&["list", "spool", "--format", "json"]),
    ] {
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
        assert!(shown.contains("audit.log:1"), "{shown}");
    }
    letters(&["remove", "spool", id]);
    assert_eq!(letters(&["list", "spool"]), "");
}

#[test]
fn check_looks_at_everything_and_changes_nothing() {
    let site = Site::new();
    let output = site.command(&["check", "--config", "c.yaml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "ok    rules: 1 raise alerts (1 path), 0 of them keep state",
        "ok    source log: ",
        "ok    source webhook: webhook on 127.0.0.1:0/audit",
        "ok    sink alerts: file would accept",
        "note  redaction: no key_file",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let mut left: Vec<_> = std::fs::read_dir(site.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    left.clear();
    let broken = ["check", "--config", "c.yaml", "--set", "sinks.0.path=/nonexistent/a"];
    let output = site.command(&broken);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("FAIL  sink alerts: "), "{}", text(&output.stdout));
    for (args, said) in [
        (&["--set", "rules.pack=big"][..], "--set rules.pack: unknown value \"big\""),
        (&["--set", "rules.paths=[/nonexistent]"], "/nonexistent"),
        (&["--config", "none.yaml"], "none.yaml: cannot be read"),
    ] {
        let config = ["check", "--config", "c.yaml"];
        let first = if args[0] == "--config" { &config[..1] } else { &config[..] };
        let output = site.command(&[first, args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

#[test]
fn a_taken_spool_or_port_ends_the_process_with_a_reason() {
    let site = Site::new();
    let instance = site.start();
    let config = ["run", "--config", "c.yaml"];
    let second = site.command(&config);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("is in use by process"), "{}", text(&second.stderr));
    let port = format!("sources.1.listen={}", instance.webhook);
    let other: &[&str] = &["--set", &port, "--set", "spool.dir=other"];
    let third = site.command(&[&config, other].concat());
    assert_eq!(third.status.code(), Some(1));
    assert!(text(&third.stderr).contains("cannot listen on"), "{}", text(&third.stderr));
    assert_eq!(instance.end(), Some(0));
    assert!(Path::new(&site.path("spool/segments")).is_dir());
}

#[test]
fn a_sink_that_is_configured_away_holds_what_it_did_not_get_and_nothing_else() {
    let site = Site::new();
    let instance = site.start();
    assert_eq!(instance.post(&list(0..20)), 200);
    until("everything is delivered", || site.count("events.jsonl") == 20);
    let cursors = || {
        let shown = site.command(&["spool", "inspect", "--format", "json", "spool"]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        let names = shown["cursors"].as_array().unwrap().iter();
        names.map(|cursor| cursor["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(instance.end(), Some(0));
    let config = std::fs::read_to_string(site.path("c.yaml")).unwrap();
    // One that cannot deliver, in place of one that got everything.
    let dead = "  - {type: http, name: dead, records: [events], url: 'http://127.0.0.1:9/'}\n";
    let named = config.replace("name: events", "name: renamed");
    site.write("c.yaml", &named.replace("admin:", &format!("{dead}admin:")));
    let instance = site.start();
    assert_eq!(cursors(), ["alerts", "dead", "renamed"]);
    assert_eq!(instance.post(&list(20..40)), 200);
    assert_eq!(instance.end(), Some(0));
    site.write("c.yaml", &named);
    let checked = text(&site.command(&["check", "--config", "c.yaml"]).stdout);
    assert!(checked.contains("spool forget --force"), "{checked}");
    let instance = site.start();
    assert_eq!(cursors(), ["alerts", "dead", "renamed"]);
    assert_eq!(instance.end(), Some(0));
    for (args, code, part) in [
        (&["spool", "spare"][..], 2, "known: alerts, dead, renamed"),
        (&["spool", "dead"], 2, "or give them up with --force"),
        (&["--force", "spool", "dead"], 0, "sink dead is forgotten"),
        (&["spool", "dead"], 2, "known: alerts, renamed"),
    ] {
        let output = site.command(&[&["spool", "forget"], args].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
    assert_eq!(cursors(), ["alerts", "renamed"]);
}
