//! The records of a log, proven: out of bundles of 256 where these are full, for two reads each,
//! out of single commits where they are not.

use std::ops::Range;

use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};

use crate::archive::layout::commit_key;
use crate::archive::note::Verifier;
use crate::archive::record::{RECORD_BYTES_MAX, Record};
use crate::archive::recover::{Commit, Error, read_commit};
use crate::archive::store::{self, Store};
use crate::archive::tile::{TILE_WIDTH, Tile, decode_bundle};
use crate::archive::tree::{Frontier, leaf_hash};

/// Single commits read at a time.
const READS: usize = 16;
/// Bundles read at a time.
const BUNDLES: usize = 4;
/// Bytes of a full bundle.
const BUNDLE_BYTES_MAX: u64 = TILE_WIDTH * (2 + RECORD_BYTES_MAX as u64);

/// The records of a range, in order.
pub fn records<'s>(
    store: &'s dyn Store,
    key: &'s Verifier,
    range: Range<u64>,
) -> impl Stream<Item = Result<Record, Error>> + 's {
    let tiles = range.start / TILE_WIDTH..range.end.div_ceil(TILE_WIDTH);
    let batches = stream::iter(tiles).map(move |index| batch(store, key, index, range.clone()));
    batches.buffered(BUNDLES).map_ok(|records| stream::iter(records).map(Ok)).try_flatten()
}

/// All records of a log of `size`, the newest first.
pub fn newest_first<'s>(
    store: &'s dyn Store,
    key: &'s Verifier,
    size: u64,
) -> impl Stream<Item = Result<Record, Error>> + 's {
    let tiles = (0..size.div_ceil(TILE_WIDTH)).rev();
    let batches = stream::iter(tiles).map(move |index| batch(store, key, index, 0..size));
    let reversed = |records: Vec<Record>| stream::iter(records.into_iter().rev()).map(Ok);
    batches.buffered(BUNDLES).map_ok(reversed).try_flatten()
}

/// The records of a range that are in one bundle.
async fn batch(
    store: &dyn Store,
    key: &Verifier,
    index: u64,
    range: Range<u64>,
) -> Result<Vec<Record>, Error> {
    let tile = Tile { level: 0, index, width: TILE_WIDTH as u16 };
    let (first, last) = (tile.range().start, tile.range().end - 1);
    if range.start <= first
        && range.end > last
        && let Some(records) = bundle(store, key, tile, last).await?
    {
        return Ok(records);
    }
    let single = stream::iter(first.max(range.start)..(last + 1).min(range.end));
    let single = single.map(|seq| async move { Ok(read_commit(store, seq, key).await?.record) });
    single.buffered(READS).try_collect().await
}

/// A full bundle, when it is what the commit of its last record says.
async fn bundle(
    store: &dyn Store,
    key: &Verifier,
    tile: Tile,
    last: u64,
) -> Result<Option<Vec<Record>>, Error> {
    let commit = match read_commit(store, last, key).await {
        Err(Error::Store(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
        Ok(commit) => commit,
    };
    let bytes = match store.read(&tile.entries_path(), BUNDLE_BYTES_MAX).await {
        Err(store::Error::TooLarge { .. }) => None,
        other => other?,
    };
    let Some(records) = bytes.as_deref().and_then(decode_bundle) else { return Ok(None) };
    if !is_proven(&records, &commit) {
        return Ok(None);
    }
    let unreadable = |seq| Error::Altered { key: commit_key(seq), reason: "no record".to_owned() };
    let records = (tile.range().start..).zip(records);
    let decoded = records.map(|(seq, bytes)| Record::decode(bytes).ok_or_else(|| unreadable(seq)));
    decoded.collect::<Result<_, _>>().map(Some)
}

/// Before the last record of a full tile stand 128, 64, … 1 of the same tile: the first hashes of
/// its path are those of all the others.
fn is_proven<R: AsRef<[u8]>>(records: &[R], last: &Commit) -> bool {
    let Some((own, others)) = records.split_last() else { return false };
    let mut tree = Frontier::default();
    others.iter().for_each(|record| tree.push(leaf_hash(record.as_ref())));
    records.len() as u64 == TILE_WIDTH
        && own.as_ref() == last.proof.extra
        && last.proof.path.starts_with(&tree.path_of_next())
}
