//! Cuts the bytes of one body into chunks of whole records, as they arrive.

use crate::event::reject::{Reject, RejectReason};
use crate::ingest::chunk::{CHUNK_BYTES, Chunk, LineReject, lines};
use crate::ingest::documents::{Cut, Splitter, placed};
use crate::ingest::marker::Form;

/// What is first asked of the allocator for a body of unknown length.
const WINDOW_BYTES: usize = 64 << 10;

/// A body being cut: an EventList of any size needs the memory of one chunk, or of its largest
/// event.
#[derive(Debug)]
pub struct Cutter {
    splitter: Splitter,
    /// What is not yet in a chunk.
    window: Vec<u8>,
    /// How long the window must be before it is looked at.
    wanted: usize,
    event_bytes_max: usize,
    sequence: u64,
    offset: u64,
    line: u64,
    item: u64,
    /// Rejects of the body that belong to no record.
    rejects: Vec<LineReject>,
    is_over: bool,
}

impl Cutter {
    /// Cuts a body; of an event longer than `event_bytes_max` the head is kept.
    pub fn new(event_bytes_max: usize) -> Cutter {
        Cutter {
            splitter: Splitter::new(),
            window: Vec::new(),
            wanted: CHUNK_BYTES.min(event_bytes_max),
            event_bytes_max,
            sequence: 0,
            offset: 0,
            line: 1,
            item: 0,
            rejects: Vec::new(),
            is_over: false,
        }
    }

    /// How much memory the window takes once `more` bytes were pushed.
    pub fn capacity_with(&self, more: usize) -> usize {
        let length = (self.window.len() + more).min(self.wanted);
        match length <= self.window.capacity() {
            true => self.window.capacity(),
            false => length.max(2 * self.window.capacity()).max(WINDOW_BYTES).min(self.wanted),
        }
    }

