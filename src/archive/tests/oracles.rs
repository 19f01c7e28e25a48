//! What the log is made of, against Cloudflare's implementation of signed notes and tiled logs.

use std::sync::Arc;

use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::{
    Error, Hash, HashReader as _, Tile, TileHashReader, TileReader as Theirs, check_record,
    check_tree, prove_record, prove_tree, record_hash, stored_hash_index, tree_hash,
};

use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::proof::Proof;
use crate::archive::reader::TileReader;
use crate::archive::sim::Memory;
use crate::archive::tests::{append, open, signer};

/// The tiles of an archive, as the crate asks for them: by Go's paths, with the height in them.
struct Tiles(Memory);

impl Theirs for Tiles {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let contents = self.0.contents();
        let read = |tile: &Tile| {
            let path = tile.path().replacen("tile/8/", "tile/", 1);
            contents.get(&path).map(|bytes| bytes.to_vec()).ok_or(Error::IndexesNotInTree)
        };
        tiles.iter().map(read).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn theirs(hashes: &[[u8; 32]]) -> Vec<Hash> {
    hashes.iter().copied().map(Hash).collect()
}

#[tokio::test]
async fn another_implementation_verifies_checkpoints_tiles_and_proofs() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let mut writer = open(&store, dir.path()).await.unwrap();
    let key = signer().verifier();
    let known = StandardVerifier::new(&key.to_string()).unwrap();
    let known = VerifierList::new(vec![Box::new(known)]);
    let mut seq = 0;
    let mut before: Vec<(u64, Hash)> = Vec::new();
    for size in [1, 2, 3, 4, 7, 8, 100, 255, 256, 257, 300, 511, 512, 513, 700] {
        while writer.size() < size {
            // Numbers of alerts are left out: they would be a second record.
            seq += if seq % 5 == 3 { 2 } else { 1 };
            append(&mut writer, seq..=seq).await.unwrap();
        }
        writer.publish(0).await.unwrap();
        let contents = store.contents();
        let note = Note::from_bytes(&contents[CHECKPOINT]).unwrap();
        let (verified, others) = note.verify(&known).unwrap();
        assert_eq!((verified.len(), others.len()), (1, 0));
        let head = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!((head.origin(), head.size(), head.extension()), (key.name(), size, ""));
        let (root, tiles) = (*head.hash(), Tiles(store.copy()));
        let reader = TileHashReader::new(size, root, &tiles);
        assert_eq!(tree_hash(size, &reader).unwrap(), root);
        for index in [0, 1, size / 3, size / 2, size - 1].into_iter().filter(|at| *at < size) {
            let commit = Proof::decode(&contents[&commit_key(index)]).unwrap();
            let leaf = record_hash(&commit.extra);
            let found = reader.read_hashes(&[stored_hash_index(0, index)]).unwrap();
            assert_eq!(found, [leaf]);
            let ours = theirs(&TileReader::new(&tiles.0, size).inclusion(index).await.unwrap());
            check_record(&ours, size, root, index, leaf).unwrap();
            assert_eq!(ours, prove_record(size, index, &reader).unwrap());
            // The commit proves its record in the tree that ends with it.
            let own = key.checkpoint(&commit.note).unwrap();
            check_record(&theirs(&commit.path), own.size, Hash(own.root), index, leaf).unwrap();
        }
        for (old, old_root) in &before {
            let ours = theirs(&TileReader::new(&tiles.0, size).consistency(*old).await.unwrap());
            check_tree(&ours, size, root, *old, *old_root).unwrap();
            assert_eq!(ours, prove_tree(size, *old, &reader).unwrap());
        }
        before.push((size, root));
    }
}
