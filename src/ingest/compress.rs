//! Plain bytes out of plain, gzip and zstd files, told apart by their first bytes and not by name.
//!
//! Readers here never lose what could be read before a fault: the fault comes as an error of the
//! read after the last good byte, and [`fault_of`] says which it was. Gzip may have many members,
//! and zero padding behind them; behind one that is torn or damaged the next that can be read is
//! looked for, and a line end put between them. Compression inside compression (Firehose
//! compresses what CloudWatch Logs has compressed) is undone up to [`LAYERS_MAX`] times.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Decompress, FlushDecompress, Status};

/// How many layers of compression are undone.
pub const LAYERS_MAX: usize = 2;

/// The largest zstd window accepted, as a power of two: what the zstd tool accepts by default.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const INPUT_BYTES: usize = 128 << 10;

/// What is wrong with compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It ends before its end.
    #[error("compressed data ends early")]
    Truncated,
    /// It cannot be decompressed from here on.
    #[error("compressed data is corrupt")]
    Corrupt,
    /// Bytes behind it that are no compressed data.
    #[error("garbage behind compressed data")]
    Garbage,
}

/// The fault of compressed data in an error of a reader from [`open`]; `None` when the system
/// failed.
pub fn fault_of(error: &io::Error) -> Option<Fault> {
    error.get_ref()?.downcast_ref::<Fault>().copied()
}

/// What the first bytes of a file say about its compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magic {
    Gzip,
    Zstd,
    Plain,
}

impl Magic {
    fn of(prefix: &[u8]) -> Magic {
        match prefix {
            [0x1f, 0x8b, ..] => Magic::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Magic::Zstd,
            _ => Magic::Plain,
        }
    }
}

/// Whether a file's first bytes are those of a compression that [`open`] undoes.
pub fn is_compressed(prefix: &[u8]) -> bool {
    Magic::of(prefix) != Magic::Plain
}

