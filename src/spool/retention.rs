//! Deletes segments that every stored position has passed, and measures how far each is behind.

use std::sync::atomic::Ordering;

use crate::spool::catalog::{Catalog, Span};
use crate::spool::{Error, guard};

/// What lies between a cursor and the end of the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Sequence numbers not yet acknowledged.
    pub records: u64,
    /// Bytes of them in the segments: exact for whole segments, in proportion to the records for
    /// the one the cursor stands in.
    pub bytes: u64,
}

impl Catalog {
    /// First sequence number that must be kept: the one behind the least stored position. `None`
    /// without any cursor: what nobody reads is kept, because somebody is going to.
    pub(crate) fn floor(&self) -> Option<u64> {
        let stored = |position: &std::sync::Arc<_>| {
            let position: &crate::spool::catalog::Position = position;
            position.stored.load(Ordering::Acquire)
        };
        let cursors = guard(&self.cursors).values().map(stored).min()?;
        let snapshots = guard(&self.snapshots).values().map(stored).min();
        Some(cursors.min(snapshots.unwrap_or(u64::MAX)) + 1)
    }

    /// Deletes segments that every stored position has passed, oldest first, down to
    /// `passed_bytes_min`; of these too, as far as `wanted` more bytes need it under `bytes_max`.
    pub(crate) fn retain(&self, wanted: u64) -> Result<(), Error> {
        let _one = guard(&self.retaining);
        let mut removed = false;
        while let Some(floor) = self.floor()
            && let Some(span) = self.passed(floor, wanted)
        {
            let path = self.segment_path(span.seq_first);
            self.disk.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            guard(&self.spans).pop_front();
            removed = true;
        }
        if removed {
            let dir = self.segments_dir();
            self.disk.sync_dir(&dir).map_err(|e| Error::io("sync", &dir, e))?;
        }
        Ok(())
    }

    /// The oldest segment, if it is to be deleted. The one being written never is.
    fn passed(&self, floor: u64, wanted: u64) -> Option<Span> {
        let spans = guard(&self.spans);
        let oldest = *spans.front()?;
        if spans.len() < 2 || oldest.seq_end > floor {
            return None;
        }
        let total: u64 = spans.iter().map(|span| span.bytes).sum();
        let behind = spans.iter().take(spans.len() - 1).filter(|span| span.seq_end <= floor);
        let behind: u64 = behind.map(|span| span.bytes).sum();
        let is_over = total.saturating_add(wanted) > self.options.bytes_max;
        let is_surplus = behind - oldest.bytes >= self.options.passed_bytes_min;
        (is_over || is_surplus).then_some(oldest)
    }

    /// Stores every cursor's acknowledgements, so that retention can follow them.
    pub(crate) fn store_cursors(&self) -> Result<(), Error> {
        let positions: Vec<_> = guard(&self.cursors).values().cloned().collect();
        positions.iter().try_for_each(|position| position.store())
    }

    /// How far a position is behind the last durable record.
    pub(crate) fn lag(&self, acked: u64) -> Lag {
        let spans = guard(&self.spans);
        let Some(last) = spans.back() else { return Lag::default() };
        let records = last.seq_end.saturating_sub(acked + 1);
        let bytes = spans
            .iter()
            .filter(|span| span.seq_end > acked + 1)
            .map(|span| {
                let all = u128::from(span.seq_end - span.seq_first).max(1);
                let left = u128::from(span.seq_end - (acked + 1).max(span.seq_first));
                (u128::from(span.bytes) * left / all) as u64
            })
            .sum();
        Lag { records, bytes }
    }
}
