//! Where a log stands, found without trusting what can be hidden: heads, evidence against them, and
//! what a writer needs to go on. Reads grow with the logarithm of the log's length: at most 255
//! objects a level of tiles.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::archive::fringe::Fringe;
use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::note::{Checkpoint, Verifier};
use crate::archive::proof::Proof;
use crate::archive::record::Record;
use crate::archive::store::{self, Store};
use crate::archive::tile::{TILE_WIDTH, Tile, hashes_of};
use crate::archive::tree::{Frontier, Hash, leaf_hash, root_of};

/// Bytes of a commit: a record in base64, 64 hashes, a note.
pub const COMMIT_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a tile.
pub const TILE_BYTES_MAX: u64 = 32 * TILE_WIDTH;
/// Bytes of a checkpoint with its cosignatures.
pub const CHECKPOINT_BYTES_MAX: u64 = 64 << 10;
/// Reads under way at a time.
const READS: usize = 16;

/// A log whose state cannot be what its writer left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An object that is not what the log's key signed.
    #[error("{key} is not what this log's key signed ({reason}); run `kubewitness verify`")]
    Altered {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object is missing that was there.
    #[error("{0} is missing; run `kubewitness verify`")]
    Missing(String),
}

/// Finds how many commits there are, by asking for single ones: 2 log2(n) questions.
///
/// # Errors
/// The store's.
pub async fn find_size(store: &dyn Store) -> Result<u64, store::Error> {
    let mut end = 1;
    if !is_committed(store, 0).await? {
        return Ok(0);
    }
    while is_committed(store, end).await? {
        end *= 2;
    }
    let mut last = end / 2;
    while end - last > 1 {
        let middle = last + (end - last) / 2;
        if is_committed(store, middle).await? { last = middle } else { end = middle }
    }
    Ok(end)
}

/// Whether a commit exists.
///
/// # Errors
/// The store's.
pub async fn is_committed(store: &dyn Store, seq: u64) -> Result<bool, store::Error> {
    Ok(store.size(&commit_key(seq)).await?.is_some())
}

/// A commit that was read and proven.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The proof file, taken apart.
    pub proof: Proof,
    /// The record in it.
    pub record: Record,
    /// The head that it made.
    pub head: Checkpoint,
}

impl Commit {
    /// Checks the bytes of a commit.
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(
        bytes: &[u8],
        seq: u64,
        key: &Verifier,
    ) -> Result<Commit, crate::archive::proof::Error> {
        let proof = Proof::decode(bytes)?;
        let (record, head) = proof.verify_record(&proof.extra, key)?;
        if record.seq != seq || head.size != seq + 1 {
            return Err(crate::archive::proof::Error::Misplaced);
        }
        Ok(Commit { proof, record, head })
    }

    /// The frontier behind the commit: its path is the frontier before it.
    pub fn frontier(&self) -> Option<Frontier> {
        let stack = self.proof.path.iter().rev().copied().collect();
        let mut frontier = Frontier::new(self.proof.index, stack)?;
        frontier.push(leaf_hash(&self.proof.extra));
        Some(frontier)
    }
}

/// Reads and proves a commit.
///
/// # Errors
/// It is missing, altered, or the store's.
pub async fn read_commit(store: &dyn Store, seq: u64, key: &Verifier) -> Result<Commit, Error> {
    let name = commit_key(seq);
    let bytes = store.read(&name, COMMIT_BYTES_MAX).await?;
    let bytes = bytes.ok_or_else(|| Error::Missing(name.clone()))?;
    Commit::decode(&bytes, seq, key)
        .map_err(|error| Error::Altered { key: name, reason: error.to_string() })
}

/// The checkpoint object, when this key signed it.
///
/// # Errors
/// It is there and says something else, or the store's.
pub async fn read_pointer(store: &dyn Store, key: &Verifier) -> Result<Option<Checkpoint>, Error> {
    let Some(bytes) = store.read(CHECKPOINT, CHECKPOINT_BYTES_MAX).await? else {
        return Ok(None);
    };
    let checkpoint = checkpoint_of(&bytes, key);
    checkpoint.map(Some).map_err(|reason| Error::Altered { key: CHECKPOINT.into(), reason })
}

