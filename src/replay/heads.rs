//! The heads of matched events, in the order of the input: written once, read only for what
//! becomes an alert. The first ones stay in memory, the others go to a temporary file.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;

use crate::alert::evidence::Evidence;
use crate::alert::sighting::{Head, Sighting};
use crate::alert::told;
use crate::alert::trace::{Heads, Trace};

/// Bytes of heads that are held in memory.
const MEMORY_BYTES_MAX: u64 = 40 << 20;

/// So much is read of a head at first; most are shorter.
const READ_BYTES: usize = 2 << 10;

/// All heads of a replay.
#[derive(Debug, Default)]
pub struct HeadStore {
    /// In blocks that never move: one buffer that grows is copied, and faulted in, again and again.
    memory: Vec<Block>,
    memory_bytes: u64,
    file: Option<File>,
    file_bytes: u64,
}

/// The heads of one chunk.
#[derive(Debug)]
struct Block {
    /// Where its first byte stands.
    place: HeadPlace,
    heads: Box<[u8]>,
}

/// Where a head stands in its store.
pub type HeadPlace = u64;

impl HeadStore {
    /// Adds packed heads, one behind the other, each behind its length (u32, little-endian);
    /// returns where the first one stands.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn add(&mut self, heads: &[u8]) -> io::Result<HeadPlace> {
        let (place, bytes) = (self.memory_bytes + self.file_bytes, heads.len() as u64);
        if self.file.is_none() && self.memory_bytes + bytes <= MEMORY_BYTES_MAX {
            self.memory.push(Block { place, heads: heads.into() });
            self.memory_bytes += bytes;
            return Ok(place);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all(heads)?;
        self.file_bytes += bytes;
        Ok(place)
    }

    /// Unpacks the head at a place; `buffer` is scratch space.
    fn read(&self, place: HeadPlace, buffer: &mut Vec<u8>, head: &mut Head) -> io::Result<()> {
        let in_memory = self.memory_bytes;
        let packed = if place < in_memory {
            let behind = self.memory.partition_point(|block| block.place <= place);
            let block = behind.checked_sub(1).and_then(|at| self.memory.get(at));
            let block = block.ok_or_else(altered)?;
            let bytes = block.heads.get((place - block.place) as usize..).unwrap_or_default();
            let (length, rest) = bytes.split_first_chunk().ok_or_else(altered)?;
            rest.get(..u32::from_le_bytes(*length) as usize).ok_or_else(altered)?
        } else {
            let at = place - in_memory;
            let known = READ_BYTES.min(self.file_bytes.saturating_sub(at) as usize);
            self.read_at(at, known, buffer)?;
            let length = *buffer.first_chunk().ok_or_else(altered)?;
            let end = 4 + u32::from_le_bytes(length) as usize;
            if end > buffer.len() {
                self.read_at(at, end, buffer)?;
            }
            &buffer[4..end]
        };
        head.unpack(packed).ok_or_else(altered)
    }

    fn read_at(&self, at: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(length, 0);
        let file = self.file.as_ref().ok_or_else(altered)?;
        file.read_exact_at(buffer, at)
    }
}

/// What was written to a temporary file is not what comes back.
pub fn altered() -> io::Error {
    io::Error::other("a temporary file was altered")
}

/// Reads heads where an alert asks for them.
#[derive(Debug)]
pub struct HeadReader<'s> {
    store: &'s HeadStore,
    /// Where the head of the sighting at hand stands.
    place: HeadPlace,
    /// Whether it is in `head`.
    is_read: bool,
    head: Head,
    buffer: Vec<u8>,
    failure: Option<io::Error>,
}

impl<'s> HeadReader<'s> {
    /// A reader of this store.
    pub fn new(store: &'s HeadStore) -> HeadReader<'s> {
        HeadReader {
            store,
            place: 0,
            is_read: false,
            head: Head::default(),
            buffer: Vec::new(),
            failure: None,
        }
    }

    /// Says where the head of the sighting at hand stands.
    pub fn set_place(&mut self, place: HeadPlace) {
        (self.place, self.is_read) = (place, false);
    }

    /// What went wrong, once.
    ///
    /// # Errors
    /// The first failure to read a head; alerts since then lack theirs.
    pub fn check(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn read(&mut self, place: HeadPlace, head: &mut Head) {
        if let Err(error) = self.store.read(place, &mut self.buffer, head) {
            self.failure.get_or_insert(error);
        }
    }
}

impl Heads for HeadReader<'_> {
    type Kept = HeadPlace;

    fn head<'h>(&'h mut self, _: &'h Sighting) -> &'h Head {
        if !self.is_read {
            let mut head = std::mem::take(&mut self.head);
            self.read(self.place, &mut head);
            (self.head, self.is_read) = (head, true);
        }
        &self.head
    }

    fn keep(&mut self, _: &Sighting, _: bool) -> HeadPlace {
        self.place
    }

    fn evidence(&mut self, trace: &Trace<HeadPlace>) -> Evidence {
        let mut head = Head::default();
        self.read(trace.kept, &mut head);
        told::evidence(trace.time_us, trace.stage, &head.audit_id, &head.position)
    }

    fn whole(&mut self, kept: &HeadPlace) -> Option<Head> {
        let mut head = Head::default();
        self.read(*kept, &mut head);
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of an event of so many bytes, packed behind its length.
    fn packed(number: usize, event_bytes: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for part in [format!("a{number}"), String::new(), format!("log:{number}")] {
            body.extend_from_slice(&(part.len() as u32).to_le_bytes());
            body.extend_from_slice(part.as_bytes());
        }
        body.extend_from_slice(&(event_bytes as u32).to_le_bytes());
        body.resize(body.len() + event_bytes, b'x');
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn heads_come_back_from_memory_and_from_the_file() {
        let mut store = HeadStore::default();
        let sizes = [0, 100, READ_BYTES, 1 << 20, 30 << 20, 9 << 20, 5, 3_000, 1 << 20, 7];
        let mut places = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            places.push(store.add(&packed(number, *size)).unwrap());
        }
        assert!(store.file_bytes > 0 && store.memory_bytes > 30 << 20);
        let (mut buffer, mut head) = (Vec::new(), Head::default());
        for number in [9, 0, 4, 8, 3, 5, 6, 7, 1, 2] {
            store.read(places[number], &mut buffer, &mut head).unwrap();
            assert_eq!(head.audit_id, format!("a{number}"));
            assert_eq!(head.position, format!("log:{number}"));
            assert_eq!(head.event.len(), sizes[number]);
        }
        let end = store.add(&[]).unwrap();
        assert!(store.read(end, &mut buffer, &mut head).is_err());
    }
}
