//! What lies in the archive beside what was signed: orphans, later versions, tiles of sizes that
//! the log once had. A listing is where to look, never a proof that there is no more.

use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::FxHasher;

use crate::archive::layout::{CHECKPOINT, COMMITS, COSIGNED, SEGMENTS, TILES, commit_seq};
use crate::archive::store::{self, Store};
use crate::archive::tile::{TILE_WIDTH, Tile};
use crate::archive::verify::{Class, Level, Options, Report};

/// Stands for the segment of a record that is not known.
pub(crate) const UNKNOWN: u64 = 0;
/// Stands for the segment of a record that has none.
pub(crate) const NO_SEGMENT: u64 = 2;

/// A short name of a key, so that millions of them fit into memory.
pub(crate) fn key_hash(key: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key.as_bytes());
    hasher.finish() | 1
}

/// Reports what is there without need. `objects` are the [`key_hash`] of segments by record.
pub(crate) async fn verify(
    store: &Arc<dyn Store>,
    options: &Options,
    size: u64,
    objects: &[u64],
    report: &mut Report,
) -> Result<(), store::Error> {
    for listed in store.list("").await? {
        let key = listed.key.as_str();
        if key == CHECKPOINT || key.starts_with(COSIGNED) {
            continue;
        }
        let is_signed = if key.starts_with(SEGMENTS) {
            let object = segment_seq(key).and_then(|seq| objects.get(seq as usize));
            object.is_some_and(|object| [key_hash(key), UNKNOWN].contains(object))
        } else if key.starts_with(COMMITS) {
            commit_seq(key).is_some_and(|seq| seq < size)
        } else {
            match tile_of(key, size) {
                Some((tile, is_bundle)) if !tile.is_full() && options.level == Level::Full => {
                    partial(store, key, tile, is_bundle, size, report).await?;
                    true
                }
                tile => tile.is_some(),
            }
        };
        if !is_signed {
            report.add(Class::Orphan, key, "nothing that was signed speaks of it");
        }
    }
    for versions in store.shadows("").await? {
        let is_told =
            report.findings.iter().any(|it| it.key == versions.key && it.class == Class::Shadowed);
        if versions.key != CHECKPOINT && !versions.key.starts_with(COSIGNED) && !is_told {
            let deleted = if versions.is_deleted { ", deleted" } else { "" };
            let text = format!("{} versions{deleted}", versions.versions);
            report.add(Class::Shadowed, &versions.key, text);
        }
    }
    Ok(())
}

/// The record that a segment's key is of.
fn segment_seq(key: &str) -> Option<u64> {
    key.rsplit('/').next()?.split('-').next()?.parse().ok()
}

/// The tile that a key is of, when the log was once of a size that has it.
fn tile_of(key: &str, size: u64) -> Option<(Tile, bool)> {
    let rest = key.strip_prefix(TILES)?;
    let (level, rest) = rest.split_once('/')?;
    let (path, width) = rest.split_once(".p/").unwrap_or((rest, "256"));
    let width = width.parse().ok().filter(|width| (1..=256).contains(width))?;
    let mut parts = path.split('/').map(|part| part.trim_start_matches('x').parse::<u64>());
    let index = parts.try_fold(0u64, |index, part| Some(index.checked_mul(1_000)? + part.ok()?))?;
    let is_bundle = level == "entries";
    let level = if is_bundle { 0 } else { level.parse().ok()? };
    let tile = Tile { level, index, width };
    let now = Tile::within(level, index, size)?;
    let path = if is_bundle { tile.entries_path() } else { tile.path() };
    (path == key && width <= now.width).then_some((tile, is_bundle))
}

/// A tile of a size that the log once had must be the beginning of the full one.
async fn partial(
    store: &Arc<dyn Store>,
    key: &str,
    tile: Tile,
    is_bundle: bool,
    size: u64,
    report: &mut Report,
) -> Result<(), store::Error> {
    let limit = 32 * TILE_WIDTH + if is_bundle { 1 << 25 } else { 0 };
    let Some(now) = Tile::within(tile.level, tile.index, size) else { return Ok(()) };
    let path = if is_bundle { now.entries_path() } else { now.path() };
    if path == key {
        return Ok(());
    }
    let whole = store.read(&path, limit).await?;
    let part = match store.read(key, limit).await {
        Err(store::Error::TooLarge { .. }) => None,
        other => other?,
    };
    let (Some(whole), Some(part)) = (whole, part) else {
        // The open tile was published at another size; only full ones can be compared.
        return Ok(());
    };
    let is_whole = is_bundle || part.len() == usize::from(tile.width) * 32;
    if !whole.starts_with(&part) || !is_whole {
        report.add(Class::Altered, key, "not the beginning of what the commits make");
    }
    Ok(())
}
