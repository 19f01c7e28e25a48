//! `kubewitness replay`: audit logs in, alerts out.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal as _, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;

use crate::alert::Alert;
use crate::alert::raise::Raiser;
use crate::alert::throttle::Throttle;
use crate::cli::archive::replay::{find as archived, is_archive};
use crate::cli::load::RuleArgs;
use crate::cli::{Done, Error, say};
use crate::clock::Stopwatch;
use crate::engine::Engine;
use crate::ingest::InputFormat;
use crate::ingest::discover::{Discovery, LogFile, discover};
use crate::ingest::webhook::config::is_cluster;
use crate::replay::heads::HeadPlace;
use crate::replay::{self, Bound, Options, learn};
use crate::report::progress::Progress;
use crate::report::summary::{self, Summary};
use crate::report::tally::Tally;
use crate::report::terminal::Terminal;
use crate::report::{Format, Reporter};
use crate::rule::Level;
use crate::telemetry::chain;

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubewitness replay /var/log/kubernetes/audit
  kubewitness replay --format jsonl audit.log audit-*.log.gz webhook/ > alerts.jsonl
  kubewitness replay --format html -o report.html --since 24h logs/
  kubewitness replay --since 24h --key archive.pub s3://audit-archive/prod-1
  zcat export.gz | kubewitness replay --input-format eks --fail-on high -")]
pub struct ReplayArgs {
    /// Files, directories (searched recursively), globs, `-` for standard input, or archives
    /// (s3://…, gs://…, az://…, file://…)
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Which rules
    #[command(flatten)]
    pub rules: RuleArgs,
    /// What to print and where
    #[command(flatten)]
    pub output: OutputArgs,
    /// How the input is written; each file tells by itself when absent
    #[arg(long, value_enum, default_value = "auto")]
    pub input_format: InputFormat,
    /// Analyse events from this time on: RFC 3339, or a span before the newest event (24h, 30m, 7d)
    #[arg(long, value_name = "T", value_parser = parse_bound)]
    pub since: Option<Bound>,
    /// Analyse events before this time: RFC 3339, or a span before the newest event
    #[arg(long, value_name = "T", value_parser = parse_bound)]
    pub until: Option<Bound>,
    /// The cluster's name in alerts; without it, what the envelopes say
    #[arg(long, value_name = "NAME", value_parser = parse_cluster)]
    pub cluster: Option<String>,
    /// Networks whose X-Forwarded-For entries are believed (repeatable)
    #[arg(long = "trusted-proxy", value_name = "CIDR")]
    pub trusted_proxies: Vec<IpNet>,
    /// Take over what first-seen rules learnt from FILE, and write back what they learn now
    #[arg(long, value_name = "FILE")]
    pub learn: Option<PathBuf>,
    /// The public key of the archives among the paths, or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Worker threads; all cores when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// What a command that replays prints, and where.
#[derive(Debug, Default, Clone, Args)]
pub struct OutputArgs {
    /// table (on a terminal), jsonl, json, csv, html, or none
    #[arg(long, value_parser = parse_format)]
    pub format: Option<Format>,
    /// Write the alerts to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show alerts of this level and above
    #[arg(long, value_parser = parse_level, default_value = "informational")]
    pub level: Option<Level>,
    /// Exit with 3 when an alert of this level or above was raised
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub fail_on: Option<Level>,
    /// Show repeats of an alert (same rule, actor and object) once an hour
    #[arg(long)]
    pub throttle: bool,
    /// Write the run's figures as JSON to FILE; `-` is standard error
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

impl OutputArgs {
    /// The file that alerts go to; `-` is standard output.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }
}

fn parse_format(word: &str) -> Result<Format, String> {
    Format::parse(word).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.iter().map(|format| format.as_str()).collect();
        format!("not one of {}", known.join(", "))
    })
}

