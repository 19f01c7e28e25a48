//! Any service that takes a POST. Delivered means that it answered with a status of 200 to 299.
//!
//! ```text
//! Idempotency-Key          made of the ids of what is sent: a repeat has the same one
//! X-Kubewitness-Signature  t=<unix seconds>,v1=<hexadecimal HMAC-SHA256 of `<t>.<body>`>
//! ```
//! The signature is over the body before compression.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::clock;
use crate::secret::Secret;
use crate::sinks::encode::template::Template;
use crate::sinks::encode::{Format, Subject, falco, services};
use crate::sinks::endpoint::{self, Answer, Auth, Client, header};
use crate::sinks::lanes::Lanes;
use crate::sinks::{CheckError, Delivered, Item, RecordKind, Rejection, SendError, Sink, batch_id};

/// What is configured of a service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to send to; of a service with an API of its own the server, its path is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same where it is a secret, as with webhooks of chats: `{file: …}` or `{env: …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret: Option<Secret>,
    /// What a body looks like. Default: lines.
    #[serde(default)]
    pub shape: Shape,
    /// How an item is written, where the shape leaves it open: `native`, `ecs`, `ocsf`, `cef`,
    /// `leef`, `falco`. Default: native.
    #[serde(default)]
    pub format: Format,
    /// The body of the shape `template`: `{"text": "{{summary}}"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Headers to send along; none of them secret.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The `Authorization` header. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// PagerDuty's routing key, or Datadog's API key: `{file: …}` or `{env: …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// The key of a signature over the body: `{file: …}` or `{env: …}`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_key: Option<Secret>,
    /// How requests are made.
    #[serde(default)]
    pub http: endpoint::Config,
}

/// What a body looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// All items, one a line.
    #[default]
    Lines,
    /// All items as one JSON array.
    Array,
    /// One item a request.
    Each,
    /// One item a request, written by `template`.
    Template,
    /// falcosidekick, which passes on to its many outputs; one item a request.
    Falcosidekick,
    /// Alertmanager's API 2.
    Alertmanager,
    /// Slack's incoming webhooks; one item a request.
    Slack,
    /// Microsoft Teams' workflows; one item a request.
    Teams,
    /// PagerDuty's Events API 2; one item a request.
    Pagerduty,
    /// Loki's push API.
    Loki,
    /// Datadog's logs API 2.
    Datadog,
    /// OpenTelemetry's OTLP over HTTP, as JSON.
    Otlp,
}

impl Shape {
    fn is_one_each(self) -> bool {
        use Shape::{Each, Falcosidekick, Pagerduty, Slack, Teams, Template};
        matches!(self, Each | Template | Falcosidekick | Slack | Teams | Pagerduty)
    }

    /// The path of the service's API.
    fn path(self) -> &'static str {
        match self {
            Shape::Alertmanager => "api/v2/alerts",
            Shape::Pagerduty => "v2/enqueue",
            Shape::Loki => "loki/api/v1/push",
            Shape::Datadog => "api/v2/logs",
            Shape::Otlp => "v1/logs",
            _ => "",
        }
    }

    /// Whether it is for people, who cannot read every event.
    fn is_for_alerts(self) -> bool {
        use Shape::{Alertmanager, Pagerduty, Slack, Teams};
        matches!(self, Alertmanager | Pagerduty | Slack | Teams)
    }
}

/// Posts bodies.
pub struct Http {
    config: Config,
    template: Option<Template>,
    headers: HeaderMap,
    /// Made when it is needed first: the URL may be a secret.
    client: Option<Client>,
    lanes: Lanes,
}

/// A shorter part of a URL is a word, not a secret.
const URL_PART_MIN: usize = 12;

impl Http {
    /// A sink of this configuration for these kinds of records; connects to nothing.
    ///
    /// # Errors
    /// What in the configuration cannot be.
    pub fn new(config: Config, records: &[RecordKind]) -> Result<Http, String> {
        match (&config.url, &config.url_secret) {
            (Some(url), None) => drop(Client::new(url, &config.http, false)?),
            (None, Some(secret)) => secret.check("url_secret")?,
            _ => return Err("give either `url` or `url_secret`".to_owned()),
        }
        let template = match (config.shape, &config.template) {
            (Shape::Template, Some(text)) => Some(Template::parse(text)?),
            (Shape::Template, None) => return Err("`shape: template` needs `template`".to_owned()),
            (_, Some(_)) => return Err("`template` needs `shape: template`".to_owned()),
            (_, None) => None,
        };
        if matches!(config.shape, Shape::Pagerduty | Shape::Datadog) {
            config.key.as_ref().ok_or("the shape needs `key`")?.check("key")?;
        }
        if config.shape == Shape::Array && !config.format.is_json() {
            return Err("`shape: array` needs a format that is JSON".to_owned());
        }
        if config.shape.is_for_alerts() && records.contains(&RecordKind::Events) {
            return Err("the shape is for people; take `events` out of `records`".to_owned());
        }
        let pairs = config.headers.iter().map(|(name, value)| header(name, value));
        let headers = pairs.collect::<Result<HeaderMap, String>>()?;
        let lanes = Lanes::new(config.http.requests_in_flight_max.unwrap_or(1));
        Ok(Http { config, template, headers, client: None, lanes })
    }

