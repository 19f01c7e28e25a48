//! `kubewitness spool`: what a spool holds, whether every byte of it can be read, its dead letters.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::letters::{self, Letters};
use crate::cli::{Done, Error, say};
use crate::record::kind;
use crate::report::escape::{Spelling, visible, write_json};
use crate::report::summary::counted;
use crate::spool::{self, CursorState, Damage, Inspection};
use crate::telemetry::chain;
use crate::units::Size;

/// What to do with a spool.
#[derive(Debug, Subcommand)]
pub enum Spool {
    /// Show segments, cursors, snapshots and dead letters; the spool may be in use
    #[command(after_help = "Example:\n  kubewitness spool inspect /var/lib/kubewitness")]
    Inspect {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Read and check every byte; exit code 1 when something that was durable cannot be read
    Verify {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Give up what a sink that is configured no longer was still to get, so that it holds nothing
    /// any more; the spool must not be in use
    #[command(after_help = "Example:\n  kubewitness spool forget /var/lib/kubewitness old-siem")]
    Forget {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// The sink's name, as `inspect` shows it
        sink: String,
        /// Also where records were not delivered
        #[arg(long)]
        force: bool,
    },
    /// List, show, send again or remove what could not be used or delivered
    #[command(subcommand)]
    DeadLetters(Letters),
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; hostile characters are spelled out.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs a subcommand. Nothing but `forget`, `dead-letters redrive` and `dead-letters remove`
/// changes anything.
///
/// # Errors
/// A directory that is no spool: wrong input. Files that cannot be read.
pub fn run(command: Spool) -> Result<Done, Error> {
    match command {
        Spool::Inspect { dir, format } => {
            let inspection = spool::inspect(checked(&dir)?).map_err(failed)?;
            show(&inspection, format)?;
            Ok(Done::Fine)
        }
        Spool::Verify { dir, format } => {
            let inspection = spool::verify(checked(&dir)?).map_err(failed)?;
            show(&inspection, format)?;
            let is_whole = inspection.damages.is_empty() && inspection.missing == 0;
            Ok(if is_whole { Done::Fine } else { Done::Failed })
        }
        Spool::Forget { dir, sink, force } => forget(checked(&dir)?, &sink, force),
        Spool::DeadLetters(command) => letters::run(command),
    }
}

/// Removes a sink's cursor.
fn forget(dir: &Path, sink: &str, force: bool) -> Result<Done, Error> {
    let (spool, _) = spool::Spool::open(dir, spool::Options::default()).map_err(failed)?;
    let cursors = spool.cursors();
    let Some((.., lag)) = cursors.iter().find(|(name, ..)| name == sink) else {
        let known: Vec<&str> = cursors.iter().map(|(name, ..)| name.as_str()).collect();
        let known = known.join(", ");
        return Err(Error::Input(format!("no sink called {sink:?} has been here; known: {known}")));
    };
    let left = counted(lag.records, "record");
    if lag.records > 0 && !force {
        let remedy = "configure it again to deliver them, or give them up with --force";
        return Err(Error::Input(format!("sink {sink} was still to get {left}: {remedy}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        spool.remove_cursor(sink).await.map_err(failed)?;
        spool.close().await.map_err(failed)
    })?;
    say(&format!("sink {sink} is forgotten; {left} not delivered to it"));
    Ok(Done::Fine)
}

/// The directory, when it looks like a spool's.
pub(crate) fn checked(dir: &Path) -> Result<&Path, Error> {
    if dir.join("segments").is_dir() {
        return Ok(dir);
    }
    let remedy = "name the directory that the configuration calls spool.dir";
    Err(Error::Input(format!("{}: is no spool; {remedy}", dir.display())))
}

/// What went wrong with a spool; that it is in use is the caller's to mend.
pub(crate) fn failed(error: spool::Error) -> Error {
    match error {
        spool::Error::Locked { .. } => Error::Input(chain(&error)),
        error => Error::Failed(chain(&error)),
    }
}

/// A kind of records as people call it.
fn kind_name(code: u8) -> String {
    let name = match code {
        kind::EVENT => "events",
        kind::ALERT => "alerts",
        kind::MATCH => "matches",
        kind::CHECKPOINT => "checkpoints",
        kind::RULES => "rules",
        kind::TIME => "times",
        kind::NOTICE => "notices",
        kind::ANCHOR => "anchors",
        kind::QUARANTINE => "quarantine",
        other => return format!("kind-{other}"),
    };
    name.to_owned()
}

fn show(inspection: &Inspection, format: Format) -> Result<(), Error> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match format {
        Format::Text => write_text(&mut out, inspection)?,
        Format::Json => {
            write_json(&mut out, &as_json(inspection), Spelling::Exact)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(out.flush()?)
}

fn write_text(out: &mut dyn Write, inspection: &Inspection) -> std::io::Result<()> {
    let bytes: u64 = inspection.segments.iter().map(|segment| segment.bytes).sum();
    writeln!(out, "{}, {}", counted(inspection.segments.len() as u64, "segment"), size(bytes))?;
    for segment in &inspection.segments {
        let kinds = segment.records_by_kind.iter();
        let kinds: Vec<String> =
            kinds.map(|(code, count)| format!("{count} {}", kind_name(*code))).collect();
        let last = segment.seq_last.map_or("-".to_owned(), |last| last.to_string());
        let kinds = if kinds.is_empty() { "empty".to_owned() } else { kinds.join(", ") };
        let name = visible(&segment.file);
        writeln!(out, "  {name}  {}..{last}  {}  {kinds}", segment.seq_first, size(segment.bytes))?;
    }
    for (what, positions) in [("cursor", &inspection.cursors), ("snapshot", &inspection.snapshots)]
    {
        for CursorState { name, seq, lag } in positions {
            let lag = format!("{} records, about {} behind", lag.records, size(lag.bytes));
            writeln!(out, "{what} {}: at {seq}, {lag}", visible(name))?;
        }
    }
    let (letters, bytes) = inspection.dead_letters;
    writeln!(out, "{letters} dead letters, {}", size(bytes))?;
    for (name, bytes) in &inspection.quarantine {
        writeln!(out, "quarantine {}: {}", visible(name), size(*bytes))?;
    }
    if let Some(torn) = &inspection.torn {
        write!(out, "unfinished (an append under way, or what a crash left of one): ")?;
        write_damage(out, torn)?;
    }
    if inspection.missing > 0 {
        writeln!(out, "MISSING {} records between the first and the last", inspection.missing)?;
    }
    for damage in &inspection.damages {
        write!(out, "DAMAGED ")?;
        write_damage(out, damage)?;
    }
    Ok(())
}

fn write_damage(out: &mut dyn Write, damage: &Damage) -> std::io::Result<()> {
    let Damage { file, offset, bytes, reason } = damage;
    writeln!(out, "{}: {bytes} bytes from {offset}: {}", visible(file), reason.name())
}

/// A size in its largest unit, rounded: for people.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes >> shift >= 10) {
        Some((unit, shift)) => format!("{} {unit}", bytes >> shift),
        None => Size(bytes).to_string(),
    }
}

fn as_json(inspection: &Inspection) -> Value {
    let damage = |damage: &Damage| {
        json!({"file": damage.file, "offset": damage.offset, "bytes": damage.bytes,
               "reason": damage.reason.name()})
    };
    let position = |state: &CursorState| {
        json!({"name": state.name, "seq": state.seq, "lag_records": state.lag.records,
               "lag_bytes": state.lag.bytes})
    };
    let segment = |segment: &spool::SegmentState| {
        let kinds = segment.records_by_kind.iter();
        let kinds: serde_json::Map<String, Value> =
            kinds.map(|(code, count)| (kind_name(*code), json!(count))).collect();
        json!({"file": segment.file, "seq_first": segment.seq_first, "seq_last": segment.seq_last,
               "bytes": segment.bytes, "batches": segment.batches, "records": kinds})
    };
    json!({
        "segments": inspection.segments.iter().map(segment).collect::<Vec<_>>(),
        "cursors": inspection.cursors.iter().map(position).collect::<Vec<_>>(),
        "snapshots": inspection.snapshots.iter().map(position).collect::<Vec<_>>(),
        "dead_letters": inspection.dead_letters.0,
        "dead_letter_bytes": inspection.dead_letters.1,
        "quarantine": inspection.quarantine.iter()
            .map(|(name, bytes)| json!({"file": name, "bytes": bytes})).collect::<Vec<_>>(),
        "torn": inspection.torn.as_ref().map(damage),
        "missing": inspection.missing,
        "damages": inspection.damages.iter().map(damage).collect::<Vec<_>>(),
    })
}
