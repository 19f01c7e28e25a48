//! `kubewitness verify`: an archive, or one event by its proof.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::archive::cosigners::{Cosigners, Http};
use crate::archive::keys::follow;
use crate::archive::note::{Verifier, text_of_bytes, text_of_hash};
use crate::archive::policy::Policy;
use crate::archive::proof::{Proof, verify_event};
use crate::archive::record::Record;
use crate::archive::store::Store;
use crate::archive::verify::{self, Class, Level, Options, Report, Step};
use crate::archive::{layout, location};
use crate::cli::{Done, Error, say};
use crate::clock;
use crate::event::time::format_us;
use crate::report::escape::visible;
use crate::telemetry::chain;

/// So long a witness has for its answer.
const WITNESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every byte is proven; 1 it could not be read; 2 wrong input; \
else the worst that was found: 10 ORPHAN, 11 SHADOWED, 12 GAP, 13 STALE, 14 UNLOCKED, 15 MISSING, \
16 ALTERED, 17 ROLLBACK, 18 BAD_SIGNATURE, 19 FORK. EXPIRED (gone after its retention) is no \
fault.\n\nExamples:
  kubewitness verify --key audit.pub s3://audit-archive/prod-eu1/cp-1
  kubewitness verify --level quick --max-age 10m --key audit.pub /mnt/archive
  kubewitness verify --key audit.pub --proof event.tlog-proof --event event.json"
)]
pub struct VerifyArgs {
    /// The archive: a directory, s3://…, gs://…, az://…
    #[arg(required_unless_present = "proof", value_name = "ARCHIVE")]
    pub archive: Option<String>,
    /// The log's public key, or a file that holds it; without it the archive's own is taken, which
    /// proves nothing against whoever could write the whole archive anew
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// quick: head and tiles; records: every record and its proof; full: every byte
    #[arg(long, value_enum, default_value = "full")]
    pub level: Level,
    /// Where the last good checkpoint is kept [default: below ~/.local/state/kubewitness]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Neither use nor keep the last good checkpoint
    #[arg(long, conflicts_with = "state")]
    pub no_state: bool,
    /// Checkpoints that another sink received: notes, or JSON lines that hold them (repeatable)
    #[arg(long, value_name = "FILE")]
    pub anchor: Vec<PathBuf>,
    /// Which witnesses must have cosigned the archive's head: a file of c2sp.org/tlog-policy
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Ask the policy's witnesses which head they cosigned last, and hold the archive to it
    #[arg(long, requires = "policy")]
    pub ask_witnesses: bool,
    /// The authorities that may vouch for the witnesses' servers, PEM [default: the system's]
    #[arg(long, value_name = "FILE", requires = "ask_witnesses")]
    pub witness_ca: Option<PathBuf>,
    /// STALE when the newest record is older than this (90s, 30m, 24h)
    #[arg(long, value_name = "SPAN", value_parser = span_us)]
    pub max_age: Option<i64>,
    /// Classes that are no fault here, such as orphan,gap
    #[arg(long, value_name = "CLASS", value_delimiter = ',', value_parser = class)]
    pub accept: Vec<Class>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Records looked at at a time
    #[arg(long, value_name = "N", default_value = "8",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub parallel: u16,
    /// Verify one event by its proof file, without any archive
    #[arg(
        long,
        value_name = "FILE",
        requires = "event",
        requires = "key",
        conflicts_with = "archive"
    )]
    pub proof: Option<PathBuf>,
    /// The event's bytes, as `prove` wrote them
    #[arg(long, value_name = "FILE", requires = "proof")]
    pub event: Option<PathBuf>,
}

fn span_us(text: &str) -> Result<i64, String> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    let number = digits.parse::<i64>().ok().filter(|number| *number >= 0 && unit > 0);
    number
        .and_then(|number| number.checked_mul(unit * 1_000_000))
        .ok_or_else(|| "not a span such as 90s, 30m, 24h, 7d".to_owned())
}

fn class(word: &str) -> Result<Class, String> {
    let name = word.to_ascii_uppercase().replace('-', "_");
    Class::ALL.into_iter().find(|class| class.name() == name).ok_or_else(|| {
        let known: Vec<_> = Class::ALL.iter().map(|class| class.name()).collect();
        format!("not one of {}", known.join(", "))
    })
}

/// Runs asynchronous work to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// A public key from its text or from a file.
pub(crate) fn read_key(text: &str) -> Result<Verifier, Error> {
    let from_file = || fs::read_to_string(text).map_err(|error| format!("{text}: {error}"));
    let text = if text.contains('+') { Ok(text.to_owned()) } else { from_file() };
    let key = text.and_then(|text| Verifier::parse(&text).map_err(|error| error.to_string()));
    key.map_err(Error::Input)
}

