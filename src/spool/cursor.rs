//! One sink's read position: next records, acknowledge, lag.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::spool::catalog::{Catalog, Position, Stored};
use crate::spool::reader::{Limits, Reader, Records};
use crate::spool::retention::Lag;
use crate::spool::slot::Slot;
use crate::spool::{Error, Reason, blocking, check_name, guard, slot};

/// Where a cursor begins that was never there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record still held.
    Oldest,
    /// Behind the newest record.
    Newest,
}

/// A named position that retention waits for. One task owns it.
///
/// Delivery is at least once: what was read and not acknowledged, and what was acknowledged since
/// the position was last stored (at most `ack_records_max` records, none after [`Cursor::store`]),
/// is read again after a crash.
pub struct Cursor {
    name: String,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) position: Arc<Position>,
    pub(crate) reader: Reader,
}

impl Cursor {
    /// Opens a cursor, creating it (durably) if it is new.
    pub(crate) fn open(
        catalog: Arc<Catalog>,
        durable: watch::Receiver<u64>,
        name: &str,
        start: Start,
    ) -> Result<Cursor, Error> {
        check_name(name)?;
        let position = {
            let _no_retention = guard(&catalog.retaining);
            let known = guard(&catalog.cursors).get(name).cloned();
            match known {
                Some(position) => position,
                None => create(&catalog, name, start)?,
            }
        };
        if position.is_open.swap(true, Ordering::AcqRel) {
            return Err(Error::CursorBusy { name: name.to_owned() });
        }
        let next = position.acked.load(Ordering::Acquire) + 1;
        let reader = Reader::new(catalog.clone(), durable, next);
        Ok(Cursor { name: name.to_owned(), catalog, position, reader })
    }

    /// The cursor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number of its own, given when the cursor was made and kept with its position: another
    /// spool's cursor of this name has another one.
    pub fn id(&self) -> u128 {
        let bytes = self.position.payload.as_slice().try_into();
        bytes.map_or(0, u128::from_le_bytes)
    }

    /// Last sequence number acknowledged; 0 before the first.
    pub fn acked(&self) -> u64 {
        self.position.acked.load(Ordering::Acquire)
    }

    /// Returns the next durable records within `limits`; waits until there are some. Reading goes
    /// on behind them without an acknowledgement. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] once the spool is closed and everything was read; [`Error::Io`].
    pub async fn read(&mut self, limits: &Limits) -> Result<Records, Error> {
        self.reader.read(limits).await
    }

    /// Like `read`, but returns `None` when nothing new is durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn try_read(&mut self, limits: &Limits) -> Result<Option<Records>, Error> {
        self.reader.try_read(limits).await
    }

    /// Goes back to the first record that was not acknowledged.
    pub fn rewind(&mut self) {
        self.reader.seek(self.acked() + 1);
    }

    /// Acknowledges every record up to and including `seq`; an earlier one than before is ignored.
    ///
    /// The position is stored (and passed segments are deleted) when it enters another segment,
    /// after `ack_records_max` records, or when `ack_interval` has gone by; else it is durable
    /// with a later acknowledgement or [`Cursor::store`].
    ///
    /// # Errors
    /// [`Error::SeqAhead`] when `seq` was not read; [`Error::Io`] when storing failed: the old
    /// stored position stands, and the next call tries again.
    pub async fn ack(&mut self, seq: u64) -> Result<(), Error> {
        self.note_ack(seq)?;
        if self.is_due() { self.store().await } else { Ok(()) }
    }

    /// Acknowledges without storing.
    pub(crate) fn note_ack(&mut self, seq: u64) -> Result<(), Error> {
        let limit = self.reader.next_seq() - 1;
        if seq > limit {
            return Err(Error::SeqAhead { seq, limit });
        }
        self.position.acked.fetch_max(seq, Ordering::AcqRel);
        Ok(())
    }

    /// Makes all acknowledgements durable, and deletes what every cursor has passed.
    ///
    /// # Errors
    /// [`Error::Io`]; the old stored position stands.
    pub async fn store(&self) -> Result<(), Error> {
        let (catalog, position) = (self.catalog.clone(), self.position.clone());
        blocking(move || store(&catalog, &position)).await
    }

    /// How far the acknowledgements are behind the last durable record.
    pub fn lag(&self) -> Lag {
        self.catalog.lag(self.acked())
    }

    fn is_due(&self) -> bool {
        let options = &self.catalog.options;
        let (acked, stored) = (self.acked(), self.position.stored.load(Ordering::Acquire));
        let segment = |seq| self.catalog.span_at(seq).map(|span| span.seq_first);
        acked > stored
            && (acked - stored >= options.ack_records_max
                || guard(&self.position.since).elapsed() >= options.ack_interval
                || segment(acked + 1) != segment(stored + 1))
    }
}

pub(crate) fn store(catalog: &Catalog, position: &Position) -> Result<(), Error> {
    position.store()?;
    catalog.retain(0)
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.position.is_open.store(false, Ordering::Release);
    }
}

/// So many bytes a cursor's id has.
const ID_BYTES: usize = 16;

fn new_id() -> Vec<u8> {
    let halves = [0, 1].map(|half: u8| RandomState::new().hash_one(half).to_le_bytes());
    halves.concat()
}

fn create(catalog: &Catalog, name: &str, start: Start) -> Result<Arc<Position>, Error> {
    let seq = match start {
        Start::Oldest => catalog.seq_oldest() - 1,
        Start::Newest => catalog.seq_durable(),
    };
    let (mut slot, _, _) = Slot::open(&catalog.disk, catalog.cursors_dir(), name)?;
    let id = new_id();
    slot.write(seq, &id)?;
    let position = Arc::new(Position::new(slot, seq, seq, id));
    guard(&catalog.cursors).insert(name.to_owned(), position.clone());
    Ok(position)
}

/// Opens every stored position of a directory. One whose generations are all damaged stands at 0,
/// so that nothing undelivered is passed over. Returns them with the damages met.
pub(crate) fn open_all(
    disk: &crate::spool::disk::Disk,
    dir: &std::path::Path,
) -> Result<Stored, Error> {
    let (mut positions, mut damages) = (Vec::new(), Vec::new());
    for name in slot::names(disk, dir)? {
        if check_name(&name).is_err() {
            continue;
        }
        let (slot, content, met) = Slot::open(disk, dir.to_owned(), &name)?;
        debug_assert!(met.iter().all(|damage| damage.reason == Reason::Slot));
        damages.extend(met);
        let (seq, id) = content.map_or((0, Vec::new()), |content| (content.seq, content.payload));
        let id = if id.len() == ID_BYTES { id } else { new_id() };
        positions.push((name, Position::new(slot, seq, seq, id)));
    }
    Ok((positions, damages))
}
