//! Events in order of time to alerts: duplicates dropped, stages folded, correlations fed.
//!
//! The order leaves nothing to share out, but there are three stages, one behind the other: to
//! choose the events, to raise alerts, to tell and take them. With more than one thread each stage
//! is one.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustc_hash::FxHashSet;

use crate::alert::Alert;
use crate::alert::raise::{Raised, Raiser, Telling};
use crate::alert::sighting::Sighting;
use crate::alert::time::EventTime;
use crate::engine::Engine;
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
    let engine = Arc::clone(raiser.engine());
    let mut chosen = Chosen::new(sorted, options, summary);
    let mut raising = Raising::new(raiser, &store);
    let mut taking = Taking { engine: &engine, raise };
    if options.threads < 2 {
        return on_one_thread(&mut chosen, &mut raising, &mut taking);
    }
    std::thread::scope(|scope| {
        let (to_raising, batches) = sync_channel(BATCHES_WAITING);
        let (to_taking, raised) = sync_channel(BATCHES_WAITING);
        let choosing = scope.spawn(move || hand_on(&mut chosen, &to_raising));
        let raising = scope.spawn(move || raise_all(&mut raising, batches, &to_taking));
        // A stage that fails lets go of its channels, which ends the others.
        let taken = take_all(&mut taking, &mut Place::new(&store), &raised);
        drop(raised);
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
    taking: &mut Taking<'_>,
) -> Result<(), Error> {
    while let Some(event) = chosen.next()? {
        let outcome = raising.observe(&event)?;
        taking.take(&mut raising.place, outcome)?;
    }
    let outcome = raising.finish()?;
    taking.take(&mut raising.place, outcome)
}

/// Sightings on their way to the other stages.
#[derive(Default)]
struct Batch {
    payload: Vec<u8>,
    /// Time, place of the head, where the payload lies.
    events: Vec<(i64, HeadPlace, Range<usize>)>,
}

impl Batch {
    fn event(&self, index: usize) -> Event<'_> {
        let (time_us, head, payload) = &self.events[index];
        Event { time_us: *time_us, head: *head, payload: &self.payload[payload.clone()] }
    }
}

/// What an event came to.
#[derive(Default)]
struct Outcome {
    /// Those of its matches that are alerts by themselves, to be told.
    matches: Vec<usize>,
    /// Alerts behind them.
    alerts: Vec<Alert>,
}

impl Outcome {
    fn is_empty(&self) -> bool {
        self.matches.is_empty() && self.alerts.is_empty()
    }
}

/// What the second stage hands on: of events, by their index, what they came to, if to anything.
type Step = (Batch, Vec<(usize, Outcome)>);

fn hand_on(chosen: &mut Chosen<'_>, to_raising: &SyncSender<Batch>) -> Result<(), Error> {
    let mut batch = Batch::default();
    while let Some(event) = chosen.next()? {
        let start = batch.payload.len();
        batch.payload.extend_from_slice(event.payload);
        batch.events.push((event.time_us, event.head, start..batch.payload.len()));
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
    batches: Receiver<Batch>,
    to_taking: &SyncSender<Step>,
) -> Result<(), Error> {
    for batch in batches {
        let mut outcomes = Vec::new();
        for index in 0..batch.events.len() {
            let outcome = raising.observe(&batch.event(index))?;
            if !outcome.is_empty() {
                outcomes.push((index, outcome));
            }
        }
        if to_taking.send((batch, outcomes)).is_err() {
            return Ok(());
        }
    }
    let _ = to_taking.send((Batch::default(), vec![(0, raising.finish()?)]));
    Ok(())
}

fn take_all(
    taking: &mut Taking<'_>,
    place: &mut Place<'_>,
    raised: &Receiver<Step>,
) -> Result<(), Error> {
    for (batch, outcomes) in raised {
        for (event, outcome) in outcomes {
            if !outcome.matches.is_empty() {
                place.set(&batch.event(event))?;
            }
            taking.take(place, outcome)?;
        }
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

/// A sighting and its head, read from where they are.
struct Place<'s> {
    heads: HeadReader<'s>,
    sighting: Sighting,
}

impl<'s> Place<'s> {
    fn new(store: &'s HeadStore) -> Place<'s> {
        Place { heads: HeadReader::new(store), sighting: Sighting::default() }
    }

    fn set(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let unpacked = self.sighting.unpack_matches(event.payload, event.time_us);
        unpacked.ok_or_else(|| Error::Spill(altered()))?;
        self.heads.set_place(event.head);
        Ok(())
    }
}

/// The second stage.
struct Raising<'r> {
    raiser: &'r mut Raiser<HeadPlace>,
    place: Place<'r>,
}

impl<'r> Raising<'r> {
    fn new(raiser: &'r mut Raiser<HeadPlace>, store: &'r HeadStore) -> Raising<'r> {
        Raising { raiser, place: Place::new(store) }
    }

    /// What an event comes to; its matches are left to the third stage.
    fn observe(&mut self, event: &Event<'_>) -> Result<Outcome, Error> {
        let Raising { raiser, place } = self;
        place.set(event)?;
        let Place { heads, sighting } = place;
        let mut outcome = Outcome::default();
        raiser.observe_with(sighting, heads, &mut |raised| match raised {
            Raised::Match(place) => outcome.matches.push(place),
            Raised::Correlated(alert) => outcome.alerts.push(*alert),
        });
        heads.check().map_err(Error::Spill)?;
        Ok(outcome)
    }

    fn finish(&mut self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let heads = &mut self.place.heads;
        self.raiser.finish_with(heads, &mut |alert| outcome.alerts.push(alert));
        heads.check().map_err(Error::Spill)?;
        Ok(outcome)
    }
}

/// The third stage.
struct Taking<'t> {
    engine: &'t Engine,
    raise: Raise<'t>,
}

impl Taking<'_> {
    /// Takes what the sighting at a place came to.
    fn take(&mut self, place: &mut Place<'_>, outcome: Outcome) -> Result<(), Error> {
        let Place { heads, sighting } = place;
        let mut telling = Telling::new(self.engine);
        for found in outcome.matches {
            let alert = telling.alert(sighting, heads, found);
            heads.check().map_err(Error::Spill)?;
            (self.raise)(alert).map_err(Error::Write)?;
        }
        outcome.alerts.into_iter().try_for_each(&mut *self.raise).map_err(Error::Write)
    }
}
