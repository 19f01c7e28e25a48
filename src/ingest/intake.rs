//! The way from the sources into the pipeline: a queue of batches, bounded by their bytes.
//!
//! A batch counts from the moment it is sent until whoever took it drops its [`Held`], which he
//! keeps until it is answered. So the bound holds for everything between a source and the spool,
//! not only for what waits in the queue. A batch that is larger than the whole bound passes when
//! nothing else is under way.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::ingest::batch::Batch;

/// What one permit stands for; a batch counts for at least this much.
const UNIT_BYTES: usize = 1 << 10;

/// Makes a queue for at most `queue_bytes_max` bytes of batches under way.
pub fn intake(queue_bytes_max: usize) -> (Intake, Outlet) {
    let units = u32::try_from((queue_bytes_max / UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(units as usize));
    let (sender, receiver) = mpsc::unbounded_channel();
    (Intake { sender, room: Arc::clone(&room), units, share: None }, Outlet { receiver, room })
}

/// Where live sources send batches.
#[derive(Clone, Debug)]
pub struct Intake {
    sender: mpsc::UnboundedSender<Batch>,
    room: Arc<Semaphore>,
    units: u32,
    /// What those that can wait take of the room at most.
    share: Option<Arc<Semaphore>>,
}

/// Nobody takes batches any more; the batch is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline takes no more batches")]
pub struct Closed;

/// A batch that could not be sent at once.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// Too many bytes are under way; here is the batch again.
    #[error("too many bytes are under way")]
    Saturated(Box<Batch>),
    /// Nobody takes batches any more; here is the batch again.
    #[error("the pipeline takes no more batches")]
    Closed(Box<Batch>),
}

impl Intake {
    /// The same for sources that can wait: all of them together leave half of the room to those
    /// whose callers are refused when it is full.
    pub fn patient(&self) -> Intake {
        let units = (self.units / 2).max(1);
        Intake { units, share: Some(Arc::new(Semaphore::new(units as usize))), ..self.clone() }
    }

    /// Sends a batch; waits while too many bytes are under way. Dropping the future drops the
    /// batch.
    ///
    /// # Errors
    /// [`Closed`] when the outlet was closed or dropped.
    pub async fn send(&self, mut batch: Batch) -> Result<(), Closed> {
        let units = self.units_of(&batch);
        let share = match &self.share {
            Some(share) => Some(Arc::clone(share).acquire_many_owned(units).await),
            None => None,
        };
        let share = share.transpose().map_err(|_| Closed)?;
        let permit = Arc::clone(&self.room).acquire_many_owned(units).await.map_err(|_| Closed)?;
        batch.held = Held::new(permit, share, units);
        self.sender.send(batch).map_err(|_| Closed)
    }

    /// Sends a batch if there is room for it now.
    ///
    /// # Errors
    /// The batch itself, when there is no room or the outlet was closed.
    pub fn try_send(&self, mut batch: Batch) -> Result<(), Unsent> {
        let units = self.units_of(&batch);
        let try_acquire = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(units);
        let share = self.share.as_ref().map(try_acquire).transpose();
        match share.and_then(|share| Ok((try_acquire(&self.room)?, share))) {
            Ok((permit, share)) => batch.held = Held::new(permit, share, units),
            Err(TryAcquireError::NoPermits) => return Err(Unsent::Saturated(Box::new(batch))),
            Err(TryAcquireError::Closed) => return Err(Unsent::Closed(Box::new(batch))),
        }
        self.sender.send(batch).map_err(|unsent| Unsent::Closed(Box::new(unsent.0)))
    }

