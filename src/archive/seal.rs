//! From a batch of the spool to what is committed: segments by kind and cluster, their records, and
//! the signed commits. Pure: the same batch, head and time give the same bytes.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use serde::Deserialize;

use crate::archive::kms;
use crate::archive::layout::{commit_key, segment_key};
use crate::archive::note::{text_of_bytes, text_of_hash};
use crate::archive::proof::Proof;
use crate::archive::record::{Kind, Record, Segment, VERSION};
use crate::archive::segment::{Builder, Line, Sealed};
use crate::archive::signatory::Signatory;
use crate::archive::state::{Intent, Last};
use crate::archive::tree::{Frontier, leaf_hash};
use crate::event::time::{format_us, parse_us};
use crate::record::{StoredEvent, kind};

/// Bytes of lines after which a segment is closed, so that one upload and one proof stay small.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;
const DAY_US: i64 = 86_400_000_000;

/// A record of the spool that the archive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'r> {
    /// Events, alerts or notices.
    pub kind: Kind,
    /// The cluster; empty where the record does not say.
    pub cluster: &'r str,
    /// The line and its margin.
    pub line: Line<'r>,
}

/// The time in an alert or notice.
#[derive(Deserialize)]
struct Timed<'r> {
    #[serde(borrow)]
    time: Option<&'r str>,
    #[serde(borrow)]
    cluster: Option<&'r str>,
}

impl<'r> Item<'r> {
    /// Reads a record of the spool; `None` for kinds that are not archived (matches, positions) and
    /// for events that cannot be read.
    pub fn of_spool(spool_kind: u8, seq: u64, payload: &'r [u8]) -> Option<Item<'r>> {
        let kind = match spool_kind {
            kind::EVENT => Kind::Events,
            kind::ALERT => Kind::Alerts,
            kind::NOTICE => Kind::Notices,
            kind::QUARANTINE => Kind::Quarantine,
            _ => return None,
        };
        if kind == Kind::Events {
            let event = StoredEvent::decode(payload)?;
            let line = Line {
                raw: event.raw,
                seq,
                time_us: event.time_us,
                received_us: event.received_us,
                flags: event.flags,
                source: event.source,
                position: event.position,
            };
            return Some(Item { kind, cluster: event.cluster, line });
        }
        let timed = serde_json::from_slice::<Timed<'_>>(payload);
        let timed = timed.unwrap_or(Timed { time: None, cluster: None });
        let time_us = timed.time.and_then(|time| parse_us(time.as_bytes())).unwrap_or(0);
        let (source, position) = ("", "");
        let line = Line { raw: payload, seq, time_us, received_us: 0, flags: 0, source, position };
        Some(Item { kind, cluster: timed.cluster.unwrap_or(""), line })
    }
}

/// What a record will be made of.
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) segment: Option<(String, Sealed)>,
    pub(crate) says: BTreeMap<String, String>,
}

impl Draft {
    /// A record without an object.
    pub(crate) fn says(kind: Kind, says: &[(&str, &str)]) -> Draft {
        let says = says.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Draft { kind, segment: None, says: says.collect() }
    }
}

/// Cuts items into segments, one for every kind and cluster, more where they would be too large.
/// Lets other tasks run between items that take long to compress.
pub(crate) async fn segments(items: &[Item<'_>]) -> io::Result<Vec<Draft>> {
    let mut open: BTreeMap<(Kind, &str), Builder> = BTreeMap::new();
    let mut drafts = Vec::new();
    let mut pause = 0;
    for item in items {
        let place = (item.kind, item.cluster);
        let builder = open.entry(place).or_default();
        builder.push(&item.line)?;
        pause += item.line.raw.len();
        if builder.raw_size() >= SEGMENT_BYTES_MAX {
            let builder = std::mem::take(builder);
            drafts.extend(draft(place, builder)?);
        }
        if pause > 1 << 20 {
            pause = 0;
            tokio::task::yield_now().await;
        }
    }
    for (place, builder) in open {
        drafts.extend(draft(place, builder)?);
    }
    Ok(drafts)
}

fn draft((kind, cluster): (Kind, &str), builder: Builder) -> io::Result<Option<Draft>> {
    let sealed = builder.seal()?;
    Ok(sealed.map(|sealed| Draft {
        kind,
        segment: Some((cluster.to_owned(), sealed)),
        says: BTreeMap::new(),
    }))
}

/// What every record of one append shares.
pub(crate) struct Seal<'s> {
    pub(crate) signer: &'s Signatory,
    /// Signs too: the key that the record names.
    pub(crate) next: Option<&'s Signatory>,
    pub(crate) spool: &'s str,
    pub(crate) after: u64,
    pub(crate) through: u64,
    pub(crate) last: Last,
    pub(crate) now_us: i64,
    pub(crate) retention_days: Option<u32>,
}

impl Seal<'_> {
    /// Makes records and commits behind a head. `None` when a record would be too large.
    ///
    /// # Errors
    /// A key service does not sign.
    pub(crate) async fn intent(
        &self,
        head: &Frontier,
        drafts: Vec<Draft>,
    ) -> Result<Option<Intent>, kms::Error> {
        let mut head = head.clone();
        let (mut objects, mut commits) = (Vec::new(), Vec::new());
        for draft in drafts {
            let seq = head.size();
            let (segment, object) = draft.segment.map_or((None, None), |(cluster, sealed)| {
                let (segment, object) = self.segment(draft.kind, seq, cluster, sealed);
                (Some(segment), Some(object))
            });
            objects.extend(object);
            let record = Record {
                v: VERSION,
                seq,
                kind: draft.kind,
                sealed_at: format_us(self.now_us),
                spool: self.spool.to_owned(),
                after: self.after,
                through: self.through,
                segment,
                says: draft.says,
            };
            let Some(extra) = record.encode() else { return Ok(None) };
            let path = head.path_of_next();
            head.push(leaf_hash(&extra));
            let mut note = self.signer.sign_checkpoint(head.size(), head.root()).await?;
            if let Some(next) = self.next {
                note.push_str(&next.signature_line(&note).await?);
            }
            let commit = Proof { extra, index: seq, path, note }.encode();
            commits.push((commit_key(seq), Bytes::from(commit)));
        }
        objects.extend(commits);
        Ok(Some(Intent { objects, last: self.last }))
    }

    fn segment(
        &self,
        kind: Kind,
        seq: u64,
        cluster: String,
        sealed: Sealed,
    ) -> (Segment, (String, Bytes)) {
        let key = segment_key(kind, seq, self.now_us, &sealed.sha256);
        let retain_until = self.retention_days.map(|days| {
            format_us(self.now_us.saturating_add(i64::from(days).saturating_mul(DAY_US)))
        });
        let segment = Segment {
            object: key.clone(),
            sha256: text_of_bytes(&sealed.sha256),
            size: sealed.bytes.len() as u64,
            raw_size: sealed.raw_size,
            count: sealed.count,
            event_root: text_of_hash(&sealed.event_root),
            first: sealed.seqs.0,
            last: sealed.seqs.1,
            t_min: format_us(sealed.times.0),
            t_max: format_us(sealed.times.1),
            cluster,
            rewritten: sealed.rewritten,
            retain_until,
        };
        (segment, (key, sealed.bytes.into()))
    }
}
