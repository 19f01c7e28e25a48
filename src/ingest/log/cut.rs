//! Cuts the bytes behind a position into a chunk of whole records.
//!
//! A record is a line, or the lines that a container runtime made of one. What is not whole yet
//! waits where it is, in the file; nothing of it is kept here but how far it was searched for its
//! end. A run of NUL bytes ends a record; holes are passed over without being read. A line longer
//! than [`LINE_BYTES_MAX`] is handed over as its head and a reject.

use std::io;

use crate::event::reject::{Reject, RejectReason};
use crate::ingest::chunk::{
    CHUNK_BYTES, Chunk, LINE_BYTES_MAX, LINE_KEPT_BYTES, LineReject, SMALL_CHUNK_BYTES_MAX, lines,
};
use crate::ingest::log::anchor::{ANCHOR_BYTES_MAX, Anchor};
use crate::ingest::log::content::Content;
use crate::ingest::replay::unframed_end;

/// How much one call searches for the end of a line or of a run of NULs.
const SEARCH_BYTES_MAX: u64 = 64 << 20;

const BLOCK_BYTES: usize = 64 << 10;

/// A place in a file, always where a record starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Offset in the decompressed file.
    pub(crate) offset: u64,
    /// Number of the line that starts here, from 1.
    pub(crate) line: u64,
    /// The bytes before it.
    pub(crate) tail: Anchor,
}

impl Position {
    /// The start of a file.
    pub(crate) const START: Position =
        Position { offset: 0, line: 1, tail: Anchor { length: 0, hash: 0 } };
}

/// What there is behind a position.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Records, and where the next ones start.
    Piece(Box<Piece>),
    /// A search goes on with the next call.
    Searching,
    /// No whole record, up to the end of what there is.
    Nothing,
    /// A record so large that nothing else may be under way.
    Large,
}

/// Whole records.
#[derive(Debug)]
pub(crate) struct Piece {
    /// The records.
    pub(crate) chunk: Chunk,
    /// Where the next ones start.
    pub(crate) after: Position,
    /// Bytes of holes and NULs that were passed over.
    pub(crate) nuls: u64,
}

/// What is remembered between calls of one position.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// No line end stands between the position and here; 0 when nothing was searched.
    searched_to: u64,
    /// The first bytes of a line that is already too long.
    head: Vec<u8>,
}

/// How the next record may be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Nothing will be appended: what stands at the end is a record.
    pub(crate) is_final: bool,
    /// Nothing else is under way, so a record may be large.
    pub(crate) is_alone: bool,
    /// How many bytes there are, as far as is known.
    pub(crate) size: u64,
}

/// Where a record ends.
enum End {
    /// Before this offset; behind it a line end or NUL was found, or the end of a final file.
    At(u64),
    Searching,
    Unknown,
}

impl Cutter {
    /// Cuts what stands at `from`.
    ///
    /// # Errors
    /// What the system says; nothing has moved then.
    pub(crate) fn cut(
        &mut self,
        content: &mut Content,
        from: Position,
        terms: Terms,
    ) -> io::Result<Cut> {
        let mut chunk = Chunk::new();
        let mut at = from;
        let passed = pass_nuls(content, &mut at, terms, &mut chunk)?;
        let unfinished = match passed {
            Passed::All => self.fill(content, &mut at, terms, &mut chunk)?,
            Passed::Part => Some(Cut::Nothing),
            Passed::Nothing => return Ok(Cut::Nothing),
        };
        if let Some(unfinished) = unfinished {
            if chunk.rejects.is_empty() {
                return Ok(unfinished);
            }
            chunk.bytes = Vec::new();
            chunk.filled = 0;
        }
        self.searched_to = 0;
        self.head = Vec::new();
        content.release(at.offset.saturating_sub(ANCHOR_BYTES_MAX as u64));
        let nuls = passed_nuls(&chunk);
        Ok(Cut::Piece(Box::new(Piece { chunk, after: at, nuls })))
    }

