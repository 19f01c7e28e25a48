//! One worker of a replay: a chunk of records to what the rules make of its events.

use std::io::Write as _;
use std::sync::Arc;

use crate::alert::sighting;
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch};
use crate::event::Event;
use crate::event::decode::{self, Decoded, EnvelopeContext};
use crate::event::identity::fingerprint;
use crate::event::reject::{Reject, RejectReason};
use crate::ingest::chunk::{Chunk, Record};

/// What a worker made of a chunk.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The chunk's place in the input.
    pub sequence: u64,
    /// The chunk's file.
    pub file: usize,
    /// Its events in order.
    pub entries: Vec<Entry>,
    /// What matched, packed, one sighting behind the other.
    pub payload: Vec<u8>,
    /// The heads of the sightings, each behind its length (u32, little-endian).
    pub heads: Vec<u8>,
    /// What could not be used, with its position; the first few of each reason.
    pub rejects: Vec<(RejectReason, String)>,
    /// How many of each reason they are.
    kept: [u8; RejectReason::ALL.len()],
    /// Rejects beyond those.
    pub more_rejects: Vec<RejectReason>,
    /// Events that are not all there.
    pub salvaged: u64,
}

/// Positions of rejects of one reason that a chunk keeps; a summary shows fewer.
const REJECTS_MAX: u8 = 16;

/// An event as the sorter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Event time; [`NO_TIME`] until the collector fills it in.
    pub time_us: i64,
    /// Equal for copies of one event.
    pub fingerprint: u64,
    /// Where its sighting begins in the payload; equal to `payload_end` when nothing matched.
    pub payload_start: u32,
    /// Where it ends.
    pub payload_end: u32,
    /// Where its head begins in the heads.
    pub head_start: u32,
}

/// The time of an event that lost its time.
pub const NO_TIME: i64 = i64::MIN;

/// A worker's own state, reused from chunk to chunk.
pub struct Worker<'w> {
    engine: &'w Arc<Engine>,
    names: &'w [String],
    cluster: Option<&'w str>,
    seed: u64,
    scratch: Scratch,
    decoder: decode::Scratch,
}

impl<'w> Worker<'w> {
    /// A worker for files of these names.
    pub fn new(
        engine: &'w Arc<Engine>,
        names: &'w [String],
        cluster: Option<&'w str>,
        seed: u64,
    ) -> Worker<'w> {
        let scratch = engine.scratch();
        Worker { engine, names, cluster, seed, scratch, decoder: decode::Scratch::default() }
    }

    /// Decodes and matches a chunk; `spare` gives its buffers.
    pub fn take(&mut self, chunk: &Chunk, spare: Outcome) -> Outcome {
        let mut outcome = Outcome { sequence: chunk.sequence, file: chunk.file, ..spare };
        outcome.clear();
        let name = &self.names[chunk.file];
        for reject in &chunk.rejects {
            outcome.reject(&reject.reject, || format!("{name}:{}", reject.line));
        }
        let mut matching = Matching {
            engine: self.engine,
            cluster: self.cluster,
            seed: self.seed,
            scratch: &mut self.scratch,
            name,
            outcome: &mut outcome,
        };
        decode_records(chunk.records(), &mut self.decoder, &mut |record, decoded| {
            matching.take(record, decoded);
        });
        outcome
    }
}

struct Matching<'m> {
    engine: &'m Arc<Engine>,
    cluster: Option<&'m str>,
    seed: u64,
    scratch: &'m mut Scratch,
    name: &'m str,
    outcome: &'m mut Outcome,
}

