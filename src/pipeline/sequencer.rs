//! The ordered part: batches in the order in which they came, one at a time, to atomic appends.
//!
//! A batch is refused before the state moves, or not at all: once an event has been told to the
//! detector its append waits in the writer until there is room, and nothing overtakes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::alert::Alert;
use crate::alert::raise::Raised;
use crate::engine::Engine;
use crate::ingest::batch::{Batch, Receipt, Refused};
use crate::pipeline::assembly::{Assembly, Caused, RaisedAlert};
use crate::pipeline::detector::Detector;
use crate::pipeline::letter;
use crate::pipeline::notice::{Kind, Notice};
use crate::pipeline::reuse;
use crate::pipeline::settle::{Answer, Settlement, Snapshots};
use crate::pipeline::tally::Tally;
use crate::pipeline::worker::{Entry, Judged};
use crate::pipeline::{Clock, Failure};
use crate::record::{self, StoredCheckpoint, StoredEvent, kind};
use crate::spool::{self, Appender};

/// How often the state is stored.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPolicy {
    /// At the latest after so much was appended.
    pub bytes: u64,
    /// At the latest after this time, where something was appended; microseconds.
    pub interval_us: i64,
}

/// After this time without a batch, time passes by the clock; microseconds.
const IDLE_US: i64 = 5_000_000;

/// The sequencer's state.
pub struct Sequencer {
    /// All that is remembered.
    pub detector: Detector,
    /// Never refuses for want of room.
    pub appender: Appender,
    /// To the task that answers; bounded by what the intake lets in.
    pub settlements: mpsc::UnboundedSender<Settlement>,
    /// Largest append.
    pub batch_bytes_max: u64,
    /// When to store the state.
    pub policy: SnapshotPolicy,
    /// Whether it is being stored.
    pub snapshots: Arc<Snapshots>,
    /// Secret that duplicates are found by; part of a snapshot.
    pub duplicate_key: [u8; 16],
    /// Whether a sink gets what is no event.
    pub keeps_rejects: bool,
    /// The cluster of notices whose batch names none.
    pub cluster: String,
    /// The time of day.
    pub clock: Clock,
    /// When the loop last turned, for whoever asks whether it lives.
    pub turned_us: Arc<AtomicI64>,
    /// Appended since the last snapshot, and when that was.
    pub unstored_bytes: u64,
    /// When the last snapshot was begun.
    pub stored_us: i64,
    /// When the last batch came.
    pub batch_us: i64,
}

/// Where an event stands in a batch.
struct Place {
    /// Its number among all of them.
    event: usize,
    /// Its part's number.
    part: usize,
    /// When the batch arrived.
    received_us: i64,
}

/// What the sequencer is handed, in order.
pub enum Step {
    /// A batch and what the workers made of its parts.
    Batch(Box<Batch>, Vec<Judged>),
    /// Other rules judge what follows.
    Rules(Arc<Engine>),
    /// Something is wrong with the audit trail.
    Notice(Notice),
    /// Time has passed.
    Tick,
    /// The state is stored now.
    Store,
}

impl Sequencer {
    /// Takes one step. A batch waits for the writer while too much is on its way to it; nothing
    /// waits for room in the spool, or a full one could refuse nobody.
    ///
    /// # Errors
    /// The spool takes nothing any more.
    pub fn step(&mut self, step: Step, handle: &Handle) -> Result<(), Failure> {
        let now_us = self.clock.now_us();
        self.turned_us.store(now_us, Ordering::Release);
        let is_store = matches!(step, Step::Store);
        let (assembly, mut settlement) = match step {
            Step::Batch(batch, judged) => {
                self.batch_us = now_us;
                match self.refusal(&batch, handle) {
                    Some(refused) => {
                        refuse(*batch, refused);
                        return Ok(());
                    }
                    None => self.batch(*batch, judged),
                }
            }
            Step::Rules(engine) => self.rules(engine),
            Step::Notice(notice) => self.notice(&notice),
            Step::Tick => self.tick(now_us),
            Step::Store => (self.assembly(), Settlement::default()),
        };
        settlement.tally.evictions = self.detector.take_evictions();
        for batch in assembly.finish() {
            self.unstored_bytes += batch.bytes();
            let submitted = handle.block_on(self.appender.submit(batch));
            settlement.pending.push(submitted.map_err(Failure::Spool)?);
        }
        if is_store || self.is_snapshot_due(now_us) {
            settlement.snapshot = Some(self.snapshot(now_us));
        }
        if settlement.is_empty() {
            return Ok(());
        }
        self.settlements.send(settlement).map_err(|_| Failure::Spool(spool::Error::Closed))
    }

