//! `kubewitness check`: would `run` work? Looks at everything, changes nothing unless told to.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::cli::{Done, Error};
use crate::config::{self, Config, Mode, Override, Source};
use crate::ingest::{kafka, log, webhook};
use crate::report::escape::visible;
use crate::report::summary::counted;
use crate::rule::Body;
use crate::sinks::frame::Frame;
use crate::spool::{self, CursorState};
use crate::telemetry::chain;
use crate::units::Size;

/// How long a sink may take to answer.
const SINK_TIME: Duration = Duration::from_secs(15);

/// Which configuration.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A key's value in place of the file's, in YAML: spool.bytes_max=20GiB (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = Override::of_option)]
    pub overrides: Vec<Override>,
}

impl ConfigArgs {
    /// Reads the file, variables and options.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn load(&self) -> Result<Config, Error> {
        let mut overrides = Override::from_environment();
        overrides.extend(self.overrides.iter().cloned());
        config::load(&self.config, &overrides).map_err(|problems| {
            let lines: Vec<String> =
                problems.iter().map(|problem| visible(&problem.to_string()).into_owned()).collect();
            let what = counted(problems.len() as u64, "problem");
            Error::Input(format!("{what} in the configuration:\n{}", lines.join("\n")))
        })
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubewitness check --config /etc/kubewitness/kubewitness.yaml
  kubewitness check --config /etc/kubewitness/kubewitness.yaml --install

Exit code 2: the configuration or the rules are wrong. 1: something else would fail.")]
pub struct CheckArgs {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Make at the far sides what sinks need there: Elasticsearch's template and policy
    #[arg(long)]
    pub install: bool,
}

/// What was found, a line each, in the order of the flow.
#[derive(Default)]
struct Findings {
    lines: Vec<String>,
    failed: usize,
}

impl Findings {
    fn ok(&mut self, what: &str, detail: impl AsRef<str>) {
        self.lines.push(format!("ok    {what}: {}", visible(detail.as_ref())));
    }

    fn done(&mut self, what: &str, detail: impl AsRef<str>) {
        self.lines.push(format!("done  {what}: {}", visible(detail.as_ref())));
    }

    fn fail(&mut self, what: &str, detail: impl AsRef<str>) {
        self.failed += 1;
        self.lines.push(format!("FAIL  {what}: {}", visible(detail.as_ref())));
    }

    fn note(&mut self, what: &str, detail: impl AsRef<str>) {
        self.lines.push(format!("note  {what}: {}", visible(detail.as_ref())));
    }
}

/// Looks at configuration, rules, sources, spool and sinks.
///
/// # Errors
/// A wrong configuration or wrong rules.
pub fn run(args: &CheckArgs) -> Result<Done, Error> {
    let config = args.config.load()?;
    let mut findings = Findings::default();
    findings.ok("configuration", format!("{} is sound", args.config.config.display()));
    let stateful = rules(&config, &mut findings)?;
    redaction(&config, &mut findings);
    look_at_spool(&config, &mut findings);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for source in &config.sources {
            look_at_source(source, &mut findings).await;
        }
        for sink in &config.sinks {
            look_at_sink(sink, args.install, &mut findings).await;
        }
    });
    receivers(&config, stateful, &mut findings);
    let mut out = std::io::stdout().lock();
    for line in &findings.lines {
        writeln!(out, "{line}")?;
    }
    match findings.failed {
        0 => Ok(Done::Fine),
        failed => {
            writeln!(out, "{} would fail", counted(failed as u64, "part"))?;
            Ok(Done::Failed)
        }
    }
}

/// Says how many rules there are; returns how many of them keep state.
fn rules(config: &Config, findings: &mut Findings) -> Result<usize, Error> {
    let wrong = |error: config::rules::Error| Error::Input(error.to_string());
    let loaded = config.rules.load(&[]).map_err(wrong)?;
    let rules = &loaded.rules.rules;
    let stateful = rules.iter().filter(|rule| matches!(rule.body, Body::Correlation(_))).count();
    let alerting = rules.iter().filter(|rule| rule.alerts).count();
    let from = match config.rules.paths.as_slice() {
        [] => "shipped".to_owned(),
        paths => counted(paths.len() as u64, "path"),
    };
    let text = format!("{alerting} raise alerts ({from}), {stateful} of them keep state");
    let left_out = loaded.left_out;
    let proxies: Vec<IpNet> = config.trusted_proxies.iter().map(|network| network.0).collect();
    config::rules::compile(loaded.rules, &proxies).map_err(wrong)?;
    findings.ok("rules", text);
    if left_out > 0 {
        let what = counted(left_out as u64, "rule");
        findings.note("rules", format!("{what} about other logs than Kubernetes audit left out"));
    }
    Ok(stateful)
}

fn redaction(config: &Config, findings: &mut Findings) {
    match (config.redaction.mode, &config.redaction.key_file) {
        (Mode::Off, _) => findings.note(
            "redaction",
            "off: secrets in events reach the spool and every sink that takes events",
        ),
        (Mode::Secrets, None) => {
            let what = "no key_file: equal secrets cannot be told from different ones";
            findings.note("redaction", what);
        }
        (Mode::Secrets, Some(_)) => findings.ok("redaction", "secrets, with fingerprints"),
    }
    if config.redaction.seal_to.is_none() {
        let what = "no seal_to: of input that cannot be parsed, a scrubbed beginning is kept";
        findings.note("dead letters", what);
    }
}