    /// Fills the chunk with records; else says why it is empty.
    fn fill(
        &mut self,
        content: &mut Content,
        at: &mut Position,
        terms: Terms,
        chunk: &mut Chunk,
    ) -> io::Result<Option<Cut>> {
        chunk.first_line = at.line;
        chunk.offset = at.offset;
        // One byte more than is there shows that it is all.
        let available = terms.size.saturating_sub(at.offset).saturating_add(1);
        let length = CHUNK_BYTES.min(usize::try_from(available).unwrap_or(usize::MAX)).max(2);
        if self.searched_to <= at.offset + CHUNK_BYTES as u64 {
            match fill_lines(content, at, terms, chunk, length)? {
                Filled::Records => return Ok(None),
                Filled::Unfinished(cut) => return Ok(Some(cut)),
                Filled::LongLine => {}
            }
            self.searched_to = at.offset + chunk.filled as u64;
        }
        self.fill_long(content, at, terms, chunk)
    }

    /// A line that is longer than a usual chunk.
    fn fill_long(
        &mut self,
        content: &mut Content,
        at: &mut Position,
        terms: Terms,
        chunk: &mut Chunk,
    ) -> io::Result<Option<Cut>> {
        let end = match self.find_end(content, at.offset, terms)? {
            End::At(end) => end,
            End::Searching => return Ok(Some(Cut::Searching)),
            End::Unknown => return Ok(Some(Cut::Nothing)),
        };
        let length = end - at.offset;
        if length > LINE_BYTES_MAX as u64 || !self.head.is_empty() {
            self.give_up(content, at, end, chunk)?;
            return Ok(None);
        }
        let length = length as usize;
        if length > SMALL_CHUNK_BYTES_MAX && !terms.is_alone {
            return Ok(Some(Cut::Large));
        }
        chunk.bytes = vec![0; length];
        chunk.filled = content.read_at(&mut chunk.bytes, at.offset)?;
        if !terms.is_final && last_line(chunk).is_some() && unframed_end(chunk.input()).is_none() {
            // A piece of a line, and a long one.
            return match fill_lines(content, at, terms, chunk, length.saturating_mul(2))? {
                Filled::Records => Ok(None),
                Filled::Unfinished(cut) => Ok(Some(cut)),
                Filled::LongLine => Ok(Some(Cut::Nothing)),
            };
        }
        let end = chunk.filled;
        advance(chunk, at, end);
        Ok(None)
    }

    /// Searches for the end of the line that starts at `start`.
    fn find_end(&mut self, content: &mut Content, start: u64, terms: Terms) -> io::Result<End> {
        let mut block = [0; BLOCK_BYTES];
        let stop = self.searched_to + SEARCH_BYTES_MAX;
        loop {
            let count = content.read_at(&mut block, self.searched_to)?;
            if let Some(found) = memchr::memchr2(b'\n', 0, &block[..count]) {
                let behind = found + usize::from(block[found] == b'\n');
                return Ok(End::At(self.searched_to + behind as u64));
            }
            self.searched_to += count as u64;
            if count < block.len() {
                return Ok(if terms.is_final { End::At(self.searched_to) } else { End::Unknown });
            }
            if self.searched_to - start > LINE_BYTES_MAX as u64 {
                if self.head.is_empty() {
                    self.head = vec![0; LINE_KEPT_BYTES];
                    let length = content.read_at(&mut self.head, start)?;
                    self.head.truncate(length);
                }
                content.release(self.searched_to - ANCHOR_BYTES_MAX as u64);
            }
            if self.searched_to >= stop {
                return Ok(End::Searching);
            }
        }
    }

