//! What a correlation keeps of an event until it fires, and where the rest is found again.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use crate::alert::evidence::{Evidence, edges};
use crate::alert::id::RequestKey;
use crate::alert::sighting::{Head, Sighting, Stage};
use crate::alert::told::Told;
use crate::engine::correlate::Feed;
use crate::engine::table::Mapping;
use crate::engine::window::Weigh;

/// Group-by fields and their values.
pub type Labels = Vec<(String, String)>;

/// What few traces have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Beside<K> {
    /// Group-by values by the index of their correlation, where it may fire when another event is
    /// at hand and they stand in a body.
    groups: Vec<(u32, Labels)>,
    /// The other events of the inner correlation that this one completed, in order of time. They
    /// are evidence only: nothing stands beside them, and nobody asks which detection matched.
    before: Box<[Trace<K>]>,
}

/// A match in a window. `K` is what leads to the head of its event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace<K> {
    /// The request.
    pub request_key: RequestKey,
    /// Event time in microseconds since the epoch.
    pub time_us: i64,
    /// The audit stage.
    pub stage: Stage,
    /// The detection that matched.
    pub detection: u32,
    beside: Option<Box<Beside<K>>>,
    /// What leads to the head.
    pub kept: K,
}

impl<K> Trace<K> {
    /// The trace of a match of `detection` that feeds `feed`.
    pub fn new(sighting: &Sighting, detection: u32, feed: &Feed, waits: bool, kept: K) -> Trace<K> {
        let mut labels = Vec::new();
        if waits {
            collect_labels(feed, &mut labels);
        }
        Trace {
            request_key: sighting.request_key,
            time_us: sighting.time_us,
            stage: sighting.stage,
            detection,
            beside: Beside::of(labels, Box::default()),
            kept,
        }
    }

    /// The same with something else kept.
    pub fn with<L>(&self, kept: &impl Fn(&K) -> L) -> Trace<L> {
        let beside = self.beside.as_ref().and_then(|beside| {
            let before = beside.before.iter().map(|trace| trace.with(kept)).collect();
            Beside::of(beside.groups.clone(), before)
        });
        Trace { beside, ..self.alone(kept(&self.kept)) }
    }

    /// The same with something else kept, and nothing beside it.
    fn alone<L>(&self, kept: L) -> Trace<L> {
        let &Trace { request_key, time_us, stage, detection, .. } = self;
        Trace { request_key, time_us, stage, detection, beside: None, kept }
    }

    /// The other events of the inner correlation that this one completed, in order of time.
    pub fn before(&self) -> &[Trace<K>] {
        self.beside.as_ref().map_or(&[], |beside| &beside.before)
    }

    /// Moves it to where its rules stand now. One without a place stays evidence; that the group of
    /// a rule that is gone can no longer be told does not matter, nothing of it fires.
    pub fn relocate(&mut self, mapping: &Mapping) {
        let place = |places: &[Option<u32>], index: u32| {
            places.get(index as usize).copied().flatten().unwrap_or(u32::MAX)
        };
        self.detection = place(&mapping.detections, self.detection);
        let labels = self.beside.iter_mut().flat_map(|beside| &mut beside.groups);
        labels.for_each(|(index, _)| *index = place(&mapping.correlations, *index));
    }

    /// The group-by values of a correlation, where they are kept.
    pub fn labels(&self, correlation: u32) -> Option<&Labels> {
        let groups = &self.beside.as_ref()?.groups;
        groups.iter().find(|(index, _)| *index == correlation).map(|(_, labels)| labels)
    }

    /// What says whether two are of one event.
    fn event(&self) -> (RequestKey, i64, Stage) {
        (self.request_key, self.time_us, self.stage)
    }
}

impl<K> Beside<K> {
    fn of(groups: Vec<(u32, Labels)>, before: Box<[Trace<K>]>) -> Option<Box<Beside<K>>> {
        let is_empty = groups.is_empty() && before.is_empty();
        (!is_empty).then(|| Box::new(Beside { groups, before }))
    }
}

/// The events of these matches and of what inner correlations handed on with them, each once.
pub fn events<K>(traces: &[Trace<K>]) -> Vec<&Trace<K>> {
    let all = traces.iter().flat_map(|trace| trace.before().iter().chain([trace]));
    let mut all: Vec<&Trace<K>> = all.collect();
    if all.len() == traces.len() {
        // One event can match several rules of a correlation.
        all.dedup_by_key(|trace| trace.event());
        return all;
    }
    // Windows of inner correlations overlap in time, and can rest on the same events.
    all.sort_by_key(|trace| trace.time_us);
    let mut known = FxHashSet::default();
    all.retain(|trace| known.insert(trace.event()));
    all
}

