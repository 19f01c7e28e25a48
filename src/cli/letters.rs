//! `kubewitness spool dead-letters`: what could not be used or delivered, for a person to look at.

use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use crypto_box::SecretKey;
use serde_json::{Value, json};

use crate::cli::redrive::{self, RedriveArgs};
use crate::cli::spool::{Format, checked, failed};
use crate::cli::{Done, Error, say};
use crate::event::time::format_us;
use crate::report::escape::{Spelling, visible, write_json};
use crate::report::summary::counted;
use crate::spool::{self, DeadLetter, Options, Spool, StoredLetter};

/// Letters read at a time.
const PAGE: usize = 100;
/// What a list shows of a letter's bytes.
const HEAD_BYTES: usize = 120;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Letters {
    /// A line a letter: id, time, reason, source, position, and how its bytes begin
    List {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// Only letters behind this id
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: u64,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// One letter with all of its bytes
    Show {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// The letter's id
        id: u64,
        /// The secret key that its bytes were sealed to (see `certs sealing-key`)
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// Only the bytes, exactly as they are kept; never to a terminal
        #[arg(long)]
        raw: bool,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Send what sinks refused to them once more, and remove what they take; the spool must not be
    /// in use
    Redrive(RedriveArgs),
    /// Remove letters for good; the spool must not be in use
    Remove {
        /// The spool's directory (spool.dir)
        dir: PathBuf,
        /// Their ids
        #[arg(required_unless_present = "all")]
        ids: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// A directory that is no spool, an id that is not there: wrong input.
pub fn run(command: Letters) -> Result<Done, Error> {
    match command {
        Letters::List { dir, after, limit, format } => list(checked(&dir)?, after, limit, format)?,
        Letters::Show { dir, id, key_file, raw, format } => {
            let found = spool::dead_letters(checked(&dir)?, id.saturating_sub(1), 1);
            let found = found.map_err(failed)?.pop().filter(|stored| stored.id == id);
            let missing = || Error::Input(format!("{}: no dead letter {id}", dir.display()));
            let mut stored = found.ok_or_else(missing)?;
            if let Some(path) = key_file {
                unseal(&mut stored.letter, &path)?;
            }
            if raw { print_raw(&stored.letter)? } else { print(&stored, format)? }
        }
        Letters::Redrive(args) => return redrive::run(&args),
        Letters::Remove { dir, ids, all } => remove(checked(&dir)?, &ids, all)?,
    }
    Ok(Done::Fine)
}

fn list(dir: &Path, after: u64, limit: usize, format: Format) -> Result<(), Error> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut id, mut left) = (after, limit);
    while left > 0 {
        let page = spool::dead_letters(dir, id, left.min(PAGE)).map_err(failed)?;
        let Some(last) = page.last() else { break };
        id = last.id;
        left -= page.len().min(left);
        for stored in &page {
            match format {
                Format::Text => writeln!(out, "{}", line(stored))?,
                Format::Json => write_line(&mut out, stored)?,
            }
        }
    }
    Ok(out.flush()?)
}

fn line(stored: &StoredLetter) -> String {
    let StoredLetter { id, letter } = stored;
    let head = &letter.bytes[..letter.bytes.len().min(HEAD_BYTES)];
    let shown = match letter.is_sealed {
        true => "(sealed)".to_owned(),
        false => visible(&String::from_utf8_lossy(head)).into_owned(),
    };
    let more = if letter.bytes.len() > HEAD_BYTES { " …" } else { "" };
    format!(
        "{id}  {}  {}  {}  {}  {} bytes  {shown}{more}",
        format_us(letter.at_us),
        visible(&letter.reason),
        visible(&letter.source),
        visible(&letter.position),
        letter.bytes.len(),
    )
}

fn print(stored: &StoredLetter, format: Format) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        return Ok(write_line(&mut out, stored)?);
    }
    let StoredLetter { id, letter } = stored;
    writeln!(out, "id        {id}")?;
    writeln!(out, "time      {}", format_us(letter.at_us))?;
    writeln!(out, "reason    {}", visible(&letter.reason))?;
    writeln!(out, "source    {}", visible(&letter.source))?;
    writeln!(out, "position  {}", visible(&letter.position))?;
    writeln!(out, "attempts  {}", letter.attempts)?;
    let sealed = if letter.is_sealed { ", sealed" } else { "" };
    writeln!(out, "bytes     {}{sealed}", letter.bytes.len())?;
    if !letter.is_sealed {
        for row in String::from_utf8_lossy(&letter.bytes).split('\n') {
            writeln!(out, "{}", visible(row.trim_end_matches('\r')))?;
        }
    }
    Ok(())
}

fn write_line(out: &mut dyn Write, stored: &StoredLetter) -> std::io::Result<()> {
    let StoredLetter { id, letter } = stored;
    let (text, base64) = match std::str::from_utf8(&letter.bytes) {
        Ok(text) if !letter.is_sealed => (json!(text), Value::Null),
        _ => (Value::Null, json!(STANDARD.encode(&letter.bytes))),
    };
    let value = json!({
        "id": id, "time": format_us(letter.at_us), "reason": letter.reason,
        "source": letter.source, "position": letter.position, "attempts": letter.attempts,
        "is_sealed": letter.is_sealed, "bytes": letter.bytes.len(), "text": text,
        "base64": base64,
    });
    write_json(out, &value, Spelling::Exact)?;
    out.write_all(b"\n")
}

fn print_raw(letter: &DeadLetter) -> Result<(), Error> {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        let remedy = "redirect --raw to a file or a pipe";
        return Err(Error::Input(format!("these bytes could act on the terminal; {remedy}")));
    }
    out.write_all(&letter.bytes)?;
    Ok(out.flush()?)
}

/// Opens the bytes with a secret key.
fn unseal(letter: &mut DeadLetter, path: &Path) -> Result<(), Error> {
    if !letter.is_sealed {
        return Ok(());
    }
    let wrong = |what: String| Error::Input(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let key = STANDARD.decode(text.trim()).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
    let key = key.ok_or_else(|| wrong("is no key: 32 bytes in base64".to_owned()))?;
    letter.bytes = SecretKey::from(key)
        .unseal(&letter.bytes)
        .map_err(|_| wrong("is not the key that this letter was sealed to".to_owned()))?;
    letter.is_sealed = false;
    Ok(())
}

fn remove(dir: &Path, ids: &[u64], all: bool) -> Result<(), Error> {
    let (spool, _) = Spool::open(dir, Options::default()).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let removed = runtime.block_on(async {
        let letters = spool.dead_letters().clone();
        let mut removed = 0;
        if all {
            loop {
                let page = letters.read(0, PAGE).await?;
                if page.is_empty() {
                    break;
                }
                removed += letters.remove(page.iter().map(|stored| stored.id).collect()).await?;
            }
        } else {
            removed = letters.remove(ids.to_vec()).await?;
        }
        spool.close().await?;
        Ok(removed)
    });
    let removed: u64 = removed.map_err(failed)?;
    say(&format!("{} removed", counted(removed, "dead letter")));
    Ok(())
}
