//! Whether a store locks as the configuration says, asked before anything is written and again
//! while a writer runs: drift is how locks are usually lost.

use serde::{Deserialize, Serialize};

use crate::archive::store::{self, LockMode, Locker, Store};

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

/// What is asked of a store's locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How strictly.
    pub worm: Worm,
    /// For at least so many days.
    pub days: Option<u32>,
    /// Objects come with their own lock, so the default of the bucket does not count.
    pub is_by_object: bool,
    /// Whether the object `checkpoint` is to be replaced.
    pub has_pointer: bool,
}

/// What was found of a store's locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// For how many days it keeps what it is given; `None` when it need not.
    pub days: Option<u32>,
    /// It cannot tell before the log's first record is there: to be asked again then.
    pub is_presumed: bool,
}

/// Asks how the store locks, and refuses less than what is wanted. Changes nothing.
///
/// # Errors
/// The store cannot be asked, or locks less.
pub async fn check(store: &dyn Store, wanted: Wanted) -> Result<Found, Error> {
    let Wanted { worm, days, is_by_object, has_pointer } = wanted;
    if worm == Worm::Off {
        return Ok(Found { days, is_presumed: false });
    }
    let unlocked = |problem: &str, remedy| Error::Unlocked {
        location: store.location(),
        problem: problem.to_owned(),
        remedy,
    };
    let Some(lock) = store.lock().await? else {
        return Err(unlocked("cannot say whether it locks", "use a store that can"));
    };
    let (create, rule) = remedies(lock.locker);
    if !lock.has_versions {
        return Err(unlocked("keeps no versions", create));
    }
    if !lock.is_enabled {
        return Err(unlocked(problem_without(lock.locker), create));
    }
    if has_pointer && !lock.is_replaceable {
        let remedy = "say `checkpoint: false`";
        return Err(unlocked("does not let the object `checkpoint` be replaced", remedy));
    }
    if is_by_object {
        return Ok(Found { days, is_presumed: false });
    }
    let (Some(mode), Some(found)) = (lock.mode, lock.days) else {
        return Err(unlocked("locks nothing by default", rule));
    };
    if worm == Worm::Compliance && mode != LockMode::Compliance {
        let problem = match lock.locker {
            Locker::S3 => "locks in governance mode, not in compliance mode",
            Locker::Google | Locker::Azure => "has a policy that is not locked itself",
        };
        return Err(unlocked(problem, rule));
    }
    if let Some(days) = days.filter(|days| *days > found) {
        return Err(unlocked(&format!("locks for {found} days, not for {days}"), rule));
    }
    let is_presumed = lock.is_presumed;
    Ok(Found { days: if is_presumed { days } else { Some(found) }, is_presumed })
}

fn problem_without(locker: Locker) -> &'static str {
    match locker {
        Locker::S3 => "has no Object Lock",
        Locker::Google => "has no retention policy",
        Locker::Azure => "has no versions that can be made immutable",
    }
}

/// What to do where nothing can be locked, and where it is not locked as it should be.
fn remedies(locker: Locker) -> (&'static str, &'static str) {
    match locker {
        Locker::S3 => (
            "create a bucket with Object Lock",
            "set the bucket's default retention, or `lock: object` for a lock with each object",
        ),
        Locker::Google => (
            "set a retention policy on the bucket, and lock it",
            "set the bucket's retention period, and lock its policy",
        ),
        Locker::Azure => (
            "create the container with version-level immutability; of a policy for a whole \
             container the service does not tell whether it is locked",
            "set a time-based retention policy on the container's versions, and lock it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::sim::Memory;
    use crate::archive::store::Lock;

    const GOOD: Lock = Lock {
        locker: Locker::S3,
        has_versions: true,
        is_enabled: true,
        mode: Some(LockMode::Compliance),
        days: Some(30),
        is_replaceable: true,
        is_presumed: false,
    };
    const WANTED: Wanted =
        Wanted { worm: Worm::Compliance, days: Some(30), is_by_object: false, has_pointer: true };

    async fn check(lock: Option<Lock>, wanted: Wanted) -> Result<Found, String> {
        let store = Memory::default();
        *store.lock.lock().unwrap() = lock;
        super::check(&store, wanted).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn each_way_of_not_locking_is_refused_with_what_to_do() {
        let none = Lock { mode: None, days: None, ..GOOD };
        let lax = Lock { mode: Some(LockMode::Governance), ..GOOD };
        let (google, azure) = (Locker::Google, Locker::Azure);
        let cases = [
            (None, WANTED, "cannot say whether it locks"),
            (Some(Lock { has_versions: false, ..GOOD }), WANTED, "keeps no versions"),
            (Some(Lock { is_enabled: false, ..GOOD }), WANTED, "has no Object Lock; create"),
            (
                Some(Lock { is_enabled: false, locker: google, ..GOOD }),
                WANTED,
                "has no retention policy; set",
            ),
            (
                Some(Lock { is_enabled: false, locker: azure, ..GOOD }),
                WANTED,
                "version-level immutability",
            ),
            (Some(none), WANTED, "locks nothing by default; set the bucket's default"),
            (Some(lax), WANTED, "in governance mode, not in compliance mode"),
            (Some(Lock { locker: google, ..lax }), WANTED, "a policy that is not locked itself"),
            (Some(GOOD), Wanted { days: Some(31), ..WANTED }, "for 30 days, not for 31"),
            (Some(Lock { is_replaceable: false, ..GOOD }), WANTED, "say `checkpoint: false`"),
        ];
        for (lock, wanted, expected) in cases {
            let refused = check(lock, wanted).await.unwrap_err();
            assert!(refused.contains(expected), "{refused}");
            assert!(refused.ends_with("or say `worm: off`"), "{refused}");
        }
        let off = Wanted { worm: Worm::Off, ..WANTED };
        let by_object = Wanted { is_by_object: true, ..WANTED };
        let bare = Wanted { has_pointer: false, days: None, ..WANTED };
        let good = [
            (None, off),
            (Some(GOOD), WANTED),
            (Some(lax), Wanted { worm: Worm::Governance, ..WANTED }),
            (Some(none), by_object),
            (Some(Lock { is_replaceable: false, ..GOOD }), bare),
        ];
        for (lock, wanted) in good {
            let found = check(lock, wanted).await;
            assert_eq!(found, Ok(Found { days: Some(30), is_presumed: false }), "{wanted:?}");
        }
        let presumed = Lock { is_presumed: true, days: Some(u32::MAX), ..GOOD };
        let found = check(Some(presumed), WANTED).await;
        assert_eq!(found, Ok(Found { days: Some(30), is_presumed: true }));
    }
}
