//! The finite source: files one after the other, cut into chunks of whole records.
//!
//! One reader serves all workers: [`SharedReader`] hands each of them the next chunk to decode on
//! its own. Memory does not depend on the size of the input: a chunk is about [`CHUNK_BYTES`],
//! larger only when one record is, and only one such chunk exists at a time.
//!
//! A chunk never spans two files and ends where no record is open: behind a line end, behind the
//! last part of a line that a runtime cut, behind an element of a list. A run of NUL bytes (the
//! hole that copytruncate leaves; it may be gigabytes long) ends a record too and is passed over
//! without being kept.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::line::CriLine;
use crate::event::pieces;
use crate::event::reject::{Reject, RejectReason};
use crate::ingest::chunk::{
    CHUNK_BYTES, Chunk, LINE_BYTES_MAX, LINE_KEPT_BYTES, LineReject, Permits,
    SMALL_CHUNK_BYTES_MAX, lines,
};
use crate::ingest::compress::{self, Fault};
use crate::ingest::discover::LogFile;
use crate::ingest::documents::{Cut, Splitter, placed};
use crate::ingest::marker::{self, Form};

/// Cuts files into chunks.
pub struct ChunkReader {
    files: VecDeque<(usize, LogFile)>,
    current: Option<OpenFile>,
    sequence: u64,
    chunk_bytes: usize,
    permits: Arc<Permits>,
    bytes_read: Arc<AtomicU64>,
}

impl ChunkReader {
    /// Reads these files in their order.
    pub fn new(files: Vec<LogFile>) -> ChunkReader {
        ChunkReader {
            files: files.into_iter().enumerate().collect(),
            current: None,
            sequence: 0,
            chunk_bytes: CHUNK_BYTES,
            permits: Arc::default(),
            bytes_read: Arc::default(),
        }
    }

    /// The bytes taken from files so far, as they stand there (compressed): progress against
    /// [`LogFile::size`].
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    /// Fills `chunk` with the next records; false when all files are read.
    ///
    /// Blocks for the input, and while another large chunk is out when this one must be large. What
    /// cannot be read becomes a reject of the chunk and ends its file, not the run.
    pub fn next_chunk(&mut self, chunk: &mut Chunk) -> bool {
        loop {
            chunk.release();
            let Some(file) = &mut self.current else {
                let Some((index, file)) = self.files.pop_front() else { return false };
                self.current = Some(OpenFile::open(index, file, &self.bytes_read));
                continue;
            };
            file.fill(chunk, self.chunk_bytes, &self.permits);
            if chunk.is_empty() && file.is_done() {
                self.current = None;
            }
            if !chunk.is_empty() {
                chunk.sequence = self.sequence;
                self.sequence += 1;
                return true;
            }
        }
    }
}

/// A [`ChunkReader`] for several workers.
pub struct SharedReader {
    reader: Mutex<ChunkReader>,
    bytes_read: Arc<AtomicU64>,
}

impl SharedReader {
    /// Shares a reader.
    pub fn new(reader: ChunkReader) -> SharedReader {
        SharedReader { bytes_read: reader.bytes_read(), reader: Mutex::new(reader) }
    }

    /// Fills `chunk` with the next records; false when all files are read. What was in the chunk is
    /// given back before the reader is waited for.
    pub fn next_chunk(&self, chunk: &mut Chunk) -> bool {
        chunk.release();
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).next_chunk(chunk)
    }

    /// See [`ChunkReader::bytes_read`].
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

/// A file being read.
struct OpenFile {
    index: usize,
    source: Box<dyn Read + Send>,
    is_over: bool,
    /// Read, but not yet handed out.
    pending: Vec<u8>,
    pending_at: usize,
    /// Where the next chunk starts in the decompressed file.
    offset: u64,
    line: u64,
    item: u64,
    /// Set while the file is read as documents.
    splitter: Option<Splitter>,
    /// What ended the file early, until it is told.
    failure: Option<Reject>,
}

