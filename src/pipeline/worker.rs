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
use crate::replay::worker::{decode_records, position};
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

/// What a worker made of a part of a batch.
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
            redacted: &mut self.redacted,
            letters: Letters::new(batch, judgement.seal.as_ref()),
            judged: Judged::default(),
            last_us: None,
        };
        let records = batch.chunk.records_of(part.clone());
        judging.judged.bytes.reserve(batch.chunk.bytes_of(&part) / 8 * 9);
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
        let time_us = own_us.or(self.last_us).unwrap_or_else(|| self.time_before_part());
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
        bytes: Vec<[Vec<u8>; 2]>,
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
            let Judged { bytes, entries, letters, counts } =
                worker.take(batch, part.clone(), &engine);
            for entry in entries {
                let at = |range: &Range<usize>| bytes[range.clone()].to_vec();
                whole.bytes.push([at(&entry.event), at(&entry.sighting)]);
                whole.entries.push(Entry { event: 0..0, sighting: 0..0, ..entry });
            }
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
