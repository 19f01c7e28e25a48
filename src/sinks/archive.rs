//! The archive. Delivered means that the items' records are committed to the log.
//!
//! A batch becomes one segment for each kind and cluster, so `batch` decides how large segments are
//! and how long an event waits: `{records_max: 100000, bytes_max: 8MiB, wait_max: 10s}` suits most.
//! Items that are in the log already are passed over; so sending a batch again is harmless.

use crate::archive::config::{Config, Error};
use crate::archive::record::Kind;
use crate::archive::seal;
use crate::archive::segment::Line;
use crate::archive::writer::{self, Writer};
use crate::clock;
use crate::record::kind;
use crate::sinks::{CheckError, Delivered, Item, Outgoing, SendError, Sink};

const REMEDY: &str = "see the archive's settings; nothing is lost meanwhile, the spool keeps it";

/// Appends to an archive.
pub struct Archive {
    config: Config,
    /// Opened with the first batch.
    writer: Option<Writer>,
}

impl Archive {
    /// A sink of this configuration; nothing is opened yet.
    pub fn new(config: Config) -> Archive {
        Archive { config, writer: None }
    }

    async fn writer(&mut self) -> Result<&mut Writer, SendError> {
        if self.writer.is_none() {
            let mut writer = self.config.open(clock::now_us()).await.map_err(|error| {
                let text = chain(&error);
                match &error {
                    Error::Writer(error) if error.is_retryable() => SendError::retry(text),
                    Error::Preflight(crate::archive::preflight::Error::Store(
                        crate::archive::store::Error::Unavailable { .. },
                    )) => SendError::retry(text),
                    _ => SendError::block(text, REMEDY),
                }
            })?;
            writer.mark("start", clock::now_us()).await.map_err(|error| failed(&error))?;
            self.writer = Some(writer);
        }
        self.writer.as_mut().ok_or_else(|| SendError::retry("the archive is not open"))
    }
}

fn failed(error: &writer::Error) -> SendError {
    let text = chain(error);
    if error.is_retryable() { SendError::retry(text) } else { SendError::block(text, REMEDY) }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
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
    }
}

impl Sink for Archive {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let items: Vec<_> = batch.iter().filter_map(archived).collect();
        let through = batch.last().map_or(0, |item| item.seq);
        let writer = self.writer().await?;
        let appended = writer.append(&items, through, clock::now_us()).await;
        let appended = appended.map_err(|error| failed(&error))?;
        tracing::debug!(
            records = appended.records,
            items = appended.items,
            repeated = appended.repeated,
            size = writer.size(),
            "archived"
        );
        Ok(Delivered::default())
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        self.config.check().await.map_err(|error| {
            let remedy = "see the archive's settings, and `kubewitness archive check`";
            CheckError::new(chain(&error), remedy)
        })
    }
}
