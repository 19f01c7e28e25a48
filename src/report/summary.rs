//! What a run read, found, and could not use: for a person at the end, for a machine as `--stats`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use indicatif::{BinaryBytes, DecimalBytes, HumanCount};
use serde::Serialize;

use crate::alert::time::EventTime;
use crate::report::escape::{self, Spelling, visible};
use crate::report::tally::{ActorCount, LevelCounts, RuleCount, Tally};
use crate::report::terminal::{Style, Terminal};
use crate::rule::Level;

/// So many places are named for each kind of thing that could not be used.
pub const EXAMPLES_MAX: usize = 5;

/// A whole run in numbers. Its JSON form is what `--stats` writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Files read, standard input included.
    pub files: u64,
    /// Files found in a directory that hold no audit events.
    pub files_skipped: u64,
    /// Files and directories found that could not be read.
    pub files_unreadable: u64,
    /// The first of the files skipped; see [`Summary::skip_file`].
    pub skipped: Vec<String>,
    /// Bytes read, before decompression.
    pub bytes_read: u64,
    /// Unique events of all stages, before `--since` and `--until`.
    pub events: u64,
    /// Events met again.
    pub events_duplicate: u64,
    /// Input that is no audit event; see [`Summary::reject`].
    pub events_rejected: u64,
    /// Cut events of which the part before the cut was used.
    pub events_salvaged: u64,
    /// Time of the oldest event.
    pub first_event_at: Option<EventTime>,
    /// Time of the newest event.
    pub last_event_at: Option<EventTime>,
    /// Rules loaded.
    pub rules: u64,
    /// Rule matches, those that only feed correlations included.
    pub matches: u64,
    /// Matches by the id of their rule, also of rules that only feed correlations.
    pub matches_by_rule: BTreeMap<String, u64>,
    /// Alerts raised.
    pub alerts: u64,
    /// How many of them were shown: of a level that was asked for, and not throttled.
    pub alerts_shown: u64,
    /// Alerts by level.
    pub alerts_by_level: LevelCounts,
    /// Alerts by rule id.
    pub alerts_by_rule: BTreeMap<String, u64>,
    /// The gravest rules that raised alerts; see [`Tally::top_rules`].
    pub top_rules: Vec<RuleCount>,
    /// The actors of the gravest alerts; see [`Tally::top_actors`].
    pub top_actors: Vec<ActorCount>,
    /// What could not be used, by the name of the reason.
    pub rejects_by_reason: BTreeMap<String, Rejects>,
    /// How often a limit made the engine forget something, by the name of the limit.
    pub evictions: BTreeMap<String, u64>,
    /// Wall-clock time of the run.
    pub elapsed_seconds: f64,
}

/// Rejects that share a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rejects {
    /// How many.
    pub count: u64,
    /// Where the first of them stand.
    pub positions: Vec<String>,
}

impl Summary {
    /// Counts input that is no audit event. `reason` is a name out of a closed set; the position is
    /// kept while there are few of the reason.
    pub fn reject(&mut self, reason: &str, position: &str) {
        self.events_rejected += 1;
        let rejects = self.rejects_by_reason.entry(reason.to_owned()).or_default();
        rejects.count += 1;
        if rejects.positions.len() < EXAMPLES_MAX {
            rejects.positions.push(position.to_owned());
        }
    }

    /// Counts more input of a reason whose positions are known well enough.
    pub fn reject_more(&mut self, reason: &str, count: u64) {
        self.events_rejected += count;
        self.rejects_by_reason.entry(reason.to_owned()).or_default().count += count;
    }

    /// Counts a file without audit events; its name is kept while there are few.
    pub fn skip_file(&mut self, name: &str) {
        self.files_skipped += 1;
        if self.skipped.len() < EXAMPLES_MAX {
            self.skipped.push(name.to_owned());
        }
    }

    /// Takes over the counts of alerts.
    pub fn count_alerts(&mut self, tally: &Tally) {
        self.alerts = tally.alerts();
        self.alerts_shown = self.alerts;
        self.alerts_by_level = tally.levels();
        self.alerts_by_rule = tally.by_rule();
        self.top_rules = tally.top_rules();
        self.top_actors = tally.top_actors();
    }

    /// Writes the JSON of `--stats`: one object and a line break. Fails when the destination does.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        escape::write_json(out, self, Spelling::Exact)?;
        out.write_all(b"\n")
    }
}

/// Writes the summary for a person, several lines. Fails when the destination does.
pub fn write(out: &mut dyn Write, summary: &Summary, terminal: Terminal) -> io::Result<()> {
    let lines = [
        ("Alerts", alerts(summary, terminal)),
        ("Events", events(summary)),
        ("Input", input(summary)),
        ("Speed", speed(summary)),
    ];
    for (heading, line) in lines {
        write_headed(out, heading, &line, terminal)?;
    }
    write_top(out, summary, terminal)?;
    write_rejects(out, summary, terminal)?;
    write_evictions(out, summary)
}

fn write_evictions(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    for (limit, times) in &summary.evictions {
        let times = counted(*times, "time");
        writeln!(out, "Limit {} reached {times}: results may lack what it forgot", visible(limit))?;
    }
    Ok(())
}

/// Writes what was not analysed, and nothing where all was: for whoever sees no summary. Fails when
/// the destination does.
pub fn write_losses(out: &mut dyn Write, summary: &Summary, terminal: Terminal) -> io::Result<()> {
    if summary.files_skipped + summary.files_unreadable > 0 {
        write_headed(out, "Input", &input(summary), terminal)?;
    }
    write_rejects(out, summary, terminal)?;
    write_evictions(out, summary)
}

