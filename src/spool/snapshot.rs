//! A state of the caller's as of a sequence number; what follows it is held until the next one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::spool::catalog::{Catalog, Position, Stored};
use crate::spool::disk::Disk;
use crate::spool::slot::Slot;
use crate::spool::{Error, check_name, guard, slot};

/// A stored state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state holds everything up to and including this record.
    pub seq: u64,
    /// The state.
    pub bytes: Vec<u8>,
}

/// Replaces a snapshot; blocks for two syncs. Segments are held behind the older of the two
/// generations on the disk, so that it can still be brought up to date should the newer one rot.
pub(crate) fn write(catalog: &Catalog, name: &str, seq: u64, bytes: &[u8]) -> Result<(), Error> {
    check_name(name)?;
    let limit = catalog.options.snapshot_bytes_max;
    if bytes.len() as u64 > limit {
        return Err(Error::SnapshotTooLarge { bytes: bytes.len() as u64, limit });
    }
    let durable = catalog.seq_durable();
    if seq > durable {
        return Err(Error::SeqAhead { seq, limit: durable });
    }
    let position = hold(catalog, name, seq)?;
    {
        let mut slot = guard(&position.slot);
        slot.write(seq, bytes)?;
        position.acked.store(seq, Ordering::Release);
        position.stored.store(slot.seq_oldest().unwrap_or(seq), Ordering::Release);
    }
    catalog.retain(0)
}

/// Lets retention wait for the snapshot before its file exists.
fn hold(catalog: &Catalog, name: &str, seq: u64) -> Result<Arc<Position>, Error> {
    let _no_retention = guard(&catalog.retaining);
    let oldest = catalog.seq_oldest();
    if seq + 1 < oldest {
        return Err(Error::SeqBehind { seq, oldest });
    }
    let known = guard(&catalog.snapshots).get(name).cloned();
    if let Some(position) = known {
        position.stored.fetch_min(seq, Ordering::AcqRel);
        return Ok(position);
    }
    let (slot, _, _) = Slot::open(&catalog.disk, catalog.snapshots_dir(), name)?;
    let position = Arc::new(Position::new(slot, seq, seq, Vec::new()));
    Ok(guard(&catalog.snapshots).entry(name.to_owned()).or_insert(position).clone())
}

/// The newest snapshot of that name that can be read.
pub(crate) fn read(catalog: &Catalog, name: &str) -> Result<Option<Snapshot>, Error> {
    check_name(name)?;
    let Some(position) = guard(&catalog.snapshots).get(name).cloned() else { return Ok(None) };
    let content = guard(&position.slot).content()?;
    Ok(content.map(|content| Snapshot { seq: content.seq, bytes: content.payload }))
}

/// Opens every snapshot of a directory, without keeping its bytes. One that cannot be read in
/// either generation holds nothing back.
pub(crate) fn open_all(disk: &Disk, dir: &Path) -> Result<Stored, Error> {
    let (mut positions, mut damages) = (Vec::new(), Vec::new());
    for name in slot::names(disk, dir)? {
        if check_name(&name).is_err() {
            continue;
        }
        let (slot, content, met) = Slot::open(disk, dir.to_owned(), &name)?;
        damages.extend(met);
        if let (Some(content), Some(oldest)) = (content, slot.seq_oldest()) {
            positions.push((name, Position::new(slot, content.seq, oldest, Vec::new())));
        }
    }
    Ok((positions, damages))
}
