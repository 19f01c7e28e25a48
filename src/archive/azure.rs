//! What Azure Blob Storage knows of a container beyond its blobs: whether versions of blobs can be
//! made immutable one by one, and until when one is. The service tells of a policy only through the
//! blobs that it was applied to: the log's first commit is looked at.

use std::sync::Arc;
use std::time::Duration;

use hyper::http::{HeaderMap, Method, Request};
use object_store::azure::{AzureAuthorizer, AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequestBody;
use url::Url;

use crate::archive::http;
use crate::archive::layout::commit_key;
use crate::archive::store::{Error, Lock, LockMode, Locker};
use crate::telemetry::chain;

const DAY_US: i64 = 86_400_000_000;
/// The first version of the service's protocol that tells of versions that are immutable.
const VERSION: &str = "2020-10-02";

/// Asks about one container.
pub(crate) struct Azure {
    store: Arc<MicrosoftAzure>,
    client: reqwest::Client,
    account: String,
    container: Url,
    prefix: String,
}

/// What a blob's headers say of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    mode: LockMode,
    until_us: i64,
    created_us: i64,
}

impl Azure {
    /// `name` is the container, or `container@account.…` as in URLs of abfss.
    pub(crate) fn new(
        builder: &MicrosoftAzureBuilder,
        store: Arc<MicrosoftAzure>,
        name: &str,
        prefix: &str,
    ) -> Result<Azure, object_store::Error> {
        let generic =
            |text: String| object_store::Error::Generic { store: "Azure", source: text.into() };
        let (container, host) = name.split_once('@').unwrap_or((name, ""));
        let named = host.split('.').next().filter(|account| !account.is_empty());
        let account = named.map(str::to_owned);
        let account = account.or_else(|| builder.get_config_value(&AzureConfigKey::AccountName));
        let account = account.ok_or_else(|| generic("no account is named".to_owned()))?;
        let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
        let public = || format!("https://{account}.blob.core.windows.net");
        let endpoint = endpoint.unwrap_or_else(public);
        let container = format!("{}/{container}", endpoint.trim_end_matches('/'));
        let container = Url::parse(&container).map_err(|error| generic(error.to_string()))?;
        let client = http::client(Duration::from_secs(30), None).map_err(generic)?;
        Ok(Azure { store, client, account, container, prefix: prefix.to_owned() })
    }

    /// The headers of a blob, or of the container; `None` where there is no such blob.
    async fn headers(&self, blob: Option<&str>) -> Result<Option<HeaderMap>, Error> {
        let (operation, key) = ("ask the store about", blob.unwrap_or("the container").to_owned());
        let unavailable =
            |text: String| Error::Unavailable { operation, key: key.clone(), source: text.into() };
        let mut url = self.container.clone();
        match blob {
            None => url.set_query(Some("restype=container")),
            Some(blob) => {
                if let Ok(mut path) = url.path_segments_mut() {
                    path.extend(self.prefix.split('/').filter(|part| !part.is_empty()));
                    path.extend(blob.split('/'));
                }
            }
        }
        let request = Request::builder().method(Method::HEAD).uri(url.as_str());
        let request = request.header("x-ms-version", VERSION).body(HttpRequestBody::empty());
        let mut request = request.map_err(|error| unavailable(chain(&error)))?;
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| unavailable(chain(&error)))?;
        AzureAuthorizer::new(&credential, &self.account)
            .try_authorize(&mut request)
            .map_err(|error| unavailable(chain(&error)))?;
        let request = reqwest::Request::try_from(request.map(|_| reqwest::Body::default()));
        let request = request.map_err(|error| unavailable(chain(&error)))?;
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| unavailable(chain(&error.without_url())))?;
        let code = response.headers().get("x-ms-error-code");
        let code = code.and_then(|code| code.to_str().ok()).unwrap_or("no reason given");
        let status = response.status().as_u16();
        let source = format!("the store answered {status}, {code}");
        match status {
            200 => Ok(Some(response.headers().clone())),
            404 if blob.is_some() && code != "ContainerNotFound" => Ok(None),
            429 | 500.. => Err(unavailable(source)),
            404 => {
                let (source, remedy) = (source.into(), "check that the container exists");
                Err(Error::Refused { operation, key, source, remedy })
            }
            _ => {
                let remedy = "allow reading the container's properties and its blobs";
                Err(Error::Refused { operation, key, source: source.into(), remedy })
            }
        }
    }

    /// How the container locks. Of a policy for a container as a whole the service does not tell
    /// whether it is locked, nor for how long it is: that is no lock here.
    pub(crate) async fn lock(&self) -> Result<Lock, Error> {
        let headers = self.headers(None).await?.unwrap_or_default();
        let is = |name: &str| headers.get(name).is_some_and(|value| value == "true");
        let has_versions = is("x-ms-immutable-storage-with-versioning-enabled");
        let first = match has_versions {
            true => self.headers(Some(&commit_key(0))).await?,
            false => None,
        };
        let held = first.as_ref().and_then(held);
        // Nothing is there yet: the first commit will tell.
        let is_presumed = has_versions && first.is_none();
        let presumed = is_presumed.then_some(LockMode::Compliance);
        let days = held.map(|it| {
            let us = it.until_us.saturating_sub(it.created_us);
            u32::try_from(us.saturating_add(DAY_US / 24) / DAY_US).unwrap_or(0)
        });
        Ok(Lock {
            locker: Locker::Azure,
            has_versions,
            is_enabled: has_versions,
            mode: held.map(|it| it.mode).or(presumed),
            days: days.or(is_presumed.then_some(u32::MAX)),
            is_replaceable: true,
            is_presumed,
        })
    }

    /// Until when a blob is immutable.
    pub(crate) async fn locked_until(&self, key: &str) -> Result<Option<i64>, Error> {
        let headers = self.headers(Some(key)).await?;
        Ok(headers.as_ref().and_then(held).map(|it| it.until_us))
    }
}

fn held(headers: &HeaderMap) -> Option<Held> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let time = |name: &str| {
        let time = jiff::fmt::rfc2822::parse(text(name)?).ok()?;
        Some(time.timestamp().as_microsecond())
    };
    let until_us = time("x-ms-immutability-policy-until-date")?;
    let created_us = time("x-ms-creation-time").or_else(|| time("last-modified"))?;
    let is_locked = text("x-ms-immutability-policy-mode")?.eq_ignore_ascii_case("locked");
    let mode = if is_locked { LockMode::Compliance } else { LockMode::Governance };
    Some(Held { mode, until_us, created_us })
}
