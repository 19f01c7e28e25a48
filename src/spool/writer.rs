//! The one writer: takes all waiting batches, writes them, syncs once, and answers all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::spool::catalog::{Catalog, Span};
use crate::spool::disk::{is_exhausted, is_no_files};
use crate::spool::gate::{Gate, Share, Waiting};
use crate::spool::record::{BATCH_RECORDS_MAX, Batch};
use crate::spool::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::spool::{Error, guard};

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Sequence number of its first record.
    pub seq_first: u64,
    /// Sequence number of its last record.
    pub seq_last: u64,
}

/// What the writer did since the spool was opened.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The writer's state: owned by its thread, or by a test.
pub(crate) struct Writer {
    catalog: Arc<Catalog>,
    counts: Arc<Counts>,
    durable: watch::Sender<u64>,
    active: Segment,
    /// Whether nothing may be added to it: there was no room to begin a new one when it was opened.
    is_sealed: bool,
    /// Sequence number of the next record.
    seq_next: u64,
    /// The same as of the last sync.
    seq_synced: u64,
    poison: Option<String>,
    /// Whether it was told that the disk has no room.
    is_told: bool,
}

/// The batches of one group that are written and not yet synced: index and place.
type Unsynced = Vec<(usize, Appended)>;

impl Writer {
    /// Starts a new segment behind what is in the catalog. On a disk without room for one it
    /// begins behind the last: what is there can be read and delivered, which is what makes room.
    pub(crate) fn open(
        catalog: Arc<Catalog>,
        counts: Arc<Counts>,
        durable: watch::Sender<u64>,
        seq_next: u64,
    ) -> Result<Writer, Error> {
        let last = guard(&catalog.spans).back().copied();
        let previous = last.map_or(0, |span| span.seq_first);
        let (active, refusal) = match (begin(&catalog, seq_next, previous), last) {
            (Ok(segment), _) => (segment, None),
            (Err(Error::DiskFull { source, .. }), Some(last)) => {
                let dir = catalog.segments_dir();
                let last = Segment::reopen(&catalog.disk, &dir, last.seq_first, last.bytes)?;
                (last, Some(source))
            }
            (Err(error), _) => return Err(error),
        };
        durable.send_replace(seq_next - 1);
        let mut writer = Writer {
            catalog,
            counts,
            durable,
            active,
            is_sealed: refusal.is_some(),
            seq_next,
            seq_synced: seq_next,
            poison: None,
            is_told: false,
        };
        refusal.iter().for_each(|refusal| writer.tell(refusal));
        Ok(writer)
    }

    /// Appends a group of batches with one sync; each is durable when its answer is `Ok`. Answers
    /// are in the order of the batches.
    #[cfg(test)]
    pub(crate) fn commit(&mut self, group: &mut [Batch]) -> Vec<Result<Appended, Error>> {
        self.commit_while_room(group, |_| false)
    }

