//! Operator HTTP: `/livez` (the loop turns), `/readyz` (a line for everything that must be up),
//! `/metrics` (Prometheus text), `/probe` (what was stored of a probe's requests). Reads only, on a
//! listener of its own, and never waits for sources or sinks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::routing::get;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::config::Admin;
use crate::probe::seen::{is_mark, seen};
use crate::report::escape::visible;
use crate::spool::Spool;

/// A request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a request's head may take: who sends none holds a connection.
const HEAD_TIME: Duration = Duration::from_secs(2);

/// How many answers to `/probe` are looked for at a time.
const PROBES_MAX: usize = 1;
/// How often counts are folded into histograms; between two scrapes they take memory.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long accepting pauses when the system has no more files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// One thing that must be as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What: `spool`, `rules`, `source webhook`.
    pub name: String,
    /// Whether it is.
    pub is_ok: bool,
    /// One line: what it has, or what is wrong with it.
    pub detail: String,
}

impl Status {
    /// All is well.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Status {
        Status { name: name.into(), is_ok: true, detail: detail.into() }
    }

    /// Something is wrong.
    pub fn failed(name: impl Into<String>, detail: impl Into<String>) -> Status {
        Status { name: name.into(), is_ok: false, detail: detail.into() }
    }
}

/// Looks at the process, without waiting.
pub type View = Box<dyn Fn() -> Vec<Status> + Send + Sync>;

/// What the endpoints show.
pub struct Views {
    /// `/livez`: a supervisor restarts the process when one of these is not well.
    pub live: View,
    /// `/readyz`: nothing is sent here while one of these is not well.
    pub ready: View,
    /// `/probe` looks for marks in it, as long as it is open.
    pub spool: Weak<Spool>,
}

/// The listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("admin.listen: cannot listen on {address}: {source}; is it another process's?")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

/// Operator HTTP that listens; connections wait until it runs.
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    config: Admin,
}

struct Shared {
    views: Views,
    metrics: PrometheusHandle,
    probes: Semaphore,
}

impl AdminServer {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub async fn bind(config: Admin) -> Result<AdminServer, Error> {
        let address = config.listen;
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(AdminServer { listener, address, config })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until cancelled; then answers what is under way, and returns.
    pub async fn run(self, views: Views, metrics: PrometheusHandle, cancelled: CancellationToken) {
        let AdminServer { listener, address, config } = self;
        tracing::info!(%address, "serving /livez, /readyz and /metrics");
        let router = router(Arc::new(Shared {
            views,
            metrics: metrics.clone(),
            probes: Semaphore::new(PROBES_MAX),
        }));
        let room = Arc::new(Semaphore::new(config.connections_max));
        let tracker = TaskTracker::new();
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                _ = upkeep.tick() => metrics.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                        let router = router.clone();
                        let time = config.request_timeout.0;
                        tracker.spawn(async move {
                            let _permit = permit;
                            // Nobody is told of a caller that is slow or goes away.
                            _ = timeout(time, serve(stream, router)).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "operator HTTP cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        tracker.close();
        tracker.wait().await;
    }
}

/// One request and its answer; connections are not kept.
async fn serve(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "operator HTTP: a connection ended early");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|State(shared): State<Arc<Shared>>| async move { page(&(shared.views.live)()) }),
        )
        .route(
            "/readyz",
            get(|State(shared): State<Arc<Shared>>| async move { page(&(shared.views.ready)()) }),
        )
        .route(
            "/metrics",
            get(|State(shared): State<Arc<Shared>>| async move {
                answer(
                    StatusCode::OK,
                    "text/plain; version=0.0.4; charset=utf-8",
                    shared.metrics.render(),
                )
            }),
        )
        .route("/probe", get(probe))
        .with_state(shared)
}

/// What was stored with a probe's mark.
async fn probe(State(shared): State<Arc<Shared>>, uri: Uri) -> Response<Body> {
    let kind = "text/plain; charset=utf-8";
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let pairs: BTreeMap<_, _> = pairs.collect();
    let after = pairs.get("after").map(|after| after.parse::<u64>()).transpose();
    let (Some(mark), Ok(after)) = (pairs.get("mark").filter(|mark| is_mark(mark)), after) else {
        return answer(StatusCode::BAD_REQUEST, kind, "no mark of a probe\n".to_owned());
    };
    let Some(spool) = shared.views.spool.upgrade() else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, kind, "draining\n".to_owned());
    };
    // Each reads megabytes of the spool.
    let Ok(_permit) = shared.probes.try_acquire() else {
        return answer(StatusCode::TOO_MANY_REQUESTS, kind, "another probe is asked for\n".into());
    };
    match seen(&spool, mark, after).await {
        Ok(seen) => {
            let json = serde_json::to_string(&seen).unwrap_or_default();
            answer(StatusCode::OK, "application/json", json)
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, kind, format!("{error}\n")),
    }
}

