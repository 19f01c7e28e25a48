//! The state of all correlations as values that can be stored and taken up again, also under
//! another rule set.

use serde::{Deserialize, Serialize};

use crate::engine::correlate::Correlator;
use crate::engine::table::Mapping;
use crate::engine::terms::Baseline;
use crate::engine::window::Window;

/// The windows of a correlation, by their keys.
type Windows<F> = Vec<(u64, Window<F>)>;

/// What a [`Correlator`] knows, its evidence replaced by what the caller stores instead.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CorrelatorState<F> {
    /// By the index of the correlation.
    correlations: Vec<(Windows<F>, Baseline)>,
    pending: Vec<(i64, u32, u64)>,
    newest_us: i64,
}

impl<E: Clone> Correlator<E> {
    /// The state, with `store` for each piece of evidence.
    pub fn state<F>(&self, store: &mut impl FnMut(&E) -> F) -> CorrelatorState<F> {
        let correlations = self
            .windows
            .iter()
            .zip(&self.baselines)
            .map(|(windows, baseline)| {
                let windows = windows.iter().map(|(key, window)| (*key, window.map(store)));
                (windows.collect(), baseline.clone())
            })
            .collect();
        let pending = self.pending.iter().copied().collect();
        CorrelatorState { correlations, pending, newest_us: self.newest_us }
    }

    /// Takes up a state, of which `mapping` says where its correlations stand now; those without a
    /// place are left out.
    pub fn take_up<F>(
        &mut self,
        state: CorrelatorState<F>,
        mapping: &Mapping,
        fetch: &mut impl FnMut(&F) -> E,
    ) {
        let place = |index: usize| mapping.correlations.get(index).copied().flatten();
        for (index, (windows, baseline)) in state.correlations.into_iter().enumerate() {
            let Some(place) = place(index) else { continue };
            let windows = windows.iter().map(|(key, window)| (*key, window.map(fetch)));
            self.windows[place as usize] = windows.collect();
            self.baselines[place as usize] = baseline;
        }
        for (end, index, key) in state.pending {
            if let Some(place) = place(index as usize) {
                self.pending.insert((end, place, key));
            }
        }
        self.newest_us = self.newest_us.max(state.newest_us);
    }

    /// When the first window that waits for something not to happen can be decided: the time to
    /// [`Correlator::advance`] to, at least.
    pub fn due_us(&self) -> Option<i64> {
        let (end, ..) = self.pending.first()?;
        Some(end.saturating_add(self.limits.lateness_us).saturating_add(1))
    }
}
