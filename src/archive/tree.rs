//! The RFC 6962 Merkle tree: hashes, the frontier that grows it, inclusion and consistency proofs.
//!
//! Nothing here holds a tree. A writer keeps the [`Frontier`] (one hash a level); a proof is a list
//! of ranges whose roots are needed, and each range a few complete subtrees, so whoever has the
//! tiles knows which hashes to fetch before it fetches any.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// A SHA-256 hash of the tree.
pub type Hash = [u8; 32];

/// Hash of an entry: a leaf's data can never pass for two nodes.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// Hash of two subtrees.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the tree of no leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Roots of the complete subtrees that cover the tree, the largest first: all that appending needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    stack: Vec<Hash>,
}

impl Frontier {
    /// The frontier of `size` leaves; `None` unless there is one hash for every set bit of it.
    pub fn new(size: u64, stack: Vec<Hash>) -> Option<Frontier> {
        (stack.len() == size.count_ones() as usize).then_some(Frontier { size, stack })
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One hash for every set bit of the size, the largest subtree first.
    pub fn hashes(&self) -> &[Hash] {
        &self.stack
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let (mut hash, mut rest) = (leaf, self.size);
        while rest & 1 == 1 {
            if let Some(left) = self.stack.pop() {
                hash = node_hash(&left, &hash);
            }
            rest >>= 1;
        }
        self.stack.push(hash);
        self.size += 1;
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        fold(&self.stack).unwrap_or_else(empty_root)
    }

    /// Inclusion path of the next leaf in the tree that ends with it.
    pub fn path_of_next(&self) -> Vec<Hash> {
        self.stack.iter().rev().copied().collect()
    }
}

/// Root of neighbouring subtrees, left to right.
fn fold(hashes: &[Hash]) -> Option<Hash> {
    hashes.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// Root of the tree over these leaf hashes.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// A complete subtree: `2^level` leaves from `index * 2^level` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Height; 0 is a leaf.
    pub level: u8,
    /// Which of its level, from the left.
    pub index: u64,
}

/// The complete subtrees that a range of a proof consists of, left to right.
pub fn nodes_of(range: Range<u64>) -> Vec<Node> {
    let Range { mut start, end } = range;
    let mut nodes = Vec::new();
    while start < end {
        let level = start.trailing_zeros().min((end - start).ilog2());
        nodes.push(Node { level: level as u8, index: start >> level });
        start += 1 << level;
    }
    nodes
}

/// Root of a range, from the hashes of [`nodes_of`] it.
pub fn range_root(hashes: &[Hash]) -> Hash {
    fold(hashes).unwrap_or_else(empty_root)
}

/// Where a tree of `size` leaves (at least 2) is split: the largest power of two below it.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The ranges whose roots are the inclusion path of a leaf, in the path's order. Empty when there
/// is no such leaf.
pub fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while index < size && end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The ranges whose roots prove that the tree of `old` leaves is a prefix of the one of `new`.
/// Empty when there is nothing to prove (`old` is 0 or `new`) or nothing that could be.
pub fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    if old == 0 || old >= new {
        return ranges;
    }
    let (mut start, mut end) = (0, new);
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            ranges.push(middle..end);
            end = middle;
        } else {
            ranges.push(start..middle);
            start = middle;
        }
    }
    if start > 0 {
        ranges.push(start..end);
    }
    ranges.reverse();
    ranges
}

