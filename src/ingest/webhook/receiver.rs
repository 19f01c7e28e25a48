//! Requests to answers: which path, who calls, and what becomes of the body.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, ORIGIN};
use axum::http::{HeaderMap, Response, Version};
use axum::routing::post;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::clock::Stopwatch;
use crate::event::value::Value;
use crate::ingest::intake::Intake;
use crate::ingest::webhook::access::{Access, Denied, Granted, Peer};
use crate::ingest::webhook::admission::Admissions;
use crate::ingest::webhook::complaints::Complaints;
use crate::ingest::webhook::config::Config;
use crate::ingest::webhook::outcome::{Form, Outcome};
use crate::ingest::webhook::pace::PacedBody;
use crate::ingest::webhook::silence::Heard;
use crate::ingest::webhook::upload::{BUFFER_UNIT_BYTES, Upload, Way};

/// Header in which Firehose sends the id that it wants back.
const REQUEST_ID: &str = "x-amz-firehose-request-id";

/// Of a stranger's body, what is read all the same, so that the caller gets to read the answer.
const DISCARDED_BYTES_MAX: u64 = 4 << 20;

/// The same of a body that finds no room: its caller must learn when to try again.
const POSTPONED_BYTES_MAX: u64 = 64 << 20;

/// What all connections share.
pub(crate) struct Receiver {
    pub(crate) config: Config,
    pub(crate) access: Arc<Access>,
    pub(crate) intake: Intake,
    pub(crate) heard: Heard,
    pub(crate) source: Arc<str>,
    pub(crate) complaints: Complaints,
    requests: Arc<Admissions>,
    buffers: Arc<Semaphore>,
}

/// Which door a request came through; the name is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Audit,
    Firehose,
    PubSub,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Door::Audit => "audit",
            Door::Firehose => "firehose",
            Door::PubSub => "pubsub",
        }
    }
}

impl Receiver {
    pub(crate) fn new(config: Config, access: Arc<Access>, intake: Intake) -> Receiver {
        let source: Arc<str> = config.name.as_str().into();
        let declared = config.clusters.iter().map(|cluster| cluster.name.as_str());
        let firehose = config.firehose.iter().filter_map(|firehose| firehose.cluster.as_deref());
        let pubsub = config.pubsub.iter().filter_map(|pubsub| pubsub.cluster.as_deref());
        let tokens = config.tokens.iter().filter_map(|token| token.cluster.as_deref());
        let clusters = declared.chain(tokens).chain(firehose).chain(pubsub);
        let units = config.limits.buffer_bytes_max.as_usize() / BUFFER_UNIT_BYTES;
        Receiver {
            complaints: Complaints::new(&source),
            heard: Heard::new(&source, clusters.map(Arc::from)),
            requests: Admissions::new(
                ("requests_max", config.limits.requests_max),
                ("requests_per_peer_max", config.limits.requests_per_peer_max),
            ),
            buffers: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            config,
            access,
            intake,
            source,
        }
    }

    /// The paths; anything else is 404, and other methods than POST are 405.
    pub(crate) fn router(self: &Arc<Receiver>) -> Router {
        let mut router = Router::new();
        let path = &self.config.path;
        for path in [
            path.clone(),
            format!("{path}/"),
            format!("{path}/{{cluster}}"),
            format!("{path}/{{cluster}}/"),
        ] {
            router = router.route(&path, post(audit));
        }
        if let Some(firehose) = &self.config.firehose {
            for path in [firehose.path.clone(), format!("{}/", firehose.path)] {
                router = router.route(&path, post(self::firehose));
            }
        }
        if let Some(pubsub) = &self.config.pubsub {
            for path in [pubsub.path.clone(), format!("{}/", pubsub.path)] {
                router = router.route(&path, post(self::pubsub));
            }
        }
        router.with_state(Arc::clone(self))
    }

    /// Answers one request of a caller.
    pub(crate) async fn serve(
        &self,
        router: Router,
        peer: Arc<Peer>,
        mut request: Request,
    ) -> Result<Response<Body>, Infallible> {
        let started = Stopwatch::start();
        request.extensions_mut().insert(peer);
        let response = router.oneshot(request).await?;
        let path = response.extensions().get::<Door>().map_or("other", |door| door.name());
        let class = match response.status().as_u16() / 100 {
            2 => "2xx",
            4 => "4xx",
            _ => "5xx",
        };
        let source = self.source.to_string();
        metrics::counter!(
            "kubewitness_webhook_requests_total",
            "source" => source.clone(), "path" => path, "status" => class
        )
        .increment(1);
        metrics::histogram!("kubewitness_webhook_request_seconds", "source" => source)
            .record(started.elapsed().as_secs_f64());
        Ok(response)
    }

