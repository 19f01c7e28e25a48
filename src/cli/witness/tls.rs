//! TLS for the witness: connections whose handshake is done.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ingest::webhook::tls::TlsFiles;
use crate::telemetry::chain;

/// Handshakes under way at a time; the others wait.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// So often the files are looked at for a new certificate.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);
/// Between attempts where the system has no room for a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections over TLS.
pub(crate) struct Secure {
    streams: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Secure {
    /// Takes connections from a listener, in the background, until this is dropped.
    pub(crate) fn new(listener: TcpListener, files: TlsFiles) -> io::Result<Secure> {
        let address = listener.local_addr()?;
        let (sender, streams) = mpsc::channel(HANDSHAKES_MAX);
        let files = Arc::new(files);
        tokio::spawn(renew(Arc::clone(&files), sender.clone()));
        tokio::spawn(take(listener, files, sender));
        Ok(Secure { streams, address })
    }
}

type Sender = mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>;

async fn take(listener: TcpListener, files: Arc<TlsFiles>, sender: Sender) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, sender) = (TlsAcceptor::from(files.current()), sender.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "no handshake in time"),
            }
        });
    }
}

async fn renew(files: Arc<TlsFiles>, sender: Sender) {
    let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
        let reread = Arc::clone(&files);
        match tokio::task::spawn_blocking(move || reread.reload()).await {
            Ok(Ok(true)) => tracing::info!("new certificate"),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the former one holds"),
            _ => {}
        }
    }
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.streams.recv().await {
            Some(stream) => stream,
            // The task that accepts ends only with this.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
