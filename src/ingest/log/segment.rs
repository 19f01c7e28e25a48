//! One file of a log: where it is, what it is known by, how far it was read.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ingest::log::anchor::{ANCHOR_BYTES_MAX, Anchor};
use crate::ingest::log::checkpoint::FileCheckpoint;
use crate::ingest::log::content::Content;
use crate::ingest::log::cut::{Cut, Cutter, Position, Terms};
use crate::ingest::log::disk::{Disk, Stat};
use crate::ingest::log::name::Rank;

/// A rotated file without a change for so many looks, and for so long, is not being written to any
/// more: what stands at its end is a record, whole or not. Looks may follow each other closely.
const QUIET_LOOKS: u32 = 2;
const QUIET: Duration = Duration::from_secs(3);

/// So many failures in a row are told.
const FAILURES_TOLD: u32 = 3;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Something that fails and is tried again.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    failures: u32,
    next_try: Duration,
    /// It was told; nothing waits for it any more, but it is tried on.
    pub(crate) is_told: bool,
}

impl Trouble {
    /// Whether the next try is not due yet.
    pub(crate) fn is_waiting(&self, now: Duration) -> bool {
        self.failures > 0 && now < self.next_try
    }

    /// Counts a failure; true when it is to be told now.
    pub(crate) fn fail(&mut self, now: Duration) -> bool {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures += 1;
        self.next_try = now + wait;
        let is_news = self.failures >= FAILURES_TOLD && !self.is_told;
        self.is_told |= is_news;
        is_news
    }

    /// It worked.
    pub(crate) fn clear(&mut self) {
        *self = Trouble::default();
    }
}

/// What looking at an open file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing happened.
    Same,
    /// It is longer.
    Grown,
    /// It lost so many bytes at its end that were not read yet.
    Shrunk(u64),
    /// What was read is no longer there: these are other contents.
    Replaced,
}

/// What reading on gives.
#[derive(Debug)]
pub(crate) enum Next {
    /// See [`Cut`].
    Cut(Cut),
    /// See [`Look::Replaced`].
    Replaced,
}

/// One file of a log.
pub(crate) struct Segment {
    /// Its number among the files of the source, and the key of its checkpoint.
    pub(crate) id: u64,
    /// Where it is, or last was.
    pub(crate) path: PathBuf,
    /// When it was written, by its name.
    pub(crate) rank: Rank,
    /// Whether the path leads to it, by the last scan.
    pub(crate) is_named: bool,
    /// Whether it was seen as the file being written, in this run.
    pub(crate) was_live: bool,
    /// As the file was last seen.
    pub(crate) stat: Stat,
    /// As the file at the path was last seen: the compressed copy of an open file is another one.
    pub(crate) name_stat: Stat,
    /// Its first bytes.
    pub(crate) head: Anchor,
    /// Where reading goes on.
    pub(crate) read: Position,
    /// What is durable.
    pub(crate) durable: Position,
    /// Present while it is open.
    pub(crate) content: Option<Content>,
    cutter: Cutter,
    /// Whether it was read to its end after it had been rotated.
    pub(crate) is_finished: bool,
    /// How many batches of it are under way.
    pub(crate) in_flight: u32,
    /// Whether its checkpoint is not sent yet.
    pub(crate) is_dirty: bool,
    /// How many looks in a row showed no change.
    quiet_looks: u32,
    /// When it was looked at last.
    looked_at: Duration,
    /// When it last changed.
    pub(crate) changed_at: Duration,
    /// How many scans in a row did not find it.
    pub(crate) missing_scans: u32,
    /// How many scans in a row showed no name of it, also where nothing at all was there.
    pub(crate) nameless_scans: u32,
    /// It grew since the last look, and had no name.
    pub(crate) has_grown: bool,
    /// Other contents took its place in its file.
    pub(crate) is_replaced: bool,
    /// What goes wrong with it.
    pub(crate) trouble: Trouble,
    /// That it grows without a name was told.
    pub(crate) is_told_unlinked: bool,
}

impl Segment {
    /// A file that was not seen before.
    pub(crate) fn new(id: u64, path: &Path, rank: Rank, stat: Stat, now: Duration) -> Segment {
        Segment {
            id,
            path: path.to_owned(),
            was_live: rank == Rank::Live,
            rank,
            is_named: true,
            stat,
            name_stat: stat,
            head: Anchor::default(),
            read: Position::START,
            durable: Position::START,
            content: None,
            cutter: Cutter::default(),
            is_finished: false,
            in_flight: 0,
            is_dirty: true,
            quiet_looks: 0,
            looked_at: Duration::ZERO,
            changed_at: now,
            missing_scans: 0,
            nameless_scans: 0,
            has_grown: false,
            is_replaced: false,
            trouble: Trouble::default(),
            is_told_unlinked: false,
        }
    }

