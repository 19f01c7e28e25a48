//! What a user writes under `sinks:`; one entry a sink.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::sinks::{
    AnySink, RecordKind, archive, elasticsearch, file, filter, http, kafka, splunk, stdout, syslog,
    throttle,
};
use crate::units::{Size, Span};

/// One sink: what every sink has, and what its type has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// What every sink has.
    #[serde(flatten)]
    pub common: Common,
    /// What its type has.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What every sink has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// The sink's name: lower case letters, digits and hyphens. Its position in the spool, its
    /// metrics and its dead letters are kept under this name.
    pub name: String,
    /// The kinds of records it gets: `events`, `alerts`, `notices`, `anchors` (signed checkpoints
    /// of the archive), `quarantine` (input that is no event). Default: alerts and notices.
    #[serde(default = "alerts_and_notices")]
    pub records: Vec<RecordKind>,
    /// Which of them. Default: all.
    #[serde(default)]
    pub filter: filter::Config,
    /// How much is sent at a time.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Which repeats of alerts are hidden from it, and counted. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<throttle::Config>,
}

/// How much is sent at a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Records. Default: 1000.
    pub records_max: usize,
    /// Bytes as stored; a single larger record is sent alone. Default: 4MiB.
    pub bytes_max: Size,
    /// So long is waited for a batch to fill. Default: 1s.
    pub wait_max: Span,
    /// So many items are given up one after the other, none accepted between them, before the
    /// sink stops and asks for a person: refusing everything is no fault of an item. Default: 100.
    pub rejects_in_a_row_max: usize,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig {
            records_max: 1_000,
            bytes_max: Size::mib(4),
            wait_max: Span::from_secs(1),
            rejects_in_a_row_max: 100,
        }
    }
}

/// What each type of sink has.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Kind {
    /// Lines in a file.
    File(file::Config),
    /// Lines on standard output.
    Stdout(stdout::Config),
    /// Topics of a Kafka cluster.
    Kafka(kafka::Config),
    /// Splunk's HTTP Event Collector.
    Splunk(splunk::Config),
    /// Data streams of Elasticsearch or OpenSearch.
    #[serde(alias = "opensearch")]
    Elasticsearch(elasticsearch::Config),
    /// Any service that takes a POST.
    Http(http::Config),
    /// A receiver of syslog.
    Syslog(syslog::Config),
    /// The archive: segments under a signed Merkle log in object storage.
    Archive(crate::archive::config::Config),
}

/// The keys of [`Common`].
const COMMON_KEYS: [&str; 5] = ["name", "records", "filter", "batch", "throttle"];

fn alerts_and_notices() -> Vec<RecordKind> {
    vec![RecordKind::Alerts, RecordKind::Notices]
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        let mut own = Map::<String, Value>::deserialize(deserializer)?;
        let mut common = Map::new();
        for key in COMMON_KEYS {
            common.extend(own.shift_remove(key).map(|value| (key.to_owned(), value)));
        }
        let common: Common = read(common).map_err(D::Error::custom)?;
        let kind = read(own).map_err(|error| {
            let name = &common.name;
            if !error.contains("unknown field") {
                return D::Error::custom(format_args!("sink {name:?}: {error}"));
            }
            let keys = COMMON_KEYS.map(|key| format!("`{key}`")).join(", ");
            D::Error::custom(format_args!("sink {name:?}: {error}; every sink: {keys}"))
        })?;
        let config = Config { common, kind };
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

fn read<T: DeserializeOwned>(keys: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(keys)).map_err(|error| error.to_string())
}

impl Config {
    /// Refuses names and limits that cannot be.
    fn check(&self) -> Result<(), String> {
        let Common { name, records, batch, .. } = &self.common;
        let is_sound = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !(1..=40).contains(&name.len()) || !name.bytes().all(is_sound) {
            return Err(format!("sink {name:?}: a name has 1 to 40 of a-z, 0-9 and `-`"));
        }
        if records.is_empty() {
            return Err(format!("sink {name:?}: `records` is empty, so it would never get any"));
        }
        if matches!(self.kind, Kind::Archive(_)) && records.contains(&RecordKind::Anchors) {
            return Err(format!("sink {name:?}: an archive would grow by its own `anchors`"));
        }
        if batch.records_max == 0 || batch.bytes_max.0 == 0 {
            return Err(format!("sink {name:?}: `batch` limits must be above 0"));
        }
        Ok(())
    }