/// A line for each, as Kubernetes' own endpoints write it.
fn page(statuses: &[Status]) -> Response<Body> {
    let mut text = String::new();
    for Status { name, is_ok, detail } in statuses {
        let (sign, word) = if *is_ok { ('+', "ok") } else { ('-', "failed") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[{sign}]{} {word}: {}", visible(name), visible(detail));
    }
    let is_ok = statuses.iter().all(|status| status.is_ok);
    text.push_str(if is_ok { "ok\n" } else { "failed\n" });
    let status = if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Sets the metrics of a spool to what it says of itself.
pub fn observe_spool(spool: &Spool, bytes_max: u64) {
    let stats = spool.stats();
    metrics::gauge!("kubewitness_spool_bytes").set(stats.bytes as f64);
    metrics::gauge!("kubewitness_spool_bytes_max").set(bytes_max as f64);
    metrics::gauge!("kubewitness_spool_segments").set(stats.segments as f64);
    metrics::gauge!("kubewitness_spool_waiting_bytes").set(stats.waiting_bytes as f64);
    metrics::counter!("kubewitness_spool_appended_bytes_total").absolute(stats.appended_bytes);
    metrics::counter!("kubewitness_spool_records_total").absolute(stats.records);
    metrics::counter!("kubewitness_spool_syncs_total").absolute(stats.groups);
    metrics::counter!("kubewitness_spool_appends_refused_total").absolute(stats.refused);
    metrics::counter!("kubewitness_spool_damages_total").absolute(stats.damages);
    let (letters, bytes) = spool.dead_letters().size();
    metrics::gauge!("kubewitness_dead_letters").set(letters as f64);
    metrics::gauge!("kubewitness_dead_letter_bytes").set(bytes as f64);
    for (cursor, _, lag) in spool.cursors() {
        metrics::gauge!("kubewitness_spool_cursor_lag_records", "cursor" => cursor.clone())
            .set(lag.records as f64);
        metrics::gauge!("kubewitness_spool_cursor_lag_bytes", "cursor" => cursor)
            .set(lag.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::units::Span;

    /// What a server says to each text that it is sent.
    fn ask(config: Admin, views: fn() -> Views, texts: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = AdminServer::bind(config).await.unwrap();
            let address = server.address();
            let cancelled = CancellationToken::new();
            let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
            let running = tokio::spawn(server.run(views(), recorder.handle(), cancelled.clone()));
            let mut answers = Vec::new();
            for text in texts {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
                let mut answer = String::new();
                _ = stream.read_to_string(&mut answer).await;
                answers.push(answer);
            }
            cancelled.cancel();
            running.await.unwrap();
            answers
        })
    }

    fn config() -> Admin {
        Admin { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Admin::default() }
    }

    fn views() -> Views {
        Views {
            live: Box::new(|| vec![Status::ok("loop", "turned 0 s ago")]),
            ready: Box::new(|| {
                vec![Status::ok("rules", "540"), Status::failed("spool", "is full\u{1b}[2J")]
            }),
            spool: Weak::new(),
        }
    }

    #[test]
    fn each_endpoint_says_what_is_wrong() {
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let asked = ["/livez", "/readyz", "/metrics", "/", "/livez/"].map(get);
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let answers = ask(config(), views, &asked);
        let [live, ready, metrics, none, other] = answers.as_slice() else { panic!() };
        assert!(live.starts_with("HTTP/1.1 200") && live.ends_with("0 s ago\nok\n"), "{live}");
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        let lines = "[+]rules ok: 540\n[-]spool failed: is full\\u{1b}[2J\nfailed\n";
        assert!(ready.ends_with(lines), "{ready}");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(none.starts_with("HTTP/1.1 404") && other.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn strange_callers_are_refused_or_left() {
        let long = format!("GET /livez HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000));
        let texts = ["POST /livez HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &long, "GET /livez HT"];
        let limits = Admin { request_timeout: Span::from_millis(50), ..config() };
        let answers = ask(limits, views, &texts);
        assert!(answers[0].starts_with("HTTP/1.1 405"), "{}", answers[0]);
        assert!(answers[1].is_empty() || answers[1].starts_with("HTTP/1.1 431"), "{}", answers[1]);
        assert_eq!(answers[2], "", "a head that never ends is left after request_timeout");
    }
}
