//! The verifier: proves every byte of an archive, or says which it cannot, and why.
//!
//! It trusts a public key and what it saw before, nothing else: no listing (an object that is not
//! listed is asked for; one that is listed without need is reported), no derived object (tiles are
//! compared with what the commits make), no single head (the largest that anything signed speaks
//! of must be reached).

mod cosigned;
mod extras;
mod object;
mod quick;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::archive::keys;
use crate::archive::layout::{COMMITS, commit_seq};
use crate::archive::note::{Checkpoint, Verifier};
use crate::archive::policy::Policy;
use crate::archive::recover::{self, CHECKPOINT_BYTES_MAX};
use crate::archive::store::{self, Store};

/// Findings that are kept one by one; all are counted.
const FINDINGS_MAX: usize = 1_000;

/// What is wrong with a part of an archive, from the mildest to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A segment is gone whose retention is over.
    Expired,
    /// An object that nothing signed speaks of.
    Orphan,
    /// Later versions or deletions lie over what was written first, which is still there.
    Shadowed,
    /// The log itself says, or its numbers, that something was not archived.
    Gap,
    /// Nothing new came for longer than was asked for.
    Stale,
    /// An object is not locked for as long as its record says.
    Unlocked,
    /// An object is not there.
    Missing,
    /// An object is not what was signed.
    Altered,
    /// The archive ends before a head that is known.
    Rollback,
    /// A signature does not hold, or is somebody else's.
    BadSignature,
    /// The key signed two histories.
    Fork,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 11] = [
        Class::Expired,
        Class::Orphan,
        Class::Shadowed,
        Class::Gap,
        Class::Stale,
        Class::Unlocked,
        Class::Missing,
        Class::Altered,
        Class::Rollback,
        Class::BadSignature,
        Class::Fork,
    ];

    /// Its name, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Class::Expired => "EXPIRED",
            Class::Orphan => "ORPHAN",
            Class::Shadowed => "SHADOWED",
            Class::Gap => "GAP",
            Class::Stale => "STALE",
            Class::Unlocked => "UNLOCKED",
            Class::Missing => "MISSING",
            Class::Altered => "ALTERED",
            Class::Rollback => "ROLLBACK",
            Class::BadSignature => "BAD_SIGNATURE",
            Class::Fork => "FORK",
        }
    }

    /// The exit code of `verify` when this is the worst that it found.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Expired => 0,
            other => 9 + other as u8,
        }
    }
}

/// How deep to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// The newest head, its tiles, and heads that are known from elsewhere
    Quick,
    /// Every record and its proof; that the objects are there with their size
    Records,
    /// Every byte
    Full,
}

/// What to verify, and against what.
#[derive(Clone)]
pub struct Options {
    /// The log's public key, or one that it had before or since.
    pub key: Verifier,
    /// How deep.
    pub level: Level,
    /// Signed checkpoints that are known from elsewhere: the one of the last run, those that other
    /// sinks received. The name says where each is from.
    pub known: Vec<(String, String)>,
    /// Which witnesses must have cosigned a head.
    pub policy: Option<Policy>,
    /// The time now, microseconds since the epoch.
    pub now_us: i64,
    /// [`Class::Stale`] when the newest record is older than this, in microseconds.
    pub age_us_max: Option<i64>,
    /// Records under way at a time; memory is as many segments.
    pub parallel: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of wrong.
    pub class: Class,
    /// The object.
    pub key: String,
    /// What was found.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {}", self.class.name(), self.key, self.text)
    }
}

/// What was proven and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The head up to which everything was looked at.
    pub head: Option<Checkpoint>,
    /// The head's signed note: to be kept for the next time.
    pub note: String,
    /// Records whose place in the log is proven.
    pub records: u64,
    /// Lines that were hashed and are proven.
    pub lines: u64,
    /// Bytes of objects that were read and are proven.
    pub bytes: u64,
    /// The newest head that the policy's witnesses cosigned, and when, seconds since the epoch.
    pub witnessed: Option<(u64, u64)>,
    /// Findings, the first 1,000 of them.
    pub findings: Vec<Finding>,
    /// How many of each class.
    pub counts: BTreeMap<Class, u64>,
}

