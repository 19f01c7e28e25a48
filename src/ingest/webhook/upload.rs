//! One body on its way into the pipeline: read, decompressed, cut, sent, and made durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::clock;
use crate::event::reject::RejectReason;
use crate::ingest::batch::{Answer, Batch, Refused};
use crate::ingest::chunk::Chunk;
use crate::ingest::compress::Fault;
use crate::ingest::intake::{Intake, Unsent};
use crate::ingest::webhook::config::Limits;
use crate::ingest::webhook::cutter::Cutter;
use crate::ingest::webhook::inflate::{Inflate, Stop};
use crate::ingest::webhook::outcome::Outcome;
use crate::ingest::webhook::pace::{Broken, PacedBody};

/// Batches of one body that are under way at a time.
const BATCHES_MAX: usize = 8;

/// What is decompressed at a time.
const INFLATED_BYTES: usize = 64 << 10;

/// What a permit of the buffers stands for.
pub(crate) const BUFFER_UNIT_BYTES: usize = 1 << 10;

/// Of a document's head, what is kept for its request id.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// Where bodies go to, and what they may use.
pub(crate) struct Way<'w> {
    pub(crate) intake: &'w Intake,
    pub(crate) limits: &'w Limits,
    /// Memory of all bodies that are being cut, in units of [`BUFFER_UNIT_BYTES`].
    pub(crate) buffers: &'w Arc<Semaphore>,
    pub(crate) source: &'w Arc<str>,
    pub(crate) cluster: Option<Arc<str>>,
}

/// A body being taken. What was sent stays sent when it fails: the caller's retry repeats it, and
/// duplicates are known.
pub(crate) struct Upload<'w> {
    way: Way<'w>,
    cutter: Cutter,
    inflate: Option<(Inflate, Vec<u8>)>,
    buffer: Option<OwnedSemaphorePermit>,
    answers: VecDeque<Answer>,
    received_us: i64,
    has_sent: bool,
    /// Whether the rest of the body is of no use.
    is_damaged: bool,
    /// The beginning of the first document, up to its list.
    pub(crate) head: Vec<u8>,
}

