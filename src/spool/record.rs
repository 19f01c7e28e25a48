//! One framed record: length, checksums, sequence number, kind, payload; and the batch of them.
//!
//! ```text
//! struct Frame {                  // 32 bytes and the payload; little-endian; no padding
//!   magic: [u8; 4],               // "kwr" and 0x1e
//!   header_crc: u32,              // CRC32C of the segment's salt (4 bytes) and bytes 8..32
//!   payload_crc: u32,             // CRC32C of the payload
//!   payload_bytes: u32,
//!   seq: u64,                     // one more than the record before it
//!   synced: u32,                  // offset in this segment up to which everything had been
//!                                 // synced before this record was written
//!   batch_left: u24,              // records of the same batch that follow this one
//!   kind: u8,                     // the caller's; the spool gives it no meaning
//!   payload: [u8; payload_bytes],
//! }
//! ```

use std::ops::Range;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 32;

/// Records that one batch may hold at most.
pub const BATCH_RECORDS_MAX: u32 = 0x00ff_ffff;

pub(crate) const MAGIC: [u8; 4] = *b"kwr\x1e";

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) payload_crc: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) seq: u64,
    pub(crate) synced: u32,
    pub(crate) batch_left: u32,
    pub(crate) kind: u8,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn header_crc(salt: u32, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), rest)
}

impl Header {
    /// Reads a frame's first 32 bytes; `None` when they are not a header of this segment.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<Header> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if bytes[..4] != MAGIC || u32_at(bytes, 4) != header_crc(salt, &bytes[8..]) {
            return None;
        }
        let last = u32_at(bytes, 28);
        Some(Header {
            payload_crc: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12),
            seq: u64_at(bytes, 16),
            synced: u32_at(bytes, 24),
            batch_left: last & BATCH_RECORDS_MAX,
            kind: (last >> 24) as u8,
        })
    }

    /// Writes the header over a frame's first 32 bytes.
    fn encode(&self, salt: u32, frame: &mut [u8]) {
        frame[..4].copy_from_slice(&MAGIC);
        frame[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        frame[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        frame[16..24].copy_from_slice(&self.seq.to_le_bytes());
        frame[24..28].copy_from_slice(&self.synced.to_le_bytes());
        let last = self.batch_left | u32::from(self.kind) << 24;
        frame[28..32].copy_from_slice(&last.to_le_bytes());
        let crc = header_crc(salt, &frame[8..FRAME_HEADER_BYTES]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// True when `payload` is what was written.
    pub(crate) fn is_payload(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Framed records, one behind the other, that anybody can make before their numbers are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    records: u32,
}

impl Frames {
    /// None yet, with room for so many bytes of payloads and frame headers.
    pub fn with_capacity(bytes: usize) -> Frames {
        Frames { bytes: Vec::with_capacity(bytes), records: 0 }
    }

    /// Adds a record whose payload `write` puts behind what it is given. Returns where the payload
    /// lies ([`Frames::payload`]). `kind` is the caller's own.
    ///
    /// Sizes are checked when the batch is appended, not here.
    pub fn push(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.bytes.len();
        let payload_start = start + FRAME_HEADER_BYTES;
        self.bytes.resize(payload_start, 0);
        write(&mut self.bytes);
        let payload = &self.bytes[payload_start..];
        // A payload beyond 4 GiB makes the batch larger than any `batch_bytes_max`, so that the
        // wrong length here is never written.
        let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let payload_crc = crc32c::crc32c(payload);
        let header = Header { payload_crc, payload_bytes, seq: 0, synced: 0, batch_left: 0, kind };
        header.encode(0, &mut self.bytes[start..]);
        self.records = self.records.saturating_add(1);
        payload_start..self.bytes.len()
    }

    /// The payload of a record.
    pub fn payload(&self, place: &Range<usize>) -> &[u8] {
        &self.bytes[place.clone()]
    }

    /// Number of records.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of payloads and frame headers.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Records that are appended together: after a crash either all of them are there or none.
///
/// Payloads are copied in once, framed, and are written from here without another copy; what others
/// framed ([`Batch::append`]) is not copied at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Written one behind the other; none is empty.
    pieces: Vec<Frames>,
    /// Whether the last piece was begun here. Others may be large, and to grow them copies them.
    is_own: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a record after those already in the batch. `kind` is the caller's own.
    ///
    /// Sizes are checked when the batch is appended, not here.
    pub fn push(&mut self, kind: u8, payload: &[u8]) {
        if !std::mem::replace(&mut self.is_own, true) {
            self.pieces.push(Frames::default());
        }
        let last = self.pieces.last_mut().expect("there is one now");
        last.push(kind, |bytes| bytes.extend_from_slice(payload));
    }

    /// Adds records that are framed, as they are.
    pub fn append(&mut self, frames: Frames) {
        if frames.records > 0 {
            self.pieces.push(frames);
            self.is_own = false;
        }
    }

    /// Number of records.
    pub fn records(&self) -> u32 {
        self.pieces.iter().fold(0, |sum, frames| sum.saturating_add(frames.records))
    }

    /// Bytes that the batch takes in a segment: payloads and frame headers.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(Frames::bytes).sum()
    }

    /// True when nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Gives the records their sequence numbers from `seq_first` on and closes their headers.
    /// Returns the frames, in pieces to be written one behind the other.
    pub(crate) fn seal(
        &mut self,
        salt: u32,
        seq_first: u64,
        synced: u32,
    ) -> impl Iterator<Item = &[u8]> {
        let (records, mut index) = (self.records(), 0);
        for Frames { bytes, .. } in &mut self.pieces {
            let mut at = 0;
            while at < bytes.len() {
                let frame = &mut bytes[at..];
                let header = Header {
                    payload_crc: u32_at(frame, 8),
                    payload_bytes: u32_at(frame, 12),
                    seq: seq_first + u64::from(index),
                    synced,
                    batch_left: records - 1 - index,
                    kind: frame[31],
                };
                header.encode(salt, frame);
                at += FRAME_HEADER_BYTES + header.payload_bytes as usize;
                index += 1;
            }
        }
        self.pieces.iter().map(|frames| &*frames.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_frame_reads_back() {
        let mut batch = Batch::new();
        batch.push(7, b"one");
        let mut framed = Frames::default();
        framed.push(255, |_| ());
        batch.append(framed);
        let frames = batch.seal(42, 1 << 40, 64).collect::<Vec<_>>().concat();
        let first = Header::decode(&frames, 42).unwrap();
        assert_eq!((first.seq, first.batch_left, first.kind, first.synced), (1 << 40, 1, 7, 64));
        assert!(first.is_payload(b"one") && !first.is_payload(b"onE"));
        let second = Header::decode(&frames[35..], 42).unwrap();
        assert_eq!((second.seq, second.batch_left, second.kind), ((1 << 40) + 1, 0, 255));
        assert_eq!(batch.bytes(), 67);
    }

    #[test]
    fn another_segments_frame_is_not_ours() {
        let mut batch = Batch::new();
        batch.push(1, b"planted");
        let frames = batch.seal(1, 1, 64).collect::<Vec<_>>().concat();
        assert_eq!(Header::decode(&frames, 2), None);
        assert_eq!(Header::decode(&frames[..31], 1), None);
    }

    #[test]
    fn no_flipped_bit_of_a_header_passes() {
        let mut batch = Batch::new();
        batch.push(1, b"x");
        let frames = batch.seal(9, 5, 64).collect::<Vec<_>>().concat();
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut flipped = frames.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped, 9), None, "bit {bit}");
        }
    }
}