    /// A file that an earlier run knew; where it is now is still to be found.
    pub(crate) fn remembered(id: u64, known: &FileCheckpoint, rank: Rank) -> Segment {
        let stat = Stat {
            device: known.device,
            inode: known.inode,
            born_ns: known.born_ns,
            size: known.size,
            modified_ns: known.modified_ns,
            links: 1,
            is_file: true,
        };
        let read = Position { offset: known.offset, line: known.line, tail: known.tail };
        Segment {
            is_named: false,
            was_live: false,
            head: known.head,
            read,
            durable: read,
            is_finished: known.is_finished,
            is_dirty: false,
            ..Segment::new(id, &known.path, rank, stat, Duration::ZERO)
        }
    }

    /// What to keep of it once everything up to the reading position is durable.
    pub(crate) fn checkpoint(&self) -> FileCheckpoint {
        let stat = if self.content.is_some() { &self.stat } else { &self.name_stat };
        FileCheckpoint {
            device: stat.device,
            inode: stat.inode,
            born_ns: stat.born_ns,
            size: stat.size,
            modified_ns: stat.modified_ns,
            head: self.head,
            tail: self.read.tail,
            offset: self.read.offset,
            line: self.read.line,
            is_live: self.rank == Rank::Live,
            is_finished: self.is_finished,
            ..FileCheckpoint::new(&self.path)
        }
    }

    /// Bytes that are known to be there and were not handed over; of a compressed file, its own,
    /// until it was read.
    pub(crate) fn unread_bytes(&self) -> u64 {
        match self.is_packed() {
            _ if self.is_finished => 0,
            true => self.stat.size,
            false => self.stat.size.saturating_sub(self.read.offset),
        }
    }

    /// Whether its size says nothing about offsets.
    pub(crate) fn is_packed(&self) -> bool {
        match &self.content {
            Some(content) => content.is_packed(),
            None => is_packed(&self.path),
        }
    }

    /// Whether nothing will be appended to it, going by its name.
    pub(crate) fn is_rotated(&self) -> bool {
        self.rank != Rank::Live || !self.is_named
    }

    /// Opens the file at its path.
    pub(crate) fn open(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.content.is_none() {
            let content = Content::of(disk.open(&self.path)?, is_packed(&self.path))?;
            let stat = content.stat()?;
            if !stat.is_same_file(&self.name_stat) {
                // Renamed in between; the next scan tells what is what.
                return Err(io::ErrorKind::NotFound.into());
            }
            self.take(content, stat);
        }
        Ok(())
    }

    /// Reads from this open file from now on.
    pub(crate) fn take(&mut self, content: Content, stat: Stat) {
        self.content = Some(content);
        self.stat = stat;
        self.cutter = Cutter::default();
    }

    /// Looks at the open file.
    pub(crate) fn look(&mut self, now: Duration) -> io::Result<Look> {
        self.looked_at = now;
        let Some(content) = &mut self.content else { return Ok(Look::Same) };
        let stat = content.stat()?;
        let before = std::mem::replace(&mut self.stat, stat);
        if stat.is_unchanged(&before) {
            self.quiet_looks = self.quiet_looks.saturating_add(1);
            return Ok(Look::Same);
        }
        self.quiet_looks = 0;
        self.changed_at = now;
        if content.is_packed() {
            // It is in the making, or was made anew; where we are in it will show.
            content.restart();
            self.cutter = Cutter::default();
            return Ok(Look::Grown);
        }
        if stat.size < self.read.offset || !self.is_as_read()? {
            self.stat.size = before.size;
            return Ok(Look::Replaced);
        }
        self.refresh_head()?;
        Ok(match stat.size.cmp(&before.size) {
            std::cmp::Ordering::Less => Look::Shrunk(before.size - stat.size),
            std::cmp::Ordering::Equal => Look::Same,
            std::cmp::Ordering::Greater => Look::Grown,
        })
    }

    /// Whether the bytes before the position, or else the first ones, are still what they were.
    fn is_as_read(&mut self) -> io::Result<bool> {
        let (anchor, end) = match self.read.tail.length {
            0 => (self.head, u64::from(self.head.length)),
            _ => (self.read.tail, self.read.offset),
        };
        let Some(content) = &mut self.content else { return Ok(true) };
        fits_before(content, anchor, end)
    }