    /// Why a batch cannot be taken now; its source is told to stand still. Waits while the writer
    /// is merely behind.
    fn refusal(&self, batch: &Batch, handle: &Handle) -> Option<Refused> {
        if batch.stalled.as_ref().is_some_and(|stalled| stalled.is_set()) {
            return Some(Refused::Stalled);
        }
        if handle.block_on(self.appender.has_room()) {
            return None;
        }
        if let Some(stalled) = &batch.stalled {
            stalled.set(true);
        }
        Some(Refused::Full)
    }

    fn assembly(&self) -> Assembly {
        Assembly::new(self.batch_bytes_max)
    }

    /// Events that are new, what they cause, and the source's positions behind them.
    fn batch(&mut self, batch: Batch, mut judged: Vec<Judged>) -> (Assembly, Settlement) {
        let mut assembly = self.assembly();
        let mut receipt = Receipt::default();
        let mut tally = Tally { source: batch.source.to_string(), ..Tally::default() };
        let mut letters = Vec::new();
        for part in &mut judged {
            receipt.rejects += part.counts.rejects.iter().sum::<u64>();
            tally.counts.add(&part.counts);
            letters.append(&mut part.letters);
        }
        let mut caused = Caused::default();
        let mut event = 0;
        for (part, one) in judged.iter().enumerate() {
            for entry in &one.entries {
                if self.detector.is_duplicate(&entry.duplicate_key) {
                    caused.duplicates.push(event);
                } else {
                    receipt.events += 1;
                    let place = Place { event, part, received_us: batch.received_us };
                    self.event(one, entry, &place, &mut caused, &mut tally);
                }
                event += 1;
            }
        }
        receipt.duplicates = caused.duplicates.len() as u64;
        assembly.events(judged, caused);
        if self.keeps_rejects {
            for letter in &letters {
                assembly.push(kind::QUARANTINE, |bytes| letter::to_json(letter, bytes));
            }
        }
        let cluster = batch.cluster.as_deref().unwrap_or(&self.cluster);
        for notice in &batch.notices {
            let notice = Notice::of_source(&batch.source, notice);
            push_notice(&notice, cluster, &mut assembly, &mut tally);
        }
        for checkpoint in &batch.checkpoints {
            let (source, key, value) = (&*batch.source, &*checkpoint.key, &checkpoint.value[..]);
            self.detector.checkpoint(source, key, value);
            let stored = StoredCheckpoint { source, key, value };
            assembly.push(kind::CHECKPOINT, |bytes| stored.encode(bytes));
        }
        assembly.close_behind(None);
        (tally.events, tally.duplicates) = (receipt.events, receipt.duplicates);
        let answer = Some(Answer { done: batch.done, receipt, held: batch.held });
        let settlement = Settlement { letters, answer, tally, ..Settlement::default() };
        (assembly, settlement)
    }

    /// Tells the detector one new event, and collects what it causes.
    fn event(
        &mut self,
        part: &Judged,
        entry: &Entry,
        place: &Place,
        caused: &mut Caused,
        tally: &mut Tally,
    ) {
        let Entry { duplicate_key, time_us, audit_id, .. } = entry;
        let payload = part.frames.payload(&entry.event);
        let mut raise = |one: Raised| {
            let (level, part, payload) = match one {
                Raised::Match(found) => {
                    let told = entry.alerts.iter().find(|told| told.found == found);
                    let told = told.expect("a worker told each");
                    (told.level, Some(place.part), told.payload.clone())
                }
                Raised::Correlated(alert) => {
                    let payload = caused.own.push(kind::ALERT, |bytes| alert.encode(bytes));
                    (alert.rule.level, None, payload)
                }
            };
            tally.alerts[level as usize] += 1;
            caused.alerts.push(RaisedAlert { event: place.event, part, payload });
        };
        let passed = &mut |alert| raise(Raised::Correlated(Box::new(alert)));
        self.detector.event(duplicate_key, *time_us, place.received_us, passed);
        let matches = part.matches(entry);
        if !matches.is_empty() {
            let taken = self.detector.matches(matches, *time_us, payload, None, &mut raise);
            taken.expect("a worker packed it under the same rules");
            for detection in self.detector.matched() {
                let level = self.detector.engine().detection(detection).level;
                tally.matches[level as usize] += 1;
            }
        }
        if audit_id.is_some_and(|id| self.detector.audit_id(id)) {
            let stored = StoredEvent::decode(payload);
            let alert = stored.and_then(|stored| reuse::alert(&stored, self.detector.engine()));
            alert.into_iter().for_each(|alert| raise(Raised::Correlated(Box::new(alert))));
        }
    }

