//! The segment: many lines in one object, each provable alone.
//!
//! ```text
//! frame …      zstd frames of whole lines, about 1 MiB each; `zstd -dc` prints the lines
//! index        skippable frame 0x184D2A51: where lines lie, and hashes above them (`index`)
//! margin       skippable frame 0x184D2A50: "kwm1", then a zstd frame of one text line a line:
//!              seq TAB received_us TAB flags TAB source TAB position
//! seek table   skippable frame 0x184D2A5E as zstd's seekable format has it; index and margin count
//!              as frames of no contents
//! ```
//! A line is the event's bytes with line ends (0x0A, 0x0D, in JSON only ever blank) as spaces; its
//! leaf is the RFC 6962 hash of these bytes without the line end behind them.

use std::io::{self, BufRead as _, BufReader, Read as _};

use sha2::{Digest, Sha256};

use crate::archive::index::Index;
use crate::archive::tree::{Hash, leaf_hash};

/// Bytes of lines after which a frame is closed.
const FRAME_BYTES: usize = 1 << 20;
/// Compression: level 3 is a tenth of the size of typical events at half a gigabyte a second.
const LEVEL: i32 = 3;
const SKIPPABLE_MARGIN: u32 = 0x184d_2a50;
const SKIPPABLE_INDEX: u32 = 0x184d_2a51;
const SKIPPABLE_SEEK_TABLE: u32 = 0x184d_2a5e;
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
const MARGIN_MAGIC: [u8; 4] = *b"kwm1";
/// Bytes of a frame's window, as a power of two, that a reader gives memory for.
const WINDOW_LOG_MAX: u32 = 27;
/// Bytes of one line that a reader takes.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// One line for a segment, and what stands in its margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'e> {
    /// The event's bytes.
    pub raw: &'e [u8],
    /// Its number in the spool.
    pub seq: u64,
    /// Event time, microseconds since the epoch.
    pub time_us: i64,
    /// When it arrived, microseconds since the epoch.
    pub received_us: i64,
    /// As the spool's record has them.
    pub flags: u8,
    /// The source's name.
    pub source: &'e str,
    /// Where in the source it stood.
    pub position: &'e str,
}

/// Why an object is not the segment that it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Frames that cannot be decompressed.
    #[error("cannot decompress: {0}")]
    Compression(io::Error),
    /// A line, or all of them, beyond what was announced.
    #[error("it holds more than {0} bytes of lines")]
    TooLong(u64),
    /// The last line has no end.
    #[error("its last line has no end")]
    Torn,
    /// No margin where one should be.
    #[error("its margin cannot be read")]
    Margin,
}

/// Builds a segment, line by line; holds what is compressed and one frame of lines.
#[derive(Default)]
pub struct Builder {
    out: Vec<u8>,
    open: Vec<u8>,
    table: Vec<(u32, u32)>,
    margin: String,
    index: Index,
    raw_size: u64,
    rewritten: u64,
    seqs: Option<(u64, u64)>,
    times: Option<(i64, i64)>,
}

/// A finished segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The object.
    pub bytes: Vec<u8>,
    /// SHA-256 of the object.
    pub sha256: Hash,
    /// Bytes of the lines, ends included.
    pub raw_size: u64,
    /// Lines.
    pub count: u64,
    /// Root of the tree over the lines.
    pub event_root: Hash,
    /// Numbers of the first and the last line.
    pub seqs: (u64, u64),
    /// Least and greatest event time.
    pub times: (i64, i64),
    /// Lines in which a line end was replaced.
    pub rewritten: u64,
}

impl Builder {
    /// Bytes of lines so far.
    pub fn raw_size(&self) -> u64 {
        self.raw_size
    }

