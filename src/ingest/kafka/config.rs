//! What an operator says about a Kafka source.

use std::sync::Arc;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::kafka::{self, Sasl, Tls};
use crate::units::{Size, Span};

/// Topics of a Kafka cluster that hold audit events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The source's name in records, metrics and logs. Default: `kafka`.
    pub name: String,
    /// Addresses of some brokers, apart by commas: `a:9092,b:9092`.
    pub brokers: String,
    /// The topics.
    pub topics: Vec<String>,
    /// The consumer group. Default: `kubewitness`.
    pub group: String,
    /// What the client calls itself in the brokers' logs and quotas. Default: `kubewitness`.
    pub client_id: String,
    /// Where a group without offsets begins: `oldest` or `newest`. Default: `oldest`.
    pub start: Start,
    /// Clusters that a message's header `kubewitness-cluster` may name; whoever may write the topic
    /// may write the header. Events of others are of the configured cluster. Default: none.
    pub clusters: Vec<String>,
    /// So many bytes of messages are handed to the pipeline at a time. Default: 4MiB.
    pub batch_bytes_max: Size,
    /// So long is waited for a batch to fill. Default: 100ms.
    pub batch_wait: Span,
    /// Encryption. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Authentication. Default: none, or by the TLS certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
}

/// Where a group without offsets begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With everything that the brokers have.
    #[default]
    Oldest,
    /// With what is written from then on.
    Newest,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "kafka".to_owned(),
            brokers: String::new(),
            topics: Vec::new(),
            group: "kubewitness".to_owned(),
            client_id: "kubewitness".to_owned(),
            start: Start::Oldest,
            clusters: Vec::new(),
            batch_bytes_max: Size::mib(4),
            batch_wait: Span::from_millis(100),
            tls: None,
            sasl: None,
        }
    }
}

impl Config {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// What to write.
    pub fn check(&self) -> Result<(), String> {
        let texts = [("name", &self.name), ("brokers", &self.brokers), ("group", &self.group)];
        if let Some((key, _)) = texts.iter().find(|(_, text)| text.is_empty()) {
            return Err(format!("`{key}` is empty"));
        }
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            return Err("`topics` must name at least one topic".to_owned());
        }
        let is_sound = |name: &&String| {
            let mut bytes = name.bytes();
            let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            name.len() <= 63
                && bytes.next().is_some_and(is_first)
                && bytes.all(|byte| is_first(byte) || matches!(byte, b'.' | b'-'))
        };
        if let Some(name) = self.clusters.iter().find(|name| !is_sound(name)) {
            return Err(format!("`clusters`: {name:?} has other letters than a-z, 0-9, `.`, `-`"));
        }
        self.sasl.as_ref().map_or(Ok(()), Sasl::check)
    }

    /// The cluster that a header names, where it may.
    pub(crate) fn cluster_of(&self, header: Option<&str>) -> Option<Arc<str>> {
        let known = self.clusters.iter().find(|known| Some(known.as_str()) == header)?;
        Some(Arc::from(known.as_str()))
    }

    /// The consumer's configuration. Reads the secrets.
    pub(crate) fn client(&self) -> Result<ClientConfig, String> {
        let (tls, sasl) = (self.tls.as_ref(), self.sasl.as_ref());
        let mut client = kafka::client(&self.brokers, &self.client_id, tls, sasl)?;
        let start = match self.start {
            Start::Oldest => "earliest",
            Start::Newest => "latest",
        };
        client
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", start)
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "65536")
            .set("fetch.message.max.bytes", "4194304");
        Ok(client)
    }
}