    /// Makes the client where there is none.
    fn prepare(&mut self) -> Result<(), SendError> {
        if self.client.is_none() {
            let made = match (&self.config.url, &self.config.url_secret) {
                (Some(url), _) => Client::new(url, &self.config.http, false),
                (None, Some(secret)) => secret.read("url_secret").and_then(|url| {
                    // The reason would show the URL.
                    Client::new(&url, &self.config.http, false)
                        .map_err(|_| "`url_secret` holds no URL".to_owned())
                }),
                (None, None) => Err("no url".to_owned()),
            };
            let remedy = "mend the sink's configuration";
            self.client = Some(made.map_err(|cause| SendError::block(cause, remedy))?);
        }
        Ok(())
    }

    fn client(&self) -> Result<&Client, SendError> {
        self.client.as_ref().ok_or_else(|| SendError::retry("no client"))
    }

    /// Writes the body for some items.
    fn body(&self, items: &[Item<'_>]) -> Result<Vec<u8>, SendError> {
        let (config, mut out) = (&self.config, Vec::new());
        let subjects = || items.iter().map(Subject::of).collect::<Vec<_>>();
        let line = |item: &Item<'_>| {
            let mut line = Vec::with_capacity(item.bytes().len());
            config.format.encode(item, &mut line);
            line
        };
        let lines = || items.iter().map(line).collect::<Vec<_>>();
        match config.shape {
            Shape::Lines | Shape::Each => {
                for item in items {
                    config.format.encode(item, &mut out);
                    out.push(b'\n');
                }
            }
            Shape::Array => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    out.extend((index > 0).then_some(b','));
                    match config.format {
                        // What was stored may be no JSON.
                        Format::Native => out.extend(sound(line(item))),
                        format => format.encode(item, &mut out),
                    }
                }
                out.push(b']');
            }
            Shape::Alertmanager => services::alertmanager(&subjects(), &mut out),
            Shape::Loki => services::loki(&subjects(), &lines(), &mut out),
            Shape::Datadog => services::datadog(&subjects(), &lines(), &mut out),
            Shape::Otlp => services::otlp(&subjects(), &lines(), &mut out),
            Shape::Template | Shape::Falcosidekick | Shape::Slack | Shape::Teams => {
                for subject in subjects() {
                    match (config.shape, &self.template) {
                        (Shape::Template, Some(template)) => template.write(&subject, &mut out),
                        (Shape::Slack, _) => services::slack(&subject, &mut out),
                        (Shape::Teams, _) => services::teams(&subject, &mut out),
                        _ => falco::encode(&subject, &mut out),
                    }
                }
            }
            Shape::Pagerduty => {
                let key = self.key()?;
                subjects().iter().for_each(|one| services::pagerduty(one, &key, &mut out));
            }
        }
        Ok(out)
    }

    fn key(&self) -> Result<String, SendError> {
        let key = self.config.key.clone().unwrap_or_default();
        key.read("key").map_err(|cause| SendError::block(cause, "mend the sink's secret"))
    }

    /// Takes out of an answer what proves us by standing in the URL or the body.
    fn hide_secrets(&self, answer: &mut Answer) {
        if answer.body.is_empty() {
            return;
        }
        if self.config.shape == Shape::Pagerduty
            && let Ok(key) = self.key()
        {
            answer.hide(&key);
        }
        let url = self.config.url_secret.as_ref().and_then(|url| url.read("url_secret").ok());
        if let Some(url) = url {
            let (_, rest) = url.split_once("://").unwrap_or(("", &url));
            let (_, path) = rest.split_once('/').unwrap_or(("", rest));
            answer.hide(path);
            // A part of it is as good: the token of a chat's webhook is the last one.
            let parts = path.split(['/', '?', '&', '=', '#']);
            parts.filter(|part| part.len() >= URL_PART_MIN).for_each(|part| answer.hide(part));
        }
    }

    fn headers(&self, items: &[Item<'_>], body: &[u8]) -> Result<HeaderMap, SendError> {
        let mut headers = self.headers.clone();
        let is_lines = self.config.shape == Shape::Lines;
        let kind = match (is_lines, self.config.format.is_json()) {
            (true, true) => "application/x-ndjson",
            (_, false) => "text/plain; charset=utf-8",
            (false, true) => "application/json",
        };
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        if let Some(auth) = &self.config.auth {
            headers.insert(AUTHORIZATION, auth.value()?);
        }
        let mut put = |name: &'static str, value: &str, is_secret: bool| {
            let wrong = |_| SendError::block(format!("{name} has an impossible value"), "mend it");
            let mut value = HeaderValue::from_str(value).map_err(wrong)?;
            value.set_sensitive(is_secret);
            headers.insert(HeaderName::from_static(name), value);
            Ok::<(), SendError>(())
        };
        put("idempotency-key", &batch_id(items), false)?;
        if self.config.shape == Shape::Datadog {
            put("dd-api-key", &self.key()?, true)?;
        }
        if let Some(secret) = &self.config.signature_key {
            let remedy = "mend the sink's secret";
            let key = secret.read("signature_key");
            let key = key.map_err(|cause| SendError::block(cause, remedy))?;
            let seconds = clock::now_us().div_euclid(1_000_000);
            let signature = signature(key.as_bytes(), seconds, body);
            put("x-kubewitness-signature", &signature, false)?;
        }
        Ok(headers)
    }

    /// Sends some items in one request.
    async fn post(&self, items: &[Item<'_>]) -> Result<(), SendError> {
        let body = self.body(items)?;
        let headers = self.headers(items, &body)?;
        let path = self.config.shape.path();
        let mut answer = self.client()?.post(path, headers, body).await?;
        self.hide_secrets(&mut answer);
        answer.judge()?;
        if self.config.shape == Shape::Otlp { partial_success(&answer) } else { Ok(()) }
    }

    /// Posts a batch whole or item by item, as its shape has it.
    async fn deliver(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        if !self.config.shape.is_one_each() {
            let mut lanes = self.lanes;
            let post =
                async |share: &[Item<'_>]| self.post(share).await.map(|()| Delivered::default());
            let sent = lanes.send(batch, post).await;
            self.lanes = lanes;
            return sent;
        }
        let mut delivered = Delivered::default();
        for (index, item) in batch.iter().enumerate() {
            let (reason, cause) = match self.post(std::slice::from_ref(item)).await {
                Ok(()) => continue,
                Err(SendError::TooLarge { cause }) => ("too_large", cause),
                Err(SendError::Reject { reason, cause }) => (reason, cause),
                Err(why) => {
                    // What was delivered before is not sent again.
                    delivered.again = (index..batch.len()).collect();
                    delivered.why = Some(why);
                    break;
                }
            };
            delivered.rejected.push(Rejection { index, reason, cause });
        }
        Ok(delivered)
    }
}

impl Sink for Http {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        self.prepare()?;
        let sent = self.deliver(batch).await;
        if let Some(client) = &mut self.client {
            client.renew_after(&sent);
        }
        sent
    }

    fn batches(&self) -> usize {
        self.lanes.open()
    }

    /// Asks with a request that changes nothing: that something answers, and knows us.
    async fn check(&mut self) -> Result<(), CheckError> {
        self.prepare()?;
        let mut headers = self.headers(&[], b"")?;
        headers.remove(CONTENT_TYPE);
        let path = match self.config.shape {
            Shape::Alertmanager => "api/v2/status",
            _ => "",
        };
        let mut answer = self.client()?.request(Method::HEAD, path, headers, None).await?;
        self.hide_secrets(&mut answer);
        match answer.status {
            // A service that takes only POST may say so.
            400 | 404 | 405 | 501 if self.config.shape != Shape::Alertmanager => Ok(()),
            405 => Ok(()),
            _ => answer.approve(),
        }
    }
}

/// An OTLP receiver may take a part only, and does not say which.
fn partial_success(answer: &Answer) -> Result<(), SendError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Reply {
        partial_success: Partial,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        /// A number, or a text as JSON writes 64 bits.
        rejected_log_records: serde_json::Value,
        error_message: String,
    }
    let reply: Reply = serde_json::from_slice(&answer.body).unwrap_or_default();
    let count = &reply.partial_success.rejected_log_records;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or(0);
    if count == 0 {
        return Ok(());
    }
    let cause = format!("{count} records refused: {}", reply.partial_success.error_message);
    Err(SendError::Reject { reason: "refused", cause })
}

/// A line that is JSON; a text where it is not, so that an array stays one.
fn sound(line: Vec<u8>) -> Vec<u8> {
    match serde_json::from_slice::<&serde_json::value::RawValue>(&line) {
        Ok(_) => line,
        Err(_) => serde_json::Value::from(String::from_utf8_lossy(&line)).to_string().into_bytes(),
    }
}

/// `t=<seconds>,v1=<HMAC of "<seconds>.<body>">`.
fn signature(key: &[u8], seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is a key");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let hash: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={seconds},v1={hash}")
}

#[cfg(test)]
mod tests;
