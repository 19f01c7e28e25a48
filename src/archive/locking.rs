//! Uploads with a lock of their own. S3 takes it as headers, which must be signed: the crate for
//! stores signs those that a client sends with every request, so there is a client for each hour,
//! whose objects are locked until a full hour, at least for the days that are configured.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::http::{HeaderMap, HeaderValue};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, ClientOptions};

use crate::archive::store::{Error, LockMode, ObjectLock, Put};
use crate::clock;
use crate::event::time::format_us;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What is set in the environment for clients, and lost with options of one's own.
const OPTIONS: [ClientConfigKey; 12] = [
    ClientConfigKey::AllowHttp,
    ClientConfigKey::AllowInvalidCertificates,
    ClientConfigKey::NoSystemCertificates,
    ClientConfigKey::ConnectTimeout,
    ClientConfigKey::ReadTimeout,
    ClientConfigKey::Timeout,
    ClientConfigKey::Http1Only,
    ClientConfigKey::PoolIdleTimeout,
    ClientConfigKey::ProxyUrl,
    ClientConfigKey::ProxyCaCertificate,
    ClientConfigKey::ProxyExcludes,
    ClientConfigKey::UserAgent,
];

/// A client whose uploads are locked until one time.
#[derive(Clone)]
pub(crate) struct Upload {
    pub(crate) store: Arc<AmazonS3>,
    /// Whether an object was seen to be locked.
    pub(crate) is_seen: bool,
    until_us: i64,
}

/// Makes the clients.
pub(crate) struct Locking {
    builder: AmazonS3Builder,
    lock: ObjectLock,
    current: Mutex<Option<Upload>>,
}

impl Locking {
    pub(crate) fn new(builder: AmazonS3Builder, lock: ObjectLock) -> Locking {
        Locking { builder, lock, current: Mutex::new(None) }
    }

    /// The client of this hour.
    pub(crate) fn upload(&self) -> Result<Upload, object_store::Error> {
        let until_us = until_us(clock::now_us(), self.lock.days);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = current.as_ref().filter(|upload| upload.until_us == until_us) {
            return Ok(upload.clone());
        }
        let mut options = ClientOptions::new().with_default_headers(headers(self.lock, until_us));
        for key in OPTIONS {
            if let Some(value) = self.builder.get_config_value(&AmazonS3ConfigKey::Client(key)) {
                options = options.with_config(key, value);
            }
        }
        let store = Arc::new(self.builder.clone().with_client_options(options).build()?);
        let upload = Upload { store, is_seen: false, until_us };
        *current = Some(upload.clone());
        Ok(upload)
    }

    /// Takes note of the lock that an object has; refuses a store that took none, or a lesser one.
    pub(crate) fn see(
        &self,
        upload: &Upload,
        key: &str,
        put: Put,
        held: Option<(LockMode, i64)>,
    ) -> Result<(), Error> {
        let is_new = put == Put::Created;
        // One that was there before may be of an hour, or a day, before.
        let is_held = held.is_some_and(|(mode, until_us)| {
            mode >= self.lock.mode && (until_us >= upload.until_us || !is_new)
        });
        if !is_held {
            let said =
                held.map(|(mode, until_us)| format!("{mode:?} until {}", format_us(until_us)));
            return Err(Error::Refused {
                operation: "lock",
                key: key.to_owned(),
                source: format!("its lock is {}", said.unwrap_or_else(|| "none".into())).into(),
                remedy: "use a store that takes locks with uploads, or `lock: bucket`",
            });
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let same = current.as_mut().filter(|it| it.until_us == upload.until_us);
        if let Some(current) = same.filter(|_| is_new) {
            current.is_seen = true;
        }
        Ok(())
    }
}

/// The full hour behind so many days from now.
fn until_us(now_us: i64, days: u32) -> i64 {
    let end = now_us.saturating_add(i64::from(days).saturating_mul(DAY_US));
    end.saturating_add(HOUR_US) / HOUR_US * HOUR_US
}

fn headers(lock: ObjectLock, until_us: i64) -> HeaderMap {
    let mode = match lock.mode {
        LockMode::Compliance => "COMPLIANCE",
        LockMode::Governance => "GOVERNANCE",
    };
    let until = format_us(until_us);
    // A full hour: what stands behind the seconds is nought.
    let until = format!("{}Z", until.get(..19).unwrap_or_default());
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode));
    if let Ok(until) = HeaderValue::from_str(&until) {
        headers.insert("x-amz-object-lock-retain-until-date", until);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_locked_until_a_full_hour_behind_the_days() {
        let now_us = 1_763_766_000_000_000;
        for (after, hours) in [(0, 1), (1, 1), (HOUR_US - 1, 1), (HOUR_US, 2)] {
            let until = until_us(now_us + after, 2);
            assert_eq!(until, now_us + 2 * DAY_US + hours * HOUR_US);
            assert!(until - now_us - after >= 2 * DAY_US);
        }
        let lock = ObjectLock { mode: LockMode::Compliance, days: 2 };
        let headers = headers(lock, until_us(now_us, lock.days));
        assert_eq!(headers["x-amz-object-lock-mode"], "COMPLIANCE");
        assert_eq!(headers["x-amz-object-lock-retain-until-date"], "2025-11-24T00:00:00Z");
    }

    #[test]
    fn a_store_that_takes_no_lock_is_refused() {
        let builder = AmazonS3Builder::new().with_bucket_name("b").with_region("r");
        let lock = ObjectLock { mode: LockMode::Compliance, days: 2 };
        crate::tls::install();
        let locking = Locking::new(builder, lock);
        let upload = locking.upload().unwrap();
        let strict = |until_us| Some((LockMode::Compliance, until_us));
        let (until_us, created, exists) = (upload.until_us, Put::Created, Put::Exists);
        let lax = Some((LockMode::Governance, until_us));
        let cases =
            [(created, None), (exists, None), (created, lax), (created, strict(until_us - DAY_US))];
        for (put, held) in cases {
            let refused = locking.see(&upload, "x", put, held).unwrap_err().to_string();
            assert!(refused.contains("use a store that takes locks"), "{refused}");
        }
        // One from before says nothing of what is uploaded now.
        locking.see(&upload, "x", exists, strict(until_us - DAY_US)).unwrap();
        assert!(!locking.upload().unwrap().is_seen);
        locking.see(&upload, "x", created, strict(until_us)).unwrap();
        assert!(locking.upload().unwrap().is_seen);
    }
}