/// The root that an inclusion path leads to (RFC 9162, 2.1.3.2); `None` when the path does not have
/// the length that index and size ask for.
pub fn root_from_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// True when the proof shows that the tree (`old`, `old_root`) is a prefix of (`new`, `new_root`)
/// (RFC 9162, 2.1.4.2).
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ((old, old_root), (new, new_root)) = (old, new);
    if old == 0 || old >= new {
        let is_same = old == new && old_root == new_root;
        let is_from_empty = old == 0 && old_root == empty_root();
        return proof.is_empty() && (is_same || (is_from_empty && old < new));
    }
    let mut path = proof.iter();
    let seed = if old.is_power_of_two() { Some(&old_root) } else { path.next() };
    let Some(seed) = seed else { return false };
    let (mut from_old, mut from_new) = (*seed, *seed);
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            from_old = node_hash(sibling, &from_old);
            from_new = node_hash(sibling, &from_new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && from_old == old_root && from_new == new_root
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962, 2.1, word for word.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&naive_root(left), &naive_root(right))
            }
        }
    }

    /// RFC 6962, 2.1.1, word for word.
    fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() < 2 {
            return Vec::new();
        }
        let middle = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(middle);
        let (mut path, sibling) = if index < middle {
            (naive_path(index, left), naive_root(right))
        } else {
            (naive_path(index - middle, right), naive_root(left))
        };
        path.push(sibling);
        path
    }

    /// RFC 6962, 2.1.2, word for word.
    fn naive_consistency(old: usize, leaves: &[Hash], is_known: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if is_known { Vec::new() } else { vec![naive_root(leaves)] };
        }
        let middle = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(middle);
        let (mut proof, sibling) = if old <= middle {
            (naive_consistency(old, left, is_known), naive_root(right))
        } else {
            (naive_consistency(old - middle, right, false), naive_root(left))
        };
        proof.push(sibling);
        proof
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|at| leaf_hash(&at.to_le_bytes())).collect()
    }

    fn roots(ranges: &[Range<u64>], leaves: &[Hash]) -> Vec<Hash> {
        let hash = |node: &Node| {
            let start = (node.index << node.level) as usize;
            naive_root(&leaves[start..start + (1 << node.level)])
        };
        ranges
            .iter()
            .map(|range| range_root(&nodes_of(range.clone()).iter().map(hash).collect::<Vec<_>>()))
            .collect()
    }

    #[test]
    fn every_proof_of_every_small_tree_is_that_of_the_specification() {
        let all = leaves(70);
        for size in 0..all.len() {
            let leaves = &all[..size];
            let root = naive_root(leaves);
            assert_eq!(root_of(leaves), root);
            for (index, leaf) in leaves.iter().enumerate() {
                let path = naive_path(index, leaves);
                let ranges = inclusion_ranges(index as u64, size as u64);
                assert_eq!(roots(&ranges, leaves), path, "leaf {index} of {size}");
                let found = root_from_inclusion(*leaf, index as u64, size as u64, &path);
                assert_eq!(found, Some(root));
            }
            for old in 1..=size {
                let proof = naive_consistency(old, leaves, true);
                let ranges = consistency_ranges(old as u64, size as u64);
                assert_eq!(roots(&ranges, leaves), proof, "{old} of {size}");
                let old_tree = (old as u64, naive_root(&leaves[..old]));
                assert!(is_consistent(old_tree, (size as u64, root), &proof));
            }
            let empty = (0, empty_root());
            assert!(is_consistent(empty, (size as u64, root), &[]));
        }
    }

    #[test]
    fn the_frontier_knows_the_path_of_the_next_leaf() {
        let all = leaves(300);
        let mut frontier = Frontier::default();
        for (index, leaf) in all.iter().enumerate() {
            assert_eq!(frontier.path_of_next(), naive_path(index, &all[..=index]));
            frontier.push(*leaf);
            let copy = Frontier::new(frontier.size(), frontier.hashes().to_vec());
            assert_eq!(copy.as_ref(), Some(&frontier));
        }
        assert_eq!(Frontier::new(3, vec![[0; 32]]), None);
    }

    proptest! {
        #[test]
        fn nothing_but_the_proof_itself_is_accepted(
            size in 2usize..400, index: prop::sample::Index, at: prop::sample::Index,
            bit in 0usize..256,
            old: prop::sample::Index, cut: bool,
        ) {
            let leaves = leaves(size);
            let (root, index) = (naive_root(&leaves), index.index(size));
            let mut path = naive_path(index, &leaves);
            let place = at.index(path.len());
            if cut { path.remove(place); } else { path[place][bit / 8] ^= 1 << (bit % 8); }
            let found = root_from_inclusion(leaves[index], index as u64, size as u64, &path);
            prop_assert_ne!(found, Some(root));
            let old = 1 + old.index(size - 1);
            let mut proof = naive_consistency(old, &leaves, true);
            let place = at.index(proof.len());
            if cut { proof.remove(place); } else { proof[place][bit / 8] ^= 1 << (bit % 8); }
            let old_tree = (old as u64, naive_root(&leaves[..old]));
            prop_assert!(!is_consistent(old_tree, (size as u64, root), &proof));
        }
    }
}
