//! `Pipeline`: the graph of a running instance, built back to front, and how it is drained.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::event::redact::Redactor;
use crate::ingest::batch::{Batch, Checkpoint};
use crate::ingest::intake::{Intake, Outlet, intake};
use crate::pipeline::analyze::{self, Analysis};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::config::Config;
use crate::pipeline::deliver::{self, Delivery};
use crate::pipeline::detector::Memory;
use crate::pipeline::health::Health;
use crate::pipeline::letter::Seal;
use crate::pipeline::notice::Kind;
use crate::pipeline::recover::{Recovered, recover, store_durable};
use crate::pipeline::sequencer::Sequencer;
use crate::pipeline::settle::{self, Settling, Snapshots};
use crate::pipeline::worker::Judgement;
use crate::pipeline::{Clock, Failure, Order, TICK};
use crate::sinks::frame::Frame;
use crate::sinks::{RecordKind, Sink};
use crate::spool::{Options, Recovery, Spool, Start};
use crate::telemetry::chain;

/// What a pipeline is built of.
pub struct Setup<S> {
    /// How it works.
    pub config: Config,
    /// The cluster of events whose batch names none.
    pub cluster: Option<String>,
    /// The rules at the beginning.
    pub engine: Arc<Engine>,
    /// Replaces secrets before anything is durable.
    pub redactor: Redactor,
    /// Public key of X25519 that input which cannot be parsed is sealed to.
    pub seal_to: Option<[u8; 32]>,
    /// The spool, just opened, with its limits and with what opening found.
    pub spool: (Spool, Options, Recovery),
    /// Where records go.
    pub sinks: Vec<Frame<S>>,
    /// The time of day.
    pub clock: Clock,
    /// What the rules are tried on before anything comes; none of it is stored or counted.
    pub rehearsal: Option<Batch>,
}

/// A running pipeline. Dropping it without [`Pipeline::drain`] is as good as a crash: nothing
/// acknowledged is lost.
pub struct Pipeline {
    intake: Intake,
    orders: mpsc::UnboundedSender<Order>,
    checkpoints: BTreeMap<String, Vec<Checkpoint>>,
    spool: Arc<Spool>,
    health: Health,
    failure: watch::Receiver<Option<String>>,
    stop_sources: CancellationToken,
    stop_sinks: CancellationToken,
    left: Vec<JoinHandle<()>>,
    right: Vec<JoinHandle<()>>,
}

/// What a drain left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sinks that had not delivered everything when the time was over; they go on after the next
    /// start.
    pub sinks_behind: usize,
}

impl Pipeline {
    /// Recovers the state and starts everything: sinks first, so that what waits is delivered
    /// whatever else happens.
    ///
    /// # Errors
    /// The spool cannot be read or written.
    pub async fn start<S: Sink + 'static>(setup: Setup<S>) -> Result<Pipeline, Failure> {
        let Setup { config, cluster, engine, redactor, seal_to, spool, sinks, clock, rehearsal } =
            setup;
        let (spool, options, recovery) = spool;
        let memory = config.memory();
        let recovered = recover(&spool, &recovery, Arc::clone(&engine), memory, &clock).await?;
        let checkpoints = recovered.detector.checkpoints();
        let spool = Arc::new(spool);
        let (failed, failure) = watch::channel(None);
        let failed = Arc::new(failed);
        let (orders, received) = mpsc::unbounded_channel();
        let (stop_sources, stop_sinks) = (CancellationToken::new(), CancellationToken::new());

