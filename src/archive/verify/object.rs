//! One record: its commit, and the object that it vouches for.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::archive::layout::commit_key;
use crate::archive::note::{Verifier, text_of_bytes, text_of_hash};
use crate::archive::proof;
use crate::archive::record::Segment;
use crate::archive::recover::{COMMIT_BYTES_MAX, Commit};
use crate::archive::segment::read_lines;
use crate::archive::store::{self, Store};
use crate::archive::tree::{Frontier, leaf_hash};
use crate::archive::verify::{Class, Finding, Level, class_of};
use crate::event::time::parse_us;

/// Bytes of a segment that is read; the writer cuts far below.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What was found of one record.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) seq: u64,
    pub(crate) commit: Option<Commit>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

impl Checked {
    fn add(&mut self, class: Class, key: &str, text: impl Into<String>) {
        self.findings.push(Finding { class, key: key.to_owned(), text: text.into() });
    }
}

/// Looks at one record, as deep as `level` says.
pub(crate) async fn check(
    store: Arc<dyn Store>,
    seq: u64,
    key: Verifier,
    level: Level,
    now_us: i64,
) -> Result<Checked, store::Error> {
    let mut checked = Checked { seq, ..Checked::default() };
    let name = commit_key(seq);
    let decode = |bytes: &Bytes| Commit::decode(bytes, seq, &key);
    let (found, size) = read(&*store, &name, COMMIT_BYTES_MAX).await?;
    let commit = match found.as_ref().map(decode) {
        Some(Ok(commit)) => Some(commit),
        wrong => {
            let oldest = store.read_oldest(&name, COMMIT_BYTES_MAX).await?;
            let oldest = oldest.and_then(|bytes| decode(&bytes).ok());
            let (class, text) = match wrong {
                _ if oldest.is_some() => (Class::Shadowed, "its first version is sound".into()),
                Some(Err(error)) => (class_of_proof(&error), error.to_string()),
                _ if size.is_some() => (Class::Altered, "far too large for a commit".into()),
                _ => (Class::Missing, "there is no such object".to_owned()),
            };
            checked.add(class, &name, text);
            oldest
        }
    };
    if let Some(segment) = commit.as_ref().and_then(|commit| commit.record.segment.clone()) {
        object(&store, segment, level, now_us, &mut checked).await?;
    }
    checked.commit = commit;
    Ok(checked)
}

/// Looks at the object of a record that came from a bundle, its commit being lost.
pub(crate) async fn check_object(
    store: &Arc<dyn Store>,
    segment: Segment,
    level: Level,
    now_us: i64,
) -> Result<Checked, store::Error> {
    let mut checked = Checked::default();
    object(store, segment, level, now_us, &mut checked).await?;
    Ok(checked)
}

fn class_of_proof(error: &proof::Error) -> Class {
    match error {
        proof::Error::Note(error) => class_of(error),
        _ => Class::Altered,
    }
}

/// An object's bytes, and its size where it is there but larger than it may be.
async fn read(
    store: &dyn Store,
    key: &str,
    limit: u64,
) -> Result<(Option<Bytes>, Option<u64>), store::Error> {
    match store.read(key, limit).await {
        Ok(bytes) => Ok((bytes, None)),
        Err(store::Error::TooLarge { size, .. }) => Ok((None, Some(size))),
        Err(error) => Err(error),
    }
}

async fn object(
    store: &Arc<dyn Store>,
    segment: Segment,
    level: Level,
    now_us: i64,
    checked: &mut Checked,
) -> Result<(), store::Error> {
    let name = segment.object.clone();
    let until = segment.retain_until.as_deref().and_then(|until| parse_us(until.as_bytes()));
    let wrong = if level == Level::Full {
        bytes(store, &segment, checked).await?
    } else {
        size(store, &segment).await?
    };
    match wrong {
        Some((Class::Missing, _)) if until.is_some_and(|until| until < now_us) => {
            let text =
                format!("gone, its retention ended {}", segment.retain_until.unwrap_or_default());
            checked.add(Class::Expired, &name, text);
            return Ok(());
        }
        Some((class, text)) => checked.add(class, &name, text),
        None => {}
    }
    if let Some(until) = until.filter(|until| store.has_locks() && *until > now_us) {
        let locked = store.locked_until(&name).await?;
        // Stores count in whole seconds or days; a record may be some moments ahead.
        if locked.is_none_or(|locked| locked.saturating_add(60_000_000) < until) {
            checked.add(Class::Unlocked, &name, "not locked for as long as its record says");
        }
    }
    Ok(())
}

type Wrong = Option<(Class, String)>;

async fn size(store: &Arc<dyn Store>, segment: &Segment) -> Result<Wrong, store::Error> {
    Ok(match store.size(&segment.object).await? {
        None => Some((Class::Missing, "there is no such object".into())),
        Some(size) if size != segment.size => {
            Some((Class::Altered, format!("{size} bytes instead of {}", segment.size)))
        }
        Some(_) => None,
    })
}

async fn bytes(
    store: &Arc<dyn Store>,
    segment: &Segment,
    checked: &mut Checked,
) -> Result<Wrong, store::Error> {
    let limit = segment.size.min(SEGMENT_BYTES_MAX);
    let (found, size) = read(&**store, &segment.object, limit).await?;
    let wrong = match (found, size) {
        (Some(found), _) => {
            let proven = prove(found, segment.clone()).await;
            proven.err().map(|text| (Class::Altered, text))
        }
        (None, Some(size)) => {
            Some((Class::Altered, format!("{size} bytes instead of {}", segment.size)))
        }
        (None, None) => Some((Class::Missing, "there is no such object".to_owned())),
    };
    if wrong.is_none() {
        (checked.lines, checked.bytes) = (segment.count, segment.size);
        return Ok(None);
    }
    if let Some(oldest) = store.read_oldest(&segment.object, limit).await?
        && prove(oldest, segment.clone()).await.is_ok()
    {
        return Ok(Some((Class::Shadowed, "its first version is sound".to_owned())));
    }
    Ok(wrong)
}

/// Hashes an object and every line in it, away from the async threads.
async fn prove(object: Bytes, segment: Segment) -> Result<(), String> {
    let proven = tokio::task::spawn_blocking(move || prove_now(&object, &segment)).await;
    proven.unwrap_or_else(|error| Err(error.to_string()))
}

fn prove_now(object: &[u8], segment: &Segment) -> Result<(), String> {
    if object.len() as u64 != segment.size {
        return Err(format!("{} bytes instead of {}", object.len(), segment.size));
    }
    if text_of_bytes(&Sha256::digest(object)) != segment.sha256 {
        return Err("its SHA-256 is not the record's".into());
    }
    let (mut tree, mut raw_size) = (Frontier::default(), 0);
    read_lines(object, segment.raw_size, |_, line| {
        tree.push(leaf_hash(line));
        raw_size += line.len() as u64 + 1;
        true
    })
    .map_err(|error| error.to_string())?;
    let root = text_of_hash(&tree.root());
    if (tree.size(), raw_size) != (segment.count, segment.raw_size) || root != segment.event_root {
        return Err("its lines are not those of the record".into());
    }
    Ok(())
}
