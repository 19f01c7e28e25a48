//! The state of all correlations as values that can be stored and taken up again, also under
//! another rule set.

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::engine::correlate::{Correlator, Feed};
use crate::engine::table::Mapping;
use crate::engine::terms::Baseline;
use crate::engine::window::{Each, Weigh, Window};
use crate::rule::CorrelationKind;

/// The windows of a correlation, by their keys.
type Windows<F> = Vec<(u64, Window<F>)>;

/// What a [`Correlator`] knows, as it is read, its evidence replaced by what the caller stored
/// instead.
#[derive(Clone, Debug, Deserialize)]
pub struct CorrelatorState<F> {
    /// By the index of the correlation.
    correlations: Vec<(Windows<F>, Baseline)>,
    pending: Vec<((i64, u32, u64), Vec<Feed>)>,
    newest_us: i64,
}

/// The same as it is written: nothing is copied but a window's match at a time.
struct View<'c, E, S> {
    correlator: &'c Correlator<E>,
    store: S,
}

impl<E: Weigh, F: Serialize, S: Fn(&E) -> F> Serialize for View<'_, E, S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let View { correlator, store } = self;
        let windows = correlator
            .windows
            .iter()
            .map(|windows| Each(windows.iter().map(|(key, window)| (key, window.view(store)))));
        let mut state = serializer.serialize_struct("CorrelatorState", 3)?;
        state.serialize_field("correlations", &Each(windows.zip(&correlator.baselines)))?;
        state.serialize_field("pending", &Each(correlator.pending.iter()))?;
        state.serialize_field("newest_us", &correlator.newest_us)?;
        state.end()
    }
}

impl<E: Weigh> Correlator<E> {
    /// The state for being written, with `store` for each piece of evidence; [`CorrelatorState`]
    /// reads it.
    pub fn view<'c, F: Serialize>(&'c self, store: impl Fn(&E) -> F + 'c) -> impl Serialize + 'c {
        View { correlator: self, store }
    }

    /// Every piece of evidence, in the order in which it is written.
    pub fn evidence(&self) -> impl Iterator<Item = &E> {
        let windows = self.windows.iter().flat_map(|windows| windows.iter());
        windows.flat_map(|(_, window)| window.evidence())
    }

    /// Takes up a state, of which `mapping` says where its correlations stand now; those without a
    /// place are left out.
    pub fn take_up<F>(
        &mut self,
        state: CorrelatorState<F>,
        mapping: &Mapping,
        fetch: &mut impl FnMut(F) -> E,
    ) {
        let place = |index: usize| mapping.correlations.get(index).copied().flatten();
        for (index, (windows, baseline)) in state.correlations.into_iter().enumerate() {
            let Some(place) = place(index) else { continue };
            let kind = &self.rules[place as usize].kind;
            let is_distinct = matches!(kind, CorrelationKind::ValueCount { .. });
            let windows = windows.into_iter().map(|(key, window)| {
                let mut window = window.map(fetch);
                if is_distinct {
                    window.recount();
                }
                (key, window)
            });
            self.windows[place as usize] = windows.collect();
            self.baselines[place as usize] = baseline;
        }
        for ((end, index, key), mut parents) in state.pending {
            if let Some(place) = place(index as usize) {
                relocate(&mut parents, mapping);
                self.pending.insert((end, place, key), parents);
            }
        }
        self.newest_us = self.newest_us.max(state.newest_us);
        self.weigh();
    }

    /// Takes over what another one knows, as [`Correlator::take_up`] does; `relocate` brings its
    /// evidence to where its rules stand now.
    pub fn take_over(
        &mut self,
        other: Correlator<E>,
        mapping: &Mapping,
        relocate: &mut impl FnMut(&mut E),
    ) {
        let windows = other.windows.into_iter().map(|windows| windows.into_iter().collect());
        let state = CorrelatorState {
            correlations: windows.zip(other.baselines).collect(),
            pending: other.pending.into_iter().collect(),
            newest_us: other.newest_us,
        };
        self.take_up(state, mapping, &mut |mut evidence| {
            relocate(&mut evidence);
            evidence
        });
    }

    /// When the first window that waits for something not to happen can be decided: the time to
    /// [`Correlator::advance`] to, at least.
    pub fn due_us(&self) -> Option<i64> {
        let ((end, ..), _) = self.pending.first_key_value()?;
        Some(end.saturating_add(self.limits.lateness_us).saturating_add(1))
    }
}

/// Moves feeds to where their correlations stand now; those without a place go.
pub fn relocate(feeds: &mut Vec<Feed>, mapping: &Mapping) {
    feeds.retain_mut(|feed| {
        let place = mapping.correlations.get(feed.correlation as usize).copied().flatten();
        feed.correlation = place.unwrap_or_default();
        relocate(&mut feed.parents, mapping);
        place.is_some()
    });
}
