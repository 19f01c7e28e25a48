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
    let mut taking = Taking { engine: &engine, place: Place::new(&store), raise };
    if options.threads < 2 {
        return on_one_thread(&mut chosen, &mut raising, &mut taking);
    }
    std::thread::scope(|scope| {
        let (to_raising, batches) = sync_channel(BATCHES_WAITING);
        let (to_taking, raised) = sync_channel(BATCHES_WAITING);
        let choosing = scope.spawn(move || hand_on(&mut chosen, &to_raising));
        let raising = scope.spawn(move || raise_all(&mut raising, batches, &to_taking));
        // A stage that fails lets go of its channels, which ends the others.
        let taken = raised.iter().try_for_each(|(batch, outcomes): Step| {
            outcomes.into_iter().try_for_each(|outcome| taking.take(&batch, outcome))
        });
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
        let alerts = raising.observe_and_tell(&event, taking.engine)?;
        alerts.into_iter().try_for_each(&mut *taking.raise).map_err(Error::Write)?;
    }
    raising.finish()?.into_iter().try_for_each(&mut *taking.raise).map_err(Error::Write)
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

/// What an event of a batch came to.
#[derive(Default)]
struct Outcome {
    event: usize,
    /// Those of its matches that are alerts by themselves, to be told.
    matches: Vec<usize>,
    /// Alerts behind them.
    alerts: Vec<Alert>,
}

/// What the second stage hands on.
type Step = (Batch, Vec<Outcome>);

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
            outcomes.extend(raising.observe(&batch, index)?);
        }
        if to_taking.send((batch, outcomes)).is_err() {
            return Ok(());
        }
    }
    let last = Outcome { alerts: raising.finish()?, ..Outcome::default() };
    let _ = to_taking.send((Batch::default(), vec![last]));
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

    /// What an event comes to, if to anything; matches are left to the third stage.
    fn observe(&mut self, batch: &Batch, event: usize) -> Result<Option<Outcome>, Error> {
        let Raising { raiser, place } = self;
        place.set(&batch.event(event))?;
        let Place { heads, sighting } = place;
        let mut outcome = Outcome { event, ..Outcome::default() };
        raiser.observe_with(sighting, heads, &mut |_, raised| match raised {
            Raised::Match(place) => outcome.matches.push(place),
            Raised::Correlated(alert) => outcome.alerts.push(*alert),
        });
        heads.check().map_err(Error::Spill)?;
        let is_something = !outcome.matches.is_empty() || !outcome.alerts.is_empty();
        Ok(is_something.then_some(outcome))
    }

    fn observe_and_tell(
        &mut self,
        event: &Event<'_>,
        engine: &Engine,
    ) -> Result<Vec<Alert>, Error> {
        let Raising { raiser, place } = self;
        place.set(event)?;
        let Place { heads, sighting } = place;
        let (mut telling, mut alerts) = (Telling::new(engine), Vec::new());
        raiser.observe_with(sighting, heads, &mut |heads, raised| {
            alerts.push(telling.alert(sighting, heads, raised));
        });
        heads.check().map_err(Error::Spill)?;
        Ok(alerts)
    }

    fn finish(&mut self) -> Result<Vec<Alert>, Error> {
        let mut alerts = Vec::new();
        self.raiser.finish_with(&mut self.place.heads, &mut |alert| alerts.push(alert));
        self.place.heads.check().map_err(Error::Spill)?;
        Ok(alerts)
    }
}

/// The third stage.
struct Taking<'t> {
    engine: &'t Engine,
    place: Place<'t>,
    raise: Raise<'t>,
}

impl Taking<'_> {
    fn take(&mut self, batch: &Batch, outcome: Outcome) -> Result<(), Error> {
        let Outcome { event, matches, alerts } = outcome;
        if !matches.is_empty() {
            self.place.set(&batch.event(event))?;
        }
        let Place { heads, sighting } = &mut self.place;
        let mut telling = Telling::new(self.engine);
        for place in matches {
            let alert = telling.alert(sighting, heads, Raised::Match(place));
            heads.check().map_err(Error::Spill)?;
            (self.raise)(alert).map_err(Error::Write)?;
        }
        alerts.into_iter().try_for_each(&mut *self.raise).map_err(Error::Write)
    }
}
