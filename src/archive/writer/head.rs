//! Where a writer goes on: behind what it signed, and behind nothing that others did.

use crate::archive::keys::KEY;
use crate::archive::layout::{COMMITS, commit_key, commit_seq};
use crate::archive::note::{Verifier, text_of_bytes};
use crate::archive::record::Kind;
use crate::archive::recover::{self, COMMIT_BYTES_MAX};
use crate::archive::seal::Draft;
use crate::archive::state::{Floor, Intent, Last};
use crate::archive::store::{Put, Store};
use crate::archive::tree::Frontier;
use crate::archive::writer::{self, Writer};

/// The first record that an intent commits.
pub(crate) fn first_commit(intent: &Intent) -> Option<u64> {
    intent.objects.iter().find_map(|(key, _)| commit_seq(key))
}

/// The head of a writer that kept its disk: where its floor is, with nothing of others behind it.
pub(crate) async fn with_floor(
    store: &dyn Store,
    floor: &Floor,
    intent: Option<&Intent>,
) -> Result<u64, writer::Error> {
    let size = floor.size;
    if let Some(last) = size.checked_sub(1)
        && !recover::is_committed(store, last).await?
    {
        let found = recover::find_size(store).await?;
        return Err(writer::Error::Rollback { found, expected: size });
    }
    let commits = intent.filter(|intent| first_commit(intent) == Some(size));
    let pending = commits.map_or(0, |intent| {
        intent.objects.iter().filter(|(key, _)| key.starts_with(COMMITS)).count() as u64
    });
    if recover::is_committed(store, size + pending).await? {
        return Err(writer::Error::Fork(commit_key(size + pending)));
    }
    Ok(size)
}

/// The head of a writer without its disk: the last commit, unless anything says that there were
/// more. A deletion marker makes an object look absent, and lets it be created again.
pub(crate) async fn without_floor(store: &dyn Store, key: &Verifier) -> Result<u64, writer::Error> {
    let size = recover::find_size(store).await?;
    let pointer = recover::read_pointer(store, key).await?;
    if let Some(pointer) = pointer.filter(|pointer| pointer.size > size) {
        return Err(writer::Error::Rollback { found: size, expected: pointer.size });
    }
    if !store.shadows(&commit_key(size)).await?.is_empty() {
        return Err(writer::Error::Rollback { found: size, expected: size + 1 });
    }
    Ok(size)
}

/// Refuses a store that does not hold conditions: the last commit, with the bytes that it has, must
/// not be created again.
pub(crate) async fn conditional(store: &dyn Store, size: u64) -> Result<(), writer::Error> {
    let Some(last) = size.checked_sub(1) else { return Ok(()) };
    let key = commit_key(last);
    let Some(bytes) = store.read(&key, COMMIT_BYTES_MAX).await? else { return Ok(()) };
    match store.create(&key, bytes).await? {
        Put::Exists => Ok(()),
        Put::Created => Err(writer::Error::Unconditional(key)),
    }
}

/// The floor of a writer that has none: where the store is, with a spool of its own.
pub(crate) fn new_floor(key: &str, frontier: &Frontier) -> Floor {
    Floor {
        v: 1,
        key: key.to_owned(),
        size: frontier.size(),
        root: frontier.root(),
        spool: new_spool_name(),
        through: 0,
        last: Last::default(),
    }
}

impl Writer {
    /// The first record of a log; or of a writer that does not know what was before it.
    pub(crate) async fn begin(&mut self, is_lost: bool, now_us: i64) -> Result<(), writer::Error> {
        let software = concat!("kubewitness/", env!("CARGO_PKG_VERSION"));
        if self.frontier.size() == 0 {
            let key = self.signer.verifier().to_string();
            let genesis = Draft::says(Kind::Genesis, &[(KEY, &key), ("software", software)]);
            self.commit(vec![genesis], 0, None, now_us).await?;
        } else if is_lost {
            let reason = "the writer's disk was lost: what its spool held then is not archived";
            let gap = Draft::says(Kind::Gap, &[("reason", reason), ("software", software)]);
            self.commit(vec![gap], 0, None, now_us).await?;
        }
        Ok(())
    }

    /// From here on the numbers are another spool's.
    pub(crate) async fn begin_spool(&mut self, now_us: i64) -> Result<(), writer::Error> {
        let (spool, last) = (new_spool_name(), Last::default());
        let floor = Floor { spool, through: 0, last, ..self.floor.clone() };
        self.state.write_floor(&floor)?;
        self.floor = floor;
        let reason = "the spool was made anew: what the one before held then is not archived";
        self.commit(vec![Draft::says(Kind::Gap, &[("reason", reason)])], 0, None, now_us).await
    }
}

/// A random name for the numbers of one spool.
pub(crate) fn new_spool_name() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = [RandomState::new().hash_one(1), RandomState::new().hash_one(2)];
    text_of_bytes(&random.map(u64::to_le_bytes).concat())
}
