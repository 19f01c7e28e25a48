//! Logs that are written and rotated in the three ways that files of the log backend are.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::live_kill::{line, random};

/// What becomes of a log that is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Renamed, as kube-apiserver does.
    Rename,
    /// Renamed, and compressed in place while the next one is written: `--audit-log-compress`.
    Compress,
    /// Copied and truncated, as logrotate does; older copies are renamed and some compressed.
    CopyTruncate,
}

impl Rotation {
    /// Every way, with the name that its log has.
    pub(super) const ALL: [(Rotation, &str); 3] = [
        (Rotation::Rename, "renamed"),
        (Rotation::Compress, "compressed"),
        (Rotation::CopyTruncate, "copied"),
    ];

    /// When it is rotated: logrotate renames every copy there is, so it has fewer.
    fn bytes_max(self) -> usize {
        if self == Rotation::CopyTruncate { 400_000 } else { 100_000 }
    }
}

/// A log being written.
pub(super) struct Writer {
    name: &'static str,
    rotation: Rotation,
    directory: PathBuf,
    file: File,
    bytes: usize,
    rotations: u64,
    seed: u64,
    compressing: Option<Compressing>,
}

/// A file of which only a part is compressed yet.
struct Compressing {
    plain: PathBuf,
    rest: Vec<u8>,
    packed: GzEncoder<File>,
}

impl Writer {
    /// Creates `<directory>/<name>/audit.log`.
    pub(super) fn new(directory: &Path, rotation: Rotation, name: &'static str) -> Writer {
        let directory = directory.join(name);
        std::fs::create_dir(&directory).unwrap();
        let file = open(&directory.join("audit.log"));
        let seed = 0x2545_f491_4f6c_dd1d ^ name.len() as u64;
        let (bytes, rotations, compressing) = (0, 0, None);
        Writer { name, rotation, directory, file, bytes, rotations, seed, compressing }
    }

    /// Writes and rotates until it is told to stop; returns how many lines it wrote.
    pub(super) async fn run(mut self, stop: Arc<AtomicBool>, seed: u64) -> u64 {
        self.seed ^= seed;
        let mut n = 0;
        while !stop.load(Ordering::Acquire) {
            let mut part = String::new();
            for _ in 0..1 + random(&mut self.seed, 20) {
                part.push_str(&line(self.name, n));
                part.push('\n');
                n += 1;
            }
            // Torn where it falls: the rest follows with the next write.
            let middle = random(&mut self.seed, part.len() as u64) as usize;
            self.file.write_all(&part.as_bytes()[..middle]).unwrap();
            tokio::task::yield_now().await;
            self.file.write_all(&part.as_bytes()[middle..]).unwrap();
            self.bytes += part.len();
            self.compress(4096);
            if self.bytes > self.rotation.bytes_max() {
                self.rotate().await;
            }
            let pause = Duration::from_millis(3 + random(&mut self.seed, 12));
            tokio::time::sleep(pause).await;
        }
        n
    }

    async fn rotate(&mut self) {
        let live = self.directory.join("audit.log");
        match self.rotation {
            Rotation::Rename => _ = self.rename(&live),
            Rotation::Compress => {
                self.compress(usize::MAX);
                let plain = self.rename(&live);
                self.compressing = Some(Compressing::start(&plain));
            }
            Rotation::CopyTruncate => self.copy_and_truncate(&live).await,
        }
        (self.bytes, self.rotations) = (0, self.rotations + 1);
    }

    /// Goes on compressing.
    fn compress(&mut self, bytes: usize) {
        let Some(compressing) = &mut self.compressing else { return };
        let count = bytes.min(compressing.rest.len());
        let part: Vec<u8> = compressing.rest.drain(..count).collect();
        compressing.packed.write_all(&part).unwrap();
        if compressing.rest.is_empty()
            && let Some(compressing) = self.compressing.take()
        {
            compressing.packed.finish().unwrap();
            std::fs::remove_file(&compressing.plain).unwrap();
        }
    }

    fn rename(&mut self, live: &Path) -> PathBuf {
        let (minute, second) = (self.rotations / 60, self.rotations % 60);
        let name = format!("audit-2026-01-01T00-{minute:02}-{second:02}.000.log");
        let rotated = self.directory.join(name);
        std::fs::rename(live, &rotated).unwrap();
        self.file = open(live);
        rotated
    }

    /// `audit.log.3.gz` becomes `audit.log.4.gz` and so on; `.1` may be compressed on its way.
    async fn copy_and_truncate(&mut self, live: &Path) {
        let path = |number: u64, end: &str| self.directory.join(format!("audit.log.{number}{end}"));
        for number in (1..=self.rotations).rev() {
            for end in ["", ".gz"] {
                let (from, to) = (path(number, end), path(number + 1, end));
                if std::fs::exists(&from).unwrap() {
                    std::fs::rename(from, to).unwrap();
                }
            }
        }
        if self.rotations > 0 && self.rotations.is_multiple_of(2) {
            let plain = path(2, "");
            let Compressing { rest, mut packed, .. } = Compressing::start(&plain);
            packed.write_all(&rest).unwrap();
            packed.finish().unwrap();
            std::fs::remove_file(plain).unwrap();
        }
        // What is written between the copy's end and the truncation is lost whoever reads.
        let bytes = std::fs::read(live).unwrap();
        let mut copy = File::create(path(1, "")).unwrap();
        for part in bytes.chunks(64 << 10) {
            copy.write_all(part).unwrap();
            tokio::task::yield_now().await;
        }
        let pause = Duration::from_millis(random(&mut self.seed, 30));
        tokio::time::sleep(pause).await;
        self.file.set_len(0).unwrap();
    }
}

impl Compressing {
    fn start(plain: &Path) -> Compressing {
        let mut name = plain.as_os_str().to_owned();
        name.push(".gz");
        let packed = GzEncoder::new(File::create(name).unwrap(), Compression::fast());
        Compressing { plain: plain.to_owned(), rest: std::fs::read(plain).unwrap(), packed }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}