impl Matching<'_> {
    fn take(&mut self, record: &Record<'_>, decoded: &Decoded<'_>) {
        match decoded {
            Decoded::Event { event, ordinal, context } => {
                self.event(record, event, *ordinal, context);
            }
            Decoded::Reject(reject) => {
                let name = self.name;
                self.outcome.reject(reject, || position(name, record, 0));
            }
            Decoded::Control => {}
        }
    }

    fn event(
        &mut self,
        record: &Record<'_>,
        event: &Event<'_>,
        ordinal: u32,
        context: &EnvelopeContext<'_>,
    ) {
        let time_us = event.time_us().or(context.time_us).unwrap_or(NO_TIME);
        self.outcome.salvaged += u64::from(context.partial.is_some() || event.is_partial());
        let payload_start = self.outcome.payload.len() as u32;
        let head_start = self.outcome.heads.len() as u32;
        self.engine.evaluate(Subject::Audit(event), self.scratch);
        let matched = self.scratch.take_matched();
        if !matched.is_empty() {
            let cluster = self.cluster.or(context.cluster).unwrap_or_default();
            let Outcome { payload, heads, .. } = &mut *self.outcome;
            let (engine, scratch) = (self.engine, &mut *self.scratch);
            sighting::pack_matches(engine, event, &matched, cluster, scratch, None, payload);
            let place = &mut |bytes: &mut Vec<u8>| put_position(self.name, record, ordinal, bytes);
            let head = &mut |bytes: &mut Vec<u8>| sighting::pack_head(event, cluster, place, bytes);
            sighting::put_with(heads, head);
        }
        self.scratch.give_back(matched);
        self.outcome.entries.push(Entry {
            time_us,
            fingerprint: fingerprint(event.raw(), self.seed),
            payload_start,
            payload_end: self.outcome.payload.len() as u32,
            head_start,
        });
    }
}

/// Hands over what the records of a chunk decode to, each with its record, in their order.
pub fn decode_records<'c>(
    records: impl Iterator<Item = Record<'c>>,
    decoder: &mut decode::Scratch,
    take: &mut dyn FnMut(&Record<'_>, &Decoded<'_>),
) {
    let mut last = None;
    for record in records {
        let mut emit = |decoded: Decoded<'_>| take(&record, &decoded);
        match record.header {
            None => decode::decode(record.bytes, decoder, &mut emit),
            Some(header) => decode::decode_element(header, record.bytes, decoder, &mut emit),
        }
        last = Some(record);
    }
    // A chunk of lines never ends inside one that is joined, so what is left open now was cut.
    if let Some(record) = last {
        decode::finish(decoder, &mut |decoded| take(&record, &decoded));
    }
}

/// `file:line`, with the item where a line or document holds several events.
pub fn position(name: &str, record: &Record<'_>, ordinal: u32) -> String {
    let mut bytes = Vec::with_capacity(name.len() + 12);
    put_position(name, record, ordinal, &mut bytes);
    String::from_utf8(bytes).expect("a name and digits are text")
}

fn put_position(name: &str, record: &Record<'_>, ordinal: u32, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(name.as_bytes());
    // Writing to memory cannot fail.
    let _ = match (record.item, ordinal) {
        (Some(item), 0) => write!(bytes, ":{}#{item}", record.line),
        (Some(item), ordinal) => write!(bytes, ":{}#{item}.{ordinal}", record.line),
        (None, 0) => write!(bytes, ":{}", record.line),
        (None, ordinal) => write!(bytes, ":{}#{ordinal}", record.line),
    };
}

impl Outcome {
    /// What its buffers take.
    pub fn bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<Entry>();
        entries + self.payload.capacity() + self.heads.capacity()
    }

    /// Empties it; the buffers stay.
    fn clear(&mut self) {
        self.entries.clear();
        self.payload.clear();
        self.heads.clear();
        self.rejects.clear();
        self.more_rejects.clear();
        self.kept = Default::default();
        self.salvaged = 0;
    }

    fn reject(&mut self, reject: &Reject, position: impl FnOnce() -> String) {
        let kept = &mut self.kept[reject.reason as usize];
        if *kept < REJECTS_MAX {
            *kept += 1;
            self.rejects.push((reject.reason, position()));
        } else {
            self.more_rejects.push(reject.reason);
        }
    }
}
