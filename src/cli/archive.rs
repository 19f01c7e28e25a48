//! `kubewitness archive`: keys, and an archive's contents for people.

mod keys;
pub(crate) mod replay;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use regex::bytes::Regex;
use serde::Deserialize;

use crate::archive::config::{self, Config, LockBy};
use crate::archive::location;
use crate::archive::note::Verifier;
use crate::archive::preflight::{self, Wanted, Worm};
use crate::archive::prove::{read_line, read_segment};
use crate::archive::record::{Kind, Record};
use crate::archive::records::records;
use crate::archive::recover::{find_size, read_commit};
use crate::archive::regime::Regime;
use crate::archive::seal::Item;
use crate::archive::segment::{Line, read_lines};
use crate::archive::store::Store;
use crate::archive::writer::Writer;
use crate::cli::verify::{block_on, key_of, open};
use crate::cli::{Done, Error, print};
use crate::clock;
use crate::event::time::parse_us;
use crate::ingest::compress;
use crate::report::escape::visible;
use crate::telemetry::chain;

/// Bytes of lines in one append.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Subcommands of `archive`.
#[derive(Debug, Subcommand)]
pub enum Archive {
    /// Make a key: the secret half to a file, the public half to standard output
    Keygen(keys::KeygenArgs),
    /// Sign with another key from here on; the writer must be stopped
    Rotate(keys::RotateArgs),
    /// End a log: nothing can be appended to it any more; the writer must be stopped
    Close(keys::CloseArgs),
    /// Append old audit logs (plain JSON lines) to an archive, as they are: nothing is redacted
    Append(AppendArgs),
    /// Say whether a store locks what it is given
    Check(CheckArgs),
    /// List an archive's records
    Ls(ReadArgs),
    /// Print the lines of a record, as they came
    Get(GetArgs),
    /// Print the lines that match a regular expression
    Grep(GrepArgs),
}

/// Which archive to write, and as whom.
#[derive(Debug, Args)]
pub struct WriterArgs {
    /// The archive
    pub archive: String,
    /// The log's key, as `keygen` wrote it
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Where the writer keeps what it signed; one for each log, never shared
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// What the store must do so that nothing can be deleted [default: off for a directory,
    /// compliance for a bucket]
    #[arg(long, value_enum)]
    pub worm: Option<Worm>,
    /// Whose locks count: the bucket's own, or one with every object (S3)
    #[arg(long, value_enum, default_value = "bucket")]
    pub lock: LockBy,
}

impl WriterArgs {
    async fn open(&self, retention_days: Option<u32>) -> Result<Writer, Error> {
        let is_bucket = self.archive.contains("://") && !self.archive.starts_with("file:");
        let config = Config {
            url: self.archive.clone(),
            key_file: self.key_file.clone(),
            state_dir: self.state_dir.clone(),
            worm: self.worm.unwrap_or(if is_bucket { Worm::Compliance } else { Worm::Off }),
            lock: self.lock,
            regime: None,
            retention_days,
            publish_seconds: u32::MAX,
            checkpoint: true,
            alive_seconds: 60,
            recheck_seconds: 3_600,
            witness: None,
        };
        config.open(clock::now_us()).await.map_err(|error| match error {
            config::Error::Writer(_) | config::Error::Log(_) => failed(error),
            other => Error::Input(chain(&other)),
        })
    }
}

/// Arguments of `archive append`.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// The archive
    #[command(flatten)]
    pub writer: WriterArgs,
    /// Files of JSON lines, an event each; not compressed, in no envelope
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// For how many days the store must keep it
    #[arg(long, value_name = "N")]
    pub retention_days: Option<u32>,
    /// The cluster that the events are of
    #[arg(long, default_value = "")]
    pub cluster: String,
    /// Lines in one record
    #[arg(long, value_name = "N", default_value = "100000",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub lines_max: u64,
}

/// Arguments of `archive check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The archive
    pub archive: String,
    /// What the store must do
    #[arg(long, value_enum, default_value = "compliance")]
    pub worm: Worm,
    /// For how many days
    #[arg(long, value_name = "N")]
    pub retention_days: Option<u32>,
    /// For as long as a regime wants it
    #[arg(long, value_enum)]
    pub regime: Option<Regime>,
    /// Whose locks count: the bucket's own, or one with every object (S3)
    #[arg(long, value_enum, default_value = "bucket")]
    pub lock: LockBy,
}

/// Which archive to read.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The archive
    pub archive: String,
    /// The log's public key, or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// Arguments of `archive get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The archive
    #[command(flatten)]
    pub read: ReadArgs,
    /// The record
    pub record: u64,
    /// One line of it, from 0; all when absent
    pub line: Option<u64>,
}

/// Arguments of `archive grep`.
#[derive(Debug, Args)]
pub struct GrepArgs {
    /// What to look for in the lines as they came
    pub pattern: Regex,
    /// The archive
    #[command(flatten)]
    pub read: ReadArgs,
    /// Only segments with events from this time on (RFC 3339)
    #[arg(long, value_parser = time)]
    pub since: Option<i64>,
    /// Only segments with events before this time (RFC 3339)
    #[arg(long, value_parser = time)]
    pub until: Option<i64>,
    /// Print record and line before each line
    #[arg(short = 'n', long)]
    pub number: bool,
}

