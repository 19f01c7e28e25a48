//! Looks for the probe's marks in what a running instance stored: it is asked, or its spool is
//! read, or a file of events.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock;
use crate::event::value::Value;
use crate::probe::seen::Seen;
use crate::record::{StoredEvent, kind};
use crate::spool;

/// A line without an end beyond this is passed over.
const LINE_BYTES_MAX: usize = 64 << 20;
/// What is read of a file at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Time for a question to a running instance and its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the audit trail ends up.
#[derive(Clone, Debug)]
pub enum Place {
    /// A running instance, by the address of its operator HTTP.
    Admin(Url),
    /// The spool of a running instance.
    Spool(PathBuf),
    /// A file of events, one a line: a file sink's, or the log backend's own.
    Events(PathBuf),
}

/// An audit event that a request left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When it was first met, microseconds since the epoch; not said by one to another.
    #[serde(skip)]
    pub seen_us: i64,
    /// Who the API server took the caller for.
    pub username: String,
    /// The event's stage.
    pub stage: String,
    /// How many events of the request were met.
    pub events: u64,
    /// Titles of rules that raised an alert for it; files of events do not tell.
    pub alerts: Vec<String>,
}

/// The trail cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance does not answer, or not as it should.
    #[error("{url}: {problem}; give the address of `admin.listen`: http://HOST:PORT")]
    Admin {
        /// What was asked.
        url: Url,
        /// What happened.
        problem: String,
    },
    /// The spool cannot be read.
    #[error("cannot read the spool")]
    Spool(#[source] spool::Error),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Events {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Follows a place from where it ended when this was made.
pub struct Trail {
    position: Position,
    mark: String,
    /// By user agent.
    traces: BTreeMap<String, Trace>,
}

enum Position {
    Admin { client: reqwest::Client, url: Url, seq: Option<u64> },
    Spool { dir: PathBuf, seq: u64 },
    Events { path: PathBuf, offset: u64, rest: Vec<u8> },
}

impl Trail {
    /// Stands at the end of what is there. Blocks for files.
    ///
    /// # Errors
    /// [`Error`]; a file of events that is not there yet is none.
    pub async fn open(place: Place, mark: &str) -> Result<Trail, Error> {
        let position = match place {
            Place::Admin(mut url) => {
                url.set_path("/probe");
                let failed = |error: reqwest::Error| Error::Admin {
                    url: url.clone(),
                    problem: error.to_string(),
                };
                let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT);
                let client = client.build().map_err(failed)?;
                let seq = Some(ask(&client, &url, mark, None).await?.seq);
                Position::Admin { client, url, seq }
            }
            Place::Spool(dir) => {
                let seq = spool::scan(&dir, 0, &mut |_| {}).map_err(Error::Spool)?;
                Position::Spool { dir, seq }
            }
            Place::Events(path) => {
                let offset = match std::fs::metadata(&path) {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                    Err(source) => return Err(Error::Events { path, source }),
                };
                Position::Events { path, offset, rest: Vec::new() }
            }
        };
        Ok(Trail { position, mark: mark.to_owned(), traces: BTreeMap::new() })
    }

    /// What was found, by user agent.
    pub fn traces(&self) -> &BTreeMap<String, Trace> {
        &self.traces
    }

    /// Looks until every user agent was met, at most for so long.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn follow(&mut self, user_agents: &[String], wait: Duration) -> Result<(), Error> {
        let watch = clock::Stopwatch::start();
        loop {
            self.look().await?;
            let is_met = |agent| self.traces.get(agent).is_some_and(|trace| trace.events > 0);
            let is_complete = user_agents.iter().all(is_met);
            if is_complete || watch.elapsed() >= wait {
                return Ok(());
            }
            tokio::time::sleep(PAUSE.min(wait.saturating_sub(watch.elapsed()))).await;
        }
    }

    /// Looks once, at what came since the last time. Blocks for files.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn look(&mut self) -> Result<(), Error> {
        let Trail { position, mark, traces } = self;
        match position {
            Position::Admin { client, url, seq } => {
                let seen = ask(client, url, mark, *seq).await?;
                *seq = Some(seen.seq);
                for (agent, trace) in seen.traces {
                    take(traces.entry(agent).or_default(), trace);
                }
                Ok(())
            }
            Position::Spool { dir, seq } => {
                let mut each = |record: spool::Record<'_>| match record.kind {
                    kind::EVENT => {
                        let event = StoredEvent::decode(record.payload);
                        note_event(mark, event.map_or(&[][..], |event| event.raw), traces);
                    }
                    kind::ALERT => note_alert(mark, record.payload, traces),
                    _ => {}
                };
                *seq = spool::scan(dir, *seq, &mut each).map_err(Error::Spool)?;
                Ok(())
            }
            Position::Events { path, offset, rest } => {
                let failed = |path: &Path, source| Error::Events { path: path.to_owned(), source };
                read_lines(path, offset, rest, &mut |line| note_event(mark, line, traces))
                    .map_err(|source| failed(path, source))
            }
        }
    }
}

