//! The cases of cases.txt.
//!
//! What cannot be a case here: a page that is torn between two processors shows itself as a line
//! in parts at most, for a file's size grows after its bytes; overflow and absence of the system's
//! notifications are what every case is without, for none has them; a file of 200 GB differs from a
//! small one in its offsets only; a single file that a mount pins is one that nobody writes to,
//! which `silent_after` tells: the directory is to be mounted; what is inside of a line is
//! `event`'s to tell; the spool's own faults are the pipeline's tests. tests/cases/nasty.txt has
//! all that is known to go wrong, and where each is a test.

use crate::ingest::log::tests::bench::Bench;

const CASES: &str = include_str!("cases.txt");

struct Case<'c> {
    name: &'c str,
    script: String,
    lines: &'c str,
    notices: &'c str,
}

fn cases(section: &str) -> Vec<Case<'static>> {
    let part = CASES.split("\n## ").find(|part| part.starts_with(section)).unwrap();
    let blocks = part.split("\n# ").skip(1);
    let found = blocks.map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let mut case = Case { name, script: String::new(), lines: "", notices: "" };
        for line in rest.lines() {
            match line.split_at_checked(2) {
                Some(("= ", lines)) => case.lines = lines,
                Some(("! ", notices)) => case.notices = notices,
                _ => case.script.extend([line, " "]),
            }
        }
        case
    });
    found.collect()
}

fn check(section: &str, name: &str) {
    let mut failures = Vec::new();
    for case in cases(section) {
        let mut bench = Bench::new(name);
        bench.run(&case.script);
        let is_exact = case.notices.contains(':');
        let notices = bench.notices.iter();
        let notices: Vec<&str> = notices
            .map(|notice| if is_exact { notice } else { notice.split(':').next().unwrap() })
            .collect();
        let found = (bench.tokens().replace('\r', "\\r"), notices.join(" "));
        if found != (case.lines.to_owned(), case.notices.to_owned()) {
            let Case { name, script, lines, notices } = &case;
            failures.push(format!(
                "{name}: {script}\n  = {}\n  ! {}\nexpected\n  = {lines}\n  ! {notices}\n{:#?}\n",
                found.0, found.1, bench.texts
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn rotation() {
    check("rotation", "audit.log");
}

#[test]
fn names_of_all_kinds() {
    for name in ["audit", "kube-audit.json", "a.b.log"] {
        let mut bench = Bench::new(name);
        bench
            .run("w a; read; w b; rotate; w c; read; stop; compress; w d; rotate; w e; mill; read");
        assert_eq!((bench.tokens().as_str(), bench.texts.len()), ("a b c d e", 0), "{name}");
    }
}

#[test]
fn compression() {
    check("compression", "audit.log");
}

#[test]
fn truncation() {
    check("truncation", "audit.log");
}

#[test]
fn inodes() {
    check("inodes", "audit.log");
}

#[test]
fn lines() {
    check("lines", "audit.log");
}

#[test]
fn state() {
    check("state", "audit.log");
}

#[test]
fn several_files() {
    check("several files", "audit.log");
}

#[test]
fn thousands_of_backups_at_the_start() {
    let mut bench = Bench::new("audit.log");
    let mut script = String::new();
    for number in 0..5_000 {
        let (second, minute) = (number % 60, number / 60);
        let name =
            format!("audit-2026-01-01T{:02}-{:02}-{second:02}.000.log", minute / 60, minute % 60);
        script += &format!("put {name} n{number};");
    }
    bench.run(&script);
    bench.run("w last; read; stop; w again; read");
    let expected: Vec<String> = (0..5_000).map(|number| format!("n{number}")).collect();
    assert_eq!(bench.tokens(), format!("{} last again", expected.join(" ")));
    assert!(bench.texts.is_empty(), "{:?}", bench.texts);
}
