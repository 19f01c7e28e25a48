//! Keys in key services: strict fakes of Vault's transit engine and of AWS KMS, which take nothing
//! that the real ones refuse, and fail in the ways of the real ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::archive::kms::{Client, Config, Error, Remote, Service, aws, locate, vault};
use crate::archive::note::text_of_bytes;
use crate::archive::signatory::Signatory;
use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tests::fake::{Fake, Seen, answer};
use crate::archive::tests::{NOW_US, append, audit, signer};
use crate::archive::writer::{self, Options, Writer};
use crate::secret::Secret;

const TOKEN: &str = "hvs.token-1";
const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// The key of [`signer`], in the service's hands.
fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn errors(status: u16, text: &str) -> Response<Body> {
    answer(status, json!({"errors": [text]}).to_string())
}

/// As OpenBao 2.7 answers.
fn transit(seen: &Seen) -> Response<Body> {
    if seen.header("x-vault-token") != TOKEN || seen.header("x-vault-namespace") != "team" {
        return errors(403, "permission denied");
    }
    let signature = |message: &[u8]| STANDARD.encode(key().sign(message).to_bytes());
    match (seen.method.as_str(), seen.uri.path()) {
        ("GET", "/v1/transit/keys/audit") => {
            let public = STANDARD.encode(key().verifying_key().as_bytes());
            let keys = json!({"2": {"name": "ed25519", "public_key": public}});
            let data =
                json!({"type": "ed25519", "derived": false, "latest_version": 2, "keys": keys});
            answer(200, json!({ "data": data }).to_string())
        }
        ("POST", "/v1/transit/sign/audit") => {
            let body = seen.json();
            let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
            let message = STANDARD.decode(body["input"].as_str().unwrap()).unwrap();
            if fields != ["input", "key_version"] || body["key_version"] != 2 {
                return errors(400, "requested version for signing is less than the minimum");
            }
            let text = format!("vault:v2:{}", signature(&message));
            answer(200, json!({"data": {"key_version": 2, "signature": text}}).to_string())
        }
        _ => errors(404, "no handler for route"),
    }
}

fn vault_config(url: &str, dir: &Path) -> vault::Config {
    let token = dir.join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    vault::Config {
        address: url.to_owned(),
        mount: "transit".to_owned(),
        key: "audit".to_owned(),
        version: 2,
        token: Secret { file: Some(token), env: None },
        namespace: Some("team".to_owned()),
        ca_file: None,
    }
}

async fn connect(client: Client) -> Result<Remote, Error> {
    Remote::connect(client, &signer().verifier().to_string(), Duration::ZERO).await
}

fn over(config: &vault::Config) -> Result<Client, Error> {
    Ok(Client::Vault(vault::Transit::new(config, Duration::from_secs(20))?))
}

async fn refusal(client: Client) -> String {
    connect(client).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_log_signed_by_a_vault_is_the_log_of_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(transit).await;
    let remote = connect(over(&vault_config(&fake.url, dir.path())).unwrap()).await.unwrap();
    let text = "a text\n";
    assert_eq!(remote.sign(text).await.unwrap(), signer().sign(text));
    // Faults that pass are passed over, and leave no trace in the log.
    let store = Arc::new(Memory::default());
    let state = State::open(dir.path()).unwrap();
    let signatory = Signatory::Kms(Box::new(remote));
    for status in [503, 500, 429] {
        fake.next(errors(status, "Vault is sealed"));
    }
    let opened = Writer::open_with(store.clone(), signatory, state, Options::default(), NOW_US);
    let mut writer = opened.await.unwrap();
    append(&mut writer, 1..=9).await.unwrap();
    // One that does not answer for long loses nothing: the same append goes on.
    let size = writer.size();
    for _ in 0..4 {
        fake.next(errors(503, "Vault is sealed"));
    }
    let error = append(&mut writer, 10..=19).await.unwrap_err();
    assert!(matches!(&error, writer::Error::Kms(Error::Unavailable { .. })), "{error}");
    assert!(error.is_retryable() && writer.size() == size);
    fake.next(errors(403, "permission denied"));
    let error = append(&mut writer, 10..=19).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert!(error.to_string().contains("`update` on transit/sign/audit"), "{error}");
    append(&mut writer, 10..=19).await.unwrap();
    assert_eq!(audit(&store).0.len(), 19);
    assert_eq!(store.contested(), Vec::<String>::new());
}

