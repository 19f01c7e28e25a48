//! What a [`Raiser`] remembers, as values that can be stored and taken up again, also under another
//! rule set.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::alert::raise::open::OpenRequests;
use crate::alert::raise::{Raiser, Trace};
use crate::alert::sighting::Sighting;
use crate::engine::correlate::Feed;
use crate::engine::correlate::state::CorrelatorState;
use crate::engine::table::Mapping;

/// The memory of a [`Raiser`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RaiserState {
    /// Evidence, once each however many windows hold it.
    traces: Vec<Trace>,
    /// Windows with indexes of `traces`.
    correlations: CorrelatorState<u32>,
    open: OpenRequests,
}

impl Raiser {
    /// What it remembers.
    pub fn state(&self) -> RaiserState {
        let mut traces = Vec::new();
        let mut known: FxHashMap<*const Trace, u32> = FxHashMap::default();
        let mut store = |trace: &Arc<Trace>| {
            *known.entry(Arc::as_ptr(trace)).or_insert_with(|| {
                traces.push(Trace::clone(trace));
                traces.len() as u32 - 1
            })
        };
        let correlations = self.correlator.state(&mut store);
        RaiserState { traces, correlations, open: self.open.clone() }
    }

    /// Takes up what an earlier one remembered; `mapping` says where its rules stand now. What
    /// belongs to rules without a place is forgotten.
    pub fn take_up(&mut self, state: RaiserState, mapping: &Mapping) {
        let mut traces = Vec::with_capacity(state.traces.len());
        for mut trace in state.traces {
            if let Some(sighting) = &mut trace.sighting {
                relocate(sighting, mapping);
            }
            traces.push(Arc::new(trace));
        }
        let mut fetch = |index: &u32| match traces.get(*index as usize) {
            Some(trace) => Arc::clone(trace),
            None => Arc::new(Trace::new(&Sighting::default(), false)),
        };
        self.correlator.take_up(state.correlations, mapping, &mut fetch);
        self.open = state.open;
    }
}

/// Moves a sighting to where its rules stand now; what belongs to rules without a place goes.
pub fn relocate(sighting: &mut Sighting, mapping: &Mapping) {
    sighting.matches.retain_mut(|found| {
        let place = mapping.detections.get(found.detection as usize).copied().flatten();
        found.detection = place.unwrap_or_default();
        relocate_feeds(&mut found.feeds, mapping);
        place.is_some()
    });
}

fn relocate_feeds(feeds: &mut Vec<Feed>, mapping: &Mapping) {
    feeds.retain_mut(|feed| {
        let place = mapping.correlations.get(feed.correlation as usize).copied().flatten();
        feed.correlation = place.unwrap_or_default();
        relocate_feeds(&mut feed.parents, mapping);
        place.is_some()
    });
}
