//! The left half: batches of sources to durable events with their alerts, and the sources' answers.

use std::ops::Range;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::engine::Engine;
use crate::ingest::batch::{Batch, Refused};
use crate::ingest::intake::Outlet;
use crate::pipeline::sequencer::{Sequencer, Step, refuse};
use crate::pipeline::worker::{Judged, Judgement, Worker};
use crate::pipeline::{Failure, Order, TICK};
use crate::spool;

/// Batches that are with the workers or wait for their turn behind them; their bytes are bounded
/// by the intake.
const TICKETS_MAX: usize = 64;

/// A part of a batch for a worker, with the rules that judge it.
struct Work {
    batch: Arc<Batch>,
    part: Range<usize>,
    engine: Arc<Engine>,
    done: oneshot::Sender<Judged>,
}

/// A place in the order of everything that moves the state.
enum Ticket {
    /// A batch and what becomes of its parts.
    Batch(Arc<Batch>, Vec<oneshot::Receiver<Judged>>),
    Step(Step),
}

/// What the left half is made of.
pub struct Analysis {
    /// Where batches come from; closed to end.
    pub outlet: Outlet,
    /// What else is asked.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// The rules at the beginning.
    pub engine: Arc<Engine>,
    /// What the workers are told.
    pub judgement: Arc<Judgement>,
    /// Worker threads.
    pub threads: usize,
    /// What each worker judges before it begins and throws away, so that nobody waits for what is
    /// to be learnt of the rules.
    pub rehearsal: Option<Batch>,
    /// The ordered part.
    pub sequencer: Sequencer,
    /// Cancelled: take no more batches, finish those that were sent.
    pub stop: tokio_util::sync::CancellationToken,
}

/// Runs until it is stopped and everything that was sent is on its way to the disk, with a snapshot
/// behind it. Answers are given by `settle`.
///
/// # Errors
/// The spool takes nothing any more; the rest was refused.
pub async fn run(analysis: Analysis) -> Result<(), Failure> {
    let Analysis { mut outlet, mut orders, mut engine, judgement, threads, .. } = analysis;
    let Analysis { rehearsal, sequencer, stop, .. } = analysis;
    // Any worker takes any part of a batch. What the order depends on is drawn before: a ticket.
    let work = start_workers(threads, &judgement, &engine, rehearsal)?;
    // One thread takes the tickets in order, waits for each batch to be judged, tells the detector,
    // and hands the append to the spool's writer.
    let (tickets, sequence) = start_sequencer(sequencer)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stopping = false;
    loop {
        let ticket = tokio::select! {
            biased;
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                outlet.close();
                None
            }
            Some(order) = orders.recv() => match order {
                // Batches behind this ticket are judged by the new rules, those before by the old.
                Order::Rules(next) => {
                    engine = Arc::clone(&next);
                    Some(Ticket::Step(Step::Rules(next)))
                }
                Order::Notice(notice) => Some(Ticket::Step(Step::Notice(notice))),
            },
            batch = outlet.next() => match batch {
                Some(batch) => match share(batch, threads, &engine, &work).await {
                    Some(ticket) => Some(ticket),
                    None => break,
                },
                None => break,
            },
            _ = tick.tick() => Some(Ticket::Step(Step::Tick)),
        };
        if let Some(ticket) = ticket
            && tickets.send(ticket).await.is_err()
        {
            break;
        }
    }
    // Nothing comes any more: the state is stored as it is, so that the next start reads little.
    drop(tickets.send(Ticket::Step(Step::Store)).await);
    drop((work, tickets));
    outlet.close();
    while let Some(batch) = outlet.try_next() {
        refuse(batch, Refused::Closed);
    }
    sequence.await.unwrap_or(Err(Failure::Spool(spool::Error::Closed)))
}

/// Shares a batch out among the workers: the client of a webhook waits for it.
async fn share(
    batch: Batch,
    threads: usize,
    engine: &Arc<Engine>,
    workers: &async_channel::Sender<Work>,
) -> Option<Ticket> {
    let parts = batch.chunk.parts(threads);
    let batch = Arc::new(batch);
    let mut judged = Vec::with_capacity(parts.len());
    for part in parts {
        let (done, one) = oneshot::channel();
        let work = Work { batch: Arc::clone(&batch), part, engine: Arc::clone(engine), done };
        if workers.send(work).await.is_err() {
            // No worker is left that could have another part of it.
            Arc::into_inner(batch).into_iter().for_each(|batch| refuse(batch, Refused::Closed));
            return None;
        }
        judged.push(one);
    }
    Some(Ticket::Batch(batch, judged))
}

/// Starts the threads that judge batches; they end when the sender is dropped.
fn start_workers(
    threads: usize,
    judgement: &Arc<Judgement>,
    engine: &Arc<Engine>,
    rehearsal: Option<Batch>,
) -> Result<async_channel::Sender<Work>, Failure> {
    let rehearsal = rehearsal.map(Arc::new);
    // Whoever sends wakes a worker himself. Were they to wake each other, the second would wait on
    // the first one's processor while the sender's has nothing to do.
    let (sender, receiver) = async_channel::bounded::<Work>(threads.max(1));
    for number in 0..threads.max(1) {
        let receiver = receiver.clone();
        let mut worker = Worker::new(Arc::clone(judgement), Arc::clone(engine));
        let rehearsal = rehearsal.clone();
        let run = move || {
            if let Some(batch) = rehearsal {
                worker.rehearse(&batch);
            }
            while let Ok(Work { batch, part, engine, done }) = receiver.recv_blocking() {
                let judged = worker.take(&batch, part, &engine);
                // Whoever has all parts has the batch to himself.
                drop(batch);
                // The sequencer is gone only when the spool failed; the source is not answered.
                drop(done.send(judged));
            }
        };
        let thread = std::thread::Builder::new().name(format!("judge-{number}"));
        thread.spawn(run).map_err(Failure::Thread)?;
    }
    Ok(sender)
}

/// How the sequencer ended.
type Ended = oneshot::Receiver<Result<(), Failure>>;

/// Starts the thread of the ordered part; it ends when the sender is dropped, or when it fails.
fn start_sequencer(mut sequencer: Sequencer) -> Result<(mpsc::Sender<Ticket>, Ended), Failure> {
    let (sender, mut receiver) = mpsc::channel::<Ticket>(TICKETS_MAX);
    let (ended, end) = oneshot::channel();
    let handle = Handle::current();
    let run = move || {
        let mut result = Ok(());
        while let (Ok(()), Some(ticket)) = (&result, receiver.blocking_recv()) {
            let step = match ticket {
                Ticket::Step(step) => step,
                Ticket::Batch(batch, parts) => {
                    let judged: Result<Vec<Judged>, _> =
                        parts.into_iter().map(oneshot::Receiver::blocking_recv).collect();
                    match (judged, Arc::into_inner(batch)) {
                        (Ok(judged), Some(batch)) => Step::Batch(Box::new(batch), judged),
                        _ => {
                            result = Err(Failure::Worker);
                            break;
                        }
                    }
                }
            };
            result = sequencer.step(step, &handle);
        }
        drop(ended.send(result));
    };
    let thread = std::thread::Builder::new().name("sequencer".to_owned());
    thread.spawn(run).map_err(Failure::Thread)?;
    Ok((sender, end))
}
