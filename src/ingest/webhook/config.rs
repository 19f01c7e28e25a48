//! What an operator says about a webhook receiver, and what of it makes no sense.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ingest::chunk::LINE_BYTES_MAX;
use crate::ingest::webhook::Error;
use crate::units::{Size, Span};

/// The longest name of a cluster.
const CLUSTER_BYTES_MAX: usize = 63;

/// A receiver of audit events over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The source's name in records, metrics and logs. Default `webhook`.
    pub name: String,
    /// Address and port to listen on; port 0 takes a free one. Default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// Path of EventLists; `<path>/<cluster>` names the cluster. Default `/audit`.
    pub path: String,
    /// Certificates; absent for plain HTTP. Default: absent.
    pub tls: Option<Tls>,
    /// Bearer tokens that are accepted. Default: none.
    pub tokens: Vec<Token>,
    /// Clusters that certificates are bound to. Default: none.
    pub clusters: Vec<Cluster>,
    /// Receives from Amazon Data Firehose. Default: absent.
    pub firehose: Option<Firehose>,
    /// Receives from push subscriptions of Google Pub/Sub. Default: absent.
    pub pubsub: Option<PubSub>,
    /// Allows plain HTTP on other addresses than loopback. Default false.
    pub insecure_plain_http: bool,
    /// Allows callers without certificate and token on other addresses than loopback. Default
    /// false.
    pub insecure_anonymous: bool,
    /// How often files of certificates, keys and tokens are looked at for changes. Default `10s`.
    pub reload_interval: Span,
    /// A notice is raised when nothing arrives for so long. Default: absent, never.
    pub silent_after: Option<Span>,
    /// How long requests under way may take when the receiver stops. Default `10s`.
    pub drain_timeout: Span,
    /// What a caller may use up.
    pub limits: Limits,
}

/// The receiver's certificate, and whose certificates it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and its intermediates.
    pub cert_file: PathBuf,
    /// PEM file of the certificate's private key.
    pub key_file: PathBuf,
    /// PEM file of the authorities that sign callers' certificates. Default: absent, none are asked
    /// for.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a caller must have a certificate. Default `required`.
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    /// Common names and subject alternative names that are accepted. Default: all that the
    /// authorities signed.
    #[serde(default)]
    pub allowed_names: Vec<String>,
    /// The oldest version accepted, `1.2` or `1.3`. Default `1.2`.
    #[serde(default)]
    pub version_min: TlsVersion,
}

/// Whether a caller must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// Without one there is no connection; tokens, when configured, are asked for as well.
    #[default]
    Required,
    /// A certificate or a token is enough.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// File that holds the token and nothing else; read again when it changes.
    pub file: PathBuf,
    /// The cluster whose events come with this token. Default: the instance's own.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// A cluster and whose certificates speak for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name: lower-case letters, digits, dots and hyphens, at most 63.
    pub name: String,
    /// Common names or subject alternative names of certificates that are bound to it. Default:
    /// none; tokens may be.
    #[serde(default)]
    pub certificate_names: Vec<String>,
}