    /// Hands over the head of a line that is too long, and a reject for all of it.
    fn give_up(
        &mut self,
        content: &mut Content,
        at: &mut Position,
        end: u64,
        chunk: &mut Chunk,
    ) -> io::Result<()> {
        if self.head.is_empty() {
            self.head = vec![0; LINE_KEPT_BYTES];
            let length = content.read_at(&mut self.head, at.offset)?;
            self.head.truncate(length);
        }
        let mut tail = vec![0; ANCHOR_BYTES_MAX];
        let tail_at = end - ANCHOR_BYTES_MAX as u64;
        let length = content.read_at(&mut tail, tail_at)?;
        let tail = Anchor::of_tail(&tail[..length]);
        let reject = Reject {
            reason: RejectReason::LineTooLong,
            offset: at.offset,
            length: end - at.offset,
            detail: "only its head is looked at",
        };
        chunk.rejects.push(LineReject { line: at.line, reject });
        chunk.bytes = std::mem::take(&mut self.head);
        chunk.filled = chunk.bytes.len();
        *at = Position { offset: end, line: at.line + 1, tail };
        Ok(())
    }
}

/// What reading lines came to.
enum Filled {
    /// The chunk holds records.
    Records,
    /// It holds none, and why.
    Unfinished(Cut),
    /// It holds the beginning of a line that is longer than a usual chunk.
    LongLine,
}

/// Reads lines, at first as many as `length` bytes hold, until one ends a record.
fn fill_lines(
    content: &mut Content,
    at: &mut Position,
    terms: Terms,
    chunk: &mut Chunk,
    mut length: usize,
) -> io::Result<Filled> {
    loop {
        if length > SMALL_CHUNK_BYTES_MAX && !terms.is_alone {
            return Ok(Filled::Unfinished(Cut::Large));
        }
        let (end, is_over) = read_lines(content, chunk, at.offset, length)?;
        let is_full = length >= LINE_BYTES_MAX;
        let end = match end.or_else(|| is_full.then(|| last_line(chunk)).flatten()) {
            None if is_over && terms.is_final => Some(chunk.filled),
            None if is_over => Some(0),
            end => end,
        };
        if let Some(end) = end {
            advance(chunk, at, end);
            let is_empty = end == 0;
            return Ok(if is_empty { Filled::Unfinished(Cut::Nothing) } else { Filled::Records });
        }
        // Since its size was asked the file may have grown, so the first read can be of a few bytes
        // only: what has no line end is no long line before a usual chunk of it was read.
        length = match last_line(chunk).is_none() {
            true if length >= CHUNK_BYTES => return Ok(Filled::LongLine),
            true => (length * 2).min(CHUNK_BYTES),
            // Lines that a runtime cut, none of them a last part yet: look further.
            false => (length * 2).min(LINE_BYTES_MAX),
        };
    }
}

/// What came of NULs at a position.
enum Passed {
    /// None is there (any more).
    All,
    /// Some were passed, and there are more.
    Part,
    /// Nothing else is there, and more may come in their place.
    Nothing,
}

/// Passes over NULs at the position and notes them.
fn pass_nuls(
    content: &mut Content,
    at: &mut Position,
    terms: Terms,
    chunk: &mut Chunk,
) -> io::Result<Passed> {
    let start = at.offset;
    let mut to = start;
    let mut searched = 0;
    let mut block = [0; BLOCK_BYTES];
    while searched < SEARCH_BYTES_MAX {
        // Nearly always the first byte tells that there is no hole.
        let length = if to == start { 1 } else { BLOCK_BYTES };
        let count = content.read_at(&mut block[..length], to)?;
        let nuls = block[..count].iter().take_while(|byte| **byte == 0).count();
        to += nuls as u64;
        searched += count as u64;
        if nuls < count {
            break;
        }
        match if count == 0 { None } else { content.next_data(to)? } {
            Some(data) => to = data.max(to),
            None => {
                if !content.is_packed() {
                    to = content.stat()?.size.max(to);
                }
                if to == start || !terms.is_final {
                    return Ok(Passed::Nothing);
                }
                break;
            }
        }
        content.release(to);
    }
    if to > start {
        let length = to - start;
        let reject = Reject { reason: RejectReason::NulRun, offset: start, length, detail: "" };
        chunk.rejects.push(LineReject { line: at.line, reject });
        *at = Position { offset: to, line: at.line, tail: Anchor::default() };
    }
    Ok(if searched < SEARCH_BYTES_MAX { Passed::All } else { Passed::Part })
}

