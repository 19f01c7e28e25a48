//! Bytes to judged events: a batch is decoded, matched, redacted and framed for the spool, on one
//! of a few threads. Nothing here depends on what came before.

use std::ops::Range;
use std::sync::Arc;

use crate::alert::Reason;
use crate::alert::raise::Telling;
use crate::alert::sighting::{Sighting, pack_audit_id, pack_matches};
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch};
use crate::event::Event;
use crate::event::decode::{self, Decoded, EnvelopeContext};
use crate::event::identity::duplicate_key;
use crate::event::redact::{self, Redactor};
use crate::event::reject::{PartialReason, Reject, RejectReason};
use crate::ingest::batch::Batch;
use crate::ingest::chunk::Record;
use crate::pipeline::heads::StoredHead;
use crate::pipeline::letter::{Letters, Seal};
use crate::pipeline::reuse;
use crate::record::{self, StoredEvent, kind};
use crate::replay::worker::{decode_records, position};
use crate::rule::Level;
use crate::spool::{DeadLetter, Frames};

/// Events are seldom shorter; room for them is taken by this.
const EVENT_BYTES_LIKELY: usize = 1 << 10;

/// What all workers are told.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The cluster of events whose batch names none.
    pub cluster: Option<Arc<str>>,
    /// Replaces secrets before anything is durable.
    pub redactor: Redactor,
    /// Secret of this spool, for finding duplicates.
    pub duplicate_key: [u8; 16],
    /// What input that cannot be parsed is sealed to.
    pub seal: Option<Seal>,
    /// The largest event that is stored whole; of a larger one the bodies go.
    pub event_bytes_max: usize,
}

/// What a worker made of a part of a batch.
#[derive(Debug, Default)]
pub struct Judged {
    /// Records of the events, each with its match behind it where the detector's state depends on
    /// that.
    pub frames: Frames,
    /// Records of what alerts of single events there are, should theirs be the first stage of its
    /// request that matched.
    pub alerts: Frames,
    /// Packed matches that are not stored.
    pub loose: Vec<u8>,
    /// The events in their order.
    pub entries: Vec<Entry>,
    /// What could not be used.
    pub letters: Vec<DeadLetter>,
    /// What is to be counted once it is durable.
    pub counts: Counts,
}

/// Where an event lies in what was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Equal for copies of one event.
    pub duplicate_key: [u8; 16],
    /// Event time, microseconds since the epoch.
    pub time_us: i64,
    /// A hash of its audit id, where it completes a request.
    pub audit_id: Option<u64>,
    /// The payload of its EVENT record.
    pub event: Range<usize>,
    /// What matched it.
    pub matches: Matches,
    /// Those of its matches that raise an alert by themselves.
    pub alerts: Box<[ToldAlert]>,
}

/// An alert that is told, and not raised yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldAlert {
    /// The place of its match among those of the event.
    pub found: usize,
    /// How much it matters.
    pub level: Level,
    /// The payload of its ALERT record, in [`Judged::alerts`].
    pub payload: Range<usize>,
}

/// Where the packed matches of an event lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matches {
    /// There are none.
    None,
    /// In the payload of a MATCH record.
    Stored(Range<usize>),
    /// In [`Judged::loose`].
    Loose(Range<usize>),
}

impl Judged {
    /// The packed matches of an event; empty when nothing matched.
    pub fn matches(&self, entry: &Entry) -> &[u8] {
        match &entry.matches {
            Matches::None => &[],
            Matches::Stored(place) => &self.frames.payload(place)[record::MATCH_HEADER_BYTES..],
            Matches::Loose(place) => &self.loose[place.clone()],
        }
    }
}

/// What happened to the events of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rejects by the position of their reason in [`RejectReason::ALL`].
    pub rejects: [u64; RejectReason::ALL.len()],
    /// Events that were cut.
    pub salvaged: u64,
    /// Values that redaction replaced.
    pub redactions: u64,
    /// Events that were stored without their bodies because they are larger than
    /// [`Judgement::event_bytes_max`].
    pub oversized: u64,
    /// Bytes of input.
    pub bytes: u64,
}

/// A worker's own state, reused from batch to batch.
pub struct Worker {
    judgement: Arc<Judgement>,
    engine: Arc<Engine>,
    scratch: Scratch,
    decoder: decode::Scratch,
    redacting: redact::Scratch,
    redacted: Vec<u8>,
    packed: Vec<u8>,
    sighting: Sighting,
}

