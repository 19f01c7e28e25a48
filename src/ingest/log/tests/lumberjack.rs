//! How kube-apiserver's log backend writes: lumberjack v2.2.1, step by step.
//!
//! A file that is there at the start is appended to; one that rotation made is written at the
//! writer's own offset, which it keeps when somebody else truncates the file. The mill deletes and
//! compresses beside the writing, here when a test says so, one operation at a time.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::ingest::log::tests::sim::{Sim, SimFile};

pub(crate) struct Lumberjack {
    sim: Sim,
    pub(crate) path: PathBuf,
    pub(crate) bytes_max: u64,
    pub(crate) backups_max: usize,
    pub(crate) is_compressing: bool,
    file: Option<Arc<SimFile>>,
    /// Where the next write goes; `None` for the end of the file.
    offset: Option<u64>,
    size: u64,
    now_us: i64,
    /// So much time passed for it that nobody else took.
    ahead_us: i64,
    /// The backups that were made, oldest first, by their plain names.
    pub(crate) backups: Vec<PathBuf>,
    mill: VecDeque<Mill>,
}

#[derive(Clone, Debug)]
enum Mill {
    Delete(PathBuf),
    Create(PathBuf),
    WriteHalf(PathBuf),
    WriteAll(PathBuf),
    Unlink(PathBuf),
}

impl Lumberjack {
    pub(crate) fn new(sim: Sim, path: &Path) -> Lumberjack {
        Lumberjack {
            sim,
            path: path.to_owned(),
            bytes_max: 100 << 20,
            backups_max: 0,
            is_compressing: false,
            file: None,
            offset: None,
            size: 0,
            now_us: 0,
            ahead_us: 0,
            backups: Vec::new(),
            mill: VecDeque::new(),
        }
    }

    pub(crate) fn set_now(&mut self, now_us: i64) {
        self.now_us = now_us + self.ahead_us;
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if self.file.is_none() {
            match self.sim.open_existing(&self.path) {
                Some(file) => {
                    use crate::ingest::log::disk::DiskFile;
                    self.size = file.stat().unwrap().size;
                    self.offset = None;
                    self.file = Some(file);
                }
                None => self.open_new(),
            }
        }
        if self.size + length > self.bytes_max {
            self.rotate();
        }
        self.file.as_ref().unwrap().write_at(bytes, self.offset);
        self.size += length;
        self.offset = self.offset.map(|offset| offset + length);
    }

    /// The process ends; the next write is another one's.
    pub(crate) fn close(&mut self) {
        self.file = None;
        self.mill.clear();
    }

    pub(crate) fn rotate(&mut self) {
        self.file = None;
        if self.sim.exists(&self.path) {
            let backup = self.backup_name();
            self.sim.rename(&self.path, &backup);
            self.backups.retain(|other| *other != backup);
            self.backups.push(backup);
        }
        self.open_new();
        self.plan();
    }

    /// Rotates when anything was written, a little after that: no two backups have one name.
    pub(crate) fn rotate_later(&mut self) {
        if self.size == 0 {
            return;
        }
        self.now_us += 3_000;
        self.ahead_us += 3_000;
        self.rotate();
    }

    fn open_new(&mut self) {
        self.file = Some(self.sim.create(&self.path));
        (self.offset, self.size) = (Some(0), 0);
    }

    fn backup_name(&self) -> PathBuf {
        let time = Timestamp::from_microsecond(self.now_us).unwrap().to_zoned(TimeZone::UTC);
        let stamp = time.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let dot = name.rfind('.').unwrap_or(name.len());
        self.path.with_file_name(format!("{}-{stamp}{}", &name[..dot], &name[dot..]))
    }

    fn plan(&mut self) {
        self.mill.clear();
        let there: Vec<PathBuf> = self
            .backups
            .iter()
            .filter(|path| self.sim.exists(path) || self.sim.exists(&packed(path)))
            .cloned()
            .collect();
        let surplus = match self.backups_max {
            0 => 0,
            max => there.len().saturating_sub(max),
        };
        for path in &there[..surplus] {
            for path in [packed(path), path.clone()] {
                self.mill.push_back(Mill::Delete(path));
            }
        }
        for path in there[surplus..].iter().filter(|path| self.sim.exists(path)) {
            if self.is_compressing {
                self.mill.push_back(Mill::Create(path.clone()));
                self.mill.push_back(Mill::WriteHalf(path.clone()));
                self.mill.push_back(Mill::WriteAll(path.clone()));
                self.mill.push_back(Mill::Unlink(path.clone()));
            }
        }
    }

    /// Does the next thing; false when there is none.
    pub(crate) fn mill_step(&mut self) -> bool {
        let Some(step) = self.mill.pop_front() else { return false };
        match step {
            Mill::Delete(path) | Mill::Unlink(path) => self.sim.remove(&path),
            Mill::Create(path) => drop(self.sim.create(&packed(&path))),
            Mill::WriteHalf(path) => {
                let gz = gzip(&self.sim.contents(&path));
                self.sim.write(&packed(&path), &gz[..gz.len() / 2]);
            }
            Mill::WriteAll(path) => {
                let gz = gzip(&self.sim.contents(&path));
                let file = self.sim.open_existing(&packed(&path)).unwrap();
                file.write_at(&gz[gz.len() / 2..], Some((gz.len() / 2) as u64));
            }
        }
        true
    }

    pub(crate) fn mill(&mut self) {
        self.plan();
        while self.mill_step() {}
    }
}

pub(crate) fn packed(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.gz", path.display()))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
