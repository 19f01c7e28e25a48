//! What a caller is told, and in which form.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::clock;
use crate::ingest::webhook::access::Denied;

/// The longest request id that is given back to Firehose, which sends UUIDs.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is durable.
    Accepted,
    /// The caller may not post this.
    Denied(Denied),
    /// An encoding that is not read.
    Encoding,
    /// A body beyond a limit.
    TooLarge,
    /// A body that comes too slowly.
    Slow,
    /// The caller has gone; nobody reads the answer.
    Gone,
    /// No room now; the text is a metric's label.
    Saturated(&'static str),
    /// No room in the spool.
    Full,
    /// The receiver stops.
    Closed,
}

impl Outcome {
    fn status(self) -> StatusCode {
        match self {
            Outcome::Accepted => StatusCode::OK,
            Outcome::Denied(Denied::Unauthenticated(_)) => StatusCode::UNAUTHORIZED,
            Outcome::Denied(Denied::Forbidden(_)) => StatusCode::FORBIDDEN,
            Outcome::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Outcome::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Outcome::Slow => StatusCode::REQUEST_TIMEOUT,
            Outcome::Gone => StatusCode::BAD_REQUEST,
            Outcome::Saturated(_) | Outcome::Full | Outcome::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// One sentence for whoever operates the caller.
    fn text(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Denied(Denied::Unauthenticated(_)) => "the credential is missing or wrong",
            Outcome::Denied(Denied::Forbidden(_)) => "the credential is not bound to this cluster",
            Outcome::Encoding => "the body's encoding is not supported; send it plain or as gzip",
            Outcome::TooLarge => "the body is too large",
            Outcome::Slow => "the body comes too slowly",
            Outcome::Gone => "the body is incomplete",
            Outcome::Saturated(_) => "too much is under way; try again",
            Outcome::Full => "there is no room; try again",
            Outcome::Closed => "shutting down; try again",
        }
    }

    /// What a metric is labelled with when the body was not accepted.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Denied(Denied::Unauthenticated(reason) | Denied::Forbidden(reason))
            | Outcome::Saturated(reason) => reason,
            Outcome::Encoding => "encoding",
            Outcome::TooLarge => "too_large",
            Outcome::Slow => "slow",
            Outcome::Gone => "gone",
            Outcome::Full => "full",
            Outcome::Closed => "closed",
        }
    }

    /// After how many seconds the caller may try again. Saturation passes quickly, and callers
    /// that were refused together should not come back together.
    fn retry_seconds(self) -> Option<u64> {
        static REFUSALS: AtomicU64 = AtomicU64::new(0);
        match self {
            Outcome::Saturated(_) => Some(1 + REFUSALS.fetch_add(1, Ordering::Relaxed) % 3),
            Outcome::Full | Outcome::Closed => Some(5),
            _ => None,
        }
    }

    /// The answer; `ends_connection` for what HTTP/1.1 cannot go on after.
    pub(crate) fn response(self, form: Form<'_>, ends_connection: bool) -> Response<Body> {
        let body = match form {
            Form::Plain if self == Outcome::Accepted => "{}".to_owned(),
            Form::Plain => json(&Problem { error: self.text() }),
            Form::Firehose { request_id } => json(&FirehoseAnswer {
                request_id: cut(request_id),
                timestamp: clock::now_us() / 1_000,
                error_message: (self != Outcome::Accepted).then_some(self.text()),
            }),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Outcome::Denied(Denied::Unauthenticated(_))) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self == Outcome::Encoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if ends_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form<'f> {
    /// An API server's or Pub/Sub's, which look at the status alone.
    Plain,
    /// Firehose's, which wants its request id back.
    Firehose { request_id: &'f str },
}

#[derive(Serialize)]
struct Problem {
    error: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FirehoseAnswer<'f> {
    request_id: &'f str,
    /// Milliseconds since the epoch.
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'static str>,
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

fn cut(request_id: &str) -> &str {
    &request_id[..request_id.floor_char_boundary(REQUEST_ID_BYTES_MAX)]
}