    /// Takes bytes from the front of `bytes` until a chunk is full. To be called until no bytes are
    /// left.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Chunk> {
        let room = self.wanted.saturating_sub(self.window.len());
        let (taken, rest) = bytes.split_at(room.min(bytes.len()));
        let capacity = self.capacity_with(taken.len());
        self.window.reserve_exact(capacity.saturating_sub(self.window.len()));
        self.window.extend_from_slice(taken);
        *bytes = rest;
        match self.window.len() >= self.wanted {
            true => self.cut(false),
            false => None,
        }
    }

    /// Notes what is wrong with the body where it stands now.
    pub fn reject(&mut self, reason: RejectReason, detail: &'static str) {
        let offset = self.offset + self.window.len() as u64;
        let line = self.line + lines(&self.window);
        let reject = Reject { reason, offset, length: 0, detail };
        self.rejects.push(LineReject { line, reject });
    }

    /// What is left when the body is over. To be called until there is nothing.
    pub fn finish(&mut self) -> Option<Chunk> {
        while !self.is_over {
            let before = self.window.len();
            let chunk = self.cut(true);
            self.is_over = self.window.is_empty() || chunk.is_none() && self.window.len() == before;
            if chunk.is_some() {
                return chunk;
            }
        }
        if self.rejects.is_empty() {
            return None;
        }
        let mut chunk = self.chunk(Vec::new(), Cut::default());
        chunk.rejects = std::mem::take(&mut self.rejects);
        Some(chunk)
    }

    fn cut(&mut self, is_last: bool) -> Option<Chunk> {
        let mut cut = Cut::default();
        self.splitter.split(&self.window, is_last, &mut cut);
        let mut used = self.splitter.keep();
        if cut.items.is_empty() && cut.refused.is_empty() && used == 0 && !is_last {
            if self.wanted < self.event_bytes_max {
                self.wanted = (self.wanted * 2).min(self.event_bytes_max);
                return None;
            }
            used = self.splitter.give_up(self.window.len(), &mut cut);
        }
        self.splitter.forget(used);
        self.wanted = CHUNK_BYTES.min(self.event_bytes_max);
        let rest = self.window[used..].to_vec();
        let mut bytes = std::mem::replace(&mut self.window, rest);
        bytes.truncate(used);
        if cut.items.is_empty() && cut.refused.is_empty() {
            self.line += lines(&bytes);
            self.offset += used as u64;
            return None;
        }
        if bytes.capacity() > 2 * bytes.len() {
            bytes.shrink_to_fit();
        }
        Some(self.chunk(bytes, cut))
    }

    fn chunk(&mut self, bytes: Vec<u8>, cut: Cut) -> Chunk {
        let mut chunk = Chunk::new();
        chunk.rejects.extend(placed(cut.refused, &bytes, self.line, self.offset));
        chunk.form = Form::Documents;
        chunk.sequence = self.sequence;
        chunk.first_line = self.line;
        chunk.offset = self.offset;
        chunk.first_item = self.item;
        self.sequence += 1;
        self.line += lines(&bytes);
        self.offset += bytes.len() as u64;
        self.item += cut.items.len() as u64;
        chunk.filled = bytes.len();
        chunk.bytes = bytes;
        chunk.items = cut.items;
        chunk.headers = cut.headers;
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::chunk::ITEMS_MAX;
    use proptest::prelude::*;

    /// All records and rejects of a body that comes in pieces of this size.
    fn cut(body: &[u8], piece: usize, event_bytes_max: usize) -> (Vec<Vec<u8>>, Vec<RejectReason>) {
        let mut cutter = Cutter::new(event_bytes_max);
        let mut chunks = Vec::new();
        for mut piece in body.chunks(piece) {
            while !piece.is_empty() {
                chunks.extend(cutter.push(&mut piece));
                assert!(cutter.window.capacity() <= event_bytes_max.max(2 * CHUNK_BYTES));
            }
        }
        chunks.extend(std::iter::from_fn(|| cutter.finish()));
        let (mut records, mut rejects, mut item) = (Vec::new(), Vec::new(), 0);
        for (sequence, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.sequence, sequence as u64);
            for record in chunk.records() {
                assert_eq!(record.item, Some(item));
                let at = record.offset as usize;
                assert_eq!(&body[at..at + record.bytes.len()], record.bytes);
                assert!(item > 99 || record.line == 1 + lines(&body[..at]));
                item += 1;
                records.push(record.bytes.to_vec());
            }
            rejects.extend(chunk.rejects.iter().map(|reject| reject.reject.reason));
        }
        (records, rejects)
    }

    #[test]
    fn cuts_lists_and_documents() {
        for (body, records) in [
            ("", &[][..]),
            ("{\"kind\":\"EventList\",\"items\":[]}", &[]),
            ("{\"items\":[{\"a\":1}, {\"b\":[2]}]}\n", &["{\"a\":1}", "{\"b\":[2]}"]),
            ("{\"a\":1}\n{\"b\":1}", &["{\"a\":1}", "{\"b\":1}"]),
            ("hello\nworld", &["hello", "world"]),
            ("{\"items\":[{\"a\":1},{\"b\":", &["{\"a\":1}", "{\"b\":"]),
        ] {
            for piece in [1, 7, 1000] {
                let (found, rejects) = cut(body.as_bytes(), piece, 1 << 20);
                assert_eq!(found, records.iter().map(|r| r.as_bytes()).collect::<Vec<_>>());
                assert_eq!(rejects, []);
            }
        }
    }

    #[test]
    fn keeps_the_head_of_what_is_too_long() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
        let body = format!("{{\"items\":[{{\"b\":1}},{long},{{\"c\":1}}]}}");
        let (records, rejects) = cut(body.as_bytes(), 10_000, 1 << 20);
        assert_eq!(records.len(), 3);
        assert!(records[1].len() < 100_000 && long.as_bytes().starts_with(&records[1]));
        assert_eq!(
            (&records[2][..], rejects),
            (&b"{\"c\":1}"[..], vec![RejectReason::LineTooLong])
        );
    }

    #[test]
    fn takes_more_items_than_a_chunk_holds() {
        let body = format!("[{}1]", "1,".repeat(3 * ITEMS_MAX));
        let (records, _) = cut(body.as_bytes(), 1 << 20, 8 << 20);
        assert_eq!(records.len(), 3 * ITEMS_MAX + 1);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same(
            body in "(\\{\"items\":\\[)?([\\[\\]{}\",:\\\\\na\0 ]|\\{\"a\":1\\},){0,60}",
            piece in 1usize..40,
        ) {
            prop_assert_eq!(
                cut(body.as_bytes(), piece, 1 << 20),
                cut(body.as_bytes(), 1 << 20, 1 << 20)
            );
        }
    }
}