impl<'w> Upload<'w> {
    pub(crate) fn new(way: Way<'w>, is_gzip: bool) -> Upload<'w> {
        let limits = way.limits;
        let inflate = is_gzip.then(|| {
            let inflate = Inflate::new(limits.body_bytes_max.0, limits.gzip_ratio_max);
            (inflate, vec![0; INFLATED_BYTES])
        });
        Upload {
            cutter: Cutter::new(limits.event_bytes_max.as_usize()),
            inflate,
            buffer: None,
            answers: VecDeque::new(),
            received_us: clock::now_us(),
            has_sent: false,
            is_damaged: false,
            head: Vec::new(),
            way,
        }
    }

    /// Takes the whole body and waits until it is durable.
    pub(crate) async fn run(&mut self, body: &mut PacedBody) -> Result<(), Outcome> {
        while let Some(bytes) = body.next().await.map_err(outcome)? {
            if body.received() > self.way.limits.body_bytes_max.0 {
                return Err(Outcome::TooLarge);
            }
            if !self.is_damaged {
                self.take(&bytes).await?;
            }
        }
        if let Some((inflate, _)) = &self.inflate
            && !self.is_damaged
            && let Err(stop) = inflate.finish()
        {
            self.stop(stop)?;
        }
        while let Some(chunk) = self.cutter.finish() {
            self.send(chunk).await?;
        }
        self.buffer = None;
        let limit = self.way.limits.answer_timeout.0;
        let settled = async {
            while self.settle(Duration::MAX).await? {}
            Ok(())
        };
        timeout(limit, settled).await.unwrap_or(Err(Outcome::Saturated("answer_timeout")))
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Outcome> {
        let Some((mut inflate, mut output)) = self.inflate.take() else {
            return self.cut(bytes).await;
        };
        let mut input = bytes;
        let result = loop {
            match inflate.step(&mut input, &mut output) {
                Ok(0) if input.is_empty() => break Ok(()),
                Ok(count) => {
                    if let Err(outcome) = self.cut(&output[..count]).await {
                        break Err(outcome);
                    }
                    tokio::task::coop::consume_budget().await;
                }
                Err(stop) => break self.stop(stop),
            }
        };
        self.inflate = Some((inflate, output));
        result
    }

    /// Damaged data never becomes whole: what stood before it is taken, and the damage is noted.
    fn stop(&mut self, stop: Stop) -> Result<(), Outcome> {
        let reason = match stop {
            Stop::TooLarge => return Err(Outcome::TooLarge),
            Stop::Fault(Fault::Truncated) => RejectReason::TruncatedCompression,
            Stop::Fault(Fault::Corrupt) => RejectReason::CorruptCompression,
            Stop::Fault(Fault::Garbage) => RejectReason::TrailingGarbage,
        };
        self.cutter.reject(reason, "what stands before was read");
        self.is_damaged = true;
        Ok(())
    }

    async fn cut(&mut self, mut bytes: &[u8]) -> Result<(), Outcome> {
        while !bytes.is_empty() {
            self.reserve(self.cutter.capacity_with(bytes.len()))?;
            if let Some(chunk) = self.cutter.push(&mut bytes) {
                self.send(chunk).await?;
                self.reserve(self.cutter.capacity_with(0))?;
            }
        }
        Ok(())
    }

    /// Takes or gives back memory, so that `bytes` are held.
    fn reserve(&mut self, bytes: usize) -> Result<(), Outcome> {
        let wanted = bytes.div_ceil(BUFFER_UNIT_BYTES);
        let held = self.buffer.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted > held {
            let more = u32::try_from(wanted - held).unwrap_or(u32::MAX);
            let permit = Arc::clone(self.way.buffers)
                .try_acquire_many_owned(more)
                .map_err(|_| Outcome::Saturated("buffer_bytes_max"))?;
            match &mut self.buffer {
                Some(buffer) => buffer.merge(permit),
                None => self.buffer = Some(permit),
            }
        } else if let Some(buffer) = &mut self.buffer {
            drop(buffer.split(held - wanted));
        }
        Ok(())
    }

    async fn send(&mut self, chunk: Chunk) -> Result<(), Outcome> {
        if self.head.is_empty() {
            let length = chunk.headers.len().min(HEAD_BYTES_MAX);
            self.head.extend_from_slice(&chunk.headers[..length]);
        }
        let patience = self.way.limits.answer_timeout.0;
        if self.answers.len() >= BATCHES_MAX {
            self.settle(patience).await?;
        }
        let (mut batch, answer) = Batch::new(self.way.source, self.way.source, chunk);
        batch.cluster.clone_from(&self.way.cluster);
        batch.received_us = self.received_us;
        match self.way.intake.try_send(batch) {
            Ok(()) => {}
            Err(Unsent::Closed(_)) => return Err(Outcome::Closed),
            // A caller that has sent nothing is told at once; one in the middle may wait a little.
            Err(Unsent::Saturated(_)) if !self.has_sent => {
                return Err(Outcome::Saturated("queue_bytes_max"));
            }
            Err(Unsent::Saturated(batch)) => timeout(patience, self.way.intake.send(*batch))
                .await
                .map_err(|_| Outcome::Saturated("queue_bytes_max"))?
                .map_err(|_| Outcome::Closed)?,
        }
        self.has_sent = true;
        self.answers.push_back(answer);
        Ok(())
    }

    /// Waits for the oldest batch; false when there is none.
    async fn settle(&mut self, patience: Duration) -> Result<bool, Outcome> {
        let Some(answer) = self.answers.front_mut() else { return Ok(false) };
        let answer = match timeout(patience, answer).await {
            Err(_) => return Err(Outcome::Saturated("answer_timeout")),
            Ok(answer) => answer.unwrap_or(Err(Refused::Closed)),
        };
        self.answers.pop_front();
        match answer {
            Ok(_) => Ok(true),
            Err(Refused::Full | Refused::Stalled) => Err(Outcome::Full),
            Err(Refused::Closed) => Err(Outcome::Closed),
        }
    }
}

fn outcome(broken: Broken) -> Outcome {
    match broken {
        Broken::Slow => Outcome::Slow,
        Broken::Gone => Outcome::Gone,
    }
}
