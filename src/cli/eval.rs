//! `kubewitness rules eval`: Sigma documents against any JSON objects.

use std::io::Write as _;
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
    };
    for event in in_order(&bytes)? {
        evaluation.take(event)?;
    }
    let evictions = evaluation.finish()?;
    if evictions > 0 {
        let _ = writeln!(
            std::io::stderr(),
            "kubewitness: {evictions} matches or windows of correlations were forgotten to stay \
             within limits; a sum, an average or a percentile is of what was left"
        );
    }
    Ok(Done::Fine)
}

/// A line with its 1-based number and the time of its event.
struct Timed<'b> {
    time_us: i64,
    line: u64,
    raw: &'b [u8],
}

/// The events in order of time, as in a replay; those of one time, or of none at all, as they are
/// written. An event without a time has that of the one before it, the first that of the first one
/// with a time.
fn in_order(bytes: &[u8]) -> Result<Vec<Timed<'_>>, Error> {
    let mut events: Vec<(Option<i64>, u64, &[u8])> = Vec::new();
    for (line, raw) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if raw.trim_ascii().is_empty() {
            continue;
        }
        let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(raw);
        parsed.map_err(|error| Error::Input(format!("line {line}: no JSON: {error}")))?;
        events.push((time_us(raw), line, raw));
    }
    let mut before = events.iter().find_map(|(time, ..)| *time).unwrap_or(0);
    let timed = events.into_iter().map(|(time, line, raw)| {
        before = time.unwrap_or(before);
        Timed { time_us: before, line, raw }
    });
    let mut timed: Vec<Timed<'_>> = timed.collect();
    timed.sort_by_key(|event| event.time_us);
    Ok(timed)
}

struct Evaluation<'e, W: std::io::Write> {
    engine: &'e Engine,
    correlator: Correlator<u64>,
    scratch: crate::engine::Scratch,
    out: W,
}

impl<W: std::io::Write> Evaluation<'_, W> {
    fn take(&mut self, Timed { time_us, line, raw }: Timed<'_>) -> Result<(), Error> {
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

    /// Decides what waited; how much had to be forgotten.
    fn finish(mut self) -> Result<u64, Error> {
        let mut fired = Vec::new();
        self.correlator.finish(&mut |one| fired.push(one));
        self.print_fired(fired)?;
        self.out.flush()?;
        Ok(self.correlator.evictions())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_in_order_of_time() {
        let event = |second: Option<u32>| match second {
            Some(second) => format!("{{\"@timestamp\":\"2026-08-01T00:00:0{second}Z\"}}\n"),
            None => "{\"a\":1}\n".to_owned(),
        };
        for (seconds, lines) in [
            (&[None, None][..], &[1, 2][..]),
            (&[Some(2), Some(1)], &[2, 1]),
            (&[None, Some(2), None, Some(1), None, Some(2)], &[4, 5, 1, 2, 3, 6]),
        ] {
            let text: String = seconds.iter().map(|second| event(*second)).collect();
            let events = in_order(text.as_bytes()).unwrap();
            assert_eq!(events.iter().map(|event| event.line).collect::<Vec<_>>(), lines, "{text}");
        }
        let lines: Vec<u64> = in_order(b"{}\n\n{}").unwrap().iter().map(|one| one.line).collect();
        assert_eq!(lines, [1, 3]);
        assert!(in_order(b"{}\n{").is_err());
    }
}
