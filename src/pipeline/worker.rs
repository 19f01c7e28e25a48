//! Bytes to judged events: a batch is decoded, matched, redacted and packed, on one of a few
//! threads. Nothing here depends on what came before.

use std::ops::Range;
use std::sync::Arc;

use crate::alert::sighting;
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch};
use crate::event::Event;
use crate::event::decode::{self, Decoded, EnvelopeContext};
use crate::event::identity::duplicate_key;
use crate::event::redact::Redactor;
use crate::event::reject::{PartialReason, Reject, RejectReason};
use crate::ingest::batch::Batch;
use crate::ingest::chunk::Record;
use crate::pipeline::letter::{Letters, Seal};
use crate::pipeline::reuse;
use crate::record::{self, StoredEvent};
use crate::replay::worker::{decode_chunk, position};
use crate::spool::DeadLetter;

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

/// What a worker made of a batch.
#[derive(Debug, Default)]
pub struct Judged {
    /// Payloads of EVENT records and packed sightings, one behind the other.
    pub bytes: Vec<u8>,
    /// The events in their order.
    pub entries: Vec<Entry>,
    /// What could not be used.
    pub letters: Vec<DeadLetter>,
    /// What is to be counted once it is durable.
    pub counts: Counts,
}

/// Where an event lies in [`Judged::bytes`].
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
    /// Its packed sighting; empty when nothing matched.
    pub sighting: Range<usize>,
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
    redacted: Vec<u8>,
}

impl Worker {
    /// A worker that begins with these rules.
    pub fn new(judgement: Arc<Judgement>, engine: Arc<Engine>) -> Worker {
        let scratch = engine.scratch();
        let decoder = decode::Scratch::default();
        Worker { judgement, engine, scratch, decoder, redacted: Vec::new() }
    }

    /// Judges a batch by these rules.
    pub fn take(&mut self, batch: &Batch, engine: &Arc<Engine>) -> Judged {
        if !Arc::ptr_eq(&self.engine, engine) {
            self.engine = Arc::clone(engine);
            self.scratch = engine.scratch();
        }
        let judgement = Arc::clone(&self.judgement);
        let mut judging = Judging {
            judgement: &judgement,
            engine,
            batch,
            scratch: &mut self.scratch,
            redacted: &mut self.redacted,
            letters: Letters::new(batch, judgement.seal.as_ref()),
            judged: Judged::default(),
            last_us: None,
        };
        judging.judged.counts.bytes = batch.chunk.len() as u64;
        judging.judged.bytes.reserve(batch.chunk.len() + batch.chunk.len() / 8);
        for reject in &batch.chunk.rejects {
            judging.judged.counts.reject(reject.reject.reason);
            judging.letters.push(&reject.reject, format!("{}:{}", batch.label, reject.line), b"");
        }
        decode_chunk(&batch.chunk, &mut self.decoder, &mut |record, decoded| {
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
    scratch: &'j mut Scratch,
    redacted: &'j mut Vec<u8>,
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
        let time_us = own_us.or(self.last_us).unwrap_or(batch.received_us);
        self.last_us = Some(time_us);
        let position = position(&batch.label, record, ordinal);
        let configured = batch.cluster.as_deref().or(judgement.cluster.as_deref());
        let cluster = configured.or(context.cluster).unwrap_or_default();
        let key = &judgement.duplicate_key;
        let duplicate_key = duplicate_key(event.raw(), cluster, own_us, &position, key);
        let audit_id = reuse::id_of(event, cluster, key);

        let matched = self.engine.evaluate(Subject::Audit(event), self.scratch).to_vec();
        self.redacted.clear();
        let redaction = judgement.redactor.redact(event, self.redacted);
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

        let bytes = &mut self.judged.bytes;
        let event_start = bytes.len();
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
        stored.encode(bytes);
        let sighting_start = bytes.len();
        if !matched.is_empty() {
            // Redacted events are read again so that nothing of the original is packed.
            let copy = (flags != 0).then(|| Event::salvage(self.redacted)).flatten();
            let shown = match (&copy, flags) {
                (Some(copy), _) => copy,
                (None, 0) => event,
                (None, _) => &Event::parse(NOTHING).expect("an empty object is an event"),
            };
            let place = (cluster, position.as_str());
            sighting::pack(self.engine, (event, shown), &matched, place, self.scratch, bytes);
        }
        let (event, sighting) = (event_start..sighting_start, sighting_start..bytes.len());
        self.judged.entries.push(Entry { duplicate_key, time_us, audit_id, event, sighting });
    }
}

/// What is shown of an event whose redacted copy cannot be read.
const NOTHING: &[u8] = b"{}";

/// Puts `null` in place of an event's bodies; cuts what is still too long.
fn shorten(raw: &mut Vec<u8>, bytes_max: usize) {
    let bodies = Event::salvage(raw).map(|event| event.bodies()).unwrap_or_default();
    for (start, end) in bodies.into_iter().rev() {
        raw.splice(start..end, *b"null");
    }
    raw.truncate(bytes_max);
}

impl Counts {
    fn reject(&mut self, reason: RejectReason) {
        self.rejects[reason as usize] += 1;
    }

    /// The name of the reason for which an event is not all there.
    pub fn salvage_reason() -> &'static str {
        PartialReason::Truncated.name()
    }
}