/// The HTTP endpoint of an Amazon Data Firehose stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Firehose {
    /// Its path. Default `/firehose`.
    #[serde(default = "firehose_path")]
    pub path: String,
    /// File that holds the access key and nothing else; read again when it changes.
    pub access_key_file: PathBuf,
    /// The cluster of all its events. Default: what the events' log group says.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// A push subscription of Google Pub/Sub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PubSub {
    /// Its path. Default `/pubsub`.
    #[serde(default = "pubsub_path")]
    pub path: String,
    /// File that holds the token; it comes as `?token=` of the push endpoint or as bearer token,
    /// and is read again when it changes. Signed identity tokens of Google are not verified.
    pub token_file: PathBuf,
    /// The cluster of all its events. Default: what the events say.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// What a caller may use up. Who asks for more is refused; every refusal is counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a body, decompressed. Default `512MiB`.
    pub body_bytes_max: Size,
    /// Bytes of an event; of a longer one only the head is kept. Default and most `64MiB`.
    pub event_bytes_max: Size,
    /// Bytes of all bodies that are being cut into batches. Default `256MiB`.
    pub buffer_bytes_max: Size,
    /// How many times larger a gzip body may become. Default 200.
    pub gzip_ratio_max: u64,
    /// Bytes of a request's head. Default `64KiB`.
    pub header_bytes_max: Size,
    /// Headers of a request over HTTP/1.1. Default 100.
    pub headers_max: usize,
    /// Connections; never more than half of the files that the process may open. Default 4096.
    pub connections_max: usize,
    /// Connections of one address (IPv6: of one /64). Default 1024.
    pub connections_per_peer_max: usize,
    /// Requests whose bodies are being read or made durable. Default 512.
    pub requests_max: usize,
    /// The same of one address (IPv6: of one /64), so that no caller takes all. Default 384.
    pub requests_per_peer_max: usize,
    /// Requests at a time on a connection over HTTP/2. Default 250.
    pub streams_max: u32,
    /// Time for a TLS handshake. Default `10s`.
    pub handshake_timeout: Span,
    /// Time for a request's head from its first byte, and for the first request. Default `10s`.
    pub header_timeout: Span,
    /// Time without any request before a connection is closed. Default `3m`.
    pub idle_timeout: Span,
    /// Time that a body may be waited for, beyond what its bytes take at
    /// `body_bytes_per_second_min`. Default `10s`.
    pub body_grace: Span,
    /// The rate below which a body is too slow, bytes a second. Default `16KiB`.
    pub body_bytes_per_second_min: Size,
    /// Time that a body may be waited for in all. Default `3m`.
    pub body_timeout: Span,
    /// Time to make a batch durable before 503; an API server waits 30 seconds. Default `20s`.
    pub answer_timeout: Span,
    /// Age at which a connection is closed between requests, so that revoked certificates end.
    /// Default `1h`.
    pub connection_age_max: Span,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "webhook".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8443)),
            path: "/audit".to_owned(),
            tls: None,
            tokens: Vec::new(),
            clusters: Vec::new(),
            firehose: None,
            pubsub: None,
            insecure_plain_http: false,
            insecure_anonymous: false,
            reload_interval: Span::from_secs(10),
            silent_after: None,
            drain_timeout: Span::from_secs(10),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: Size::mib(512),
            event_bytes_max: Size(LINE_BYTES_MAX as u64),
            buffer_bytes_max: Size::mib(256),
            gzip_ratio_max: 200,
            header_bytes_max: Size(64 << 10),
            headers_max: 100,
            connections_max: 4_096,
            connections_per_peer_max: 1_024,
            requests_max: 512,
            requests_per_peer_max: 384,
            streams_max: 250,
            handshake_timeout: Span::from_secs(10),
            header_timeout: Span::from_secs(10),
            idle_timeout: Span::from_secs(180),
            body_grace: Span::from_secs(10),
            body_bytes_per_second_min: Size(16 << 10),
            body_timeout: Span::from_secs(180),
            answer_timeout: Span::from_secs(20),
            connection_age_max: Span::from_secs(3_600),
        }
    }
}

fn firehose_path() -> String {
    "/firehose".to_owned()
}

fn pubsub_path() -> String {
    "/pubsub".to_owned()
}

/// Whether a text can be a cluster's name: `[a-z0-9][a-z0-9.-]{0,62}`.
pub fn is_cluster(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_letter = |byte: u8| is_plain(byte) || byte == b'.' || byte == b'-';
    name.len() <= CLUSTER_BYTES_MAX
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().all(is_letter)
}

impl Config {
    /// Whether callers of the path of EventLists need neither certificate nor token.
    pub fn is_anonymous(&self) -> bool {
        let has_client_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let is_open = self.insecure_anonymous || self.listen.ip().is_loopback();
        !has_client_ca && self.tokens.is_empty() && is_open
    }

