//! One append-only segment file: create, append, sync, cut, and the scan that reads it.
//!
//! ```text
//! struct Segment {                // file name: the first sequence number, 20 digits, ".seg"
//!   header: [SegmentHeader; 2],   // two equal copies, so that one flipped bit costs nothing
//!   frames: [Frame],              // see record.rs
//! }
//! struct SegmentHeader {          // 32 bytes, little-endian
//!   magic: [u8; 7],               // "kwspool"
//!   version: u8,                  // 1
//!   crc: u32,                     // CRC32C of bytes 0..8 and 12..32
//!   salt: u32,                    // random; part of every frame's header_crc
//!   seq_first: u64,               // sequence number of the first record
//!   seq_first_previous: u64,      // the same of the segment before; 0 for none
//! }
//! ```
//!
//! `magic`, `version` and `crc` keep their places in every version. The salt is there because
//! payloads are written by strangers: a frame planted inside a payload must not look like one of
//! the segment's own when a scan searches for the next frame behind a damaged one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use crate::spool::disk::{Disk, File};
use crate::spool::record::{Batch, FRAME_HEADER_BYTES, Header, MAGIC};
use crate::spool::{Error, Reason};

/// Bytes before the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;

const VERSION: u8 = 1;
const COPY_BYTES: usize = 32;
const READ_BYTES: usize = 256 << 10;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) salt: u32,
    pub(crate) seq_first: u64,
    pub(crate) seq_first_previous: u64,
}

/// What the first bytes of a segment file turn out to be.
pub(crate) enum Opened {
    /// A segment of this version.
    Segment(SegmentHeader),
    /// Written by a later release.
    Version(u8),
    /// Neither copy of the header can be read.
    Damaged,
}

impl SegmentHeader {
    fn encode(&self) -> [u8; COPY_BYTES] {
        let mut bytes = [0; COPY_BYTES];
        bytes[..7].copy_from_slice(b"kwspool");
        bytes[7] = VERSION;
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq_first.to_le_bytes());
        bytes[24..].copy_from_slice(&self.seq_first_previous.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(copy: &[u8]) -> Opened {
        let word = |at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().unwrap_or_default());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&copy[..8]), &copy[12..]);
        if copy[..7] != *b"kwspool" || copy[8..12] != crc.to_le_bytes() {
            return Opened::Damaged;
        }
        if copy[7] != VERSION {
            return Opened::Version(copy[7]);
        }
        Opened::Segment(SegmentHeader {
            salt: (word(8) >> 32) as u32,
            seq_first: word(16),
            seq_first_previous: word(24),
        })
    }

    /// Reads the header of an open segment file from whichever copy is whole.
    pub(crate) fn read(file: &File, path: &Path) -> Result<Opened, Error> {
        let mut bytes = [0; 2 * COPY_BYTES];
        file.read_full_at(&mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
        Ok(match SegmentHeader::decode(&bytes[..COPY_BYTES]) {
            Opened::Damaged => SegmentHeader::decode(&bytes[COPY_BYTES..]),
            found => found,
        })
    }
}

/// The file name of the segment whose first record has this sequence number.
pub(crate) fn file_name(seq_first: u64) -> String {
    format!("{seq_first:020}.seg")
}

/// The sequence number in a segment's file name; `None` for any other name.
pub(crate) fn seq_in_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The segment that is being written.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    /// Where the next frame goes.
    pub(crate) end: u64,
    /// Everything before this is durable.
    pub(crate) synced: u64,
    file: File,
}

impl Segment {
    /// Creates an empty segment; the file and its name are durable on return. On an error nothing
    /// of it counts, but the file may be there: a later `create` of the same name empties it.
    pub(crate) fn create(
        disk: &Disk,
        dir: &Path,
        seq_first: u64,
        seq_first_previous: u64,
    ) -> std::io::Result<Segment> {
        let salt = RandomState::new().hash_one(seq_first) as u32;
        let header = SegmentHeader { salt, seq_first, seq_first_previous };
        let path = dir.join(file_name(seq_first));
        let file = disk.create(&path)?;
        let copy = header.encode();
        file.write_all_at(&[copy, copy].concat(), 0)?;
        file.sync()?;
        disk.sync_dir(dir)?;
        Ok(Segment { header, path, end: SEGMENT_HEADER_BYTES, synced: SEGMENT_HEADER_BYTES, file })
    }

    /// Opens a segment that recovery has settled, at its end.
    pub(crate) fn reopen(
        disk: &Disk,
        dir: &Path,
        seq_first: u64,
        bytes: u64,
    ) -> Result<Segment, Error> {
        let path = dir.join(file_name(seq_first));
        let file = disk.open_writable(&path).map_err(|e| Error::io("open", &path, e))?;
        match SegmentHeader::read(&file, &path)? {
            Opened::Segment(header) => {
                Ok(Segment { header, path, end: bytes, synced: bytes, file })
            }
            Opened::Version(_) | Opened::Damaged => {
                Err(Error::io("read", &path, std::io::ErrorKind::InvalidData.into()))
            }
        }
    }

    /// Writes records at the end, numbered from `seq_first` on. They are durable only after `sync`.
    pub(crate) fn append(&mut self, batch: &mut Batch, seq_first: u64) -> std::io::Result<()> {
        let synced = u32::try_from(self.synced).unwrap_or(u32::MAX);
        for frames in batch.seal(self.header.salt, seq_first, synced) {
            self.file.write_all_at(frames, self.end)?;
            self.end += frames.len() as u64;
        }
        Ok(())
    }