impl OpenFile {
    fn open(index: usize, file: LogFile, bytes_read: &Arc<AtomicU64>) -> OpenFile {
        let mut failure = None;
        let form = file.form;
        let source = file.open(bytes_read).unwrap_or_else(|_| {
            failure = Some(rejected(RejectReason::ReadFailed, "cannot be opened any more"));
            Box::new(std::io::empty())
        });
        OpenFile {
            index,
            source,
            is_over: failure.is_some(),
            pending: Vec::new(),
            pending_at: 0,
            offset: 0,
            line: 1,
            item: 0,
            splitter: (form == Form::Documents).then(Splitter::new),
            failure,
        }
    }

    fn is_done(&self) -> bool {
        self.is_over && self.pending_at == self.pending.len() && self.failure.is_none()
    }

    fn fill(&mut self, chunk: &mut Chunk, chunk_bytes: usize, permits: &Arc<Permits>) {
        chunk.file = self.index;
        match self.splitter.take() {
            Some(mut splitter) => {
                self.fill_documents(chunk, &mut splitter, chunk_bytes, permits);
                self.splitter = Some(splitter);
            }
            None => self.fill_lines(chunk, chunk_bytes, permits),
        }
        if let (true, Some(reject)) = (self.is_exhausted(), self.failure.take()) {
            let reject = Reject { offset: self.offset, ..reject };
            chunk.rejects.push(LineReject { line: self.line, reject });
        }
    }

    fn is_exhausted(&self) -> bool {
        self.is_over && self.pending_at == self.pending.len()
    }

