//! Messages of one partition on their way to the pipeline, cut into records.

use crate::event::reject::Reject;
use crate::ingest::batch::Notice;
use crate::ingest::chunk::{Chunk, Item, LineReject};
use crate::ingest::documents::{Cut, Splitter};
use crate::ingest::marker::Form;

/// Messages in the order of their offsets. Each is cut by itself, so that a damaged one takes no
/// other along.
pub(crate) struct Parcel {
    /// The offset of the first message.
    pub(crate) first: i64,
    /// The offset behind the last message.
    pub(crate) next: i64,
    /// What was noticed on the way.
    pub(crate) notices: Vec<Notice>,
    chunk: Chunk,
}

impl Parcel {
    /// Begins with the message of this offset.
    pub(crate) fn new(first: i64) -> Parcel {
        let mut chunk = Chunk::new();
        chunk.form = Form::Documents;
        Parcel { first, next: first, notices: Vec::new(), chunk }
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, payload: &[u8], offset: i64) {
        self.next = offset + 1;
        let chunk = &mut self.chunk;
        let mut splitter = Splitter::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let mut cut = Cut::default();
            splitter.split(rest, true, &mut cut);
            let used = splitter.keep().min(rest.len());
            let (base, headers) = (chunk.bytes.len(), chunk.headers.len());
            for item in cut.items {
                let bytes = item.bytes.start + base..item.bytes.end + base;
                let header = item.header.start + headers..item.header.end + headers;
                chunk.items.push(Item { bytes, header });
            }
            chunk.headers.extend_from_slice(&cut.headers);
            for refused in cut.refused {
                let end = (base + refused.at) as u64;
                let (length, offset) = (refused.length, end.saturating_sub(refused.length));
                let line = u64::try_from(self.next).unwrap_or(1);
                let reject = Reject { reason: refused.reason, offset, length, detail: "" };
                chunk.rejects.push(LineReject { line, reject });
            }
            // More elements than a chunk holds at once are cut in several goes.
            let (done, left) =
                if used == 0 { (rest, &rest[rest.len()..]) } else { rest.split_at(used) };
            chunk.bytes.extend_from_slice(done);
            splitter.forget(used);
            rest = left;
        }
        // Line ends keep messages apart for whoever looks at the bytes.
        chunk.bytes.push(b'\n');
        chunk.filled = chunk.bytes.len();
    }

    /// What the pipeline gets.
    pub(crate) fn finish(self) -> (Chunk, Vec<Notice>) {
        (self.chunk, self.notices)
    }
}
