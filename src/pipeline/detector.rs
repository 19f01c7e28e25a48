//! All that is remembered from event to event, and is the same after a crash: windows, baselines,
//! open requests, keys of stored events, positions of sources, the newest time.
//!
//! Its state is a function of the records in the spool and their order. Live it is told before they
//! are written, recovery tells it again; rules never run twice.
//!
//! ```text
//! snapshot: u8 version │ postcard of `Stored`
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::alert::raise::state::{RaiserState, relocate};
use crate::alert::raise::{Raised, Raiser};
use crate::alert::sighting::{Sighting, unpack_audit_id};
use crate::engine::Engine;
use crate::engine::correlate::Limits;
use crate::engine::table::{Mapping, RuleTable};
use crate::ingest::batch::Checkpoint;
use crate::pipeline::duplicates::{Bounds, Duplicates};
use crate::pipeline::heads::StoredHead;
use crate::pipeline::reuse::AuditIds;

/// The version of snapshots that this release writes.
const VERSION: u8 = 5;

/// Bounds of what is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Of windows and baselines.
    pub limits: Limits,
    /// Of the keys of stored events.
    pub bounds: Bounds,
}

/// The state of the left half of the pipeline.
pub struct Detector {
    engine: Arc<Engine>,
    table: RuleTable,
    memory: Memory,
    raiser: Raiser,
    duplicates: Duplicates,
    audit_ids: AuditIds,
    /// By source and key.
    checkpoints: BTreeMap<(String, String), Vec<u8>>,
    /// Event time up to which everything is decided, and when its event arrived.
    newest_us: i64,
    received_us: i64,
    /// Spelled out last; kept for its buffers.
    sighting: Sighting,
    /// Length of the last snapshot.
    snapshot_bytes: usize,
    evicted: (u64, u64),
}

/// What the key of an event takes in a snapshot.
pub const KEY_BYTES: usize = 10;

/// A state as a snapshot holds it; with borrowed tables when it is written.
#[derive(Serialize, Deserialize)]
struct Stored<R, D, A> {
    duplicate_key: [u8; 16],
    table: RuleTable,
    raiser: R,
    duplicates: D,
    audit_ids: A,
    checkpoints: Vec<(String, String, Vec<u8>)>,
    newest_us: i64,
    received_us: i64,
}

/// A snapshot that cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It was written by another release.
    #[error("snapshot has version {found}, this release reads {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Its bytes say nothing.
    #[error("snapshot cannot be read")]
    Bytes(#[source] postcard::Error),
}

impl Detector {
    /// Nothing seen yet.
    pub fn new(engine: Arc<Engine>, memory: Memory) -> Detector {
        Detector {
            table: RuleTable::of(&engine),
            raiser: Raiser::new(Arc::clone(&engine), memory.limits),
            engine,
            memory,
            duplicates: Duplicates::default(),
            audit_ids: AuditIds::default(),
            checkpoints: BTreeMap::new(),
            newest_us: i64::MIN,
            received_us: i64::MIN,
            sighting: Sighting::default(),
            snapshot_bytes: 0,
            evicted: (0, 0),
        }
    }

    /// The state as bytes, with the key that duplicates are found by.
    pub fn snapshot(&mut self, duplicate_key: [u8; 16]) -> Vec<u8> {
        let checkpoints = self.checkpoints.iter();
        let stored = Stored {
            duplicate_key,
            table: self.table.clone(),
            raiser: self.raiser.view(),
            duplicates: &self.duplicates,
            audit_ids: &self.audit_ids,
            checkpoints: checkpoints
                .map(|((source, key), value)| (source.clone(), key.clone(), value.clone()))
                .collect(),
            newest_us: self.newest_us,
            received_us: self.received_us,
        };
        // Growing by doubling would take twice as much.
        let least = self.duplicates.len() * KEY_BYTES + (64 << 10);
        let mut bytes = Vec::with_capacity(least.max(self.snapshot_bytes / 8 * 9));
        bytes.push(VERSION);
        let bytes = postcard::to_extend(&stored, bytes).expect("numbers and texts can be written");
        self.snapshot_bytes = bytes.len();
        bytes
    }

    /// Takes up a snapshot, also one made under other rules. Returns the table of those rules and
    /// the key that duplicates are found by.
    ///
    /// # Errors
    /// [`Unusable`]; the state is as it was.
    pub fn take_up(&mut self, snapshot: Vec<u8>) -> Result<(RuleTable, [u8; 16]), Unusable> {
        let (version, bytes) = snapshot.split_first().unwrap_or((&0, &[]));
        if *version != VERSION {
            return Err(Unusable::Version { found: *version });
        }
        let stored: Stored<RaiserState, Duplicates, AuditIds> =
            postcard::from_bytes(bytes).map_err(Unusable::Bytes)?;
        drop(snapshot);
        self.raiser.take_up(stored.raiser, &stored.table.mapping(&self.table));
        self.duplicates = stored.duplicates;
        self.audit_ids = stored.audit_ids;
        for (source, key, value) in stored.checkpoints {
            self.checkpoints.insert((source, key), value);
        }
        self.newest_us = stored.newest_us;
        self.received_us = stored.received_us;
        Ok((stored.table, stored.duplicate_key))
    }

    /// The rules that judge.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Their table.
    pub fn table(&self) -> &RuleTable {
        &self.table
    }

