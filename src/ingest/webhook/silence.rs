//! Notices when nothing arrives any more, and when something does again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::ingest::batch::{Batch, Notice, NoticeKind};
use crate::ingest::chunk::Chunk;
use crate::ingest::intake::Intake;
use crate::units::Span;

/// A notice that was refused is tried again after so long.
const RETRY: Duration = Duration::from_secs(5);

/// When each cluster was heard last. There are as many as the configuration names, and one for
/// those that it does not.
#[derive(Debug)]
pub(crate) struct Heard {
    clusters: Mutex<BTreeMap<Option<Arc<str>>, Ear>>,
    source: Arc<str>,
    changed: tokio::sync::Notify,
}

#[derive(Clone, Copy, Debug)]
struct Ear {
    last: Instant,
    is_silent: bool,
}

impl Heard {
    /// Listens for these clusters from now on; for all together when none is named.
    pub(crate) fn new(source: &Arc<str>, clusters: impl Iterator<Item = Arc<str>>) -> Heard {
        let ear = Ear { last: Instant::now(), is_silent: false };
        let mut clusters: BTreeMap<_, _> = clusters.map(|cluster| (Some(cluster), ear)).collect();
        if clusters.is_empty() {
            clusters.insert(None, ear);
        }
        let changed = tokio::sync::Notify::new();
        Heard { clusters: Mutex::new(clusters), source: Arc::clone(source), changed }
    }

    fn ears(&self) -> MutexGuard<'_, BTreeMap<Option<Arc<str>>, Ear>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cluster was heard. One that is not configured counts for all that are not.
    pub(crate) fn note(&self, cluster: Option<&Arc<str>>) {
        let mut ears = self.ears();
        let key = cluster.cloned().filter(|cluster| ears.contains_key(&Some(Arc::clone(cluster))));
        let now = Instant::now();
        let ear = ears.entry(key).or_insert(Ear { last: now, is_silent: false });
        ear.last = now;
        if ear.is_silent {
            self.changed.notify_one();
        }
    }

    /// Sends notices until cancelled.
    pub(crate) async fn watch(&self, after: Span, intake: &Intake, cancelled: &CancellationToken) {
        loop {
            let changed = self.changed.notified();
            let mut next = Instant::now() + after.0;
            let ears = self.ears().clone();
            for (cluster, ear) in ears {
                let silent_at = ear.last + after.0;
                let is_silent = silent_at <= Instant::now();
                if is_silent != ear.is_silent {
                    let is_told = self.tell(cluster.as_ref(), is_silent, after, intake).await;
                    if is_told {
                        self.set(&cluster, is_silent);
                    }
                    // It may have been heard while it was told silent.
                    let wait = if is_told { Duration::ZERO } else { RETRY };
                    next = next.min(Instant::now() + wait);
                } else if !is_silent {
                    next = next.min(silent_at);
                }
            }
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = sleep_until(next) => {}
                () = changed => {}
            }
        }
    }

    fn set(&self, cluster: &Option<Arc<str>>, is_silent: bool) {
        let mut ears = self.ears();
        if let Some(ear) = ears.get_mut(cluster) {
            ear.is_silent = is_silent;
        }
        let silent = ears.values().filter(|ear| ear.is_silent).count();
        metrics::gauge!("kubewitness_webhook_silent_clusters", "source" => self.source.to_string())
            .set(silent as f64);
    }

    /// Whether the notice is durable.
    async fn tell(
        &self,
        cluster: Option<&Arc<str>>,
        is_silent: bool,
        after: Span,
        intake: &Intake,
    ) -> bool {
        let who = match cluster {
            Some(cluster) => format!("receiver {} from cluster {cluster}", self.source),
            None => format!("receiver {}", self.source),
        };
        let (kind, text) = match is_silent {
            true => (NoticeKind::Silent, format!("nothing reached {who} for {after}")),
            false => (NoticeKind::Resumed, format!("audit events reach {who} again")),
        };
        tracing::warn!(source = &*self.source, cluster = cluster.map(|c| &**c), "{text}");
        let (mut batch, answer) = Batch::new(&self.source, &self.source, Chunk::new());
        batch.cluster = cluster.cloned();
        let subject = self.source.to_string();
        batch.notices =
            vec![Notice { kind, at_us: clock::now_us(), text, subject, lost_bytes: None }];
        intake.send(batch).await.is_ok() && matches!(answer.await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::batch::{Receipt, Refused};
    use crate::ingest::intake::intake;

    #[tokio::test(start_paused = true)]
    async fn tells_when_a_cluster_falls_silent() {
        let (intake, mut outlet) = intake(1 << 20);
        let source: Arc<str> = "webhook".into();
        let clusters = [Arc::from("a"), Arc::from("b")];
        let heard = Arc::new(Heard::new(&source, clusters.iter().cloned()));
        let (start, cancelled) = (Instant::now(), CancellationToken::new());
        let watch = tokio::spawn({
            let (heard, cancelled) = (Arc::clone(&heard), cancelled.clone());
            async move { heard.watch(Span::from_secs(60), &intake, &cancelled).await }
        });
        let mut take = async |answer: Result<Receipt, Refused>| {
            let mut batch = outlet.next().await.unwrap();
            let notice = batch.notices.remove(0);
            batch.done.send(answer).unwrap();
            let at = (Instant::now() - start).as_secs();
            (at, batch.cluster.map(|c| c.to_string()).unwrap_or_default(), notice.kind)
        };
        tokio::time::sleep(Duration::from_secs(50)).await;
        heard.note(Some(&clusters[1]));
        let silent = |at, cluster: &str| (at, cluster.to_owned(), NoticeKind::Silent);
        // Refused at first, and told again.
        assert_eq!(take(Err(Refused::Full)).await, silent(60, "a"));
        assert_eq!(take(Ok(Receipt::default())).await, silent(65, "a"));
        assert_eq!(take(Ok(Receipt::default())).await, silent(110, "b"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        heard.note(Some(&clusters[0]));
        let resumed = take(Ok(Receipt::default())).await;
        assert_eq!(resumed, (111, "a".to_owned(), NoticeKind::Resumed));
        assert_eq!(take(Ok(Receipt::default())).await, silent(171, "a"));
        cancelled.cancel();
        watch.await.unwrap();
    }
}
