//! Reads the tree's hashes out of tiles. What it reads is proven by nobody: whoever uses it must
//! check the proof that it makes.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::archive::recover::TILE_BYTES_MAX;
use crate::archive::store::{self, Store};
use crate::archive::tile::{Tile, hashes_of};
use crate::archive::tree::{
    Hash, Node, consistency_ranges, inclusion_ranges, nodes_of, range_root, root_of,
};

/// Tiles that are kept; a proof needs a few, and its neighbour mostly the same.
const TILES_KEPT_MAX: usize = 256;

/// The tiles of a tree of one size.
pub struct TileReader<'s> {
    store: &'s dyn Store,
    size: u64,
    kept: HashMap<Tile, Bytes>,
}

/// A hash that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A tile is missing.
    #[error("{0} is missing")]
    Missing(String),
    /// A tile has not the form of one.
    #[error("{0} is not a tile of its width")]
    Altered(String),
}

impl<'s> TileReader<'s> {
    /// Reads the tiles of a tree of `size` leaves, which must have been published.
    pub fn new(store: &'s dyn Store, size: u64) -> TileReader<'s> {
        TileReader { store, size, kept: HashMap::new() }
    }

    /// Inclusion path of a leaf.
    ///
    /// # Errors
    /// A tile is missing or has another form, or the store's.
    pub async fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, Error> {
        self.roots(&inclusion_ranges(index, self.size)).await
    }

    /// Proof that the tree of `old` leaves is a prefix.
    ///
    /// # Errors
    /// As [`TileReader::inclusion`].
    pub async fn consistency(&mut self, old: u64) -> Result<Vec<Hash>, Error> {
        self.roots(&consistency_ranges(old, self.size)).await
    }

    /// Hashes of the complete subtrees of the whole tree, the largest first.
    ///
    /// # Errors
    /// As [`TileReader::inclusion`].
    pub async fn frontier(&mut self) -> Result<Vec<Hash>, Error> {
        self.hashes(0..self.size).await
    }

    async fn roots(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Hash>, Error> {
        let mut roots = Vec::with_capacity(ranges.len());
        for range in ranges {
            roots.push(range_root(&self.hashes(range.clone()).await?));
        }
        Ok(roots)
    }

    async fn hashes(&mut self, range: Range<u64>) -> Result<Vec<Hash>, Error> {
        let mut hashes = Vec::new();
        for node in nodes_of(range) {
            let tile = Tile::of_node(node, self.size);
            let tile = tile.ok_or_else(|| Error::Missing(format!("{node:?}")))?;
            let bytes = self.tile(tile).await?;
            let hash = tile.node_hash(node, &bytes);
            hashes.push(hash.ok_or_else(|| Error::Altered(tile.path()))?);
        }
        Ok(hashes)
    }

    /// A tile, of those that were read and those above them, whose root is not the hash that the
    /// tile above it has of it. Where there is none, and the uppermost make the root that was
    /// signed, all of them are what was signed.
    ///
    /// # Errors
    /// As [`TileReader::inclusion`].
    pub async fn altered(&mut self) -> Result<Option<String>, Error> {
        let mut open: Vec<Tile> = self.kept.keys().copied().filter(Tile::is_full).collect();
        while let Some(tile) = open.pop() {
            let node = Node { level: 8 * (tile.level + 1), index: tile.index };
            let Some(above) = Tile::of_node(node, self.size) else { continue };
            let bytes = self.tile(tile).await?;
            let root = hashes_of(&bytes).map(|hashes| root_of(&hashes));
            let found = above.node_hash(node, &self.tile(above).await?);
            if root.is_none() || root != found {
                return Ok(Some(tile.path()));
            }
            open.extend(Some(above).filter(Tile::is_full));
        }
        Ok(None)
    }

    async fn tile(&mut self, tile: Tile) -> Result<Bytes, Error> {
        if let Some(bytes) = self.kept.get(&tile) {
            return Ok(bytes.clone());
        }
        let path = tile.path();
        let bytes = match self.store.read(&path, TILE_BYTES_MAX).await {
            Err(store::Error::TooLarge { .. }) => return Err(Error::Altered(path)),
            other => other?.ok_or(Error::Missing(path))?,
        };
        if self.kept.len() >= TILES_KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(tile, bytes.clone());
        Ok(bytes)
    }
}
