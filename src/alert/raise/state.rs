//! What a [`Raiser`] remembers, as values that can be stored and taken up again, also under another
//! rule set.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::alert::raise::Raiser;
use crate::alert::raise::open::OpenRequests;
use crate::alert::sighting::Sighting;
use crate::alert::trace::{Told, Trace};
use crate::engine::correlate::Feed;
use crate::engine::correlate::state::CorrelatorState;
use crate::engine::table::Mapping;

/// The memory of a [`Raiser`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RaiserState {
    /// What is told of events, once each however many windows hold it.
    told: Vec<Told>,
    /// Windows with indexes of `told`.
    correlations: CorrelatorState<Trace<u32>>,
    open: OpenRequests,
}

impl Raiser {
    /// What it remembers.
    pub fn state(&self) -> RaiserState {
        let mut all = Vec::new();
        let mut known: FxHashMap<*const Told, u32> = FxHashMap::default();
        let mut store = |trace: &Trace<Arc<Told>>| {
            let index = *known.entry(Arc::as_ptr(&trace.kept)).or_insert_with(|| {
                all.push(Told::clone(&trace.kept));
                all.len() as u32 - 1
            });
            trace.with(index)
        };
        let correlations = self.correlator.state(&mut store);
        RaiserState { told: all, correlations, open: self.open.clone() }
    }

    /// Takes up what an earlier one remembered; `mapping` says where its rules stand now. What
    /// belongs to rules without a place is forgotten.
    pub fn take_up(&mut self, state: RaiserState, mapping: &Mapping) {
        let told: Vec<_> = state.told.into_iter().map(Arc::new).collect();
        let nothing = Arc::default();
        let mut fetch = |trace: &Trace<u32>| {
            let mut trace =
                trace.with(Arc::clone(told.get(trace.kept as usize).unwrap_or(&nothing)));
            trace.relocate(mapping);
            trace
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
