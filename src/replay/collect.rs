//! Collects the workers' outcomes in the order of the input.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::event::reject::RejectReason;
use crate::replay::Error;
use crate::replay::sorter::{Sorted, Sorter};
use crate::replay::worker::{NO_TIME, Outcome};
use crate::report::summary::Summary;

/// Outcomes that may wait for an earlier one, for each thread; a thread further ahead waits.
const WAITING_MAX: usize = 8;

/// The collector, shared by all workers.
pub struct Collector {
    state: Mutex<State>,
    moved: Condvar,
    waiting_max: u64,
    events: AtomicU64,
    has_failed: AtomicBool,
}

struct State {
    next: u64,
    waiting: BTreeMap<u64, Outcome>,
    /// Outcomes whose buffers can be used again.
    spare: Vec<Outcome>,
    sorter: Sorter,
    /// The newest time seen in each file, for events that lost theirs.
    last_time_us: Vec<i64>,
    rejects: Vec<(RejectReason, String)>,
    reject_counts: BTreeMap<RejectReason, u64>,
    salvaged: u64,
    failure: Option<std::io::Error>,
}

/// Outcomes that are kept for their buffers, and how large these may be.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Positions of rejects kept for each reason; the summary shows the first few.
const POSITIONS_MAX: u64 = 8;

impl Collector {
    /// A collector for so many files and threads.
    pub fn new(files: usize, threads: usize) -> Collector {
        Collector {
            state: Mutex::new(State {
                next: 0,
                waiting: BTreeMap::new(),
                spare: Vec::new(),
                sorter: Sorter::default(),
                last_time_us: vec![NO_TIME; files],
                rejects: Vec::new(),
                reject_counts: BTreeMap::new(),
                salvaged: 0,
                failure: None,
            }),
            moved: Condvar::new(),
            waiting_max: (threads.max(1) * WAITING_MAX) as u64,
            events: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Events collected so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Whether the sorter failed, so that reading on is of no use.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An outcome whose buffers can be used again.
    pub fn spare(&self) -> Outcome {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Takes an outcome; blocks while its worker is too far ahead of the others.
    pub fn take(&self, outcome: Outcome) {
        let mut state = self.lock();
        while outcome.sequence > state.next + self.waiting_max && !self.has_failed() {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.insert(outcome.sequence, outcome);
        loop {
            let next = state.next;
            let Some(outcome) = state.waiting.remove(&next) else { break };
            state.next += 1;
            self.events.fetch_add(outcome.entries.len() as u64, Ordering::Relaxed);
            if let Err(error) = state.add(outcome) {
                state.failure = Some(error);
                self.has_failed.store(true, Ordering::Relaxed);
            }
        }
        drop(state);
        self.moved.notify_all();
    }

    /// Everything is read: what was counted goes to the summary, the events come back in order of
    /// time.
    ///
    /// # Errors
    /// The temporary directory failed.
    pub fn finish(self, summary: &mut Summary) -> Result<Sorted, Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failure {
            return Err(Error::Spill(error));
        }
        summary.events_salvaged = state.salvaged;
        for (reason, position) in &state.rejects {
            summary.reject(reason.name(), position);
        }
        for (reason, count) in state.reject_counts {
            summary.reject_more(reason.name(), count);
        }
        state.sorter.finish().map_err(Error::Spill)
    }
}

impl State {
    fn add(&mut self, mut outcome: Outcome) -> std::io::Result<()> {
        self.count(&mut outcome);
        self.sorter.add(&outcome)?;
        if self.spare.len() < SPARE_MAX && outcome.bytes() <= SPARE_BYTES_MAX {
            self.spare.push(outcome);
        }
        Ok(())
    }

    /// Counts what could not be used, fills in missing times.
    fn count(&mut self, outcome: &mut Outcome) {
        self.salvaged += outcome.salvaged;
        for (reason, position) in outcome.rejects.drain(..) {
            let known = self.rejects.iter().filter(|(kept, _)| *kept == reason).count() as u64;
            if known < POSITIONS_MAX {
                self.rejects.push((reason, position));
            } else {
                *self.reject_counts.entry(reason).or_default() += 1;
            }
        }
        for reason in outcome.more_rejects.drain(..) {
            *self.reject_counts.entry(reason).or_default() += 1;
        }
        let last = &mut self.last_time_us[outcome.file];
        if *last == NO_TIME
            && let Some(first) = outcome.entries.iter().find(|entry| entry.time_us != NO_TIME)
        {
            // Nothing stands before the cut event: the first time behind it is the nearest there
            // is.
            *last = first.time_us;
        }
        for entry in &mut outcome.entries {
            if entry.time_us == NO_TIME {
                entry.time_us = if *last == NO_TIME { 0 } else { *last };
            }
            *last = entry.time_us;
        }
    }
}