fn time(text: &str) -> Result<i64, String> {
    parse_us(text.as_bytes()).ok_or_else(|| "not RFC 3339 (2026-11-22T00:00:00Z)".to_owned())
}

fn failed(error: impl std::error::Error) -> Error {
    Error::Failed(chain(&error))
}

/// Runs a subcommand.
///
/// # Errors
/// Wrong input; a store that cannot be used.
pub fn run(command: Archive) -> Result<Done, Error> {
    match command {
        Archive::Keygen(args) => block_on(keys::keygen(&args)),
        Archive::Rotate(args) => block_on(keys::rotate(&args)),
        Archive::Close(args) => block_on(keys::close(&args)),
        Archive::Append(args) => block_on(append(&args)),
        Archive::Check(args) => block_on(check(&args)),
        Archive::Ls(args) => block_on(ls(&args)),
        Archive::Get(args) => block_on(get(&args)),
        Archive::Grep(args) => block_on(grep(&args)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timed<'l> {
    #[serde(borrow)]
    stage_timestamp: Option<&'l str>,
    #[serde(borrow)]
    request_received_timestamp: Option<&'l str>,
}

fn time_of(line: &[u8], before: i64) -> i64 {
    let timed: Option<Timed<'_>> = serde_json::from_slice(line).ok();
    let text = timed.and_then(|timed| timed.stage_timestamp.or(timed.request_received_timestamp));
    text.and_then(|text| parse_us(text.as_bytes())).unwrap_or(before)
}

/// What is written can perhaps never be taken back, so this is looked at before.
fn check_plain(path: &Path) -> Result<(), Error> {
    let at = |error: std::io::Error| Error::Input(format!("{}: {error}", path.display()));
    let mut start = Vec::new();
    fs::File::open(path).map_err(at)?.take(4).read_to_end(&mut start).map_err(at)?;
    match compress::is_compressed(&start) {
        true => {
            Err(Error::Input(format!("{}: is compressed: decompress it first", path.display())))
        }
        false => Ok(()),
    }
}

async fn append(args: &AppendArgs) -> Result<Done, Error> {
    args.files.iter().try_for_each(|path| check_plain(path))?;
    let mut writer = args.writer.open(args.retention_days).await?;
    let (mut lines, mut bytes, mut total) = (Vec::new(), 0, 0u64);
    for path in &args.files {
        let at = |error: std::io::Error| Error::Input(format!("{}: {error}", path.display()));
        let mut reader = BufReader::new(fs::File::open(path).map_err(at)?);
        for number in 1u64.. {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line).map_err(at)? == 0 {
                break;
            }
            line.pop_if(|last| *last == b'\n');
            bytes += line.len();
            total += 1;
            lines.push((line, format!("{}:{number}", label(path))));
            if bytes >= BATCH_BYTES_MAX || lines.len() as u64 >= args.lines_max {
                write(&mut writer, &args.cluster, &lines).await?;
                lines.clear();
                bytes = 0;
            }
        }
    }
    write(&mut writer, &args.cluster, &lines).await?;
    writer.publish(clock::now_us()).await.map_err(failed)?;
    print(&format!("{total} lines appended, {} records in all", writer.size()))?;
    Ok(Done::Fine)
}

fn label(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

async fn check(args: &CheckArgs) -> Result<Done, Error> {
    let store = location::open(&args.archive).map_err(|error| Error::Input(chain(&error)))?;
    let wanted = Wanted {
        worm: args.worm,
        days: args.regime.map(Regime::days).max(args.retention_days),
        is_by_object: args.lock == LockBy::Object,
        has_pointer: false,
    };
    let found = preflight::check(&*store, wanted).await;
    let found = found.map_err(|error| Error::Input(chain(&error)))?;
    let archive = &args.archive;
    let line = match found.days {
        _ if args.worm == Worm::Off => format!("{archive}: nothing is locked, as asked for"),
        _ if found.is_presumed => format!("{archive}: its first record will show for how long"),
        Some(days) => format!("{archive}: objects are kept for {days} days"),
        None => format!("{archive}: objects can be locked, for as long as the writer says"),
    };
    print(&line)?;
    Ok(Done::Fine)
}

async fn write(
    writer: &mut Writer,
    cluster: &str,
    lines: &[(Vec<u8>, String)],
) -> Result<(), Error> {
    let (now_us, through) = (clock::now_us(), writer.through());
    let mut time_us = 0;
    let items = (through + 1..).zip(lines).map(|(seq, (raw, position))| {
        time_us = time_of(raw, time_us);
        let (source, flags, received_us) = ("append", 0, now_us);
        let line = Line { raw, seq, time_us, received_us, flags, source, position };
        Item { kind: Kind::Events, cluster, line }
    });
    let items: Vec<Item<'_>> = items.collect();
    let last = through + items.len() as u64;
    writer.append(&items, last, now_us).await.map(drop).map_err(failed)
}

/// Whether a record's events may be of this time; microseconds since the epoch.
pub(crate) fn is_within(record: &Record, since: Option<i64>, until: Option<i64>) -> bool {
    let segment = record.segment.as_ref();
    let at = |text: &String| parse_us(text.as_bytes());
    let (from, to) = (segment.and_then(|it| at(&it.t_min)), segment.and_then(|it| at(&it.t_max)));
    since.is_none_or(|since| to.is_none_or(|to| to >= since))
        && until.is_none_or(|until| from.is_none_or(|from| from < until))
}

/// Opens an archive for reading.
async fn opened(args: &ReadArgs) -> Result<(Arc<dyn Store>, Verifier), Error> {
    let store = open(&args.archive)?;
    let key = key_of(args.key.as_deref(), &*store, &args.archive).await?;
    Ok((store, key))
}

/// Hands every line of the wanted records to `visit`, in the log's order. Commits are proven;
/// objects are not: that is what `verify` is for.
pub(crate) async fn scan(
    store: &Arc<dyn Store>,
    key: &Verifier,
    kind: Option<Kind>,
    is_wanted: impl Fn(&Record) -> bool,
    mut visit: impl FnMut(&Record, u64, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let size = find_size(&**store).await.map_err(failed)?;
    let mut records = pin!(records(&**store, key, 0..size));
    while let Some(record) = records.next().await {
        let record = record.map_err(failed)?;
        let is_kind = kind.is_none_or(|kind| kind == record.kind);
        let Some(segment) = record.segment.clone().filter(|_| is_kind) else { continue };
        if !is_wanted(&record) {
            continue;
        }
        let object = read_segment(&**store, &segment).await.map_err(failed)?;
        let mut outcome = Ok(());
        read_lines(&object, segment.raw_size, |index, line| {
            outcome = visit(&record, index, line);
            outcome.is_ok()
        })
        .map_err(|error| Error::Failed(format!("{}: {error}", segment.object)))?;
        outcome?;
    }
    Ok(())
}

async fn ls(args: &ReadArgs) -> Result<Done, Error> {
    let (store, key) = opened(args).await?;
    let size = find_size(&*store).await.map_err(failed)?;
    let mut records = pin!(records(&*store, &key, 0..size));
    let mut out = std::io::stdout().lock();
    writeln!(out, "RECORD\tKIND\tSEALED\tLINES\tBYTES\tFROM\tTO\tOBJECT")?;
    while let Some(record) = records.next().await {
        let record = record.map_err(failed)?;
        let (seq, kind, sealed) = (record.seq, record.kind.name(), record.sealed_at);
        let rest = match &record.segment {
            Some(it) => {
                format!("{}\t{}\t{}\t{}\t{}", it.count, it.size, it.t_min, it.t_max, it.object)
            }
            None => {
                let says: Vec<_> =
                    record.says.iter().map(|(name, it)| format!("{name}={it}")).collect();
                format!("-\t-\t-\t-\t{}", says.join(" "))
            }
        };
        let rest: Vec<_> = rest.split('\t').map(visible).collect();
        writeln!(out, "{seq}\t{kind}\t{}\t{}", visible(&sealed), rest.join("\t"))?;
    }
    Ok(Done::Fine)
}

async fn get(args: &GetArgs) -> Result<Done, Error> {
    let (store, key) = opened(&args.read).await?;
    let record = read_commit(&*store, args.record, &key).await.map_err(failed)?.record;
    let absent = || Error::Input(format!("record {} has no such line", args.record));
    let segment = record.segment.ok_or_else(absent)?;
    let mut out = std::io::stdout().lock();
    if let Some(line) = args.line {
        let line = read_line(&*store, &segment, line).await.map_err(failed)?;
        out.write_all(&[&line.ok_or_else(absent)?[..], b"\n"].concat())?;
        return Ok(Done::Fine);
    }
    let object = read_segment(&*store, &segment).await.map_err(failed)?;
    let mut written = Ok(());
    read_lines(&object, segment.raw_size, |_, line| {
        written = out.write_all(&[line, b"\n"].concat());
        written.is_ok()
    })
    .map_err(|error| Error::Failed(format!("{}: {error}", segment.object)))?;
    written?;
    Ok(Done::Fine)
}

async fn grep(args: &GrepArgs) -> Result<Done, Error> {
    let (store, key) = opened(&args.read).await?;
    let mut out = std::io::stdout().lock();
    let is_wanted = |record: &Record| is_within(record, args.since, args.until);
    let mut found = false;
    scan(&store, &key, None, is_wanted, |record, index, line| {
        if args.pattern.is_match(line) {
            found = true;
            if args.number {
                write!(out, "{}:{index}\t", record.seq)?;
            }
            out.write_all(&[line, b"\n"].concat())?;
        }
        Ok(())
    })
    .await?;
    Ok(if found { Done::Fine } else { Done::Failed })
}