fn checkpoint_of(bytes: &Bytes, key: &Verifier) -> Result<Checkpoint, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    key.checkpoint(text).map_err(|error| error.to_string())
}

/// Makes the fringe again that a writer had behind `frontier`.
///
/// # Errors
/// Something that it follows from is missing or altered, or the store's.
pub async fn fringe(store: &dyn Store, frontier: &Frontier) -> Result<Fringe, Error> {
    let size = frontier.size();
    let records = records(store, Fringe::open_at(size, 0)).await?;
    let mut upper = Vec::new();
    for level in 1..Fringe::levels_of(size) as u8 {
        let indexes = stream::iter(Fringe::open_at(size, level));
        let roots = indexes.map(|index| tile_root(store, level - 1, index));
        upper.push(roots.buffered(READS).try_collect().await?);
    }
    let fringe = Fringe::new(size, records, upper).filter(|it| it.root() == frontier.root());
    fringe.ok_or_else(|| Error::Altered {
        key: format!("a tile or commit before {size}"),
        reason: "its hashes do not lead to the root".into(),
    })
}

/// The records of a range, out of commits that are read but not proven: the root is.
async fn records(store: &dyn Store, range: std::ops::Range<u64>) -> Result<Vec<Vec<u8>>, Error> {
    let records = stream::iter(range).map(|seq| async move {
        let key = commit_key(seq);
        let bytes = store.read(&key, COMMIT_BYTES_MAX).await?;
        let bytes = bytes.ok_or_else(|| Error::Missing(key.clone()))?;
        let proof = Proof::decode(&bytes);
        proof
            .map(|proof| proof.extra)
            .map_err(|error| Error::Altered { key, reason: error.to_string() })
    });
    records.buffered(READS).try_collect().await
}

/// Root of a full tile, from its object, or from what is under it where the writer died before it
/// was made.
async fn tile_root(store: &dyn Store, level: u8, index: u64) -> Result<Hash, Error> {
    let tile = Tile { level, index, width: TILE_WIDTH as u16 };
    let found = store.read(&tile.path(), TILE_BYTES_MAX).await?;
    let hashes = found.as_deref().and_then(hashes_of);
    if let Some(hashes) = hashes.filter(|hashes| hashes.len() as u64 == TILE_WIDTH) {
        return Ok(root_of(&hashes));
    }
    let hashes: Vec<Hash> = if level == 0 {
        let records = records(store, tile.range()).await?;
        records.iter().map(|record| leaf_hash(record)).collect()
    } else {
        let below = stream::iter(tile.range());
        let below = below.map(|index| Box::pin(tile_root(store, level - 1, index)));
        below.buffered(READS).try_collect().await?
    };
    Ok(root_of(&hashes))
}

/// The objects of the last full tile of every level that the store lacks: a writer may have died
/// between a commit and the tiles that it filled.
///
/// # Errors
/// As [`fringe`].
pub async fn missing_tiles(store: &dyn Store, size: u64) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut missing = Vec::new();
    for level in 0..Fringe::levels_of(size) as u8 {
        let Some(index) = (Fringe::open_at(size, level).start / TILE_WIDTH).checked_sub(1) else {
            break;
        };
        let tile = Tile { level, index, width: TILE_WIDTH as u16 };
        let is_there = store.size(&tile.path()).await?.is_some();
        let has_bundle = level > 0 || store.size(&tile.entries_path()).await?.is_some();
        if is_there && has_bundle {
            continue;
        }
        if level == 0 {
            let records = records(store, tile.range()).await?;
            let bundle = crate::archive::tile::encode_bundle(records.iter().map(Vec::as_slice));
            missing.push((tile.entries_path(), bundle));
            let hashes = records.iter().flat_map(|record| leaf_hash(record));
            missing.push((tile.path(), hashes.collect()));
        } else {
            let below = stream::iter(tile.range());
            let below = below.map(|index| tile_root(store, level - 1, index));
            let hashes: Vec<Hash> = below.buffered(READS).try_collect().await?;
            missing.push((tile.path(), hashes.concat()));
        }
    }
    Ok(missing)
}
