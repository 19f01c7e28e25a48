//! Every format over the same alerts: ordinary ones against golden files, hostile
//! ones against rules.

mod alerts;

use std::path::PathBuf;

use crate::alert::Alert;
use crate::alert::time::EventTime;
use crate::report::escape::is_hostile;
use crate::report::summary::{self, Summary};
use crate::report::tally::Tally;
use crate::report::terminal::Terminal;
use crate::report::tests::alerts::{HOSTILE, hostile, ordinary};
use crate::report::{Format, Reporter};

/// A page without its style, its script and their hashes: goldens hold what a run makes.
fn without_assets(page: &str) -> String {
    let between = |page: &str, from: &str, to: &str| {
        let (head, rest) = page.rsplit_once(from).unwrap();
        let (_, tail) = rest.split_once(to).unwrap();
        format!("{head}{from}…{to}{tail}")
    };
    let page = between(page, "<script>", "</script>");
    let page = between(&page, "<style>", "</style>");
    let page = between(&page, "style-src 'sha256-", "'");
    between(&page, "script-src 'sha256-", "'")
}

/// Compares with `tests/golden/report/<name>`; `UPDATE_GOLDEN=1` rewrites the file instead.
fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; run with UPDATE_GOLDEN=1 and review it. Now:\n{actual}",
        path.display()
    );
}

fn summary(alerts: &[Alert]) -> Summary {
    let mut tally = Tally::new();
    alerts.iter().for_each(|alert| tally.add(alert));
    let mut summary = Summary {
        files: 16,
        bytes_read: 12_345_678,
        events: 45_678,
        events_duplicate: 12,
        events_salvaged: 2,
        first_event_at: Some(EventTime(1_795_306_612_710_682)),
        last_event_at: Some(EventTime(1_795_307_000_000_000)),
        rules: 42,
        matches: 99,
        elapsed_seconds: 2.5,
        ..Summary::default()
    };
    summary.count_alerts(&tally);
    summary.skip_file("logs/ground-truth.jsonl");
    for line in 1..=7 {
        summary.reject("invalid_json", &format!("audit.log:{line}"));
    }
    summary.reject("legacy_format", "old.log:1");
    summary.evictions.insert("correlation_groups_max".to_owned(), 3);
    summary
}

fn hostile_summary(alerts: &[Alert]) -> Summary {
    let mut summary = summary(alerts);
    summary.reject("invalid_json", HOSTILE);
    summary.skip_file(HOSTILE);
    summary
}

fn report(format: Format, terminal: Terminal, alerts: &[Alert], summary: &Summary) -> String {
    let mut out = Vec::new();
    let mut reporter = Reporter::new(format, terminal, &mut out).unwrap();
    alerts.iter().for_each(|alert| reporter.write(alert).unwrap());
    reporter.finish(summary).unwrap();
    String::from_utf8(out).unwrap()
}

fn screen(width: usize, color: bool) -> Terminal {
    Terminal { width: Some(width), color }
}

#[test]
fn formats_look_as_they_did() {
    let alerts = ordinary();
    let cases = [
        ("plain.txt", Format::Table, Terminal::PLAIN),
        ("terminal-80.txt", Format::Table, screen(80, false)),
        ("terminal-160-color.txt", Format::Table, screen(160, true)),
        ("alerts.jsonl", Format::Jsonl, Terminal::PLAIN),
        ("alerts.json", Format::Json, Terminal::PLAIN),
        ("alerts.csv", Format::Csv, Terminal::PLAIN),
        ("alerts.html", Format::Html, Terminal::PLAIN),
    ];
    for (name, format, terminal) in cases {
        let text = report(format, terminal, &alerts, &summary(&alerts));
        let is_page = format == Format::Html;
        golden(name, if is_page { without_assets(&text) } else { text }.as_str());
    }
}

#[test]
fn hostile_alerts_look_as_they_did() {
    let alerts = hostile();
    let cases = [
        ("hostile.txt", Format::Table),
        ("hostile.jsonl", Format::Jsonl),
        ("hostile.csv", Format::Csv),
        ("hostile.html", Format::Html),
    ];
    for (name, format) in cases {
        let text = report(format, Terminal::PLAIN, &alerts, &hostile_summary(&alerts));
        let is_page = format == Format::Html;
        golden(name, if is_page { without_assets(&text) } else { text }.as_str());
    }
}

#[test]
fn summaries_look_as_they_did() {
    let text = |summary: &Summary, terminal| {
        let mut out = Vec::new();
        summary::write(&mut out, summary, terminal).unwrap();
        String::from_utf8(out).unwrap()
    };
    let mut out = Vec::new();
    let full = summary(&ordinary());
    full.write_json(&mut out).unwrap();
    golden("stats.json", std::str::from_utf8(&out).unwrap());
    golden("summary.txt", &text(&full, Terminal::PLAIN));
    golden("summary-color.txt", &text(&full, screen(80, true)));
    golden("summary-hostile.txt", &text(&hostile_summary(&hostile()), Terminal::PLAIN));
    golden("summary-empty.txt", &text(&Summary::default(), Terminal::PLAIN));
}

