//! Reads records in order from any sequence number on, and follows the live tail.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::sync::watch;

use crate::spool::catalog::{Catalog, Span};
use crate::spool::segment::{Opened, Scan, SegmentHeader, Step};
use crate::spool::{Damage, Error, Reason, blocking, segment};

/// Bytes of segments that one read goes through at most, so that a reader of few kinds comes back
/// with a position now and then.
const SCANNED_BYTES_MAX: u64 = 16 << 20;

/// Damages that one read returns at most.
const DAMAGES_MAX: usize = 100;

/// How much one read returns at most, and of which kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records_max: usize,
    /// Bytes of payloads; the first record is returned whatever its size.
    pub bytes_max: usize,
    /// The kinds wanted; `None` for all. Others are passed over.
    pub kinds: Option<Vec<u8>>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { records_max: 10_000, bytes_max: 4 << 20, kinds: None }
    }
}

/// One record of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Sequence number.
    pub seq: u64,
    /// The kind it was pushed with.
    pub kind: u8,
    /// True when no record of the same batch follows.
    pub ends_batch: bool,
    /// The bytes it was pushed with.
    pub payload: &'a [u8],
}

struct Place {
    seq: u64,
    kind: u8,
    ends_batch: bool,
    end: usize,
}

/// What one read returns: records in order, and what could not be read between them.
#[derive(Default)]
pub struct Records {
    places: Vec<Place>,
    bytes: Vec<u8>,
    /// Damaged bytes that were stepped over.
    pub damages: Vec<Damage>,
    /// Sequence numbers lost to damage.
    pub missing: u64,
    /// Last sequence number that this read covers, whether returned, of another kind, or lost:
    /// what to acknowledge when all of it is dealt with.
    pub seq_last: u64,
}

impl Records {
    /// The records, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        let mut start = 0;
        self.places.iter().map(move |place| {
            let payload = &self.bytes[start..place.end];
            start = place.end;
            let Place { seq, kind, ends_batch, .. } = *place;
            Record { seq, kind, ends_batch, payload }
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when no record of a wanted kind was found; `seq_last` may have moved all the same.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of all payloads.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// An open segment and how far it was read.
struct Open {
    seq_first: u64,
    scan: Scan,
    /// The next step gives this sequence number or a later one.
    next: u64,
}

/// Reads from a sequence number on. Holds no segment back: that is a cursor's or a snapshot's part.
pub struct Reader {
    catalog: Arc<Catalog>,
    durable: watch::Receiver<u64>,
    /// Sequence number of the next record.
    next: u64,
    /// Lost when a read is cancelled; then it is found again from `next`.
    open: Option<Open>,
}

impl Reader {
    pub(crate) fn new(catalog: Arc<Catalog>, durable: watch::Receiver<u64>, next: u64) -> Reader {
        Reader { catalog, durable, next, open: None }
    }

    /// Sequence number of the next record to be read.
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// Goes to a sequence number, so that the next read begins with it.
    pub fn seek(&mut self, seq: u64) {
        self.next = seq;
    }

    /// Returns what is durable from the next sequence number on, within `limits`; waits until
    /// there is something. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] once the spool is closed and everything was read; [`Error::Io`].
    pub async fn read(&mut self, limits: &Limits) -> Result<Records, Error> {
        loop {
            self.durable.borrow_and_update();
            if let Some(records) = self.try_read(limits).await? {
                return Ok(records);
            }
            if self.durable.changed().await.is_err() {
                // The writer may have published its last batch just before it ended.
                return self.try_read(limits).await?.ok_or(Error::Closed);
            }
        }
    }

    /// Like `read`, but returns `None` when nothing new is durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn try_read(&mut self, limits: &Limits) -> Result<Option<Records>, Error> {
        if !self.has_more() {
            return Ok(None);
        }
        let (catalog, next, open) = (self.catalog.clone(), self.next, self.open.take());
        let limits = limits.clone();
        let done = blocking(move || read(&catalog, next, open, &limits)).await?;
        Ok(Some(self.done(done)))
    }

    /// As `try_read`, for a caller that may block.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read_blocking(&mut self, limits: &Limits) -> Result<Option<Records>, Error> {
        if !self.has_more() {
            return Ok(None);
        }
        let done = read(&self.catalog, self.next, self.open.take(), limits)?;
        Ok(Some(self.done(done)))
    }

    fn has_more(&self) -> bool {
        self.catalog.span_at(self.next).is_some_and(|span| span.seq_end > self.next)
    }

    fn done(&mut self, (records, open): (Records, Option<Open>)) -> Records {
        self.next = records.seq_last + 1;
        self.open = open;
        records.damages.iter().for_each(|damage| self.catalog.note(damage));
        records
    }
}

/// Reads from `next` on, with the segment left open by the read before.
fn read(
    catalog: &Catalog,
    next: u64,
    mut open: Option<Open>,
    limits: &Limits,
) -> Result<(Records, Option<Open>), Error> {
    let mut records = Records { seq_last: next - 1, ..Records::default() };
    let mut scanned = 0;
    while let Some(span) = catalog.span_at(records.seq_last + 1)
        && span.seq_end > records.seq_last + 1
    {
        if records.seq_last + 1 < span.seq_first {
            records.lose_before(span.seq_first);
        }
        open = match open
            .filter(|open| open.seq_first == span.seq_first && open.next == records.seq_last + 1)
        {
            None => enter(catalog, span, records.seq_last + 1)?,
            found => found,
        };
        let Some(at) = open.as_mut() else {
            let file = segment::file_name(span.seq_first);
            let damage = Damage { file, offset: 0, bytes: span.bytes, reason: Reason::Missing };
            records.damages.push(damage);
            records.lose_before(span.seq_end);
            continue;
        };
        at.scan.extend(span.bytes);
        let before = at.scan.offset;
        let is_end = records.fill(at, span, limits, SCANNED_BYTES_MAX - scanned)?;
        scanned += at.scan.offset - before;
        at.next = records.seq_last + 1;
        if !is_end || scanned >= SCANNED_BYTES_MAX {
            break;
        }
    }
    Ok((records, open))
}

/// Opens a segment at `seq`; `None` when its file is gone or no segment any more.
fn enter(catalog: &Catalog, span: Span, seq: u64) -> Result<Option<Open>, Error> {
    let path = catalog.segment_path(span.seq_first);
    let file = match catalog.disk.open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::io("open", &path, e))?,
    };
    let Opened::Segment(header) = SegmentHeader::read(&file, &path)? else { return Ok(None) };
    let mut scan = Scan::new(file, path, header, span.bytes);
    if seq > span.seq_first {
        skip_to(&mut scan, seq)?;
    }
    Ok(Some(Open { seq_first: span.seq_first, scan, next: seq }))
}