    /// Takes a line. Numbers must rise.
    ///
    /// # Errors
    /// The compressor's.
    pub fn push(&mut self, line: &Line<'_>) -> io::Result<()> {
        let start = self.open.len();
        self.open.extend_from_slice(line.raw);
        if memchr::memchr2(b'\n', b'\r', line.raw).is_some() {
            self.rewritten += 1;
            let ends = self.open[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
            ends.for_each(|byte| *byte = b' ');
        }
        self.index.push(leaf_hash(&self.open[start..]));
        self.open.push(b'\n');
        self.raw_size += (self.open.len() - start) as u64;
        self.note(line);
        if self.open.len() >= FRAME_BYTES { self.close_frame() } else { Ok(()) }
    }

    fn note(&mut self, line: &Line<'_>) {
        let one_line = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        self.margin.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            line.seq,
            line.received_us,
            line.flags,
            one_line(line.source),
            one_line(line.position)
        ));
        let (first, _) = self.seqs.unwrap_or((line.seq, line.seq));
        self.seqs = Some((first, line.seq));
        let (least, greatest) = self.times.unwrap_or((line.time_us, line.time_us));
        self.times = Some((least.min(line.time_us), greatest.max(line.time_us)));
    }

    fn close_frame(&mut self) -> io::Result<()> {
        let frame = compress(&self.open)?;
        self.table.push((frame.len() as u32, self.open.len() as u32));
        self.out.extend_from_slice(&frame);
        self.index.close_frame();
        self.open.clear();
        Ok(())
    }

    /// Closes the segment; `None` when it has no line.
    ///
    /// # Errors
    /// The compressor's.
    pub fn seal(mut self) -> io::Result<Option<Sealed>> {
        if !self.open.is_empty() {
            self.close_frame()?;
        }
        let (Some(seqs), Some(times)) = (self.seqs, self.times) else { return Ok(None) };
        let index = self.index.encode();
        self.table.push((index.len() as u32 + 8, 0));
        skippable(SKIPPABLE_INDEX, &index, &mut self.out);
        let margin = [&MARGIN_MAGIC, compress(self.margin.as_bytes())?.as_slice()].concat();
        self.table.push((margin.len() as u32 + 8, 0));
        skippable(SKIPPABLE_MARGIN, &margin, &mut self.out);
        let mut table: Vec<u8> = self
            .table
            .iter()
            .flat_map(|(compressed, raw)| [compressed.to_le_bytes(), raw.to_le_bytes()].concat())
            .collect();
        table.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        table.push(0);
        table.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        skippable(SKIPPABLE_SEEK_TABLE, &table, &mut self.out);
        Ok(Some(Sealed {
            sha256: Sha256::digest(&self.out).into(),
            bytes: self.out,
            raw_size: self.raw_size,
            count: self.index.count(),
            event_root: self.index.root(),
            seqs,
            times,
            rewritten: self.rewritten,
        }))
    }
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, LEVEL)
}

fn skippable(magic: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&magic.to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Hands every line to `visit` until it says `false`; reads no further than `raw_size_max` bytes of
/// lines. Memory: one line and the decompressor's window.
///
/// # Errors
/// The object cannot be decompressed, holds more than announced, or ends within a line.
pub fn read_lines(
    object: &[u8],
    raw_size_max: u64,
    mut visit: impl FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(object).map_err(Error::Compression)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(Error::Compression)?;
    let mut reader = BufReader::with_capacity(1 << 17, decoder);
    let (mut line, mut read, mut index) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let limit = (raw_size_max - read).min(LINE_BYTES_MAX) + 1;
        let mut limited = (&mut reader).take(limit);
        let length = limited.read_until(b'\n', &mut line).map_err(Error::Compression)? as u64;
        read += length;
        if length == 0 {
            return Ok(());
        }
        if read > raw_size_max || length == limit {
            return Err(Error::TooLong(raw_size_max.min(LINE_BYTES_MAX)));
        }
        if line.pop() != Some(b'\n') {
            return Err(Error::Torn);
        }
        if !visit(index, &line) {
            return Ok(());
        }
        index += 1;
    }
}

/// What the margin says of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its number in the spool.
    pub seq: u64,
    /// When it arrived, microseconds since the epoch.
    pub received_us: i64,
    /// As the spool's record has them.
    pub flags: u8,
    /// The source's name.
    pub source: String,
    /// Where in the source it stood.
    pub position: String,
}