    /// As [`Intake::send`], for a thread of its own; blocks it. Needs no runtime.
    ///
    /// # Errors
    /// [`Closed`] when the outlet was closed or dropped.
    pub fn blocking_send(&self, batch: Batch) -> Result<(), Closed> {
        let mut sending = pin!(self.send(batch));
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match sending.as_mut().poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// How many more bytes can be under way; a batch may be refused although it is smaller, when
    /// others wait before it.
    pub fn bytes_free(&self) -> usize {
        self.room.available_permits() * UNIT_BYTES
    }

    /// Whether the outlet was closed or dropped.
    pub fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    fn units_of(&self, batch: &Batch) -> u32 {
        let units = u32::try_from(batch.chunk.len().div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        units.clamp(1, self.units)
    }
}

/// Wakes a thread that waits for a future.
pub(crate) struct Unpark(pub(crate) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

/// The other end, of which there is one: the pipeline's.
#[derive(Debug)]
pub struct Outlet {
    receiver: mpsc::UnboundedReceiver<Batch>,
    room: Arc<Semaphore>,
}

impl Outlet {
    /// The next batch, waiting for it; `None` when all intakes are gone, or the outlet is closed,
    /// and all that was sent is taken. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Batch> {
        self.receiver.recv().await
    }

    /// The next batch, if one waits.
    pub fn try_next(&mut self) -> Option<Batch> {
        self.receiver.try_recv().ok()
    }

    /// As [`Outlet::next`], for a thread outside of any runtime's; blocks it.
    pub fn blocking_next(&mut self) -> Option<Batch> {
        self.receiver.blocking_recv()
    }

    /// Takes no more batches; those already sent can still be taken.
    pub fn close(&mut self) {
        self.room.close();
        self.receiver.close();
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.close();
    }
}

/// A batch's share of the bytes that may be under way, given back when it is dropped. Whoever takes
/// a batch keeps this until the batch is answered.
#[derive(Debug, Default)]
pub struct Held(Option<Permits>);

#[derive(Debug)]
struct Permits {
    /// Of all the room, and of the share that patient sources have.
    _taken: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    units: u32,
}

impl Held {
    fn new(permit: OwnedSemaphorePermit, share: Option<OwnedSemaphorePermit>, units: u32) -> Held {
        metrics::gauge!("kubewitness_ingest_queue_bytes").increment(bytes(units));
        Held(Some(Permits { _taken: (permit, share), units }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Permits { units, .. }) = &self.0 {
            metrics::gauge!("kubewitness_ingest_queue_bytes").decrement(bytes(*units));
        }
    }
}

fn bytes(units: u32) -> f64 {
    f64::from(units) * UNIT_BYTES as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::chunk::Chunk;
    use tokio::sync::oneshot;

    fn batch(length: usize) -> Batch {
        let mut chunk = Chunk::new();
        chunk.bytes = vec![b'\n'; length];
        chunk.filled = length;
        let (batch, _) = Batch::new("log", "audit.log", chunk);
        batch
    }

    #[test]
    fn those_that_can_wait_leave_half_of_the_room() {
        let (intake, mut outlet) = intake(10 << 10);
        let patient = intake.patient();
        patient.try_send(batch(3 << 10)).unwrap();
        let refused = patient.clone().try_send(batch(3 << 10));
        assert!(matches!(refused, Err(Unsent::Saturated(_))));
        patient.try_send(batch(2 << 10)).unwrap();
        intake.try_send(batch(5 << 10)).unwrap();
        drop(outlet.try_next());
        assert_eq!(intake.bytes_free(), 3 << 10);
        intake.try_send(batch(1 << 10)).unwrap();
        assert!(matches!(patient.try_send(batch(3 << 10)), Err(Unsent::Saturated(_))));
        patient.try_send(batch(2 << 10)).unwrap();
    }

    #[test]
    fn counts_bytes_until_they_are_answered() {
        let (intake, mut outlet) = intake(10 << 10);
        intake.try_send(batch(6 << 10)).unwrap();
        assert_eq!(intake.bytes_free(), 4 << 10);
        assert!(matches!(intake.try_send(batch(5 << 10)), Err(Unsent::Saturated(_))));
        let Batch { done, held, .. } = outlet.try_next().unwrap();
        assert!(matches!(intake.try_send(batch(5 << 10)), Err(Unsent::Saturated(_))));
        drop((done, held));
        intake.try_send(batch(5 << 10)).unwrap();
        intake.try_send(batch(0)).unwrap();
    }

    #[test]
    fn lets_a_huge_batch_pass_alone() {
        let (intake, mut outlet) = intake(10 << 10);
        intake.try_send(batch(1 << 20)).unwrap();
        assert_eq!(intake.bytes_free(), 0);
        assert!(matches!(intake.try_send(batch(1)), Err(Unsent::Saturated(_))));
        drop(outlet.try_next());
        intake.try_send(batch(1)).unwrap();
    }

    #[test]
    fn wakes_a_thread_that_waits_for_room() {
        let (intake, mut outlet) = intake(1 << 10);
        let sender =
            thread::spawn(move || (0..100).try_for_each(|_| intake.blocking_send(batch(9))));
        let mut count = 0;
        while outlet.blocking_next().is_some() {
            count += 1;
        }
        assert_eq!(count, 100);
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn says_that_it_is_closed() {
        let (first, outlet) = intake(1 << 10);
        first.try_send(batch(1)).unwrap();
        let waiting = {
            let intake = first.clone();
            thread::spawn(move || intake.blocking_send(batch(1)))
        };
        drop(outlet);
        assert_eq!(waiting.join().unwrap(), Err(Closed));
        assert!(matches!(first.try_send(batch(1)), Err(Unsent::Closed(_))));
        assert!(first.is_closed());

        let (second, mut outlet) = intake(1 << 10);
        second.try_send(batch(1)).unwrap();
        outlet.close();
        assert!(matches!(second.try_send(batch(1)), Err(Unsent::Closed(_))));
        assert!(outlet.blocking_next().is_some());
        assert!(outlet.blocking_next().is_none());
    }

    #[test]
    fn tells_the_source_what_became_of_a_batch() {
        let (mut batch, answer) = Batch::new("log", "audit.log", Chunk::new());
        batch.done.send(Ok(Default::default())).unwrap();
        let (done, _) = oneshot::channel();
        batch.done = done;
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
}