    /// Takes the body of a caller that may post, or refuses it.
    async fn take(&self, door: Door, granted: Granted, request: Request) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let mut body = PacedBody::new(body, &self.config.limits);
        let mut request_id = header(&parts.headers, REQUEST_ID).unwrap_or_default().to_owned();
        let outcome = match granted {
            Err(denied) => Outcome::Denied(denied),
            Ok(cluster) => {
                let peer = parts.extensions.get::<Arc<Peer>>();
                let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let address = peer.map_or(nobody, |peer| peer.address);
                let caller = (&parts.headers, address);
                self.accept(caller, cluster, &mut body, &mut request_id).await
            }
        };
        let is_read = match outcome {
            Outcome::Accepted => true,
            // Reading on would invite what was not wanted.
            _ if parts.headers.contains_key(EXPECT) => false,
            Outcome::Slow | Outcome::Gone | Outcome::TooLarge => false,
            Outcome::Denied(_) | Outcome::Encoding => body.discard(DISCARDED_BYTES_MAX).await,
            Outcome::Saturated(_) | Outcome::Full | Outcome::Closed => {
                body.discard(POSTPONED_BYTES_MAX).await
            }
        };
        self.count(outcome, body.received(), parts.extensions.get::<Arc<Peer>>());
        let form = match door {
            Door::Firehose => Form::Firehose { request_id: &request_id },
            Door::Audit | Door::PubSub => Form::Plain,
        };
        let is_http1 = parts.version <= Version::HTTP_11;
        let is_last = !is_read || outcome == Outcome::Closed;
        let mut response = outcome.response(form, is_http1 && is_last);
        response.extensions_mut().insert(door);
        response
    }

    async fn accept(
        &self,
        (headers, address): (&HeaderMap, IpAddr),
        cluster: Option<Arc<str>>,
        body: &mut PacedBody,
        request_id: &mut String,
    ) -> Outcome {
        let is_gzip = match header(headers, CONTENT_ENCODING.as_str()).map(str::trim) {
            None | Some("" | "identity") => false,
            Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => true,
            Some(_) => return Outcome::Encoding,
        };
        let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        if length.is_some_and(|length: u64| length > self.config.limits.body_bytes_max.0) {
            return Outcome::TooLarge;
        }
        // Said before the body is looked at: the sooner, the cheaper for both.
        if self.intake.is_closed() {
            return Outcome::Closed;
        }
        if self.intake.bytes_free() == 0 {
            return Outcome::Saturated("queue_bytes_max");
        }
        let _admission = match self.requests.admit(address) {
            Ok(admission) => admission,
            Err(limit) => return Outcome::Saturated(limit),
        };
        let way = Way {
            intake: &self.intake,
            limits: &self.config.limits,
            buffers: &self.buffers,
            source: &self.source,
            cluster: cluster.clone(),
        };
        let mut upload = Upload::new(way, is_gzip);
        let result = upload.run(body).await;
        if request_id.is_empty()
            && let Some(found) =
                Value::of(&upload.head).member("requestId").and_then(|id| id.text())
        {
            *request_id = found.into_owned();
        }
        match result {
            Ok(()) => {
                self.heard.note(cluster.as_ref());
                Outcome::Accepted
            }
            Err(outcome) => outcome,
        }
    }

    fn count(&self, outcome: Outcome, bytes: u64, peer: Option<&Arc<Peer>>) {
        let source = self.source.to_string();
        metrics::counter!("kubewitness_webhook_received_bytes_total", "source" => source.clone())
            .increment(bytes);
        if outcome == Outcome::Accepted {
            return;
        }
        let reason = outcome.reason();
        self.complaints.tell(peer.map(|peer| peer.address), reason, "request refused");
        metrics::counter!(
            "kubewitness_webhook_refused_total", "source" => source.clone(), "reason" => reason
        )
        .increment(1);
        if let Outcome::Denied(Denied::Unauthenticated(reason) | Denied::Forbidden(reason)) =
            outcome
        {
            metrics::counter!(
                "kubewitness_webhook_denied_total", "source" => source, "reason" => reason
            )
            .increment(1);
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Who calls; nobody, where the connection did not say. A page in a browser is refused: it reaches
/// loopback addresses, and nobody asked it to post events.
fn caller(request: &Request) -> Result<&Peer, Denied> {
    if request.headers().contains_key(ORIGIN) {
        return Err(Denied::Forbidden("browser"));
    }
    let peer = request.extensions().get::<Arc<Peer>>();
    peer.map(|peer| &**peer).ok_or(Denied::Unauthenticated("no_credential"))
}

async fn audit(State(receiver): State<Arc<Receiver>>, request: Request) -> Response<Body> {
    let rest = request.uri().path().strip_prefix(receiver.config.path.as_str());
    let named = rest.map(|rest| rest.trim_matches('/')).filter(|name| !name.is_empty());
    let granted =
        caller(&request).and_then(|peer| receiver.access.audit(peer, request.headers(), named));
    receiver.take(Door::Audit, granted, request).await
}

async fn firehose(State(receiver): State<Arc<Receiver>>, request: Request) -> Response<Body> {
    let granted = receiver.access.firehose(request.headers());
    receiver.take(Door::Firehose, granted, request).await
}

async fn pubsub(State(receiver): State<Arc<Receiver>>, request: Request) -> Response<Body> {
    let granted = receiver.access.pubsub(request.headers(), request.uri().query());
    receiver.take(Door::PubSub, granted, request).await
}