fn parse_level(word: &str) -> Result<Level, String> {
    Level::parse(word).ok_or_else(|| {
        let known: Vec<_> = Level::ALL.iter().map(|level| level.as_str()).collect();
        format!("not one of {}", known.join(", "))
    })
}

/// A cluster's name as the receiver's paths take it, so that alerts of both are about the same one.
fn parse_cluster(name: &str) -> Result<String, String> {
    if is_cluster(name) {
        return Ok(name.to_owned());
    }
    Err("1 to 63 of a-z, 0-9, '.' and '-', the first a letter or digit".to_owned())
}

/// A time in RFC 3339, or a span such as `24h`.
fn parse_bound(text: &str) -> Result<Bound, String> {
    if let Some(time) = crate::event::time::parse_us(text.as_bytes()) {
        return Ok(Bound::At(time));
    }
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit: i64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => 0,
    };
    let number: Option<i64> = digits.parse().ok().filter(|number| *number >= 0);
    number
        .filter(|_| unit > 0)
        .and_then(|number| number.checked_mul(unit * 1_000_000))
        .map(Bound::BeforeNewest)
        .ok_or_else(|| {
            "neither RFC 3339 (2026-11-22T00:00:00Z) nor a span (90s, 30m, 24h, 7d)".to_owned()
        })
}

