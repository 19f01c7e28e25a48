//! Events in order of time to alerts: duplicates dropped, stages folded, correlations fed.
//!
//! The order leaves nothing to share out, but there are three stages, one behind the other: to
//! choose the events, to raise alerts, to take them. With more than one thread each stage is one.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustc_hash::FxHashSet;

use crate::alert::Alert;
use crate::alert::raise::Raiser;
use crate::alert::sighting::Sighting;
use crate::alert::time::EventTime;
use crate::replay::heads::{HeadPlace, HeadReader, HeadStore, altered};
use crate::replay::sorter::Sorted;
use crate::replay::{Bound, Error, Options};
use crate::report::summary::Summary;

/// Bytes of sightings that are handed on together, and how many such batches may wait.
const BATCH_BYTES: usize = 64 << 10;
const BATCHES_WAITING: usize = 4;

/// Takes every alert.
type Raise<'r> = &'r mut dyn FnMut(Alert) -> std::io::Result<()>;

/// Drops duplicates and raises alerts.
///
/// # Errors
/// The temporary directory or `raise` failed.
pub fn analyse(
    mut sorted: Sorted,
    options: &Options,
    raiser: &mut Raiser<HeadPlace>,
    summary: &mut Summary,
    raise: Raise<'_>,
) -> Result<(), Error> {
    let store = sorted.take_heads();
    let mut chosen = Chosen::new(sorted, options, summary);
    let mut raising = Raising::new(raiser, &store);
    if options.threads < 2 {
        return on_one_thread(&mut chosen, &mut raising, raise);
    }
    std::thread::scope(|scope| {
        let (to_raising, batches) = sync_channel(BATCHES_WAITING);
        let (to_taking, alerts) = sync_channel(BATCHES_WAITING);
        let choosing = scope.spawn(move || hand_on(&mut chosen, &to_raising));
        let raising = scope.spawn(move || raise_all(&mut raising, &batches, &to_taking));
        // A stage that fails lets go of its channels, which ends the others.
        let taken = take_all(&alerts, raise);
        drop(alerts);
        let stages = [raising.join(), choosing.join()];
        for stage in stages {
            stage.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        taken
    })
}

fn on_one_thread(
    chosen: &mut Chosen<'_>,
    raising: &mut Raising<'_>,
    raise: Raise<'_>,
) -> Result<(), Error> {
    let mut alerts = Vec::new();
    loop {
        match chosen.next()? {
            Some(event) => raising.observe(&event, &mut alerts)?,
            None => {
                raising.finish(&mut alerts)?;
                return alerts.drain(..).try_for_each(raise).map_err(Error::Write);
            }
        }
        alerts.drain(..).try_for_each(&mut *raise).map_err(Error::Write)?;
    }
}

/// Sightings on their way to the second stage.
#[derive(Default)]
struct Batch {
    payload: Vec<u8>,
    /// Time, place of the head, end of the payload.
    events: Vec<(i64, HeadPlace, usize)>,
}

fn hand_on(chosen: &mut Chosen<'_>, to_raising: &SyncSender<Batch>) -> Result<(), Error> {
    let mut batch = Batch::default();
    while let Some(event) = chosen.next()? {
        batch.payload.extend_from_slice(event.payload);
        batch.events.push((event.time_us, event.head, batch.payload.len()));
        if batch.payload.len() >= BATCH_BYTES
            && to_raising.send(std::mem::take(&mut batch)).is_err()
        {
            return Ok(());
        }
    }
    // Whoever no longer takes it says why.
    let _ = to_raising.send(batch);
    Ok(())
}

fn raise_all(
    raising: &mut Raising<'_>,
    batches: &Receiver<Batch>,
    to_taking: &SyncSender<Vec<Alert>>,
) -> Result<(), Error> {
    while let Ok(Batch { payload, events }) = batches.recv() {
        let mut alerts = Vec::new();
        let mut start = 0;
        for (time_us, head, end) in events {
            let event = Event { time_us, head, payload: &payload[start..end] };
            raising.observe(&event, &mut alerts)?;
            start = end;
        }
        if to_taking.send(alerts).is_err() {
            return Ok(());
        }
    }
    let mut alerts = Vec::new();
    raising.finish(&mut alerts)?;
    let _ = to_taking.send(alerts);
    Ok(())
}

fn take_all(alerts: &Receiver<Vec<Alert>>, raise: Raise<'_>) -> Result<(), Error> {
    while let Ok(alerts) = alerts.recv() {
        alerts.into_iter().try_for_each(&mut *raise).map_err(Error::Write)?;
    }
    Ok(())
}

/// An event with matches that is to be looked at.
struct Event<'e> {
    time_us: i64,
    head: HeadPlace,
    payload: &'e [u8],
}

