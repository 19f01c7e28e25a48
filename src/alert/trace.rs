//! What a correlation keeps of an event until it fires, and where the rest is found again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::evidence::Evidence;
use crate::alert::id::RequestKey;
use crate::alert::sighting::{Head, Sighting, Stage};
use crate::alert::time::EventTime;
use crate::engine::correlate::Feed;
use crate::engine::table::Mapping;

/// Group-by fields and their values.
pub type Labels = Vec<(String, String)>;

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
    /// By correlation the group-by values, where it may fire when another event is at hand and they
    /// stand in a body.
    pub labels: Box<[(u32, Labels)]>,
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
            labels: labels.into(),
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
        let labels = self.labels.iter_mut();
        labels.for_each(|(index, _)| *index = place(&mapping.correlations, *index));
    }

    /// Whether both are of one event: it can match several rules of a correlation.
    pub fn is_of_event(&self, other: &Trace<K>) -> bool {
        self.request_key == other.request_key
            && self.time_us == other.time_us
            && self.stage == other.stage
    }
}

fn collect_labels(feed: &Feed, labels: &mut Vec<(u32, Labels)>) {
    if !feed.labels.is_empty() {
        labels.push((feed.correlation, feed.labels.clone()));
    }
    feed.parents.iter().for_each(|parent| collect_labels(parent, labels));
}

/// The evidence of an event.
pub fn evidence(time_us: i64, stage: Stage, audit_id: &str, position: &str) -> Evidence {
    Evidence {
        audit_id: audit_id.to_owned(),
        stage: stage.as_str().to_owned(),
        time: EventTime(time_us),
        position: position.to_owned(),
    }
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

/// What is kept of a sighting in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// [`Head::audit_id`].
    pub audit_id: Box<str>,
    /// [`Head::position`].
    pub position: Box<str>,
    /// The whole head, where the correlation may fire when another one is at hand.
    pub whole: Option<Box<Head>>,
}

/// Heads that the sightings themselves hold.
#[derive(Debug)]
pub struct AtHand;

impl Heads for AtHand {
    type Kept = Arc<Told>;

    fn head<'h>(&'h mut self, sighting: &'h Sighting) -> &'h Head {
        &sighting.head
    }

    fn keep(&mut self, sighting: &Sighting, is_whole: bool) -> Arc<Told> {
        let head = &sighting.head;
        Arc::new(Told {
            audit_id: head.audit_id.as_str().into(),
            position: head.position.as_str().into(),
            whole: is_whole.then(|| Box::new(head.clone())),
        })
    }

    fn evidence(&mut self, trace: &Trace<Arc<Told>>) -> Evidence {
        evidence(trace.time_us, trace.stage, &trace.kept.audit_id, &trace.kept.position)
    }

    fn whole(&mut self, kept: &Arc<Told>) -> Option<Head> {
        kept.whole.as_deref().cloned()
    }
}
