//! What S3 knows of a bucket beyond its objects: versions, deletions, locks. The crate for stores
//! has no calls for these, so the requests are written here and signed with its credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::http::{Method, Request};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::HttpRequestBody;
use url::Url;

use crate::archive::store::{Error, Lock, LockMode, Locker, Versions};
use crate::event::time::parse_us;

/// Pages of a listing of versions that are read.
const PAGES_MAX: usize = 100_000;

/// Signed requests to one bucket.
pub(crate) struct S3 {
    store: Arc<AmazonS3>,
    client: reqwest::Client,
    bucket: Url,
    region: String,
    prefix: String,
}

/// A version of a key, or a deletion over it.
struct Version {
    key: String,
    id: String,
    is_latest: bool,
    is_deletion: bool,
}

impl S3 {
    /// Speaks to the bucket that a builder is set up for.
    pub(crate) fn new(
        builder: &AmazonS3Builder,
        store: Arc<AmazonS3>,
        name: &str,
        prefix: &str,
    ) -> Result<S3, object_store::Error> {
        let value = |key| builder.get_config_value(&key);
        let region = value(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        let bucket = match value(AmazonS3ConfigKey::Endpoint) {
            Some(endpoint) => format!("{}/{name}", endpoint.trim_end_matches('/')),
            None => format!("https://s3.{region}.amazonaws.com/{name}"),
        };
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Generic { store: "S3", source }
        };
        let bucket = Url::parse(&bucket).map_err(|error| generic(error.into()))?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .map_err(|error| generic(error.into()))?;
        Ok(S3 { store, client, bucket, region, prefix: prefix.to_owned() })
    }

