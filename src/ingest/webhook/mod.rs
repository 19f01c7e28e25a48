//! The webhook backend's target: receives EventLists over HTTP, and answers 200 when they are
//! durable.
//!
//! kube-apiserver tries a batch five times and then loses it, whatever the answer was; an answer
//! 503 with `Retry-After` it follows cheaply inside each try. So what can be accepted later is
//! answered so, what can never be accepted is taken as a reject and answered 200, and everything
//! else is for callers that are wrong: 400, 401, 403, 405, 408, 413, 415. Redirects are never sent:
//! an API server takes the page at their end for a delivery.
//!
//! A body is a stream: it is cut into batches of about a megabyte while it arrives, and the last
//! batch's durability is the answer. What one request, one peer and all of them may use is in
//! [`Limits`](config::Limits).

pub mod config;
pub mod cutter;
pub mod inflate;
pub mod access;
mod secret;
pub(crate) mod tls;
mod pace;
mod outcome;
mod complaints;
mod silence;
mod admission;
mod upload;
mod receiver;
mod activity;
mod connection;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ingest::intake::Intake;
use crate::ingest::webhook::access::Access;
use crate::ingest::webhook::admission::Admissions;
use crate::ingest::webhook::config::Config;
use crate::ingest::webhook::connection::Server;
use crate::ingest::webhook::receiver::Receiver;

/// How long accepting pauses when the system has no more files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a receiver does not start, or a file is not read again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("webhook source {name}: {problem}")]
    Config {
        /// The source.
        name: String,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} {problem}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is it another process's, or not this host's?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    fn read(path: &Path, source: std::io::Error) -> Error {
        Error::Read { path: path.to_owned(), source }
    }
}

/// A receiver that listens; connections wait until it runs.
pub struct WebhookSource {
    listener: TcpListener,
    address: SocketAddr,
    receiver: Arc<Receiver>,
    admissions: Arc<Admissions>,
    cancelled: CancellationToken,
}

impl WebhookSource {
    /// Checks the configuration, reads certificates and tokens, and listens. What arrives goes to
    /// `intake`; when `cancelled` is, the source drains.
    ///
    /// # Errors
    /// [`Error`] names the file or key, and what to do.
    pub async fn bind(
        config: Config,
        intake: Intake,
        cancelled: CancellationToken,
    ) -> Result<WebhookSource, Error> {
        let access = Arc::new(open(&config).await?);
        let address = config.listen;
        let failed = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let limits = &config.limits;
        let connections_max = limits.connections_max.min(files_max() / 2).max(1);
        if connections_max < limits.connections_max {
            let wanted = limits.connections_max;
            tracing::warn!(
                source = config.name,
                connections_max,
                wanted,
                "fewer connections than configured: the process may open few files (ulimit -n)"
            );
        }
        let admissions = Admissions::new(
            ("connections_max", connections_max),
            ("connections_per_peer_max", limits.connections_per_peer_max),
        );
        let receiver = Arc::new(Receiver::new(config, access, intake));
        Ok(WebhookSource { listener, address, receiver, admissions, cancelled })
    }

    /// Where the receiver listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Certificates and tokens, for reading them again at once.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.receiver.access)
    }

    /// Serves until cancelled; then takes no more connections, lets requests under way end within
    /// `drain_timeout`, and returns. The intake must be served until then.
    pub async fn run(self) {
        let WebhookSource { listener, address, receiver, admissions, cancelled } = self;
        let source = Arc::clone(&receiver.source);
        tracing::info!(source = &*source, %address, "receiving");
        let (tracker, drained) = (TaskTracker::new(), CancellationToken::new());
        tracker.spawn(reload(Arc::clone(&receiver), cancelled.clone()));
        if let Some(after) = receiver.config.silent_after {
            let (receiver, cancelled) = (Arc::clone(&receiver), cancelled.clone());
            let watch =
                async move { receiver.heard.watch(after, &receiver.intake, &cancelled).await };
            let ended = drained.clone();
            tracker.spawn(async move {
                tokio::select! {
                    () = watch => {}
                    () = ended.cancelled() => {}
                }
            });
        }
        let drain_timeout = receiver.config.drain_timeout.0;
        let server = Server::new(receiver, cancelled.clone());
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                (stream, peer) = accept(&listener, &source) => {
                    let admission = match admissions.admit(peer.ip()) {
                        Ok(admission) => admission,
                        Err(reason) => {
                            rejected(&source, reason);
                            let peer = Some(peer.ip());
                            server.receiver.complaints.tell(peer, reason, "connection rejected");
                            continue;
                        }
                    };
                    let (server, drained) = (server.clone(), drained.clone());
                    tracker.spawn(async move {
                        let _admission = admission;
                        let _open = Open::new(&server.receiver.source);
                        tokio::select! {
                            () = server.serve(stream, peer) => {}
                            () = drained.cancelled() => {}
                        }
                    });
                }
            }
        }
        drop(listener);
        tracker.close();
        if tokio::time::timeout(drain_timeout, tracker.wait()).await.is_err() {
            let connections = tracker.len();
            tracing::warn!(source = &*source, connections, "requests did not end in time");
            drained.cancel();
            tracker.wait().await;
        }
        tracing::info!(source = &*source, "drained");
    }
}

/// Checks a configuration as [`WebhookSource::bind`] does, files included, without listening.
///
/// # Errors
/// As [`WebhookSource::bind`].
pub async fn check(config: &Config) -> Result<(), Error> {
    open(config).await.map(drop)
}

async fn open(config: &Config) -> Result<Access, Error> {
    config.check()?;
    let config = config.clone();
    let name = config.name.clone();
    let opened = tokio::task::spawn_blocking(move || Access::open(&config)).await;
    opened.unwrap_or_else(|error| Err(Error::Config { name, problem: error.to_string() }))
}

/// The next connection. Errors are the system's or the caller's, and pass.
async fn accept(listener: &TcpListener, source: &str) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                rejected(source, "accept");
                let is_callers = matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset
                );
                if !is_callers {
                    tracing::warn!(source, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn rejected(source: &str, reason: &'static str) {
    metrics::counter!(
        "kubewitness_webhook_connections_rejected_total",
        "source" => source.to_owned(), "reason" => reason
    )
    .increment(1);
}

/// A connection in the gauge.
struct Open(metrics::Gauge);

impl Open {
    fn new(source: &str) -> Open {
        let gauge =
            metrics::gauge!("kubewitness_webhook_connections", "source" => source.to_owned());
        gauge.increment(1.0);
        Open(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Looks at the files from time to time until cancelled. A problem is told once, until it changes.
async fn reload(receiver: Arc<Receiver>, cancelled: CancellationToken) {
    let mut told = Vec::new();
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(receiver.config.reload_interval.0.max(ACCEPT_PAUSE)) => {}
        }
        let access = Arc::clone(&receiver.access);
        let Ok((changed, errors)) = tokio::task::spawn_blocking(move || access.reload()).await
        else {
            continue;
        };
        let source = &*receiver.source;
        let count = |result: &'static str, number: usize| {
            metrics::counter!(
                "kubewitness_webhook_reloads_total",
                "source" => source.to_owned(), "result" => result
            )
            .increment(number as u64);
        };
        if changed > 0 {
            tracing::info!(source, changed, "certificates or tokens read again");
            count("changed", changed);
        }
        let problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
            tracing::error!(source, problem, "the old certificates or tokens stay in force");
            count("failed", 1);
        }
        told = problems;
    }
}

/// How many files the process may open.
fn files_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
