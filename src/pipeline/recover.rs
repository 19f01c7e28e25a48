//! The detector's state after a crash: the last snapshot, then what the spool holds behind it.
//! Rules do not run again, and nothing is raised: what was raised is in the spool.

use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::table::{Mapping, RuleTable};
use crate::event::Event;
use crate::pipeline::detector::{Detector, Memory};
use crate::pipeline::notice::{Kind, Notice};
use crate::pipeline::reuse;
use crate::pipeline::{Clock, Failure, STATE};
use crate::record::{self, StoredCheckpoint, StoredEvent, kind};
use crate::spool::{self, Limits, Record, Recovery, Snapshot, Spool};

/// What was found.
pub struct Recovered {
    /// The state as of the last durable record.
    pub detector: Detector,
    /// Secret that duplicates are found by.
    pub duplicate_key: [u8; 16],
    /// Whether the rules are others than those that judged last, so that this has to be recorded.
    pub is_changed: bool,
    /// Correlations that start empty because they changed.
    pub restarted: u64,
    /// What is wrong with the spool.
    pub notices: Vec<Notice>,
}

struct Recovering {
    detector: Detector,
    /// The rules under which the records at hand were written.
    table: RuleTable,
    /// Where those stand now.
    mapping: Mapping,
    duplicate_key: [u8; 16],
    /// The payload of the event read last, and the number of the record behind it: its MATCH.
    event: (u64, Vec<u8>),
    restarted: u64,
    missing: u64,
    unreadable: u64,
}

/// Reads the state, and stores it, so that the next recovery begins here; on a new spool, before
/// the first record.
///
/// # Errors
/// The spool cannot be read or written.
pub async fn recover(
    spool: &Spool,
    recovery: &Recovery,
    engine: Arc<Engine>,
    memory: Memory,
    clock: &Clock,
) -> Result<Recovered, Failure> {
    let now_us = clock.now_us();
    let mut notices: Vec<Notice> =
        recovery.damages.iter().map(|damage| Notice::of_damage(damage, now_us)).collect();
    let mut detector = Detector::new(engine, memory);
    let snapshot = spool.read_snapshot(STATE).await.map_err(Failure::Spool)?;
    let (mut seq, mut taken) = (spool.stats().seq_oldest, None);
    if let Some(Snapshot { seq: held, bytes }) = snapshot {
        match detector.take_up(bytes) {
            Ok(found) => (seq, taken) = (held + 1, Some(found)),
            Err(error) => notices.push(lost(&error.to_string(), now_us)),
        }
    } else if spool.stats().seq_durable > 0 {
        notices.push(lost("there is no snapshot of it", now_us));
    }
    let own = detector.table().clone();
    let is_anew = taken.is_none();
    let (table, duplicate_key) = taken.unwrap_or_else(|| (own.clone(), new_key()));
    let mut recovering = Recovering::new(detector, table, duplicate_key);
    recovering.read(spool, seq).await.map_err(Failure::Spool)?;
    let Recovering { mut detector, table, restarted, missing, unreadable, .. } = recovering;
    if missing + unreadable > 0 {
        let text = format!("{missing} records behind the snapshot are lost, {unreadable} unknown");
        notices.push(lost(&text, now_us));
    }
    let snapshot =
        Snapshot { seq: spool.stats().seq_durable, bytes: detector.snapshot(duplicate_key) };
    match spool.write_snapshot(STATE, snapshot).await {
        Err(error) if is_anew => return Err(Failure::Spool(error)),
        // A disk without room is no reason not to deliver what is there.
        Err(error) => tracing::error!(%error, "snapshot not written; the old one stands"),
        Ok(()) => {}
    }
    let is_changed = table != own || is_anew;
    Ok(Recovered { detector, duplicate_key, is_changed, restarted, notices })
}