    /// Takes the first bytes' fingerprint, as long as they are fewer than it can cover.
    pub(crate) fn refresh_head(&mut self) -> io::Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        let known = self.head.length as usize;
        let has_more = match content.is_packed() {
            true => known == 0 && self.read.offset == 0,
            false => known < ANCHOR_BYTES_MAX && self.stat.size > known as u64,
        };
        if has_more {
            let mut head = [0; ANCHOR_BYTES_MAX];
            let length = content.read_at(&mut head, 0)?;
            self.head = Anchor::of_head(&head[..length]);
        }
        Ok(())
    }

    /// Reads on from the position, without moving it.
    pub(crate) fn next(&mut self, is_alone: bool) -> io::Result<Next> {
        self.refresh_head()?;
        let is_quiet = self.is_rotated()
            && self.quiet_looks >= QUIET_LOOKS
            && self.looked_at.saturating_sub(self.changed_at) >= QUIET;
        let Some(content) = &mut self.content else { return Ok(Next::Cut(Cut::Nothing)) };
        let is_packed = content.is_packed();
        let size = if is_packed { u64::MAX } else { self.stat.size };
        let mut terms = Terms { is_final: is_quiet && !is_packed, is_alone, size };
        let mut cut = self.cutter.cut(content, self.read, terms)?;
        if is_packed && content.fault().is_none() && matches!(cut, Cut::Nothing) {
            terms.is_final = true;
            cut = self.cutter.cut(content, self.read, terms)?;
        }
        if matches!(cut, Cut::Piece(_)) && !is_packed && !self.is_as_read()? {
            return Ok(Next::Replaced);
        }
        Ok(Next::Cut(cut))
    }

    /// What stands behind the position in compressed data that ends early: a part of a record.
    pub(crate) fn remainder(&mut self, is_alone: bool) -> io::Result<Cut> {
        let Some(content) = &mut self.content else { return Ok(Cut::Nothing) };
        let terms = Terms { is_final: true, is_alone, size: u64::MAX };
        self.cutter.cut(content, self.read, terms)
    }

    /// Whether everything that the open file holds was handed over.
    pub(crate) fn is_at_end(&self) -> bool {
        match &self.content {
            None => false,
            Some(content) if content.is_packed() => content.fault().is_none(),
            Some(_) => self.read.offset >= self.stat.size,
        }
    }

    /// Goes back to what is durable, to read it again.
    pub(crate) fn rewind(&mut self) {
        if self.read != self.durable {
            self.read = self.durable;
            self.is_finished = false;
        }
        self.cutter = Cutter::default();
        self.in_flight = 0;
        self.is_dirty = true;
    }

    /// Starts behind everything that is in the open file: behind the last line end.
    pub(crate) fn skip_to_end(&mut self) -> io::Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        if !content.is_packed() {
            let mut block = vec![0; 64 << 10];
            let mut end = self.stat.size;
            while end > 0 {
                let start = end.saturating_sub(block.len() as u64);
                let length = (end - start) as usize;
                let length = content.read_at(&mut block[..length], start)?;
                if let Some(at) = memchr::memrchr(b'\n', &block[..length]) {
                    let tail = Anchor::of_tail(&block[..=at]);
                    self.read = Position { offset: start + at as u64 + 1, line: 1, tail };
                    break;
                }
                end = start;
            }
        }
        self.durable = self.read;
        self.is_finished = self.rank != Rank::Live;
        Ok(())
    }
}

/// Whether the path is named as a compressed file's.
pub(crate) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "gz" || end == "zst")
}

/// Whether the bytes before `end` are the anchor's.
pub(crate) fn fits_before(content: &mut Content, anchor: Anchor, end: u64) -> io::Result<bool> {
    let length = anchor.length as usize;
    let Some(start) = end.checked_sub(length as u64) else { return Ok(false) };
    let mut bytes = vec![0; length];
    let found = content.read_at(&mut bytes, start)?;
    Ok(anchor.fits(&bytes[..found]))
}

/// Puts the files in order: by their names, and those without one behind what stood before them.
pub(crate) fn in_order(segments: Vec<Segment>) -> Vec<Segment> {
    let before: Vec<u64> = segments.iter().map(|segment| segment.id).collect();
    let (mut ordered, nameless): (Vec<Segment>, Vec<Segment>) =
        segments.into_iter().partition(|segment| segment.is_named);
    ordered.sort_by(|a, b| a.rank.cmp(&b.rank));
    for segment in nameless {
        let own = before.iter().position(|id| *id == segment.id).unwrap_or(0);
        let place = before[..own]
            .iter()
            .rev()
            .find_map(|id| ordered.iter().position(|other| other.id == *id).map(|place| place + 1));
        ordered.insert(place.unwrap_or(0), segment);
    }
    ordered
}
