//! What Google Cloud Storage and Azure Blob Storage are asked about their locks, against fakes that
//! take only requests as the services document them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, StaticCredentialProvider};
use serde_json::{Value, json};

use crate::archive::azure::Azure;
use crate::archive::gcs::Gcs;
use crate::archive::store::{Error, LockMode};
use crate::archive::tests::NOW_US;
use crate::archive::tests::fake::{Fake, Seen, answer};

const DAY_US: i64 = 86_400_000_000;

fn google(fake: &Fake, bearer: &str) -> Gcs {
    crate::tls::install();
    let credential = GcpCredential { bearer: bearer.to_owned() };
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name("audit")
        .with_base_url(&fake.url)
        .with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    let store = Arc::new(builder.clone().build().unwrap());
    Gcs::new(&builder, store, "audit", "prod/cp-1").unwrap()
}

fn google_error(status: u16, text: &str) -> Response<Body> {
    answer(status, json!({"error": {"code": status, "message": text}}).to_string())
}

/// A bucket with one object; `bucket` is what its document holds.
fn bucket(bucket: Value) -> impl FnMut(&Seen) -> Response<Body> + Send + 'static {
    move |seen| {
        if seen.header("authorization") != "Bearer token" {
            return google_error(401, "Invalid Credentials");
        }
        let object = "/storage/v1/b/audit/o/prod%2Fcp-1%2Fdata%2Fkind=events%2Fx";
        match (seen.uri.path(), seen.uri.query().unwrap_or_default()) {
            ("/storage/v1/b/audit", "fields=retentionPolicy%2Cversioning") => {
                answer(200, bucket.to_string())
            }
            (path, "fields=retentionExpirationTime") if path == object => {
                answer(200, json!({"retentionExpirationTime": "2026-11-22T00:00:00Z"}).to_string())
            }
            (path, "fields=retentionExpirationTime") if path.contains("/o/") => {
                google_error(404, "No such object")
            }
            _ => google_error(400, "Bad Request"),
        }
    }
}

#[tokio::test]
async fn a_bucket_of_google_locks_as_its_retention_policy_says() {
    let (compliance, governance) = (Some(LockMode::Compliance), Some(LockMode::Governance));
    let policy = |is_locked: Option<bool>| {
        json!({"retentionPeriod": "34560000", "isLocked": is_locked,
            "effectiveTime": "2026-01-01T00:00:00Z"})
    };
    let versions = json!({"enabled": true});
    let cases = [
        (json!({}), None, None, true),
        (json!({ "versioning": versions }), None, None, true),
        (json!({"retentionPolicy": policy(None)}), governance, Some(400), false),
        (json!({"retentionPolicy": policy(Some(false))}), governance, Some(400), false),
        (json!({"retentionPolicy": policy(Some(true))}), compliance, Some(400), false),
        (
            json!({"retentionPolicy": policy(Some(true)), "versioning": versions}),
            compliance,
            Some(400),
            true,
        ),
    ];
    for (document, mode, days, is_replaceable) in cases {
        let fake = Fake::start(bucket(document.clone())).await;
        let lock = google(&fake, "token").lock().await.unwrap();
        let found = (lock.is_enabled, lock.mode, lock.days, lock.is_replaceable);
        assert_eq!(found, (days.is_some(), mode, days, is_replaceable), "{document}");
    }
    let fake = Fake::start(bucket(json!({}))).await;
    let gcs = google(&fake, "token");
    let until = gcs.locked_until("data/kind=events/x").await.unwrap();
    assert_eq!(until, Some(1_795_305_600_000_000));
    assert_eq!(gcs.locked_until("data/absent").await.unwrap(), None);
    let refused = google(&fake, "other").lock().await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("allow storage.buckets.get"), "{refused}");
    for (status, is_refused) in [(403, true), (404, true), (429, false), (503, false)] {
        fake.next(google_error(status, "x"));
        let error = gcs.lock().await.unwrap_err();
        assert_eq!(matches!(error, Error::Refused { .. }), is_refused, "{status}: {error}");
    }
}