/// Opens an archive for reading; a directory must be there.
pub(crate) fn open(location: &str) -> Result<Arc<dyn Store>, Error> {
    let path = location.strip_prefix("file://").unwrap_or(location);
    if !path.contains("://") && !Path::new(path).is_dir() {
        return Err(Error::Input(format!("{path} is not a directory")));
    }
    location::open(location).map_err(|error| Error::Input(chain(&error)))
}

/// The key that was given, or the one that the archive's first record names.
pub(crate) async fn key_of(
    given: Option<&str>,
    store: &dyn Store,
    location: &str,
) -> Result<Verifier, Error> {
    let key = match given {
        Some(given) => read_key(given)?,
        None => own_key(store, location).await?,
    };
    follow(store, key).await.map_err(|error| Error::Failed(chain(&error)))
}

/// The key that the archive's first record names.
async fn own_key(store: &dyn Store, location: &str) -> Result<Verifier, Error> {
    let first = layout::commit_key(0);
    let bytes = store.read(&first, 1 << 20).await;
    let bytes = bytes.map_err(|error| Error::Failed(chain(&error)))?;
    let Some(bytes) = bytes else {
        let text = format!("{location} holds no archive ({first} is not there)");
        return Err(Error::Input(text));
    };
    let record = Proof::decode(&bytes).ok().and_then(|proof| Record::decode(&proof.extra));
    let key = record.as_ref().and_then(|record| record.says.get("key"));
    let key = key.and_then(|key| Verifier::parse(key).ok()).ok_or_else(|| {
        Error::Input(format!("{first} names no key; give the log's public key with --key"))
    })?;
    say(&format!("no --key: taking {key} from the archive itself"));
    Ok(key)
}

/// Verifies.
///
/// # Errors
/// Wrong input; an archive that cannot be read.
pub fn run(args: &VerifyArgs) -> Result<Done, Error> {
    if let (Some(proof), Some(event)) = (&args.proof, &args.event) {
        return offline(proof, event, args.key.as_deref().unwrap_or_default());
    }
    let location = args.archive.as_deref().unwrap_or_default();
    let store = open(location)?;
    block_on(async {
        let key = key_of(args.key.as_deref(), &*store, location).await?;
        archive(args, store, key).await
    })
}

async fn archive(args: &VerifyArgs, store: Arc<dyn Store>, key: Verifier) -> Result<Done, Error> {
    let state = if args.no_state { None } else { args.state.clone().or_else(|| state_of(&key)) };
    let mut known = Vec::new();
    if let Some(path) = state.as_deref().filter(|path| path.exists()) {
        known.push(("the last good checkpoint".to_owned(), read(path)?));
    }
    for path in &args.anchor {
        known.extend(anchors(path)?);
    }
    let policy = args.policy.as_deref().map(policy).transpose()?;
    if let Some(policy) = policy.as_ref().filter(|_| args.ask_witnesses) {
        known.extend(heads(policy, key.name(), args.witness_ca.as_deref()).await?);
    }
    let options = Options {
        key,
        level: args.level,
        known,
        now_us: clock::now_us(),
        age_us_max: args.max_age,
        policy,
        parallel: usize::from(args.parallel),
    };
    let bar = bar();
    let show = |step: Step| {
        bar.set_length(step.records_total);
        bar.set_position(step.records);
        bar.set_message(step.lines.to_string());
    };
    let report = verify::verify(store, &options, &show).await;
    bar.finish_and_clear();
    let report = report.map_err(|error| Error::Failed(chain(&error)))?;
    let worst = report.worst(&args.accept);
    print(&report, worst, args.json)?;
    if let Some(path) = state.filter(|_| is_trusted(&report)) {
        keep(&path, &report.note)?;
    }
    Ok(worst.map_or(Done::Fine, |class| Done::Verdict(class.exit_code())))
}

/// Whether the head that was seen is one to hold the archive to from now on.
fn is_trusted(report: &Report) -> bool {
    let bad = [Class::Fork, Class::Rollback, Class::BadSignature];
    !report.note.is_empty() && !bad.iter().any(|class| report.counts.contains_key(class))
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {pos}/{len} records, {msg} lines proven  {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    ProgressBar::new(0).with_style(style)
}

fn state_of(key: &Verifier) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(PathBuf::from(set("HOME")?).join(".local/state"));
    let base = set("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    let hash = crate::archive::tree::leaf_hash(key.first().to_string().as_bytes());
    Some(base.join(format!("kubewitness/verify/{}.checkpoint", text_of_bytes(&hash[..8]))))
}

fn policy(path: &Path) -> Result<Policy, Error> {
    let wrong = |error| Error::Input(format!("{}: {error}", path.display()));
    Policy::parse(&read(path)?).map_err(wrong)
}

/// The heads that witnesses cosigned last.
async fn heads(
    policy: &Policy,
    origin: &str,
    ca_file: Option<&Path>,
) -> Result<Vec<(String, String)>, Error> {
    let http = Http::new(WITNESS_TIMEOUT, ca_file).map_err(Error::Input)?;
    let cosigners = Cosigners::new(policy.clone(), false, Arc::new(http));
    let heads = cosigners.heads(origin).await;
    for listed in policy.witnesses().iter().filter(|it| it.url.is_some()) {
        if !heads.iter().any(|(name, _)| *name == listed.name) {
            say(&format!("the witness {} tells no head", visible(&listed.name)));
        }
    }
    Ok(heads.into_iter().map(|(name, note)| (format!("the witness {name}"), note)).collect())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| Error::Input(format!("{}: {error}", path.display())))
}

