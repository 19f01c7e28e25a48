//! The transit engine of Vault and OpenBao. The key is of type `ed25519`, not derived; its version
//! is pinned, so that a rotation over there changes nothing here before it is in the log.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::archive::http::{self, exchange};
use crate::archive::kms::{Error, Question};
use crate::secret::Secret;

fn transit() -> String {
    "transit".to_owned()
}

/// A key in a transit engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `https://host:port`; without TLS only on this machine, where an agent stands before it.
    pub address: String,
    /// Where the engine is mounted.
    #[serde(default = "transit")]
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// The key's version: which one the log is signed with.
    pub version: u32,
    /// The token, read again for every request; an agent renews it.
    pub token: Secret,
    /// The namespace that the engine is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The authorities that may vouch for the server, PEM; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Reads `https://host:port/v1/MOUNT/keys/NAME`.
pub(crate) fn locate(
    text: &str,
    token_file: PathBuf,
    ca_file: Option<PathBuf>,
    namespace: Option<String>,
    version: u32,
) -> Result<Config, String> {
    let wrong =
        || format!("{text:?} is not https://HOST/v1/MOUNT/keys/NAME, nor an ARN of AWS KMS");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let path = url.path().strip_prefix("/v1/").ok_or_else(wrong)?;
    let (mount, key) = path.rsplit_once("/keys/").ok_or_else(wrong)?;
    let token = Secret { file: Some(token_file), env: None };
    let (mount, key) = (mount.to_owned(), key.to_owned());
    let address = url.origin().ascii_serialization();
    Ok(Config { address, mount, key, version, token, namespace, ca_file })
}

/// Signs with a key in a transit engine.
pub(crate) struct Transit {
    config: Config,
    base: Url,
    client: reqwest::Client,
}

impl Transit {
    pub(crate) fn new(config: &Config, timeout: Duration) -> Result<Transit, Error> {
        let refused = |reason: String, remedy: &str| Error::Refused {
            service: name(config),
            reason,
            remedy: remedy.to_owned(),
        };
        let address = || refused(format!("`address` {:?}", config.address), "write https://HOST");
        let base = Url::parse(&config.address).map_err(|_| address())?;
        let is_near = matches!(base.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if base.scheme() != "https" && !(base.scheme() == "http" && is_near) {
            return Err(address());
        }
        let is_step = |part: &str| part.is_empty() || part == "." || part == "..";
        if config.mount.split('/').any(is_step) || is_step(&config.key) || config.key.contains('/')
        {
            return Err(refused("no such path".to_owned(), "write `mount` and `key` as they are"));
        }
        config
            .token
            .check("`token`")
            .map_err(|reason| refused(reason, "name the token's place"))?;
        let client = http::client(timeout, config.ca_file.as_deref());
        let client = client.map_err(|reason| refused(reason, "mend `ca_file`"))?;
        Ok(Transit { config: config.clone(), base, client })
    }

    pub(crate) fn name(&self) -> String {
        name(&self.config)
    }

    fn refused(&self, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Refused { service: self.name(), reason: reason.into(), remedy: remedy.into() }
    }

    pub(crate) async fn ask(&self, question: &Question<'_>) -> Result<Vec<u8>, Error> {
        let version = self.config.version;
        match question {
            Question::PublicKey => {
                let data = self.request("keys", None).await?;
                self.public_key(&data)
            }
            Question::Signature(message) => {
                let body = json!({"input": STANDARD.encode(message), "key_version": version});
                let data = self.request("sign", Some(body)).await?;
                let signature = data["signature"].as_str().unwrap_or_default();
                let text = signature.strip_prefix(&format!("vault:v{version}:"));
                let bytes = text.and_then(|text| STANDARD.decode(text).ok());
                bytes.ok_or_else(|| {
                    self.refused(
                        format!("its answer has no signature by version {version}"),
                        "check the key's type and versions",
                    )
                })
            }
        }
    }

    fn public_key(&self, data: &Value) -> Result<Vec<u8>, Error> {
        let kind = data["type"].as_str().unwrap_or("unknown");
        if kind != "ed25519" || data["derived"].as_bool() == Some(true) {
            let reason = format!("the key is of type {kind}, or derived");
            return Err(self.refused(reason, "make one with type=ed25519 derived=false"));
        }
        let version = self.config.version;
        let key = data["keys"][version.to_string()]["public_key"].as_str();
        let key = key.and_then(|key| STANDARD.decode(key).ok());
        key.ok_or_else(|| {
            let latest = &data["latest_version"];
            let reason = format!("the key has no version {version}, the latest is {latest}");
            self.refused(reason, "check `version`, and the key's min_encryption_version")
        })
    }

    /// The data that a path of the engine answers with.
    async fn request(&self, verb: &str, body: Option<Value>) -> Result<Value, Error> {
        let unavailable = |reason| Error::Unavailable { service: self.name(), reason };
        let mut url = self.base.clone();
        let Config { mount, key, .. } = &self.config;
        url.set_path(&format!("/v1/{mount}/{verb}/{key}"));
        let token = self.config.token.read("`token`").map_err(unavailable)?;
        let headers = self.headers(&token)?;
        let request = match body {
            Some(body) => self.client.post(url).json(&body),
            None => self.client.get(url),
        };
        let request = request.headers(headers).build();
        let request = request.map_err(|error| unavailable(error.to_string()))?;
        let (status, body) = exchange(&self.client, request).await.map_err(unavailable)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == 200 {
            return Ok(answer["data"].clone());
        }
        let said: Vec<_> = answer["errors"].as_array().into_iter().flatten().collect();
        let said: Vec<_> = said.iter().filter_map(|it| it.as_str()).map(str::trim).collect();
        let reason = match said.is_empty() {
            true => format!("it answers {status}"),
            false => format!("it answers {status}: {}", said.join(", ").replace('\n', " ")),
        };
        match status {
            401 | 403 => Err(self.refused(
                reason,
                format!(
                    "renew the token, and allow it `read` on {mount}/keys/{key} and `update` on \
                     {mount}/sign/{key}"
                ),
            )),
            400 | 404 | 405 => Err(self.refused(reason, "check `mount`, `key` and `namespace`")),
            300..=399 => Err(self.refused(reason, "give the address that it leads to")),
            _ => Err(unavailable(reason)),
        }
    }

    fn headers(&self, token: &str) -> Result<HeaderMap, Error> {
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| self.refused("token or namespace", "write printable letters"))
        };
        let mut headers = HeaderMap::new();
        let mut token = value(token)?;
        token.set_sensitive(true);
        headers.insert("x-vault-token", token);
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.config.namespace {
            headers.insert("x-vault-namespace", value(namespace)?);
        }
        Ok(headers)
    }
}

fn name(config: &Config) -> String {
    format!("{} {}/{}", config.address, config.mount, config.key)
}
