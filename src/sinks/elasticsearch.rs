//! Data streams of Elasticsearch or OpenSearch. Delivered means that each document was answered
//! with created, or was there already.
//!
//! Each item is one `create` of a `_bulk` request, with an `_id` that copies have in common, so
//! sending again repeats nothing within a backing index. Every document's own status counts, never
//! the request's alone. A document that the mapping refuses is sent once more with its body as
//! text; what is refused then is a dead letter.

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::sinks::encode::{Subject, ecs, json::Object};
use crate::sinks::endpoint::{self, Answer, Auth, Client};
use crate::sinks::lanes::Lanes;
use crate::sinks::{CheckError, Delivered, Item, RecordKind, Rejection, SendError, Sink};

/// The index template that the data streams need.
pub const INDEX_TEMPLATE: &str =
    include_str!("../../deploy/siem/elasticsearch/index-template.json");
/// How long documents are kept, in Elasticsearch's words.
pub const ILM_POLICY: &str = include_str!("../../deploy/siem/elasticsearch/ilm-policy.json");
/// How long documents are kept, in OpenSearch's words.
pub const ISM_POLICY: &str = include_str!("../../deploy/siem/elasticsearch/ism-policy.json");

/// Where the template is.
const TEMPLATE_PATH: &str = "_index_template/kubewitness";

/// What is configured of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster: `https://elasticsearch:9200`.
    pub url: String,
    /// The data stream of each kind of record.
    #[serde(default)]
    pub streams: Streams,
    /// `{scheme: ApiKey, secret: …}`, or `{scheme: Basic, username: …, secret: …}`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// How requests are made. Bodies are compressed unless this says otherwise.
    #[serde(default)]
    pub http: endpoint::Config,
}

/// The data stream of each kind of record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Of events. Default: `logs-kubewitness.audit-default`.
    pub events: String,
    /// Of alerts. Default: `logs-kubewitness.alerts-default`.
    pub alerts: String,
    /// Of notices about the audit trail. Default: `logs-kubewitness.notices-default`.
    pub notices: String,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams {
            events: "logs-kubewitness.audit-default".to_owned(),
            alerts: "logs-kubewitness.alerts-default".to_owned(),
            notices: "logs-kubewitness.notices-default".to_owned(),
        }
    }
}

impl Streams {
    fn of(&self, kind: RecordKind) -> &str {
        match kind {
            RecordKind::Events => &self.events,
            RecordKind::Alerts => &self.alerts,
            RecordKind::Notices | RecordKind::Anchors | RecordKind::Quarantine => &self.notices,
        }
    }
}

/// Creates documents.
pub struct Elasticsearch {
    config: Config,
    kinds: Vec<RecordKind>,
    client: Client,
    lanes: Lanes,
}

/// Requests under way at a time: a document says itself when it happened.
const IN_FLIGHT_MAX: usize = 4;

/// What `_bulk` answers.
#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<BulkItem>,
}

#[derive(Deserialize)]
struct BulkItem {
    create: Created,
}

#[derive(Deserialize)]
struct Created {
    status: u16,
    error: Option<BulkError>,
}

#[derive(Default, Deserialize)]
struct BulkError {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

/// What to do about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    Again,
    Reword(String),
    Reject(&'static str, String),
    Block(String, &'static str),
}

impl Created {
    fn fate(self) -> Fate {
        let error = self.error.unwrap_or_default();
        let cause = format!("{} {}: {}", self.status, error.kind, error.reason);
        match (self.status, error.kind.as_str()) {
            (200 | 201, _) => Fate::Stored,
            // A copy of it is there.
            (409, _) => Fate::Stored,
            (_, "cluster_block_exception") => {
                Fate::Block(cause, "free disk space, or lift the block of the index")
            }
            (401 | 403, _) => Fate::Block(cause, "allow the user create_doc on the data stream"),
            (404, _) => Fate::Block(cause, "create the data stream, or its index template"),
            (429 | 500..=599, _) => Fate::Again,
            (413, _) => Fate::Reject("too_large", cause),
            (400, "illegal_argument_exception") if cause.contains("data stream") => {
                Fate::Block(cause, "name a data stream, or install the index template")
            }
            (400, _) => Fate::Reword(cause),
            _ => Fate::Reject("refused", cause),
        }
    }
}

impl Elasticsearch {
    /// A sink of this configuration for these kinds of records; connects to nothing.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn new(config: Config, kinds: &[RecordKind]) -> Result<Elasticsearch, String> {
        let client = Client::new(&config.url, &config.http, true)?;
        for kind in kinds {
            let name = config.streams.of(*kind);
            let is_sound =
                |byte: u8| !byte.is_ascii_uppercase() && !b"\\/*?\"<>| ,#:".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_sound) {
                return Err(format!("`streams.{}`: {name:?} is no name", kind.as_str()));
            }
        }
        let lanes = Lanes::new(config.http.requests_in_flight_max.unwrap_or(IN_FLIGHT_MAX));
        Ok(Elasticsearch { config, kinds: kinds.to_vec(), client, lanes })
    }

