//! How a source stands, for whoever asks whether all of them are up.

use std::sync::{Arc, Mutex, PoisonError};

/// Shared by a source and by those who ask; a source that says nothing is well.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Option<String>>>);

impl Standing {
    /// Says why the source gets nothing, or that it is well.
    pub fn set(&self, problem: Option<&str>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_deref() != problem {
            *kept = problem.map(str::to_owned);
        }
    }

    /// Why the source gets nothing, in a sentence.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
