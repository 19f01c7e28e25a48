//! What each part allows and the whole does not: names that meet, limits that do not fit together,
//! files that others can read.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, Mode, Source};
use crate::ingest::webhook::config::is_cluster;
use crate::pipeline::detector::KEY_BYTES;
use crate::sinks::config::Kind;
use crate::units::Size;

/// A redaction key below this could be guessed, and with it every secret that it fingerprints.
pub const KEY_BYTES_MIN: u64 = 16;

/// An append below this could not hold an event (three quarters of it at most) and its match.
const BATCH_BYTES_MIN: u64 = 2 << 20;

/// What a snapshot holds beside windows, baselines and the keys of events: positions, requests.
const STATE_BYTES_REST: u64 = 32 << 20;

/// A key's path (`sinks.1.name`), and what is wrong there.
pub(crate) type Fault = (String, String);

/// Everything that is wrong; reads no more than sizes and permissions of files.
pub(crate) fn check(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    names(config, &mut faults);
    sources(config, &mut faults);
    limits(config, &mut faults);
    redaction(config, &mut faults);
    paths(config, &mut faults);
    if let Err(error) = config.log.check() {
        faults.push(("log.filter".to_owned(), error.to_string()));
    }
    faults
}

fn fault(faults: &mut Vec<Fault>, path: impl Into<String>, message: impl Into<String>) {
    faults.push((path.into(), message.into()));
}

fn names(config: &Config, faults: &mut Vec<Fault>) {
    if !is_cluster(&config.cluster) {
        let rule = "1 to 63 of a-z, 0-9, `.` and `-`, a letter or digit first";
        fault(faults, "cluster", format!("{:?} is no name of a cluster: {rule}", config.cluster));
    }
    if config.sources.is_empty() {
        fault(faults, "sources", "no source: nothing would come in; add a log or a webhook");
    }
    if config.sinks.is_empty() {
        fault(faults, "sinks", "no sink: nothing would leave the spool; add a file or stdout");
    }
    let sources = config.sources.iter().map(Source::name);
    twice("sources", sources, faults);
    twice("sinks", config.sinks.iter().map(|sink| sink.common.name.as_str()), faults);
}

/// Names that are there more than once.
fn twice<'n>(list: &str, names: impl Iterator<Item = &'n str>, faults: &mut Vec<Fault>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, name) in names.enumerate() {
        if let Some(first) = seen.get(name) {
            let message = format!(
                "{name:?} is the name of {list}[{first}] too; positions and metrics are kept by name"
            );
            fault(faults, format!("{list}.{index}.name"), message);
        } else {
            seen.insert(name, index);
        }
    }
}

fn sources(config: &Config, faults: &mut Vec<Fault>) {
    let mut listeners: Vec<std::net::SocketAddr> = vec![config.admin.listen];
    for (index, source) in config.sources.iter().enumerate() {
        let path = format!("sources.{index}");
        if let Err(message) = source.check() {
            fault(faults, &path, message);
        }
        if let Some(listen) = source.listen() {
            if listen.port() != 0 && listeners.contains(&listen) {
                fault(faults, format!("{path}.listen"), format!("{listen} is taken already"));
            }
            listeners.push(listen);
        }
    }
}

fn limits(config: &Config, faults: &mut Vec<Fault>) {
    if let Err(error) = config.spool.options().check() {
        fault(faults, "spool", error.to_string());
    }
    if config.spool.batch_bytes_max.0 < BATCH_BYTES_MIN {
        let least = Size(BATCH_BYTES_MIN);
        let text = format!("at least {least}: an event and its match are one append");
        fault(faults, "spool.batch_bytes_max", text);
    }
    let pipeline = &config.pipeline;
    let events = (pipeline.duplicates_max as u64).saturating_mul(KEY_BYTES as u64);
    let state = pipeline.state_bytes_max.0.saturating_add(events).saturating_add(STATE_BYTES_REST);
    if state > config.spool.snapshot_bytes_max.0 {
        let text = format!(
            "with {KEY_BYTES} bytes for each of duplicates_max and {} for the rest a snapshot may come to \
             {}, which is over spool.snapshot_bytes_max ({}): lower the first two, or raise that",
            Size(STATE_BYTES_REST),
            Size(state.div_ceil(1 << 20) << 20),
            config.spool.snapshot_bytes_max,
        );
        fault(faults, "pipeline.state_bytes_max", text);
    }
    if config.admin.connections_max == 0 || config.admin.request_timeout.0.is_zero() {
        fault(faults, "admin", "connections_max and request_timeout must be above 0");
    }
}

fn redaction(config: &Config, faults: &mut Vec<Fault>) {
    let redaction = &config.redaction;
    let Some(path) = &redaction.key_file else { return };
    if redaction.mode == Mode::Off {
        let message = "has no use with mode: off; leave one of them out";
        fault(faults, "redaction.key_file", message);
        return;
    }
    if let Err(message) = private(path, KEY_BYTES_MIN) {
        let remedy = "head -c 32 /dev/urandom > FILE; chmod 600 FILE";
        fault(faults, "redaction.key_file", format!("{message}; make one with: {remedy}"));
    }
}

/// Refuses a file that is missing, too small, or that everybody may read.
fn private(path: &Path, bytes_min: u64) -> Result<(), String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(format!("{shown} is open to everybody (mode {mode:o})"));
    }
    if metadata.len() < bytes_min {
        return Err(format!("{shown} has {} bytes, fewer than {bytes_min}", metadata.len()));
    }
    Ok(())
}

/// Sinks that would write where something is read, or where only the spool writes.
fn paths(config: &Config, faults: &mut Vec<Fault>) {
    let spool = absolute(&config.spool.dir);
    let mut written: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (index, sink) in config.sinks.iter().enumerate() {
        let Kind::File(file) = &sink.kind else { continue };
        let place = format!("sinks.{index}.path");
        let path = absolute(&file.path);
        if path.starts_with(&spool) {
            fault(faults, &place, "lies in spool.dir, where only the spool writes");
        }
        if config.sources.iter().any(|source| source.reads(&path)) {
            fault(faults, &place, "is read by a source: it would eat its own output");
        }
        let name = sink.common.name.as_str();
        if let Some(other) = written.insert(path, name) {
            fault(faults, &place, format!("is written by sink {other:?} too"));
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