    /// The same, but the first batch that `waits` and for which there is no room ends the group:
    /// it and those behind it are not written and have no answer.
    pub(crate) fn commit_while_room(
        &mut self,
        group: &mut [Batch],
        waits: impl Fn(usize) -> bool,
    ) -> Vec<Result<Appended, Error>> {
        let mut answers: Vec<Option<Result<Appended, Error>>> =
            group.iter().map(|_| None).collect();
        let mut unsynced = Unsynced::new();
        for (index, batch) in group.iter_mut().enumerate() {
            let place = self.write(batch, &mut unsynced, &mut answers);
            match place {
                Ok(appended) => unsynced.push((index, appended)),
                Err(error) if error.is_full() && waits(index) => break,
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        self.settle(&mut unsynced, &mut answers);
        self.counts.groups.fetch_add(1, Ordering::Relaxed);
        // What was written before there was no room any more may have been taken back with it.
        let is_open = |(index, answer): (usize, &Option<Result<Appended, Error>>)| match answer {
            None => true,
            Some(Err(error)) => error.is_full() && waits(index),
            Some(Ok(_)) => false,
        };
        let end = answers.iter().enumerate().position(is_open).unwrap_or(answers.len());
        answers.truncate(end);
        let refused = answers.iter().filter(|answer| !matches!(answer, Some(Ok(_)))).count();
        self.counts.refused.fetch_add(refused as u64, Ordering::Relaxed);
        answers.into_iter().flatten().collect()
    }

    /// Writes one batch behind the last, in a new segment if this one is full.
    fn write(
        &mut self,
        batch: &mut Batch,
        unsynced: &mut Unsynced,
        answers: &mut [Option<Result<Appended, Error>>],
    ) -> Result<Appended, Error> {
        self.check(batch)?;
        let full = self.active.end + batch.bytes() > self.catalog.options.segment_bytes_max;
        if self.is_sealed || full && self.active.end > SEGMENT_HEADER_BYTES {
            self.settle(unsynced, answers);
            self.roll()?;
        }
        let seq_first = self.seq_next;
        match self.active.append(batch, seq_first) {
            Ok(()) => {
                self.seq_next += u64::from(batch.records());
                Ok(Appended { seq_first, seq_last: self.seq_next - 1 })
            }
            Err(source) if is_exhausted(&source) => Err(self.take_back(source, unsynced, answers)),
            Err(source) => {
                let error = Error::io("write", &self.active.path, source);
                self.poison(&error, unsynced, answers);
                Err(error)
            }
        }
    }

    /// Refuses what must not be written.
    fn check(&mut self, batch: &Batch) -> Result<(), Error> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let (bytes, records) = (batch.bytes(), batch.records());
        let limit = self.catalog.options.batch_bytes_max;
        if bytes > limit {
            return Err(Error::BatchTooLarge { bytes, limit });
        }
        if records == 0 || records > BATCH_RECORDS_MAX {
            return Err(Error::BatchRecords { records });
        }
        let limit = self.catalog.options.bytes_max;
        // What the batch takes: itself, and the header of the segment it may begin.
        let wanted = self.active.end - self.active.synced + bytes + SEGMENT_HEADER_BYTES;
        if self.catalog.bytes() + wanted <= limit {
            return Ok(());
        }
        self.make_room(wanted);
        let held = self.catalog.bytes();
        if held + wanted > limit {
            return Err(Error::Full { bytes: held, limit });
        }
        Ok(())
    }

    /// Deletes passed segments as far as so many more bytes need it.
    fn make_room(&self, wanted: u64) {
        // Positions are stored lazily; now it counts.
        let stored = self.catalog.store_cursors();
        if let Err(error) = stored.and_then(|()| self.catalog.retain(wanted)) {
            warn!(error = %describe(&error), "cannot make room in the spool");
        }
    }

    /// Gives a full disk back what is kept beyond its delivery.
    fn give_back(&mut self, refusal: &std::io::Error) {
        if is_no_files(refusal) {
            return;
        }
        self.tell(refusal);
        self.make_room(u64::MAX);
    }

    /// Says once that there is no room, until there is.
    fn tell(&mut self, refusal: &std::io::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            warn!(error = %refusal, "no room in the spool: nothing is taken in until there is");
        }
    }

    /// Makes what was written durable and visible, and answers it.
    fn settle(&mut self, unsynced: &mut Unsynced, answers: &mut [Option<Result<Appended, Error>>]) {
        let bytes = self.active.end - self.active.synced;
        if let Err(source) = self.active.sync() {
            // Whatever the reason, nobody knows which pages reached the disk.
            let error = Error::io("sync", &self.active.path, source);
            return self.poison(&error, unsynced, answers);
        }
        if unsynced.is_empty() {
            return;
        }
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counts.records.fetch_add(self.seq_next - self.seq_synced, Ordering::Relaxed);
        self.counts.batches.fetch_add(unsynced.len() as u64, Ordering::Relaxed);
        self.seq_synced = self.seq_next;
        self.is_told = false;
        self.catalog.publish(self.seq_next, self.active.end);
        self.durable.send_replace(self.seq_next - 1);
        for (index, appended) in unsynced.drain(..) {
            answers[index] = Some(Ok(appended));
        }
    }

