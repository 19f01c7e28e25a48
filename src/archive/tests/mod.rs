//! The log as a whole: what a writer leaves, however it is killed, checked by the plainest auditor.

mod costs;
mod crash;
mod fake;
mod keys;
mod kms;
mod oracles;
mod reading;
mod stores;
mod tamper;
mod traps;
mod vectors;
mod witness;

use std::path::Path;
use std::sync::Arc;

use crate::archive::layout::{COMMITS, commit_key, segment_key};
use crate::archive::note::{Checkpoint, Signer, Verifier};
use crate::archive::proof::Proof;
use crate::archive::record::{Kind, Record};
use crate::archive::seal::Item;
use crate::archive::segment::{Line, read_lines};
use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tile::{Tile, decode_bundle, hashes_of, tiles_between};
use crate::archive::tree::{Frontier, Hash, leaf_hash, root_of};
use crate::archive::writer::{Error, Options, Writer};

/// 2025-11-21T23:00:00Z.
pub(crate) const NOW_US: i64 = 1_763_766_000_000_000;

pub(crate) fn signer() -> Signer {
    Signer::new("audit.example.com/prod-eu1/cp-1", &[7; 32]).unwrap()
}

pub(crate) fn raw(seq: u64) -> Vec<u8> {
    format!("{{\"auditID\":\"{seq:08}\",\"verb\":\"get\"}}").into_bytes()
}

pub(crate) fn items(raws: &[(u64, Vec<u8>)]) -> Vec<Item<'_>> {
    raws.iter()
        .map(|(seq, raw)| Item {
            kind: if seq % 5 == 4 { Kind::Alerts } else { Kind::Events },
            cluster: "prod-1",
            line: Line {
                raw,
                seq: *seq,
                time_us: NOW_US + *seq as i64,
                received_us: NOW_US,
                flags: 0,
                source: "log",
                position: "audit.log:1",
            },
        })
        .collect()
}

pub(crate) fn batch(seqs: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    seqs.map(|seq| (seq, raw(seq))).collect()
}

pub(crate) async fn open(store: &Arc<Memory>, dir: &Path) -> Result<Writer, Error> {
    let mut state = State::open(dir)?;
    state.fuse = Some(store.fuse.clone());
    let options = Options { publish_us: i64::MAX, ..Options::default() };
    Writer::open_with(store.clone(), signer(), state, options, NOW_US).await
}

pub(crate) async fn append(
    writer: &mut Writer,
    seqs: std::ops::RangeInclusive<u64>,
) -> Result<(), Error> {
    let through = *seqs.end();
    let raws = batch(seqs);
    writer.append(&items(&raws), through, NOW_US).await.map(drop)
}

/// Reads the log as its specification says, without any code of the verifier: every commit, every
/// segment, every tile. Returns the lines in the order of the spool, and the kinds of records.
pub(crate) fn audit(memory: &Memory) -> (Vec<Vec<u8>>, Vec<Kind>) {
    let objects = memory.contents();
    let key: Verifier = signer().verifier();
    let (mut leaves, mut kinds): (Vec<Hash>, Vec<Kind>) = Default::default();
    let mut lines: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut through = (String::new(), 0, 0);
    let mut tree = Frontier::default();
    let commits = objects.keys().filter(|key| key.starts_with(COMMITS)).count() as u64;
    for seq in 0..commits {
        let proof = Proof::decode(&objects[&commit_key(seq)]).unwrap();
        let record = Record::decode(&proof.extra).unwrap();
        leaves.push(leaf_hash(&proof.extra));
        tree.push(leaf_hash(&proof.extra));
        // Signatures take long without optimisation, and only the last records are ever in doubt.
        let is_new = seq + 5 > commits;
        let text = proof.note.split("\n\n").next().unwrap();
        let unproven = || Checkpoint::parse(&format!("{text}\n"));
        let head = if is_new { key.checkpoint(&proof.note) } else { unproven() }.unwrap();
        assert_eq!((head.size, head.root), (seq + 1, tree.root()));
        assert_eq!((record.seq, proof.index), (seq, seq));
        if through.0 == record.spool && record.after != through.1 {
            assert_eq!(record.after, through.2, "record {seq}");
        }
        through = (record.spool.clone(), record.after, record.through);
        if let Some(segment) = &record.segment {
            let object = &objects[&segment.object];
            let before = lines.len();
            read_lines(object, segment.raw_size, |_, line| {
                lines.push((segment.first, line.to_vec()));
                true
            })
            .unwrap();
            let hashes: Vec<_> = lines[before..].iter().map(|(_, line)| leaf_hash(line)).collect();
            assert_eq!(segment.event_root, crate::archive::note::text_of_hash(&root_of(&hashes)));
            let sha256: Hash =
                sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(object))
                    .into();
            assert_eq!(segment.object, segment_key(record.kind, seq, NOW_US, &sha256));
        }
        kinds.push(record.kind);
        records.push(proof.extra);
    }
    for tile in tiles_between(0, commits).into_iter().filter(Tile::is_full) {
        let hashes = hashes_of(&objects[&tile.path()]).unwrap();
        let span = 1 << (8 * u32::from(tile.level));
        let first = tile.range().start as usize * span;
        let expected = leaves[first..first + 256 * span].chunks(span).map(root_of);
        assert_eq!(hashes, expected.collect::<Vec<_>>(), "{}", tile.path());
        if tile.level == 0 {
            let bundle = decode_bundle(&objects[&tile.entries_path()]).unwrap();
            assert_eq!(bundle, records[first..first + 256]);
        }
    }
    let mut sorted: Vec<Vec<u8>> = lines.into_iter().map(|(_, line)| line).collect();
    sorted.sort();
    (sorted, kinds)
}
