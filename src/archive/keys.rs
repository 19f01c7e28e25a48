//! The keys of a log whose key was changed. The record that names the new key is signed by the old
//! one (and by the new, which shows that it exists); all that follows by the new one. Whoever knows
//! one of the keys finds the others in the log, by asking for a few single commits.

use crate::archive::layout::commit_key;
use crate::archive::note::Verifier;
use crate::archive::proof::Proof;
use crate::archive::record::{Kind, Record};
use crate::archive::recover::{COMMIT_BYTES_MAX, Commit, find_size};
use crate::archive::store::{self, Store};

/// Keys that a log may have had.
const KEYS_MAX: usize = 64;

/// What a record of kind `key` or `genesis` calls the key.
pub const KEY: &str = "key";

/// The keys of the log in `store` that `pinned` is one of, as far as the archive shows them: each
/// is vouched for by the one before it. `pinned` alone where it is none of them, so that nothing
/// else is believed.
///
/// # Errors
/// The store's.
pub async fn follow(store: &dyn Store, pinned: Verifier) -> Result<Verifier, store::Error> {
    let size = find_size(store).await?;
    let Some(first) = first_key(store).await?.filter(|key| key.name() == pinned.name()) else {
        return Ok(forward(store, pinned, size).await?.unwrap_or_else(|alone| alone));
    };
    let keys = forward(store, first, size).await?.unwrap_or_else(|keys| keys);
    if keys.has(&pinned) {
        return Ok(keys);
    }
    Ok(forward(store, pinned, size).await?.unwrap_or_else(|alone| alone))
}

/// The key that the first record names, which nothing vouches for.
async fn first_key(store: &dyn Store) -> Result<Option<Verifier>, store::Error> {
    let bytes = read(store, 0).await?;
    let proof = bytes.and_then(|bytes| Proof::decode(&bytes).ok());
    let record = proof.and_then(|proof| Record::decode(&proof.extra));
    Ok(record.and_then(|record| Verifier::parse(record.says.get(KEY)?).ok()))
}

async fn read(store: &dyn Store, seq: u64) -> Result<Option<bytes::Bytes>, store::Error> {
    match store.read(&commit_key(seq), COMMIT_BYTES_MAX).await {
        Err(store::Error::TooLarge { .. }) => Ok(None),
        other => other,
    }
}

/// Goes from key to key. `Err` holds the keys up to where the archive does not show the next.
async fn forward(
    store: &dyn Store,
    mut keys: Verifier,
    size: u64,
) -> Result<Result<Verifier, Verifier>, store::Error> {
    let mut from = 0;
    while keys.former() < KEYS_MAX && from < size {
        let Some(last) = last_signed(store, &keys, from, size).await? else { return Ok(Err(keys)) };
        if last + 1 >= size {
            return Ok(Ok(keys));
        }
        let commit = read(store, last).await?.and_then(|it| Commit::decode(&it, last, &keys).ok());
        let record = commit.map(|commit| commit.record).filter(|it| it.kind == Kind::Key);
        let next = record.and_then(|record| Verifier::parse(record.says.get(KEY)?).ok());
        match next.and_then(|next| keys.followed_by(last + 1, &next)) {
            Some(next) => keys = next,
            None => return Ok(Err(keys)),
        }
        from = last + 1;
    }
    Ok(Ok(keys))
}

/// The last commit from `from` on that the newest key signed: those behind it are another key's.
async fn last_signed(
    store: &dyn Store,
    keys: &Verifier,
    from: u64,
    size: u64,
) -> Result<Option<u64>, store::Error> {
    let (mut known, mut end) = (None, size);
    if let (_, true) = signed_at(store, keys, size - 1, size).await? {
        return Ok(Some(size - 1));
    }
    let mut low = from;
    while low < end {
        let middle = low + (end - low) / 2;
        // Commits that cannot be read say nothing; the next one does.
        match signed_at(store, keys, middle, end).await? {
            (at, true) => {
                known = Some(at);
                low = at + 1;
            }
            (_, false) => end = middle,
        }
    }
    Ok(known)
}

/// Looks at the first commit from `seq` on that can be read: its place, and whether the newest key
/// signed it.
async fn signed_at(
    store: &dyn Store,
    keys: &Verifier,
    seq: u64,
    end: u64,
) -> Result<(u64, bool), store::Error> {
    for at in seq..end {
        let proof = read(store, at).await?.and_then(|bytes| Proof::decode(&bytes).ok());
        if let Some(proof) = proof {
            return Ok((at, keys.open(&proof.note).is_ok()));
        }
    }
    Ok((seq, false))
}