    /// Makes everything that was appended durable.
    pub(crate) fn sync(&mut self) -> std::io::Result<()> {
        if self.synced < self.end {
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Takes back everything that was appended since the last `sync`, durably.
    pub(crate) fn cut_to_synced(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.synced)?;
        self.file.sync()?;
        self.end = self.synced;
        Ok(())
    }
}

/// A buffered view of a file up to a fixed end.
struct Window {
    file: File,
    path: PathBuf,
    end: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    /// The bytes at `offset`: `len` of them, or fewer where the view ends.
    fn slice(&mut self, offset: u64, len: u64) -> Result<&[u8], Error> {
        let len = len.min(self.end.saturating_sub(offset));
        let inside = offset >= self.start && offset + len <= self.start + self.buffer.len() as u64;
        if !inside {
            let fill = len.max(READ_BYTES as u64).min(self.end - offset) as usize;
            if self.buffer.capacity() > 4 * READ_BYTES && fill <= READ_BYTES {
                self.buffer = Vec::with_capacity(READ_BYTES);
            }
            self.buffer.resize(fill, 0);
            let count = self.file.read_full_at(&mut self.buffer, offset);
            self.buffer.truncate(count.map_err(|e| Error::io("read", &self.path, e))?);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..(from + len as usize).min(self.buffer.len())])
    }
}

/// What a scan finds next.
pub(crate) enum Step<'a> {
    /// A whole record and its payload (empty when payloads are not read).
    Record(Header, &'a [u8]),
    /// Bytes that hold no readable record.
    Damage { offset: u64, bytes: u64, reason: Reason },
    /// The end of the view.
    End,
}

/// Reads the frames of a segment in order and steps over what is damaged. Memory is bounded by
/// the largest frame.
pub(crate) struct Scan {
    window: Window,
    salt: u32,
    /// Where the next step begins.
    pub(crate) offset: u64,
    /// Least sequence number the next record may have.
    seq_min: u64,
    payloads: bool,
}

impl Scan {
    /// Scans from the first frame up to `end`.
    pub(crate) fn new(file: File, path: PathBuf, header: SegmentHeader, end: u64) -> Scan {
        let window = Window { file, path, end, start: 0, buffer: Vec::new() };
        let (offset, seq_min) = (SEGMENT_HEADER_BYTES, header.seq_first);
        Scan { window, salt: header.salt, offset, seq_min, payloads: true }
    }

    /// Goes to a frame whose place is known.
    pub(crate) fn seek(&mut self, offset: u64, seq: u64) {
        self.offset = offset;
        self.seq_min = seq;
    }

    /// Lets the scan see what has been appended since.
    pub(crate) fn extend(&mut self, end: u64) {
        self.window.end = end;
    }

    /// Reads and checks payloads from here on (as a new scan does), or only headers.
    pub(crate) fn read_payloads(&mut self, payloads: bool) {
        self.payloads = payloads;
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<Header>, Error> {
        let (salt, seq_min) = (self.salt, self.seq_min);
        let bytes = self.window.slice(offset, FRAME_HEADER_BYTES as u64)?;
        Ok(Header::decode(bytes, salt).filter(|header| header.seq >= seq_min))
    }

    /// The next record or damage. An error is the disk's, not the content's.
    pub(crate) fn step(&mut self) -> Result<Step<'_>, Error> {
        let offset = self.offset;
        if offset >= self.window.end {
            return Ok(Step::End);
        }
        let left = self.window.end - offset;
        let Some(header) = self.header_at(offset)? else {
            return self.search();
        };
        let bytes = header.frame_bytes();
        if bytes > left {
            self.offset = self.window.end;
            return Ok(Step::Damage { offset, bytes: left, reason: Reason::Short });
        }
        self.offset = offset + bytes;
        self.seq_min = header.seq + 1;
        if !self.payloads {
            return Ok(Step::Record(header, &[]));
        }
        let end = self.window.end;
        let frame = self.window.slice(offset, bytes)?;
        if (frame.len() as u64) < bytes {
            // The file is shorter than the view: somebody cut it.
            self.offset = end;
            return Ok(Step::Damage { offset, bytes: end - offset, reason: Reason::Short });
        }
        if header.is_payload(&frame[FRAME_HEADER_BYTES..]) {
            return Ok(Step::Record(header, &frame[FRAME_HEADER_BYTES..]));
        }
        Ok(Step::Damage { offset, bytes, reason: Reason::Payload })
    }

    /// Looks for the next header behind bytes that are none.
    fn search(&mut self) -> Result<Step<'_>, Error> {
        let (offset, end) = (self.offset, self.window.end);
        let (mut at, mut zeros) = (offset, true);
        while at < end {
            let bytes = self.window.slice(at, READ_BYTES as u64)?;
            let skip = match memchr::memmem::find(bytes, &MAGIC) {
                Some(found) => found as u64,
                // The file is shorter than the view: somebody cut it.
                None if bytes.is_empty() => end - at,
                // The magic may straddle two reads; at the end nothing more can begin.
                None if at + bytes.len() as u64 >= end => end - at,
                None => (bytes.len() as u64).saturating_sub(MAGIC.len() as u64 - 1).max(1),
            };
            zeros &= !bytes.is_empty();
            zeros &= bytes[..(skip as usize).min(bytes.len())].iter().all(|byte| *byte == 0);
            at += skip;
            if at < end && self.header_at(at)?.is_some() {
                break;
            }
            if at < end && skip == 0 {
                at += 1;
                zeros = false;
            }
        }
        self.offset = at.min(end);
        let bytes = self.offset - offset;
        let reason = match () {
            () if zeros => Reason::Zeros,
            () if self.offset == end && bytes < FRAME_HEADER_BYTES as u64 => Reason::Short,
            () => Reason::Header,
        };
        Ok(Step::Damage { offset, bytes, reason })
    }
}
