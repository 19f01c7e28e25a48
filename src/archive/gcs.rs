//! What Google Cloud Storage knows of a bucket beyond its objects: its retention policy, and until
//! when an object is kept. Asked over the JSON API, with the credentials of the crate for stores.

use std::sync::Arc;
use std::time::Duration;

use object_store::gcp::{
    GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey,
};
use serde_json::Value;
use url::Url;

use crate::archive::http::{self, exchange};
use crate::archive::store::{Error, Lock, LockMode, Locker};
use crate::event::time::parse_us;

const DAY_SECONDS: u64 = 86_400;

/// Asks about one bucket.
pub(crate) struct Gcs {
    store: Arc<GoogleCloudStorage>,
    client: reqwest::Client,
    base: Url,
    bucket: String,
    prefix: String,
}

impl Gcs {
    pub(crate) fn new(
        builder: &GoogleCloudStorageBuilder,
        store: Arc<GoogleCloudStorage>,
        bucket: &str,
        prefix: &str,
    ) -> Result<Gcs, object_store::Error> {
        let base = builder.get_config_value(&GoogleConfigKey::BaseUrl);
        let base = base.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
        let generic =
            |text: String| object_store::Error::Generic { store: "GCS", source: text.into() };
        let base = Url::parse(&base).map_err(|error| generic(error.to_string()))?;
        let client = http::client(Duration::from_secs(30), None).map_err(generic)?;
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Ok(Gcs { store, client, base, bucket, prefix })
    }

    /// A document of the JSON API; `None` when there is no such object.
    async fn document(&self, object: Option<&str>, fields: &str) -> Result<Option<Value>, Error> {
        let (operation, key) = ("ask the store about", object.unwrap_or(&self.bucket).to_owned());
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            operation,
            key: key.clone(),
            source,
        };
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["storage", "v1", "b", &self.bucket]);
            if let Some(object) = object {
                path.extend(["o", object]);
            }
        }
        url.query_pairs_mut().append_pair("fields", fields);
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| unavailable(error.into()))?;
        let GcpCredential { bearer } = &*credential;
        let request = self.client.get(url).bearer_auth(bearer).build();
        let request = request.map_err(|error| unavailable(error.into()))?;
        let answer = exchange(&self.client, request).await;
        let (status, body) = answer.map_err(|reason| unavailable(reason.into()))?;
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = document["error"]["message"].as_str().unwrap_or("no reason given");
        let source = format!("the store answered {status}, {said}").into();
        match status {
            200 => Ok(Some(document)),
            404 if object.is_some() => Ok(None),
            429 | 500.. => Err(unavailable(source)),
            404 => {
                let remedy = "check that the bucket exists";
                Err(Error::Refused { operation, key, source, remedy })
            }
            _ => {
                let remedy = "allow storage.buckets.get and storage.objects.get";
                Err(Error::Refused { operation, key, source, remedy })
            }
        }
    }

    /// How the bucket locks: by its retention policy, for ever so once that is locked itself.
    pub(crate) async fn lock(&self) -> Result<Lock, Error> {
        let document = self.document(None, "retentionPolicy,versioning").await?.unwrap_or_default();
        let policy = &document["retentionPolicy"];
        // Numbers of 64 bits are texts in this API.
        let seconds = policy["retentionPeriod"].as_str().and_then(|it| it.parse::<u64>().ok());
        let has_versions = document["versioning"]["enabled"].as_bool() == Some(true);
        let is_locked = policy["isLocked"].as_bool() == Some(true);
        let mode = if is_locked { LockMode::Compliance } else { LockMode::Governance };
        let days = seconds.map(|it| u32::try_from(it / DAY_SECONDS).unwrap_or(u32::MAX));
        Ok(Lock {
            locker: Locker::Google,
            // What is kept can be neither deleted nor replaced.
            has_versions: has_versions || days.is_some(),
            is_enabled: days.is_some(),
            mode: days.map(|_| mode),
            days,
            is_replaceable: has_versions || days.is_none(),
            is_presumed: false,
        })
    }

    /// Until when an object is kept.
    pub(crate) async fn locked_until(&self, key: &str) -> Result<Option<i64>, Error> {
        let key =
            if self.prefix.is_empty() { key.into() } else { format!("{}/{key}", self.prefix) };
        let document = self.document(Some(&key), "retentionExpirationTime").await?;
        let until = document.as_ref().and_then(|it| it["retentionExpirationTime"].as_str());
        Ok(until.and_then(|until| parse_us(until.as_bytes())))
    }
}
