//! What the benchmarks read: the shipped sample repeated to a size, or a file of one's own.
//!
//! Every repetition has audit ids of its own and later times, so no two lines are equal; the same
//! sample always gives the same bytes.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use kubewitness::alert::time::EventTime;
use kubewitness::event::{Event, Slot};
use tempfile::NamedTempFile;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Recorded from a real kube-apiserver; tests/corpus/README.md says how.
const SAMPLE: &[u8] = include_bytes!("../../tests/corpus/sample.log.gz");

/// How large the repeated sample gets.
const BYTES: u64 = 100_000_000;

/// Names a file of JSON lines to read instead of the repeated sample.
const VARIABLE: &str = "KUBEWITNESS_BENCH_FILE";

/// A file of audit events, one JSON object a line; a temporary one vanishes with this.
pub struct Traffic {
    path: PathBuf,
    made: Option<NamedTempFile>,
}

impl Traffic {
    /// The file that the environment names, or the repeated sample.
    pub fn open() -> Traffic {
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Traffic { path: path.into(), made: None };
        }
        let file = NamedTempFile::new().expect("the temporary directory can be written");
        write_repeated(&mut BufWriter::new(&file), BYTES).expect("the disk has space");
        Traffic { path: file.path().to_owned(), made: Some(file) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes.
    pub fn bytes(&self) -> u64 {
        std::fs::metadata(&self.path).expect("the file is there").len()
    }

    /// A fresh reader of the file.
    pub fn file(&self) -> File {
        File::open(&self.path).expect("the file can be read")
    }

    /// The file's first lines, as many as fit into so many bytes.
    pub fn head(&self, bytes: u64) -> Vec<u8> {
        let mut head = Vec::new();
        self.file().take(bytes).read_to_end(&mut head).expect("the file can be read");
        let whole = memchr::memrchr(b'\n', &head).map_or(0, |at| at + 1);
        head.truncate(whole);
        head
    }

    /// Where the events come from, for people.
    pub fn name(&self) -> String {
        match self.made {
            Some(_) => "the shipped sample, repeated".to_owned(),
            None => self.path.display().to_string(),
        }
    }
}

/// Hands over the lines of a stream one by one, reading 1 MiB at a time.
pub fn each_line(mut stream: impl Read, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        let read = stream.read(&mut buffer[filled..]).expect("the file can be read");
        if read == 0 {
            break;
        }
        filled += read;
        let mut start = 0;
        let whole = memchr::memrchr(b'\n', &buffer[..filled]).map_or(0, |at| at + 1);
        for end in memchr::memchr_iter(b'\n', &buffer[..whole]) {
            take(&buffer[start..end]);
            start = end + 1;
        }
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    if filled > 0 {
        take(&buffer[..filled]);
    }
}

/// Writes the sample again and again until so many bytes are written.
fn write_repeated(out: &mut impl Write, bytes: u64) -> std::io::Result<()> {
    let mut sample = Vec::new();
    flate2::read::MultiGzDecoder::new(SAMPLE).read_to_end(&mut sample)?;
    let lines: Vec<&[u8]> = sample.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()).collect();
    let events: Vec<Event<'_>> =
        lines.iter().map(|line| Event::parse(line).expect("the sample is whole")).collect();
    let times = || events.iter().filter_map(Event::time_us);
    let span_us = times().max().unwrap_or(0) - times().min().unwrap_or(0) + 1_000_000;
    let mut line = Vec::new();
    let mut written = 0;
    for round in 0.. {
        for event in &events {
            line.clear();
            repeat(event, round, span_us, &mut line);
            written += line.len() as u64;
            if written > bytes {
                return out.flush();
            }
            out.write_all(&line)?;
        }
    }
    out.flush()
}

/// The event of a later round as a line.
fn repeat(event: &Event<'_>, round: i64, span_us: i64, line: &mut Vec<u8>) {
    let mut changes = Vec::new();
    if let (Some(id), Some((start, end))) = (event.plain(Slot::AuditId), event.range(Slot::AuditId))
    {
        let hex = format!("{:032x}", xxh3_128_with_seed(id, round as u64));
        let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        changes.push((start, end, groups.join("-")));
    }
    for slot in [Slot::RequestReceivedTimestamp, Slot::StageTimestamp] {
        if let (Some(time), Some((start, end))) = (event.timestamp(slot), event.range(slot)) {
            changes.push((start, end, EventTime(time + round * span_us).to_string()));
        }
    }
    changes.sort();
    let raw = event.raw();
    let mut at = 0;
    for (start, end, text) in changes {
        line.extend_from_slice(&raw[at..start]);
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
        at = end;
    }
    line.extend_from_slice(&raw[at..]);
    line.push(b'\n');
}
