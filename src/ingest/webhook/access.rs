//! Who may post, and for which cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::ingest::webhook::Error;
use crate::ingest::webhook::config::{Config, is_cluster};
use crate::ingest::webhook::secret::{self, Secret};
use crate::ingest::webhook::tls::TlsFiles;

/// Header in which Firehose sends its access key.
const ACCESS_KEY: &str = "x-amz-firehose-access-key";

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The names of its verified certificate; absent when it showed none.
    pub(crate) names: Option<Vec<String>>,
}

/// Why a request is refused; the text is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Nobody knows who calls: 401.
    Unauthenticated(&'static str),
    /// The caller may not do this: 403.
    Forbidden(&'static str),
}

/// The cluster of a caller's events; `None` for the instance's own.
pub(crate) type Granted = Result<Option<Arc<str>>, Denied>;

/// Certificates and tokens of one receiver, as its files hold them now.
pub struct Access {
    is_anonymous: bool,
    requires_certificate: bool,
    pub(crate) tls: Option<TlsFiles>,
    tokens: Vec<Secret>,
    firehose: Option<Secret>,
    pubsub: Option<Secret>,
    clusters: BTreeMap<Arc<str>, Vec<String>>,
}

impl Access {
    /// Reads and checks all files. Blocks.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Read`], [`Error::Contents`].
    pub fn open(config: &Config) -> Result<Access, Error> {
        config.check()?;
        let tls = config.tls.as_ref().map(|tls| TlsFiles::open(tls, config)).transpose()?;
        let tokens: Result<Vec<Secret>, Error> = config
            .tokens
            .iter()
            .map(|token| Secret::open(&token.file, token.cluster.as_deref()))
            .collect();
        let firehose = config
            .firehose
            .as_ref()
            .map(|firehose| Secret::open(&firehose.access_key_file, firehose.cluster.as_deref()));
        let pubsub = config
            .pubsub
            .as_ref()
            .map(|pubsub| Secret::open(&pubsub.token_file, pubsub.cluster.as_deref()));
        let clusters = config
            .clusters
            .iter()
            .map(|cluster| (Arc::from(cluster.name.as_str()), cluster.certificate_names.clone()));
        Ok(Access {
            is_anonymous: config.is_anonymous(),
            requires_certificate: config.requires_certificate(),
            tls,
            tokens: tokens?,
            firehose: firehose.transpose()?,
            pubsub: pubsub.transpose()?,
            clusters: clusters.collect(),
        })
    }

    /// Reads all files again: how many of them changed, and what is wrong with the others, whose
    /// old contents stay in force. Blocks.
    pub fn reload(&self) -> (usize, Vec<Error>) {
        let secrets = self.tokens.iter().chain(&self.firehose).chain(&self.pubsub);
        let results = secrets.map(Secret::reload).chain(self.tls.iter().map(TlsFiles::reload));
        let (mut changed, mut errors) = (0, Vec::new());
        for result in results {
            match result {
                Ok(is_new) => changed += usize::from(is_new),
                Err(error) => errors.push(error),
            }
        }
        (changed, errors)
    }

    /// Whether a caller may post EventLists, for the cluster that the path names.
    pub(crate) fn audit(&self, peer: &Peer, headers: &HeaderMap, named: Option<&str>) -> Granted {
        let token = match bearer(headers) {
            Some(token) if !self.tokens.is_empty() => Some(
                secret::find(&self.tokens, token).ok_or(Denied::Unauthenticated("wrong_token"))?,
            ),
            _ => None,
        };
        let wants_token = !self.tokens.is_empty() && self.requires_certificate;
        let is_known = token.is_some() || peer.names.is_some() && !wants_token;
        if !is_known && !self.is_anonymous {
            return Err(Denied::Unauthenticated("no_credential"));
        }
        let bound = self.bound(peer, token);
        match named {
            None if bound.len() > 1 => Err(Denied::Forbidden("no_cluster_named")),
            None => Ok(bound.first().cloned()),
            Some(name) if !is_cluster(name) => Err(Denied::Forbidden("wrong_cluster")),
            Some(name) if self.is_anonymous => match self.clusters.get_key_value(name) {
                Some((cluster, _)) => Ok(Some(Arc::clone(cluster))),
                None => Err(Denied::Forbidden("wrong_cluster")),
            },
            Some(name) => match bound.into_iter().find(|bound| **bound == *name) {
                Some(cluster) => Ok(Some(cluster)),
                None => Err(Denied::Forbidden("wrong_cluster")),
            },
        }
    }

    /// The clusters that a caller speaks for: the token's, else those of the certificate.
    fn bound(&self, peer: &Peer, token: Option<&Secret>) -> Vec<Arc<str>> {
        if let Some(cluster) = token.and_then(|token| token.cluster.clone()) {
            return vec![cluster];
        }
        let own = peer.names.as_deref().unwrap_or_default();
        let is_bound = |names: &&Vec<String>| names.iter().any(|name| own.contains(name));
        let bound = self.clusters.iter().filter(|(_, names)| is_bound(names));
        bound.map(|(cluster, _)| Arc::clone(cluster)).collect()
    }

    /// Whether a caller may post as Firehose.
    pub(crate) fn firehose(&self, headers: &HeaderMap) -> Granted {
        let key = headers.get(ACCESS_KEY).map(|value| value.as_bytes());
        granted(self.firehose.as_ref(), key)
    }

    /// Whether a caller may post as Pub/Sub; the token is the bearer token, or in the query.
    pub(crate) fn pubsub(&self, headers: &HeaderMap, query: Option<&str>) -> Granted {
        let query = query.unwrap_or_default().as_bytes();
        let parameter = url::form_urlencoded::parse(query).find(|(key, _)| key == "token");
        let token = match &parameter {
            Some((_, token)) => Some(token.as_bytes()),
            None => bearer(headers),
        };
        granted(self.pubsub.as_ref(), token)
    }
}

fn granted(secret: Option<&Secret>, presented: Option<&[u8]>) -> Granted {
    let presented = presented.ok_or(Denied::Unauthenticated("no_credential"))?;
    match secret.filter(|secret| secret.is(presented)) {
        Some(secret) => Ok(secret.cluster.clone()),
        None => Err(Denied::Unauthenticated("wrong_token")),
    }
}

/// The token of an `Authorization: Bearer` header; the scheme is case-insensitive.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::webhook::config::{Cluster, Token};

    /// Callers by certificate and token, and what they get at which path.
    #[test]
    fn binds_callers_to_clusters() {
        let dir = tempfile::tempdir().unwrap();
        for token in ["plain", "bound"] {
            std::fs::write(dir.path().join(token), token).unwrap();
        }
        let token = |name: &str, cluster: Option<&str>| Token {
            file: dir.path().join(name),
            cluster: cluster.map(str::to_owned),
        };
        let cluster = |name: &str, names: &[&str]| Cluster {
            name: name.to_owned(),
            certificate_names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let access = |requires_certificate: bool, config: &Config| {
            let mut access = Access::open(config).unwrap();
            access.requires_certificate = requires_certificate;
            access
        };
        let open =
            access(false, &Config { clusters: vec![cluster("a", &[])], ..Config::default() });
        let tokens = vec![token("plain", None), token("bound", Some("t"))];
        let clusters = vec![cluster("a", &["one", "both"]), cluster("b", &["both"])];
        let config = Config { tokens, clusters, ..Config::default() };
        let either = access(false, &config);
        let both = access(true, &config);
        for (access, certificate, bearer, path, expected) in [
            (&open, None, None, None, "own"),
            (&open, None, None, Some("a"), "a"),
            (&open, None, None, Some("b"), "wrong_cluster"),
            (&open, None, None, Some("../a"), "wrong_cluster"),
            (&either, None, None, None, "no_credential"),
            (&either, None, Some("plain"), None, "own"),
            (&either, None, Some("plain"), Some("a"), "wrong_cluster"),
            (&either, None, Some("bound"), None, "t"),
            (&either, None, Some("bound"), Some("t"), "t"),
            (&either, None, Some("bound"), Some("a"), "wrong_cluster"),
            (&either, None, Some("guess"), None, "wrong_token"),
            (&either, Some("one"), Some("guess"), None, "wrong_token"),
            (&either, Some("other"), None, None, "own"),
            (&either, Some("other"), None, Some("a"), "wrong_cluster"),
            (&either, Some("one"), None, None, "a"),
            (&either, Some("one"), None, Some("b"), "wrong_cluster"),
            (&either, Some("both"), None, None, "no_cluster_named"),
            (&either, Some("both"), None, Some("b"), "b"),
            (&both, Some("one"), None, None, "no_credential"),
            (&both, Some("one"), Some("plain"), None, "a"),
            (&both, Some("one"), Some("bound"), Some("a"), "wrong_cluster"),
        ] {
            let names = certificate.map(|name: &str| vec![name.to_owned()]);
            let peer = Peer { address: IpAddr::from([127, 0, 0, 1]), names };
            let mut headers = HeaderMap::new();
            if let Some(token) = bearer {
                headers.insert(AUTHORIZATION, format!("bearer {token}").parse().unwrap());
            }
            let found = match access.audit(&peer, &headers, path) {
                Ok(cluster) => cluster.map_or("own".to_owned(), |cluster| cluster.to_string()),
                Err(Denied::Unauthenticated(why) | Denied::Forbidden(why)) => why.to_owned(),
            };
            assert_eq!(found, expected, "{certificate:?} {bearer:?} {path:?}");
        }
    }
}