#[test]
fn no_format_passes_on_what_acts_on_its_reader() {
    let alerts = hostile();
    let summary = hostile_summary(&alerts);
    for format in Format::ALL {
        for terminal in [Terminal::PLAIN, screen(80, false), screen(300, false)] {
            let text = report(format, terminal, &alerts, &summary);
            for line in text.lines() {
                let found = line.chars().find(|&c| is_hostile(c));
                assert_eq!(found, None, "{format:?} {line:?}");
            }
        }
    }
}

/// Every tag of a page, in order, those in its style and its own script left out.
fn tags(page: &str) -> Vec<String> {
    let (page, _) = page.rsplit_once("<script>").unwrap();
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    let tag = |piece: &str| piece.split('>').next().unwrap_or_default().to_owned();
    [head, rest].iter().flat_map(|part| part.split('<').skip(1)).map(tag).collect()
}

#[test]
fn no_value_adds_an_element_to_the_page() {
    let plain = ordinary();
    let page = |alerts: &[Alert], summary| report(Format::Html, Terminal::PLAIN, alerts, &summary);
    let expected = tags(&page(&plain[..2], summary(&plain[..2])));
    let alerts = hostile();
    assert_eq!(alerts.len(), 2);
    assert_eq!(tags(&page(&alerts, hostile_summary(&alerts))), expected);
}

#[test]
fn page_is_the_same_for_equal_runs() {
    let alerts = ordinary();
    let (fast, slow) = (summary(&alerts), summary(&alerts));
    let slow = Summary { elapsed_seconds: 99.0, ..slow };
    let page = |summary| report(Format::Html, Terminal::PLAIN, &alerts, summary);
    assert_eq!(page(&fast), page(&slow));
}

#[test]
fn json_keeps_hostile_values_exact() {
    let alerts = hostile();
    let lines = report(Format::Jsonl, Terminal::PLAIN, &alerts, &Summary::default());
    let read: Vec<Alert> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, alerts);
    let array = report(Format::Json, Terminal::PLAIN, &alerts, &Summary::default());
    assert_eq!(serde_json::from_str::<Vec<Alert>>(&array).unwrap(), alerts);
    assert_eq!(report(Format::Json, Terminal::PLAIN, &[], &Summary::default()), "[]\n");
}

#[test]
fn no_csv_cell_is_a_formula() {
    let alerts = hostile();
    let text = report(Format::Csv, Terminal::PLAIN, &alerts, &Summary::default());
    let mut rows = ::csv::Reader::from_reader(text.as_bytes());
    let width = rows.headers().unwrap().len();
    let mut seen = 0;
    for row in rows.records() {
        let row = row.unwrap();
        assert_eq!(row.len(), width);
        seen += 1;
        for cell in &row {
            for part in cell.split(';') {
                let first = part.trim_start().chars().next();
                assert!(!matches!(first, Some('=' | '+' | '-' | '@')), "{cell:?}");
            }
        }
    }
    assert_eq!(seen, alerts.len());
}

#[test]
fn tables_stay_within_the_terminal() {
    use unicode_width::UnicodeWidthStr;
    let alerts: Vec<Alert> = ordinary().into_iter().chain(hostile()).collect();
    for width in [40, 60, 80, 100, 160, 250] {
        let text = report(Format::Table, screen(width, false), &alerts, &Summary::default());
        for line in text.lines().take_while(|line| !line.is_empty()) {
            assert!(line.width() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn levels_have_their_colours() {
    let alerts = ordinary();
    let text = report(Format::Table, screen(160, true), &alerts, &Summary::default());
    let expected = [
        "\x1b[1;31mcritical\x1b[0m",
        "\x1b[31mhigh\x1b[0m",
        "\x1b[33mmedium\x1b[0m",
        "\x1b[36mlow\x1b[0m",
        "\x1b[2minfo\x1b[0m",
    ];
    for word in expected {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn tallies_forget_no_known_actor() {
    let mut tally = Tally::new();
    for alert in ordinary() {
        tally.add(&alert);
        tally.add(&alert);
    }
    let mut summary = Summary::default();
    summary.count_alerts(&tally);
    assert_eq!(summary.alerts, 2 * ordinary().len() as u64);
    assert_eq!(summary.alerts_by_rule.values().sum::<u64>(), summary.alerts);
    assert_eq!(summary.top_actors.iter().map(|actor| actor.count).sum::<u64>(), summary.alerts);
}

proptest::proptest! {
    /// Whatever the values, every format stays readable and tells the same alerts.
    #[test]
    fn any_value_is_harmless(
        values in proptest::collection::vec(proptest::prelude::any::<String>(), 4),
        width in 1usize..200,
    ) {
        let mut alert = ordinary().remove(1);
        let [username, name, title, agent] = <[String; 4]>::try_from(values).unwrap();
        alert.actor.username = Some(username);
        alert.actor.user_agent = Some(agent);
        alert.request.name = Some(name);
        alert.rule.title = title;
        let alerts = [alert];
        let summary = summary(&alerts);
        for format in Format::ALL {
            let text = report(format, screen(width, false), &alerts, &summary);
            proptest::prop_assert!(!text.lines().any(|line| line.contains(is_hostile)));
        }
        let lines = report(Format::Jsonl, Terminal::PLAIN, &alerts, &summary);
        proptest::prop_assert_eq!(&serde_json::from_str::<Alert>(&lines).unwrap(), &alerts[0]);
    }
}
