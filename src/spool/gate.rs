//! What the writer and its senders tell each other: how much is on its way, and whether it waits
//! for room in the spool.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::spool::guard;

/// How long the writer waits before it looks for room again.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// What is on its way to the disk.
#[derive(Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// Bytes of batches that are not answered.
    pub(crate) bytes: u64,
    /// The writer keeps a batch for which the spool has no room.
    pub(crate) is_for_room: bool,
}

/// What the writer and its senders tell each other.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) waiting: watch::Sender<Waiting>,
    is_closing: Mutex<bool>,
    closing: Condvar,
}

impl Gate {
    /// Waits until it is time to look for room again; false when the spool closes instead.
    pub(crate) fn wait_for_room(&self) -> bool {
        self.set_for_room(true);
        let closing = guard(&self.is_closing);
        let waited = self.closing.wait_timeout_while(closing, ROOM_RETRY, |closing| !*closing);
        let (closing, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        !*closing
    }

    /// Lets the writer refuse what waits for room, now and from here on.
    pub(crate) fn close(&self) {
        *guard(&self.is_closing) = true;
        self.closing.notify_all();
    }

    /// Tells the senders whether the writer keeps batches for which there is no room.
    pub(crate) fn set_for_room(&self, is_for_room: bool) {
        self.waiting.send_if_modified(|waiting| {
            std::mem::replace(&mut waiting.is_for_room, is_for_room) != is_for_room
        });
    }
}

/// A batch's part of the bytes that wait, given back when it is answered.
pub(crate) struct Share {
    gate: Arc<Gate>,
    bytes: u64,
}

impl Share {
    /// Takes a part where `is_free` says of what waits that there is one.
    pub(crate) fn take(
        gate: &Arc<Gate>,
        bytes: u64,
        is_free: impl FnOnce(&Waiting) -> bool,
    ) -> Option<Share> {
        let is_taken = gate.waiting.send_if_modified(|waiting| {
            let is_free = is_free(waiting);
            waiting.bytes += if is_free { bytes } else { 0 };
            is_free
        });
        is_taken.then(|| Share { gate: Arc::clone(gate), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gate.waiting.send_modify(|waiting| waiting.bytes -= self.bytes);
    }
}