/// Reads the margin of an object, or of the last bytes of one, a note a line.
///
/// # Errors
/// There is none, or not in the form of one.
pub fn read_margin(object: &[u8], count_max: u64) -> Result<Vec<Note>, Error> {
    let frame = margin_frame(object).ok_or(Error::Margin)?;
    let mut notes = Vec::new();
    // Twice the longest note that a spool's record allows, so that no frame expands without end.
    let bytes_max = count_max.saturating_mul(1 << 18);
    read_lines(frame, bytes_max, |_, line| {
        let note = std::str::from_utf8(line).ok().and_then(note_of);
        note.map(|note| notes.push(note)).is_some()
    })?;
    (notes.len() as u64 == count_max).then_some(notes).ok_or(Error::Margin)
}

/// Where the seek table begins that an object, or its last bytes, ends with; and the lengths in it,
/// compressed and raw.
fn seek_table(tail: &[u8]) -> Option<(usize, Vec<(u32, u32)>)> {
    let number = |at: usize| Some(u32::from_le_bytes(*tail.get(at..)?.first_chunk::<4>()?));
    let end = tail.len();
    let is_seekable = number(end.checked_sub(4)?)? == SEEKABLE_MAGIC;
    let frames = number(end.checked_sub(9)?)? as usize;
    let table = end.checked_sub(frames.checked_mul(8)?.checked_add(17)?)?;
    let entry = |frame| Some((number(table + 8 + frame * 8)?, number(table + 12 + frame * 8)?));
    let lengths: Option<Vec<_>> = (0..frames).map(entry).collect();
    is_seekable.then_some((table, lengths?))
}

fn margin_frame(tail: &[u8]) -> Option<&[u8]> {
    let (table, lengths) = seek_table(tail)?;
    let start = table.checked_sub(lengths.last()?.0 as usize)?;
    let magic = u32::from_le_bytes(*tail.get(start..)?.first_chunk::<4>()?);
    let margin = tail.get(start + 8..table)?.strip_prefix(&MARGIN_MAGIC)?;
    (magic == SKIPPABLE_MARGIN).then_some(margin)
}

/// The index of an object, out of its last bytes; `None` when there is none in them, or none that
/// fits the lines. Nothing vouches for what it says but the proof that is made of it.
pub fn read_index(tail: &[u8], count: u64) -> Option<Index> {
    let (table, lengths) = seek_table(tail)?;
    let (margin, before) = lengths.split_last()?;
    let end = table.checked_sub(margin.0 as usize)?;
    let start = end.checked_sub(before.last()?.0 as usize)?;
    let magic = u32::from_le_bytes(*tail.get(start..)?.first_chunk::<4>()?);
    let frames = lengths.iter().filter(|(_, raw)| *raw > 0).count();
    let index = Index::decode(tail.get(start + 8..end)?, frames, count);
    index.filter(|_| magic == SKIPPABLE_INDEX)
}

/// The frames of lines of an object of `size` bytes, by the seek table at its end: where each
/// begins, its bytes, and the bytes of its lines. `None` when `tail` does not hold the table.
pub fn frames(tail: &[u8], size: u64) -> Option<Vec<(u64, u32, u32)>> {
    let (_, lengths) = seek_table(tail)?;
    let mut start = 0u64;
    let mut frames = Vec::with_capacity(lengths.len());
    for (compressed, raw) in lengths {
        if raw > 0 {
            frames.push((start, compressed, raw));
        }
        start = start.checked_add(u64::from(compressed)).filter(|end| *end <= size)?;
    }
    Some(frames)
}