impl Worker {
    /// A worker that begins with these rules.
    pub fn new(judgement: Arc<Judgement>, engine: Arc<Engine>) -> Worker {
        let scratch = engine.scratch();
        Worker {
            judgement,
            engine,
            scratch,
            decoder: decode::Scratch::default(),
            redacting: redact::Scratch::default(),
            redacted: Vec::new(),
            packed: Vec::new(),
            sighting: Sighting::default(),
        }
    }

    /// Judges a batch and forgets it; what was learnt of the rules stays.
    pub fn rehearse(&mut self, batch: &Batch) {
        let engine = Arc::clone(&self.engine);
        self.take(batch, 0..usize::MAX, &engine);
    }

    /// Judges a part of a batch ([`Chunk::parts`]) by these rules; with the first comes what is of
    /// the batch as a whole.
    ///
    /// [`Chunk::parts`]: crate::ingest::chunk::Chunk::parts
    pub fn take(&mut self, batch: &Batch, part: Range<usize>, engine: &Arc<Engine>) -> Judged {
        if !Arc::ptr_eq(&self.engine, engine) {
            self.engine = Arc::clone(engine);
            self.scratch = engine.scratch();
        }
        let judgement = Arc::clone(&self.judgement);
        let mut judging = Judging {
            judgement: &judgement,
            engine,
            batch,
            start: part.start,
            scratch: &mut self.scratch,
            redacting: &mut self.redacting,
            redacted: &mut self.redacted,
            packed: &mut self.packed,
            sighting: &mut self.sighting,
            letters: Letters::new(batch, judgement.seal.as_ref()),
            judged: Judged::default(),
            last_us: None,
        };
        let records = batch.chunk.records_of(part.clone());
        let bytes = batch.chunk.bytes_of(&part);
        judging.judged.frames = Frames::with_capacity(bytes / 8 * 11);
        judging.judged.entries.reserve(bytes / EVENT_BYTES_LIKELY);
        if part.start == 0 {
            judging.judged.counts.bytes = batch.chunk.len() as u64;
            for reject in &batch.chunk.rejects {
                judging.judged.counts.reject(reject.reject.reason);
                let position = format!("{}:{}", batch.label, reject.line);
                judging.letters.push(&reject.reject, position, b"");
            }
        }
        decode_records(records, &mut self.decoder, &mut |record, decoded| {
            judging.take(record, decoded);
        });
        let Judging { letters, mut judged, .. } = judging;
        judged.letters = letters.finish();
        judged
    }
}

struct Judging<'j> {
    judgement: &'j Judgement,
    engine: &'j Engine,
    batch: &'j Batch,
    /// The first record of the part.
    start: usize,
    scratch: &'j mut Scratch,
    redacting: &'j mut redact::Scratch,
    redacted: &'j mut Vec<u8>,
    packed: &'j mut Vec<u8>,
    sighting: &'j mut Sighting,
    letters: Letters<'j>,
    judged: Judged,
    /// Time of the event before, for one that lost its own.
    last_us: Option<i64>,
}