    /// Whether no connection is made without a certificate of the caller's.
    pub fn requires_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            tls.client_ca_file.is_some() && tls.client_certificate == ClientCertificate::Required
        })
    }

    /// Looks for what makes no sense; reads no file.
    ///
    /// # Errors
    /// [`Error::Config`] names the key and what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        match self.problem().or_else(|| self.limits.problem()) {
            Some(problem) => Err(Error::Config { name: self.name.clone(), problem }),
            None => Ok(()),
        }
    }

    fn problem(&self) -> Option<String> {
        let is_local = self.listen.ip().is_loopback();
        if self.name.is_empty() {
            return Some("name is empty".to_owned());
        }
        if self.tls.is_none() && !is_local && !self.insecure_plain_http {
            let listen = self.listen;
            return Some(format!(
                "{listen} is no loopback address: configure tls, or set insecure_plain_http: true"
            ));
        }
        let has_client_ca = self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let is_cloud = self.firehose.is_some() || self.pubsub.is_some();
        if !has_client_ca && self.tokens.is_empty() && !is_cloud && !self.is_anonymous() {
            return Some(
                "anybody could post events: configure tls.client_ca_file or tokens, or set \
                 insecure_anonymous: true"
                    .to_owned(),
            );
        }
        if is_cloud && self.requires_certificate() {
            return Some(
                "firehose and pubsub cannot show certificates: set tls.client_certificate: \
                 optional, or give them a receiver of their own"
                    .to_owned(),
            );
        }
        if let Some(tls) = &self.tls
            && !tls.allowed_names.is_empty()
            && tls.client_ca_file.is_none()
        {
            return Some("tls.allowed_names needs tls.client_ca_file".to_owned());
        }
        self.path_problem().or_else(|| self.cluster_problem())
    }

    fn path_problem(&self) -> Option<String> {
        let firehose = self.firehose.as_ref().map(|firehose| firehose.path.as_str());
        let pubsub = self.pubsub.as_ref().map(|pubsub| pubsub.path.as_str());
        let paths: Vec<&str> =
            [Some(self.path.as_str()), firehose, pubsub].into_iter().flatten().collect();
        if let Some(path) = paths.iter().find(|path| !is_path(path)) {
            return Some(format!("{path:?} is no path: write one such as /audit"));
        }
        for (index, path) in paths.iter().enumerate() {
            let is_inside = |other: &&&str| {
                path.strip_prefix(**other)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            let mut others = paths.iter().enumerate().filter(|(place, _)| *place != index);
            if let Some((_, other)) = others.find(|(_, other)| is_inside(other)) {
                return Some(format!("path {path} lies inside of {other}: choose another"));
            }
        }
        None
    }

    fn cluster_problem(&self) -> Option<String> {
        let tokens: Vec<&String> =
            self.tokens.iter().filter_map(|token| token.cluster.as_ref()).collect();
        let firehose = self.firehose.iter().filter_map(|firehose| firehose.cluster.as_ref());
        let pubsub = self.pubsub.iter().filter_map(|pubsub| pubsub.cluster.as_ref());
        let declared = self.clusters.iter().map(|cluster| &cluster.name);
        let mut names = declared.chain(tokens.iter().copied()).chain(firehose).chain(pubsub);
        if let Some(name) = names.find(|name| !is_cluster(name)) {
            return Some(format!(
                "cluster {name:?} is no name: lower-case letters, digits, dots and hyphens, at \
                 most {CLUSTER_BYTES_MAX}, a letter or digit first"
            ));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.clusters.iter().find(|cluster| !seen.insert(&cluster.name)) {
            return Some(format!("cluster {} is there twice", twice.name));
        }
        let is_unbound = |cluster: &&Cluster| {
            cluster.certificate_names.is_empty() && !tokens.contains(&&cluster.name)
        };
        match self.clusters.iter().find(is_unbound) {
            Some(cluster) if !self.is_anonymous() => Some(format!(
                "nobody may post for cluster {}: give it certificate_names, or a token its name",
                cluster.name
            )),
            _ => None,
        }
    }
}

fn is_path(path: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| !part.is_empty() && part.bytes().all(is_letter))
    })
}

