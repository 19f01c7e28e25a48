//! The archive. Delivered means that the items' records are committed to the log.
//!
//! A batch becomes one segment for each kind and cluster, so `batch` decides how large segments are
//! and how long an event waits: `{records_max: 100000, bytes_max: 8MiB, wait_max: 10s}` suits most.
//! Items that are in the log already are passed over; so sending a batch again is harmless.

use crate::archive::config::{Config, Error};
use crate::archive::cosigners::Asked;
use crate::archive::record::Kind;
use crate::archive::seal;
use crate::archive::segment::Line;
use crate::archive::writer::{self, Appended, Writer};
use crate::archive::{kms, preflight, signatory, store};
use crate::clock;
use crate::record::kind;
use crate::sinks::{CheckError, Delivered, Item, Outgoing, SendError, Sink};
use crate::telemetry::chain;

const REMEDY: &str = "see the archive's settings; nothing is lost meanwhile, the spool keeps it";

/// Appends to an archive.
pub struct Archive {
    name: String,
    config: Config,
    /// Opened with the first batch.
    writer: Option<Writer>,
    /// When the last record was committed, and when the store's locks were looked at.
    committed_us: i64,
    checked_us: i64,
    /// Records of the checkpoint that the other sinks were given last.
    anchored: u64,
}

impl Archive {
    /// A sink of this configuration; nothing is opened yet.
    pub fn new(name: String, config: Config) -> Archive {
        Archive { name, config, writer: None, committed_us: 0, checked_us: 0, anchored: 0 }
    }

    fn gauge(&self, name: &'static str, value: f64) {
        metrics::gauge!(name, "sink" => self.name.clone()).set(value);
    }

    async fn writer(&mut self) -> Result<&mut Writer, SendError> {
        if self.writer.is_none() {
            let now_us = clock::now_us();
            let opened = self.config.open(now_us).await;
            if let Err(error @ Error::Preflight(preflight::Error::Unlocked { .. })) = &opened {
                tracing::error!(%error, "the store does not lock");
                self.gauge("kubewitness_archive_lock_ok", 0.0);
            }
            let mut writer = opened.map_err(|error| not_open(&error))?;
            writer.mark("start", now_us).await.map_err(|error| failed(&error))?;
            self.gauge("kubewitness_archive_lock_ok", 1.0);
            (self.committed_us, self.checked_us) = (now_us, now_us);
            self.writer = Some(writer);
        }
        self.writer.as_mut().ok_or_else(|| SendError::retry("the archive is not open"))
    }
}

fn not_open(error: &Error) -> SendError {
    let text = chain(error);
    match error {
        Error::Writer(error) if error.is_retryable() => SendError::retry(text),
        Error::Preflight(preflight::Error::Store(store::Error::Unavailable { .. }))
        | Error::Key { source: signatory::Error::Kms(kms::Error::Unavailable { .. }), .. } => {
            SendError::retry(text)
        }
        _ => SendError::block(text, REMEDY),
    }
}

fn failed(error: &writer::Error) -> SendError {
    let text = chain(error);
    if error.is_retryable() { SendError::retry(text) } else { SendError::block(text, REMEDY) }
}

/// What the archive keeps of an item.
fn archived<'r>(item: &Item<'r>) -> Option<seal::Item<'r>> {
    match item.outgoing {
        Outgoing::Event(event) => Some(seal::Item {
            kind: Kind::Events,
            cluster: event.cluster,
            line: Line {
                raw: event.raw,
                seq: item.seq,
                time_us: event.time_us,
                received_us: event.received_us,
                flags: event.flags,
                source: event.source,
                position: event.position,
            },
        }),
        Outgoing::Alert(alert) => seal::Item::of_spool(kind::ALERT, item.seq, alert),
        Outgoing::Notice(notice) => seal::Item::of_spool(kind::NOTICE, item.seq, notice),
        Outgoing::Quarantine(json) => seal::Item::of_spool(kind::QUARANTINE, item.seq, json),
        // The archive would grow by its own checkpoints.
        Outgoing::Anchor(_) => None,
    }
}

