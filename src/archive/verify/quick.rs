//! The newest head, the tiles that it stands on, and heads that are known from elsewhere: as many
//! reads as the logarithm of the log's length.

use crate::archive::layout::{CHECKPOINT, TILES, commit_key};
use crate::archive::reader::{self, TileReader};
use crate::archive::recover::{self, Commit, read_commit};
use crate::archive::store::{self, Store};
use crate::archive::tile::TILE_WIDTH;
use crate::archive::tree::{Frontier, Hash, empty_root, is_consistent, leaf_hash};
use crate::archive::verify::{Class, Known, Options, Report};

pub(crate) async fn verify(
    store: &dyn Store,
    options: &Options,
    size: u64,
    known: &[Known],
    report: &mut Report,
) -> Result<(), store::Error> {
    let pointer = known.iter().find(|known| known.source == CHECKPOINT);
    let full = size / TILE_WIDTH * TILE_WIDTH;
    let published = pointer.map_or(full, |pointer| pointer.head.size);
    let Some(mut frontier) = published_tree(store, published, report).await? else { return Ok(()) };
    let (published, root) = (frontier.size(), frontier.root());
    let Some(signed) = signed_root(store, options, published, pointer, report).await? else {
        return Ok(());
    };
    if signed != root {
        let text = format!("they do not make the root that was signed for {published} records");
        report.add(Class::Altered, TILES, text);
        let other = |known: &&Known| known.head.size == published && known.head.root != signed;
        for known in known.iter().filter(other) {
            report.add(Class::Fork, &known.source, "another root was signed for this size");
        }
        return Ok(());
    }
    for known in known.iter().filter(|known| known.head.size <= published) {
        consistent(store, (published, root), known, report).await?;
    }
    for seq in published..size {
        let Some(commit) = commit(store, options, seq, report).await? else { return Ok(()) };
        frontier.push(leaf_hash(&commit.proof.extra));
        let heads = known.iter().filter(|known| known.head.size == frontier.size());
        let heads = heads.map(|known| (known.source.as_str(), known.head.root));
        let key = commit_key(seq);
        for (source, root) in heads.chain([(key.as_str(), commit.head.root)]) {
            if root != frontier.root() {
                report.add(Class::Fork, source, "another root was signed for this size");
            }
        }
        report.records += 1;
        report.head = Some(commit.head);
        report.note = commit.proof.note;
    }
    if report.head.is_none()
        && let Some(pointer) = pointer
    {
        report.head = Some(pointer.head.clone());
        report.note.clone_from(&pointer.note);
    }
    Ok(())
}

/// The root that was signed for the size that is published; `None` where it cannot be had.
async fn signed_root(
    store: &dyn Store,
    options: &Options,
    published: u64,
    pointer: Option<&Known>,
    report: &mut Report,
) -> Result<Option<Hash>, store::Error> {
    let Some(last) = published.checked_sub(1) else { return Ok(Some(empty_root())) };
    if let Some(pointer) = pointer {
        return Ok(Some(pointer.head.root));
    }
    let commit = commit(store, options, last, report).await?;
    Ok(commit.map(|commit| commit.head.root))
}

/// A commit; `None`, and a finding, where it cannot be had.
async fn commit(
    store: &dyn Store,
    options: &Options,
    seq: u64,
    report: &mut Report,
) -> Result<Option<Commit>, store::Error> {
    match read_commit(store, seq, &options.key).await {
        Err(recover::Error::Store(error)) => return Err(error),
        Err(recover::Error::Missing(key)) => {
            report.add(Class::Missing, &key, "there is no such object");
        }
        Err(error) => report.add(Class::Altered, &commit_key(seq), error.to_string()),
        Ok(commit) => return Ok(Some(commit)),
    }
    Ok(None)
}

/// The tree that the tiles make; `None` when they make none.
async fn published_tree(
    store: &dyn Store,
    published: u64,
    report: &mut Report,
) -> Result<Option<Frontier>, store::Error> {
    match TileReader::new(store, published).frontier().await {
        Ok(hashes) => Ok(Frontier::new(published, hashes)),
        Err(error) => {
            tile_finding(error, report)?;
            Ok(None)
        }
    }
}

fn tile_finding(error: reader::Error, report: &mut Report) -> Result<(), store::Error> {
    match error {
        reader::Error::Store(error) => return Err(error),
        reader::Error::Missing(key) => report.add(Class::Missing, &key, "there is no such object"),
        reader::Error::Altered(key) => report.add(Class::Altered, &key, "not a tile of its width"),
    }
    Ok(())
}

async fn consistent(
    store: &dyn Store,
    tree: (u64, Hash),
    known: &Known,
    report: &mut Report,
) -> Result<(), store::Error> {
    let mut tiles = TileReader::new(store, tree.0);
    let proof = match tiles.consistency(known.head.size).await {
        Ok(proof) => proof,
        Err(error) => return tile_finding(error, report),
    };
    if is_consistent((known.head.size, known.head.root), tree, &proof) {
        return Ok(());
    }
    // Either the tiles below are not those of the signed root, or two histories were signed.
    match tiles.altered().await {
        Ok(Some(key)) => report.add(Class::Altered, &key, "not what the tile above it says"),
        Ok(None) => {
            let size = known.head.size;
            let text = format!("{size} records were signed that the tiles do not hold");
            report.add(Class::Fork, &known.source, text);
        }
        Err(error) => return tile_finding(error, report),
    }
    Ok(())
}
