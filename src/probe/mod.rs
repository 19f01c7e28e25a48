//! Asks an API server what it tells strangers, as an attacker's first requests would, and leaves
//! marks that the audit trail must show.
//!
//! Every request is a GET without credentials (one has a token that no server knows), with a user
//! agent of its own: `kubewitness-probe/<version> <random>-<number>`. Redirects are not followed,
//! no more than [`BODY_BYTES_MAX`] of an answer are read, and nothing of it is shown but the
//! version that the server gives away. Meant for API servers that the user answers for.

pub mod seen;
pub mod trail;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, header};
use url::Url;

use crate::clock::{self, Stopwatch};

/// What is read of an answer.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// What is kept of a version.
const VERSION_CHARS_MAX: usize = 64;
/// A token that is none; the server refuses it before anything else.
const TOKEN: &str = "kubewitness-probe-is-no-token";

/// Who may have an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody, by Kubernetes' default roles (system:public-info-viewer).
    Public,
    /// Nobody without credentials.
    Private,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// Who may have the answer.
    pub access: Access,
    /// Whether it brings the token that is none.
    pub has_token: bool,
    /// What the answer would tell.
    pub tells: &'static str,
}

/// The requests, in the order of an attacker: fingerprint, enumerate, take.
pub fn requests(node: &str) -> Vec<Request> {
    use Access::{Private, Public};
    let node = percent(node);
    let stats = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let table: [(&str, Access, &'static str); 13] = [
        ("/version", Public, "the version, and with it known vulnerabilities"),
        ("/healthz", Public, "that an API server is here"),
        ("/livez", Public, "that an API server is here"),
        ("/readyz", Public, "that an API server is here"),
        ("/metrics", Private, "rates and latencies of requests, names of resources"),
        ("/api", Private, "API versions"),
        ("/apis", Private, "API groups: what is installed"),
        ("/openapi/v2", Private, "the whole schema, custom resources included"),
        ("/openapi/v3", Private, "the whole schema, custom resources included"),
        ("/api/v1/namespaces?limit=1", Private, "namespaces"),
        ("/api/v1/namespaces/kube-system/pods?limit=1", Private, "what runs the cluster"),
        ("/api/v1/namespaces/kube-system/secrets?limit=1", Private, "credentials"),
        (&stats, Private, "a kubelet, through the API server"),
    ];
    let anonymous = table.iter().map(|(target, access, tells)| Request {
        target: (*target).to_owned(),
        access: *access,
        has_token: false,
        tells,
    });
    let refused = Request {
        target: "/api?timeout=1s".to_owned(),
        access: Private,
        has_token: true,
        tells: "API versions, to a token that nobody issued",
    };
    anonymous.chain([refused]).collect()
}

/// A name as part of a path.
fn percent(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let spelled = name.bytes().map(|byte| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    spelled.collect()
}

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://host:6443`.
    pub url: Url,
    /// PEM file of the authorities that the server's certificate is checked against; the system's
    /// when absent.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate will do.
    pub is_insecure: bool,
    /// Time for one request and its answer.
    pub timeout: Duration,
    /// A node's name, for the kubelet through the API server.
    pub node: String,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// The version that it gave away.
        version: Option<String>,
        /// Whether the body is a Kubernetes Status: the API server itself answered.
        is_status: bool,
    },
    /// There was no answer; why.
    Silent(String),
}

/// What an outcome means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everybody can have what nobody should.
    Open,
    /// Everybody can have what everybody may have by default.
    Public,
    /// 403: the server knows anonymous callers, and this one may not.
    Forbidden,
    /// 401: the server does not know the caller.
    Unauthorized,
    /// Something else, such as 404 or a redirect.
    Other,
    /// No answer.
    Silent,
}

impl Verdict {
    /// The verdict in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Open => "OPEN to everybody",
            Verdict::Public => "public, as by default",
            Verdict::Forbidden => "refused: anonymous callers may not",
            Verdict::Unauthorized => "refused: unknown caller",
            Verdict::Other => "no answer to judge by",
            Verdict::Silent => "no answer",
        }
    }
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was asked.
    pub request: Request,
    /// The user agent that it was asked with; the audit trail has it.
    pub user_agent: String,
    /// When, microseconds since the epoch.
    pub asked_us: i64,
    /// How long the answer took.
    pub took: Duration,
    /// What was said.
    pub outcome: Outcome,
}

