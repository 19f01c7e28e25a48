//! `kubewitness run` with an archive and a witness, as processes: what is archived, what other
//! sinks and the witness know of it, and what a rolled-back copy is told by it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kubewitness::clock::Stopwatch;

use crate::run::RULE;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIG: &str = "
cluster: test-1
sources: [{type: log, path: DIR/logs/audit.log}]
rules: {paths: [DIR/rules]}
spool: {dir: DIR/spool}
sinks:
  - {type: file, name: alerts, records: [alerts], path: DIR/alerts.jsonl}
  - {type: file, name: anchors, records: [anchors], path: DIR/anchors.jsonl}
  - type: archive
    name: archive
    records: [events, alerts, notices, quarantine]
    batch: {wait_max: 100ms}
    url: DIR/archive
    key_file: DIR/archive.key
    state_dir: DIR/state
    worm: off
    witness: {policy_file: DIR/policy, required: true, ca_file: DIR/witness.pem}
admin: {listen: '127.0.0.1:0'}
";

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Site(tempfile::TempDir);

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubewitness"));
        command.args(args).current_dir(self.0.path()).env("XDG_STATE_HOME", self.path("home"));
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that must end well.
    fn good(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?} {} {}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn append_events(&self, numbers: std::ops::Range<usize>) {
        let mut text = self.text("logs/audit.log");
        for number in numbers {
            text.push_str(&format!(
                "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\
                 \"auditID\":\"id-{number}\",\"stage\":\"ResponseComplete\",\
                 \"requestURI\":\"/api/v1/pods\",\"verb\":\"list\",\
                 \"user\":{{\"username\":\"u-{number}\"}},\"sourceIPs\":[\"192.0.2.1\"],\
                 \"objectRef\":{{\"resource\":\"pods\",\"apiVersion\":\"v1\"}},\
                 \"requestReceivedTimestamp\":\"2026-11-22T00:00:00.{number:06}Z\",\
                 \"stageTimestamp\":\"2026-11-22T00:00:00.{number:06}Z\"}}\n"
            ));
        }
        text.push_str("this is no event\n");
        std::fs::write(self.path("logs/audit.log"), text).unwrap();
    }

    /// Runs until so many alerts and the checkpoint behind them are out, and ends by a signal.
    fn run(&self, alerts: usize) {
        let before = self.text("anchors.jsonl").lines().count();
        let child = self.command(&["run", "--config", "c.yaml"]).stderr(Stdio::null()).spawn();
        let mut child = Ended(child.unwrap());
        let watch = Stopwatch::start();
        let is_out = || {
            self.text("alerts.jsonl").lines().count() >= alerts
                && self.text("anchors.jsonl").lines().count() > before
                && self.good(&["archive", "ls", "archive"]).matches("\tquarantine\t").count() > 0
        };
        while !self.path("archive/commit").exists() || !is_out() {
            assert!(watch.elapsed() < PATIENCE, "nothing is archived");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let pid = child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(child.0.wait().unwrap().success());
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to)
        } else {
            let _ = std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// A witness that listens, and its address.
fn witness(site: &Site, log: &str, tls: &[&str]) -> (Ended, String) {
    let args = ["witness", "--listen", "127.0.0.1:0", "--key-file", "witness.key"];
    let rest = ["--state-dir", "witness", "--log", log];
    let mut child =
        site.command(&[&args[..], &rest, tls].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    (Ended(child), address)
}

fn site() -> (Site, Ended) {
    let site = Site(tempfile::tempdir().unwrap());
    for dir in ["rules", "logs"] {
        std::fs::create_dir(site.path(dir)).unwrap();
    }
    std::fs::write(site.path("rules/any.yml"), RULE).unwrap();
    let config = CONFIG.replace("DIR", site.0.path().to_str().unwrap());
    std::fs::write(site.path("c.yaml"), config).unwrap();
    let log = site.good(&["archive", "keygen", "audit.example.com/test-1", "-o", "archive.key"]);
    let name = "witness.example.com/w1";
    let key = site.good(&["archive", "keygen", "--witness", name, "-o", "witness.key"]);
    std::fs::write(site.path("archive.pub"), &log).unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(site.path("witness.pem"), made.cert.pem()).unwrap();
    std::fs::write(site.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let tls = ["--tls-cert-file", "witness.pem", "--tls-key-file", "tls.key"];
    let (witness, address) = witness(&site, log.trim_end(), &tls);
    let policy = format!("witness w1 {} https://{address}\nquorum w1\n", key.trim_end());
    std::fs::write(site.path("policy"), policy).unwrap();
    (site, witness)
}

#[test]
fn an_archive_is_witnessed_anchored_replayed_and_proven() {
    let (site, _witness) = site();
    site.append_events(0..20);
    site.run(20);
    let listed = site.good(&["archive", "ls", "--key", "archive.pub", "archive"]);
    let last = listed.lines().last().unwrap();
    assert!(last.contains("\tmark\t") && last.ends_with("mark=stop"), "{listed}");
    for kind in ["genesis", "events", "alerts", "quarantine"] {
        assert!(listed.contains(&format!("\t{kind}\t")), "{kind}: {listed}");
    }
    let witnessed = ["--policy", "policy", "--ask-witnesses", "--witness-ca", "witness.pem"];
    let verify = [&["verify", "--key", "archive.pub"][..], &witnessed].concat();
    let anchored = [&verify[..], &["--anchor", "anchors.jsonl", "archive"]].concat();
    let verified = site.good(&anchored);
    assert!(verified.starts_with("OK: audit.example.com/test-1 at "), "{verified}");
    assert!(verified.contains("cosigned as the policy asks: "), "{verified}");

    let url = format!("file://{}", site.path("archive").display());
    let replay = |path: &str, more: &[&str]| {
        let args = ["replay", "--rules", "rules", "--format", "jsonl", "--cluster", "test-1", path];
        let text = site.good(&[&args[..], more].concat());
        text.lines().filter_map(|line| Some(line.split_once(',')?.0.to_owned())).collect::<Vec<_>>()
    };
    let ids = replay(&url, &[]);
    assert_eq!((ids.len(), &ids), (20, &replay("logs/audit.log", &[])));
    assert_eq!(replay(&url, &["--until", "2026-11-22T00:00:00.000007Z"]).len(), 7);

    let alert = site.text("alerts.jsonl").lines().next().unwrap().to_owned();
    std::fs::write(site.path("alert.json"), alert).unwrap();
    site.good(&["prove", "--alert", "alert.json", "-o", "p", "--key", "archive.pub", "archive"]);
    for name in ["p", "p-2"] {
        let (proof, event) = (format!("{name}.tlog-proof"), format!("{name}.json"));
        let offline = ["verify", "--key", "archive.pub", "--proof", &proof, "--event", &event];
        assert!(site.good(&offline).starts_with("OK: line "));
    }
    assert!(!site.path("p-3.json").exists(), "the alert and its one event");

    // An older state in place of the archive: it is sound, and not what the witness knows.
    copy(&site.path("archive"), &site.path("before"));
    site.append_events(20..30);
    site.run(30);
    site.good(&anchored);
    let before = site.output(&[&verify[..], &["--no-state", "before"]].concat());
    let said = String::from_utf8_lossy(&before.stdout).into_owned();
    assert_eq!(before.status.code(), Some(17), "{said}");
    assert!(said.contains("ROLLBACK the witness w1: "), "{said}");
    site.good(&["verify", "--key", "archive.pub", "--no-state", "before"]);
}

#[test]
fn a_witness_without_certificates_speaks_plain_http_and_one_with_them_does_not() {
    let (site, _secure) = site();
    let ask = |address: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let asked = stream.write_all(b"GET /x/checkpoint HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut line = String::new();
        let answer = BufReader::new(stream).read_line(&mut line);
        asked.and(answer).map(|_| line).unwrap_or_default()
    };
    let policy = site.text("policy");
    let secure = policy.split("https://").nth(1).unwrap().lines().next().unwrap();
    assert!(!ask(secure).starts_with("HTTP/"));
    let other = Site(tempfile::tempdir().unwrap());
    let log = other.good(&["archive", "keygen", "audit.example.com/test-1", "-o", "archive.key"]);
    let name = "witness.example.com/w2";
    other.good(&["archive", "keygen", "--witness", name, "-o", "witness.key"]);
    let (_plain, address) = witness(&other, log.trim_end(), &[]);
    assert_eq!(ask(&address), "HTTP/1.1 404 Not Found\r\n");
    let half = ["witness", "--key-file", "witness.key", "--state-dir", "w", "--log", &log];
    let refused = other.output(&[&half[..], &["--tls-cert-file", "none.pem"]].concat());
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn check_says_what_is_wrong_with_the_key() {
    let (site, _witness) = site();
    let public = site.text("archive.pub");
    let service = |address: &str, more: &str| {
        format!(
            r#"{{"public_key": "{}", "kms": {{"type": "vault", "address": "{address}",
                "key": "audit", "version": 1, "token": {{"file": "{}"}}{more}}}}}"#,
            public.trim_end(),
            site.path("token").display()
        )
    };
    std::fs::write(site.path("token"), "hvs.1").unwrap();
    let cases = [
        ("nothing".to_owned(), "make one with `kubewitness archive keygen`"),
        (service("http://127.0.0.1:1", ""), "http://127.0.0.1:1 transit/audit: "),
        (service("http://vault.example.com", ""), "write https://HOST"),
        (service("http://127.0.0.1:1", r#", "toke": 1"#), "unknown field `toke`"),
    ];
    for (text, expected) in cases {
        std::fs::write(site.path("archive.key"), text).unwrap();
        let output = site.output(&["check", "--config", "c.yaml"]);
        let said =
            String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{expected}: {said}");
        assert!(said.contains("archive.key") && !said.contains("hvs.1"), "{said}");
    }
}

/// A line of so many bytes, of letters that do not repeat soon.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 26) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn large_and_odd_events_come_out_of_an_archive_as_they_went_in() {
    let site = Site(tempfile::tempdir().unwrap());
    site.good(&["archive", "keygen", "audit.example.com/test-1", "-o", "archive.key"]);
    let mut lines: Vec<Vec<u8>> = vec![
        br#"{"auditID":"a","auditID":"b","n":1.0e2,"m":-0,"s":"\ud83d\u0000"}"#.to_vec(),
        b"{\"auditID\":\"\xff\xfe\x00\xc3(\"}".to_vec(),
        b"  {\t\"auditID\" : \"c\" }\r".to_vec(),
        b"".to_vec(),
    ];
    for kib in [64, 65, 256, 1_024, 4_096] {
        let text = noise(kib << 10);
        lines.push([b"{\"auditID\":\"", &text[..], b"\",\"auditID\":1}"].concat());
    }
    std::fs::write(site.path("in.log"), [&lines.join(&b'\n')[..], b"\n"].concat()).unwrap();
    let key = ["--key-file", "archive.key", "--state-dir", "state"];
    let append = ["archive", "append", "archive", "in.log", "--lines-max", "4"];
    site.good(&[&append[..], &key].concat());
    // The one byte that is changed: a carriage return, which JSON lets stand between tokens.
    lines[2].pop();
    lines[2].push(b' ');
    let mut found = Vec::new();
    for record in ["1", "2", "3"] {
        found.extend(site.output(&["archive", "get", "archive", record]).stdout);
    }
    assert!(found == [&lines.join(&b'\n')[..], b"\n"].concat(), "{} bytes", found.len());
    let prove = ["prove", "--record", "2", "--event", "3", "-o", "p", "archive"];
    site.good(&prove);
    assert!(std::fs::read(site.path("p.json")).unwrap() == lines[7]);
    assert!(site.good(&["verify", "--no-state", "archive"]).starts_with("OK: "));
}
