//! Records to atomic appends: what belongs together stays together.

use crate::alert::Alert;
use crate::record::kind;
use crate::rule::Level;
use crate::spool::{Batch, FRAME_HEADER_BYTES};

/// Builds the spool's batches of one source's batch: one, or several where it is too large.
#[derive(Debug)]
pub struct Assembly {
    bytes_max: u64,
    finished: Vec<Batch>,
    open: Batch,
    /// Payloads of the records that are to stay together, one behind the other, and their ends.
    group: Vec<u8>,
    ends: Vec<(u8, usize)>,
    /// Alerts, by level.
    pub alerts: [u64; Level::ALL.len()],
}

impl Assembly {
    /// Nothing yet; batches will have at most `bytes_max`, about `bytes` in all.
    pub fn new(bytes_max: u64, bytes: usize) -> Assembly {
        Assembly {
            bytes_max,
            finished: Vec::new(),
            open: Batch::with_capacity(bytes.min(bytes_max as usize)),
            group: Vec::new(),
            ends: Vec::new(),
            alerts: Default::default(),
        }
    }

    /// Adds a record to the open group.
    pub fn push(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.group);
        self.ends.push((kind, self.group.len()));
    }

    /// Adds an alert to the open group.
    pub fn alert(&mut self, alert: &Alert) {
        self.alerts[alert.rule.level as usize] += 1;
        self.push(kind::ALERT, |bytes| {
            serde_json::to_writer(bytes, alert).expect("an alert is JSON, and memory takes it");
        });
    }

    /// Closes the group, which begins with one more record: an event of which it is known now that
    /// it stands before what it caused. The group is one append unless it alone is too large.
    pub fn close_behind(&mut self, first: Option<(u8, &[u8])>) {
        let frames = self.ends.len() + usize::from(first.is_some());
        let first_bytes = first.map_or(0, |(_, payload)| payload.len());
        let bytes = self.group.len() + first_bytes + frames * FRAME_HEADER_BYTES;
        if self.open.bytes() + bytes as u64 > self.bytes_max {
            self.cut();
        }
        if let Some((kind, payload)) = first {
            self.open.push(kind, payload);
        }
        let mut start = 0;
        for (kind, end) in std::mem::take(&mut self.ends) {
            let payload = &self.group[start..end];
            let bytes = (payload.len() + FRAME_HEADER_BYTES) as u64;
            if self.open.bytes() + bytes > self.bytes_max {
                self.finished.push(std::mem::take(&mut self.open));
            }
            self.open.push(kind, payload);
            start = end;
        }
        self.group.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_within_the_limit() {
        let mut assembly = Assembly::new(200, 1_000);
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
    fn nothing_is_no_batch() {
        assert!(Assembly::new(200, 0).finish().is_empty());
    }
}