impl Report {
    fn add(&mut self, class: Class, key: &str, text: impl Into<String>) {
        *self.counts.entry(class).or_default() += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { class, key: key.to_owned(), text: text.into() });
        }
    }

    /// The worst class that is not among those accepted; `None` when all is proven.
    pub fn worst(&self, accepted: &[Class]) -> Option<Class> {
        let found = self.counts.keys().copied();
        found.filter(|class| *class != Class::Expired && !accepted.contains(class)).max()
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Records looked at.
    pub records: u64,
    /// Records in all.
    pub records_total: u64,
    /// Lines proven.
    pub lines: u64,
}

/// A signed head that something speaks of.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    source: String,
    head: Checkpoint,
    note: String,
    /// Known from elsewhere, not from the archive.
    is_outside: bool,
}

/// Verifies an archive. `progress` is called between records.
///
/// # Errors
/// The store cannot be read; whatever is in it is a finding.
pub async fn verify(
    store: Arc<dyn Store>,
    options: &Options,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<Report, store::Error> {
    let mut report = Report::default();
    let key = keys::follow(&*store, options.key.clone()).await?;
    let options = &Options { key, ..options.clone() };
    let mut known = outside(options, &mut report);
    known.extend(pointer(&*store, options, &mut report).await?);
    known.extend(cosigned::verify(&*store, options, known.last(), &mut report).await?);
    let committed = committed(&*store).await?;
    let inside = known.iter().filter(|known| !known.is_outside);
    let claimed = inside.map(|known| known.head.size).chain([committed]).max().unwrap_or(0);
    for known in known.iter().filter(|known| known.head.size > claimed) {
        let text = format!("the archive has {claimed} records, {} were signed", known.head.size);
        report.add(Class::Rollback, &known.source, text);
    }
    if claimed == 0 && known.is_empty() {
        report.add(Class::Missing, &crate::archive::layout::commit_key(0), "no record is there");
        return Ok(report);
    }
    if options.level == Level::Quick {
        quick::verify(&*store, options, claimed, &known, &mut report).await?;
    } else {
        walk::verify(&store, options, claimed, &known, &mut report, progress).await?;
    }
    Ok(report)
}

/// Heads that the caller knows.
fn outside(options: &Options, report: &mut Report) -> Vec<Known> {
    let mut known = Vec::new();
    for (source, note) in &options.known {
        match options.key.checkpoint(note) {
            Ok(head) => {
                let (source, note) = (source.clone(), note.clone());
                known.push(Known { source, head, note, is_outside: true });
            }
            Err(error) => report.add(class_of(&error), source, error.to_string()),
        }
    }
    known
}

/// The head that the object `checkpoint` holds.
async fn pointer(
    store: &dyn Store,
    options: &Options,
    report: &mut Report,
) -> Result<Option<Known>, store::Error> {
    let source = crate::archive::layout::CHECKPOINT;
    let bytes = match store.read(source, CHECKPOINT_BYTES_MAX).await {
        Err(store::Error::TooLarge { size, .. }) => {
            report.add(Class::Altered, source, format!("{size} bytes are no checkpoint"));
            return Ok(None);
        }
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let Ok(note) = String::from_utf8(bytes.to_vec()) else {
        report.add(Class::Altered, source, "not a text");
        return Ok(None);
    };
    match options.key.checkpoint(&note) {
        Ok(head) => {
            let source = source.to_owned();
            Ok(Some(Known { source, head, note, is_outside: false }))
        }
        Err(error) => {
            report.add(class_of(&error), source, error.to_string());
            Ok(None)
        }
    }
}

/// Commits that exist, by asking for them; a listing may only add to it.
async fn committed(store: &dyn Store) -> Result<u64, store::Error> {
    let found = recover::find_size(store).await?;
    let listed = store.list(COMMITS).await?;
    let last = listed.iter().filter_map(|listed| commit_seq(&listed.key)).max();
    // One that is listed far beyond the others is an orphan, not a head.
    let near = last.filter(|last| *last < found.saturating_mul(2).max(1_024));
    Ok(near.map_or(found, |last| found.max(last + 1)))
}

fn class_of(error: &crate::archive::note::Error) -> Class {
    match error {
        crate::archive::note::Error::Form(_) => Class::Altered,
        _ => Class::BadSignature,
    }
}
