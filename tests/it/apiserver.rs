//! A client that behaves as kube-apiserver's webhook backend: five tries with backoff, and inside
//! each of them up to ten retries of what was answered with `Retry-After`.
//!
//! All its waits can be made shorter by one factor, so that a test of an outage of seconds takes
//! milliseconds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use reqwest::{Body, Client, ClientBuilder};

/// Tries of a batch, after which it is lost for good.
const TRIES: u32 = 5;
/// Retries inside a try, of answers that ask for them.
const INNER_RETRIES: u32 = 10;
/// What a try may take, inner retries included.
const TRY_SECONDS: f64 = 30.0;
/// `--audit-webhook-initial-backoff`.
const BACKOFF_SECONDS: f64 = 10.0;

/// One API server and its connections.
#[derive(Clone)]
pub(crate) struct ApiServer {
    client: Client,
    url: String,
    token: Option<String>,
    /// Real seconds for a second of the API server's.
    scale: f64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) is_delivered: bool,
    pub(crate) tries: u32,
    /// Requests, those of inner retries included.
    pub(crate) requests: u32,
}

impl ApiServer {
    /// Posts to this URL over plain HTTP/1.1.
    pub(crate) fn plain(url: &str) -> ApiServer {
        ApiServer::new(url, Client::builder())
    }

    /// Posts to this URL over TLS; HTTP/2 where the server offers it.
    pub(crate) fn tls(url: &str, tls: rustls::ClientConfig) -> ApiServer {
        ApiServer::new(url, Client::builder().tls_backend_preconfigured(tls))
    }

    fn new(url: &str, builder: ClientBuilder) -> ApiServer {
        // reqwest looks for the process' provider even where it makes no TLS of its own.
        kubewitness::tls::install();
        let builder = builder.no_proxy().pool_idle_timeout(Duration::from_secs(90));
        ApiServer {
            client: builder.build().expect("a client can be built"),
            url: url.trim_end_matches('/').to_owned(),
            token: None,
            scale: 1.0,
        }
    }

    pub(crate) fn token(mut self, token: &str) -> ApiServer {
        self.token = Some(token.to_owned());
        self
    }

    /// Takes `scale` real seconds for each second of waiting.
    pub(crate) fn scale(mut self, scale: f64) -> ApiServer {
        self.scale = scale;
        self
    }

    fn scaled(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.scale)
    }

    /// Sends a batch until it is delivered or lost.
    pub(crate) async fn send(&self, body: Vec<u8>) -> Sent {
        let mut requests = 0;
        let mut backoff = BACKOFF_SECONDS;
        for tries in 1..=TRIES {
            // The client's own deadline is real where the waits are shortened, so it is generous.
            let limit = self.scaled(TRY_SECONDS).max(Duration::from_secs(10));
            let result = tokio::time::timeout(limit, self.attempt(&body, &mut requests)).await;
            if result.unwrap_or(false) {
                return Sent { is_delivered: true, tries, requests };
            }
            if tries < TRIES {
                tokio::time::sleep(self.scaled(backoff * (1.0 + jitter()))).await;
                backoff *= 1.5;
            }
        }
        Sent { is_delivered: false, tries: TRIES, requests }
    }

    /// One try: whether the batch was delivered.
    async fn attempt(&self, body: &[u8], requests: &mut u32) -> bool {
        for retry in 0..=INNER_RETRIES {
            *requests += 1;
            let Ok(response) = self.post(body.to_vec().into()).await else { return false };
            let status = response.status().as_u16();
            let after = response.headers().get(RETRY_AFTER);
            let after = after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
            // An answer whose body or type cannot be read counts as none.
            let has_type = response.headers().get(CONTENT_TYPE).is_none_or(|value| {
                value.to_str().is_ok_and(|text| text.contains('/') && !text.contains(' '))
            });
            let is_read = response.bytes().await.is_ok();
            match (status, after) {
                (200..=206, _) => return has_type && is_read,
                (429 | 500.., Some(seconds)) if retry < INNER_RETRIES => {
                    tokio::time::sleep(self.scaled(f64::from(seconds))).await;
                }
                _ => return false,
            }
        }
        false
    }

    /// One request as an API server makes it.
    pub(crate) async fn post(&self, body: Body) -> reqwest::Result<reqwest::Response> {
        let mut request = self
            .client
            .post(format!("{}?timeout=30s", self.url))
            .header(ACCEPT, "application/json, */*")
            .header(ACCEPT_ENCODING, "gzip")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "Go-http-client/2.0");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.body(body).send().await
    }
}

/// Up to a fifth more; not random, so that a test is the same each time.
fn jitter() -> f64 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    f64::from(COUNT.fetch_add(7, Ordering::Relaxed) % 20) / 100.0
}

/// An audit event as an item of an EventList.
pub(crate) fn event(audit_id: &str, user: &str) -> String {
    format!(
        "{{\"level\":\"Metadata\",\"auditID\":\"{audit_id}\",\"stage\":\"ResponseComplete\",\
         \"requestURI\":\"/api/v1/namespaces/shop/pods\",\"verb\":\"list\",\
         \"user\":{{\"username\":\"{user}\",\"groups\":[\"system:authenticated\"]}},\
         \"sourceIPs\":[\"10.1.2.3\"],\"userAgent\":\"kubectl/v1.36.2\",\
         \"objectRef\":{{\"resource\":\"pods\",\"namespace\":\"shop\",\"apiVersion\":\"v1\"}},\
         \"responseStatus\":{{\"metadata\":{{}},\"code\":200}},\
         \"requestReceivedTimestamp\":\"2026-11-22T00:00:00.000000Z\",\
         \"stageTimestamp\":\"2026-11-22T00:00:00.001000Z\"}}"
    )
}

/// The body of a batch.
pub(crate) fn event_list<T: AsRef<str>>(items: &[T]) -> Vec<u8> {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    let head = "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{}";
    format!("{head},\"items\":[{}]}}\n", items.join(",")).into_bytes()
}

/// A batch of so many events, with ids `<name>-0` and so on.
pub(crate) fn batch(name: &str, events: usize) -> Vec<u8> {
    let items: Vec<String> =
        (0..events).map(|number| event(&format!("{name}-{number}"), "mallory")).collect();
    event_list(&items)
}
