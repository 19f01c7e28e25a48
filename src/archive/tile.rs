//! Tiles and entry bundles of a log (c2sp.org/tlog-tiles): which there are, where they lie, what
//! they hold.
//!
//! A tile is up to 256 hashes of one level of the tree, every eighth level being stored; an entry
//! bundle is the entries under a tile of level 0, each behind its length (big-endian, 16 bits).
//! A tile that is not full has its width in its path, so no object ever changes.

use crate::archive::tree::{Hash, Node, root_of};

/// Hashes of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree in a tile.
const TILE_HEIGHT: u8 = 8;

/// A tile of hashes, or the bundle of entries under one of level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Level of tiles; 0 holds the hashes of leaves.
    pub level: u8,
    /// Which of its level, from the left.
    pub index: u64,
    /// Hashes in it, 1 to 256.
    pub width: u16,
}

impl Tile {
    /// The tile of this level and index in a tree of `size` leaves; `None` when it would be empty.
    pub fn within(level: u8, index: u64, size: u64) -> Option<Tile> {
        let hashes = size.checked_shr(u32::from(TILE_HEIGHT) * u32::from(level)).unwrap_or(0);
        let width = hashes.saturating_sub(index.checked_mul(TILE_WIDTH)?).min(TILE_WIDTH);
        (width > 0).then_some(Tile { level, index, width: width as u16 })
    }

    /// The tile that holds a node's hashes in a tree of `size` leaves.
    pub fn of_node(node: Node, size: u64) -> Option<Tile> {
        let level = node.level / TILE_HEIGHT;
        let first = node.index << (node.level % TILE_HEIGHT);
        Tile::within(level, first / TILE_WIDTH, size)
    }

    /// True when nothing can be added to it.
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// Index of its first hash at its level, and the one after its last.
    pub fn range(&self) -> std::ops::Range<u64> {
        let first = self.index * TILE_WIDTH;
        first..first + u64::from(self.width)
    }

    /// Where the tile lies under the log's prefix.
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, self.position())
    }

    /// Where the bundle of its entries lies (level 0 only).
    pub fn entries_path(&self) -> String {
        format!("tile/entries/{}", self.position())
    }

    fn position(&self) -> String {
        let mut text = format!("{:03}", self.index % 1_000);
        let mut rest = self.index / 1_000;
        while rest > 0 {
            text = format!("x{:03}/{text}", rest % 1_000);
            rest /= 1_000;
        }
        if !self.is_full() {
            text.push_str(&format!(".p/{}", self.width));
        }
        text
    }

    /// The hash of a node out of the bytes of the tile that holds it; `None` when they are not that
    /// tile's.
    pub fn node_hash(&self, node: Node, bytes: &[u8]) -> Option<Hash> {
        let hashes = hashes_of(bytes)?;
        if hashes.len() != usize::from(self.width) {
            return None;
        }
        let depth = node.level % TILE_HEIGHT;
        let first = ((node.index << depth) % TILE_WIDTH) as usize;
        hashes.get(first..first + (1 << depth)).map(root_of)
    }
}

/// The tiles of a tree of `new` leaves that were not in the one of `old`, from level 0 up. Level 0
/// stands for the bundles too.
pub fn tiles_between(old: u64, new: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for level in 0..TILE_HEIGHT {
        let shift = u32::from(TILE_HEIGHT) * u32::from(level);
        let (before, after) = (old >> shift, new >> shift);
        if after == 0 {
            break;
        }
        if after > before {
            let indexes = before / TILE_WIDTH..after.div_ceil(TILE_WIDTH);
            tiles.extend(indexes.filter_map(|index| Tile::within(level, index, new)));
        }
    }
    tiles
}

/// The hashes of a tile; `None` when the bytes are not whole hashes.
pub fn hashes_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// The bytes of a bundle. Entries beyond 65,535 bytes cannot be written; records are far below.
pub fn encode_bundle<'e>(entries: impl Iterator<Item = &'e [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).expect("a record is at most 65,535 bytes");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    bytes
}

/// The entries of a bundle; `None` when the bytes are not whole entries.
pub fn decode_bundle(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (entry, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        rest = behind;
    }
    rest.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tree::leaf_hash;

    #[test]
    fn paths_are_those_of_the_specification() {
        let cases = [
            (Tile { level: 0, index: 1_234_067, width: 256 }, "tile/0/x001/x234/067"),
            (Tile { level: 0, index: 0, width: 1 }, "tile/0/000.p/1"),
            (Tile { level: 1, index: 273, width: 112 }, "tile/1/273.p/112"),
            (Tile { level: 2, index: 1_000, width: 256 }, "tile/2/x001/000"),
        ];
        for (tile, path) in cases {
            assert_eq!(tile.path(), path);
        }
        assert_eq!(Tile { level: 0, index: 5, width: 3 }.entries_path(), "tile/entries/005.p/3");
    }

    #[test]
    fn the_census_of_70_000_leaves_is_that_of_the_specification() {
        let tiles = tiles_between(0, 70_000);
        let count = |level, is_full| {
            tiles.iter().filter(|tile| tile.level == level && tile.is_full() == is_full).count()
        };
        assert_eq!((count(0, true), count(1, true), count(2, true)), (273, 1, 0));
        let partial: Vec<_> = tiles.iter().filter(|tile| !tile.is_full()).collect();
        let widths: Vec<_> = partial.iter().map(|tile| (tile.level, tile.width)).collect();
        assert_eq!(widths, [(0, 112), (1, 17), (2, 1)]);
        let of_256: Vec<_> = tiles_between(0, 256).iter().map(Tile::path).collect();
        assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1"]);
        let grown: Vec<_> = tiles_between(255, 257).iter().map(Tile::path).collect();
        assert_eq!(grown, ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]);
        assert!(tiles_between(7, 7).is_empty());
    }

    #[test]
    fn nodes_are_read_out_of_tiles() {
        let leaves: Vec<Hash> = (0..300u32).map(|at| leaf_hash(&at.to_le_bytes())).collect();
        let bytes: Vec<u8> = leaves[256..].iter().flatten().copied().collect();
        let node = Node { level: 2, index: 66 };
        let tile = Tile::of_node(node, 300).unwrap();
        assert_eq!(tile.path(), "tile/0/001.p/44");
        assert_eq!(tile.node_hash(node, &bytes), Some(root_of(&leaves[264..268])));
        assert_eq!(tile.node_hash(node, &bytes[32..]), None);
        assert_eq!(tile.node_hash(node, &bytes[1..]), None);
    }

    #[test]
    fn bundles_are_read_back_and_torn_ones_are_not() {
        let entries: [&[u8]; 3] = [b"one", b"", &[7; 65_535]];
        let bytes = encode_bundle(entries.into_iter());
        assert_eq!(decode_bundle(&bytes).unwrap(), entries);
        assert_eq!(decode_bundle(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode_bundle(&[0]), None);
    }
}