    /// Reads until the chunk holds `length` bytes or the file is over.
    fn read(&mut self, chunk: &mut Chunk, length: usize, permits: &Arc<Permits>) {
        chunk.grow(length, permits);
        while chunk.filled < length {
            let room = &mut chunk.bytes[chunk.filled..length];
            let pending = &self.pending[self.pending_at..];
            if !pending.is_empty() {
                let taken = pending.len().min(room.len());
                room[..taken].copy_from_slice(&pending[..taken]);
                self.pending_at += taken;
                chunk.filled += taken;
                continue;
            }
            if self.is_over {
                return;
            }
            match self.source.read(room) {
                Ok(0) => self.is_over = true,
                Ok(count) => chunk.filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_over = true;
                    self.failure = Some(failure(&error));
                }
            }
        }
    }

    /// Cuts the chunk off at `length`; what stands behind comes again in the next one.
    fn unread(&mut self, chunk: &mut Chunk, length: usize) {
        let rest = &chunk.bytes[length..chunk.filled];
        if self.pending_at < self.pending.len() {
            // Everything in the chunk came from there.
            self.pending_at -= rest.len();
        } else {
            self.pending.clear();
            self.pending.extend_from_slice(rest);
            self.pending_at = 0;
        }
        chunk.filled = length;
    }

    /// Tells the chunk where it starts, and counts on to where it ends.
    fn commit(&mut self, chunk: &mut Chunk, used: usize) {
        chunk.first_line = self.line;
        chunk.offset = self.offset;
        self.line += lines(&chunk.bytes[..used]);
        self.offset += used as u64;
    }

    fn fill_lines(&mut self, chunk: &mut Chunk, chunk_bytes: usize, permits: &Arc<Permits>) {
        chunk.form = Form::Lines;
        let mut length = chunk_bytes;
        let mut looked_at = 0;
        loop {
            self.read(chunk, length, permits);
            let fresh = &chunk.input()[looked_at..];
            let nul = memchr::memchr(0, fresh).map(|at| looked_at + at);
            let text = &chunk.input()[..nul.unwrap_or(chunk.filled)];
            if let Some(at) = document_start(text, looked_at) {
                if at == 0 {
                    return self.turn_to_documents(chunk, chunk_bytes, permits);
                }
                self.unread(chunk, at);
                break;
            }
            if let Some(at) = nul {
                self.unread(chunk, at);
                if at == 0 {
                    self.skip_nuls(chunk);
                    continue;
                }
                break;
            }
            if self.is_exhausted() {
                break;
            }
            if let Some(end) = memchr::memrchr(b'\n', fresh)
                && let Some(end) = unframed_end(&chunk.input()[..looked_at + end + 1])
            {
                self.unread(chunk, end);
                break;
            }
            looked_at = if is_framed(chunk.input()) { 0 } else { chunk.filled };
            let head = &chunk.input()[..chunk.filled.min(marker::HEAD_BYTES)];
            if chunk.filled >= CHUNK_BYTES && marker::is_list(head) {
                return self.turn_to_documents(chunk, chunk_bytes, permits);
            }
            if length >= LINE_BYTES_MAX {
                match memchr::memrchr(b'\n', chunk.input()) {
                    // Records of pieces, and a long line behind them.
                    Some(end) if chunk.bytes[0] == b'{' => self.unread(chunk, end + 1),
                    _ => return self.give_up_line(chunk, chunk_bytes),
                }
                break;
            }
            length = (length * 2).min(LINE_BYTES_MAX);
        }
        self.commit(chunk, chunk.filled);
    }

    /// A line that turns out to be a document with a long list, or the first line of a document;
    /// the rest of the file is read as such.
    fn turn_to_documents(&mut self, chunk: &mut Chunk, chunk_bytes: usize, permits: &Arc<Permits>) {
        self.unread(chunk, 0);
        chunk.release();
        let mut splitter = Splitter::new();
        self.fill_documents(chunk, &mut splitter, chunk_bytes, permits);
        self.splitter = Some(splitter);
    }

    /// Passes over a line of which no end is in sight; its head stays, to be salvaged.
    fn give_up_line(&mut self, chunk: &mut Chunk, chunk_bytes: usize) {
        self.commit(chunk, 0);
        let mut length = chunk.filled as u64;
        let mut block = std::mem::take(&mut self.pending);
        block.drain(..self.pending_at);
        loop {
            if let Some(end) = memchr::memchr2(b'\n', 0, &block) {
                let is_line = block[end] == b'\n';
                length += end as u64;
                self.offset += length + u64::from(is_line);
                self.line += u64::from(is_line);
                self.pending_at = end + usize::from(is_line);
                break;
            }
            length += block.len() as u64;
            block.resize(chunk_bytes.max(1 << 16), 0);
            match self.source.read(&mut block) {
                Ok(count) if count > 0 => block.truncate(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => block.clear(),
                result => {
                    block.clear();
                    self.is_over = true;
                    self.failure = result.err().map(|error| failure(&error));
                    self.offset += length;
                    self.pending_at = 0;
                    break;
                }
            }
        }
        self.pending = block;
        chunk.filled = LINE_KEPT_BYTES.min(chunk.filled);
        let detail = "only its head is looked at";
        let reject =
            Reject { offset: chunk.offset, length, ..rejected(RejectReason::LineTooLong, detail) };
        chunk.rejects.push(LineReject { line: chunk.first_line, reject });
    }

    /// Passes over the NUL bytes that come next.
    fn skip_nuls(&mut self, chunk: &mut Chunk) {
        let mut length = 0;
        loop {
            let rest = &self.pending[self.pending_at..];
            let nuls = rest.iter().take_while(|byte| **byte == 0).count();
            length += nuls as u64;
            self.pending_at += nuls;
            if nuls < rest.len() || self.is_over {
                break;
            }
            self.pending.resize(CHUNK_BYTES, 0);
            self.pending_at = 0;
            match self.source.read(&mut self.pending) {
                Ok(count) => {
                    self.pending.truncate(count);
                    self.is_over = count == 0;
                }
                Err(error) => {
                    self.pending.clear();
                    self.is_over = error.kind() != std::io::ErrorKind::Interrupted;
                    self.failure = self.is_over.then(|| failure(&error));
                }
            }
        }
        let reject = Reject { offset: self.offset, length, ..rejected(RejectReason::NulRun, "") };
        chunk.rejects.push(LineReject { line: self.line, reject });
        self.offset += length;
    }

    fn fill_documents(
        &mut self,
        chunk: &mut Chunk,
        splitter: &mut Splitter,
        chunk_bytes: usize,
        permits: &Arc<Permits>,
    ) {
        chunk.form = Form::Documents;
        let (items, headers) =
            (std::mem::take(&mut chunk.items), std::mem::take(&mut chunk.headers));
        let mut cut = Cut { items, headers, refused: Vec::new() };
        let mut length = chunk_bytes;
        let used = loop {
            self.read(chunk, length, permits);
            let is_last = self.is_exhausted();
            splitter.split(chunk.input(), is_last, &mut cut);
            let keep = splitter.keep();
            if !cut.items.is_empty() || !cut.refused.is_empty() || keep > 0 || is_last {
                break keep;
            }
            if length >= LINE_BYTES_MAX {
                break splitter.give_up(chunk.filled, &mut cut);
            }
            length = (length * 2).min(LINE_BYTES_MAX);
        };
        splitter.forget(used);
        self.unread(chunk, used);
        self.commit(chunk, used);
        let rejects = placed(cut.refused, &chunk.bytes, chunk.first_line, chunk.offset);
        chunk.rejects.extend(rejects);
        chunk.first_item = self.item;
        self.item += cut.items.len() as u64;
        chunk.items = cut.items;
        chunk.headers = cut.headers;
    }
}

