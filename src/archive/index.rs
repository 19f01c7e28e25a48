//! The index of a segment, beside its lines: so that one line is found and proven by reading its
//! frame and the object's end, not all of it.
//!
//! ```text
//! "kwx1" │ u32 frames │ lines of each frame, u32 each │ roots of 256 lines each, 32 bytes each
//! ```
//! Numbers are little-endian. The last root is of what is left, fewer than 256 lines, or absent
//! where nothing is. Everything in it follows from the lines; a reader that is misled by it makes a
//! proof that does not hold, and reads the lines instead.

use std::ops::Range;

use crate::archive::tree::{Frontier, Hash, inclusion_ranges, nodes_of, range_root, root_of};

const MAGIC: [u8; 4] = *b"kwx1";
/// Lines under one root.
const BLOCK: u64 = 256;

/// Where the lines of a segment lie, and hashes of 256 of them each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Lines of each frame.
    lines: Vec<u64>,
    /// Roots of complete blocks, and of the rest.
    roots: Vec<Hash>,
    /// The tree over complete blocks, and that of the lines behind them.
    blocks: Frontier,
    open: Frontier,
    in_frame: u64,
}

impl Index {
    /// Takes the next line's leaf.
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.open.push(leaf);
        self.in_frame += 1;
        if self.open.size() == BLOCK {
            let root = std::mem::take(&mut self.open).root();
            self.roots.push(root);
            self.blocks.push(root);
        }
    }

    /// Lines so far.
    pub(crate) fn count(&self) -> u64 {
        self.blocks.size() * BLOCK + self.open.size()
    }

    /// Root of the tree over all lines so far, of which there must be one: a complete block is a
    /// subtree like any other, so no node is hashed twice for it.
    pub(crate) fn root(&self) -> Hash {
        range_root(&[self.blocks.hashes(), self.open.hashes()].concat())
    }

    /// The lines since the last frame are one.
    pub(crate) fn close_frame(&mut self) {
        self.lines.push(std::mem::take(&mut self.in_frame));
    }

    /// The index of all that was pushed.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(self.lines.len() as u32).to_le_bytes());
        for lines in &self.lines {
            bytes.extend_from_slice(&(*lines as u32).to_le_bytes());
        }
        self.roots.iter().for_each(|root| bytes.extend_from_slice(root));
        if self.open.size() > 0 {
            bytes.extend_from_slice(&self.open.root());
        }
        bytes
    }

    /// Reads the index of a segment of so many frames and lines; `None` when it is none.
    pub(crate) fn decode(bytes: &[u8], frames: usize, count: u64) -> Option<Index> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (lines, roots) = rest.split_at_checked(frames.checked_mul(4)?)?;
        let (lines, _) = lines.as_chunks::<4>();
        let lines: Vec<u64> = lines.iter().map(|it| u64::from(u32::from_le_bytes(*it))).collect();
        let (roots, left) = roots.as_chunks::<32>();
        let is_right = u32::from_le_bytes(*number) as usize == frames
            && left.is_empty()
            && lines.iter().sum::<u64>() == count
            && roots.len() as u64 == count.div_ceil(BLOCK);
        is_right.then(|| Index { lines, roots: roots.to_vec(), ..Index::default() })
    }

    /// Lines of each frame.
    pub fn lines(&self) -> &[u64] {
        &self.lines
    }

    /// The frames that hold these lines, and how many lines come before them; `None` when there are
    /// no such lines.
    pub fn frames_of(&self, wanted: Range<u64>) -> Option<(Range<usize>, u64)> {
        let mut end = 0;
        let ends: Vec<u64> = self.lines.iter().map(|lines| (end += lines, end).1).collect();
        let first = ends.iter().position(|end| *end > wanted.start)?;
        let last = ends.iter().position(|end| *end >= wanted.end)?;
        Some((first..last + 1, ends[first] - self.lines[first]))
    }

    /// The lines under the same root as this one.
    pub fn block_of(&self, line: u64) -> Range<u64> {
        let start = line / BLOCK * BLOCK;
        start..(start + BLOCK).min(self.lines.iter().sum())
    }

    /// The inclusion path of a line in the segment's tree, from the leaves of its block; `None`
    /// when these are not as many as the block has lines.
    pub fn path(&self, line: u64, leaves: &[Hash]) -> Option<Vec<Hash>> {
        let (block, count) = (self.block_of(line), self.lines.iter().sum());
        if leaves.len() as u64 != block.end - block.start {
            return None;
        }
        let within = |range: &Range<u64>| {
            let at = |place: u64| (place - block.start) as usize;
            root_of(&leaves[at(range.start)..at(range.end)])
        };
        let above = |range: &Range<u64>| {
            let nodes = nodes_of(range.start / BLOCK..range.end / BLOCK);
            let mut hashes = Vec::new();
            for node in nodes {
                let first = node.index << node.level;
                hashes.push(root_of(self.roots.get(first as usize..)?.get(..1 << node.level)?));
            }
            // The rest, fewer than a block, is the last root; it is right of everything.
            if !range.end.is_multiple_of(BLOCK) {
                hashes.push(*self.roots.last()?);
            }
            Some(range_root(&hashes))
        };
        let ranges = inclusion_ranges(line, count);
        let inside = |range: &Range<u64>| range.start >= block.start && range.end <= block.end;
        ranges.iter().map(|it| if inside(it) { Some(within(it)) } else { above(it) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tree::{leaf_hash, root_from_inclusion};

    #[test]
    fn every_path_leads_to_the_root() {
        for count in [1, 2, 255, 256, 257, 512, 513, 1_000, 1_025, 2_100] {
            let leaves: Vec<Hash> =
                (0..count).map(|at: u64| leaf_hash(&at.to_le_bytes())).collect();
            let (mut index, root) = (Index::default(), root_of(&leaves));
            for (place, leaf) in leaves.iter().enumerate() {
                index.push(*leaf);
                if place % 300 == 299 || place as u64 + 1 == count {
                    index.close_frame();
                }
            }
            assert_eq!((index.count(), index.root()), (count, root));
            let frames = index.lines.len();
            let index = Index::decode(&index.encode(), frames, count).unwrap();
            for line in (0..count).filter(|line| line % 37 < 2 || line + 1 == count) {
                let block = index.block_of(line);
                let path = index.path(line, &leaves[block.start as usize..block.end as usize]);
                let found = root_from_inclusion(leaves[line as usize], line, count, &path.unwrap());
                assert_eq!(found, Some(root), "{line} of {count}");
                let (frames, before) = index.frames_of(block.clone()).unwrap();
                assert!(before <= block.start && before % 300 == 0);
                let held: u64 = index.lines[frames].iter().sum();
                assert!(before + held >= block.end);
            }
            assert_eq!(index.frames_of(count..count + 1), None);
            assert_eq!(index.path(0, &leaves[..0]), None);
        }
    }

    #[test]
    fn its_bytes_are_those_of_the_specification() {
        let leaves = [leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")];
        let mut index = Index::default();
        index.push(leaves[0]);
        index.push(leaves[1]);
        index.close_frame();
        index.push(leaves[2]);
        index.close_frame();
        let head = b"kwx1\x02\0\0\0\x02\0\0\0\x01\0\0\0";
        assert_eq!(index.encode(), [&head[..], &root_of(&leaves)].concat());
    }

    #[test]
    fn what_does_not_fit_the_segment_is_no_index() {
        let mut index = Index::default();
        (0..300).for_each(|at: u32| index.push(leaf_hash(&at.to_le_bytes())));
        index.close_frame();
        let bytes = index.encode();
        assert!(Index::decode(&bytes, 1, 300).is_some());
        for (bytes, frames, count) in [
            (&bytes[..], 2, 300),
            (&bytes[..], 1, 299),
            (&bytes[..bytes.len() - 1], 1, 300),
            (&bytes[..bytes.len() - 32], 1, 300),
            (&bytes[1..], 1, 300),
            (b"kwx1", 1, 300),
            (&bytes[..], usize::MAX, 300),
        ] {
            assert_eq!(Index::decode(bytes, frames, count), None);
        }
    }
}
