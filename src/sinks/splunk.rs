//! Splunk's HTTP Event Collector. Delivered means, with `acks: true`, that an indexer has written
//! the events; without, that a receiver has taken them into its memory, which a crash there loses.
//!
//! Acknowledgements are numbered per channel and indexer, so behind a load balancer the number of
//! one indexer may be asked of another. Here every batch has a channel of its own, made from what
//! the batch holds: no other batch can be confirmed by its number, whichever indexer answers, and
//! a repeated batch is confirmed by either copy. Cookies are sent back, for balancers that keep a
//! client with one indexer by them.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Stopwatch;
use crate::secret::Secret;
use crate::sinks::encode::Format;
use crate::sinks::encode::json::{Object, lossy};
use crate::sinks::endpoint::{self, Answer, Auth, Client};
use crate::sinks::lanes::Lanes;
use crate::sinks::{CheckError, Delivered, Item, Outgoing, RecordKind, SendError, Sink, batch_id};
use crate::units::Span;

/// What is configured of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The collector: `https://splunk:8088`.
    pub url: String,
    /// The token: `{file: …}` or `{env: …}`.
    pub token: Secret,
    /// `event` (with time, host and fields of its own) or `raw` (lines). Default: event.
    #[serde(default)]
    pub endpoint: Endpoint,
    /// Whether to wait until an indexer has written the events. The token must have it switched
    /// on; Splunk Cloud has it for few senders. Default: false.
    #[serde(default)]
    pub acks: bool,
    /// A batch that is not acknowledged within this time is sent again. Default: 2m.
    #[serde(default = "ack_timeout")]
    pub ack_timeout: Span,
    /// The index. Default: the token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The source. Default: kubewitness.
    #[serde(default = "source")]
    pub source: String,
    /// The source type of events. Default: kube:apiserver:audit.
    #[serde(default = "sourcetype")]
    pub sourcetype: String,
    /// The source type of alerts and notices. Default: kubewitness:alert.
    #[serde(default = "alert_sourcetype")]
    pub alert_sourcetype: String,
    /// How an item is written: `native`, `ecs`, `ocsf`, `cef`, `leef`, `falco`. Default: native.
    #[serde(default)]
    pub format: Format,
    /// How requests are made. Bodies are compressed unless this says otherwise.
    #[serde(default)]
    pub http: endpoint::Config,
}

/// Which of the collector's endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// JSON objects with time, host, source type and fields.
    #[default]
    Event,
    /// Lines; source type and index are the request's.
    Raw,
}

fn ack_timeout() -> Span {
    Span::from_secs(120)
}

fn source() -> String {
    "kubewitness".to_owned()
}

fn sourcetype() -> String {
    "kube:apiserver:audit".to_owned()
}

fn alert_sourcetype() -> String {
    "kubewitness:alert".to_owned()
}

/// Before the first question for an acknowledgement; before each other one twice as long.
const ACK_INTERVAL_MIN: Duration = Duration::from_millis(25);
/// Between two questions at most.
const ACK_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Sends to a collector.
pub struct Splunk {
    config: Config,
    client: Client,
    lanes: Lanes,
}

/// Requests under way at a time: an event says itself when it happened.
const IN_FLIGHT_MAX: usize = 4;

/// What a collector answers.
#[derive(Debug, Default, Deserialize)]
struct Reply {
    #[serde(default)]
    code: i64,
    #[serde(rename = "ackId")]
    ack_id: Option<u64>,
}

#[derive(Deserialize)]
struct Acks {
    acks: std::collections::BTreeMap<String, bool>,
}

