//! The recorded sample through the built binary: what is found, what is not, and the exit codes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/sample.log.gz");
const EXPECTED: &str = include_str!("../corpus/sample.expected.jsonl");
const LEVELS: [&str; 5] = ["informational", "low", "medium", "high", "critical"];

/// Runs the binary in an empty directory, so that nothing there can matter.
fn run(args: &[&str]) -> Output {
    let empty = tempfile::tempdir().expect("a directory");
    let binary = env!("CARGO_BIN_EXE_kubewitness");
    Command::new(binary).args(args).current_dir(empty.path()).output().expect("it starts")
}

/// Runs what must succeed and gives its standard output.
fn text_of(args: &[&str]) -> String {
    let output = run(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn sample_lines() -> Vec<String> {
    let file = std::fs::File::open(SAMPLE).expect("the sample");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip of UTF-8");
    text.lines().map(str::to_owned).collect()
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn rank(level: &str) -> usize {
    LEVELS.iter().position(|known| *known == level).expect("a level")
}

/// What the recording says of each request: the scenarios it attacks in, and its classes.
#[derive(Default)]
struct Truth {
    scenarios: BTreeMap<String, Value>,
    attacks: BTreeMap<String, BTreeSet<String>>,
    classes: BTreeMap<String, BTreeSet<String>>,
}

impl Truth {
    fn read() -> Truth {
        let mut truth = Truth::default();
        for row in objects(EXPECTED) {
            let is_incidental = row["incidental"] == true;
            let class = if is_incidental { "incidental" } else { word(&row, "class") };
            let scenario = word(&row, "scenario");
            for id in row["audit_ids"].as_array().expect("audit ids") {
                let id = id.as_str().expect("text");
                truth.classes.entry(id.to_owned()).or_default().insert(class.to_owned());
                if class == "attack" {
                    let attacks = truth.attacks.entry(id.to_owned()).or_default();
                    attacks.insert(scenario.to_owned());
                }
            }
            if class == "attack" {
                truth.scenarios.insert(scenario.to_owned(), row);
            }
        }
        truth
    }

    /// Whether the request was an attack, and whether it was nothing but benign.
    fn judge(&self, id: &str) -> (bool, bool) {
        let classes = self.classes.get(id).unwrap_or_else(|| panic!("{id} is in the sample"));
        (classes.contains("attack"), classes.iter().eq(["benign"]))
    }
}

/// The audit ids of an alert's evidence.
fn evidence(alert: &Value) -> Vec<&str> {
    let events = alert["events"].as_array().expect("evidence");
    assert!((1..=100).contains(&events.len()), "{} events", events.len());
    events.iter().map(|event| word(event, "audit_id")).collect()
}

#[test]
fn every_scenario_is_found_and_nothing_benign_is_high() {
    let truth = Truth::read();
    let alerts = objects(&text_of(&["replay", "--format", "jsonl", SAMPLE]));
    let mut found: BTreeSet<&str> = BTreeSet::new();
    let mut noise = Vec::new();
    for alert in &alerts {
        let ids = evidence(alert);
        let level = rank(word(&alert["rule"], "level"));
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for id in &ids {
            for scenario in truth.attacks.get(*id).into_iter().flatten() {
                *held.entry(scenario).or_default() += 1;
            }
        }
        let is_enough = |scenario: &str| level >= rank(word(&truth.scenarios[scenario], "level"));
        let scenarios = held.into_iter().filter(|(_, count)| 2 * count >= ids.len());
        found.extend(scenarios.map(|(scenario, _)| scenario).filter(|one| is_enough(one)));
        let judged: Vec<(bool, bool)> = ids.iter().map(|id| truth.judge(id)).collect();
        let attacks = judged.iter().filter(|(is_attack, _)| *is_attack).count();
        let is_benign = judged.iter().any(|(_, is_benign)| *is_benign);
        if 2 * attacks < ids.len() && is_benign && level >= rank("high") {
            noise.push(word(&alert["rule"], "title"));
        }
    }
    assert_eq!(truth.scenarios.len(), 42, "scenarios of attack");
    let shown = truth.scenarios.iter().filter(|(_, row)| word(row, "needs") != "body");
    let missed: Vec<&str> =
        shown.map(|(name, _)| name.as_str()).filter(|name| !found.contains(name)).collect();
    assert_eq!(missed, [""; 0], "scenarios without an alert");
    assert_eq!(noise, [""; 0], "alerts of high or above on benign requests");
}

/// Cuts the sample into rotated files, newest first by name, and repeats one of them as the body
/// that the webhook backend would have posted. Returns how many events stand in both.
fn cut(lines: &[String], directory: &Path) -> usize {
    let pieces: Vec<&[String]> = lines.chunks(50).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let name = format!("audit-{:03}.log", pieces.len() - index);
        std::fs::write(directory.join(name), piece.join("\n") + "\n").expect("written");
    }
    let prefix = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
    let items: Vec<String> = pieces[3].iter().map(|line| line.replacen(prefix, "{", 1)).collect();
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    );
    std::fs::write(directory.join("body.json"), list).expect("written");
    items.len()
}

#[test]
fn neither_threads_nor_files_change_the_alerts() {
    let lines = sample_lines();
    let directory = tempfile::tempdir().expect("a directory");
    let repeated = cut(&lines, directory.path());
    let logs = directory.path().to_str().expect("UTF-8");
    let by_threads = ["1", "2", "5"]
        .map(|threads| text_of(&["replay", "--format", "jsonl", "--threads", threads, logs]));
    assert!(by_threads[0] == by_threads[1], "2 threads differ from 1");
    assert!(by_threads[0] == by_threads[2], "5 threads differ from 1");

    let ids = |text: &str| -> Vec<String> {
        objects(text).iter().map(|alert| word(alert, "id").to_owned()).collect()
    };
    let whole = text_of(&["replay", "--format", "jsonl", SAMPLE]);
    assert_eq!(ids(&by_threads[0]), ids(&whole), "alerts depend on how the log was cut");

    let stats = directory.path().join("stats");
    let stats_path = stats.to_str().expect("UTF-8");
    text_of(&["replay", "--format", "none", "--stats", stats_path, logs]);
    let stats: Value =
        serde_json::from_str(&std::fs::read_to_string(&stats).expect("stats")).expect("JSON");
    assert_eq!(stats["events"], lines.len());
    assert_eq!(stats["events_duplicate"], repeated);
    assert_eq!(stats["events_rejected"], 0);
}

#[test]
fn the_demo_shows_the_sample() {
    let whole = text_of(&["replay", "--format", "jsonl", "--cluster", "demo", SAMPLE]);
    let demo = text_of(&["demo", "--format", "jsonl"]);
    assert_eq!(objects(&demo).len(), objects(&whole).len());
    assert!(!demo.is_empty());
}

#[test]
fn exit_codes_tell_how_it_went() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let no_log = write("notes.txt", "nothing that an API server wrote\n");
    let log = write("one.log", &(sample_lines()[0].clone() + "\n"));
    let broken = write("broken.yml", "title: no detection\nlogsource: {product: kubernetes}\n");
    let silent = write(
        "silent.yml",
        "title: t\nid: 4f0c7b0e-3c5b-4f6e-9d51-0f6b7f0b8a11\nlevel: critical\nlogsource: \
         {product: kubernetes, service: audit}\ndetection: {a: {verb: never}, condition: a}\n",
    );
    let nowhere = directory.path().join("gone/alerts.jsonl");
    let nowhere = nowhere.to_str().expect("UTF-8");
    for (code, args) in [
        (0, vec![SAMPLE]),
        (0, vec!["--fail-on", "high", "--rules", &silent, SAMPLE]),
        (2, vec![&no_log]),
        (2, vec!["no/such/file.log"]),
        (2, vec!["--rules", &broken, &log]),
        (2, vec!["--no-such-option", &log]),
        (2, vec!["--level", "severe", &log]),
        (2, vec!["--since", "24h", "-"]),
        (2, vec!["-o", nowhere, &log]),
        (3, vec!["--fail-on", "high", SAMPLE]),
        (3, vec!["--fail-on", "low", "--level", "critical", SAMPLE]),
    ] {
        let output = run(&[&["replay", "--format", "none"], args.as_slice()].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(code != 2 || !said.is_empty(), "{args:?}: says what is wrong");
    }
}

#[test]
fn what_is_not_analysed_is_said_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let torn = format!("{}\n{{\"kind\":\"Event\",\"verb\":]\n", "I1122 klog line\n".repeat(40));
    let whole = sample_lines()[0].clone();
    std::fs::write(dir.path().join("a.log"), format!("{whole}\n{torn}{whole}\n")).expect("written");
    std::fs::write(dir.path().join("notes.csv"), "a,b,c\n").expect("written");
    let logs = dir.path().to_str().expect("UTF-8");
    for format in ["table", "jsonl", "json", "csv", "html", "none"] {
        let output = run(&["replay", "--format", format, logs]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{format}: {said}");
        for part in ["not_json at ", "malformed_json at ", "/a.log:43", "notes.csv"] {
            assert!(said.contains(part), "{format}: {part}: {said}");
        }
    }
    let fine = run(&["replay", "--format", "jsonl", SAMPLE]);
    assert!(fine.stderr.is_empty(), "{}", String::from_utf8_lossy(&fine.stderr));
}

#[test]
fn evidence_is_not_written_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit.log");
    let text = sample_lines().join("\n");
    std::fs::write(&log, &text).expect("written");
    let linked = dir.path().join("linked");
    std::os::unix::fs::symlink(&log, &linked).expect("linked");
    let [log_path, linked_path, dir_path] = [&log, &linked, &dir.path().to_owned()]
        .map(|path| path.to_str().expect("UTF-8").to_owned());
    for args in [
        ["-o", &log_path, &log_path],
        ["-o", &linked_path, &log_path],
        ["-o", &log_path, &dir_path],
        ["--stats", &log_path, &log_path],
        ["--learn", &log_path, &log_path],
    ] {
        let output = run(&[&["replay", "--format", "jsonl"], args.as_slice()].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(std::fs::read_to_string(&log).expect("read"), text, "{args:?}");
    }
}