impl Judging<'_> {
    fn take(&mut self, record: &Record<'_>, decoded: &Decoded<'_>) {
        match decoded {
            Decoded::Event { event, ordinal, context } => {
                self.event(record, event, *ordinal, context);
            }
            Decoded::Reject(reject) => self.reject(record, reject),
            Decoded::Control => {}
        }
    }

    fn reject(&mut self, record: &Record<'_>, reject: &Reject) {
        self.judged.counts.reject(reject.reason);
        let start = usize::try_from(reject.offset).unwrap_or(usize::MAX);
        let bytes = record.bytes.get(start..).unwrap_or_default();
        let end = usize::try_from(reject.length).unwrap_or(usize::MAX).min(bytes.len());
        let position = position(&self.batch.label, record, 0);
        self.letters.push(reject, position, &bytes[..end]);
    }

    fn event(
        &mut self,
        record: &Record<'_>,
        event: &Event<'_>,
        ordinal: u32,
        context: &EnvelopeContext<'_>,
    ) {
        let (judgement, batch) = (self.judgement, self.batch);
        let own_us = event.time_us().or(context.time_us);
        let time_us = own_us.or(self.last_us).unwrap_or_else(|| self.time_before_part());
        self.last_us = Some(time_us);
        let position = position(&batch.label, record, ordinal);
        let configured = batch.cluster.as_deref().or(judgement.cluster.as_deref());
        let cluster = configured.or(context.cluster).unwrap_or_default();
        let key = &judgement.duplicate_key;
        let duplicate_key = duplicate_key(event.raw(), cluster, own_us, &position, key);
        let audit_id = reuse::id_of(event, cluster, key);

        self.engine.evaluate(Subject::Audit(event), self.scratch);
        let matched = self.scratch.take_matched();
        self.redacted.clear();
        let redaction = judgement.redactor.redact(event, self.redacting, self.redacted);
        let mut flags = if redaction.count > 0 { record::REDACTED } else { 0 };
        if context.partial.is_some() || event.is_partial() {
            flags |= record::PARTIAL;
            self.judged.counts.salvaged += 1;
        }
        if self.redacted.len() > judgement.event_bytes_max {
            shorten(self.redacted, judgement.event_bytes_max);
            flags |= record::PARTIAL;
            self.judged.counts.oversized += 1;
            let (offset, length) = (record.offset, event.raw().len() as u64);
            let reason = RejectReason::LineTooLong;
            let detail = "stored without its bodies";
            let reject = Reject { reason, offset, length, detail };
            self.letters.push(&reject, position.clone(), b"");
        }
        self.judged.counts.redactions += u64::from(redaction.count);

        let stored = StoredEvent {
            flags,
            time_us,
            received_us: batch.received_us,
            duplicate_key,
            cluster,
            source: &batch.source,
            position: &position,
            raw: self.redacted,
        };
        let frames = &mut self.judged.frames;
        let stored = frames.push(kind::EVENT, |bytes| stored.encode(bytes));
        let mut entry = Entry {
            duplicate_key,
            time_us,
            audit_id,
            event: stored,
            matches: Matches::None,
            alerts: Box::default(),
        };
        if !matched.is_empty() {
            self.matches(event, &matched, cluster, flags == 0, &mut entry);
        }
        self.scratch.give_back(matched);
        self.judged.entries.push(entry);
    }

    /// Packs what matched an event, behind its record where the detector's state depends on it, and
    /// tells the alerts of single matches. `is_whole` says that the event is stored as it came.
    fn matches(
        &mut self,
        event: &Event<'_>,
        matched: &[u32],
        cluster: &str,
        is_whole: bool,
        entry: &mut Entry,
    ) {
        let Judging { engine, scratch, packed, .. } = self;
        let mut reasons = Vec::new();
        packed.clear();
        let told = Some(&mut reasons);
        let is_kept = pack_matches(engine, event, matched, cluster, scratch, told, packed);
        if !reasons.is_empty() {
            entry.alerts = self.alerts(reasons, entry);
        }
        let (judged, packed) = (&mut self.judged, &mut *self.packed);
        if !is_kept {
            let start = judged.loose.len();
            judged.loose.extend_from_slice(packed);
            entry.matches = Matches::Loose(start..judged.loose.len());
            return;
        }
        if is_whole {
            pack_audit_id(event, packed);
        } else if let Some(copy) = Event::salvage(self.redacted) {
            // What is shown of an event that is not stored as it came is read in the copy.
            pack_audit_id(&copy, packed);
        }
        let write = |bytes: &mut Vec<u8>| record::encode_match(entry.time_us, packed, bytes);
        entry.matches = Matches::Stored(judged.frames.push(kind::MATCH, write));
    }

    /// The alerts of the matches that have these reasons.
    fn alerts(&mut self, reasons: Vec<(usize, Vec<Reason>)>, entry: &Entry) -> Box<[ToldAlert]> {
        let Judging { engine, sighting, judged, .. } = self;
        let unpacked = sighting.unpack_matches(self.packed, entry.time_us);
        unpacked.expect("it was packed just now");
        let mut head = StoredHead::of(judged.frames.payload(&entry.event), "");
        let mut telling = Telling::new(engine);
        let told = reasons.into_iter().map(|(found, reasons)| {
            sighting.matches[found].reasons = reasons;
            let alert = telling.alert(sighting, &mut head, found);
            let payload = judged.alerts.push(kind::ALERT, |bytes| alert.encode(bytes));
            ToldAlert { found, level: alert.rule.level, payload }
        });
        told.collect()
    }

    /// The time of the last event before this part that has one. It is asked for once a part at
    /// most: only its first event can have none before it.
    fn time_before_part(&self) -> i64 {
        let mut time_us = self.batch.received_us;
        let before = self.batch.chunk.records_of(0..self.start);
        decode_records(before, &mut decode::Scratch::default(), &mut |_, decoded| {
            if let Decoded::Event { event, context, .. } = decoded {
                time_us = event.time_us().or(context.time_us).unwrap_or(time_us);
            }
        });
        time_us
    }
}