    /// Closes the segment, which `settle` has synced, and starts the next.
    fn roll(&mut self) -> Result<(), Error> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        match begin(&self.catalog, self.seq_next, self.active.header.seq_first) {
            Ok(segment) => (self.active, self.is_sealed) = (segment, false),
            Err(error) => {
                match &error {
                    Error::DiskFull { source, .. } => self.give_back(source),
                    _ => self.poison = Some(describe(&error)),
                }
                return Err(error);
            }
        }
        if let Err(error) = self.catalog.retain(0) {
            warn!(error = %describe(&error), "cannot delete passed segments");
        }
        Ok(())
    }

    /// The disk has no room: takes back what is not synced and refuses it.
    fn take_back(
        &mut self,
        source: std::io::Error,
        unsynced: &mut Unsynced,
        answers: &mut [Option<Result<Appended, Error>>],
    ) -> Error {
        let path = self.active.path.clone();
        if let Err(cut) = self.active.cut_to_synced() {
            let error = Error::io("cut", &path, cut);
            self.poison(&error, unsynced, answers);
            return error;
        }
        self.seq_next = self.seq_synced;
        self.give_back(&source);
        let kind = source.kind();
        for (index, _) in unsynced.drain(..) {
            let source = std::io::Error::from(kind);
            answers[index] = Some(Err(Error::DiskFull { path: path.clone(), source }));
        }
        Error::DiskFull { path, source }
    }

    /// Ends all writing; what is not synced is answered with an error.
    fn poison(
        &mut self,
        error: &Error,
        unsynced: &mut Unsynced,
        answers: &mut [Option<Result<Appended, Error>>],
    ) {
        let cause = describe(error);
        for (index, _) in unsynced.drain(..) {
            answers[index] = Some(Err(Error::Poisoned { cause: cause.clone() }));
        }
        self.poison = Some(cause);
    }
}

/// Begins the segment of the next record behind the one before. Nothing of it is left where there
/// is no room for it ([`Error::DiskFull`]): it would be taken for the last segment.
fn begin(catalog: &Catalog, seq_first: u64, seq_first_previous: u64) -> Result<Segment, Error> {
    let dir = catalog.segments_dir();
    match Segment::create(&catalog.disk, &dir, seq_first, seq_first_previous) {
        Ok(segment) => {
            let span = Span { seq_first, seq_end: seq_first, bytes: SEGMENT_HEADER_BYTES };
            guard(&catalog.spans).push_back(span);
            Ok(segment)
        }
        Err(source) => {
            let path = catalog.segment_path(seq_first);
            let removed = catalog.disk.remove(&path);
            match is_exhausted(&source) && removed.is_ok() {
                true => Err(Error::DiskFull { path, source }),
                false => Err(Error::io("create", &path, source)),
            }
        }
    }
}

fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// One append on its way to the writer.
pub(crate) struct Request {
    batch: Batch,
    waits: bool,
    reply: oneshot::Sender<Result<Appended, Error>>,
    share: Share,
}

/// What the writer's thread is told.
pub(crate) enum Message {
    /// Append a batch.
    Append(Request),
    /// End after what was sent before.
    Close,
}

/// Runs the writer until it is told to close or nobody can append any more.
pub(crate) fn run(mut writer: Writer, mut receiver: Receiver) {
    let group_bytes_max = writer.catalog.options.waiting_bytes_max;
    let mut closing = false;
    while !closing && let Some(first) = receiver.messages.blocking_recv() {
        let (mut batches, mut replies, mut bytes) = (VecDeque::new(), VecDeque::new(), 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(request) => {
                    bytes += request.batch.bytes();
                    batches.push_back(request.batch);
                    replies.push_back((request.reply, request.waits, request.share));
                }
                Message::Close => closing = true,
            }
            let is_more = !closing && bytes < group_bytes_max;
            next = if is_more { receiver.messages.try_recv().ok() } else { None };
        }
        let gate = &receiver.gate;
        let mut is_holding = true;
        while !batches.is_empty() {
            let group = batches.make_contiguous();
            let waits = |index: usize| is_holding && replies[index].1;
            let answers = writer.commit_while_room(group, waits);
            batches.drain(..answers.len());
            for ((reply, _, _share), answer) in replies.drain(..answers.len()).zip(answers) {
                // Nobody waits when the caller was cancelled; the batch is durable all the same.
                drop(reply.send(answer));
            }
            is_holding = batches.is_empty() || gate.wait_for_room();
        }
        gate.set_for_room(false);
    }
}

/// Sends batches to the writer; clones share it.
#[derive(Clone)]
pub struct Appender {
    messages: mpsc::UnboundedSender<Message>,
    gate: Arc<Gate>,
    waits: bool,
    waiting_bytes_max: u64,
    batch_bytes_max: u64,
}

/// An append that is on its way.
pub struct Pending(oneshot::Receiver<Result<Appended, Error>>);

/// What a batch counts for at least, so that the limit on bytes is one on batches too.
const SHARE_BYTES_MIN: u64 = 1 << 10;

