//! A chunk: a buffer of whole records that a worker takes away and decodes.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::event::reject::Reject;
use crate::ingest::marker::Form;

/// How many bytes a chunk holds unless one record is larger.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The longest record: a line, or an element of a document's list.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// What is kept of a longer one, to salvage the event's head.
pub const LINE_KEPT_BYTES: usize = 64 << 10;

/// A chunk larger than this needs a permit, of which there is one.
pub const SMALL_CHUNK_BYTES_MAX: usize = 8 << 20;

/// The most elements in a chunk.
pub const ITEMS_MAX: usize = 1 << 16;

/// Whole records and where they stand; made once a worker, filled by
/// [`ChunkReader::next_chunk`](crate::ingest::replay::ChunkReader::next_chunk).
#[derive(Debug)]
pub struct Chunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) filled: usize,
    /// The how-many-th chunk of the run this is, from 0.
    pub sequence: u64,
    /// Index of the file in the list that the reader was given.
    pub file: usize,
    /// Line number of the first record, from 1.
    pub first_line: u64,
    /// Offset of the first record in the decompressed file.
    pub offset: u64,
    /// How the records are cut.
    pub form: Form,
    /// What was rejected while cutting; offsets are those of the decompressed file.
    pub rejects: Vec<LineReject>,
    pub(crate) first_item: u64,
    pub(crate) items: Vec<Item>,
    pub(crate) headers: Vec<u8>,
    pub(crate) permit: Option<Permit>,
}

/// A reject and the line on which it stands, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineReject {
    /// The line.
    pub line: u64,
    /// What was rejected.
    pub reject: Reject,
}

/// Where an element stands in a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) bytes: Range<usize>,
    pub(crate) header: Range<usize>,
}

/// One record of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Record<'c> {
    /// The record's bytes, for [`decode`](crate::event::decode::decode).
    pub bytes: &'c [u8],
    /// For an element of a document's list: the document up to the list, for
    /// [`decode_element`](crate::event::decode::decode_element).
    pub header: Option<&'c [u8]>,
    /// The line on which the record starts, from 1.
    pub line: u64,
    /// Offset of the record in the decompressed file.
    pub offset: u64,
    /// For a file of documents: the how-many-th element of the file this is, from 0.
    pub item: Option<u64>,
}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk::new()
    }
}

impl Chunk {
    /// An empty chunk; its buffer grows when it is first filled.
    pub fn new() -> Chunk {
        Chunk {
            bytes: Vec::new(),
            filled: 0,
            sequence: 0,
            file: 0,
            first_line: 1,
            offset: 0,
            form: Form::Lines,
            rejects: Vec::new(),
            first_item: 0,
            items: Vec::new(),
            headers: Vec::new(),
            permit: None,
        }
    }

    /// Empties the chunk and leaves the large buffer, if it has it, to others.
    /// Workers that share a reader behind their own lock must call this before they wait for the
    /// lock.
    pub fn release(&mut self) {
        self.filled = 0;
        self.rejects.clear();
        self.items.clear();
        self.headers.clear();
        if let Some(mut permit) = self.permit.take() {
            std::mem::swap(&mut permit.buffer, &mut self.bytes);
        }
    }

    /// How many bytes of input the chunk holds.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the chunk holds neither records nor rejects.
    pub fn is_empty(&self) -> bool {
        self.filled == 0 && self.rejects.is_empty()
    }

