//! The one configuration file: composes what each module has to be told, and refuses the rest.
//!
//! ```text
//! defaults  <  the file  <  KUBEWITNESS__SPOOL__BYTES_MAX=20GiB  <  --set spool.bytes_max=20GiB
//! ```
//! A key that nobody knows is an error, never ignored; every error says where it is (file and line,
//! variable, or option) and what to do. Secrets are named by files, never written here. Paths are
//! relative to the directory that the process runs in.

mod check;
mod node;
mod read;
pub mod rules;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::event::redact;
use crate::ingest::{kafka, log, webhook};
use crate::rule::pack::Pack;
use crate::units::{Size, Span};
use crate::{pipeline, sinks, spool, telemetry};

pub use check::KEY_BYTES_MIN;
pub use read::{Override, load};

/// What `kubewitness run` is told.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the cluster that events belong to where neither path nor credential says otherwise.
    pub cluster: String,
    /// Where events come from; at least one.
    pub sources: Vec<Source>,
    /// Networks whose entries in X-Forwarded-For are believed. Default: none.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// What is looked for.
    #[serde(default)]
    pub rules: Rules,
    /// What never leaves memory.
    #[serde(default)]
    pub redaction: Redaction,
    /// How events are judged, and for how long copies and counts are remembered.
    #[serde(default)]
    pub pipeline: pipeline::config::Config,
    /// Where events and alerts are kept until every sink has them.
    pub spool: Spool,
    /// Where events and alerts go; at least one.
    pub sinks: Vec<sinks::config::Config>,
    /// HTTP for operators: `/livez`, `/readyz`, `/metrics`.
    #[serde(default)]
    pub admin: Admin,
    /// What the process says about itself on standard error.
    #[serde(default)]
    pub log: telemetry::Config,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there are a few of them, read once")]
pub enum Source {
    /// The log backend's file and its rotated siblings.
    Log(log::config::Config),
    /// A webhook backend's target.
    Webhook(webhook::config::Config),
    /// Topics of a Kafka cluster.
    Kafka(kafka::Config),
}

impl Source {
    /// Its name, by which positions and metrics are kept.
    pub fn name(&self) -> &str {
        match self {
            Source::Log(config) => &config.name,
            Source::Webhook(config) => &config.name,
            Source::Kafka(config) => &config.name,
        }
    }

    /// Its type as the configuration spells it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Source::Log(_) => "log",
            Source::Webhook(_) => "webhook",
            Source::Kafka(_) => "kafka",
        }
    }

    /// Where it listens, if it does.
    pub fn listen(&self) -> Option<std::net::SocketAddr> {
        match self {
            Source::Log(_) | Source::Kafka(_) => None,
            Source::Webhook(config) => Some(config.listen),
        }
    }

    /// Whether it would read the file.
    fn reads(&self, path: &Path) -> bool {
        match self {
            Source::Log(config) => config.reads(path),
            Source::Webhook(_) | Source::Kafka(_) => false,
        }
    }

    /// What makes no sense by itself.
    fn check(&self) -> Result<(), String> {
        match self {
            Source::Log(config) => config.check().map_err(|error| error.to_string()),
            Source::Webhook(config) => config.check().map_err(|error| error.to_string()),
            Source::Kafka(config) => config.check(),
        }
    }
}

/// A network: an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let network = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into()));
        network.map(Network).map_err(|_| format!("{text:?} is no network such as \"10.0.0.0/8\""))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.0.to_string()
    }
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Sigma rules: files, or directories with all below them. Default: the shipped rules.
    pub paths: Vec<PathBuf>,
    /// Sigma filters on top of the rules: what is normal at this site.
    pub filters: Vec<PathBuf>,
    /// Lists that rules name as `%name%`, in place of the shipped ones.
    pub placeholders: BTreeMap<String, Vec<String>>,
    /// How much of the rules: `minimal`, `standard`, or `paranoid` (everything).
    pub pack: Pack,
    /// Whether changed files are taken up while running. SIGHUP always does it.
    pub reload: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            paths: Vec::new(),
            filters: Vec::new(),
            placeholders: BTreeMap::new(),
            pack: Pack::Standard,
            reload: true,
        }
    }
}

/// What never leaves memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redaction {
    /// `secrets`: everything that holds or looks like a secret is replaced; `off`: nothing is.
    pub mode: Mode,
    /// File of at least 16 random bytes, readable by its owner only. With it, equal secrets of at
    /// least 16 bytes have equal fingerprints; without it, none has one.
    pub key_file: Option<PathBuf>,
    /// Public key (X25519, base64) that input which cannot be parsed is sealed to; its dead letter
    /// keeps position, length and a scrubbed beginning only where this is absent.
    pub seal_to: Option<PublicKey>,
}

/// What is redacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything that holds or looks like a secret.
    #[default]
    Secrets,
    /// Nothing; must be asked for.
    Off,
}

