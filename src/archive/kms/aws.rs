//! AWS KMS: a key of spec ECC_NIST_EDWARDS25519 for SIGN_VERIFY. `ED25519_SHA_512` over the raw
//! message is plain Ed25519, so its signatures are those of any other key of a log.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::http::{Method, Request, header};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::HttpRequestBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::archive::http::{self, exchange};
use crate::archive::kms::{Error, Question};
use crate::telemetry::chain;

/// Before the 32 bytes of an Ed25519 key in the DER of a SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A key in AWS KMS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The key's ARN, `arn:aws:kms:REGION:ACCOUNT:key/ID`. No alias: it can be pointed elsewhere.
    pub key: String,
    /// Where the service is, when not at its public address: an interface endpoint of a VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl Config {
    /// The key's region.
    pub(crate) fn region(&self) -> Result<&str, String> {
        let parts: Vec<&str> = self.key.split(':').collect();
        match parts[..] {
            ["arn", _, "kms", region, _, key] if key.starts_with("key/") && !region.is_empty() => {
                Ok(region)
            }
            _ => Err(format!("{:?} is not arn:aws:kms:REGION:ACCOUNT:key/ID", self.key)),
        }
    }

    fn url(&self, region: &str) -> String {
        let is_china = self.key.starts_with("arn:aws-cn:");
        let domain = if is_china { "amazonaws.com.cn" } else { "amazonaws.com" };
        let public = || format!("https://kms.{region}.{domain}/");
        self.endpoint.clone().unwrap_or_else(public)
    }
}

/// Signs with a key in AWS KMS.
pub(crate) struct Kms {
    config: Config,
    region: String,
    url: String,
    client: reqwest::Client,
    /// For its credentials: the environment's, a role's, a workload's, as for S3.
    store: AmazonS3,
}

impl Kms {
    pub(crate) fn new(config: &Config, timeout: Duration) -> Result<Kms, Error> {
        Kms::with(config, timeout, AmazonS3Builder::from_env())
    }

    /// A client with the credentials that `builder` has.
    pub(crate) fn with(
        config: &Config,
        timeout: Duration,
        builder: AmazonS3Builder,
    ) -> Result<Kms, Error> {
        let refused = |reason: String, remedy: &str| Error::Refused {
            service: config.key.clone(),
            reason,
            remedy: remedy.to_owned(),
        };
        let region = config.region().map_err(|reason| refused(reason, "give the key's ARN"))?;
        let client = http::client(timeout, None);
        let client = client.map_err(|reason| refused(reason, "mend the system's certificates"))?;
        let store = builder.with_bucket_name("none").with_region(region).build();
        let store = store.map_err(|error| refused(chain(&error), "check the credentials"))?;
        let (url, region) = (config.url(region), region.to_owned());
        Ok(Kms { config: config.clone(), region, url, client, store })
    }

    pub(crate) fn name(&self) -> String {
        self.config.key.clone()
    }

    fn refused(&self, reason: impl Into<String>, remedy: &str) -> Error {
        Error::Refused { service: self.name(), reason: reason.into(), remedy: remedy.to_owned() }
    }

    pub(crate) async fn ask(&self, question: &Question<'_>) -> Result<Vec<u8>, Error> {
        let key = &self.config.key;
        let (target, field, body) = match question {
            Question::PublicKey => ("GetPublicKey", "PublicKey", json!({"KeyId": key})),
            Question::Signature(message) => {
                let body = json!({
                    "KeyId": key, "Message": STANDARD.encode(message), "MessageType": "RAW",
                    "SigningAlgorithm": "ED25519_SHA_512",
                });
                ("Sign", "Signature", body)
            }
        };
        let answer = self.request(target, body.to_string()).await?;
        let remedy = "make a key of spec ECC_NIST_EDWARDS25519 for SIGN_VERIFY";
        if let Some(spec) = answer["KeySpec"].as_str().filter(|it| *it != "ECC_NIST_EDWARDS25519") {
            return Err(self.refused(format!("the key is of spec {spec}"), remedy));
        }
        let bytes = answer[field].as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes =
            bytes.ok_or_else(|| self.refused(format!("no {field} in its answer"), remedy))?;
        match question {
            Question::Signature(_) => Ok(bytes),
            Question::PublicKey => {
                let key = bytes.strip_prefix(&SPKI).map(<[u8]>::to_vec);
                key.ok_or_else(|| self.refused("its public key is none of Ed25519", remedy))
            }
        }
    }

    async fn request(&self, target: &str, body: String) -> Result<Value, Error> {
        let unavailable = |reason: String| Error::Unavailable { service: self.name(), reason };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{target}"))
            .body(HttpRequestBody::from(body.clone()));
        let mut request = request.map_err(|error| unavailable(chain(&error)))?;
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| unavailable(chain(&error)))?;
        AwsAuthorizer::new(&credential, "kms", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| unavailable(chain(&error)))?;
        let request = reqwest::Request::try_from(request.map(|_| reqwest::Body::from(body)));
        let request = request.map_err(|error| unavailable(chain(&error)))?;
        let (status, body) = exchange(&self.client, request).await.map_err(unavailable)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == 200 {
            return Ok(answer);
        }
        let kind = answer["__type"].as_str().unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let said = answer["message"].as_str().or_else(|| answer["Message"].as_str());
        let reason = format!("it answers {status} {kind}: {}", said.unwrap_or("no reason given"));
        match remedy(kind) {
            Some(remedy) => Err(self.refused(reason, remedy)),
            None if is_passing(status, kind) => Err(unavailable(reason)),
            None => Err(self.refused(reason, "see the documentation of AWS KMS")),
        }
    }
}

fn is_passing(status: u16, kind: &str) -> bool {
    let passing = ["Throttling", "ThrottlingException", "LimitExceededException"];
    status >= 500 || status == 429 || passing.contains(&kind)
}

/// What to do about an exception that time does not mend.
fn remedy(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "AccessDeniedException" => "allow kms:GetPublicKey and kms:Sign on the key",
        "NotFoundException" | "InvalidArnException" => "check the key's ARN",
        "DisabledException" => "enable the key",
        "KMSInvalidStateException" => "cancel the key's deletion, or enable it",
        "InvalidKeyUsageException" | "UnsupportedOperationException" | "ValidationException" => {
            "make a key of spec ECC_NIST_EDWARDS25519 for SIGN_VERIFY"
        }
        "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException" => "check the credentials, and the clock",
        _ => return None,
    })
}