        let ways = Ways::new(&spool, &orders, &clock, [&stop_sources, &stop_sinks]);
        let (right, keeps_rejects) = ways.start(sinks, &failed).await?;
        let (intake, outlet) = intake(config.queue_bytes_max.as_usize());
        let (settlements, settling) = mpsc::unbounded_channel();
        let snapshots = Arc::new(Snapshots::default());
        let settle = Settling {
            spool: Arc::clone(&spool),
            snapshots: Arc::clone(&snapshots),
            orders: orders.clone(),
            clock: clock.clone(),
        };
        let settle = settle::run(settle, settling);
        let turned_us = Arc::new(AtomicI64::new(clock.now_us()));
        let judgement = Arc::new(Judgement {
            cluster: cluster.as_deref().map(Arc::from),
            redactor,
            duplicate_key: recovered.duplicate_key,
            seal: seal_to.map(Seal::new),
            event_bytes_max: (options.batch_bytes_max / 4 * 3) as usize,
        });
        tell(&recovered, &engine, &orders);
        let sequencer = Sequencer {
            detector: recovered.detector,
            appender: spool.appender().waiting(),
            settlements,
            batch_bytes_max: options.batch_bytes_max,
            policy: config.policy(&options),
            snapshots,
            duplicate_key: recovered.duplicate_key,
            keeps_rejects,
            cluster: cluster.unwrap_or_default(),
            clock: clock.clone(),
            turned_us: Arc::clone(&turned_us),
            unstored_bytes: 0,
            stored_us: clock.now_us(),
            batch_us: clock.now_us(),
        };
        let room = make_room(Arc::downgrade(&spool), engine.clone(), memory, stop_sources.clone());
        tokio::spawn(room);
        let analysis = analysis(outlet, received, engine, judgement, &config, sequencer, rehearsal);
        let analysis = Analysis { stop: stop_sources.clone(), ..analysis };
        let left = vec![watched(settle, &failed), watched(analyze::run(analysis), &failed)];
        let appender = spool.appender();
        let health = Health { clock, turned_us, appender, failure: failure.clone() };
        Ok(Pipeline {
            intake,
            orders,
            checkpoints,
            spool,
            health,
            failure,
            stop_sources,
            stop_sinks,
            left,
            right,
        })
    }

    /// Where sources send batches.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// The positions of a source, as of the last durable record.
    pub fn checkpoints(&self, source: &str) -> &[Checkpoint] {
        self.checkpoints.get(source).map_or(&[], Vec::as_slice)
    }

    /// The spool, for inspection and metrics.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Whether it lives and is ready.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// What others ask of the running pipeline.
    pub fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.orders.clone()
    }

    /// Waits until something fails that only a new start mends; says what.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_default(),
            Err(_) => "every task ended".to_owned(),
        }
    }

    /// Ends it: what sources have sent is made durable and answered, sinks have `deadline` to
    /// deliver what is there, positions and state are stored. The sources stop sending before.
    ///
    /// # Errors
    /// What failed before or while it ended; nothing acknowledged is lost.
    pub async fn drain(self, deadline: Duration) -> Result<Drained, String> {
        let Pipeline { spool, stop_sources, stop_sinks, left, right, failure, health, .. } = self;
        let appender = health.appender;
        let mut over = std::pin::pin!(tokio::time::sleep(deadline));
        stop_sources.cancel();
        for mut task in left {
            tokio::select! {
                () = &mut over, if !over.is_elapsed() => {
                    // What waits for room in the spool was not acknowledged: it is refused.
                    appender.stop_waiting();
                    joined(task).await;
                }
                ended = &mut task => resume(ended),
            }
        }
        // Cursors read what is left of a closed spool, and then end.
        let closed = match unshared(spool).await {
            Some(spool) => spool.close().await,
            None => Ok(()),
        };
        let mut sinks_behind = 0;
        for mut task in right {
            let is_late = tokio::select! {
                biased;
                ended = &mut task => {
                    resume(ended);
                    false
                }
                () = stop_sinks.cancelled() => true,
                () = until(&mut over) => true,
            };
            if is_late {
                stop_sinks.cancel();
                sinks_behind += 1;
                joined(task).await;
            }
        }
        let failed = failure.borrow().clone();
        match (failed, closed) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(())) => Ok(Drained { sinks_behind }),
        }
    }
}

/// The ways out of the spool.
struct Ways<'w> {
    spool: &'w Spool,
    orders: &'w mpsc::UnboundedSender<Order>,
    clock: &'w Clock,
    hurry: &'w CancellationToken,
    stop: &'w CancellationToken,
}

impl<'w> Ways<'w> {
    fn new(
        spool: &'w Spool,
        orders: &'w mpsc::UnboundedSender<Order>,
        clock: &'w Clock,
        [hurry, stop]: [&'w CancellationToken; 2],
    ) -> Ways<'w> {
        Ways { spool, orders, clock, hurry, stop }
    }

    /// A sink that was configured away holds nothing once it got everything; what it did not get is
    /// not given up unasked.
    async fn let_go(&self, sinks: &[&str]) -> Result<(), Failure> {
        for (name, _, lag) in self.spool.cursors() {
            if sinks.contains(&name.as_str()) {
                continue;
            }
            if lag.records == 0 {
                self.spool.remove_cursor(&name).await.map_err(Failure::Spool)?;
                tracing::info!(sink = name, "not configured any more; it got everything");
                continue;
            }
            tracing::warn!(
                sink = name,
                records = lag.records,
                bytes = lag.bytes,
                "not configured any more, and what it did not get fills the spool: configure it \
                 again, or give it up with `kubewitness spool forget --force`"
            );
        }
        Ok(())
    }

