//! `kubewitness rules eval`: Sigma documents against any JSON objects.

use std::path::Path;

use serde::Serialize;

use crate::cli::rules::read_input;
use crate::cli::{Done, Error};
use crate::config::rules::listed;
use crate::engine::Engine;
use crate::engine::correlate::{Correlator, Fired, Limits};
use crate::engine::field::Shape;
use crate::engine::values::Subject;
use crate::event::time::parse_us;
use crate::event::value::Value;
use crate::rule::load::{Options, load_paths};
use crate::rule::shipped;
use crate::telemetry::chain;

/// One line of output.
#[derive(Serialize)]
struct Line<'a> {
    rule_id: &'a str,
    lines: Vec<u64>,
}

/// Fields that tell the time of an event, best first (contract).
const TIME_FIELDS: [&str; 3] = ["stageTimestamp", "requestReceivedTimestamp", "@timestamp"];

/// Evaluates and prints a line an alert.
///
/// # Errors
/// Rules that must be refused, files that cannot be read: wrong input.
pub fn run(rules: &Path, events: &Path, taxonomy: bool) -> Result<Done, Error> {
    let options = match taxonomy {
        true => shipped::options().map_err(|fault| Error::Input(fault.message))?,
        false => Options::default(),
    };
    let set = load_paths(&[rules.to_owned()], &[], &options)
        .map_err(|problems| Error::Input(listed(&problems)))?;
    let shape = if taxonomy { Shape::Audit } else { Shape::Json };
    let engine = Engine::compile(set, shape, &[]).map_err(|error| Error::Input(chain(&error)))?;
    let bytes = read_input(events)?;
    let mut evaluation = Evaluation {
        correlator: engine.correlator(Limits::default()),
        scratch: engine.scratch(),
        engine: &engine,
        out: std::io::BufWriter::new(std::io::stdout().lock()),
        newest_us: 0,
    };
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if !line.trim_ascii().is_empty() {
            evaluation.take(index as u64 + 1, line)?;
        }
    }
    evaluation.finish()?;
    Ok(Done::Fine)
}

struct Evaluation<'e, W: std::io::Write> {
    engine: &'e Engine,
    correlator: Correlator<u64>,
    scratch: crate::engine::Scratch,
    out: W,
    newest_us: i64,
}

impl<W: std::io::Write> Evaluation<'_, W> {
    fn take(&mut self, line: u64, raw: &[u8]) -> Result<(), Error> {
        let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(raw);
        parsed.map_err(|error| Error::Input(format!("line {line}: no JSON: {error}")))?;
        let time_us = time_us(raw).unwrap_or(self.newest_us);
        self.newest_us = self.newest_us.max(time_us);
        let is_audit = self.engine.program().fields().shape() == Shape::Audit;
        let event = match (is_audit, crate::event::Event::salvage(raw)) {
            (true, Some(event)) => Some(event),
            (true, None) => return Ok(()),
            (false, _) => None,
        };
        let subject = match &event {
            Some(event) => Subject::Audit(event),
            None => Subject::Json(raw),
        };
        let matched = self.engine.evaluate(subject, &mut self.scratch).to_vec();
        let mut fired = Vec::new();
        self.correlator.begin_event();
        for position in matched {
            let rule = self.engine.detection(position);
            if rule.alerts {
                print(&mut self.out, &Line { rule_id: &rule.id, lines: vec![line] })?;
            }
            for feed in self.engine.feeds(position, subject, "", &mut self.scratch) {
                self.correlator.observe(&feed, time_us, &mut || line, &mut |one| fired.push(one));
            }
        }
        self.print_fired(fired)
    }

    fn finish(mut self) -> Result<(), Error> {
        let mut fired = Vec::new();
        self.correlator.finish(&mut |one| fired.push(one));
        self.print_fired(fired)?;
        self.out.flush()?;
        Ok(())
    }

    fn print_fired(&mut self, fired: Vec<Fired<u64>>) -> Result<(), Error> {
        for mut one in fired {
            let rule = self.engine.correlation(one.correlation);
            one.evidence.sort_unstable();
            one.evidence.dedup();
            if rule.alerts {
                print(&mut self.out, &Line { rule_id: &rule.id, lines: one.evidence })?;
            }
        }
        Ok(())
    }
}

fn print(out: &mut dyn std::io::Write, line: &Line<'_>) -> Result<(), Error> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn time_us(raw: &[u8]) -> Option<i64> {
    let object = Value::of(raw.trim_ascii());
    TIME_FIELDS.iter().find_map(|field| parse_us(object.member(field)?.text()?.as_bytes()))
}
