//! Events in order of time, with bounded memory: sorted runs in temporary files, merged at the end.
//!
//! A run on disk is a sequence of records: time (i64), fingerprint (u64), order (u64), place of the
//! head (u64), payload length (u32), all little-endian, then the payload. The files are anonymous:
//! they vanish with the process.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use crate::replay::heads::{HeadPlace, HeadStore};
use crate::replay::worker::Outcome;

/// Bytes of events and observations that are held in memory before a run is written.
pub const RUN_BYTES_MAX: usize = 24 << 20;

/// Bytes of each run's read buffer while merging.
const BUFFER_BYTES: usize = 128 << 10;

/// Collects events in the order of the input.
#[derive(Default)]
pub struct Sorter {
    run: Run,
    written: Vec<File>,
    heads: HeadStore,
    newest_us: Option<i64>,
}

/// Events in memory.
#[derive(Default)]
struct Run {
    entries: Vec<Key>,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    time_us: i64,
    /// Place in the input: number of the chunk, number in the chunk.
    order: u64,
    fingerprint: u64,
    head: HeadPlace,
    payload_start: u32,
    payload_end: u32,
}

/// An event in order of time.
#[derive(Debug)]
pub struct SortedEntry<'s> {
    /// Event time.
    pub time_us: i64,
    /// Equal for copies of one event.
    pub fingerprint: u64,
    /// Where its head stands, if something matched.
    pub head: HeadPlace,
    /// Its serialised observation; empty when nothing matched.
    pub payload: &'s [u8],
}

impl Sorter {
    /// Adds the events of a chunk. Chunks must come in the order of the input.
    ///
    /// # Errors
    /// A run could not be written to the temporary directory.
    pub fn add(&mut self, outcome: &Outcome) -> io::Result<()> {
        let heads = self.heads.add(&outcome.heads)?;
        let base = self.run.payload.len() as u32;
        if base == 0 {
            // Address space alone until it is written to; what grows instead is copied each time.
            self.run.payload.reserve(RUN_BYTES_MAX);
        }
        self.run.payload.extend_from_slice(&outcome.payload);
        for (number, entry) in outcome.entries.iter().enumerate() {
            self.newest_us = self.newest_us.max(Some(entry.time_us));
            self.run.entries.push(Key {
                time_us: entry.time_us,
                order: (outcome.sequence << 32) | number as u64,
                fingerprint: entry.fingerprint,
                head: heads + u64::from(entry.head_start),
                payload_start: base + entry.payload_start,
                payload_end: base + entry.payload_end,
            });
        }
        let bytes = self.run.payload.len() + self.run.entries.len() * size_of::<Key>();
        if bytes >= RUN_BYTES_MAX {
            let mut run = std::mem::take(&mut self.run);
            self.written.push(run.write()?);
        }
        Ok(())
    }

    /// All events are in.
    ///
    /// # Errors
    /// A run cannot be read back.
    pub fn finish(mut self) -> io::Result<Sorted> {
        self.run.entries.sort();
        let mut sorted = Sorted {
            run: self.run,
            next: 0,
            heads: self.heads,
            readers: Vec::new(),
            heap: BinaryHeap::new(),
            at: At::Memory(0),
            payload: Vec::new(),
            newest_us: self.newest_us.unwrap_or(0),
        };
        for mut file in self.written {
            file.rewind()?;
            sorted.readers.push(BufReader::with_capacity(BUFFER_BYTES, file));
            sorted.refill(sorted.readers.len() - 1)?;
        }
        Ok(sorted)
    }
}

impl Run {
    fn write(&mut self) -> io::Result<File> {
        self.entries.sort();
        let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for key in &self.entries {
            let payload = &self.payload[key.payload_start as usize..key.payload_end as usize];
            out.write_all(&key.time_us.to_le_bytes())?;
            out.write_all(&key.fingerprint.to_le_bytes())?;
            out.write_all(&key.order.to_le_bytes())?;
            out.write_all(&key.head.to_le_bytes())?;
            out.write_all(&(payload.len() as u32).to_le_bytes())?;
            out.write_all(payload)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// The events in order of time; ties in the order of the input.
pub struct Sorted {
    run: Run,
    heads: HeadStore,
    next: usize,
    readers: Vec<BufReader<File>>,
    heap: BinaryHeap<Reverse<(Head, usize)>>,
    at: At,
    payload: Vec<u8>,
    newest_us: i64,
}

/// Where the event at hand stands.
#[derive(Clone, Copy, Debug)]
enum At {
    Memory(usize),
    Disk(Head),
}

/// The next event of a run on disk; its payload is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    time_us: i64,
    order: u64,
    fingerprint: u64,
    head: HeadPlace,
    payload_bytes: u32,
}

impl Sorted {
    /// Takes the heads of the events.
    pub fn take_heads(&mut self) -> HeadStore {
        std::mem::take(&mut self.heads)
    }

    /// Time of the newest event; 0 when there is none.
    pub fn newest_us(&self) -> i64 {
        self.newest_us
    }

    /// Goes to the next event; false when there is none.
    ///
    /// # Errors
    /// A run on disk cannot be read.
    pub fn advance(&mut self) -> io::Result<bool> {
        let in_memory = self.run.entries.get(self.next).map(|key| (key.time_us, key.order));
        let on_disk = self.heap.peek().map(|Reverse((head, _))| (head.time_us, head.order));
        self.at = match (in_memory, on_disk) {
            (None, None) => return Ok(false),
            (Some(memory), disk) if disk.is_none_or(|disk| memory < disk) => {
                self.next += 1;
                At::Memory(self.next - 1)
            }
            _ => {
                let Some(Reverse((head, reader))) = self.heap.pop() else { return Ok(false) };
                self.payload.resize(head.payload_bytes as usize, 0);
                self.readers[reader].read_exact(&mut self.payload)?;
                self.refill(reader)?;
                At::Disk(head)
            }
        };
        Ok(true)
    }

    /// The event that [`Sorted::advance`] went to.
    pub fn entry(&self) -> SortedEntry<'_> {
        match self.at {
            At::Memory(place) => {
                let key = &self.run.entries[place];
                let range = key.payload_start as usize..key.payload_end as usize;
                SortedEntry {
                    time_us: key.time_us,
                    fingerprint: key.fingerprint,
                    head: key.head,
                    payload: &self.run.payload[range],
                }
            }
            At::Disk(head) => SortedEntry {
                time_us: head.time_us,
                fingerprint: head.fingerprint,
                head: head.head,
                payload: &self.payload,
            },
        }
    }

    fn refill(&mut self, reader: usize) -> io::Result<()> {
        let mut bytes = [0u8; 36];
        let source = &mut self.readers[reader];
        if io::BufRead::fill_buf(source)?.is_empty() {
            return Ok(());
        }
        source.read_exact(&mut bytes)?;
        let word = |at: usize| {
            let mut word = [0u8; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut length = [0u8; 4];
        length.copy_from_slice(&bytes[32..]);
        let head = Head {
            time_us: word(0) as i64,
            fingerprint: word(8),
            order: word(16),
            head: word(24),
            payload_bytes: u32::from_le_bytes(length),
        };
        self.heap.push(Reverse((head, reader)));
        Ok(())
    }
}