fn note_of(line: &str) -> Option<Note> {
    let mut parts = line.splitn(5, '\t');
    Some(Note {
        seq: parts.next()?.parse().ok()?,
        received_us: parts.next()?.parse().ok()?,
        flags: parts.next()?.parse().ok()?,
        source: parts.next()?.to_owned(),
        position: parts.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::tree::root_of;

    fn line(raw: &[u8], seq: u64) -> Line<'_> {
        let (source, position) = ("log\t1", "audit.log:17");
        Line { raw, seq, time_us: seq as i64, received_us: -1, flags: 2, source, position }
    }

    fn sealed(lines: &[Vec<u8>]) -> Sealed {
        let mut builder = Builder::default();
        for (seq, raw) in (5..).zip(lines) {
            builder.push(&line(raw, seq)).unwrap();
        }
        builder.seal().unwrap().unwrap()
    }

    fn lines_of(sealed: &Sealed) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        read_lines(&sealed.bytes, sealed.raw_size, |index, line| {
            assert_eq!(index, lines.len() as u64);
            lines.push(line.to_vec());
            true
        })
        .unwrap();
        lines
    }

    #[test]
    fn large_and_odd_lines_come_out_as_they_went_in() {
        let odd = b"\xff\xfe{\"a\":1,\"a\":2}\x00 ".to_vec();
        let mut lines = vec![odd, Vec::new()];
        for (length, step) in [(64 << 10, 1), (1 << 20, 7), (4 << 20, 13), (2_500_000, 31)] {
            let noise = (0..length).map(|at: usize| (at * at / step) as u8 | 0x20);
            lines.push(noise.collect());
        }
        let sealed = sealed(&lines);
        assert_eq!(lines_of(&sealed), lines);
        let hashes: Vec<Hash> = lines.iter().map(|line| leaf_hash(line)).collect();
        assert_eq!(sealed.event_root, root_of(&hashes));
        assert_eq!((sealed.count, sealed.seqs, sealed.times), (6, (5, 10), (5, 10)));
        assert_eq!(sealed.rewritten, 0);
        let notes = read_margin(&sealed.bytes, 6).unwrap();
        let expected = Note {
            seq: 10,
            received_us: -1,
            flags: 2,
            source: "log 1".into(),
            position: "audit.log:17".into(),
        };
        assert_eq!(notes.last(), Some(&expected));
        let tail = &sealed.bytes[sealed.bytes.len() - 300..];
        assert_eq!(read_margin(tail, 6).unwrap().last(), Some(&expected));
        let frames = frames(tail, sealed.bytes.len() as u64).unwrap();
        let raw: u64 = frames.iter().map(|(_, _, raw)| u64::from(*raw)).sum();
        assert_eq!(raw, sealed.raw_size);
        let index = read_index(tail, 6).unwrap();
        assert_eq!(index.lines().iter().sum::<u64>(), 6);
        assert_eq!(index.lines().len(), frames.len());
        assert!(read_index(tail, 7).is_none() && read_index(&tail[280..], 6).is_none());
        let (start, length, raw) = frames[frames.len() - 1];
        let frame = &sealed.bytes[start as usize..][..length as usize];
        let mut found = Vec::new();
        read_lines(frame, u64::from(raw), |_, line| {
            found.push(line.to_vec());
            true
        })
        .unwrap();
        assert_eq!(found.last(), lines.last());
        assert!(frames.len() > 2 && super::frames(tail, 100).is_none());
        assert!(read_margin(&sealed.bytes, 5).is_err());
    }

    #[test]
    fn line_ends_within_a_line_become_spaces_and_are_counted() {
        let sealed = sealed(&[b"{\n\"a\":\r\n1}".to_vec(), b"{}".to_vec()]);
        assert_eq!(lines_of(&sealed), [b"{ \"a\":  1}".to_vec(), b"{}".to_vec()]);
        assert_eq!(sealed.rewritten, 1);
    }

    #[test]
    fn nothing_is_read_beyond_what_was_announced() {
        let sealed = sealed(&vec![b"0123456789".to_vec(); 1000]);
        let read = |max| read_lines(&sealed.bytes, max, |_, _| true);
        assert!(read(sealed.raw_size).is_ok());
        assert!(matches!(read(sealed.raw_size - 1), Err(Error::TooLong(_))));
        assert!(matches!(read(10), Err(Error::TooLong(10))));
        let torn = zstd::bulk::compress(b"a\nb", 3).unwrap();
        assert!(matches!(read_lines(&torn, 9, |_, _| true), Err(Error::Torn)));
        assert!(Builder::default().seal().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn a_damaged_object_is_never_read_for_good(at: prop::sample::Index, bit in 0u8..8) {
            let sealed = sealed(&[b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()]);
            let mut bytes = sealed.bytes.clone();
            let place = at.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let mut leaves = Vec::new();
            let _ = read_lines(&bytes, sealed.raw_size, |_, line| {
                leaves.push(leaf_hash(line));
                true
            });
            let _ = read_margin(&bytes, 2);
            prop_assert_ne!(Hash::from(Sha256::digest(&bytes)), sealed.sha256);
        }
    }
}