    /// The type as the configuration spells it.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::File(_) => "file",
            Kind::Stdout(_) => "stdout",
            Kind::Kafka(_) => "kafka",
            Kind::Splunk(_) => "splunk",
            Kind::Elasticsearch(_) => "elasticsearch",
            Kind::Http(_) => "http",
            Kind::Syslog(_) => "syslog",
            Kind::Archive(_) => "archive",
        }
    }

    /// What `delivered` does not mean with this configuration, though one might think so.
    pub fn caveat(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Splunk(config) if !config.acks => Some(
                "best effort: without `acks` a collector confirms what is in its memory only, and \
                 a crash there loses it unnoticed",
            ),
            Kind::Syslog(config) if config.confirm == syslog::Confirm::None => Some(
                "best effort: with `confirm: none` what a broken connection held is lost unnoticed",
            ),
            _ => None,
        }
    }

    /// Makes the sink. Nothing is opened, connected or sent before the first `send` or `check`.
    ///
    /// # Errors
    /// What in the configuration cannot be, secrets that cannot be read among it.
    pub fn build(&self) -> Result<AnySink, Unusable> {
        let records = &self.common.records;
        let built = match &self.kind {
            Kind::File(config) => Ok(AnySink::File(file::File::new(config.clone()))),
            Kind::Stdout(config) => Ok(AnySink::Stdout(stdout::Stdout::new(config.clone()))),
            Kind::Kafka(config) => kafka::Kafka::new(config.clone(), records).map(AnySink::Kafka),
            Kind::Splunk(config) => {
                splunk::Splunk::new(config.clone(), records).map(AnySink::Splunk)
            }
            Kind::Elasticsearch(config) => {
                elasticsearch::Elasticsearch::new(config.clone(), records)
                    .map(AnySink::Elasticsearch)
            }
            Kind::Http(config) => http::Http::new(config.clone(), records).map(AnySink::Http),
            Kind::Syslog(config) => syslog::Syslog::new(config.clone()).map(AnySink::Syslog),
            Kind::Archive(config) => {
                let name = self.common.name.clone();
                Ok(AnySink::Archive(Box::new(archive::Archive::new(name, config.clone()))))
            }
        };
        built.map_err(|cause| Unusable { sink: self.common.name.clone(), cause })
    }
}

/// A configuration that no sink can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sink {sink:?}: {cause}")]
pub struct Unusable {
    /// The sink's name.
    pub sink: String,
    /// What is wrong and what to do about it.
    pub cause: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_flat_map_and_names_what_is_wrong() {
        let read = |text: &str| serde_json::from_str::<Config>(text);
        let config = read(r#"{"type":"file","name":"alerts","records":["alerts"],"path":"/a"}"#);
        let config = config.unwrap();
        assert_eq!((config.common.name.as_str(), config.type_name()), ("alerts", "file"));
        assert_eq!(config.common.records, [RecordKind::Alerts]);
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&written).unwrap(), config, "{written}");
        for (text, part) in [
            (r#"{"type":"file","path":"/a"}"#, "missing field `name`"),
            (r#"{"type":"file","name":"a"}"#, "missing field `path`"),
            (r#"{"type":"fil","name":"a"}"#, "unknown variant `fil`, expected "),
            (r#"{"name":"a","path":"/a"}"#, "missing field `type`"),
            (r#"{"type":"file","name":"a","pth":"/a"}"#, "unknown field `pth`"),
            (r#"{"type":"file","name":"a","path":"/a","records":[]}"#, "never get any"),
            (r#"{"type":"file","name":"A","path":"/a"}"#, "1 to 40 of a-z"),
            (r#"{"type":"file","name":"a","path":"/a","records":["x"]}"#, "unknown variant `x`"),
            (
                r#"{"type":"stdout","name":"a","filter":{"level":"error"}}"#,
                "unknown level \"error\", expected one of informational, low",
            ),
            (r#"{"type":"stdout","name":"a","batch":{"records_max":0}}"#, "above 0"),
            (r#"{"type":"stdout","name":"a","batch":{"wait_max":3}}"#, "such as 30s"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