/// Goes to the first frame that is `seq` or later; damage on the way was met by whoever read there.
fn skip_to(scan: &mut Scan, seq: u64) -> Result<(), Error> {
    scan.read_payloads(false);
    loop {
        let offset = scan.offset;
        match scan.step()? {
            Step::Record(header, _) if header.seq >= seq => {
                scan.seek(offset, header.seq);
                break;
            }
            Step::End => break,
            Step::Record(..) | Step::Damage { .. } => {}
        }
    }
    scan.read_payloads(true);
    Ok(())
}

impl Records {
    /// Counts what lies before `seq` as lost.
    fn lose_before(&mut self, seq: u64) {
        self.missing += seq.saturating_sub(self.seq_last + 1);
        self.seq_last = self.seq_last.max(seq - 1);
    }

    /// Reads from one segment; true when its durable part is exhausted.
    fn fill(
        &mut self,
        at: &mut Open,
        span: Span,
        limits: &Limits,
        scan_max: u64,
    ) -> Result<bool, Error> {
        let stop = at.scan.offset.saturating_add(scan_max);
        while at.scan.offset < stop {
            let offset = at.scan.offset;
            match at.scan.step()? {
                Step::Record(header, payload) => {
                    let is_wanted =
                        limits.kinds.as_ref().is_none_or(|kinds| kinds.contains(&header.kind));
                    if is_wanted && !self.has_room(payload.len(), limits) {
                        at.scan.seek(offset, header.seq);
                        return Ok(false);
                    }
                    self.lose_before(header.seq);
                    self.seq_last = header.seq;
                    if is_wanted {
                        self.push(header.seq, header.kind, header.batch_left == 0, payload);
                    }
                }
                Step::Damage { offset, bytes, reason } => {
                    let file = segment::file_name(span.seq_first);
                    if self.damages.len() < DAMAGES_MAX {
                        self.damages.push(Damage { file, offset, bytes, reason });
                    }
                }
                Step::End => {
                    self.lose_before(span.seq_end);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        self.places.is_empty()
            || self.places.len() < limits.records_max
                && self.bytes.len() + bytes <= limits.bytes_max
    }

    fn push(&mut self, seq: u64, kind: u8, ends_batch: bool, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.places.push(Place { seq, kind, ends_batch, end: self.bytes.len() });
    }
}