/// The name of a compression, an archive or an encoding that is not read, by a file's first bytes
/// (decompressed): an archive may hold logs as text, but not only logs, and compressed ones.
pub fn unsupported(prefix: &[u8]) -> Option<&'static str> {
    if is_tar(prefix) {
        return Some("is a tar archive: unpack it first");
    }
    match prefix {
        [0x04, b'"', b'M', 0x18, ..] => Some("is compressed with lz4: decompress it first"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Some("is a 7z archive: unpack it first"),
        [b'R', b'a', b'r', b'!', 0x1a, ..] => Some("is a rar archive: unpack it first"),
        [b'P', b'A', b'R', b'1', ..] => Some("is Parquet: export it as JSON lines"),
        [b'O', b'b', b'j', 1, ..] => Some("is Avro: export it as JSON lines"),
        [b'B', b'Z', b'h', ..] => Some("is compressed with bzip2: decompress it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("is compressed with xz: decompress it first"),
        [b'P', b'K', 3, 4, ..] => Some("is a zip archive: unpack it first"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] => {
            Some("is UTF-16: convert it to UTF-8 first")
        }
        _ => None,
    }
}

/// Whether these are the first bytes of a tar archive: its name, padded with NULs, which no line of
/// a log holds, and the mark of POSIX or GNU.
fn is_tar(prefix: &[u8]) -> bool {
    let is_marked = prefix
        .get(257..)
        .is_some_and(|at| at.starts_with(b"ustar\0") || at.starts_with(b"ustar  \0"));
    is_marked && prefix[..257].contains(&0)
}

/// Counts the bytes that pass; for progress by the size of the files.
pub struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Counted<R> {
    /// Adds what is read from `inner` to `count`.
    pub fn new(inner: R, count: Arc<AtomicU64>) -> Counted<R> {
        Counted { inner, count }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Reads `source` decompressed. Blocks until the first bytes are there.
pub fn open(source: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
    let mut source = source;
    for _ in 0..LAYERS_MAX {
        let prefixed = Prefixed::peek(source, 4);
        source = match Magic::of(&prefixed.prefix) {
            Magic::Gzip => Box::new(Gunzip::new(prefixed)),
            Magic::Zstd => match unzstd(prefixed) {
                Ok(reader) => reader,
                Err(error) => return Box::new(Failed(Some(error))),
            },
            Magic::Plain => return Box::new(prefixed),
        };
    }
    source
}

/// A reader whose first bytes were looked at.
struct Prefixed {
    prefix: Vec<u8>,
    at: usize,
    error: Option<io::Error>,
    inner: Box<dyn Read + Send>,
}

impl Prefixed {
    fn peek(mut inner: Box<dyn Read + Send>, length: u64) -> Prefixed {
        let mut prefix = Vec::new();
        let error = inner.by_ref().take(length).read_to_end(&mut prefix).err();
        Prefixed { prefix, at: 0, error, inner }
    }
}

impl Read for Prefixed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.prefix.len() {
            let length = (&self.prefix[self.at..]).read(buffer)?;
            self.at += length;
            return Ok(length);
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => self.inner.read(buffer),
        }
    }
}

struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// So many bytes of a member are kept behind the reader: a torn member's fault is noticed only when
/// the header of the one written after it has been taken for data.
const KEPT_BYTES: usize = 256 << 10;

/// So many bytes of text a header found in passing must lead to, or a whole member.
const TRIAL_BYTES: usize = 512;

struct Gunzip {
    source: Prefixed,
    /// Compressed bytes: those from `at` on are still to be decompressed.
    input: Vec<u8>,
    at: usize,
    /// Where in `input` the member starts, as far as it is still there.
    member: usize,
    is_at_end: bool,
    inflate: Decompress,
    is_inside: bool,
    /// What was torn and what is found again are two lines.
    owes_line_end: bool,
    /// What was wrong; told when everything that can be read has been.
    fault: Option<Fault>,
    is_over: bool,
}

impl Gunzip {
    fn new(source: Prefixed) -> Gunzip {
        Gunzip {
            source,
            input: Vec::new(),
            at: 0,
            member: 0,
            is_at_end: false,
            inflate: Decompress::new_gzip(15),
            is_inside: true,
            owes_line_end: false,
            fault: None,
            is_over: false,
        }
    }

    /// Reads on when nothing is left; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at == self.input.len() && !self.is_at_end {
            let passed = self.at.saturating_sub(KEPT_BYTES);
            self.input.drain(..passed);
            self.member = self.member.saturating_sub(passed);
            self.at -= passed;
            self.read_more()?;
        }
        Ok(self.at < self.input.len())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let length = self.input.len();
        self.input.resize(length + INPUT_BYTES, 0);
        let read = self.source.read(&mut self.input[length..]);
        self.input.truncate(length + *read.as_ref().unwrap_or(&0));
        self.is_at_end = read? == 0;
        Ok(())
    }

    /// Moves to the next member; false at the end of the file.
    fn next_member(&mut self) -> io::Result<bool> {
        loop {
            if !self.fill()? {
                return Ok(false);
            }
            let input = &self.input[self.at..];
            match input[0] {
                0 => self.at += input.iter().take_while(|byte| **byte == 0).count(),
                0x1f => break,
                _ => {
                    self.member = self.at;
                    return self.search(Fault::Garbage);
                }
            }
        }
        self.begin(self.at);
        Ok(true)
    }

    fn begin(&mut self, at: usize) {
        self.at = at;
        self.member = at;
        self.inflate = Decompress::new_gzip(15);
        self.is_inside = true;
    }

    /// After a fault, goes on with the next member that can be read; false when there is none.
    fn search(&mut self, fault: Fault) -> io::Result<bool> {
        self.fault.get_or_insert(fault);
        let mut from = (self.member + 1).min(self.input.len());
        loop {
            while let Some(found) = memchr::memmem::find(&self.input[from..], &GZIP_START) {
                let start = from + found;
                while self.input.len() - start < INPUT_BYTES && !self.is_at_end {
                    self.read_more()?;
                }
                if is_member(&self.input[start..]) {
                    self.begin(start);
                    self.owes_line_end = true;
                    return Ok(true);
                }
                from = start + 1;
            }
            if self.is_at_end {
                self.at = self.input.len();
                self.is_inside = false;
                return Ok(false);
            }
            let passed = self.input.len().saturating_sub(GZIP_START.len() - 1).max(from);
            self.input.drain(..passed);
            (self.at, self.member, from) = (0, 0, 0);
            self.read_more()?;
        }
    }
}

/// How a gzip member that deflates begins (RFC 1952, 2.3.1).
const GZIP_START: [u8; 3] = [0x1f, 0x8b, 8];

/// Whether what starts here can be decompressed for a while.
fn is_member(input: &[u8]) -> bool {
    let mut inflate = Decompress::new_gzip(15);
    let mut text = [0; TRIAL_BYTES];
    match inflate.decompress(input, &mut text, FlushDecompress::None) {
        Ok(Status::StreamEnd) => true,
        Ok(_) => inflate.total_out() == TRIAL_BYTES as u64,
        Err(_) => false,
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_over || buffer.is_empty() {
                return Ok(0);
            }
            if !self.is_inside && !self.next_member()? {
                self.is_over = true;
                return self.fault.take().map_or(Ok(0), |fault| Err(io::Error::other(fault)));
            }
            if std::mem::take(&mut self.owes_line_end) {
                buffer[0] = b'\n';
                return Ok(1);
            }
            let has_input = self.fill()?;
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let input = &self.input[self.at..];
            let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
            let used = (self.inflate.total_in() - before.0) as usize;
            let made = (self.inflate.total_out() - before.1) as usize;
            self.at += used;
            let fault = match status {
                Ok(Status::StreamEnd) => {
                    self.is_inside = false;
                    None
                }
                Ok(_) if made == 0 && !has_input => Some(Fault::Truncated),
                Ok(_) if made == 0 && used == 0 => Some(Fault::Corrupt),
                Ok(_) => None,
                Err(_) => Some(Fault::Corrupt),
            };
            if made > 0 {
                return Ok(made);
            }
            if let Some(fault) = fault {
                self.search(fault)?;
            }
        }
    }
}

fn unzstd(source: Prefixed) -> io::Result<Box<dyn Read + Send>> {
    let source = BufReader::with_capacity(INPUT_BYTES, source);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(Unzstd { decoder, is_over: false }))
}