impl From<Mode> for redact::Mode {
    fn from(mode: Mode) -> redact::Mode {
        match mode {
            Mode::Secrets => redact::Mode::Secrets,
            Mode::Off => redact::Mode::Off,
        }
    }
}

/// A public key of X25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl TryFrom<String> for PublicKey {
    type Error = String;

    fn try_from(text: String) -> Result<PublicKey, String> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim());
        let key = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        key.map(PublicKey).ok_or_else(|| {
            format!("{text:?} is no public key: 32 bytes in base64, as `certs sealing-key` prints")
        })
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(key.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

/// Where events and alerts are kept until every sink has them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spool {
    /// Directory that nothing else writes to.
    pub dir: PathBuf,
    /// All segments together. When undelivered records fill it, sources wait.
    #[serde(default = "Spool::bytes_max")]
    pub bytes_max: Size,
    /// One segment; also the grain in which space is given back. At most 2GiB.
    #[serde(default = "Spool::segment_bytes_max")]
    pub segment_bytes_max: Size,
    /// One append; larger bodies become several. An event that takes more than three quarters of it
    /// is stored without its bodies, and a dead letter says so. At least 2MiB.
    #[serde(default = "Spool::batch_bytes_max")]
    pub batch_bytes_max: Size,
    /// Appends that wait for the disk, all together.
    #[serde(default = "Spool::waiting_bytes_max")]
    pub waiting_bytes_max: Size,
    /// Of what every sink has, this much is kept while `bytes_max` allows.
    #[serde(default)]
    pub passed_bytes_min: Size,
    /// A sink's position is stored at the latest after so many records.
    #[serde(default = "Spool::ack_records_max")]
    pub ack_records_max: u64,
    /// A sink's position is stored on the first acknowledgement after this time.
    #[serde(default = "Spool::ack_interval")]
    pub ack_interval: Span,
    /// One snapshot of the detector's state. At most 1GiB.
    #[serde(default = "Spool::snapshot_bytes_max")]
    pub snapshot_bytes_max: Size,
    /// All dead letters together.
    #[serde(default = "Spool::dead_letter_bytes_max")]
    pub dead_letter_bytes_max: Size,
    /// Number of dead letters.
    #[serde(default = "Spool::dead_letters_max")]
    pub dead_letters_max: u64,
    /// Copies of doubtful tails after a crash.
    #[serde(default = "Spool::quarantine_bytes_max")]
    pub quarantine_bytes_max: Size,
}

/// A default of the spool's own, as serde asks for it.
macro_rules! spool_default {
    ($($name:ident: $type:ty = $read:expr;)*) => {
        $(fn $name() -> $type {
            let read: fn(spool::Options) -> $type = $read;
            read(spool::Options::default())
        })*
    };
}

impl Spool {
    spool_default! {
        bytes_max: Size = |options| Size(options.bytes_max);
        segment_bytes_max: Size = |options| Size(options.segment_bytes_max);
        batch_bytes_max: Size = |options| Size(options.batch_bytes_max);
        waiting_bytes_max: Size = |options| Size(options.waiting_bytes_max);
        ack_records_max: u64 = |options| options.ack_records_max;
        ack_interval: Span = |options| Span(options.ack_interval);
        snapshot_bytes_max: Size = |options| Size(options.snapshot_bytes_max);
        dead_letter_bytes_max: Size = |options| Size(options.dead_letter_bytes_max);
        dead_letters_max: u64 = |options| options.dead_letters_max;
        quarantine_bytes_max: Size = |options| Size(options.quarantine_bytes_max);
    }

    /// The limits as the spool takes them.
    pub fn options(&self) -> spool::Options {
        spool::Options {
            bytes_max: self.bytes_max.0,
            segment_bytes_max: self.segment_bytes_max.0,
            batch_bytes_max: self.batch_bytes_max.0,
            waiting_bytes_max: self.waiting_bytes_max.0,
            passed_bytes_min: self.passed_bytes_min.0,
            ack_records_max: self.ack_records_max,
            ack_interval: self.ack_interval.0,
            snapshot_bytes_max: self.snapshot_bytes_max.0,
            dead_letter_bytes_max: self.dead_letter_bytes_max.0,
            dead_letters_max: self.dead_letters_max,
            quarantine_bytes_max: self.quarantine_bytes_max.0,
        }
    }
}

/// HTTP for operators.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address and port. It answers everybody who reaches it, so other addresses than loopback
    /// belong behind a network policy. Default `127.0.0.1:9090`.
    pub listen: std::net::SocketAddr,
    /// Connections at a time; more are closed at once. Default 64.
    pub connections_max: usize,
    /// Time for a request and its answer. Default `10s`.
    pub request_timeout: Span,
}

impl Default for Admin {
    fn default() -> Admin {
        Admin {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 9090)),
            connections_max: 64,
            request_timeout: Span::from_secs(10),
        }
    }
}

/// What is wrong with a configuration: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line`, a variable, or an option.
    pub origin: String,
    /// What is wrong and what to do, lower case.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}
