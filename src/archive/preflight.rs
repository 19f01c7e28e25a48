//! Whether a store locks as the configuration says, asked before anything is written and again
//! while a writer runs: drift is how locks are usually lost.

use serde::{Deserialize, Serialize};

use crate::archive::store::{self, LockMode, Store};

/// What the store must do so that nobody can delete or change what it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Worm {
    /// Locked for everybody, whatever rights they have. The default.
    #[default]
    Compliance,
    /// Locked for all but those with a special right.
    Governance,
    /// Not locked, or not in a way that can be asked. Changes show, but nothing prevents them.
    Off,
}

/// A store that does not lock as it should; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It does not lock as configured.
    #[error("{location} {problem}; {remedy}, or say `worm: off`")]
    Unlocked {
        /// The store.
        location: String,
        /// What is missing.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Asks how the store locks, and refuses less than `worm` for `days`. Returns for how many days it
/// keeps what it is given. Changes nothing.
///
/// # Errors
/// The store cannot be asked, or locks less.
pub async fn check(store: &dyn Store, worm: Worm, days: Option<u32>) -> Result<Option<u32>, Error> {
    if worm == Worm::Off {
        return Ok(days);
    }
    let unlocked = |problem: &str, remedy| Error::Unlocked {
        location: store.location(),
        problem: problem.to_owned(),
        remedy,
    };
    let create = "create a bucket with Object Lock";
    let Some(lock) = store.lock().await? else {
        return Err(unlocked("cannot say whether it locks", "use a store that can"));
    };
    if !lock.has_versions {
        return Err(unlocked("keeps no versions", create));
    }
    if !lock.is_enabled {
        return Err(unlocked("has no Object Lock", create));
    }
    let rule = "set the bucket's default retention";
    let (Some(mode), Some(found)) = (lock.mode, lock.days) else {
        return Err(unlocked("locks nothing by default", rule));
    };
    if worm == Worm::Compliance && mode != LockMode::Compliance {
        return Err(unlocked("locks in governance mode, not in compliance mode", rule));
    }
    if let Some(days) = days.filter(|days| *days > found) {
        return Err(unlocked(&format!("locks for {found} days, not for {days}"), rule));
    }
    Ok(Some(found))
}
