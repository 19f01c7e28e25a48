//! How a client of a Kafka cluster connects, and what its errors ask for; of the sink and of the
//! source.

pub mod verdict;
pub(crate) mod notes;
pub(crate) mod preflight;

use std::path::PathBuf;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Encryption to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificates in PEM that the brokers' must lead to. Default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// Authentication to the brokers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
    pub mechanism: Mechanism,
    /// The user; for Azure Event Hubs `$ConnectionString`. Not for `OAUTHBEARER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password: `{file: …}` or `{env: …}`. Not for `OAUTHBEARER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The token, for `OAUTHBEARER`: `{file: …}`, read again whenever the last one runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// Kafka's SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[expect(missing_docs, reason = "the names are Kafka's")]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Sasl {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// What to write.
    pub fn check(&self) -> Result<(), String> {
        let secrets = [("sasl.password", &self.password), ("sasl.token", &self.token)];
        for (what, secret) in secrets {
            secret.as_ref().map_or(Ok(()), |secret| secret.check(what))?;
        }
        Ok(())
    }
}

/// What every client of a cluster has in common. Reads the secrets.
pub(crate) fn client(
    brokers: &str,
    client_id: &str,
    tls: Option<&Tls>,
    sasl: Option<&Sasl>,
) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", client_id);
    config.set("reconnect.backoff.max.ms", "5000").set("log.connection.close", "false");
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        config.set("ssl.ca.location", "probe");
        for (key, file) in files {
            let Some(file) = file else { continue };
            std::fs::metadata(file)
                .map_err(|error| format!("tls: cannot read {}: {error}", file.display()))?;
            config.set(key, file.to_string_lossy());
        }
    }
    let Some(sasl) = sasl else { return Ok(config) };
    let mechanism = match sasl.mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha512 => "SCRAM-SHA-512",
        Mechanism::OauthBearer => "OAUTHBEARER",
    };
    config.set("sasl.mechanism", mechanism);
    if sasl.mechanism == Mechanism::OauthBearer {
        let token = sasl.token.as_ref().ok_or("sasl: OAUTHBEARER needs `token`")?;
        token.check("sasl.token")?;
        return Ok(config);
    }
    let username = sasl.username.as_deref().ok_or("sasl: the mechanism needs `username`")?;
    let password = sasl.password.as_ref().ok_or("sasl: the mechanism needs `password`")?;
    config.set("sasl.username", username);
    config.set("sasl.password", password.read("sasl.password")?);
    Ok(config)
}