fn write_headed(
    out: &mut dyn Write,
    heading: &str,
    line: &str,
    terminal: Terminal,
) -> io::Result<()> {
    writeln!(out, "{} {line}", terminal.paint(Style::Strong, &format!("{heading:<7}")))
}

fn write_rejects(out: &mut dyn Write, summary: &Summary, terminal: Terminal) -> io::Result<()> {
    if summary.events_rejected > 0 {
        let heading = format!("Rejected: {}", counted(summary.events_rejected, "piece of input"));
        writeln!(out, "{}", terminal.paint(Style::Strong, &heading))?;
    }
    for (reason, rejects) in &summary.rejects_by_reason {
        let places = places(&rejects.positions, rejects.count);
        writeln!(out, "  {:>9}  {} at {places}", count(rejects.count), visible(reason))?;
    }
    Ok(())
}

/// Writes the summary for a person in one line, as a table ends. Fails when the destination does.
pub(crate) fn write_line(
    out: &mut dyn Write,
    summary: &Summary,
    terminal: Terminal,
) -> io::Result<()> {
    let alerts = alerts(summary, terminal);
    let files = counted(summary.files, "file");
    write!(out, "{alerts} in {} of {files}", counted(summary.events, "event"))?;
    if summary.events_rejected > 0 {
        write!(out, "; {} rejected", counted(summary.events_rejected, "piece of input"))?;
    }
    writeln!(out)
}

/// `412 alerts: 3 critical, 20 high`.
fn alerts(summary: &Summary, terminal: Terminal) -> String {
    let mut total = counted(summary.alerts, "alert");
    if summary.alerts_shown < summary.alerts {
        total.push_str(&format!(", {} of them shown", count(summary.alerts_shown)));
    }
    let levels: Vec<String> = Level::ALL
        .into_iter()
        .rev()
        .filter(|&level| summary.alerts_by_level.of(level) > 0)
        .map(|level| {
            let text = format!("{} {}", count(summary.alerts_by_level.of(level)), level.as_str());
            terminal.paint(Style::Level(level), &text)
        })
        .collect();
    if levels.is_empty() { total } else { format!("{total}: {}", levels.join(", ")) }
}

fn events(summary: &Summary) -> String {
    let mut line = count(summary.events);
    if let (Some(first), Some(last)) = (summary.first_event_at, summary.last_event_at) {
        line.push_str(&format!(" from {first} to {last}"));
    }
    for (number, what) in [
        (summary.events_duplicate, "duplicates not counted"),
        (summary.events_salvaged, "cut, used up to the cut"),
    ] {
        if number > 0 {
            line.push_str(&format!("; {} {what}", count(number)));
        }
    }
    line
}

fn input(summary: &Summary) -> String {
    let bytes = BinaryBytes(summary.bytes_read);
    let mut line = format!("{}, {bytes}", counted(summary.files, "file"));
    if summary.files_unreadable > 0 {
        line.push_str(&format!("; {} could not be read", count(summary.files_unreadable)));
    }
    if summary.files_skipped > 0 {
        let names = places(&summary.skipped, summary.files_skipped);
        let skipped = count(summary.files_skipped);
        line.push_str(&format!("; {skipped} skipped, without audit events: {names}"));
    }
    line
}

#[expect(clippy::cast_precision_loss, reason = "shown rounded")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, above zero")]
fn speed(summary: &Summary) -> String {
    let seconds = summary.elapsed_seconds;
    let rules = counted(summary.rules, "rule");
    if seconds <= 0.0 {
        return rules;
    }
    let rate = |number: u64| (number as f64 / seconds) as u64;
    let (bytes, events) = (DecimalBytes(rate(summary.bytes_read)), rate(summary.events));
    format!("{seconds:.1} s with {rules}: {bytes}/s, {} events/s", count(events))
}

fn write_top(out: &mut dyn Write, summary: &Summary, terminal: Terminal) -> io::Result<()> {
    if !summary.top_rules.is_empty() {
        writeln!(out, "{}", terminal.paint(Style::Strong, "Top rules"))?;
    }
    for RuleCount { title, level, count: number, .. } in &summary.top_rules {
        let word = terminal.paint(Style::Level(*level), &format!("{:<13}", level.as_str()));
        writeln!(out, "  {:>9}  {word}  {}", count(*number), visible(title))?;
    }
    if !summary.top_actors.is_empty() {
        writeln!(out, "{}", terminal.paint(Style::Strong, "Top actors, with their highest level"))?;
    }
    for ActorCount { username, level, count: number, .. } in &summary.top_actors {
        let word = terminal.paint(Style::Level(*level), &format!("{:<13}", level.as_str()));
        let name = if username.is_empty() { "(no user name)".into() } else { visible(username) };
        writeln!(out, "  {:>9}  {word}  {name}", count(*number))?;
    }
    Ok(())
}

/// The first places, and how many there are beyond.
fn places(named: &[String], total: u64) -> String {
    let mut text = named.iter().map(|place| visible(place)).collect::<Vec<_>>().join(", ");
    let more = total.saturating_sub(named.len() as u64);
    if more > 0 {
        text.push_str(&format!(" and {} more", count(more)));
    }
    text
}

fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// `1 match`, `2 matches`, `1,000 pieces of input`.
pub fn counted(number: u64, noun: &str) -> String {
    let (head, rest) = noun.split_at(noun.find(" of ").unwrap_or(noun.len()));
    let end = match number {
        1 => "",
        _ if head.ends_with("ch") || head.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {head}{end}{rest}", count(number))
}
