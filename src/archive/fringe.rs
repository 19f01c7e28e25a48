//! The tiles that are still open: what a writer holds of the tree to write its tiles and bundles.
//! Memory: at most 255 records and 255 hashes a level, whatever the log's length.

use crate::archive::tile::{TILE_WIDTH, Tile, encode_bundle};
use crate::archive::tree::{Frontier, Hash, leaf_hash, range_root, root_of};

/// An object that follows from the commits.
pub type Derived = (String, Vec<u8>);

/// The open tile of every level, and the records under the one of level 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fringe {
    size: u64,
    records: Vec<Vec<u8>>,
    levels: Vec<Vec<Hash>>,
}

impl Fringe {
    /// The fringe of `size` leaves, of what its open tiles hold; `None` when that is not as much as
    /// the size asks for.
    pub fn new(size: u64, records: Vec<Vec<u8>>, upper: Vec<Vec<Hash>>) -> Option<Fringe> {
        let mut levels = vec![records.iter().map(|record| leaf_hash(record)).collect()];
        levels.extend(upper);
        let open = |level: usize| Fringe::open_at(size, level as u8);
        let is_whole = levels
            .iter()
            .enumerate()
            .all(|(at, hashes)| hashes.len() as u64 == open(at).end - open(at).start);
        (is_whole && Fringe::levels_of(size) <= levels.len()).then_some(Fringe {
            size,
            records,
            levels,
        })
    }

    /// Levels of tiles of a tree.
    pub fn levels_of(size: u64) -> usize {
        (0..8).take_while(|level| size >> (8 * level) > 0).count()
    }

    /// Indexes at a level of tiles of the hashes that are in no full tile.
    pub fn open_at(size: u64, level: u8) -> std::ops::Range<u64> {
        let hashes = size >> (8 * u32::from(level));
        hashes / TILE_WIDTH * TILE_WIDTH..hashes
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root, from the open tiles alone.
    pub fn root(&self) -> Hash {
        let mut hashes = Vec::new();
        for level in self.levels.iter().rev() {
            let mut frontier = Frontier::default();
            level.iter().for_each(|hash| frontier.push(*hash));
            hashes.extend_from_slice(frontier.hashes());
        }
        range_root(&hashes)
    }

    /// Appends a record; returns the tiles and the bundle that it filled.
    pub fn push(&mut self, record: Vec<u8>) -> Vec<Derived> {
        self.push_leaf(leaf_hash(&record), record)
    }

    /// Appends a leaf whose record may not be known; the bundle is right only where it is.
    pub fn push_leaf(&mut self, leaf: Hash, record: Vec<u8>) -> Vec<Derived> {
        let mut full = Vec::new();
        let mut hash = leaf;
        self.records.push(record);
        self.size += 1;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(Vec::new());
            }
            self.levels[at].push(hash);
            if self.levels[at].len() as u64 != TILE_WIDTH {
                break;
            }
            let hashes = self.size >> (8 * u32::from(level));
            let index = hashes / TILE_WIDTH - 1;
            let tile = Tile { level, index, width: TILE_WIDTH as u16 };
            full.extend(self.derive(tile));
            hash = root_of(&self.levels[at]);
            self.levels[at].clear();
            if level == 0 {
                self.records.clear();
            }
        }
        full
    }

    /// The tiles and the bundle that are not full.
    pub fn partial(&self) -> Vec<Derived> {
        let levels = 0..self.levels.len() as u8;
        let tiles = levels.filter_map(|level| {
            let index = Fringe::open_at(self.size, level).start / TILE_WIDTH;
            Tile::within(level, index, self.size)
        });
        tiles.flat_map(|tile| self.derive(tile)).collect()
    }

    fn derive(&self, tile: Tile) -> Vec<Derived> {
        let hashes = self.levels[usize::from(tile.level)].concat();
        let mut derived = Vec::new();
        if tile.level == 0 {
            let bundle = encode_bundle(self.records.iter().map(Vec::as_slice));
            derived.push((tile.entries_path(), bundle));
        }
        derived.push((tile.path(), hashes));
        derived
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::archive::tile::tiles_between;

    #[test]
    fn full_and_open_tiles_are_all_tiles_of_the_tree() {
        let (mut fringe, mut frontier) = (Fringe::default(), Frontier::default());
        let mut full = BTreeMap::new();
        for at in 0..66_000u64 {
            let record = at.to_le_bytes().to_vec();
            frontier.push(leaf_hash(&record));
            full.extend(fringe.push(record));
            if at % 977 != 0 && !(65_530..65_540).contains(&at) {
                continue;
            }
            assert_eq!(fringe.root(), frontier.root(), "{at}");
            let mut all = full.clone();
            all.extend(fringe.partial());
            let tiles = tiles_between(0, fringe.size());
            for tile in &tiles {
                let bytes = &all[&tile.path()];
                assert_eq!(bytes.len(), usize::from(tile.width) * 32);
            }
            let bundles = tiles.iter().filter(|tile| tile.level == 0).count();
            assert_eq!(all.len(), tiles.len() + bundles);
        }
    }
}
