//! What a correlation keeps of an event until it fires, and where the rest is found again.

use serde::{Deserialize, Serialize};

use crate::alert::evidence::Evidence;
use crate::alert::id::RequestKey;
use crate::alert::sighting::{Head, Sighting, Stage};
use crate::alert::told::Told;
use crate::engine::correlate::Feed;
use crate::engine::table::Mapping;
use crate::engine::window::Weigh;

/// Group-by fields and their values.
pub type Labels = Vec<(String, String)>;

/// Group-by values by the index of their correlation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups(Vec<(u32, Labels)>);

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
    /// The group-by values, where a correlation may fire when another event is at hand and they
    /// stand in a body.
    pub labels: Option<Box<Groups>>,
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
            labels: (!labels.is_empty()).then(|| Box::new(Groups(labels))),
            kept,
        }
    }

    /// The same with something else kept.
    pub fn with<L>(&self, kept: L) -> Trace<L> {
        Trace {
            request_key: self.request_key,
            time_us: self.time_us,
            stage: self.stage,
            detection: self.detection,
            labels: self.labels.clone(),
            kept,
        }
    }

    /// Moves it to where its rules stand now. One without a place stays evidence; that the group of
    /// a rule that is gone can no longer be told does not matter, nothing of it fires.
    pub fn relocate(&mut self, mapping: &Mapping) {
        let place = |places: &[Option<u32>], index: u32| {
            places.get(index as usize).copied().flatten().unwrap_or(u32::MAX)
        };
        self.detection = place(&mapping.detections, self.detection);
        let labels = self.labels.iter_mut().flat_map(|groups| &mut groups.0);
        labels.for_each(|(index, _)| *index = place(&mapping.correlations, *index));
    }

    /// The group-by values of a correlation, where they are kept.
    pub fn labels(&self, correlation: u32) -> Option<&Labels> {
        let groups = &self.labels.as_ref()?.0;
        groups.iter().find(|(index, _)| *index == correlation).map(|(_, labels)| labels)
    }

    /// Whether both are of one event: it can match several rules of a correlation.
    pub fn is_of_event(&self, other: &Trace<K>) -> bool {
        self.request_key == other.request_key
            && self.time_us == other.time_us
            && self.stage == other.stage
    }
}

impl<K: Weigh> Weigh for Trace<K> {
    fn weight(&self) -> usize {
        let groups = self.labels.iter().flat_map(|groups| &groups.0);
        let labels = groups.flat_map(|(_, labels)| labels);
        let labels: usize = labels.map(|(field, value)| 64 + field.len() + value.len()).sum();
        labels + self.kept.weight()
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
