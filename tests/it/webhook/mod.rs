//! The webhook source on real sockets, before a pipeline that does as it is told.

/// Callers that mean harm, or do not know better.
mod hostile;
/// What is answered, and what of it the pipeline gets.
mod requests;
/// Outages, saturation and restarts, met by an API server's retries.
mod retries;
/// Certificates: versions, names, wrong and expired ones, reload.
mod tls;
/// A body of hundreds of megabytes.
mod streaming;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kubewitness::event::Slot;
use kubewitness::event::decode::{self, Decoded};
use kubewitness::ingest::batch::{Batch, Receipt, Refused};
use kubewitness::ingest::intake::{Outlet, intake};
use kubewitness::ingest::webhook::WebhookSource;
use kubewitness::ingest::webhook::access::Access;
use kubewitness::ingest::webhook::config::Config;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Bytes that may be under way to the pipeline.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// What the pipeline does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Accept,
    Refuse(Refused),
    /// Answers nothing until the mode changes.
    Hold,
}

/// What the pipeline was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Cluster and audit id of each event.
    events: Vec<(Option<String>, String)>,
    rejects: usize,
    batches: usize,
}

/// A receiver and what stands behind it.
struct Stage {
    address: SocketAddr,
    access: Arc<Access>,
    cancelled: CancellationToken,
    running: JoinHandle<()>,
    pipeline: Arc<Pipeline>,
}

#[derive(Debug)]
struct Pipeline {
    mode: Mutex<Mode>,
    taken: Mutex<Taken>,
    changed: Notify,
    /// Batches that came, answered or not.
    given: watch::Sender<usize>,
}

impl Stage {
    /// Starts a receiver on a free port of the loopback address.
    async fn start(config: Config) -> Stage {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Stage::listen(Config { listen, ..config }).await
    }

    /// Starts a receiver where the configuration says.
    async fn listen(config: Config) -> Stage {
        let (intake, outlet) = intake(QUEUE_BYTES_MAX);
        let cancelled = CancellationToken::new();
        let source = WebhookSource::bind(config, intake, cancelled.clone()).await.unwrap();
        let (address, access) = (source.address(), source.access());
        let pipeline = Arc::new(Pipeline {
            mode: Mutex::new(Mode::Accept),
            taken: Mutex::default(),
            changed: Notify::new(),
            given: watch::Sender::new(0),
        });
        tokio::spawn(Arc::clone(&pipeline).run(outlet));
        let running = tokio::spawn(source.run());
        Stage { address, access, cancelled, running, pipeline }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn set(&self, mode: Mode) {
        *self.pipeline.mode.lock().unwrap() = mode;
        self.pipeline.changed.notify_waiters();
    }

    /// Waits until so many batches were given to the pipeline, since it started.
    async fn held(&self, batches: usize) {
        let mut given = self.pipeline.given.subscribe();
        given.wait_for(|given| *given >= batches).await.unwrap();
    }

    /// What was accepted since the last call.
    fn taken(&self) -> Taken {
        std::mem::take(&mut *self.pipeline.taken.lock().unwrap())
    }

    /// Stops the receiver and waits until it has drained.
    async fn stop(self) {
        self.cancelled.cancel();
        self.running.await.unwrap();
    }
}

impl Pipeline {
    async fn run(self: Arc<Pipeline>, mut outlet: Outlet) {
        while let Some(batch) = outlet.next().await {
            self.given.send_modify(|given| *given += 1);
            tokio::spawn(Arc::clone(&self).answer(batch));
        }
    }

    async fn answer(self: Arc<Pipeline>, batch: Batch) {
        let mode = loop {
            let changed = self.changed.notified();
            match *self.mode.lock().unwrap() {
                Mode::Hold => {}
                mode => break mode,
            }
            changed.await;
        };
        let answer = match mode {
            Mode::Refuse(refused) => Err(refused),
            Mode::Accept | Mode::Hold => Ok(Receipt::default()),
        };
        if answer.is_ok() {
            self.take(&batch);
        }
        // Nobody waits where the caller has gone.
        _ = batch.done.send(answer);
    }

    fn take(&self, batch: &Batch) {
        let mut taken = self.taken.lock().unwrap();
        let mut scratch = decode::Scratch::default();
        taken.batches += 1;
        taken.rejects += batch.chunk.rejects.len();
        for record in batch.chunk.records() {
            let mut emit = |decoded: Decoded<'_>| match decoded {
                Decoded::Event { event, context, .. } => {
                    let cluster = batch.cluster.as_deref().or(context.cluster);
                    let id = event.text(Slot::AuditId).unwrap_or_default().into_owned();
                    taken.events.push((cluster.map(str::to_owned), id));
                }
                Decoded::Reject(_) => taken.rejects += 1,
                Decoded::Control => {}
            };
            match record.header {
                None => decode::decode(record.bytes, &mut scratch, &mut emit),
                Some(header) => {
                    decode::decode_element(header, record.bytes, &mut scratch, &mut emit);
                }
            }
        }
    }
}

impl Taken {
    /// The audit ids, `cluster/id` where a cluster was told.
    fn ids(&self) -> Vec<String> {
        let id = |(cluster, id): &(Option<String>, String)| match cluster {
            Some(cluster) => format!("{cluster}/{id}"),
            None => id.clone(),
        };
        self.events.iter().map(id).collect()
    }
}

/// The value as gzip.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