impl Answer {
    /// What it means.
    pub fn verdict(&self) -> Verdict {
        let Outcome::Answered { status, is_status, .. } = &self.outcome else {
            return Verdict::Silent;
        };
        match (status, self.request.access) {
            (401, _) => Verdict::Unauthorized,
            (403, _) => Verdict::Forbidden,
            // A health endpoint that says no is open all the same.
            (200..=299 | 500, Access::Public) => Verdict::Public,
            (200..=299, Access::Private) => Verdict::Open,
            // Past authorization: the kubelet or the node was not there.
            (404 | 500..=504, Access::Private) if *is_status && self.is_proxied() => Verdict::Open,
            _ => Verdict::Other,
        }
    }

    /// Requests that a server only fails to serve once it has let the caller pass.
    fn is_proxied(&self) -> bool {
        self.request.target.contains("/proxy/")
    }
}

/// Why nothing was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL names no server to ask.
    #[error("{0}: write https://HOST:PORT, without path, query or credentials")]
    Url(String),
    /// The authorities cannot be read.
    #[error("{}: {problem}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The client cannot be made.
    #[error("cannot set up TLS: {0}")]
    Client(reqwest::Error),
}

/// A client, and the mark that all of its requests carry.
pub struct Probe {
    client: Client,
    target: Target,
    mark: String,
}

impl Probe {
    /// Sets up; asks nothing. Reads `ca_file`, blocking.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(target: Target) -> Result<Probe, Error> {
        let url = &target.url;
        let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() || !is_bare {
            let host = url.host_str().unwrap_or("no host");
            return Err(Error::Url(format!("{}://{host}", url.scheme())));
        }
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(target.timeout)
            .connect_timeout(target.timeout)
            .referer(false)
            .tls_danger_accept_invalid_certs(target.is_insecure);
        if let Some(path) = &target.ca_file {
            let wrong = |problem: String| Error::Authorities { path: path.clone(), problem };
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let authorities = Certificate::from_pem_bundle(&pem);
            let authorities = authorities.map_err(|error| wrong(error.to_string()))?;
            if authorities.is_empty() {
                return Err(wrong("holds no certificate in PEM".to_owned()));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(Error::Client)?;
        Ok(Probe { client, target, mark: mark() })
    }

    /// What every user agent of this probe begins with; unique to it.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Sends the requests one after the other; hands over each answer as it comes.
    pub async fn run(&self, each: &mut (dyn FnMut(&Answer) + Send)) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (index, request) in requests(&self.target.node).into_iter().enumerate() {
            let answer = self.ask(index, request).await;
            each(&answer);
            answers.push(answer);
        }
        answers
    }

    async fn ask(&self, index: usize, request: Request) -> Answer {
        let user_agent = format!("{}-{index}", self.mark);
        let asked_us = clock::now_us();
        let watch = Stopwatch::start();
        let outcome = match self.send(&request, &user_agent).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Silent(cause(&error)),
        };
        Answer { request, user_agent, asked_us, took: watch.elapsed(), outcome }
    }

    async fn send(&self, request: &Request, user_agent: &str) -> Result<Outcome, reqwest::Error> {
        let base = self.target.url.as_str().trim_end_matches('/');
        let mut builder = self
            .client
            .get(format!("{base}{}", request.target))
            .header(header::USER_AGENT, user_agent)
            .header(header::ACCEPT, "application/json");
        if request.has_token {
            builder = builder.bearer_auth(TOKEN);
        }
        let response = builder.send().await?;
        let status = response.status().as_u16();
        let is_version = request.target == "/version" && status == 200;
        let body = read(response).await?;
        let body: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let text = |key: &str| Some(body.as_ref()?.get(key)?.as_str()?.to_owned());
        let is_status = text("kind").is_some_and(|kind| kind == "Status");
        let version = text("gitVersion").filter(|_| is_version);
        let version = version.map(|text| text.chars().take(VERSION_CHARS_MAX).collect());
        Ok(Outcome::Answered { status, version, is_status })
    }
}

/// The beginning of a body; the rest is left, and the connection with it.
async fn read(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let room = BODY_BYTES_MAX - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if body.len() == BODY_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

/// The innermost cause, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn mark() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(clock::now_us());
    format!("{}{} {random:016x}", seen::MARK, env!("CARGO_PKG_VERSION"))
}