impl<K: Weigh> Weigh for Trace<K> {
    fn weight(&self) -> usize {
        let Some(beside) = &self.beside else { return self.kept.weight() };
        let labels = beside.groups.iter().flat_map(|(_, labels)| labels);
        let labels: usize = labels.map(|(field, value)| 64 + field.len() + value.len()).sum();
        let before = beside.before.iter().map(|trace| size_of::<Trace<K>>() + trace.weight());
        labels + before.sum::<usize>() + self.kept.weight()
    }

    fn joined(all: &[Trace<K>], others_max: usize) -> Option<Trace<K>> {
        let last = all.last()?;
        let mut others = events(all);
        others.retain(|trace| trace.event() != last.event());
        let before = edges(&others, others_max).map(|trace| trace.alone(trace.kept.clone()));
        let groups = last.beside.as_ref().map(|beside| beside.groups.clone());
        let beside = Beside::of(groups.unwrap_or_default(), before.collect());
        Some(Trace { beside, ..last.alone(last.kept.clone()) })
    }
}

fn collect_labels(feed: &Feed, labels: &mut Vec<(u32, Labels)>) {
    if !feed.labels.is_empty() {
        labels.push((feed.correlation, feed.labels.clone()));
    }
    feed.parents.iter().for_each(|parent| collect_labels(parent, labels));
}

/// Where the heads of sightings are found.
pub trait Heads {
    /// What leads to a head later.
    type Kept: Clone;

    /// The head of the sighting at hand.
    fn head<'h>(&'h mut self, sighting: &'h Sighting) -> &'h Head;

    /// What to keep of the sighting at hand; `is_whole` where its head may be asked for when
    /// another one is at hand.
    fn keep(&mut self, sighting: &Sighting, is_whole: bool) -> Self::Kept;

    /// The evidence of an earlier sighting.
    fn evidence(&mut self, trace: &Trace<Self::Kept>) -> Evidence;

    /// The head of an earlier sighting that was kept whole.
    fn whole(&mut self, kept: &Self::Kept) -> Option<Head>;
}

/// Heads that the sightings themselves hold.
#[derive(Debug)]
pub struct AtHand;

impl Heads for AtHand {
    type Kept = Told;

    fn head<'h>(&'h mut self, sighting: &'h Sighting) -> &'h Head {
        &sighting.head
    }

    fn keep(&mut self, sighting: &Sighting, is_whole: bool) -> Told {
        let head = &sighting.head;
        Told::new(&head.audit_id, &head.position, is_whole.then_some(head))
    }

    fn evidence(&mut self, trace: &Trace<Told>) -> Evidence {
        trace.kept.evidence(trace.time_us, trace.stage)
    }

    fn whole(&mut self, kept: &Told) -> Option<Head> {
        kept.whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A match of the event that this is the number and the time of.
    fn trace(number: i64) -> Trace<u64> {
        Trace {
            request_key: RequestKey(i128::from(number).to_le_bytes()),
            time_us: number,
            stage: Stage::default(),
            detection: 0,
            beside: None,
            kept: number.unsigned_abs(),
        }
    }

    fn times(traces: &[&Trace<u64>]) -> Vec<i64> {
        traces.iter().map(|trace| trace.time_us).collect()
    }

    #[test]
    fn what_inner_correlations_rest_on_is_handed_on_once_and_in_order() {
        // By inner correlation the events of its window.
        for (inner, others_max, all) in [
            (&[&[3][..]][..], 10, &[3][..]),
            (&[&[3, 3]], 10, &[3]),
            (&[&[1, 2, 3]], 10, &[1, 2, 3]),
            (&[&[1, 3, 5], &[2, 3, 4]], 10, &[1, 2, 3, 4, 5]),
            (&[&[1, 2], &[7]], 10, &[1, 2, 7]),
            (&[&[1, 2, 3, 4, 5, 6, 7]], 4, &[1, 2, 5, 6, 7]),
            (&[&[1, 2, 3]], 0, &[3]),
        ] {
            let join = |times: &&[i64]| {
                let traces: Vec<_> = times.iter().copied().map(trace).collect();
                Trace::joined(&traces, others_max).unwrap()
            };
            let joined: Vec<_> = inner.iter().map(join).collect();
            assert_eq!(times(&events(&joined)), all, "{inner:?}");
            // Of a chain's chain the last is that of the last.
            let last = inner.last().and_then(|times| times.last()).copied().unwrap();
            let outer = Trace::joined(&joined, 10).unwrap();
            assert_eq!((outer.time_us, outer.before().len()), (last, all.len() - 1), "{inner:?}");
            assert!(outer.before().iter().all(|trace| trace.beside.is_none()));
            assert_eq!(outer.weight(), size_of_val(outer.before()), "{inner:?}");
            let stored = postcard::to_stdvec(&outer.with(&|kept| *kept)).unwrap();
            assert_eq!(postcard::from_bytes::<Trace<u64>>(&stored).unwrap(), outer);
        }
        assert_eq!(Trace::<u64>::joined(&[], 10), None);
    }
}
