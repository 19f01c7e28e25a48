//! The newest head, the tiles that it stands on, and heads that are known from elsewhere: as many
//! reads as the logarithm of the log's length.

use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::reader::{self, TileReader};
use crate::archive::recover::{self, read_commit};
use crate::archive::store::{self, Store};
use crate::archive::tile::TILE_WIDTH;
use crate::archive::tree::{Frontier, is_consistent, leaf_hash};
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
    for known in known.iter().filter(|known| known.head.size <= published) {
        consistent(store, (published, root), known, report).await?;
    }
    for seq in published..size {
        let commit = match read_commit(store, seq, &options.key).await {
            Err(recover::Error::Store(error)) => return Err(error),
            Err(recover::Error::Missing(key)) => {
                report.add(Class::Missing, &key, "there is no such object");
                return Ok(());
            }
            Err(error) => {
                report.add(Class::Altered, &commit_key(seq), error.to_string());
                return Ok(());
            }
            Ok(commit) => commit,
        };
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
    tree: (u64, crate::archive::tree::Hash),
    known: &Known,
    report: &mut Report,
) -> Result<(), store::Error> {
    let proof = match TileReader::new(store, tree.0).consistency(known.head.size).await {
        Ok(proof) => proof,
        Err(error) => return tile_finding(error, report),
    };
    if !is_consistent((known.head.size, known.head.root), tree, &proof) {
        // The archive's own pointer disagrees with its tiles, or two signed heads with each other.
        let class = if known.source == CHECKPOINT { Class::Altered } else { Class::Fork };
        let text = format!("{} records were signed that the tiles do not hold", known.head.size);
        report.add(class, &known.source, text);
    }
    Ok(())
}