impl Archive {
    /// Looks now and then whether the store still locks: where it does not, nothing is given to it.
    async fn recheck(&mut self) -> Result<(), SendError> {
        let now_us = clock::now_us();
        let every_us = i64::from(self.config.recheck_seconds) * 1_000_000;
        if self.writer.is_none() || now_us.saturating_sub(self.checked_us) < every_us {
            return Ok(());
        }
        match self.config.recheck().await {
            Ok(days) => {
                self.checked_us = now_us;
                self.gauge("kubewitness_archive_lock_ok", 1.0);
                self.gauge("kubewitness_archive_lock_days", f64::from(days.unwrap_or(0)));
                Ok(())
            }
            Err(error @ Error::Preflight(preflight::Error::Unlocked { .. })) => {
                self.gauge("kubewitness_archive_lock_ok", 0.0);
                // Opening it again looks again.
                self.writer = None;
                Err(not_open(&error))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot say whether the store still locks");
                Ok(())
            }
        }
    }

    /// The checkpoint, where the other sinks were not given it.
    fn anchor(&mut self) -> Option<String> {
        let writer = self.writer.as_ref()?;
        if writer.published() == self.anchored {
            return None;
        }
        self.anchored = writer.published();
        Some(writer.published_checkpoint().to_owned())
    }

    fn count(&self, appended: &Appended) {
        let sink = || self.name.clone();
        metrics::counter!("kubewitness_archive_segments_total", "sink" => sink())
            .increment(appended.records);
        metrics::counter!("kubewitness_archive_line_bytes_total", "sink" => sink())
            .increment(appended.line_bytes);
        metrics::counter!("kubewitness_archive_stored_bytes_total", "sink" => sink())
            .increment(appended.stored_bytes);
        self.observe();
    }

    fn observe(&self) {
        let Some(writer) = &self.writer else { return };
        self.gauge("kubewitness_archive_records", writer.size() as f64);
        self.gauge("kubewitness_archive_witnessed_records", writer.witnessed() as f64);
        let committed_s = self.committed_us as f64 / 1e6;
        self.gauge("kubewitness_archive_committed_timestamp_seconds", committed_s);
    }

    fn observe_witnesses(&self, asked: Option<Asked>) {
        let Some(asked) = asked else { return };
        self.gauge("kubewitness_archive_cosignatures", asked.cosigned as f64);
        for (witness, refusal) in asked.refusals {
            metrics::counter!(
                "kubewitness_archive_witness_refusals_total",
                "sink" => self.name.clone(), "witness" => witness, "reason" => refusal.as_str()
            )
            .increment(1);
        }
    }
}

