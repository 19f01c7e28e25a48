//! The events kept beside a rule, and whether the rule makes of them what it should.
//!
//! A case is one JSON object a line in `<rule>.events.jsonl`: `{"expect": "match"|"no_match",
//! "why": "…", "event": {…}}`, or `"events": [{…}, …]` in order of time, or `"input": "…"`, one
//! line of any input form. `"rule": "<id>"` picks the rule where a file holds several; without it
//! the last correlation that no other one of the file builds on is meant, else the last rule.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::alert::raise::Raiser;
use crate::alert::sighting::{self, Sighting};
use crate::engine::Engine;
use crate::engine::correlate::Limits;
use crate::engine::values::Subject;
use crate::event::Event;
use crate::event::decode::{self, Decoded};
use crate::rule::{Body, Rule};

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the rule must do.
    pub expect: Expectation,
    /// What the case shows.
    pub why: String,
    /// The rule it is about.
    #[serde(default)]
    pub rule: Option<String>,
    #[serde(default)]
    event: Option<Box<RawValue>>,
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    #[serde(default)]
    input: Option<String>,
}

/// What a rule must make of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// It matches; a correlation fires.
    Match,
    /// It does not.
    NoMatch,
}

/// A case that did not come out as it should, or could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {message}", path.display())]
pub struct Failure {
    /// The file of the case.
    pub path: PathBuf,
    /// Its 1-based line.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// How the cases of one rule file came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that must match, and did or did not.
    pub matches: usize,
    /// Cases that must not match.
    pub near_misses: usize,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// The file that holds the cases of a rule file.
pub fn path_beside(rule: &Path) -> PathBuf {
    rule.with_extension("events.jsonl")
}

/// Runs the cases in `text` (of the file `path`) against the rules that stand in `rule_path`.
pub fn run(engine: &Arc<Engine>, rule_path: &Path, path: &Path, text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let checked = serde_json::from_str::<Case>(line)
            .map_err(|error| format!("no valid case: {error}"))
            .and_then(|case| {
                let is_match = case.expect == Expectation::Match;
                check(engine, rule_path, &case).map(|()| is_match)
            });
        match checked {
            Ok(true) => outcome.matches += 1,
            Ok(false) => outcome.near_misses += 1,
            Err(message) => {
                outcome.failures.push(Failure { path: path.to_owned(), line: index + 1, message });
            }
        }
    }
    outcome
}

fn check(engine: &Arc<Engine>, rule_path: &Path, case: &Case) -> Result<(), String> {
    let rule = subject_of(engine, rule_path, case)?;
    let found = matched(engine, case)?;
    match (case.expect, found.contains(&rule.id)) {
        (Expectation::Match, false) => Err(format!("no match of {:?}: {}", rule.title, case.why)),
        (Expectation::NoMatch, true) => Err(format!("{:?} matches: {}", rule.title, case.why)),
        _ => Ok(()),
    }
}

fn subject_of<'e>(engine: &'e Engine, rule_path: &Path, case: &Case) -> Result<&'e Rule, String> {
    let rules = &engine.rules().rules;
    let mut own: Vec<&Rule> =
        rules.iter().filter(|rule| rule.origin.path.as_path() == rule_path).collect();
    own.sort_by_key(|rule| (matches!(rule.body, Body::Correlation(_)), rule.origin.line));
    // A correlation that only feeds another one of the file is not what the file is about.
    let is_fed = |rule: &&Rule| {
        own.iter().any(|other| match &other.body {
            Body::Correlation(correlation) => correlation.rules.contains(&rule.id),
            Body::Detection(_) => false,
        })
    };
    let outermost = own.iter().rev().find(|rule| !is_fed(rule)).copied();
    match &case.rule {
        Some(id) => rules
            .iter()
            .find(|rule| *rule.id == **id || rule.name.as_deref() == Some(id))
            .ok_or_else(|| format!("there is no rule {id:?}")),
        None => outermost.ok_or_else(|| "the rule file holds no rule".to_owned()),
    }
}

/// The ids of the rules that match the case's events, correlations included.
fn matched(engine: &Arc<Engine>, case: &Case) -> Result<Vec<Arc<str>>, String> {
    let mut run = Run {
        engine,
        scratch: engine.scratch(),
        raiser: Raiser::new(Arc::clone(engine), Limits::default()),
        found: Vec::new(),
        events: 0,
    };
    let events = case.event.iter().chain(&case.events);
    for raw in events {
        let event = Event::parse(raw.get().as_bytes())
            .map_err(|error| format!("no audit event: {:?} at {}", error.kind, error.offset))?;
        run.take(&event, event.time_us());
    }
    if let Some(input) = &case.input {
        let mut scratch = decode::Scratch::default();
        decode::decode(input.as_bytes(), &mut scratch, &mut |decoded| {
            if let Decoded::Event { event, context, .. } = decoded {
                run.take(&event, event.time_us().or(context.time_us));
            }
        });
    }
    if run.events == 0 {
        return Err("the case holds no event".to_owned());
    }
    let Run { mut raiser, mut found, .. } = run;
    raiser.finish(&mut |alert| found.push(alert.rule.id.as_str().into()));
    Ok(found)
}

struct Run<'e> {
    engine: &'e Arc<Engine>,
    scratch: crate::engine::Scratch,
    raiser: Raiser,
    found: Vec<Arc<str>>,
    events: usize,
}

impl Run<'_> {
    fn take(&mut self, event: &Event<'_>, time_us: Option<i64>) {
        self.events += 1;
        let matched = self.engine.evaluate(Subject::Audit(event), &mut self.scratch).to_vec();
        if matched.is_empty() {
            return;
        }
        self.found.extend(matched.iter().map(|id| self.engine.detection(*id).id.clone()));
        let position = self.events.to_string();
        let mut bytes = Vec::new();
        let place = ("test", position.as_str());
        sighting::pack(self.engine, (event, event), &matched, place, &mut self.scratch, &mut bytes);
        let mut sighting = Sighting::default();
        sighting.unpack(&bytes, time_us.unwrap_or_default()).expect("what was packed is unpacked");
        let found = &mut self.found;
        self.raiser.observe(&sighting, &mut |alert| found.push(alert.rule.id.as_str().into()));
    }
}
