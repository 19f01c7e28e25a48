//! The bytes of one file, decompressed where need be, by their offset.

use std::io::{self, Read};
use std::sync::Arc;

use crate::ingest::compress::{self, Fault};
use crate::ingest::log::disk::{DiskFile, Stat, read_full};

/// How much is decompressed at a time.
const BLOCK_BYTES: usize = 128 << 10;

/// An open file's bytes.
pub(crate) enum Content {
    /// As they stand there.
    Plain(Arc<dyn DiskFile>),
    /// Decompressed.
    Packed(Box<Unpacked>),
}

impl Content {
    /// The content of an open file; its first bytes say whether it is compressed, or its name while
    /// it has too few of them.
    pub(crate) fn of(file: Arc<dyn DiskFile>, is_named_packed: bool) -> io::Result<Content> {
        let mut magic = [0; 4];
        let length = read_full(&*file, &mut magic, 0)?;
        Ok(match magic[..length] {
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => {
                Content::Packed(Box::new(Unpacked::new(file)))
            }
            _ if length < magic.len() && is_named_packed => {
                Content::Packed(Box::new(Unpacked::new(file)))
            }
            _ => Content::Plain(file),
        })
    }

    /// What is known of the file now.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        match self {
            Content::Plain(file) => file.stat(),
            Content::Packed(unpacked) => unpacked.file.stat(),
        }
    }

    /// Whether the bytes are decompressed ones.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self, Content::Packed(_))
    }

    /// Fills the buffer from this offset on, short only at the end of the file or where compressed
    /// data has a [fault](Content::fault).
    pub(crate) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Content::Plain(file) => read_full(&**file, buffer, offset),
            Content::Packed(unpacked) => unpacked.read_at(buffer, offset),
        }
    }

    /// See [`DiskFile::next_data`]; compressed files have no holes.
    pub(crate) fn next_data(&mut self, offset: u64) -> io::Result<Option<u64>> {
        match self {
            Content::Plain(file) => file.next_data(offset),
            Content::Packed(_) => Ok(Some(offset)),
        }
    }

    /// Says that nothing before this offset is asked for again; if it is, it costs decompressing
    /// from the start.
    pub(crate) fn release(&mut self, before: u64) {
        if let Content::Packed(unpacked) = self {
            unpacked.release(before);
        }
    }

    /// Forgets what was decompressed: the file has changed.
    pub(crate) fn restart(&mut self) {
        if let Content::Packed(unpacked) = self {
            **unpacked = Unpacked::new(Arc::clone(&unpacked.file));
        }
    }

    /// What ended compressed data early, once it has been met.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Content::Plain(_) => None,
            Content::Packed(unpacked) => unpacked.fault,
        }
    }

    /// How long the decompressed bytes are, modulo 2^32, as a gzip file's last bytes claim; `None`
    /// for others.
    pub(crate) fn claimed_length(&self) -> io::Result<Option<u32>> {
        let Content::Packed(unpacked) = self else { return Ok(None) };
        let size = unpacked.file.stat()?.size;
        let mut trailer = [0; 4];
        let Some(at) = size.checked_sub(4) else { return Ok(None) };
        let length = read_full(&*unpacked.file, &mut trailer, at)?;
        Ok((length == 4).then(|| u32::from_le_bytes(trailer)))
    }
}

/// A compressed file, decompressed in one direction.
pub(crate) struct Unpacked {
    file: Arc<dyn DiskFile>,
    reader: Option<Box<dyn Read + Send>>,
    /// Decompressed bytes that may be asked for again.
    window: Vec<u8>,
    /// The offset of the first of them.
    start: u64,
    /// Bytes of the window that were released.
    released: usize,
    fault: Option<Fault>,
}

impl Unpacked {
    fn new(file: Arc<dyn DiskFile>) -> Unpacked {
        Unpacked { file, reader: None, window: Vec::new(), start: 0, released: 0, fault: None }
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.start + self.released as u64 {
            *self = Unpacked::new(Arc::clone(&self.file));
        }
        let wanted = offset + buffer.len() as u64;
        while self.fault.is_none() && self.start + (self.window.len() as u64) < wanted {
            match self.more() {
                Ok(0) => break,
                Ok(_) => self.release_up_to(offset),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => match compress::fault_of(&error) {
                    Some(fault) => self.fault = Some(fault),
                    None => {
                        // Where the reader stands now is not known.
                        *self = Unpacked::new(Arc::clone(&self.file));
                        return Err(error);
                    }
                },
            }
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let found = self.window.get(from..).unwrap_or_default();
        let length = found.len().min(buffer.len());
        buffer[..length].copy_from_slice(&found[..length]);
        Ok(length)
    }

    /// While passing over bytes that come before what is asked for, keeps none of them.
    fn release_up_to(&mut self, offset: u64) {
        if offset > self.start + BLOCK_BYTES as u64 {
            self.release(offset.min(self.start + self.window.len() as u64));
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        let file = &self.file;
        let reader = self.reader.get_or_insert_with(|| {
            compress::open(Box::new(Sequential { file: Arc::clone(file), at: 0 }))
        });
        let before = self.window.len();
        self.window.resize(before + BLOCK_BYTES, 0);
        let result = reader.read(&mut self.window[before..]);
        self.window.truncate(before + *result.as_ref().unwrap_or(&0));
        result
    }

    fn release(&mut self, before: u64) {
        let length = before.saturating_sub(self.start).min(self.window.len() as u64) as usize;
        self.released = self.released.max(length);
        // Moving the rest down costs; so not for every small step.
        if self.released >= self.window.len() / 2 {
            self.window.drain(..self.released);
            self.start += self.released as u64;
            self.released = 0;
        }
    }
}

/// An open file as a stream.
struct Sequential {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