    /// Lets other rules judge from here on; correlations that did not change keep their state.
    /// Returns how many start empty although they were known.
    pub fn set_rules(&mut self, engine: Arc<Engine>) -> u64 {
        let table = RuleTable::of(&engine);
        let mapping = self.table.mapping(&table);
        (self.engine, self.table) = (engine, table);
        self.renew(&mapping);
        self.evicted = (0, 0);
        mapping.changed
    }

    /// Forgets what belongs to correlations that `table` does not know as they are now: they were
    /// not there, or others, for a time.
    pub fn forget_unknown_to(&mut self, table: &RuleTable) {
        let there = self.table.mapping(table);
        let own = |places: &[Option<u32>]| {
            let own = (0..).zip(places);
            own.map(|(index, place)| place.is_some().then_some(index)).collect()
        };
        let mapping = Mapping {
            detections: own(&there.detections),
            correlations: own(&there.correlations),
            changed: 0,
        };
        self.renew(&mapping);
    }

    /// Begins anew under the rules as they are now, with what `mapping` keeps.
    fn renew(&mut self, mapping: &Mapping) {
        let raiser = Raiser::new(Arc::clone(&self.engine), self.memory.limits);
        let before = std::mem::replace(&mut self.raiser, raiser);
        self.raiser.take_over(before, mapping);
    }

    /// Whether a copy of the event is stored.
    pub fn is_duplicate(&self, duplicate_key: &[u8; 16]) -> bool {
        self.duplicates.contains(duplicate_key)
    }

    /// Takes an event that is stored; what it decides by its time alone is raised.
    pub fn event(
        &mut self,
        duplicate_key: &[u8; 16],
        time_us: i64,
        received_us: i64,
        raise: &mut dyn FnMut(Alert),
    ) {
        self.duplicates.insert(duplicate_key, received_us, &self.memory.bounds);
        self.received_us = self.received_us.max(received_us);
        // A time that is ahead of the clock must not decide what is still to come.
        let latest_us = received_us.saturating_add(self.memory.limits.lateness_us);
        self.raiser.correlator().set_latest(latest_us);
        self.move_on(time_us.min(latest_us), raise);
    }

    /// Counts the request that the event completes, by a hash of its audit id; true when it is the
    /// one that makes them too many.
    pub fn audit_id(&mut self, id: u64) -> bool {
        self.audit_ids.count(id)
    }

    /// Takes the packed matches of the event before, whose record's payload is `event`; `None` when
    /// the bytes are none. `mapping` is for those that were packed under other rules, which
    /// recovery meets.
    pub fn matches(
        &mut self,
        bytes: &[u8],
        time_us: i64,
        event: &[u8],
        mapping: Option<&Mapping>,
        raise: &mut dyn FnMut(Raised),
    ) -> Option<()> {
        let rest = self.sighting.unpack_matches(bytes, time_us)?;
        if let Some(mapping) = mapping {
            relocate(&mut self.sighting, mapping);
        }
        // Only what feeds a correlation is asked for it, and has it.
        let audit_id = unpack_audit_id(rest).unwrap_or_default();
        self.raiser.observe_with(&self.sighting, &mut StoredHead::of(event, audit_id), raise);
        Some(())
    }

    /// The detections that matched the event taken last.
    pub fn matched(&self) -> impl Iterator<Item = u32> {
        self.sighting.matches.iter().map(|found| found.detection)
    }

    /// Lets time pass up to `time_us`.
    pub fn advance(&mut self, time_us: i64, raise: &mut dyn FnMut(Alert)) {
        self.raiser.correlator().set_latest(i64::MAX);
        self.move_on(time_us, raise);
    }

    fn move_on(&mut self, time_us: i64, raise: &mut dyn FnMut(Alert)) {
        if time_us > self.newest_us {
            self.newest_us = time_us;
            self.raiser.advance(time_us, raise);
        }
    }

    /// The event time now, by the time that has gone by since the newest event arrived, where that
    /// decides something.
    pub fn due_us(&mut self, now_us: i64) -> Option<i64> {
        let due_us = self.raiser.correlator().due_us()?;
        let passed_us = now_us.saturating_sub(self.received_us).max(0);
        let time_us = self.newest_us.saturating_add(passed_us);
        (due_us <= time_us).then_some(time_us)
    }

    /// Takes a position of a source that is stored.
    pub fn checkpoint(&mut self, source: &str, key: &str, value: &[u8]) {
        let name = (source.to_owned(), key.to_owned());
        if value.is_empty() {
            self.checkpoints.remove(&name);
        } else {
            self.checkpoints.insert(name, value.to_vec());
        }
    }

    /// The positions of all sources.
    pub fn checkpoints(&self) -> BTreeMap<String, Vec<Checkpoint>> {
        let mut by_source: BTreeMap<String, Vec<Checkpoint>> = BTreeMap::new();
        for ((source, key), value) in &self.checkpoints {
            let checkpoint = Checkpoint { key: key.clone(), value: value.clone() };
            by_source.entry(source.clone()).or_default().push(checkpoint);
        }
        by_source
    }

    /// What had to be forgotten since the last call: of correlations, of requests, of duplicates.
    pub fn take_evictions(&mut self) -> [(&'static str, u64); 3] {
        let (correlations, requests) = self.raiser.evictions();
        let before = std::mem::replace(&mut self.evicted, (correlations, requests));
        [
            ("correlation_state", correlations - before.0),
            ("open_requests", requests - before.1),
            ("duplicates", self.duplicates.take_forgotten()),
        ]
    }
}
