//! Tests of the spool as a whole, on the simulated disk: a rig that drives it without threads.

use std::path::{Path, PathBuf};

use crate::spool::cursor::{Cursor, Start};
use crate::spool::disk::Disk;
use crate::spool::disk::sim::Sim;
use crate::spool::handle::{Opened, open};
use crate::spool::reader::{Limits, Reader, Records};
use crate::spool::writer::{Appended, Writer};
use crate::spool::{Batch, Error, Options, Recovery};

mod crash;
mod damage;
mod limits;
mod live;
mod model;
mod script;

/// Where the simulated spool lies.
pub(crate) const DIR: &str = "/spool";

/// A spool whose writer the test runs itself.
pub(crate) struct Rig {
    pub(crate) sim: Sim,
    pub(crate) writer: Writer,
    pub(crate) recovery: Recovery,
    pub(crate) opened: Opened,
}

/// Limits small enough that a few batches fill several segments.
pub(crate) fn small() -> Options {
    Options {
        bytes_max: 1 << 20,
        segment_bytes_max: 500,
        batch_bytes_max: 400,
        waiting_bytes_max: 4_000,
        ack_records_max: u64::MAX,
        ack_interval: std::time::Duration::MAX,
        snapshot_bytes_max: 1_000,
        dead_letter_bytes_max: 2_000,
        dead_letters_max: 10,
        quarantine_bytes_max: 1 << 20,
        passed_bytes_min: 0,
    }
}

impl Rig {
    pub(crate) fn open(sim: &Sim, options: &Options) -> Result<Rig, Error> {
        let disk = Disk::Sim(sim.clone());
        let (writer, recovery, opened) = open(disk, Path::new(DIR), options.clone(), None)?;
        Ok(Rig { sim: sim.clone(), writer, recovery, opened })
    }

    /// Appends one batch of records of kind 1.
    pub(crate) fn append(&mut self, payloads: &[&str]) -> Result<Appended, Error> {
        let mut batch = Batch::new();
        payloads.iter().for_each(|payload| batch.push(1, payload.as_bytes()));
        self.writer.commit(&mut [batch]).remove(0)
    }

    pub(crate) fn cursor(&self, name: &str, start: Start) -> Result<Cursor, Error> {
        let Opened { catalog, durable, .. } = &self.opened;
        Cursor::open(catalog.clone(), durable.clone(), name, start)
    }

    pub(crate) fn reader(&self, seq: u64) -> Reader {
        Reader::new(self.opened.catalog.clone(), self.opened.durable.clone(), seq)
    }

    /// Everything from `seq` on, in one go.
    pub(crate) fn read(&self, seq: u64) -> Records {
        let limits = Limits { records_max: 100_000, bytes_max: 100 << 20, kinds: None };
        self.reader(seq).read_blocking(&limits).unwrap().unwrap_or_default()
    }

    /// Sequence numbers and payloads of everything held.
    pub(crate) fn all(&self) -> Vec<(u64, String)> {
        pairs(&self.read(self.opened.catalog.seq_oldest()))
    }
}

/// Sequence numbers and payloads.
pub(crate) fn pairs(records: &Records) -> Vec<(u64, String)> {
    let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
    records.iter().map(|record| (record.seq, text(record.payload))).collect()
}

/// The segment files on a disk, in order.
pub(crate) fn segment_paths(sim: &Sim) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("segments");
    sim.paths().into_iter().filter(|path| path.parent() == Some(&dir)).collect()
}
