//! Whether the pipeline lives and is ready, for `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::watch;

use crate::pipeline::Clock;
use crate::spool::Appender;

/// The ordered part must have turned within this time; microseconds.
pub const TURN_US_MAX: i64 = 60_000_000;

/// What can be asked at any time, by anybody.
#[derive(Clone)]
pub struct Health {
    pub(crate) clock: Clock,
    pub(crate) turned_us: Arc<AtomicI64>,
    pub(crate) appender: Appender,
    pub(crate) failure: watch::Receiver<Option<String>>,
}

impl Health {
    /// Whether the loop turns. A full disk is no reason to start again.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn live(&self) -> Result<(), String> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(failure.clone());
        }
        let age_us = self.clock.now_us().saturating_sub(self.turned_us.load(Ordering::Acquire));
        if age_us > TURN_US_MAX && !self.appender.is_waiting_for_room() {
            return Err(format!("the pipeline has not turned for {} s", age_us / 1_000_000));
        }
        Ok(())
    }

    /// Whether batches are taken: the loop turns and the spool has room. That the sources are up
    /// is theirs to say.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn ready(&self) -> Result<(), String> {
        self.live()?;
        if self.appender.is_waiting_for_room() {
            return Err("the spool is full: sinks deliver too little, or the disk is".to_owned());
        }
        Ok(())
    }
}