fn keep(path: &Path, note: &str) -> Result<(), Error> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
        file.write_all(note.as_bytes())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    });
    written.map_err(|error| {
        Error::Failed(format!("cannot keep the checkpoint in {}: {error}", path.display()))
    })
}

/// Checkpoints in a file: the file itself, or every text in its JSON lines that is signed.
fn anchors(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let text = read(path)?;
    let name = |line: usize| format!("{}:{line}", path.display());
    if !text.starts_with('{') {
        return Ok(vec![(name(1), text)]);
    }
    let mut notes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| Error::Input(format!("{}: {error}", name(index + 1))))?;
        let mut open = vec![&value];
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) if text.contains("\n\n\u{2014} ") => {
                    notes.push((name(index + 1), text.clone()));
                }
                Value::Array(values) => open.extend(values),
                Value::Object(fields) => open.extend(fields.values()),
                _ => {}
            }
        }
    }
    if notes.is_empty() {
        return Err(Error::Input(format!("{} holds no checkpoint", path.display())));
    }
    Ok(notes)
}

fn print(report: &Report, worst: Option<Class>, is_json: bool) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let result = worst.map_or("OK", Class::name);
    if is_json {
        let counts =
            report.counts.iter().map(|(class, count)| (class.name().into(), (*count).into()));
        let findings = report.findings.iter().map(|finding| {
            json!({"class": finding.class.name(), "key": finding.key, "text": finding.text})
        });
        let head = report.head.as_ref().map(|head| {
            json!({"origin": head.origin, "size": head.size, "root": text_of_hash(&head.root)})
        });
        let object = json!({
            "result": result, "head": head, "records": report.records, "lines": report.lines,
            "bytes": report.bytes,
            "witnessed": report.witnessed.map(|(size, at)| json!({"size": size, "time": at})),
            "counts": Value::Object(counts.collect()),
            "findings": findings.collect::<Vec<_>>(),
        });
        return Ok(writeln!(out, "{object}")?);
    }
    for finding in &report.findings {
        writeln!(out, "{}", visible(&finding.to_string()))?;
    }
    let left = report.counts.values().sum::<u64>() - report.findings.len() as u64;
    if left > 0 {
        writeln!(out, "… and {left} more")?;
    }
    let head = report.head.as_ref();
    let head =
        head.map_or("no head".to_owned(), |head| format!("{} at {}", head.origin, head.size));
    writeln!(
        out,
        "{result}: {}; {} records, {} lines, {} bytes proven",
        visible(&head),
        report.records,
        report.lines,
        report.bytes
    )?;
    if let Some((size, seconds)) = report.witnessed {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let time = format_us(seconds.saturating_mul(1_000_000));
        writeln!(out, "cosigned as the policy asks: {size} records at {time}")?;
    }
    Ok(())
}

fn offline(proof: &Path, event: &Path, key: &str) -> Result<Done, Error> {
    let key = read_key(key)?;
    let bytes = |path: &Path| {
        fs::read(path).map_err(|error| Error::Input(format!("{}: {error}", path.display())))
    };
    let (file, event) = (bytes(proof)?, bytes(event)?);
    let proven = Proof::decode(&file).and_then(|proof| {
        let line = event.strip_suffix(b"\n").unwrap_or(&event);
        verify_event(&proof, line, &key)
    });
    let mut out = std::io::stdout().lock();
    let (record, place, head) = match proven {
        Ok(proven) => proven,
        Err(error) => {
            writeln!(out, "NOT PROVEN: {error}")?;
            let class = match error {
                crate::archive::proof::Error::Note(_) => Class::BadSignature,
                _ => Class::Altered,
            };
            return Ok(Done::Verdict(class.exit_code()));
        }
    };
    let (seq, event, size) = (record.seq, place.event, head.size);
    writeln!(
        out,
        "OK: line {event} of record {seq}, sealed {}, in the log {} of {size} records",
        visible(&record.sealed_at),
        visible(&head.origin)
    )?;
    Ok(Done::Fine)
}