    fn rules(&mut self, engine: Arc<Engine>) -> (Assembly, Settlement) {
        let restarted = self.detector.set_rules(engine);
        metrics::counter!("kubewitness_pipeline_state_restarts_total").increment(restarted);
        let rules = self.detector.engine().rules().rules.len();
        metrics::gauge!("kubewitness_rules").set(rules as f64);
        tracing::info!(rules, restarted, "rules taken up");
        (self.rules_record(), Settlement::default())
    }

    /// The record that says which rules judge.
    pub fn rules_record(&self) -> Assembly {
        let mut assembly = self.assembly();
        let table = record::encode_rules(self.detector.table());
        assembly.push(kind::RULES, |bytes| bytes.extend_from_slice(&table));
        assembly.close_behind(None);
        assembly
    }

    fn notice(&mut self, notice: &Notice) -> (Assembly, Settlement) {
        let mut assembly = self.assembly();
        let mut settlement = Settlement::default();
        push_notice(notice, &self.cluster, &mut assembly, &mut settlement.tally);
        (assembly, settlement)
    }

    /// Where nothing has come for a while, time goes on by the clock: what must not have happened
    /// has not.
    fn tick(&mut self, now_us: i64) -> (Assembly, Settlement) {
        let mut assembly = self.assembly();
        let mut settlement = Settlement::default();
        let is_idle = now_us.saturating_sub(self.batch_us) >= IDLE_US;
        if is_idle
            && !self.appender.is_waiting_for_room()
            && let Some(time_us) = self.detector.due_us(now_us)
        {
            assembly.push(kind::TIME, |bytes| record::encode_time(time_us, bytes));
            self.detector.advance(time_us, &mut |alert| {
                push_alert(&alert, &mut assembly, &mut settlement.tally);
            });
            assembly.close_behind(None);
        }
        (assembly, settlement)
    }

    fn is_snapshot_due(&self, now_us: i64) -> bool {
        let age_us = now_us.saturating_sub(self.stored_us);
        let is_wanted = self.unstored_bytes >= self.policy.bytes
            || self.unstored_bytes > 0 && age_us >= self.policy.interval_us;
        is_wanted && !self.snapshots.is_writing.load(Ordering::Acquire)
    }

    fn snapshot(&mut self, now_us: i64) -> Vec<u8> {
        self.snapshots.is_writing.store(true, Ordering::Release);
        (self.unstored_bytes, self.stored_us) = (0, now_us);
        self.detector.snapshot(self.duplicate_key)
    }
}

/// Answers a batch of which nothing is stored.
pub fn refuse(batch: Batch, refused: Refused) {
    let reason = match refused {
        Refused::Full => "full",
        Refused::Stalled => "stalled",
        Refused::Closed => "closed",
    };
    let labels = [("source", batch.source.to_string()), ("reason", reason.to_owned())];
    metrics::counter!("kubewitness_pipeline_refused_total", &labels).increment(1);
    let _gone = batch.done.send(Err(refused));
}

fn push_notice(notice: &Notice, cluster: &str, assembly: &mut Assembly, tally: &mut Tally) {
    if notice.kind == Kind::Anchor {
        return assembly.push(kind::ANCHOR, |bytes| bytes.extend_from_slice(&notice.to_json()));
    }
    let Notice { kind, source, subject, text, .. } = notice;
    tracing::warn!(kind = kind.as_str(), %source, %subject, "{text}");
    tally.notices.push(kind.as_str());
    assembly.push(kind::NOTICE, |bytes| bytes.extend_from_slice(&notice.to_json()));
    push_alert(&notice.alert(cluster), assembly, tally);
}

fn push_alert(alert: &Alert, assembly: &mut Assembly, tally: &mut Tally) {
    tally.alerts[alert.rule.level as usize] += 1;
    let mut payload = Vec::new();
    alert.encode(&mut payload);
    assembly.alert(&payload);
}