/// Replays.
///
/// # Errors
/// Wrong input or rules, a destination that cannot be written.
pub fn run(args: &ReplayArgs) -> Result<Done, Error> {
    let is_stdin = args.paths.iter().any(|path| path == Path::new("-"));
    let has_span =
        [args.since, args.until].iter().any(|bound| matches!(bound, Some(Bound::BeforeNewest(_))));
    if is_stdin && has_span {
        let remedy = "the newest event of a stream is not known before its end; give RFC 3339";
        return Err(Error::Input(format!("a span with standard input: {remedy}")));
    }
    let is_empty = match (args.since, args.until) {
        (Some(Bound::At(since)), Some(Bound::At(until))) => since >= until,
        (Some(Bound::BeforeNewest(since)), Some(Bound::BeforeNewest(until))) => since <= until,
        _ => false,
    };
    if is_empty {
        return Err(Error::Input("--since is not before --until: no event can be between".into()));
    }
    let engine = args.rules.compile(&args.trusted_proxies)?;
    let stdin = || Box::new(std::io::stdin()) as Box<dyn Read + Send>;
    let is_archived = |path: &&PathBuf| path.to_str().is_some_and(is_archive);
    let (archives, paths): (Vec<_>, Vec<_>) = args.paths.iter().partition(is_archived);
    if archives.len() > 1 || !archives.is_empty() && !paths.is_empty() {
        return Err(Error::Input("an archive is replayed alone".into()));
    }
    let mut options = Options {
        threads: args.threads.map_or_else(cores, usize::from),
        cluster: args.cluster.clone(),
        since: args.since,
        until: args.until,
        ..Options::default()
    };
    if let Some(location) = archives.first().and_then(|path| path.to_str()) {
        let found = archived(location, args.key.as_deref(), args.since, args.until)?;
        options = Options { since: found.since, until: found.until, ..options };
        options.cluster = options.cluster.or(found.cluster);
        let discovery = Discovery { files: found.files, ..Discovery::default() };
        return replay(&engine, discovery, options, args.learn.as_deref(), &args.output);
    }
    let discovery = discover(&args.paths, args.input_format, stdin)
        .map_err(|error| Error::Input(chain(&error)))?;
    replay(&engine, discovery, options, args.learn.as_deref(), &args.output)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Replays what was found and reports.
///
/// # Errors
/// As [`run`].
pub fn replay(
    engine: &Arc<Engine>,
    discovery: Discovery,
    options: Options,
    learn: Option<&Path>,
    output: &OutputArgs,
) -> Result<Done, Error> {
    let clock = Stopwatch::start();
    let options = Options { seed: seed(), ..options };
    let mut raiser = Raiser::new(Arc::clone(engine), options.limits);
    if let Some(path) = learn {
        load_baselines(path, engine, &mut raiser)?;
    }
    let written = [output.file(), output.stats.as_deref(), learn];
    spare_inputs(&discovery.files, &written)?;
    check_writable(learn, output.stats.as_deref())?;
    let is_sized = discovery.files.iter().all(|file| file.size > 0);
    let total: u64 = discovery.files.iter().map(|file| file.size).sum();
    let progress = Progress::start(is_sized.then_some(total));
    let Discovery { files, skipped, skipped_paths, unreadable } = discovery;
    for (path, reason) in &unreadable {
        say(&format!("{}: {reason}", path.display()));
    }
    let mut destination = Destination::open(output)?;
    let terminal = destination.terminal();
    let format = output.format.unwrap_or(Format::Table);
    let mut sink = Sink::new(output);
    let mut reporter = Reporter::new(format, terminal, destination.writer())?;
    let ran = replay::run(engine, files, &options, &mut raiser, &progress, &mut |alert| {
        sink.take(&alert, &mut reporter)
    });
    progress.finish();
    let mut summary = ran.map_err(|error| match error {
        replay::Error::Write(error) if error.kind() == ErrorKind::BrokenPipe => Error::Unread,
        error => Error::Failed(chain(&error)),
    })?;
    skipped_paths.iter().for_each(|path| summary.skip_file(&path.display().to_string()));
    summary.files_skipped = skipped;
    summary.files_unreadable = unreadable.len() as u64;
    summary.count_alerts(&sink.tally);
    summary.alerts_shown = sink.shown;
    summary.elapsed_seconds = clock.elapsed().as_secs_f64();
    reporter.finish(&summary)?;
    destination.close()?;
    if let Some(path) = learn {
        learn::save(path, engine, &mut raiser)
            .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    }
    finish(&summary, output, format, &sink)?;
    let is_alarm = output.fail_on.is_some_and(|level| sink.worst >= Some(level));
    Ok(if is_alarm { Done::Alarm } else { Done::Fine })
}

/// Evidence is not written over: what is read must be none of what is written.
fn spare_inputs(inputs: &[LogFile], written: &[Option<&Path>]) -> Result<(), Error> {
    let identity = |path: &Path| {
        let known = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some((known.dev(), known.ino()))
    };
    let inputs: Vec<_> = inputs.iter().filter_map(|file| identity(&file.path)).collect();
    for path in written.iter().copied().flatten() {
        if identity(path).is_some_and(|known| inputs.contains(&known)) {
            let path = path.display();
            return Err(Error::Input(format!("{path}: is read and cannot be written, too")));
        }
    }
    Ok(())
}

/// Files that are written at the end: a wrong path is said before hours of work.
fn check_writable(learn: Option<&Path>, stats: Option<&Path>) -> Result<(), Error> {
    let stats = stats.filter(|path| *path != Path::new("-"));
    for path in [learn, stats].into_iter().flatten() {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let tried = if path.is_dir() {
            Err(std::io::Error::from(std::io::ErrorKind::IsADirectory))
        } else {
            tempfile::tempfile_in(directory.unwrap_or(Path::new("."))).map(drop)
        };
        tried.map_err(|error| {
            Error::Input(format!("{}: cannot be written: {error}", path.display()))
        })?;
    }
    Ok(())
}

fn load_baselines(
    path: &Path,
    engine: &Engine,
    raiser: &mut Raiser<HeadPlace>,
) -> Result<(), Error> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::Input(format!("{}: is no regular file", path.display())));
    }
    let changed = learn::load(path, engine, raiser).map_err(|error| {
        let remedy = "delete it to learn anew";
        Error::Input(format!("{}: no baselines: {error}; {remedy}", path.display()))
    })?;
    if changed > 0 {
        say(&format!(
            "{changed} first-seen rules changed since {} was learnt and start afresh",
            path.display()
        ));
    }
    Ok(())
}