    /// The records in the order of the file. Blank lines are among them.
    pub fn records(&self) -> Records<'_> {
        self.records_of(0..usize::MAX)
    }

    /// The records of a part. Lines are all in one part.
    pub fn records_of(&self, part: Range<usize>) -> Records<'_> {
        let Range { start, end } = part;
        Records { chunk: self, at: 0, next: start, end, line: self.first_line }
    }

    /// Parts of about equal length, at most so many, that can be decoded apart: elements of lists
    /// can, what stands by itself, or in an array without a name, may hold a piece of a line.
    pub fn parts(&self, most: usize) -> Vec<Range<usize>> {
        /// Fewer elements are not worth waking a thread for.
        const PART_ITEMS_MIN: usize = 64;
        let items = self.items.len();
        let is_of_lists = self.items.iter().all(|item| item.header.len() > 1);
        let parts = if is_of_lists { most.min(items / PART_ITEMS_MIN).max(1) } else { 1 };
        let end = |part: usize| if part == parts { usize::MAX } else { items / parts * part };
        (0..parts).map(|part| end(part)..end(part + 1)).collect()
    }

    /// How many bytes of input a part holds.
    pub fn bytes_of(&self, part: &Range<usize>) -> usize {
        let end = part.end.min(self.items.len());
        match self.items.get(part.start..end) {
            Some([only]) => only.bytes.len(),
            Some([first, .., last]) => last.bytes.end - first.bytes.start,
            _ => self.filled,
        }
    }

    /// Makes room for `length` bytes in all.
    pub(crate) fn grow(&mut self, length: usize, permits: &Arc<Permits>) {
        if length > SMALL_CHUNK_BYTES_MAX && self.permit.is_none() {
            let mut permit = Permits::take(permits);
            let mut large = std::mem::take(&mut permit.buffer);
            large.clear();
            large.extend_from_slice(&self.bytes);
            permit.buffer = std::mem::replace(&mut self.bytes, large);
            self.permit = Some(permit);
        }
        if length > self.bytes.len() {
            self.bytes.reserve_exact(length - self.bytes.len());
            self.bytes.resize(length, 0);
        }
    }

    /// The input in the chunk.
    pub(crate) fn input(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Iterates over the records of a chunk.
#[derive(Debug)]
pub struct Records<'c> {
    chunk: &'c Chunk,
    /// Where counting lines stands.
    at: usize,
    next: usize,
    /// The element before which to stop.
    end: usize,
    line: u64,
}

impl<'c> Iterator for Records<'c> {
    type Item = Record<'c>;

    #[inline]
    fn next(&mut self) -> Option<Record<'c>> {
        match self.chunk.form {
            Form::Lines => self.next_line(),
            Form::Documents => self.next_item(),
        }
    }
}

impl<'c> Records<'c> {
    #[inline]
    fn next_line(&mut self) -> Option<Record<'c>> {
        let start = self.at;
        let rest = &self.chunk.input()[start..];
        if rest.is_empty() {
            return None;
        }
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = self.line;
        self.line += 1;
        self.at = (start + length + 1).min(self.chunk.filled);
        let offset = self.chunk.offset + start as u64;
        Some(Record { bytes: &rest[..length], header: None, line, offset, item: None })
    }

    fn next_item(&mut self) -> Option<Record<'c>> {
        let item = self.chunk.items.get(self.next).filter(|_| self.next < self.end)?;
        let start = item.bytes.start;
        self.line += lines(&self.chunk.bytes[self.at..start]);
        self.at = start;
        let header = (!item.header.is_empty()).then(|| &self.chunk.headers[item.header.clone()]);
        let number = self.chunk.first_item + self.next as u64;
        self.next += 1;
        Some(Record {
            bytes: &self.chunk.bytes[item.bytes.clone()],
            header,
            line: self.line,
            offset: self.chunk.offset + start as u64,
            item: Some(number),
        })
    }
}

/// How many line ends there are.
pub(crate) fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The one permit for a large chunk.
#[derive(Debug)]
pub(crate) struct Permits {
    /// The one large buffer; absent while a chunk has it. It is handed on and never given back to
    /// the allocator, which would keep a copy of it for each thread.
    spare: Mutex<Option<Vec<u8>>>,
    given_back: Condvar,
}

impl Default for Permits {
    fn default() -> Permits {
        Permits { spare: Mutex::new(Some(Vec::new())), given_back: Condvar::new() }
    }
}

impl Permits {
    /// Waits until the permit is free.
    fn take(permits: &Arc<Permits>) -> Permit {
        let guard = permits.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spare = permits
            .given_back
            .wait_while(guard, |spare| spare.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let buffer = spare.take().unwrap_or_default();
        drop(spare);
        Permit { permits: Arc::clone(permits), buffer }
    }
}

/// Held by the one large chunk, with the buffer that is not in use: the small one while the chunk
/// is large.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    buffer: Vec<u8>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        *self.permits.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffer);
        self.permits.given_back.notify_one();
    }
}