impl Appender {
    pub(crate) fn new(waiting_bytes_max: u64, batch_bytes_max: u64) -> (Appender, Receiver) {
        let (messages, receiver) = mpsc::unbounded_channel();
        let gate = Arc::new(Gate::default());
        let receiver = Receiver { messages: receiver, gate: Arc::clone(&gate) };
        let waits = false;
        (Appender { messages, gate, waits, waiting_bytes_max, batch_bytes_max }, receiver)
    }

    /// An appender that is never refused for want of room, and whose [`Appender::submit`] never
    /// waits: the writer keeps what was submitted, in its order, and goes on when there is room
    /// again. For a caller whose state moves on with the batch; it asks
    /// [`Appender::has_room`] before it builds one, so that at most that one is beyond the limit.
    pub fn waiting(&self) -> Appender {
        Appender { waits: true, ..self.clone() }
    }

    /// Lets the writer refuse what waits for room, now and from here on: the process ends.
    pub fn stop_waiting(&self) {
        self.gate.close();
    }

    /// Whether the writer keeps batches for which there is no room.
    pub fn is_waiting_for_room(&self) -> bool {
        self.gate.waiting.borrow().is_for_room
    }

    /// Whether another batch may be built, as soon as that is known: false when the writer keeps
    /// batches for which the spool has no room; true when less than `waiting_bytes_max` is under
    /// way, which a disk that is merely slow comes to.
    pub async fn has_room(&self) -> bool {
        let is_known =
            |waiting: &Waiting| waiting.is_for_room || waiting.bytes < self.waiting_bytes_max;
        let mut waiting = self.gate.waiting.subscribe();
        // The sender is this appender's own: it is there.
        waiting.wait_for(is_known).await.is_ok_and(|waiting| !waiting.is_for_room)
    }

    /// Appends a batch; it is durable, whole, when this returns `Ok`. Waits while
    /// `waiting_bytes_max` is taken by others. If the future is dropped, the batch may or may not
    /// be appended.
    ///
    /// Two appends have an order only when the second is called after the first has returned.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::DiskFull`]: nothing was written, try again later.
    /// [`Error::BatchTooLarge`], [`Error::BatchRecords`]: nothing was written.
    /// [`Error::Io`], [`Error::Poisoned`]: unknown whether it will be there after reopening; the
    /// process must exit and open the spool again. [`Error::Closed`].
    pub async fn append(&self, batch: Batch) -> Result<Appended, Error> {
        self.submit(batch).await?.durable().await
    }

    /// Hands a batch to the writer without waiting until it is durable, so that the caller can
    /// prepare the next one meanwhile. Waits for others as `append` does.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`], [`Error::Closed`]; the others come with [`Pending::durable`].
    pub async fn submit(&self, batch: Batch) -> Result<Pending, Error> {
        if batch.bytes() > self.batch_bytes_max {
            return Err(Error::BatchTooLarge { bytes: batch.bytes(), limit: self.batch_bytes_max });
        }
        let share = self.share(batch.bytes().max(SHARE_BYTES_MIN)).await?;
        let (reply, answer) = oneshot::channel();
        let request = Request { batch, waits: self.waits, reply, share };
        self.messages.send(Message::Append(request)).map_err(|_| Error::Closed)?;
        Ok(Pending(answer))
    }

    async fn share(&self, bytes: u64) -> Result<Share, Error> {
        let is_free = |waiting: &Waiting| {
            self.waits || waiting.bytes == 0 || waiting.bytes + bytes <= self.waiting_bytes_max
        };
        let mut waiting = self.gate.waiting.subscribe();
        loop {
            if let Some(share) = Share::take(&self.gate, bytes, is_free) {
                return Ok(share);
            }
            waiting.wait_for(is_free).await.map_err(|_| Error::Closed)?;
        }
    }

    /// Bytes that wait for the writer or are being written.
    pub fn waiting_bytes(&self) -> u64 {
        self.gate.waiting.borrow().bytes
    }

    /// Tells the writer to end after what was sent before; what waits for room is refused if there
    /// is none now.
    pub(crate) fn close(&self) {
        self.stop_waiting();
        // An error means that it has ended already.
        drop(self.messages.send(Message::Close));
    }
}

/// The writer's end of the channel.
pub(crate) struct Receiver {
    messages: mpsc::UnboundedReceiver<Message>,
    gate: Arc<Gate>,
}

impl Pending {
    /// Waits until the batch is durable.
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub async fn durable(self) -> Result<Appended, Error> {
        self.0.await.map_err(|_| Error::Closed)?
    }
}