/// Puts `null` in place of an event's bodies; cuts what is still too long.
fn shorten(raw: &mut Vec<u8>, bytes_max: usize) {
    let bodies = Event::salvage(raw).map(|event| event.bodies()).unwrap_or_default();
    for (start, end) in bodies.into_iter().rev() {
        raw.splice(start..end, *b"null");
    }
    raw.truncate(bytes_max);
}

impl Counts {
    /// Adds what happened to other events.
    pub fn add(&mut self, other: &Counts) {
        let Counts { rejects, salvaged, redactions, oversized, bytes } = other;
        let both = self.rejects.iter_mut().zip(rejects);
        both.for_each(|(sum, count)| *sum += count);
        self.salvaged += salvaged;
        self.redactions += redactions;
        self.oversized += oversized;
        self.bytes += bytes;
    }

    fn reject(&mut self, reason: RejectReason) {
        self.rejects[reason as usize] += 1;
    }

    /// The name of the reason for which an event is not all there.
    pub fn salvage_reason() -> &'static str {
        PartialReason::Truncated.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::redact::Mode;
    use crate::ingest::webhook::cutter::Cutter;
    use crate::pipeline::tests::{RULES, engine, line};

    /// The batch of a webhook's body.
    fn batch(body: &str) -> Batch {
        let mut cutter = Cutter::new(1 << 20);
        assert!(cutter.push(&mut body.as_bytes()).is_none());
        let chunk = cutter.finish().expect("a chunk");
        Batch { received_us: 7, ..Batch::new("webhook", "webhook", chunk).0 }
    }

    /// All that the parts of a batch come to, and how many they are.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Whole {
        entries: Vec<Entry>,
        /// Of each entry, what it points to.
        bytes: Vec<[Vec<u8>; 3]>,
        letters: String,
        counts: Counts,
    }

    fn judged(batch: &Batch, most: usize) -> (usize, Whole) {
        let judgement = Judgement {
            cluster: None,
            redactor: Redactor::new(Mode::Secrets, None),
            duplicate_key: [1; 16],
            seal: None,
            event_bytes_max: 1 << 20,
        };
        let engine = engine(RULES);
        let mut worker = Worker::new(Arc::new(judgement), Arc::clone(&engine));
        let mut whole = Whole::default();
        let parts = batch.chunk.parts(most);
        for part in &parts {
            let judged = worker.take(batch, part.clone(), &engine);
            for entry in &judged.entries {
                let event = judged.frames.payload(&entry.event).to_vec();
                let alerts = entry.alerts.iter().map(|told| judged.alerts.payload(&told.payload));
                let alerts: Vec<&[u8]> = alerts.collect();
                whole.bytes.push([event, judged.matches(entry).to_vec(), alerts.concat()]);
                let (event, matches, alerts) = (0..0, Matches::None, Box::default());
                whole.entries.push(Entry { event, matches, alerts, ..entry.clone() });
            }
            let Judged { letters, counts, .. } = judged;
            letters.iter().for_each(|letter| whole.letters += &format!("{letter:?}\n"));
            whole.counts.add(&counts);
        }
        (parts.len(), whole)
    }

    #[test]
    fn parts_of_a_batch_come_to_the_whole() {
        let timeless = r#"{"auditID":"a","verb":"get","stage":"ResponseComplete"}"#.to_owned();
        let list = |items: Vec<String>| format!("{{\"items\":[{}]}}", items.join(",\n"));
        let read = |second| line(second, "eve", "get", "secrets", "prod");
        for (body, parts) in [
            (list((0..300).map(read).collect()), [1, 2, 3, 4, 4]),
            (list((0..127).map(read).collect()), [1; 5]),
            (list(vec![timeless.clone(); 300]), [1, 2, 3, 4, 4]),
            (
                list((0..300).map(|n| if n == 70 { read(n) } else { timeless.clone() }).collect()),
                [1, 2, 3, 4, 4],
            ),
            (
                list((0..300).map(|n| if n % 3 > 0 { "7".into() } else { read(n) }).collect()),
                [1, 2, 3, 4, 4],
            ),
            ((0..300).map(read).collect::<Vec<_>>().join("\n"), [1; 5]),
        ] {
            let batch = batch(&body);
            let (_, whole) = judged(&batch, 1);
            assert!(!whole.entries.is_empty());
            for (most, parts) in (1..).zip(parts) {
                assert_eq!(judged(&batch, most), (parts, whole.clone()));
            }
        }
    }
}