impl Sink for Archive {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let items: Vec<_> = batch.iter().filter_map(archived).collect();
        let through = batch.last().map_or(0, |item| item.seq);
        self.recheck().await?;
        let writer = self.writer().await?;
        let now_us = clock::now_us();
        let appended = writer.append(&items, through, now_us).await;
        let asked = writer.take_asked();
        self.observe_witnesses(asked);
        let appended = appended.map_err(|error| failed(&error))?;
        if appended.records > 0 {
            self.committed_us = now_us;
        }
        self.count(&appended);
        let writer = self.writer().await?;
        tracing::debug!(
            records = appended.records,
            items = appended.items,
            repeated = appended.repeated,
            size = writer.size(),
            "archived"
        );
        Ok(Delivered { anchor: self.anchor(), ..Delivered::default() })
    }

    async fn turn(&mut self, is_last: bool) -> Result<Option<String>, SendError> {
        if is_last && self.writer.is_none() {
            return Ok(None);
        }
        self.recheck().await?;
        // Opened before the time is taken: what it did then lies behind.
        self.writer().await?;
        let (committed_us, now_us) = (self.committed_us, clock::now_us());
        let alive_us = i64::from(self.config.alive_seconds) * 1_000_000;
        let mut is_marked = is_last;
        let writer = self.writer().await?;
        if is_last {
            writer.mark("stop", now_us).await.map_err(|error| failed(&error))?;
        } else if now_us.saturating_sub(committed_us) >= alive_us {
            // Any record is a sign of life; where none comes, this one is.
            writer.mark("alive", now_us).await.map_err(|error| failed(&error))?;
            is_marked = true;
        }
        if is_last || writer.is_publication_due(now_us) {
            let published = writer.publish(now_us).await;
            let asked = writer.take_asked();
            self.observe_witnesses(asked);
            published.map_err(|error| failed(&error))?;
        }
        if is_marked {
            self.committed_us = now_us;
        }
        self.observe();
        Ok(self.anchor())
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        self.config.check().await.map_err(|error| {
            let remedy = "see the archive's settings, and `kubewitness archive check`";
            CheckError::new(chain(&error), remedy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::note::Signer;
    use crate::archive::prove::read_segment;
    use crate::archive::records::records;
    use crate::archive::{location, record::Record};
    use futures_util::TryStreamExt as _;

    async fn archived(dir: &std::path::Path, key: &Signer, size: u64) -> Vec<Record> {
        let store = location::open(dir.to_str().unwrap()).unwrap();
        let key = key.verifier();
        let found: Vec<Record> = records(&*store, &key, 0..size).try_collect().await.unwrap();
        for segment in found.iter().filter_map(|record| record.segment.as_ref()) {
            read_segment(&*store, segment).await.unwrap();
        }
        found
    }

    #[tokio::test]
    async fn it_tells_that_it_lives_and_that_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let key = Signer::new("audit.example.com/test", &[7; 32]).unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("key"), key.secret_text()).unwrap();
        let config: Config = serde_json::from_value(serde_json::json!({
            "url": path("archive"), "key_file": path("key"), "state_dir": path("state"),
            "worm": "off", "publish_seconds": 0, "alive_seconds": 0, "recheck_seconds": 0,
        }))
        .unwrap();
        let mut sink = Archive::new("archive".into(), config.clone());
        assert_eq!(sink.turn(true).await.unwrap(), None, "nothing was begun");
        let anchor = sink.turn(false).await.unwrap().unwrap();
        assert_eq!(key.verifier().checkpoint(&anchor).unwrap().size, 3);
        let items = [
            Item { seq: 4, outgoing: Outgoing::Alert(b"{\"time\":\"2026-11-22T00:00:00Z\"}") },
            Item { seq: 6, outgoing: Outgoing::Quarantine(b"{\"kind\":\"not_json\"}") },
            Item { seq: 7, outgoing: Outgoing::Anchor(b"{}") },
        ];
        let anchor = sink.send(&items).await.unwrap().anchor.unwrap();
        assert_eq!(key.verifier().checkpoint(&anchor).unwrap().size, 5);
        assert!(sink.turn(true).await.unwrap().is_some());
        drop(sink);
        let kinds: Vec<_> = archived(&path("archive"), &key, 6)
            .await
            .iter()
            .map(|record| (record.kind, record.says.get("mark").cloned().unwrap_or_default()))
            .collect();
        let mark = |word: &str| (Kind::Mark, word.to_owned());
        let (alerts, quarantine) = (Kind::Alerts, Kind::Quarantine);
        let expected = [
            (Kind::Genesis, String::new()),
            mark("start"),
            mark("alive"),
            (alerts, String::new()),
            (quarantine, String::new()),
            mark("stop"),
        ];
        assert_eq!(kinds, expected);
        // A store that does not lock, though it must, gets nothing.
        let strict = Config { worm: crate::archive::preflight::Worm::Compliance, ..config };
        let mut sink = Archive::new("archive".into(), strict);
        assert!(matches!(sink.turn(false).await, Err(SendError::Block { .. })));
    }
}