impl Limits {
    fn problem(&self) -> Option<String> {
        let spans = [
            ("handshake_timeout", self.handshake_timeout),
            ("header_timeout", self.header_timeout),
            ("idle_timeout", self.idle_timeout),
            ("body_grace", self.body_grace),
            ("body_timeout", self.body_timeout),
            ("answer_timeout", self.answer_timeout),
            ("connection_age_max", self.connection_age_max),
        ];
        let counts = [
            ("gzip_ratio_max", self.gzip_ratio_max),
            ("headers_max", self.headers_max as u64),
            ("connections_max", self.connections_max as u64),
            ("connections_per_peer_max", self.connections_per_peer_max as u64),
            ("requests_max", self.requests_max as u64),
            ("requests_per_peer_max", self.requests_per_peer_max as u64),
            ("streams_max", u64::from(self.streams_max)),
            ("body_bytes_max", self.body_bytes_max.0),
            ("body_bytes_per_second_min", self.body_bytes_per_second_min.0),
        ];
        let spans = spans.iter().filter(|(_, span)| span.0.is_zero()).map(|(name, _)| name);
        let mut zeros =
            spans.chain(counts.iter().filter(|(_, count)| *count == 0).map(|(name, _)| name));
        if let Some(name) = zeros.next() {
            return Some(format!("limits.{name} is 0"));
        }
        let sizes = [
            ("event_bytes_max", self.event_bytes_max, Size(128 << 10), Size(LINE_BYTES_MAX as u64)),
            ("header_bytes_max", self.header_bytes_max, Size(8 << 10), Size::mib(1)),
            ("buffer_bytes_max", self.buffer_bytes_max, self.event_bytes_max, Size(1 << 40)),
        ];
        sizes.iter().find(|(_, size, least, most)| size < least || size > most).map(
            |(name, size, least, most)| {
                format!("limits.{name} is {size}: choose between {least} and {most}")
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_makes_no_sense() {
        let tls = |client_ca_file: Option<&str>| Tls {
            cert_file: "tls.crt".into(),
            key_file: "tls.key".into(),
            client_ca_file: client_ca_file.map(PathBuf::from),
            client_certificate: ClientCertificate::Required,
            allowed_names: Vec::new(),
            version_min: TlsVersion::V12,
        };
        let public = || Config { listen: ([0, 0, 0, 0], 8443).into(), ..Config::default() };
        let secure = || Config { tls: Some(tls(Some("ca.crt"))), ..public() };
        let firehose = |path: &str| {
            Some(Firehose { path: path.into(), access_key_file: "key".into(), cluster: None })
        };
        let cluster = |name: &str, names: &[&str]| Cluster {
            name: name.into(),
            certificate_names: names.iter().map(|name| (*name).into()).collect(),
        };
        let token = |cluster: &str| Token { file: "t".into(), cluster: Some(cluster.into()) };
        let named = Tls { allowed_names: vec!["a".into()], ..tls(None) };
        let limits = |limits| Config { limits, ..Config::default() };
        for (config, words) in [
            (Config::default(), ""),
            (secure(), ""),
            (public(), "configure tls, or set insecure_plain_http: true"),
            (Config { insecure_plain_http: true, ..public() }, "tls.client_ca_file or tokens"),
            (Config { tls: Some(tls(None)), ..public() }, "set insecure_anonymous: true"),
            (Config { tls: Some(tls(None)), insecure_anonymous: true, ..public() }, ""),
            (Config { tls: Some(tls(None)), tokens: vec![token("a")], ..public() }, ""),
            (Config { tls: Some(named), ..Config::default() }, "needs tls.client_ca_file"),
            (
                Config { firehose: firehose("/firehose"), ..secure() },
                "client_certificate: optional",
            ),
            (Config { firehose: firehose("/audit"), ..Config::default() }, "lies inside of /audit"),
            (Config { firehose: firehose("/audit/f"), ..Config::default() }, "choose another"),
            (Config { firehose: firehose("/auditor"), ..Config::default() }, ""),
            (Config { path: "/".into(), ..Config::default() }, "\"/\" is no path"),
            (Config { path: "/a/{b}".into(), ..Config::default() }, "is no path"),
            (Config { name: String::new(), ..Config::default() }, "name is empty"),
            (Config { clusters: vec![cluster("A", &["x"])], ..secure() }, "\"A\" is no name"),
            (Config { tokens: vec![token("../a")], ..secure() }, "is no name"),
            (Config { clusters: vec![cluster("a", &[])], ..secure() }, "nobody may post for"),
            (Config { clusters: vec![cluster("a", &["x"]); 2], ..secure() }, "a is there twice"),
            (limits(Limits { requests_max: 0, ..Limits::default() }), "limits.requests_max is 0"),
            (
                limits(Limits { header_bytes_max: Size(1), ..Limits::default() }),
                "limits.header_bytes_max is 1B: choose between 8KiB and 1MiB",
            ),
        ] {
            let problem = config.check().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(problem.contains(words), "{problem:?} lacks {words:?}");
            assert_eq!(problem.is_empty(), words.is_empty(), "{problem}");
        }
    }

    #[test]
    fn knows_names_of_clusters() {
        for name in ["a", "0", "prod-1", "eu.prod", &"a".repeat(63)] {
            assert!(is_cluster(name), "{name}");
        }
        for name in ["", "-a", ".a", "A", "a/b", "..", "a_b", "a b", "ä", &"a".repeat(64)] {
            assert!(!is_cluster(name), "{name}");
        }
    }
}