fn azure(fake: &Fake, credential: AzureCredential) -> Azure {
    crate::tls::install();
    let builder = MicrosoftAzureBuilder::new()
        .with_account("acct")
        .with_container_name("audit")
        .with_endpoint(fake.url.clone())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    let store = Arc::new(builder.clone().build().unwrap());
    Azure::new(&builder, store, "audit", "prod/cp-1").unwrap()
}

fn token() -> AzureCredential {
    AzureCredential::BearerToken("token".to_owned())
}

fn headers(status: u16, headers: &[(&str, String)]) -> Response<Body> {
    let mut response = answer(status, "");
    for (name, value) in headers {
        let name = axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn date(time_us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(time_us).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A container; the first commit, where it is there, is immutable for so many days.
fn container(
    (has_policy, has_versions): (bool, bool),
    first: Option<Option<(&'static str, i64)>>,
) -> impl FnMut(&Seen) -> Response<Body> + Send + 'static {
    move |seen| {
        let authorization = seen.header("authorization");
        let is_signed = authorization == "Bearer token"
            || authorization.starts_with("SharedKey acct:") && authorization.len() == 59;
        if !is_signed || seen.header("x-ms-version") != "2020-10-02" || seen.method != "HEAD" {
            return headers(403, &[("x-ms-error-code", "AuthenticationFailed".to_owned())]);
        }
        if seen.uri == "/audit?restype=container" {
            let versions = "x-ms-immutable-storage-with-versioning-enabled";
            let policy = ("x-ms-has-immutability-policy", has_policy.to_string());
            return headers(200, &[policy, (versions, has_versions.to_string())]);
        }
        let commit = "/audit/prod/cp-1/commit/000000000000.tlog-proof";
        let Some(first) = first.filter(|_| seen.uri == commit) else {
            return headers(404, &[("x-ms-error-code", "BlobNotFound".to_owned())]);
        };
        let mut all = vec![("x-ms-creation-time", date(NOW_US))];
        if let Some((mode, days)) = first {
            let until = date(NOW_US + days * DAY_US);
            all.push(("x-ms-immutability-policy-mode", mode.to_owned()));
            all.push(("x-ms-immutability-policy-until-date", until));
        }
        headers(200, &all)
    }
}

#[tokio::test]
async fn a_container_of_azure_locks_as_its_first_commit_shows() {
    let (compliance, governance) = (Some(LockMode::Compliance), Some(LockMode::Governance));
    let cases = [
        // Of a policy for the whole container nobody here can tell whether it is locked.
        ((true, false), None, (false, None, None, false)),
        ((false, false), None, (false, None, None, false)),
        ((true, true), None, (true, compliance, Some(u32::MAX), true)),
        ((true, true), Some(None), (true, None, None, false)),
        ((true, true), Some(Some(("Locked", 400))), (true, compliance, Some(400), false)),
        ((false, true), Some(Some(("unlocked", 7))), (true, governance, Some(7), false)),
    ];
    for (properties, first, expected) in cases {
        let fake = Fake::start(container(properties, first)).await;
        let key = AzureAccessKey::try_new("AAAA").unwrap();
        for credential in [token(), AzureCredential::AccessKey(key)] {
            let lock = azure(&fake, credential).lock().await.unwrap();
            let found = (lock.is_enabled, lock.mode, lock.days, lock.is_presumed);
            assert_eq!(found, expected, "{properties:?} {first:?}");
        }
    }
    let fake = Fake::start(container((true, true), Some(Some(("locked", 3))))).await;
    let store = azure(&fake, token());
    let until = store.locked_until("commit/000000000000.tlog-proof").await.unwrap();
    assert_eq!(until, Some(NOW_US + 3 * DAY_US));
    assert_eq!(store.locked_until("commit/000000000001.tlog-proof").await.unwrap(), None);
    let other = azure(&fake, AzureCredential::BearerToken("other".to_owned()));
    let refused = other.lock().await.unwrap_err();
    assert!(refused.to_string().contains("AuthenticationFailed"), "{refused}");
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    let gone = ("x-ms-error-code", "ContainerNotFound".to_owned());
    for (status, is_refused) in [(404, true), (409, true), (500, false), (503, false)] {
        fake.next(headers(status, std::slice::from_ref(&gone)));
        let error = store.lock().await.unwrap_err();
        assert_eq!(matches!(error, Error::Refused { .. }), is_refused, "{status}: {error}");
    }
}
