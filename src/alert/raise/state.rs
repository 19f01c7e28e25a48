//! What a [`Raiser`] remembers, as values that can be stored and taken up again, also under another
//! rule set.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::alert::raise::Raiser;
use crate::alert::raise::open::OpenRequests;
use crate::alert::sighting::Sighting;
use crate::alert::told::Told;
use crate::alert::trace::Trace;
use crate::engine::correlate::state::{self, CorrelatorState};
use crate::engine::table::Mapping;

/// The memory of a [`Raiser`], as it is read.
#[derive(Clone, Debug, Deserialize)]
pub struct RaiserState {
    /// What is told of events ([`Told::bytes`]), once each however many windows hold it.
    told: Vec<Box<[u8]>>,
    /// Windows with indexes of `told`.
    correlations: CorrelatorState<Trace<u32>>,
    open: OpenRequests,
}

/// The same as it is written.
#[derive(Serialize)]
struct View<'r, C> {
    told: Vec<&'r [u8]>,
    correlations: C,
    open: &'r OpenRequests,
}

impl Raiser {
    /// What it remembers, for being written; [`RaiserState`] reads it.
    pub fn view(&self) -> impl Serialize + '_ {
        let mut told = Vec::new();
        let mut places: FxHashMap<*const u8, u32> = FxHashMap::default();
        let evidence = self.correlator.evidence();
        for trace in evidence.flat_map(|trace| trace.before().iter().chain([trace])) {
            let bytes = trace.kept.bytes();
            places.entry(bytes.as_ptr()).or_insert_with(|| {
                told.push(bytes);
                told.len() as u32 - 1
            });
        }
        let place = move |told: &Told| {
            let place = places.get(&told.bytes().as_ptr()).copied();
            place.unwrap_or(u32::MAX)
        };
        let store = move |trace: &Trace<Told>| trace.with(&place);
        View { told, correlations: self.correlator.view(store), open: &self.open }
    }

    /// Takes up what an earlier one remembered; `mapping` says where its rules stand now. What
    /// belongs to rules without a place is forgotten.
    pub fn take_up(&mut self, state: RaiserState, mapping: &Mapping) {
        let told: Vec<_> = state.told.iter().map(|bytes| Told::stored(bytes)).collect();
        let nothing = Told::stored(&[]);
        let place = |place: &u32| told.get(*place as usize).unwrap_or(&nothing).clone();
        let mut fetch = |trace: Trace<u32>| {
            let mut trace = trace.with(&place);
            trace.relocate(mapping);
            trace
        };
        self.correlator.take_up(state.correlations, mapping, &mut fetch);
        self.open = state.open;
    }

    /// Takes over what another one remembers, in the same way.
    pub fn take_over(&mut self, other: Raiser, mapping: &Mapping) {
        self.correlator.take_over(other.correlator, mapping, &mut |trace| trace.relocate(mapping));
        self.open = other.open;
    }
}

/// Moves a sighting to where its rules stand now; what belongs to rules without a place goes.
pub fn relocate(sighting: &mut Sighting, mapping: &Mapping) {
    sighting.matches.retain_mut(|found| {
        let place = mapping.detections.get(found.detection as usize).copied().flatten();
        found.detection = place.unwrap_or_default();
        state::relocate(&mut found.feeds, mapping);
        place.is_some()
    });
}