/// The first stage: every event is counted, and those left out that are copies, out of bounds, or
/// matched nothing.
struct Chosen<'c> {
    sorted: Sorted,
    since: Option<i64>,
    until: Option<i64>,
    summary: &'c mut Summary,
    /// Fingerprints of the events of one time.
    same_time: FxHashSet<u64>,
    time_us: Option<i64>,
}

impl<'c> Chosen<'c> {
    fn new(sorted: Sorted, options: &Options, summary: &'c mut Summary) -> Chosen<'c> {
        let newest_us = sorted.newest_us();
        let at = |bound: Option<Bound>| match bound? {
            Bound::At(time) => Some(time),
            Bound::BeforeNewest(span) => Some(newest_us.saturating_sub(span)),
        };
        Chosen {
            sorted,
            since: at(options.since),
            until: at(options.until),
            summary,
            same_time: FxHashSet::default(),
            time_us: None,
        }
    }

    fn next(&mut self) -> Result<Option<Event<'_>>, Error> {
        loop {
            if !self.sorted.advance().map_err(Error::Spill)? {
                return Ok(None);
            }
            let entry = self.sorted.entry();
            let (time_us, summary) = (entry.time_us, &mut *self.summary);
            if self.time_us != Some(time_us) {
                self.same_time.clear();
                self.time_us = Some(time_us);
            }
            if !self.same_time.insert(entry.fingerprint) {
                summary.events_duplicate += 1;
                continue;
            }
            summary.events += 1;
            summary.first_event_at.get_or_insert(EventTime(time_us));
            summary.last_event_at = Some(EventTime(time_us));
            let is_wanted = self.since.is_none_or(|since| time_us >= since)
                && self.until.is_none_or(|until| time_us < until);
            if is_wanted && !entry.payload.is_empty() {
                break;
            }
        }
        let entry = self.sorted.entry();
        Ok(Some(Event { time_us: entry.time_us, head: entry.head, payload: entry.payload }))
    }
}

/// The second stage.
struct Raising<'r> {
    raiser: &'r mut Raiser<HeadPlace>,
    heads: HeadReader<'r>,
    sighting: Sighting,
}

impl<'r> Raising<'r> {
    fn new(raiser: &'r mut Raiser<HeadPlace>, store: &'r HeadStore) -> Raising<'r> {
        Raising { raiser, heads: HeadReader::new(store), sighting: Sighting::default() }
    }

    fn observe(&mut self, event: &Event<'_>, alerts: &mut Vec<Alert>) -> Result<(), Error> {
        let unpacked = self.sighting.unpack_matches(event.payload, event.time_us);
        unpacked.ok_or_else(|| Error::Spill(altered()))?;
        self.heads.set_place(event.head);
        let raise = &mut |alert| alerts.push(alert);
        self.raiser.observe_with(&self.sighting, &mut self.heads, raise);
        self.heads.check().map_err(Error::Spill)
    }

    fn finish(&mut self, alerts: &mut Vec<Alert>) -> Result<(), Error> {
        self.raiser.finish_with(&mut self.heads, &mut |alert| alerts.push(alert));
        self.heads.check().map_err(Error::Spill)
    }
}