struct Unzstd {
    decoder: zstd::stream::read::Decoder<'static, BufReader<Prefixed>>,
    is_over: bool,
}

impl Read for Unzstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        self.decoder.read(buffer).map_err(|error| {
            self.is_over = true;
            match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other(Fault::Truncated),
                // libzstd's own errors come without a code of the system.
                io::ErrorKind::Other if error.raw_os_error().is_none() => {
                    let is_garbage = error.to_string().contains("Unknown frame descriptor");
                    io::Error::other(if is_garbage { Fault::Garbage } else { Fault::Corrupt })
                }
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_archive_is_told_by_more_than_a_word() {
        let mut tar = vec![0; 512];
        tar[..9].copy_from_slice(b"audit.log");
        for mark in [&b"ustar\0"[..], b"ustar  \0"] {
            tar[257..257 + mark.len()].copy_from_slice(mark);
            assert!(unsupported(&tar).is_some_and(|text| text.contains("tar")));
        }
        // A client chooses the path of a request.
        for shift in 0..5 {
            let line =
                format!("{{\"requestURI\":\"{}{}\"}}", "x".repeat(shift), "ustar".repeat(90));
            assert_eq!(unsupported(line.as_bytes()), None);
        }
    }

    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn read(bytes: Vec<u8>) -> (Vec<u8>, Option<Fault>) {
        let mut reader = open(Box::new(io::Cursor::new(bytes)));
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).err();
        assert_eq!(reader.read(&mut [0; 10]).expect("an error comes once"), 0);
        (text, error.map(|error| fault_of(&error).expect("a fault")))
    }

    #[test]
    fn reads_what_there_is() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let (gz, zst) = (gzip(&text), zstd::encode_all(text.as_slice(), 3).expect("it compresses"));
        let join = |parts: &[&[u8]]| parts.concat();
        for (name, bytes, length, fault) in [
            ("plain", text.clone(), text.len(), None),
            ("empty", Vec::new(), 0, None),
            ("gzip", gz.clone(), text.len(), None),
            ("zstd", zst.clone(), text.len(), None),
            ("two members", join(&[&gz, &gz]), 2 * text.len(), None),
            ("two frames", join(&[&zst, &zst]), 2 * text.len(), None),
            ("padding", join(&[&gz, &[0; 999]]), text.len(), None),
            ("twice", gzip(&gz), text.len(), None),
            ("zstd in gzip", gzip(&zst), text.len(), None),
            ("gzip and garbage", join(&[&gz, b"hello"]), text.len(), Some(Fault::Garbage)),
            ("zstd and garbage", join(&[&zst, b"hello"]), text.len(), Some(Fault::Garbage)),
            (
                "gzip without its trailer",
                gz[..gz.len() - 3].to_vec(),
                text.len(),
                Some(Fault::Truncated),
            ),
            ("gzip header", gz[..5].to_vec(), 0, Some(Fault::Truncated)),
            ("gzip magic", gz[..2].to_vec(), 0, Some(Fault::Truncated)),
            ("zstd header", zst[..5].to_vec(), 0, Some(Fault::Truncated)),
        ] {
            let (found, error) = read(bytes);
            assert_eq!((found.len(), error), (length, fault), "{name}");
            assert!(text.repeat(2).starts_with(&found), "{name}");
        }
    }

    #[test]
    fn finds_the_next_member_behind_a_fault() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let (first, second) = (gzip(&text), gzip(b"second\n"));
        let third = gzip(&text);
        let mut damaged = first.clone();
        damaged[first.len() / 2..][..8].fill(0xff);
        for (name, head, fault) in [
            ("torn", &first[..first.len() / 2], Fault::Corrupt),
            ("torn early", &first[..40], Fault::Corrupt),
            ("torn in its trailer", &first[..first.len() - 3], Fault::Corrupt),
            ("damaged", &damaged, Fault::Corrupt),
            ("garbage behind it", &[first.as_slice(), b"garbage"].concat(), Fault::Garbage),
        ] {
            let (found, error) = read([head, &second, &third].concat());
            assert_eq!(error, Some(fault), "{name}");
            let tail = [b"\nsecond\n", text.as_slice()].concat();
            assert!(found.ends_with(&tail), "{name}: {}", found.len());
        }
        let (found, error) = read([&first[..first.len() / 2], &vec![7; 3 << 20], &second].concat());
        assert_eq!(error, Some(Fault::Corrupt));
        assert!(found.ends_with(b"\nsecond\n"), "far behind");
    }

    #[test]
    fn gives_what_stands_before_a_fault() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let mut gz = gzip(&text);
        let (half, fault) = read(gz[..gz.len() / 2].to_vec());
        assert_eq!(fault, Some(Fault::Truncated));
        assert!(half.len() > text.len() / 3 && text.starts_with(&half));
        let at = gz.len() / 2;
        gz[at..at + 8].fill(0xff);
        let (half, fault) = read(gz);
        assert_eq!(fault, Some(Fault::Corrupt));
        assert!(half.len() > text.len() / 3);
    }
}