fn passed_nuls(chunk: &Chunk) -> u64 {
    let nuls = chunk.rejects.iter().filter(|found| found.reject.reason == RejectReason::NulRun);
    nuls.map(|found| found.reject.length).sum()
}

/// Reads up to `length` bytes and says where the last whole record before the first NUL ends, and
/// whether the file is over.
fn read_lines(
    content: &mut Content,
    chunk: &mut Chunk,
    offset: u64,
    length: usize,
) -> io::Result<(Option<usize>, bool)> {
    chunk.bytes.resize(length, 0);
    let had = chunk.filled;
    chunk.filled += content.read_at(&mut chunk.bytes[had..], offset + had as u64)?;
    let is_over = chunk.filled < length;
    if let Some(nul) = memchr::memchr(0, &chunk.bytes[had..chunk.filled]) {
        return Ok((Some(had + nul), is_over));
    }
    Ok((last_line(chunk).and_then(|end| unframed_end(&chunk.bytes[..end])), is_over))
}

fn last_line(chunk: &Chunk) -> Option<usize> {
    memchr::memrchr(b'\n', chunk.input()).map(|end| end + 1)
}

/// Ends the chunk and moves behind it.
fn advance(chunk: &mut Chunk, at: &mut Position, end: usize) {
    chunk.filled = end;
    chunk.bytes.truncate(end);
    // A buffer that is mostly empty is not worth keeping while the batch is under way.
    if end < CHUNK_BYTES / 2 {
        chunk.bytes.shrink_to_fit();
    }
    if end > 0 {
        let tail = Anchor::of_tail(chunk.input());
        let line = at.line + lines(chunk.input());
        *at = Position { offset: at.offset + end as u64, line, tail };
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ingest::log::tests::sim::Sim;

    const FRAME: &str = "2026-11-22T00:20:47.843025123Z stdout";

    /// The chunks that the bytes are cut into when their size was looked up at these times.
    fn cut_at(bytes: &[u8], sizes: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
        let sim = Sim::default();
        let file = sim.create(Path::new("/log/0.log"));
        file.write_at(bytes, None);
        let mut content = Content::of(file, false).unwrap();
        let (mut cutter, mut at, mut chunks) = (Cutter::default(), Position::START, Vec::new());
        for size in sizes {
            let terms = Terms { is_final: false, is_alone: true, size };
            while let Cut::Piece(piece) = cutter.cut(&mut content, at, terms).unwrap() {
                at = piece.after;
                chunks.push(piece.chunk.input().to_vec());
            }
        }
        assert_eq!(at.offset as usize, chunks.concat().len());
        chunks
    }

    #[test]
    fn pieces_stay_together_however_old_the_size_is() {
        let line = |flag: &str, text: &str| format!("{FRAME} {flag} {text}\n");
        let whole = line("F", "{}");
        let long = "x".repeat(CHUNK_BYTES + 10);
        for pieces in [
            vec![line("P", "{\"a\":\""), line("P", "bc"), line("F", "\"}")],
            vec![line("P", &long), line("F", "end")],
            vec![line("P", "start"), line("P", &long), line("F", "end")],
        ] {
            let joined = pieces.concat();
            let text = [&whole[..], &joined, &whole].concat();
            let ends = [whole.len(), whole.len() + joined.len(), text.len()];
            let near = (0..300).chain(text.len().saturating_sub(300)..=text.len() + 3);
            for size in near.map(|size| size as u64) {
                let mut end = 0;
                for chunk in cut_at(text.as_bytes(), [size, text.len() as u64]) {
                    end += chunk.len();
                    assert!(ends.contains(&end), "{end} of {ends:?}, looked at with {size}");
                }
                assert_eq!(end, text.len());
            }
        }
    }
}