/// Stores the state as of the last durable record, read from the spool, in both generations: so
/// nothing before it is held back any more. Does nothing where other rules than the engine's judge
/// by now, or when it is stored already.
///
/// # Errors
/// The spool cannot be read or written.
pub async fn store_durable(
    spool: &Spool,
    engine: Arc<Engine>,
    memory: Memory,
) -> Result<(), spool::Error> {
    let seq = spool.stats().seq_durable;
    let Some(Snapshot { seq: held, bytes }) = spool.read_snapshot(STATE).await? else {
        return Ok(());
    };
    let mut detector = Detector::new(engine, memory);
    let Ok((table, duplicate_key)) = detector.take_up(bytes) else { return Ok(()) };
    if table != *detector.table() || spool.seq_held(STATE) >= Some(seq) {
        return Ok(());
    }
    let mut recovering = Recovering::new(detector, table, duplicate_key);
    let seq = recovering.read(spool, held + 1).await?;
    if recovering.table != *recovering.detector.table() {
        return Ok(());
    }
    let bytes = recovering.detector.snapshot(duplicate_key);
    spool.write_snapshot(STATE, Snapshot { seq, bytes: bytes.clone() }).await?;
    spool.write_snapshot(STATE, Snapshot { seq, bytes }).await
}

impl Recovering {
    /// Goes on from a state that was stored under the rules of `table`.
    fn new(detector: Detector, table: RuleTable, duplicate_key: [u8; 16]) -> Recovering {
        let mapping = table.mapping(detector.table());
        Recovering {
            restarted: mapping.changed,
            mapping,
            table,
            detector,
            duplicate_key,
            event: (0, Vec::new()),
            missing: 0,
            unreadable: 0,
        }
    }

    /// Reads what is durable from a record on; returns the last one that was.
    async fn read(&mut self, spool: &Spool, seq: u64) -> Result<u64, spool::Error> {
        let kinds = vec![kind::EVENT, kind::MATCH, kind::CHECKPOINT, kind::RULES, kind::TIME];
        let limits = Limits { kinds: Some(kinds), ..Limits::default() };
        let (mut reader, mut last) = (spool.reader(seq), seq - 1);
        while let Some(records) = reader.try_read(&limits).await? {
            self.missing += records.missing;
            last = records.seq_last;
            for record in records.iter() {
                if self.take(&record).is_none() {
                    self.unreadable += 1;
                }
            }
        }
        Ok(last)
    }

    /// Tells the detector what it was told when the record was written.
    fn take(&mut self, record: &Record<'_>) -> Option<()> {
        let quiet = &mut |_| {};
        match record.kind {
            kind::EVENT => {
                let event = StoredEvent::decode(record.payload)?;
                let StoredEvent { duplicate_key, time_us, received_us, cluster, raw, .. } = event;
                self.detector.event(&duplicate_key, time_us, received_us, quiet);
                let audit_id = Event::salvage(raw)
                    .and_then(|event| reuse::id_of(&event, cluster, &self.duplicate_key));
                if let Some(id) = audit_id {
                    self.detector.audit_id(id);
                }
                self.event.0 = record.seq + 1;
                self.event.1.clear();
                self.event.1.extend_from_slice(record.payload);
            }
            kind::MATCH => {
                let (time_us, bytes) = record::decode_match(record.payload)?;
                // Where its event was damaged, what it counts for is left.
                let event = if self.event.0 == record.seq { &*self.event.1 } else { b"" };
                let is_foreign = self.table != *self.detector.table();
                let mapping = is_foreign.then_some(&self.mapping);
                self.detector.matches(bytes, time_us, event, mapping, &mut |_| {})?;
            }
            kind::CHECKPOINT => {
                let StoredCheckpoint { source, key, value } =
                    StoredCheckpoint::decode(record.payload)?;
                self.detector.checkpoint(source, key, value);
            }
            kind::TIME => self.detector.advance(record::decode_time(record.payload)?, quiet),
            kind::RULES => {
                self.table = record::decode_rules(record.payload)?;
                self.mapping = self.table.mapping(self.detector.table());
                self.restarted = self.mapping.changed;
                if self.table != *self.detector.table() {
                    let table = self.table.clone();
                    self.detector.forget_unknown_to(&table);
                }
            }
            _ => {}
        }
        Some(())
    }
}

fn lost(why: &str, at_us: i64) -> Notice {
    Notice {
        kind: Kind::StateLost,
        time: crate::alert::time::EventTime(at_us),
        source: "spool".to_owned(),
        subject: STATE.to_owned(),
        text: format!("windows, baselines and keys of stored events are not complete: {why}"),
        lost_bytes: None,
    }
}

/// A key that nobody can guess.
fn new_key() -> [u8; 16] {
    use crypto_box::aead::{OsRng, rand_core::RngCore};
    let mut key = [0; 16];
    OsRng.fill_bytes(&mut key);
    key
}