/// Asks a running instance what it stored with a mark.
async fn ask(
    client: &reqwest::Client,
    url: &Url,
    mark: &str,
    after: Option<u64>,
) -> Result<Seen, Error> {
    let mut full = url.clone();
    full.query_pairs_mut().clear().append_pair("mark", mark);
    if let Some(after) = after {
        full.query_pairs_mut().append_pair("after", &after.to_string());
    }
    let failed = |problem: String| Error::Admin { url: url.clone(), problem };
    let unreachable = |error: reqwest::Error| failed(error.without_url().to_string());
    let response = client.get(full).send().await.map_err(unreachable)?;
    let status = response.status();
    if !status.is_success() {
        return Err(failed(format!("answers {status}")));
    }
    let body = response.bytes().await.map_err(unreachable)?;
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}

/// Adds what a later answer says of the same request.
fn take(known: &mut Trace, more: Trace) {
    if known.events == 0 && more.events > 0 {
        known.seen_us = clock::now_us();
    }
    if more.events > 0 {
        (known.username, known.stage) = (more.username, more.stage);
    }
    known.events += more.events;
    let is_new = |title: &String| !known.alerts.contains(title);
    let titles: Vec<String> = more.alerts.into_iter().filter(is_new).collect();
    known.alerts.extend(titles);
}

/// Hands over whole lines behind the offset. A file that became shorter is read from its start.
fn read_lines(
    path: &Path,
    offset: &mut u64,
    rest: &mut Vec<u8>,
    each: &mut dyn FnMut(&[u8]),
) -> std::io::Result<()> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if file.metadata()?.len() < *offset {
        (*offset, *rest) = (0, Vec::new());
    }
    file.seek(SeekFrom::Start(*offset))?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        *offset += count as u64;
        let mut lines = piece[..count].split_inclusive(|byte| *byte == b'\n');
        lines.by_ref().for_each(|line| {
            rest.extend_from_slice(line);
            if rest.ends_with(b"\n") || rest.len() > LINE_BYTES_MAX {
                each(rest);
                rest.clear();
            }
        });
    }
}

/// Notes an event with this mark.
pub(crate) fn note_event(mark: &str, raw: &[u8], traces: &mut BTreeMap<String, Trace>) {
    if memchr::memmem::find(raw, mark.as_bytes()).is_none() {
        return;
    }
    let event = Value::of(raw.trim_ascii());
    let text = |value: Option<Value<'_>>| {
        value.and_then(|value| value.text().map(|text| text.to_string())).unwrap_or_default()
    };
    let user_agent = text(event.member("userAgent"));
    if !user_agent.starts_with(mark) {
        return;
    }
    let trace = traces.entry(user_agent).or_default();
    if trace.events == 0 {
        trace.seen_us = clock::now_us();
    }
    trace.events += 1;
    trace.stage = text(event.member("stage"));
    trace.username = text(event.member("user").and_then(|user| user.member("username")));
}

/// Notes an alert about a request with this mark.
pub(crate) fn note_alert(mark: &str, json: &[u8], traces: &mut BTreeMap<String, Trace>) {
    if memchr::memmem::find(json, mark.as_bytes()).is_none() {
        return;
    }
    let Ok(alert) = serde_json::from_slice::<serde_json::Value>(json) else { return };
    let text = |pointer: &str| alert.pointer(pointer).and_then(|value| value.as_str());
    let (Some(agent), Some(title)) = (text("/actor/user_agent"), text("/rule/title")) else {
        return;
    };
    if !agent.starts_with(mark) {
        return;
    }
    let trace = traces.entry(agent.to_owned()).or_default();
    if !trace.alerts.iter().any(|known| known == title) {
        trace.alerts.push(title.to_owned());
    }
}