/// Where a document starts that is printed over several lines, in bytes of which those before
/// `looked_at` hold none.
fn document_start(bytes: &[u8], looked_at: usize) -> Option<usize> {
    let from = looked_at.saturating_sub(2);
    let is_start = |at: &usize| *at == 0 || bytes[*at - 1] == b'\n';
    let first = |needle: &[u8]| {
        memchr::memmem::find_iter(&bytes[from..], needle).map(|at| from + at).find(is_start)
    };
    [first(b"{\n"), first(b"{\r\n")].into_iter().flatten().min()
}

/// Where a chunk of lines may end: behind the last line, but not between the parts of a line that
/// was cut, for the worker that gets the first part must get the last. `None` when no line ends
/// here.
///
/// Of lines whose parts are held by JSON records no more than [`SMALL_CHUNK_BYTES_MAX`] are kept
/// together: a shipper that cuts lines for good leaves every one of them without an end.
pub(crate) fn unframed_end(bytes: &[u8]) -> Option<usize> {
    let mut end = bytes.len();
    'shorter: loop {
        let mut is_known = [false; 3];
        let mut behind = end;
        let mut looks = LOOKS_MAX;
        // The last line of each stream decides; a stream that is silent for long is not cut.
        while looks > 0 {
            let start =
                memchr::memrchr(b'\n', &bytes[..behind.saturating_sub(1)]).map_or(0, |at| at + 1);
            let line = &bytes[start..behind];
            let Some((stream, is_open)) = part_of(line, &mut looks) else { break };
            if is_open && !is_known[stream] {
                end = start;
                let is_json = line[0] == b'{';
                if is_json && bytes.len() - end >= SMALL_CHUNK_BYTES_MAX {
                    return Some(bytes.len());
                }
                if end == 0 {
                    return None;
                }
                continue 'shorter;
            }
            is_known[stream] = true;
            behind = start;
            if is_known[..2] == [true; 2] || is_known[2] || start == 0 {
                break;
            }
        }
        return Some(end);
    }
}

/// How many framed lines are looked at for the last one of each stream.
const LOOKS_MAX: usize = 256;

/// A record of JSON takes longer to look at than a CRI line.
const JSON_LOOKS: usize = 8;

/// The stream of a line that a runtime or a shipper has framed, and whether more of it follows.
fn part_of(line: &[u8], looks: &mut usize) -> Option<(usize, bool)> {
    if let Some(line) = CriLine::parse(line) {
        *looks -= 1;
        return Some((usize::from(line.is_stderr), line.is_partial));
    }
    *looks = looks.saturating_sub(JSON_LOOKS);
    pieces::ending(line)
}

fn is_framed(bytes: &[u8]) -> bool {
    CriLine::parse(&bytes[..bytes.len().min(200)]).is_some()
}

fn rejected(reason: RejectReason, detail: &'static str) -> Reject {
    Reject { reason, offset: 0, length: 0, detail }
}

fn failure(error: &std::io::Error) -> Reject {
    match compress::fault_of(error) {
        Some(Fault::Truncated) => {
            rejected(RejectReason::TruncatedCompression, "what can be read was")
        }
        Some(Fault::Corrupt) => rejected(RejectReason::CorruptCompression, "what can be read was"),
        Some(Fault::Garbage) => rejected(RejectReason::TrailingGarbage, "what can be read was"),
        None => rejected(RejectReason::ReadFailed, "what can be read was"),
    }
}

#[cfg(test)]
mod tests;