fn look_at_spool(config: &Config, findings: &mut Findings) {
    let dir = &config.spool.dir;
    if let Err(error) = writable(dir) {
        return findings.fail("spool", error);
    }
    match room(dir) {
        Some(free) if free < config.spool.bytes_max.0 => {
            let (free, max) = (free >> 20, config.spool.bytes_max);
            findings.note(
                "spool",
                format!("{free} MiB are free for bytes_max of {max}: the disk will be full first"),
            );
        }
        _ => {}
    }
    if !dir.join("segments").is_dir() {
        return findings.ok("spool", format!("{} will be made", dir.display()));
    }
    match spool::inspect(dir) {
        Err(error) => findings.fail("spool", chain(&error)),
        Ok(inspection) => {
            let bytes: u64 = inspection.segments.iter().map(|segment| segment.bytes).sum();
            let held = Size(bytes);
            findings.ok("spool", format!("{} holds {held}", dir.display()));
            for damage in &inspection.damages {
                let (file, reason) = (&damage.file, damage.reason.name());
                findings.note("spool", format!("{file} is damaged at {}: {reason}", damage.offset));
            }
            let known: Vec<&str> =
                config.sinks.iter().map(|sink| sink.common.name.as_str()).collect();
            for cursor in &inspection.cursors {
                if !known.contains(&cursor.name.as_str()) {
                    findings.note("spool", unconfigured(dir, cursor));
                }
            }
        }
    }
}

/// What a sink that was configured away does to the spool.
fn unconfigured(dir: &Path, cursor: &CursorState) -> String {
    let (name, left) = (&cursor.name, counted(cursor.lag.records, "record"));
    if cursor.lag.records == 0 {
        return format!("sink {name} is not configured any more; it got everything");
    }
    let dir = dir.display();
    format!(
        "sink {name} is not configured any more and was still to get {left}: they are kept, and once \
         they fill the spool nothing is taken in; configure it again, or give them up: kubewitness \
         spool forget --force {dir} {name}"
    )
}

/// Whether the directory, or the nearest one above it that is there, can be written.
fn writable(dir: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = absolute.ancestors().find(|above| above.symlink_metadata().is_ok());
    let there = there.ok_or_else(|| format!("{}: no such place", dir.display()))?;
    if !there.is_dir() {
        return Err(format!("{} is no directory", there.display()));
    }
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(|error| format!("{}: cannot be written: {error}", there.display()))
}

/// Bytes that the file system still takes.
fn room(dir: &Path) -> Option<u64> {
    let absolute = std::path::absolute(dir).ok()?;
    let there = absolute.ancestors().find(|above| above.is_dir())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

async fn look_at_source(source: &Source, findings: &mut Findings) {
    let what = format!("source {}", source.name());
    match source {
        Source::Log(config) => match log::preflight(config) {
            Ok(()) => findings.ok(&what, config.path.patterns().join(", ")),
            Err(error) => findings.fail(&what, chain(&error)),
        },
        Source::Webhook(config) => match webhook::check(config).await {
            Ok(()) => findings.ok(&what, format!("webhook on {}{}", config.listen, config.path)),
            Err(error) => findings.fail(&what, chain(&error)),
        },
        Source::Kafka(config) => match kafka::check(config).await {
            Ok(()) => findings.ok(&what, config.topics.join(", ")),
            Err(error) => findings.fail(&what, error.to_string()),
        },
    }
}

async fn look_at_sink(
    config: &crate::sinks::config::Config,
    is_installed: bool,
    findings: &mut Findings,
) {
    let what = format!("sink {}", config.common.name);
    let mut frame = match Frame::open(config) {
        Ok(frame) => frame,
        Err(error) => return findings.fail(&what, chain(&error)),
    };
    let late = format!("no answer within {} s", SINK_TIME.as_secs());
    if is_installed {
        match tokio::time::timeout(SINK_TIME, frame.install()).await {
            Ok(Ok(done)) => done.iter().for_each(|one| findings.done(&what, one)),
            Ok(Err(error)) => findings.fail(&what, format!("not installed: {}", chain(&error))),
            Err(_) => findings.fail(&what, &late),
        }
    }
    match tokio::time::timeout(SINK_TIME, frame.check()).await {
        Ok(Ok(())) => findings.ok(&what, format!("{} would accept", config.type_name())),
        Ok(Err(error)) => findings.fail(&what, chain(&error)),
        Err(_) => findings.fail(&what, &late),
    }
    if let Some(caveat) = config.caveat() {
        findings.note(&what, caveat);
    }
}

/// What one receiver a cluster means here.
fn receivers(config: &Config, stateful: usize, findings: &mut Findings) {
    if stateful == 0 {
        return;
    }
    let is_log = config.sources.iter().any(|source| source.type_name() == "log");
    if is_log {
        findings.note(
            "state",
            format!(
                "{stateful} rules count over time. A log is that of one API server: in a cluster \
                 with several, each instance counts only its own share. Send all of them to one \
                 webhook receiver, or run one instance a cluster over all logs"
            ),
        );
    } else {
        findings.note(
            "state",
            format!(
                "{stateful} rules count over time: let one instance receive all events of a \
                 cluster (StatefulSet of one); API servers retry for a minute and a half while it \
                 restarts, unless --audit-webhook-initial-backoff says less"
            ),
        );
    }
}