#[tokio::test]
async fn a_vault_that_does_not_sign_with_the_key_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(transit).await;
    let good = vault_config(&fake.url, dir.path());
    let other = dir.path().join("other");
    std::fs::write(&other, "hvs.other").unwrap();
    let cases: [(&str, vault::Config); 6] = [
        (
            "allow it `read` on",
            vault::Config { token: Secret { file: Some(other), env: None }, ..good.clone() },
        ),
        ("permission denied", vault::Config { namespace: None, ..good.clone() }),
        ("check `mount`, `key`", vault::Config { mount: "pki".into(), ..good.clone() }),
        ("check `mount`, `key`", vault::Config { key: "absent".into(), ..good.clone() }),
        ("no version 1, the latest is 2", vault::Config { version: 1, ..good.clone() }),
        (
            "cannot read /none",
            vault::Config {
                token: Secret { file: Some("/none".into()), env: None },
                ..good.clone()
            },
        ),
    ];
    for (expected, config) in cases {
        let refused = refusal(over(&config).unwrap()).await;
        assert!(refused.contains(expected), "{expected}: {refused}");
        assert!(!refused.contains("hvs."), "{refused}");
    }
    for address in ["http://vault.example.com", "vault:8200", "ftp://127.0.0.1"] {
        let config = vault::Config { address: address.into(), ..good.clone() };
        assert!(over(&config).err().unwrap().to_string().contains("write https://HOST"));
    }
    let data = |data: Value| answer(200, json!({ "data": data }).to_string());
    let public = STANDARD.encode([9; 32]);
    let answers = [
        (data(json!({"type": "ecdsa-p256"})), "of type ecdsa-p256"),
        (data(json!({"type": "ed25519", "derived": true})), "or derived"),
        (
            data(json!({"type": "ed25519", "keys": {"2": {"public_key": "AAAA"}}})),
            "none of Ed25519",
        ),
        (
            data(json!({"type": "ed25519", "keys": {"2": {"public_key": public}}})),
            "was the key rotated or made anew?",
        ),
        (answer(307, ""), "give the address that it leads to"),
        (answer(200, "no json"), "of type unknown"),
    ];
    for (first, expected) in answers {
        fake.next(first);
        let refused = refusal(over(&good).unwrap()).await;
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
    // A signature by another key, or another version of it, is none.
    let forged = STANDARD.encode(SigningKey::from_bytes(&[8; 32]).sign(b"x").to_bytes());
    for (version, expected) in [(2, "does not hold"), (3, "no signature by version 2")] {
        let signed = data(json!({"signature": format!("vault:v{version}:{forged}")}));
        fake.next(transit_key());
        fake.next(signed);
        let refused = refusal(over(&good).unwrap()).await;
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
}

fn transit_key() -> Response<Body> {
    let public = STANDARD.encode(key().verifying_key().as_bytes());
    let data = json!({"type": "ed25519", "keys": {"2": {"public_key": public}}});
    answer(200, json!({ "data": data }).to_string())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Signature version 4 as AWS documents it, computed anew from what arrived.
fn is_signed(seen: &Seen) -> bool {
    let authorization = seen.header("authorization");
    let part = |name: &str| {
        let rest = authorization.split_once(&format!("{name}="))?.1;
        rest.split(',').next().map(str::trim)
    };
    let (Some(credential), Some(signed), Some(signature)) =
        (part("Credential"), part("SignedHeaders"), part("Signature"))
    else {
        return false;
    };
    let date = seen.header("x-amz-date");
    let scope = format!("{}/eu-central-1/kms/aws4_request", &date[..8]);
    let names: Vec<&str> = signed.split(';').collect();
    let needed = ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"];
    if credential != format!("AKID/{scope}") || !needed.iter().all(|it| names.contains(it)) {
        return false;
    }
    let headers: String =
        names.iter().map(|name| format!("{name}:{}\n", seen.header(name))).collect();
    let body = text_of_bytes(&Sha256::digest(&seen.body));
    let request = format!("POST\n/\n\n{headers}\n{signed}\n{body}");
    let request = text_of_bytes(&Sha256::digest(request));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request}");
    let steps = [&date[..8], "eu-central-1", "kms", "aws4_request"];
    let secret = steps.iter().fold(b"AWS4secret".to_vec(), |key, step| mac(&key, step));
    signature == text_of_bytes(&mac(&secret, &text))
}

fn exception(status: u16, kind: &str) -> Response<Body> {
    let kind = format!("com.amazonaws.kms#{kind}");
    answer(status, json!({"__type": kind, "message": "so it is"}).to_string())
}

/// As the service's model has it: JSON 1.1 by target, every field checked.
fn kms(seen: &Seen) -> Response<Body> {
    if !is_signed(seen) {
        return exception(400, "InvalidSignatureException");
    }
    if seen.header("content-type") != "application/x-amz-json-1.1" || seen.uri.path() != "/" {
        return exception(400, "ValidationException");
    }
    let body = seen.json();
    match seen.header("x-amz-target") {
        "TrentService.GetPublicKey" if body == json!({ "KeyId": ARN }) => {
            let der = [&SPKI[..], key().verifying_key().as_bytes()].concat();
            let text = json!({
                "KeyId": ARN, "KeySpec": "ECC_NIST_EDWARDS25519", "KeyUsage": "SIGN_VERIFY",
                "PublicKey": STANDARD.encode(der),
                "SigningAlgorithms": ["ED25519_PH_SHA_512", "ED25519_SHA_512"],
            });
            answer(200, text.to_string())
        }
        "TrentService.Sign" if body["KeyId"] == ARN && body.as_object().unwrap().len() == 4 => {
            if body["MessageType"] != "RAW" || body["SigningAlgorithm"] != "ED25519_SHA_512" {
                return exception(400, "InvalidKeyUsageException");
            }
            let message = STANDARD.decode(body["Message"].as_str().unwrap()).unwrap();
            let signature = STANDARD.encode(key().sign(&message).to_bytes());
            let algorithm = "ED25519_SHA_512";
            let text = json!({"KeyId": ARN, "Signature": signature, "SigningAlgorithm": algorithm});
            answer(200, text.to_string())
        }
        _ => exception(400, "NotFoundException"),
    }
}

const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn client(fake: &Fake, arn: &str, secret: &str) -> Client {
    let config = aws::Config { key: arn.to_owned(), endpoint: Some(fake.url.clone() + "/") };
    let credential = AwsCredential {
        key_id: "AKID".to_owned(),
        secret_key: secret.to_owned(),
        token: Some("session".to_owned()),
    };
    let provider = Arc::new(StaticCredentialProvider::new(credential));
    let builder = AmazonS3Builder::new().with_credentials(provider);
    Client::Aws(aws::Kms::with(&config, Duration::from_secs(20), builder).unwrap())
}

#[tokio::test]
async fn aws_kms_signs_as_the_same_key_does() {
    let fake = Fake::start(kms).await;
    fake.next(exception(400, "ThrottlingException"));
    fake.next(exception(500, "DependencyTimeoutException"));
    fake.next(answer(502, "<html>"));
    let remote = connect(client(&fake, ARN, "secret")).await.unwrap();
    let text = signer().verifier().to_string() + "\n";
    assert_eq!(remote.sign(&text).await.unwrap(), signer().sign(&text));
    let other = "arn:aws:kms:eu-central-1:111122223333:key/other";
    for (arn, secret, expected) in
        [(other, "secret", "check the key's ARN"), (ARN, "wrong", "check the credentials")]
    {
        let refused = refusal(client(&fake, arn, secret)).await;
        assert!(refused.contains(expected), "{refused}");
    }
    let der = STANDARD.encode([&SPKI[..], &[9; 32]].concat());
    let public =
        |spec: &str, key: &str| answer(200, json!({"KeySpec": spec, "PublicKey": key}).to_string());
    let spec = "ECC_NIST_EDWARDS25519";
    let cases = [
        (exception(400, "AccessDeniedException"), "allow kms:GetPublicKey and kms:Sign"),
        (exception(400, "DisabledException"), "enable the key"),
        (exception(400, "KMSInvalidStateException"), "cancel the key's deletion"),
        (exception(400, "ExpiredTokenException"), "check the credentials"),
        (exception(400, "NewException"), "see the documentation of AWS KMS"),
        (public("ECC_NIST_P256", &der), "of spec ECC_NIST_P256"),
        (public(spec, "AAAA"), "none of Ed25519"),
        (public(spec, &der), "was the key rotated or made anew?"),
        (answer(200, "{}"), "no PublicKey in its answer"),
    ];
    for (first, expected) in cases {
        fake.next(first);
        let refused = refusal(client(&fake, ARN, "secret")).await;
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
    (0..4).for_each(|_| fake.next(exception(400, "ThrottlingException")));
    let error = connect(client(&fake, ARN, "secret")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[test]
fn keys_are_named_as_their_services_name_them() {
    let token = Some("/token".into());
    let at = |text: &str| locate(text, token.clone(), None, None, 3);
    let Ok(Service::Vault(found)) = at("https://vault:8200/v1/a/transit/keys/audit") else {
        panic!("no vault");
    };
    assert_eq!((found.address.as_str(), found.mount.as_str()), ("https://vault:8200", "a/transit"));
    assert_eq!((found.key.as_str(), found.version), ("audit", 3));
    assert!(matches!(at(ARN), Ok(Service::Aws(_))));
    assert!(locate("https://vault/v1/transit/keys/a", None, None, None, 1).is_err());
    for wrong in ["", "https://vault/transit/keys/a", "arn:aws:kms:eu-central-1:1:alias/a"] {
        assert!(at(wrong).is_err(), "{wrong}");
    }
    // The file is read back as it was written, and nothing is added to it unnoticed.
    let kms = Service::Vault(found);
    let config = Config { public_key: signer().verifier().to_string(), kms, timeout_seconds: 5 };
    let text = serde_json::to_string_pretty(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    for (from, to) in [("\"mount\"", "\"mont\""), ("\"kms\"", "\"kmss\"")] {
        assert!(serde_json::from_str::<Config>(&text.replace(from, to)).is_err(), "{to}");
    }
}

#[tokio::test]
async fn a_file_that_names_no_key_says_what_it_should_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let said = async || {
        let error = Signatory::open(&path).await.unwrap_err();
        crate::telemetry::chain(&error)
    };
    assert!(said().await.starts_with("cannot read it: No such file"), "{}", said().await);
    for (text, expected) in [
        ("?", "make one with `kubewitness archive keygen`"),
        ("{\"kms\": {\"type\": \"gcp\"}}", "unknown variant `gcp`, expected `vault` or `aws`"),
        ("{}", "missing field `public_key`"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(said().await.contains(expected), "{}", said().await);
    }
    std::fs::write(&path, signer().secret_text() + "\n").unwrap();
    assert_eq!(Signatory::open(&path).await.unwrap().verifier(), signer().verifier());
}
