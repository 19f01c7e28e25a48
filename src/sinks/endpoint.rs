//! What every sink over HTTP has in common: one client, one table of what answers mean.
//!
//! A redirect is never followed, no proxy is taken from the environment, and the answer is read up
//! to a limit. Everything is sent again that may not have arrived, so every request is one that
//! may be repeated.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, Method, Proxy};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock;
use crate::secret::Secret;
use crate::sinks::{CheckError, Delivered, SendError, certificate_remedy};
use crate::units::Span;

/// An answer is read up to this size.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Of an answer that is no success so many characters are shown.
const SHOWN_MAX: usize = 300;

/// How requests are made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// So long a request may take, answer included. Default: 30s.
    pub timeout: Span,
    /// Whether bodies are compressed with gzip. Default: as the sink's type has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip: Option<bool>,
    /// Requests under way at a time, at most; how many of them the far side takes is found out.
    /// With more than one, records may arrive in another order. Default: as the sink's type has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_in_flight_max: Option<usize>,
    /// The URL of a proxy. Default: none; the environment is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Certificates in PEM that the server's must lead to. Default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            timeout: Span::from_secs(30),
            gzip: None,
            requests_in_flight_max: None,
            proxy: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// How a sink says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The scheme: `Bearer` (default), `Basic`, `ApiKey`, or whatever the far side calls it.
    #[serde(default = "bearer")]
    pub scheme: String,
    /// The user, for `Basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The token, key or password: `{file: …}` or `{env: …}`.
    pub secret: Secret,
}

fn bearer() -> String {
    "Bearer".to_owned()
}

impl Auth {
    /// The value of the `Authorization` header; reads the secret.
    pub(crate) fn value(&self) -> Result<HeaderValue, SendError> {
        let remedy = "mend the sink's secret";
        let secret =
            self.secret.read("auth.secret").map_err(|cause| SendError::block(cause, remedy))?;
        let credentials = match &self.username {
            Some(username) => {
                use base64::Engine;
                base64::prelude::BASE64_STANDARD.encode(format!("{username}:{secret}"))
            }
            None => secret,
        };
        let value = HeaderValue::from_str(&format!("{} {credentials}", self.scheme));
        let mut value = value.map_err(|_| {
            SendError::block("auth.secret holds characters that no header can have", remedy)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A client for one server.
pub(crate) struct Client {
    client: reqwest::Client,
    base: Url,
    is_gzip: bool,
    config: Config,
}

/// What a server answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// When to come again, where it said so.
    pub(crate) retry_after: Option<Duration>,
    /// The body, up to a limit.
    pub(crate) body: Vec<u8>,
    /// Cookies that it set, by which a load balancer knows its servers.
    pub(crate) cookie: Option<HeaderValue>,
}

impl Client {
    /// A client for what is below `url`; connects to nothing.
    pub(crate) fn new(url: &str, config: &Config, is_gzip: bool) -> Result<Client, String> {
        let base = Url::parse(url).map_err(|error| format!("`url` {url:?}: {error}"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(format!("`url` {url:?} must begin with https:// or http://"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err("`url` holds a user or password; put it under `auth`".to_owned());
        }
        let client = build(config)?;
        let is_gzip = config.gzip.unwrap_or(is_gzip);
        Ok(Client { client, base, is_gzip, config: config.clone() })
    }

    /// Where a batch is not delivered, reads the certificates again, which may have been exchanged,
    /// and gives up open connections.
    pub(crate) fn renew_after(&mut self, sent: &Result<Delivered, SendError>) {
        let is_delivered = sent.as_ref().is_ok_and(|delivered| delivered.why.is_none());
        if !is_delivered && let Ok(client) = build(&self.config) {
            self.client = client;
        }
    }

    /// The server's name, for messages.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The address of a path below the base; `path` is the program's own.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        if !path.is_empty() {
            url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        }
        if query.is_some() {
            url.set_query(query);
        }
        url
    }

    /// Sends a body.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, SendError> {
        self.request(Method::POST, path, headers, Some(body)).await
    }

    /// Sends a request, and reads all of its answer.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, SendError> {
        let mut request = self.client.request(method, self.url(path));
        if let Some(mut body) = body {
            if self.is_gzip {
                body = gzip(&body)?;
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            request = request.body(body);
        }
        let credentials = credentials(&headers);
        let sent = request.headers(headers).send().await;
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(read_retry_after);
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after,
            body: Vec::new(),
            cookie: cookies(response.headers()),
        };
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.body.len() + chunk.len() <= ANSWER_BYTES_MAX => {
                    answer.body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Err(SendError::retry("the answer is too long")),
                Ok(None) => break,
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        // What it says is logged, and told to other sinks.
        for credential in credentials {
            answer.body = without(&answer.body, &credential);
        }
        Ok(answer)
    }

    /// What to do when there is no whole answer.
    fn unreachable(&self, error: &reqwest::Error) -> SendError {
        let mut causes = Vec::new();
        let mut source: Option<&(dyn std::error::Error + 'static)> =
            std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let what = if error.is_timeout() { "no answer in time" } else { "cannot reach it" };
        let mut cause = causes.join(": ");
        if cause.is_empty() {
            // Without the URL, which may be a secret.
            cause = what.to_owned();
        }
        let cause = format!("{}: {what}: {cause}", self.host());
        match certificate_remedy(&cause) {
            Some(remedy) => SendError::block(cause, remedy),
            None => SendError::retry(cause),
        }
    }
}

/// Shorter credentials stand in words and numbers of any answer; they prove nothing to anybody.
const CREDENTIAL_BYTES_MIN: usize = 8;

/// What a request proves itself by, without the scheme before it.
fn credentials(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let secret = headers.values().filter(|value| value.is_sensitive());
    let last = |value: &HeaderValue| {
        let mut words = value.as_bytes().split(|byte| *byte == b' ');
        words.next_back().unwrap_or_default().to_vec()
    };
    secret.map(last).filter(|word| word.len() >= CREDENTIAL_BYTES_MIN).collect()
}

/// The bytes with every occurrence of a credential replaced.
fn without(bytes: &[u8], credential: &[u8]) -> Vec<u8> {
    let (mut out, mut start) = (Vec::with_capacity(bytes.len()), 0);
    for found in memchr::memmem::find_iter(bytes, credential) {
        out.extend_from_slice(&bytes[start..found]);
        out.extend_from_slice(b"[REDACTED]");
        start = found + credential.len();
    }
    out.extend_from_slice(&bytes[start..]);
    out
}

fn build(config: &Config) -> Result<reqwest::Client, String> {
    crate::tls::install();
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("kubewitness/", env!("CARGO_PKG_VERSION")))
        .timeout(config.timeout.0)
        .connect_timeout(config.timeout.0.min(Duration::from_secs(10)))
        .pool_idle_timeout(Duration::from_secs(60));
    if let Some(proxy) = &config.proxy {
        let proxy = Proxy::all(proxy).map_err(|error| format!("`http.proxy`: {error}"))?;
        builder = builder.proxy(proxy);
    }
    if let Some(file) = &config.ca_file {
        let bundle = Certificate::from_pem_bundle(&read(file)?);
        let bundle = bundle.map_err(|error| format!("{}: {error}", file.display()))?;
        if bundle.is_empty() {
            return Err(format!("{} holds no certificate", file.display()));
        }
        builder = builder.tls_certs_only(bundle);
    }
    match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            let identity = Identity::from_pem(&pem);
            builder =
                builder.identity(identity.map_err(|error| format!("{}: {error}", cert.display()))?);
        }
        (None, None) => {}
        _ => return Err("`http.cert_file` and `http.key_file` go together".to_owned()),
    }
    builder.build().map_err(|error| format!("cannot make a client: {error}"))
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, SendError> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    let done = encoder.write_all(body).and_then(|()| encoder.finish());
    done.map_err(|error| SendError::retry(format!("cannot compress: {error}")))
}

/// Seconds, or a date.
fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_microsecond();
    let left = at.saturating_sub(clock::now_us());
    Some(Duration::from_micros(u64::try_from(left).unwrap_or_default()))
}

