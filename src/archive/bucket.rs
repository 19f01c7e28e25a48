//! A store in a bucket: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! Objects are uploaded in one request that creates or fails, with a SHA-256 checksum on S3 (locked
//! uploads must carry one, and MD5 is not to be had on FIPS hosts). Locks come from the bucket's
//! default retention, so the writer needs no right but to create and to read; or, on S3, with each
//! object. Credentials are the environment's: AWS_…, GOOGLE_…, AZURE_…, roles of instances and
//! workloads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
};

use crate::archive::azure::Azure;
use crate::archive::gcs::Gcs;
use crate::archive::locking::Locking;
use crate::archive::s3::S3;
use crate::archive::store::{Answer, Error, Listed, Lock, ObjectLock, Put, Store, Versions};

/// A bucket, and the prefix in it that is the log's.
pub struct Bucket {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
    location: String,
    beyond: Beyond,
    locking: Option<Locking>,
}

/// What each store knows beyond objects.
enum Beyond {
    S3(S3),
    Google(Gcs),
    Azure(Azure),
}

fn retries() -> RetryConfig {
    let retry_timeout = Duration::from_secs(30);
    RetryConfig { max_retries: 3, retry_timeout, ..RetryConfig::default() }
}

fn s3(location: &str) -> AmazonS3Builder {
    AmazonS3Builder::from_env()
        .with_url(location)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retries())
}

impl Bucket {
    /// Opens the bucket of a URL: `s3://bucket/prefix`, `gs://…`, `az://container/…`. With `lock`
    /// objects are uploaded with a lock of their own, which S3 alone knows.
    ///
    /// # Errors
    /// The URL, or what the environment says of credentials, cannot be used.
    pub fn open(location: &str, lock: Option<ObjectLock>) -> Result<Bucket, object_store::Error> {
        crate::tls::install();
        let (scheme, rest) = location.split_once("://").unwrap_or_default();
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/').to_owned();
        let mut locking = None;
        let (inner, beyond): (Arc<dyn ObjectStore>, _) = match scheme {
            "s3" | "s3a" => {
                let builder = s3(location);
                let store = Arc::new(builder.clone().build()?);
                let s3 = S3::new(&builder, Arc::clone(&store), name, &prefix)?;
                locking = lock.map(|lock| Locking::new(builder, lock));
                (store, Beyond::S3(s3))
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(location);
                let store = Arc::new(builder.clone().with_retry(retries()).build()?);
                let gcs = Gcs::new(&builder, Arc::clone(&store), name, &prefix)?;
                (store, Beyond::Google(gcs))
            }
            _ => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(location);
                let store = Arc::new(builder.clone().with_retry(retries()).build()?);
                let azure = Azure::new(&builder, Arc::clone(&store), name, &prefix)?;
                (store, Beyond::Azure(azure))
            }
        };
        if lock.is_some() && locking.is_none() {
            let source = "objects are locked one by one on S3 only: set the retention of the \
                          bucket, and `lock: bucket`";
            return Err(object_store::Error::Generic { store: "bucket", source: source.into() });
        }
        Ok(Bucket { inner, prefix, location: location.to_owned(), beyond, locking })
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}/{key}", self.prefix))
    }

    async fn get(
        &self,
        key: &str,
        limit: u64,
        options: GetOptions,
    ) -> Result<Option<Bytes>, Error> {
        let found = match self.inner.get_opts(&self.path(key), options).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|error| failed("read", key, error))?,
        };
        let size = found.meta.size;
        if size > limit {
            return Err(Error::TooLarge { key: key.to_owned(), size, limit });
        }
        found.bytes().await.map(Some).map_err(|error| failed("read", key, error))
    }
}

/// Creates an object in one request.
async fn put(store: &dyn ObjectStore, path: &Path, key: &str, bytes: Bytes) -> Result<Put, Error> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(path, PutPayload::from_bytes(bytes), options).await {
        Ok(_) => Ok(Put::Created),
        Err(object_store::Error::AlreadyExists { .. })
        | Err(object_store::Error::Precondition { .. }) => Ok(Put::Exists),
        Err(error) => Err(failed("create", key, error)),
    }
}

fn failed(operation: &'static str, key: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let key = key.to_owned();
    let remedy = match &error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            "check the credentials and what they may do"
        }
        E::NotFound { .. } => "check that the bucket exists",
        E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } => {
            "this store cannot hold an archive"
        }
        _ => return Error::Unavailable { operation, key, source: error.into() },
    };
    Error::Refused { operation, key, source: error.into(), remedy }
}

impl Store for Bucket {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Put> {
        async move {
            let Some(locking) = &self.locking else {
                return put(&*self.inner, &self.path(key), key, bytes).await;
            };
            let upload = locking.upload().map_err(|error| failed("create", key, error))?;
            let put = put(&*upload.store, &self.path(key), key, bytes).await?;
            if let (Beyond::S3(s3), false) = (&self.beyond, upload.is_seen) {
                locking.see(&upload, key, put, s3.held(key).await?)?;
            }
            Ok(put)
        }
        .boxed()
    }

    fn replace<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, ()> {
        async move {
            let put = self.inner.put(&self.path(key), PutPayload::from_bytes(bytes)).await;
            put.map(drop).map_err(|error| failed("replace", key, error))
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>> {
        self.get(key, limit, GetOptions::default()).boxed()
    }

    fn read_range<'a>(&'a self, key: &'a str, start: u64, end: u64) -> Answer<'a, Option<Bytes>> {
        let options = GetOptions::default().with_range(Some(start..end));
        self.get(key, u64::MAX, options).boxed()
    }

    fn read_oldest<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>> {
        async move {
            let Beyond::S3(s3) = &self.beyond else { return Ok(None) };
            let Some(version) = s3.oldest(key).await? else { return Ok(None) };
            self.get(key, limit, GetOptions::default().with_version(Some(version))).await
        }
        .boxed()
    }

    fn size<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        async move {
            match self.inner.head(&self.path(key)).await {
                Ok(found) => Ok(Some(found.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed("look at", key, error)),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        async move {
            let path = self.path(prefix);
            let listed = self.inner.list(Some(&path)).map_ok(|found| {
                let key = found.location.as_ref();
                let key = key.strip_prefix(&self.prefix).unwrap_or(key).trim_start_matches('/');
                Listed { key: key.to_owned(), size: found.size }
            });
            listed.try_collect().await.map_err(|error| failed("list", prefix, error))
        }
        .boxed()
    }

    fn shadows<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Versions>> {
        async move {
            match &self.beyond {
                Beyond::S3(s3) => s3.shadows(prefix).await,
                Beyond::Google(_) | Beyond::Azure(_) => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn has_locks(&self) -> bool {
        true
    }

    fn locked_until<'a>(&'a self, key: &'a str) -> Answer<'a, Option<i64>> {
        async move {
            match &self.beyond {
                Beyond::S3(s3) => Ok(s3.held(key).await?.map(|(_, until)| until)),
                Beyond::Google(gcs) => gcs.locked_until(key).await,
                Beyond::Azure(azure) => azure.locked_until(key).await,
            }
        }
        .boxed()
    }

    fn lock<'a>(&'a self) -> Answer<'a, Option<Lock>> {
        async move {
            match &self.beyond {
                Beyond::S3(s3) => s3.lock().await.map(Some),
                Beyond::Google(gcs) => gcs.lock().await.map(Some),
                Beyond::Azure(azure) => azure.lock().await.map(Some),
            }
        }
        .boxed()
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