    fn headers(&self) -> Result<HeaderMap, SendError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(auth) = &self.config.auth {
            headers.insert(AUTHORIZATION, auth.value()?);
        }
        Ok(headers)
    }

    /// Creates the documents of some items; what became of each.
    async fn create(&self, items: &[Item<'_>], body: ecs::Body) -> Result<Vec<Fate>, SendError> {
        let mut lines = Vec::new();
        for item in items {
            let subject = Subject::of(item);
            Object::write(&mut lines, |o| {
                o.object("create", |o| {
                    o.text("_index", self.config.streams.of(item.kind()));
                    o.text("_id", &subject.id);
                });
            });
            lines.push(b'\n');
            ecs::encode(&subject, body, &mut lines);
            lines.push(b'\n');
        }
        let path =
            "_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";
        let answer = self.client.post(path, self.headers()?, lines).await?;
        answer.judge()?;
        let bulk: Bulk = serde_json::from_slice(&answer.body).map_err(|error| {
            SendError::retry(format!("the answer is no bulk answer: {error}: {}", answer.shown()))
        })?;
        if !bulk.errors {
            return Ok(vec![Fate::Stored; items.len()]);
        }
        if bulk.items.len() != items.len() {
            let cause = format!("{} answers for {} documents", bulk.items.len(), items.len());
            return Err(SendError::retry(cause));
        }
        Ok(bulk.items.into_iter().map(|item| item.create.fate()).collect())
    }

    /// Creates the documents of a share of a load.
    async fn deliver(&self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let mut delivered = Delivered::default();
        let mut reword = Vec::new();
        let fates = self.create(batch, ecs::Body::Tree).await?;
        for (index, fate) in fates.into_iter().enumerate() {
            match fate {
                Fate::Reword(_) => reword.push(index),
                fate => settle(index, fate, &mut delivered),
            }
        }
        if !reword.is_empty() {
            self.reword(batch, reword, &mut delivered).await;
        }
        delivered.again.sort_unstable();
        Ok(delivered)
    }

    async fn get(&self, path: &str) -> Result<Answer, SendError> {
        self.client.request(Method::GET, path, self.headers()?, None).await
    }

    /// Creates these once more with their bodies as text, in smaller parts where the whole is
    /// refused.
    async fn reword(&self, batch: &[Item<'_>], reword: Vec<usize>, delivered: &mut Delivered) {
        let mut parts = vec![reword];
        while let Some(mut part) = parts.pop() {
            let items: Vec<Item<'_>> = part.iter().map(|index| batch[*index]).collect();
            match self.create(&items, ecs::Body::Text).await {
                Ok(fates) => {
                    for (index, fate) in part.into_iter().zip(fates) {
                        settle(index, fate, delivered);
                    }
                }
                Err(why @ (SendError::Retry { .. } | SendError::Block { .. })) => {
                    delivered.again.extend(parts.drain(..).flatten().chain(part));
                    delivered.why.get_or_insert(why);
                }
                Err(_) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(SendError::TooLarge { cause }) => {
                    settle(part[0], Fate::Reject("too_large", cause), delivered);
                }
                Err(error) => {
                    settle(part[0], Fate::Reject("refused", error.to_string()), delivered);
                }
            }
        }
    }

    /// Whether it is OpenSearch, which has other names for some things.
    async fn is_opensearch(&self) -> Result<bool, CheckError> {
        let about = self.get("").await?;
        about.approve()?;
        Ok(String::from_utf8_lossy(&about.body).contains("\"distribution\""))
    }

    /// Puts the policy and the template there; returns what was put.
    async fn put_templates(&self) -> Result<Vec<String>, CheckError> {
        let is_opensearch = self.is_opensearch().await?;
        let (policy, text) = policy(is_opensearch);
        let template = match is_opensearch {
            // OpenSearch has its own name for the type, and attaches policies by itself.
            true => INDEX_TEMPLATE
                .replace("\"flattened\", \"ignore_above\": 8191", "\"flat_object\"")
                .replace("\"flattened\"", "\"flat_object\"")
                .replace("\"lifecycle\": { \"name\": \"kubewitness\" },", ""),
            false => INDEX_TEMPLATE.to_owned(),
        };
        let mut done = Vec::new();
        for (path, text) in [(policy, text), (TEMPLATE_PATH, template.as_str())] {
            let mut headers = self.headers()?;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let body = Some(text.as_bytes().to_vec());
            let answer = self.client.request(Method::PUT, path, headers, body).await?;
            if path == policy && is_unknown(&answer) {
                done.push(format!("no policy was put: {}", without_policies(is_opensearch)));
                continue;
            }
            // OpenSearch replaces a policy only for whoever names its version.
            if is_opensearch && answer.status == 409 {
                done.push(format!("{path} is there already, and left as it is"));
                continue;
            }
            answer.approve()?;
            done.push(format!("put {path}"));
        }
        Ok(done)
    }

    /// Everything that is missing, at once.
    async fn preflight(&self) -> Result<(), CheckError> {
        let is_opensearch = self.is_opensearch().await?;
        let mut missing = Vec::new();
        for (what, path) in [
            ("lifecycle policy", policy(is_opensearch).0.to_owned()),
            ("index template", TEMPLATE_PATH.to_owned()),
        ] {
            if self.is_missing(&path).await? {
                missing.push(format!("no {what} {:?}", "kubewitness"));
            }
        }
        if missing.is_empty() {
            // The first document of a stream makes it, by the template.
            return Ok(());
        }
        for kind in &self.kinds {
            let name = self.config.streams.of(*kind);
            if self.is_missing(&format!("_data_stream/{name}")).await? {
                missing.push(format!("no data stream {name:?}"));
            }
        }
        let cause = format!("there is {}", missing.join(", "));
        let remedy =
            "run `kubewitness check --install`, or put what is in deploy/siem/elasticsearch";
        Err(CheckError::new(cause, remedy))
    }

    async fn is_missing(&self, path: &str) -> Result<bool, CheckError> {
        let answer = self.get(path).await?;
        match answer.status {
            404 => Ok(true),
            // What a server cannot have is not missing; `install` says so.
            400 if is_unknown(&answer) => Ok(false),
            // Not everybody may ask for what he may use.
            403 => Ok(false),
            _ => answer.approve().map(|()| false),
        }
    }
}

/// Whether the server has no such API: what makes it is a plugin or a licence that is not there.
fn is_unknown(answer: &Answer) -> bool {
    answer.status == 400 && answer.shown().contains("no handler found")
}

fn without_policies(is_opensearch: bool) -> String {
    let what = if is_opensearch { "Index State Management" } else { "index lifecycle management" };
    format!("the server has no {what}, so documents stay until somebody deletes them")
}

/// Where the policy is, and what it says.
fn policy(is_opensearch: bool) -> (&'static str, &'static str) {
    match is_opensearch {
        true => ("_plugins/_ism/policies/kubewitness", ISM_POLICY),
        false => ("_ilm/policy/kubewitness", ILM_POLICY),
    }
}

impl Sink for Elasticsearch {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let mut lanes = self.lanes;
        let sent = lanes.send(batch, |share| self.deliver(share)).await;
        self.lanes = lanes;
        self.client.renew_after(&sent);
        sent
    }

    fn batches(&self) -> usize {
        self.lanes.open()
    }

    /// Installs the index template and the policy that says how long documents are kept.
    async fn install(&mut self) -> Result<Vec<String>, CheckError> {
        self.put_templates().await
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        self.preflight().await
    }
}

fn settle(index: usize, fate: Fate, delivered: &mut Delivered) {
    match fate {
        Fate::Stored => {}
        Fate::Again => delivered.again.push(index),
        Fate::Reword(cause) => {
            delivered.rejected.push(Rejection { index, reason: "mapping", cause });
        }
        Fate::Reject(reason, cause) => {
            delivered.rejected.push(Rejection { index, reason, cause });
        }
        Fate::Block(cause, remedy) => {
            delivered.again.push(index);
            delivered.why = Some(SendError::block(cause, remedy));
        }
    }
}

#[cfg(test)]
mod tests;