/// What a client sends back of the cookies that an answer sets.
fn cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let pairs: Vec<&str> = headers
        .get_all(reqwest::header::SET_COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .collect();
    if pairs.is_empty() { None } else { HeaderValue::from_str(&pairs.join("; ")).ok() }
}

impl Answer {
    /// Takes a secret out of the body that was sent otherwise than in a header: what a far side
    /// says is logged, and told to other sinks.
    pub(crate) fn hide(&mut self, secret: &str) {
        if secret.len() >= CREDENTIAL_BYTES_MIN {
            self.body = without(&self.body, secret.as_bytes());
        }
    }

    /// The body's beginning as one line for a message.
    pub(crate) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let calm = |letter: char| if letter.is_control() { ' ' } else { letter };
        text.chars().take(SHOWN_MAX).map(calm).collect()
    }

    /// What the status means for a batch, by the table of reference answers.
    ///
    /// # Errors
    /// What to do, unless the status is a success.
    pub(crate) fn judge(&self) -> Result<(), SendError> {
        let cause = format!("answered {}: {}", self.status, self.shown());
        Err(match self.status {
            200..=299 => return Ok(()),
            408 | 425 | 429 | 500 | 502..=504 | 507 | 520..=530 => {
                SendError::Retry { after: self.retry_after, cause }
            }
            413 => SendError::TooLarge { cause },
            400 | 406 | 409 | 422 => SendError::Reject { reason: "refused", cause },
            300..=399 => {
                SendError::block(cause, "a redirect is never followed: name the final `url`")
            }
            401 | 403 | 407 => SendError::block(cause, "mend the sink's secret or its rights"),
            404 | 405 | 410 | 501 => SendError::block(cause, "mend the sink's `url`"),
            411 | 415 => SendError::block(cause, "the far side wants another kind of body"),
            _ => SendError::Retry { after: self.retry_after, cause },
        })
    }

    /// What the status means for a preflight.
    pub(crate) fn approve(&self) -> Result<(), CheckError> {
        self.judge().map_err(CheckError::from)
    }
}

/// A header's name and value, both the program's own or the configuration's.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("`headers`: {name:?} cannot be a header with this value");
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    Ok((key, HeaderValue::from_str(value).map_err(|_| wrong())?))
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
