//! A server that answers by a script, and remembers what it was sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, Uri};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::record::StoredEvent;
use crate::sinks::{Item, Outgoing};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Uncompressed.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An event as the spool hands it to a sink.
pub(crate) fn event(seq: u64, raw: &'static str) -> Item<'static> {
    let stored = StoredEvent {
        flags: 0,
        time_us: 1_795_306_613_715_698,
        received_us: 0,
        duplicate_key: [seq as u8; 16],
        cluster: "prod-1",
        source: "log",
        position: "audit.log:7",
        raw: raw.as_bytes(),
    };
    Item { seq, outgoing: Outgoing::Event(stored) }
}

type Answerer = Box<dyn FnMut(&Seen) -> Response<Body> + Send>;

/// A server on loopback.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    seen: Vec<Seen>,
    /// Answers to give before asking `answer`.
    script: VecDeque<Response<Body>>,
    answer: Answerer,
}

impl Fake {
    /// Starts a server that answers by a function.
    pub(crate) async fn start(
        answer: impl FnMut(&Seen) -> Response<Body> + Send + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Fake::serve(url, listener, Box::new(answer))
    }

    fn serve<L: Listener<Addr = SocketAddr>>(url: String, listener: L, answer: Answerer) -> Fake {
        let inner = Inner { seen: Vec::new(), script: VecDeque::new(), answer };
        let inner = Arc::new(Mutex::new(inner));
        let app = Router::new().fallback(handle).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Fake { url, inner }
    }

    /// Starts a server that shows a certificate for localhost and answers 200.
    pub(crate) async fn start_tls(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let listener = Encrypted { listener, acceptor: acceptor(own) };
        Fake::serve(url, listener, Box::new(|_| answer(200, "")))
    }

    /// Puts an answer before all others.
    pub(crate) fn next(&self, response: Response<Body>) {
        self.inner.lock().unwrap().script.push_back(response);
    }

    /// Takes what has arrived.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.lock().unwrap().seen)
    }
}

/// The server's side of TLS with this certificate.
pub(crate) fn acceptor(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsAcceptor {
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A listener behind TLS, which drops who does not trust it.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// An answer with a status and a body.
pub(crate) fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

async fn handle(State(inner): State<Arc<Mutex<Inner>>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let bytes: Bytes = axum::body::to_bytes(body, 1 << 30).await.unwrap();
    let is_gzip = head.headers.get("content-encoding").is_some_and(|value| value == "gzip");
    let body = if is_gzip {
        use std::io::Read;
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
        plain
    } else {
        bytes.to_vec()
    };
    let seen = Seen { uri: head.uri, headers: head.headers, body };
    let mut inner = inner.lock().unwrap();
    let inner = &mut *inner;
    let response = match inner.script.pop_front() {
        Some(response) => response,
        None => (inner.answer)(&seen),
    };
    inner.seen.push(seen);
    response
}