    /// Starts a task for each sink; a new one begins with the oldest record that is held. Says
    /// whether one of them gets what is no event.
    async fn start<S: Sink + 'static>(
        &self,
        sinks: Vec<Frame<S>>,
        failed: &Arc<watch::Sender<Option<String>>>,
    ) -> Result<(Vec<JoinHandle<()>>, bool), Failure> {
        let keeps_rejects = sinks.iter().any(|frame| frame.takes(RecordKind::Quarantine));
        self.let_go(&sinks.iter().map(Frame::name).collect::<Vec<_>>()).await?;
        let mut tasks = Vec::new();
        // What opening the spool met is told already.
        let known = self.spool.damages().into_iter().map(|damage| (damage.file, damage.offset));
        let damages = Arc::new(Mutex::new(known.collect()));
        for frame in sinks {
            let cursor = self.spool.cursor(frame.name(), Start::Oldest).await;
            let cursor = cursor.map_err(Failure::Spool)?;
            let orders = self.orders.clone();
            // Nobody listens only while the process ends.
            let notify = Box::new(move |notice| drop(orders.send(Order::Notice(notice))));
            let (clock, stop) = (self.clock.clone(), self.stop.clone());
            let hurry = self.hurry.clone();
            let dead_letters = self.spool.dead_letters().clone();
            let damages = Arc::clone(&damages);
            let backoff = Backoff::default();
            let delivery = Delivery {
                frame,
                cursor,
                dead_letters,
                notify,
                damages,
                backoff,
                clock,
                hurry,
                stop,
            };
            tasks.push(watched(deliver::run(delivery), failed));
        }
        Ok((tasks, keeps_rejects))
    }
}

fn analysis(
    outlet: Outlet,
    orders: mpsc::UnboundedReceiver<Order>,
    engine: Arc<Engine>,
    judgement: Arc<Judgement>,
    config: &Config,
    sequencer: Sequencer,
    rehearsal: Option<Batch>,
) -> Analysis {
    let (threads, stop) = (config.threads(), CancellationToken::new());
    Analysis { outlet, orders, engine, judgement, threads, rehearsal, sequencer, stop }
}

/// A full spool takes no record, so the state behind the next one is never stored, and the snapshot
/// holds back what every sink has passed. Then the state is read from the spool, as a start does,
/// and stored as of the last durable record.
async fn make_room(
    spool: Weak<Spool>,
    engine: Arc<Engine>,
    memory: Memory,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        let Some(spool) = spool.upgrade() else { return };
        if spool.appender().is_waiting_for_room()
            && let Err(error) = store_durable(&spool, Arc::clone(&engine), memory).await
        {
            let error = chain(&error);
            tracing::warn!(error, "the state as of the last durable record is not stored");
        }
    }
}

/// The first things that the sequencer is told: which rules judge, and what is wrong.
fn tell(recovered: &Recovered, engine: &Arc<Engine>, orders: &mpsc::UnboundedSender<Order>) {
    metrics::counter!("kubewitness_pipeline_state_restarts_total").increment(recovered.restarted);
    if recovered.is_changed {
        drop(orders.send(Order::Rules(Arc::clone(engine))));
    }
    for notice in &recovered.notices {
        drop(orders.send(Order::Notice(notice.clone())));
    }
    let lost = recovered.notices.iter().filter(|notice| notice.kind == Kind::StateLost).count();
    tracing::info!(restarted = recovered.restarted, lost, "state recovered");
}

/// Runs a task whose failure is the process's.
fn watched(
    task: impl Future<Output = Result<(), Failure>> + Send + 'static,
    failed: &Arc<watch::Sender<Option<String>>>,
) -> JoinHandle<()> {
    let failed = Arc::clone(failed);
    tokio::spawn(async move {
        if let Err(failure) = task.await {
            let text = chain(&failure);
            tracing::error!(failure = %text, "the pipeline failed");
            failed.send_if_modified(|known| {
                let is_first = known.is_none();
                known.get_or_insert(text);
                is_first
            });
        }
    })
}

async fn joined(task: JoinHandle<()>) {
    resume(task.await);
}

/// The spool, once whoever borrowed it for a moment has given it back.
async fn unshared(mut spool: Arc<Spool>) -> Option<Spool> {
    for _ in 0..100 {
        match Arc::try_unwrap(spool) {
            Ok(spool) => return Some(spool),
            Err(shared) => spool = shared,
        }
        tokio::time::sleep(TICK / 10).await;
    }
    None
}

/// Waits for a time that may be over already.
async fn until(over: &mut std::pin::Pin<&mut tokio::time::Sleep>) {
    if !over.is_elapsed() {
        over.as_mut().await;
    }
}

/// A panic of a task is one of the process.
fn resume(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
