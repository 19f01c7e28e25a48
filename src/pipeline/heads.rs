//! What alerts and windows are told of an event, read out of its record when they ask: nothing of
//! it is stored twice.

use crate::alert::evidence::Evidence;
use crate::alert::sighting::{Head, Sighting};
use crate::alert::told::Told;
use crate::alert::trace::{Heads, Trace};
use crate::event::Event;
use crate::record::StoredEvent;

/// The head of the event at hand.
#[derive(Debug, Default)]
pub struct StoredHead<'r> {
    /// The record; none where it was damaged.
    event: Option<StoredEvent<'r>>,
    audit_id: &'r str,
    head: Option<Head>,
}

impl<'r> StoredHead<'r> {
    /// The head of the event in the payload of an EVENT record. Its audit id is asked for more
    /// often than all else, and stands by its matches.
    pub fn of(payload: &'r [u8], audit_id: &'r str) -> StoredHead<'r> {
        StoredHead { event: StoredEvent::decode(payload), audit_id, head: None }
    }
}

impl Heads for StoredHead<'_> {
    type Kept = Told;

    fn head<'h>(&'h mut self, _: &'h Sighting) -> &'h Head {
        let event = self.event;
        self.head.get_or_insert_with(|| event.map(|event| head_of(&event)).unwrap_or_default())
    }

    fn keep(&mut self, sighting: &Sighting, is_whole: bool) -> Told {
        let (position, audit_id) = (self.event.map_or("", |stored| stored.position), self.audit_id);
        Told::new(audit_id, position, is_whole.then(|| self.head(sighting)))
    }

    fn evidence(&mut self, trace: &Trace<Told>) -> Evidence {
        trace.kept.evidence(trace.time_us, trace.stage)
    }

    fn whole(&mut self, kept: &Told) -> Option<Head> {
        kept.whole()
    }
}

fn head_of(stored: &StoredEvent<'_>) -> Head {
    let nothing = || Event::parse(NOTHING).expect("an empty object is an event");
    let event = Event::salvage(stored.raw).unwrap_or_else(nothing);
    Head::new(&event, stored.cluster, stored.position)
}

/// What is shown of an event that cannot be read.
const NOTHING: &[u8] = b"{}";
