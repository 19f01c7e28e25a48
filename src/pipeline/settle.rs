//! The acknowledgement of sources: answers in order, each when all that it rests on is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::alert::time::EventTime;
use crate::ingest::batch::{Receipt, Refused};
use crate::ingest::intake::Held;
use crate::pipeline::notice::{Kind, Notice};
use crate::pipeline::tally::Tally;
use crate::pipeline::{Clock, Failure, Order, STATE};
use crate::spool::{self, Appended, DeadLetter, Pending, Snapshot, Spool};
use crate::telemetry::chain;

/// What is on its way to the disk for one batch.
#[derive(Default)]
pub struct Settlement {
    /// Its appends, in order; none when everything in it was stored before.
    pub pending: Vec<Pending>,
    /// What of it could not be used.
    pub letters: Vec<DeadLetter>,
    /// Who waits for it.
    pub answer: Option<Answer>,
    /// What is counted when it is durable.
    pub tally: Tally,
    /// The state behind it, where a snapshot is due.
    pub snapshot: Option<Vec<u8>>,
}

impl Settlement {
    /// Whether nobody waits for it and nothing is written.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.answer.is_none() && self.snapshot.is_none()
    }
}

/// Who waits for a batch, and what he is told.
pub struct Answer {
    /// The source's end.
    pub done: oneshot::Sender<Result<Receipt, Refused>>,
    /// What it is told.
    pub receipt: Receipt,
    /// Given back with the answer.
    pub held: Held,
}

/// Whether a snapshot is being written, and up to where the last one reaches.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// While it is set no other is begun.
    pub is_writing: AtomicBool,
}

/// What settling works with.
pub struct Settling {
    /// The spool, for dead letters and snapshots.
    pub spool: Arc<Spool>,
    /// Told when a snapshot is written.
    pub snapshots: Arc<Snapshots>,
    /// Told what a person must know.
    pub orders: mpsc::UnboundedSender<Order>,
    /// The time of day.
    pub clock: Clock,
}

/// Answers batches in their order until the sequencer ends. Everything before an answer is durable
/// when it is given, whoever wrote it: a copy of an event that is still on its way waits for it.
///
/// # Errors
/// The spool cannot be written: the process must exit and open it again.
pub async fn run(
    settling: Settling,
    mut settlements: mpsc::UnboundedReceiver<Settlement>,
) -> Result<(), Failure> {
    let Settling { spool, snapshots, .. } = &settling;
    let mut is_losing = false;
    let mut seq_last = spool.stats().seq_durable;
    let mut writing: Option<tokio::task::JoinHandle<()>> = None;
    let mut failure = None;
    let mut is_over = false;
    while let Some(settlement) = settlements.recv().await {
        let Settlement { pending, letters, answer, tally, snapshot } = settlement;
        if !is_over {
            let kept = settling.keep(letters, &mut is_losing).await;
            let durable = match kept {
                Ok(()) => durable(pending, &mut seq_last).await,
                Err(error) => Err(error),
            };
            is_over = durable.is_err();
            // No room, and the process ends: nothing failed, the rest is refused.
            failure = durable.err().filter(|error| !error.is_full()).map(Failure::Spool);
        }
        if let Some(Answer { done, receipt, held }) = answer {
            let answer = if !is_over { Ok(receipt) } else { Err(Refused::Closed) };
            // A source that went away asks again, and is told of duplicates.
            let _gone = done.send(answer);
            drop(held);
        }
        if !is_over {
            tally.count();
            if let Some(bytes) = snapshot {
                let (spool, snapshots) = (Arc::clone(spool), Arc::clone(snapshots));
                let seq = seq_last;
                if let Some(before) = writing.take() {
                    drop(before.await);
                }
                writing = Some(tokio::spawn(async move {
                    write(&spool, Snapshot { seq, bytes }).await;
                    snapshots.is_writing.store(false, Ordering::Release);
                }));
            }
        }
    }
    if let Some(writing) = writing {
        // Its own failure was told where it happened.
        drop(writing.await);
    }
    failure.map_or(Ok(()), Err)
}

async fn durable(pending: Vec<Pending>, seq_last: &mut u64) -> Result<(), spool::Error> {
    for one in pending {
        let Appended { seq_last: last, .. } = one.durable().await?;
        *seq_last = last;
    }
    Ok(())
}

impl Settling {
    /// Keeps dead letters; where there is no room for them they are counted.
    async fn keep(
        &self,
        letters: Vec<DeadLetter>,
        is_losing: &mut bool,
    ) -> Result<(), spool::Error> {
        let number = letters.len() as u64;
        if number == 0 {
            return Ok(());
        }
        let error = match self.spool.dead_letters().append_patiently(letters).await {
            Ok(()) => {
                *is_losing = false;
                return Ok(());
            }
            Err(error @ (spool::Error::Io { .. } | spool::Error::Poisoned { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        metrics::counter!("kubewitness_pipeline_dead_letters_lost_total").increment(number);
        if !std::mem::replace(is_losing, true) {
            let notice = Notice {
                kind: Kind::DeadLettersFull,
                time: EventTime(self.clock.now_us()),
                source: "spool".to_owned(),
                subject: "dead-letters".to_owned(),
                text: error.to_string(),
                lost_bytes: None,
            };
            // Nobody listens only while the process ends.
            drop(self.orders.send(Order::Notice(notice)));
        }
        Ok(())
    }
}

async fn write(spool: &Spool, snapshot: Snapshot) {
    let (seq, bytes) = (snapshot.seq, snapshot.bytes.len());
    match spool.write_snapshot(STATE, snapshot).await {
        Ok(()) => {
            metrics::gauge!("kubewitness_pipeline_snapshot_bytes").set(bytes as f64);
            tracing::debug!(seq, bytes, "snapshot written");
        }
        Err(error) => {
            metrics::counter!("kubewitness_pipeline_snapshot_failures_total").increment(1);
            let error = chain(&error);
            tracing::error!(seq, bytes, %error, "snapshot not written; the old one stands");
        }
    }
}