/// The summary for people, where the format does not hold it, and the figures for machines.
fn finish(
    summary: &Summary,
    output: &OutputArgs,
    format: Format,
    sink: &Sink,
) -> Result<(), Error> {
    let stderr = std::io::stderr();
    if sink.throttle.as_ref().is_some_and(|throttle| throttle.hidden() > 0) {
        let hidden = sink.throttle.as_ref().map_or(0, Throttle::hidden);
        say(&format!("{hidden} repeats hidden by --throttle"));
    }
    if summary.events == 0 && summary.bytes_read > 0 {
        say("no audit event was found in what was read: no alert says nothing here");
    }
    if output.stats.as_deref() != Some(Path::new("-")) {
        let has_line = format == Format::Table && output.file().is_none();
        let is_person = stderr.is_terminal() || format == Format::None;
        // What was not analysed is said wherever the alerts go.
        let write = if is_person && !has_line { summary::write } else { summary::write_losses };
        // Whoever closed standard error does not want to know.
        let _ = write(&mut stderr.lock(), summary, Terminal::of(&stderr));
    }
    match output.stats.as_deref() {
        None => Ok(()),
        Some(path) if path == Path::new("-") => {
            let _ = summary.write_json(&mut stderr.lock());
            Ok(())
        }
        Some(path) => {
            let mut file = create(path)?;
            Ok(summary.write_json(&mut file)?)
        }
    }
}

/// Filters and counts alerts on their way to the reporter.
struct Sink {
    level: Level,
    throttle: Option<Throttle>,
    tally: Tally,
    worst: Option<Level>,
    shown: u64,
}

impl Sink {
    fn new(output: &OutputArgs) -> Sink {
        Sink {
            level: output.level.unwrap_or(Level::Informational),
            throttle: output.throttle.then(Throttle::default),
            tally: Tally::new(),
            worst: None,
            shown: 0,
        }
    }

    fn take(&mut self, alert: &Alert, reporter: &mut Reporter<'_>) -> std::io::Result<()> {
        self.worst = self.worst.max(Some(alert.rule.level));
        self.tally.add(alert);
        let is_shown = alert.rule.level >= self.level
            && self.throttle.as_mut().is_none_or(|throttle| throttle.shows(alert));
        self.shown += u64::from(is_shown);
        if is_shown { reporter.write(alert) } else { Ok(()) }
    }
}

/// Where alerts are written.
enum Destination {
    Stdout(BufWriter<std::io::Stdout>),
    File(BufWriter<File>),
}

impl Destination {
    fn open(output: &OutputArgs) -> Result<Destination, Error> {
        Ok(match output.file() {
            Some(path) => Destination::File(BufWriter::new(create(path)?)),
            None => Destination::Stdout(BufWriter::new(std::io::stdout())),
        })
    }

    fn terminal(&self) -> Terminal {
        match self {
            Destination::Stdout(_) => Terminal::of(&std::io::stdout()),
            Destination::File(_) => Terminal::PLAIN,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Destination::Stdout(out) => out,
            Destination::File(out) => out,
        }
    }

    fn close(mut self) -> Result<(), Error> {
        Ok(self.writer().flush()?)
    }
}

fn create(path: &Path) -> Result<File, Error> {
    File::create(path)
        .map_err(|error| Error::Input(format!("{}: cannot be written: {error}", path.display())))
}

/// A number nobody can guess: the keys of the standard library's hash maps come from the system's
/// random source.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_spans() {
        for (text, bound) in [
            ("24h", Some(Bound::BeforeNewest(86_400_000_000))),
            ("0s", Some(Bound::BeforeNewest(0))),
            ("1970-01-01T00:00:01Z", Some(Bound::At(1_000_000))),
            ("24", None),
            ("-1h", None),
            ("99999999999999w", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_bound(text).ok(), bound, "{text}");
        }
    }
}
