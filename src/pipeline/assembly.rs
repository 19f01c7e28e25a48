//! Records to atomic appends: what belongs together stays together.
//!
//! An event, its match and its alerts are one append. Where even alone they are too large for one,
//! the alerts go ahead and the event with its match follows: an event that is stored counts as a
//! duplicate when it comes again, so nothing that it causes may come behind it. Dying in between
//! costs nothing: the event was not acknowledged, comes again, and raises the same alerts once
//! more, under the same ids.

use std::ops::Range;

use crate::alert::{Actor, Alert, Request};
use crate::pipeline::worker::{Judged, Matches};
use crate::record::kind;
use crate::spool::{Batch, FRAME_HEADER_BYTES, Frames};

/// Builds the spool's batches of one source's batch: one, or several where it is too large.
#[derive(Debug)]
pub struct Assembly {
    bytes_max: u64,
    finished: Vec<Batch>,
    open: Batch,
    /// Payloads of the records that are to stay together, one behind the other, and their ends.
    group: Vec<u8>,
    ends: Vec<(u8, usize)>,
}

/// What became of the events of a batch, each by its number among all its parts.
#[derive(Debug, Default)]
pub struct Caused {
    /// Those that are stored already, ascending.
    pub duplicates: Vec<usize>,
    /// What was raised, in the order of the events.
    pub alerts: Vec<RaisedAlert>,
    /// Alerts that no worker told.
    pub own: Frames,
}

/// An alert that is raised, by where its record lies.
#[derive(Clone, Debug)]
pub struct RaisedAlert {
    /// The event that raised it.
    pub event: usize,
    /// The part in whose [`Judged::alerts`] it is; without one it is in [`Caused::own`].
    pub part: Option<usize>,
    /// Its payload.
    pub payload: Range<usize>,
}

impl RaisedAlert {
    fn payload<'p>(&self, parts: &'p [Judged], own: &'p Frames) -> &'p [u8] {
        self.part.map_or(own, |part| &parts[part].alerts).payload(&self.payload)
    }
}

impl Assembly {
    /// Nothing yet; batches will have at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Assembly {
        Assembly {
            bytes_max,
            finished: Vec::new(),
            open: Batch::new(),
            group: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds the events of a batch that are new, and what they caused. Mostly that is one append of
    /// what the workers framed, not copied again, with the alerts at its end.
    pub fn events(&mut self, mut parts: Vec<Judged>, caused: Caused) {
        let bytes = |part: &Judged| part.frames.bytes() + part.alerts.bytes();
        let bytes = parts.iter().map(bytes).sum::<u64>() + caused.own.bytes();
        let is_one = self.open.bytes() + bytes <= self.bytes_max;
        if !is_one || !caused.duplicates.is_empty() {
            return self.events_apart(&parts, &caused);
        }
        for part in &mut parts {
            self.open.append(std::mem::take(&mut part.frames));
        }
        let told: u32 = parts.iter().map(|part| part.alerts.records()).sum();
        let is_all = caused.own.records() == 0 && caused.alerts.len() == told as usize;
        if is_all {
            return parts.into_iter().for_each(|part| self.open.append(part.alerts));
        }
        for raised in &caused.alerts {
            self.open.push(kind::ALERT, raised.payload(&parts, &caused.own));
        }
    }

    /// The same event by event: something is left out, or there is too much for one append.
    fn events_apart(&mut self, parts: &[Judged], caused: &Caused) {
        let mut duplicates = caused.duplicates.iter().peekable();
        let mut alerts = caused.alerts.iter().peekable();
        let all = parts.iter().flat_map(|part| part.entries.iter().map(move |entry| (part, entry)));
        for (number, (part, entry)) in all.enumerate() {
            if duplicates.next_if(|duplicate| **duplicate == number).is_some() {
                continue;
            }
            if let Matches::Stored(place) = &entry.matches {
                let payload = part.frames.payload(place);
                self.push(kind::MATCH, |bytes| bytes.extend_from_slice(payload));
            }
            while let Some(raised) = alerts.next_if(|raised| raised.event == number) {
                self.alert(raised.payload(parts, &caused.own));
            }
            self.close_behind(Some((kind::EVENT, part.frames.payload(&entry.event))));
        }
    }

    /// Adds a record to the open group.
    pub fn push(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.group);
        self.ends.push((kind, self.group.len()));
    }

    /// Adds the payload of an alert's record to the open group; one that no append can hold without
    /// what its client chose the length of.
    pub fn alert(&mut self, payload: &[u8]) {
        let is_too_large = (payload.len() + FRAME_HEADER_BYTES) as u64 > self.bytes_max;
        let whole = is_too_large.then(|| serde_json::from_slice::<Alert>(payload).ok()).flatten();
        self.push(kind::ALERT, |bytes| match whole {
            Some(alert) => gist(&alert).encode(bytes),
            None => bytes.extend_from_slice(payload),
        });
    }

