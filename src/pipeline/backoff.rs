//! How long to wait before the next attempt: longer each time, and never in step with others.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first wait is below this.
pub const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Every wait is below this, unless the far side asks for more.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The far side is not obeyed beyond this.
pub const AFTER_MAX: Duration = Duration::from_secs(300);

/// Exponential, with full jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    attempts: u32,
    random: RandomState,
    min: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff::between(BACKOFF_MIN, BACKOFF_MAX)
    }
}

impl Backoff {
    /// The first wait is below `min`, every other one below `max`.
    pub fn between(min: Duration, max: Duration) -> Backoff {
        Backoff { attempts: 0, random: RandomState::new(), min, max }
    }

    /// How long to wait now; at least `after`, where the far side said so.
    pub fn next(&mut self, after: Option<Duration>) -> Duration {
        let ceiling = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let share = self.random.hash_one(self.attempts) as f64 / u64::MAX as f64;
        let jitter = ceiling.mul_f64(share);
        after.map_or(jitter, |after| after.min(AFTER_MAX) + jitter.min(self.min))
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Attempts since it worked last.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_within_its_bounds() {
        let mut backoff = Backoff::default();
        for attempt in 0..40 {
            let ceiling = BACKOFF_MIN.saturating_mul(1 << attempt.min(20)).min(BACKOFF_MAX);
            assert!(backoff.next(None) <= ceiling);
        }
        assert!(backoff.next(Some(Duration::from_secs(40))) >= Duration::from_secs(40));
        assert!(backoff.next(Some(Duration::MAX)) <= AFTER_MAX + BACKOFF_MIN);
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
    }
}