impl Splunk {
    /// A sink of this configuration; connects to nothing.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn new(config: Config, records: &[RecordKind]) -> Result<Splunk, String> {
        config.token.check("token")?;
        if config.endpoint == Endpoint::Raw
            && records.contains(&RecordKind::Events)
            && records.len() > 1
        {
            return Err("`endpoint: raw` has one source type for all; use one sink for events \
                and one for alerts"
                .to_owned());
        }
        let client = Client::new(&config.url, &config.http, true)?;
        let lanes = Lanes::new(config.http.requests_in_flight_max.unwrap_or(IN_FLIGHT_MAX));
        Ok(Splunk { config, client, lanes })
    }

    fn headers(&self, channel: &str) -> Result<HeaderMap, SendError> {
        let mut headers = HeaderMap::new();
        let auth =
            Auth { scheme: "Splunk".to_owned(), username: None, secret: self.config.token.clone() };
        headers.insert(AUTHORIZATION, auth.value()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.config.acks || self.config.endpoint == Endpoint::Raw {
            let value = HeaderValue::from_str(channel)
                .map_err(|_| SendError::retry("a channel is hexadecimal digits"))?;
            headers.insert("x-splunk-request-channel", value);
        }
        Ok(headers)
    }

    fn sourcetype(&self, kind: RecordKind) -> &str {
        match kind {
            RecordKind::Events => &self.config.sourcetype,
            _ => &self.config.alert_sourcetype,
        }
    }

    fn body(&self, batch: &[Item<'_>]) -> Vec<u8> {
        let (mut body, mut text) = (Vec::new(), Vec::new());
        for item in batch {
            text.clear();
            self.config.format.encode(item, &mut text);
            match self.config.endpoint {
                Endpoint::Raw => body.extend_from_slice(&text),
                Endpoint::Event => self.event(item, &text, &mut body),
            }
            body.push(b'\n');
        }
        body
    }

    fn event(&self, item: &Item<'_>, text: &[u8], body: &mut Vec<u8>) {
        let (time_us, cluster) = match item.outgoing {
            Outgoing::Event(event) => (Some(event.time_us), Some(event.cluster.to_owned())),
            _ => about(item.bytes()),
        };
        let config = &self.config;
        Object::write(body, |o| {
            if let Some(time_us) = time_us {
                let (seconds, rest) =
                    (time_us.div_euclid(1_000_000), time_us.rem_euclid(1_000_000));
                o.raw("time", format!("{seconds}.{rest:06}").as_bytes());
            }
            o.text_if("host", cluster.as_deref());
            o.text("source", &config.source);
            o.text("sourcetype", self.sourcetype(item.kind()));
            o.text_if("index", config.index.as_deref());
            match serde_json::from_slice::<&RawValue>(text) {
                Ok(_) => o.raw("event", text),
                Err(_) => o.text("event", &lossy(text)),
            }
            o.object("fields", |o| {
                o.text("kubewitness_id", &item.id());
                o.text_if("cluster", cluster.as_deref());
            });
        });
    }

    /// The path with what the raw endpoint is told beside the body; all of it is configured.
    fn path(&self, batch: &[Item<'_>], channel: &str) -> String {
        if self.config.endpoint == Endpoint::Event {
            return "services/collector/event".to_owned();
        }
        let kind = batch.first().map_or(RecordKind::Events, Item::kind);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("channel", channel).append_pair("source", &self.config.source);
        query.append_pair("sourcetype", self.sourcetype(kind));
        if let Some(index) = &self.config.index {
            query.append_pair("index", index);
        }
        format!("services/collector/raw?{}", query.finish())
    }

    /// Asks until the batch is acknowledged.
    async fn acknowledged(
        &self,
        channel: &str,
        ack_id: u64,
        cookie: Option<HeaderValue>,
    ) -> Result<(), SendError> {
        let since = Stopwatch::start();
        let path = format!("services/collector/ack?channel={channel}");
        let mut wait = ACK_INTERVAL_MIN;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(ACK_INTERVAL_MAX);
            let mut headers = self.headers(channel)?;
            headers.extend(cookie.iter().map(|cookie| (COOKIE, cookie.clone())));
            let body = format!("{{\"acks\":[{ack_id}]}}").into_bytes();
            let answer = self.client.post(&path, headers, body).await?;
            judge(&answer)?;
            let acks: Acks = serde_json::from_slice(&answer.body)
                .map_err(|_| SendError::retry(format!("no list of acks: {}", answer.shown())))?;
            if acks.acks.get(&ack_id.to_string()) == Some(&true) {
                return Ok(());
            }
            if since.elapsed() > self.config.ack_timeout.0 {
                let span = self.config.ack_timeout;
                return Err(SendError::retry(format!("no indexer acknowledged it in {span}")));
            }
        }
    }

    /// Delivers a share of a load over a channel of its own.
    async fn deliver(&self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let channel = channel(batch);
        let (path, headers) = (self.path(batch, &channel), self.headers(&channel)?);
        let answer = self.client.post(&path, headers, self.body(batch)).await?;
        judge(&answer)?;
        if self.config.acks {
            let reply: Reply = serde_json::from_slice(&answer.body).unwrap_or_default();
            let Some(ack_id) = reply.ack_id else {
                let cause = format!("answered without an ackId: {}", answer.shown());
                let remedy = "switch acknowledgement on for the token, or set `acks: false`";
                return Err(SendError::block(cause, remedy));
            };
            self.acknowledged(&channel, ack_id, answer.cookie).await?;
        }
        Ok(Delivered::default())
    }
}

impl Sink for Splunk {
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

    /// Sends an empty body: a collector that knows the token says that there is no data.
    async fn check(&mut self) -> Result<(), CheckError> {
        let channel = channel(&[]);
        let headers = self.headers(&channel)?;
        let answer = self.client.post("services/collector/event", headers, Vec::new()).await?;
        let reply: Reply = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, reply.code) {
            (400, 5) | (200, _) => Ok(()),
            _ => judge(&answer).map_err(CheckError::from),
        }
    }
}

/// A channel's id, made of the ids of what is sent over it.
fn channel(batch: &[Item<'_>]) -> String {
    let hash = batch_id(batch);
    let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Time and cluster of an alert or a notice.
fn about(json: &[u8]) -> (Option<i64>, Option<String>) {
    #[derive(Default, Deserialize)]
    struct Head {
        time: Option<String>,
        cluster: Option<String>,
    }
    let head: Head = serde_json::from_slice(json).unwrap_or_default();
    let time = head.time.and_then(|time| crate::event::time::parse_us(time.as_bytes()));
    (time, head.cluster)
}

/// What an answer means, by the collector's own codes.
fn judge(answer: &Answer) -> Result<(), SendError> {
    let reply: Reply = serde_json::from_slice(&answer.body).unwrap_or_default();
    let cause = || format!("answered {}: {}", answer.status, answer.shown());
    let block = |remedy: &str| Err(SendError::block(cause(), remedy));
    match (answer.status, reply.code) {
        (400, 7) => block("name an index that the token may write"),
        (400, 10 | 11) => block("the token wants acknowledgement: set `acks: true`"),
        (400, 14) => block("the token has no acknowledgement: set `acks: false`"),
        (400, 12 | 13 | 15) => Err(SendError::Reject { reason: "event_field", cause: cause() }),
        (400, 5 | 6) => Err(SendError::Reject { reason: "invalid", cause: cause() }),
        (401, _) | (403, _) => block("mend the token, or enable it"),
        _ => answer.judge(),
    }
}

#[cfg(test)]
mod tests;