    /// Closes the group, which begins with one more record: an event of which it is known now that
    /// it stands before what it caused.
    pub fn close_behind(&mut self, first: Option<(u8, &[u8])>) {
        let frames = self.ends.len() + usize::from(first.is_some());
        let first_bytes = first.map_or(0, |(_, payload)| payload.len());
        let bytes = (self.group.len() + first_bytes + frames * FRAME_HEADER_BYTES) as u64;
        let is_too_large = bytes > self.bytes_max;
        if self.open.bytes() + bytes > self.bytes_max {
            self.cut();
        }
        if is_too_large {
            self.take(|kind| kind == kind::ALERT);
            self.cut();
        }
        if let Some((kind, payload)) = first {
            self.open.push(kind, payload);
        }
        self.take(|kind| !is_too_large || kind != kind::ALERT);
        self.group.clear();
        self.ends.clear();
    }

    /// Takes records of the group into the open append, or into more of them.
    fn take(&mut self, is_wanted: impl Fn(u8) -> bool) {
        let mut start = 0;
        for (kind, end) in &self.ends {
            let payload = &self.group[start..*end];
            start = *end;
            if !is_wanted(*kind) {
                continue;
            }
            let bytes = (payload.len() + FRAME_HEADER_BYTES) as u64;
            if self.open.bytes() + bytes > self.bytes_max && !self.open.is_empty() {
                self.finished.push(std::mem::take(&mut self.open));
            }
            self.open.push(*kind, payload);
        }
    }

    fn cut(&mut self) {
        if !self.open.is_empty() {
            self.finished.push(std::mem::take(&mut self.open));
        }
    }

    /// The batches in their order; none when nothing was pushed.
    pub fn finish(mut self) -> Vec<Batch> {
        self.close_behind(None);
        self.cut();
        self.finished
    }
}

/// What is left of an alert that alone is too large for an append: which it is, of which rule, its
/// sentence and how much evidence there is. What a client chose the length of goes.
fn gist(alert: &Alert) -> Alert {
    Alert {
        actor: Actor::default(),
        request: Request::default(),
        reason: Vec::new(),
        events: Vec::new(),
        ..alert.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_within_the_limit() {
        let mut assembly = Assembly::new(200);
        for size in [50, 60, 10] {
            assembly.push(2, |bytes| bytes.resize(bytes.len() + size, b'x'));
            assembly.close_behind(Some((1, b"event")));
        }
        assembly.push(2, |bytes| bytes.extend_from_slice(&[b'y'; 150]));
        assembly.push(2, |bytes| bytes.extend_from_slice(&[b'z'; 150]));
        let batches = assembly.finish();
        let sizes: Vec<(u32, u64)> =
            batches.iter().map(|one| (one.records(), one.bytes())).collect();
        assert_eq!(sizes, [(2, 119), (2, 129), (2, 79), (1, 182), (1, 182)]);
    }

    #[test]
    fn what_is_too_large_has_its_alerts_first() {
        let mut assembly = Assembly::new(200);
        assembly.push(kind::EVENT, |bytes| bytes.extend_from_slice(b"before"));
        assembly.close_behind(None);
        for (kind, size) in [(kind::MATCH, 20), (kind::ALERT, 90), (kind::ALERT, 90)] {
            assembly.push(kind, |bytes| bytes.resize(bytes.len() + size, b'x'));
        }
        assembly.close_behind(Some((kind::EVENT, &[b'e'; 80])));
        assembly.push(kind::EVENT, |bytes| bytes.extend_from_slice(b"behind"));
        let sizes: Vec<(u32, u64)> =
            assembly.finish().iter().map(|one| (one.records(), one.bytes())).collect();
        // The event before; an alert each; the event with its match; the one behind.
        assert_eq!(sizes, [(1, 38), (1, 122), (1, 122), (2, 164), (1, 38)]);
    }

    #[test]
    fn an_alert_that_no_append_holds_is_stored_without_what_its_client_chose() {
        let alert = r#"{"id":"a","time":"2026-01-01T00:00:00Z","kind":"match","cluster":"c",
            "rule":{"id":"r","title":"t","level":"high","source":"sigma"},"actor":{"groups":[],
            "source_ips":[],"user_agent":"AGENT"},"request":{},"summary":"s","count":3}"#;
        let alert = alert.replace("AGENT", &"x".repeat(900));
        let alert: Alert = serde_json::from_str(&alert).unwrap();
        let sizes = |bytes_max| {
            let mut assembly = Assembly::new(bytes_max);
            let mut payload = Vec::new();
            alert.encode(&mut payload);
            assembly.alert(&payload);
            assembly.finish().iter().map(Batch::bytes).sum::<u64>()
        };
        assert!(sizes(2_000) > 900 && sizes(800) < 500);
        assert_eq!(gist(&alert).id, alert.id);
    }

    #[test]
    fn nothing_is_no_batch() {
        assert!(Assembly::new(200).finish().is_empty());
    }
}