    fn key(&self, key: &str) -> String {
        let is_bare = self.prefix.is_empty();
        if is_bare { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    async fn ask(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<reqwest::Response, Error> {
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable {
            operation: "ask the store about",
            key: key.to_owned(),
            source,
        };
        let mut url = self.bucket.clone();
        if !key.is_empty() {
            url.set_path(&format!("{}/{}", self.bucket.path(), escaped(&self.key(key), b"/")));
        }
        let text: Vec<String> = query.iter().map(|(name, value)| pair(name, value)).collect();
        url.set_query((!text.is_empty()).then(|| text.join("&")).as_deref());
        let request = Request::builder().method(method).uri(url.as_str());
        let mut request =
            request.body(HttpRequestBody::empty()).map_err(|error| unavailable(error.into()))?;
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| unavailable(error.into()))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| unavailable(error.into()))?;
        let request = reqwest::Request::try_from(request.map(|_| reqwest::Body::default()));
        let request = request.map_err(|error| unavailable(error.into()))?;
        self.client.execute(request).await.map_err(|error| unavailable(error.into()))
    }

    /// Asks for a document about the bucket; `None` when there is none of this kind.
    async fn document(&self, query: &[(&str, &str)]) -> Result<Option<String>, Error> {
        let response = self.ask(Method::GET, "", query).await?;
        let status = response.status();
        let name = query.first().map_or("", |(name, _)| name);
        let body = response.text().await.map_err(|error| Error::Unavailable {
            operation: "ask the store about",
            key: name.to_owned(),
            source: error.into(),
        })?;
        match status.as_u16() {
            200 => Ok(Some(body)),
            404 if tag(&body, "Code") != Some("NoSuchBucket") => Ok(None),
            code => {
                let said = tag(&body, "Code").unwrap_or("no reason");
                let source = format!("the store answered {code}, {said}").into();
                let (operation, key) = ("ask the store about", name.to_owned());
                if code >= 500 || code == 429 {
                    return Err(Error::Unavailable { operation, key, source });
                }
                let remedy = "allow GetBucketVersioning, GetBucketObjectLockConfiguration and \
                              ListBucketVersions";
                Err(Error::Refused { operation, key, source, remedy })
            }
        }
    }

    /// How the bucket locks.
    pub(crate) async fn lock(&self) -> Result<Lock, Error> {
        let versioning = self.document(&[("versioning", "")]).await?.unwrap_or_default();
        let lock = self.document(&[("object-lock", "")]).await?.unwrap_or_default();
        let number = |name| tag(&lock, name).and_then(|text| text.trim().parse::<u32>().ok());
        let years = number("Years").map(|years| years.saturating_mul(365));
        Ok(Lock {
            locker: Locker::S3,
            has_versions: tag(&versioning, "Status") == Some("Enabled"),
            is_enabled: tag(&lock, "ObjectLockEnabled") == Some("Enabled"),
            mode: match tag(&lock, "Mode") {
                Some("COMPLIANCE") => Some(LockMode::Compliance),
                Some("GOVERNANCE") => Some(LockMode::Governance),
                _ => None,
            },
            days: number("Days").or(years),
            is_replaceable: true,
            is_presumed: false,
        })
    }

    /// In which mode a key's current version is locked, and until when.
    pub(crate) async fn held(&self, key: &str) -> Result<Option<(LockMode, i64)>, Error> {
        let response = self.ask(Method::HEAD, key, &[]).await?;
        if response.status() == 403 {
            return Err(Error::Refused {
                operation: "ask the store about",
                key: key.to_owned(),
                source: "the store answered 403".into(),
                remedy: "allow GetObject and GetObjectRetention",
            });
        }
        let header = |name: &str| response.headers().get(name).map(|value| value.as_bytes());
        let until = header("x-amz-object-lock-retain-until-date").and_then(parse_us);
        let is_strict = header("x-amz-object-lock-mode") == Some(b"COMPLIANCE");
        let mode = if is_strict { LockMode::Compliance } else { LockMode::Governance };
        Ok(until.map(|until| (mode, until)))
    }

    /// The id of a key's first version.
    pub(crate) async fn oldest(&self, key: &str) -> Result<Option<String>, Error> {
        let versions = self.versions(key).await?;
        let mut oldest_first = versions.into_iter().rev();
        let oldest = oldest_first.find(|it| it.key == key && !it.is_deletion);
        Ok(oldest.map(|version| version.id))
    }

    /// Keys with more than one version, or a deletion over them.
    pub(crate) async fn shadows(&self, prefix: &str) -> Result<Vec<Versions>, Error> {
        let mut keys: BTreeMap<String, Versions> = BTreeMap::new();
        for version in self.versions(prefix).await? {
            let empty = Versions { key: version.key.clone(), versions: 0, is_deleted: false };
            let found = keys.entry(version.key).or_insert(empty);
            found.versions += u64::from(!version.is_deletion);
            found.is_deleted |= version.is_deletion && version.is_latest;
        }
        Ok(keys.into_values().filter(|it| it.versions != 1 || it.is_deleted).collect())
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let prefix = self.key(prefix);
        let (mut versions, mut marker) = (Vec::new(), (String::new(), String::new()));
        for _ in 0..PAGES_MAX {
            let mut query = vec![("prefix", prefix.as_str()), ("versions", "")];
            if !marker.0.is_empty() {
                query.insert(0, ("key-marker", &marker.0));
                query.push(("version-id-marker", &marker.1));
            }
            let Some(page) = self.document(&query).await? else { break };
            for (name, is_deletion) in [("Version", false), ("DeleteMarker", true)] {
                versions.extend(blocks(&page, name).filter_map(|block| {
                    let key = unescaped(tag(block, "Key")?);
                    let key = key.strip_prefix(&self.prefix)?.trim_start_matches('/');
                    let id = tag(block, "VersionId")?.to_owned();
                    let is_latest = tag(block, "IsLatest") == Some("true");
                    Some(Version { key: key.to_owned(), id, is_latest, is_deletion })
                }));
            }
            let next = |name| tag(&page, name).map(unescaped).unwrap_or_default();
            if tag(&page, "IsTruncated") != Some("true") {
                break;
            }
            marker = (next("NextKeyMarker"), next("NextVersionIdMarker"));
        }
        Ok(versions)
    }
}

/// A pair of a query.
fn pair(name: &str, value: &str) -> String {
    format!("{name}={}", escaped(value, b""))
}

/// A text with everything escaped that a signature has escaped.
fn escaped(value: &str, plain: &[u8]) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The text of the first element of this name. S3's documents are flat enough for it.
fn tag<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    blocks(xml, name).next()
}

/// The contents of every element of this name.
fn blocks<'x>(xml: &'x str, name: &str) -> impl Iterator<Item = &'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let end = start + rest[start..].find(&close)?;
        let block = &rest[start..end];
        rest = &rest[end + close.len()..];
        Some(block)
    })
}

fn unescaped(text: &str) -> String {
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&amp;", "&")];
    plain.iter().fold(text.to_owned(), |text, (escaped, letter)| text.replace(escaped, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_s3_are_read() {
        let page = "<R><IsTruncated>false</IsTruncated><Version><Key>p/a&amp;b</Key><VersionId>1\
                    </VersionId></Version><Version><Key>c</Key></Version></R>";
        let keys = blocks(page, "Version").filter_map(|it| tag(it, "Key")).map(unescaped);
        assert_eq!(keys.collect::<Vec<_>>(), ["p/a&b", "c"]);
        assert_eq!(tag(page, "IsTruncated"), Some("false"));
        assert_eq!(tag(page, "NextKeyMarker"), None);
        assert_eq!(tag("<Key>open", "Key"), None);
        assert_eq!(pair("prefix", "a/b=c d"), "prefix=a%2Fb%3Dc%20d");
    }
}
