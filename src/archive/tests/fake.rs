//! A server that answers by a function, after answers that it was told to give first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, Uri};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Answerer = Box<dyn FnMut(&Seen) -> Response<Body> + Send>;

/// A server on loopback.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    inner: Arc<Mutex<(VecDeque<Response<Body>>, Answerer)>>,
}

impl Fake {
    pub(crate) async fn start(
        answer: impl FnMut(&Seen) -> Response<Body> + Send + 'static,
    ) -> Fake {
        let answer: Answerer = Box::new(answer);
        let inner = Arc::new(Mutex::new((VecDeque::new(), answer)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Fake { url, inner };
        let app = Router::new().fallback(handle).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }

    /// Puts an answer before all others.
    pub(crate) fn next(&self, response: Response<Body>) {
        self.inner.lock().unwrap().0.push_back(response);
    }
}

/// An answer with a status and a body.
pub(crate) fn answer(status: u16, body: impl Into<String>) -> Response<Body> {
    Response::builder().status(status).body(Body::from(body.into())).unwrap()
}

async fn handle(State(fake): State<Fake>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
    let seen = Seen { method: head.method, uri: head.uri, headers: head.headers, body };
    let mut inner = fake.inner.lock().unwrap();
    let (script, answer) = &mut *inner;
    script.pop_front().unwrap_or_else(|| answer(&seen))
}
