//! Tells the operator whom the receiver refuses, without letting the refused fill the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines about one reason.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was told of each reason, of which there are few: they are labels.
#[derive(Debug)]
pub(crate) struct Complaints {
    source: Arc<str>,
    told: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl Complaints {
    pub(crate) fn new(source: &Arc<str>) -> Complaints {
        Complaints { source: Arc::clone(source), told: Mutex::default() }
    }

    /// Warns of a refusal, at most once a minute for each reason.
    pub(crate) fn tell(&self, peer: Option<IpAddr>, reason: &'static str, what: &'static str) {
        let source = &*self.source;
        let peer = peer.map(tracing::field::display);
        match self.count(reason) {
            Some(unmentioned) => tracing::warn!(source, peer, reason, unmentioned, "{what}"),
            None => tracing::debug!(source, peer, reason, "{what}"),
        }
    }

    /// Whether it is time to tell again, and of how many was not told since.
    fn count(&self, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(reason) {
            Some((last, unmentioned)) if now - *last < INTERVAL => {
                *unmentioned += 1;
                None
            }
            Some(entry) => Some(std::mem::replace(entry, (now, 0)).1),
            None => {
                told.insert(reason, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_of_each_reason_once_a_minute() {
        let complaints = Complaints::new(&"webhook".into());
        assert_eq!(complaints.count("wrong_token"), Some(0));
        for _ in 0..500 {
            assert_eq!(complaints.count("wrong_token"), None);
        }
        assert_eq!(complaints.count("wrong_name"), Some(0));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(complaints.count("wrong_token"), Some(500));
        assert_eq!(complaints.count("wrong_token"), None);
    }
}
