//! One connection from its first byte to its last: handshake, requests, time limits, farewell.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::ingest::webhook::access::Peer;
use crate::ingest::webhook::activity::{Activity, Expiry, Observed};
use crate::ingest::webhook::receiver::Receiver;
use crate::ingest::webhook::tls;

/// Bytes that a caller over HTTP/2 may send before they are read, of all requests of a connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// Serves connections.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) receiver: Arc<Receiver>,
    router: Router,
    /// Set when no more requests are taken.
    pub(crate) draining: CancellationToken,
}

impl Server {
    pub(crate) fn new(receiver: Arc<Receiver>, draining: CancellationToken) -> Server {
        let router = receiver.router();
        Server { receiver, router, draining }
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve(&self, stream: TcpStream, address: SocketAddr) {
        // Answers are one packet; waiting for more only delays them.
        _ = stream.set_nodelay(true);
        let peer = |names| Arc::new(Peer { address: address.ip().to_canonical(), names });
        let Some(files) = &self.receiver.access.tls else {
            return self.requests(stream, peer(None)).await;
        };
        let limit = self.receiver.config.limits.handshake_timeout.0;
        let handshake = TlsAcceptor::from(files.current()).accept(stream);
        let result = tokio::select! {
            result = timeout(limit, handshake) => result,
            () = self.draining.cancelled() => return,
        };
        match result {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let names = chain.and_then(|chain| chain.first()).map(tls::names);
                self.requests(stream, peer(names)).await;
            }
            Ok(Err(error)) => self.rejected(address, reason(&error), Some(&error)),
            Err(_) => self.rejected(address, "timeout", None),
        }
    }

    fn rejected(&self, address: SocketAddr, reason: &'static str, error: Option<&io::Error>) {
        let source = &*self.receiver.source;
        if let Some(error) = error {
            tracing::debug!(source, peer = %address.ip(), %error, "handshake failed");
        }
        self.receiver.complaints.tell(Some(address.ip()), reason, "handshake rejected");
        metrics::counter!(
            "kubewitness_webhook_handshakes_rejected_total",
            "source" => source.to_owned(), "reason" => reason
        )
        .increment(1);
    }

    async fn requests<I>(&self, stream: I, peer: Arc<Peer>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(&self.receiver.config.limits);
        let service = service_fn({
            let (server, activity) = (self.clone(), Arc::clone(&activity));
            move |request: Request<Incoming>| {
                let (server, peer) = (server.clone(), Arc::clone(&peer));
                let busy = activity.request();
                async move {
                    let _busy = busy;
                    server.receiver.serve(server.router, peer, request.map(Body::new)).await
                }
            }
        });
        let stream = TokioIo::new(Observed::new(stream, Arc::clone(&activity)));
        let builder = self.builder();
        let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
        let mut is_closing = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        let source = &*self.receiver.source;
                        tracing::debug!(source, error, "connection ended early");
                    }
                    return;
                }
                expiry = activity.expired() => match expiry {
                    Expiry::Header | Expiry::Linger => return self.expired(expiry),
                    Expiry::Idle | Expiry::Age => self.expired(expiry),
                },
                () = self.draining.cancelled(), if !is_closing => {}
            }
            is_closing = true;
            activity.close();
            connection.as_mut().graceful_shutdown();
        }
    }

    fn expired(&self, expiry: Expiry) {
        let reason = match expiry {
            Expiry::Header => "header_timeout",
            Expiry::Idle => "idle_timeout",
            Expiry::Age => "connection_age_max",
            Expiry::Linger => "linger",
        };
        let source = self.receiver.source.to_string();
        metrics::counter!(
            "kubewitness_webhook_connections_closed_total", "source" => source, "reason" => reason
        )
        .increment(1);
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let limits = &self.receiver.config.limits;
        let header_bytes = limits.header_bytes_max.as_usize();
        let mut builder = Builder::new(TokioExecutor::new());
        // The head's time limit is kept by `Activity`: here it would also end idle connections.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(limits.headers_max)
            .max_buf_size(header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(limits.idle_timeout.0 / 3)
            .keep_alive_timeout(limits.header_timeout.0);
        builder
    }
}

/// Why a handshake failed; a metric's label.
fn reason(error: &io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::NoCertificatesPresented) => "no_certificate",
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            rustls::CertificateError::ApplicationVerificationFailure => "wrong_name",
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
                "expired_certificate"
            }
            _ => "wrong_certificate",
        },
        Some(rustls::Error::AlertReceived(_)) => "refused_by_caller",
        Some(rustls::Error::InvalidMessage(_)) => "not_tls",
        Some(_) => "protocol",
        None => "connection",
    }
}
