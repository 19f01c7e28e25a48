//! One log: the file being written and what rotation made of its predecessors, in the order in
//! which they were written.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ingest::batch::NoticeKind;
use crate::ingest::log::checkpoint::FileCheckpoint;
use crate::ingest::log::cut::{Cut, Piece};
use crate::ingest::log::disk::{Disk, Stat};
use crate::ingest::log::findings::Findings;
use crate::ingest::log::name::{LogName, Rank};
use crate::ingest::log::segment::{Look, Next, Segment, Trouble};

/// How many files of a log are held open, so that what is deleted before it was read is not lost.
pub(crate) const OPEN_FILES_MAX: usize = 64;

/// For how long a file that was read to its end is held open: a writer that does not know that it
/// was renamed or unlinked goes on writing to it.
const LINGER: Duration = Duration::from_secs(60);

/// The directory is read at least this often, whatever its time of modification says.
const RESCAN: Duration = Duration::from_secs(5);

/// A directory that changed less than this before it was read may have changed since without
/// showing it: times of modification are that coarse.
const RACY_NS: i64 = 1_000_000_000;

/// What reading a log gives.
pub(crate) enum Read {
    /// Records of the file with this number.
    Piece(u64, Box<Piece>),
    /// There is more to do at once, but no records yet.
    More,
    /// A record so large that nothing else may be under way.
    Large,
    /// Nothing now.
    Nothing,
}

/// One log.
pub(crate) struct Family {
    /// The path under which the file being written is found; may be a link.
    pub(crate) path: PathBuf,
    /// The directory of the file itself.
    pub(crate) directory: PathBuf,
    /// Its name there.
    pub(crate) live_name: String,
    /// Oldest first.
    pub(crate) segments: Vec<Segment>,
    /// The configuration names it, so it is one even while nothing is there.
    pub(crate) is_fixed: bool,
    /// What is there now is not read: it was there before the first start.
    pub(crate) is_from_end: bool,
    pub(crate) must_scan: bool,
    scanned: Option<Scanned>,
    /// Files that cannot be looked at, so that it is not known which they are.
    pub(crate) unknown: BTreeMap<PathBuf, Trouble>,
    pub(crate) trouble: Trouble,
    /// What the directory could not be looked into for, last.
    problem: String,
    /// The most rotated files that were there at once.
    pub(crate) backups_max: u64,
    /// The largest of them before compression, in bytes.
    pub(crate) file_bytes_max: u64,
}

struct Scanned {
    at: Duration,
    directory: Stat,
    wall_ns: i64,
}

impl Family {
    /// The log that is written under this path.
    pub(crate) fn new(path: PathBuf, is_fixed: bool) -> Family {
        Family {
            directory: path.parent().map(Path::to_owned).unwrap_or_default(),
            live_name: name_of(&path),
            path,
            segments: Vec::new(),
            is_fixed,
            is_from_end: false,
            must_scan: true,
            scanned: None,
            unknown: BTreeMap::new(),
            trouble: Trouble::default(),
            problem: String::new(),
            backups_max: 0,
            file_bytes_max: 0,
        }
    }

    /// The file being written is this one, links resolved.
    pub(crate) fn move_to(&mut self, real: &Path) {
        self.directory = real.parent().map(Path::to_owned).unwrap_or_default();
        self.live_name = name_of(real);
    }

    /// Whether nothing of the log is left.
    pub(crate) fn is_over(&self) -> bool {
        self.scanned.is_some() && self.segments.is_empty()
    }

    /// Takes a file over that an earlier run knew.
    pub(crate) fn remember(&mut self, id: u64, known: &FileCheckpoint) {
        let rank = match LogName::parse(&self.live_name, &name_of(&known.path)) {
            _ if known.is_live => Rank::Live,
            Some(name) => name.rank,
            None => Rank::Live,
        };
        self.segments.push(Segment::remembered(id, known, rank));
        self.segments.sort_by(|a, b| a.rank.cmp(&b.rank));
        self.must_scan = true;
    }

    /// Looks at the open files, and at the directory where it is due.
    pub(crate) fn look(&mut self, disk: &dyn Disk, now: Duration, findings: &mut Findings) {
        for index in 0..self.segments.len() {
            self.look_at(index, now, findings);
        }
        // Contents that were replaced left their segment, and put another behind it.
        self.split(now, findings);
        if self.is_scan_due(disk, now) && !self.trouble.is_waiting(now) {
            match self.scan(disk, now, findings) {
                Ok(()) => self.trouble.clear(),
                Err(error) => self.cannot_scan(&error, now, findings),
            }
        }
        self.tell_unlinked(findings);
        self.close(now, findings);
    }

    /// Tells of files that grow although no name leads to them any more.
    fn tell_unlinked(&mut self, findings: &mut Findings) {
        for segment in &mut self.segments {
            let has_grown = std::mem::take(&mut segment.has_grown);
            let is_out_of_sight = segment.stat.links == 0 || segment.nameless_scans > 1;
            if !has_grown || segment.is_named || segment.is_told_unlinked || !is_out_of_sight {
                continue;
            }
            segment.is_told_unlinked = true;
            let path = segment.path.display().to_string();
            let text = format!(
                "{path} was unlinked or moved away while it is being written; it is read as long \
                 as it stays open, but nothing is left of it for anybody else"
            );
            findings.notice(NoticeKind::Unlinked, &path, None, text);
        }
    }

    fn cannot_scan(&mut self, error: &io::Error, now: Duration, findings: &mut Findings) {
        self.must_scan = true;
        findings.failure();
        let problem = format!("cannot look into {}: {error}", self.directory.display());
        let is_news = self.trouble.fail(now);
        let is_other = self.trouble.is_told && self.problem != problem;
        if is_news || is_other {
            let text = format!("{problem}; it is tried again");
            findings.notice(NoticeKind::Unreadable, &self.subject(), None, text);
        }
        self.problem = problem;
    }

    /// Why the log cannot be followed, when that lasts.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.trouble.is_told.then_some(&self.problem)
    }

    /// The log, as notices name it.
    pub(crate) fn subject(&self) -> String {
        self.path.display().to_string()
    }

    fn look_at(&mut self, index: usize, now: Duration, findings: &mut Findings) {
        let segment = &mut self.segments[index];
        match segment.look(now) {
            Ok(Look::Same) => {}
            Ok(Look::Grown) => {
                segment.is_finished = false;
                segment.has_grown = !segment.is_named;
                self.must_scan |= segment.has_grown;
            }
            Ok(Look::Shrunk(lost)) => {
                let path = segment.path.display().to_string();
                let text = format!("{path} became {lost} bytes shorter before these were read");
                findings.truncation();
                findings.notice(NoticeKind::Truncated, &path, Some(lost), text);
            }
            Ok(Look::Replaced) => segment.is_replaced = true,
            Err(error) => cannot_read(segment, &error, now, findings),
        }
    }

    /// Where other contents took a file's place, the file becomes a new segment, and the old one
    /// looks for a copy of what it was.
    fn split(&mut self, now: Duration, findings: &mut Findings) {
        let mut index = 0;
        while index < self.segments.len() {
            let old = &mut self.segments[index];
            index += 1;
            if !old.is_replaced || old.content.is_none() {
                continue;
            }
            let Some(content) = old.content.take() else { continue };
            let Ok(stat) = content.stat() else { continue };
            let mut new = Segment::new(findings.new_id(), &old.path, old.rank.clone(), stat, now);
            new.name_stat = old.name_stat;
            new.is_named = old.is_named;
            new.missing_scans = old.missing_scans;
            new.was_live = old.was_live;
            new.take(content, stat);
            if new.refresh_head().is_err() {
                findings.failure();
            }
            old.is_named = false;
            old.is_finished = false;
            old.missing_scans = 0;
            self.segments.insert(index, new);
            self.must_scan = true;
            findings.truncation();
        }
    }

    fn is_scan_due(&self, disk: &dyn Disk, now: Duration) -> bool {
        let Some(scanned) = &self.scanned else { return true };
        let live = self.segments.iter().rfind(|last| last.rank == Rank::Live && last.is_named);
        let is_live_there = match (disk.stat(&self.path), live) {
            (Ok(stat), Some(live)) => stat.is_same_file(&live.stat),
            (Err(_), None) => true,
            _ => false,
        };
        let is_same_directory = disk.stat(&self.directory).is_ok_and(|stat| {
            stat.is_unchanged(&scanned.directory)
                && scanned.wall_ns.saturating_sub(stat.modified_ns) > RACY_NS
        });
        self.must_scan || !is_live_there || !is_same_directory || now >= scanned.at + RESCAN
    }

    fn scan(&mut self, disk: &dyn Disk, now: Duration, findings: &mut Findings) -> io::Result<()> {
        self.must_scan = false;
        let real = match disk.resolve(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.path.clone(),
            result => result?,
        };
        self.move_to(&real);
        let directory = match disk.stat(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_fixed => {
                Stat::default()
            }
            result => result?,
        };
        self.reconcile(disk, now, findings)?;
        let wall_ns = findings.now_us.saturating_mul(1_000);
        self.scanned = Some(Scanned { at: now, directory, wall_ns });
        match disk.stat(&real) {
            Ok(stat) if self.is_fixed && !stat.is_file => {
                Err(io::Error::other(format!("{} is no regular file", real.display())))
            }
            _ => Ok(()),
        }
    }

    /// Closes what was read to its end and does not change any more.
    fn close(&mut self, now: Duration, findings: &mut Findings) {
        for segment in &mut self.segments {
            let is_settled = segment.is_finished
                && segment.in_flight == 0
                && segment.read == segment.durable
                && (!segment.was_live || now >= segment.changed_at + LINGER);
            if !is_settled || segment.content.is_none() {
                continue;
            }
            segment.content = None;
            if !segment.is_named {
                // Nothing of it is left, and nothing of it is missing.
                segment.is_replaced = false;
                segment.missing_scans = u32::MAX;
            }
        }
        self.segments.retain(|segment| {
            let is_gone = segment.missing_scans == u32::MAX && segment.content.is_none();
            if is_gone {
                findings.forgotten.push(segment.id.to_string());
            }
            !is_gone
        });
    }

    /// Reads the next records, oldest file first.
    pub(crate) fn read(
        &mut self,
        disk: &dyn Disk,
        now: Duration,
        is_alone: bool,
        findings: &mut Findings,
    ) -> Read {
        for index in 0..self.segments.len() {
            let segment = &mut self.segments[index];
            if segment.is_finished || segment.content.is_none() && !segment.is_named {
                continue;
            }
            if segment.trouble.is_waiting(now) {
                match segment.trouble.is_told {
                    true => continue,
                    false => return Read::Nothing,
                }
            }
            match self.read_segment(index, disk, now, is_alone, findings) {
                Some(read) => return read,
                None => continue,
            }
        }
        Read::Nothing
    }

    /// `None` when the next file may be read.
    fn read_segment(
        &mut self,
        index: usize,
        disk: &dyn Disk,
        now: Duration,
        is_alone: bool,
        findings: &mut Findings,
    ) -> Option<Read> {
        let segment = &mut self.segments[index];
        let next = segment.open(disk).and_then(|()| segment.next(is_alone));
        match next {
            Ok(Next::Cut(Cut::Piece(piece))) => {
                segment.trouble.clear();
                Some(Read::Piece(segment.id, piece))
            }
            Ok(Next::Cut(Cut::Searching)) => Some(Read::More),
            Ok(Next::Cut(Cut::Large)) => Some(Read::Large),
            Ok(Next::Cut(Cut::Nothing)) => self.at_end(index, now, is_alone, findings),
            Ok(Next::Replaced) => {
                segment.is_replaced = true;
                self.split(now, findings);
                Some(Read::Nothing)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.must_scan = true;
                Some(Read::Nothing)
            }
            Err(error) => {
                cannot_read(segment, &error, now, findings);
                if segment.trouble.is_told { None } else { Some(Read::Nothing) }
            }
        }
    }

    /// Nothing whole stands behind the position.
    fn at_end(
        &mut self,
        index: usize,
        now: Duration,
        is_alone: bool,
        findings: &mut Findings,
    ) -> Option<Read> {
        let segment = &mut self.segments[index];
        if !segment.is_rotated() {
            segment.trouble.clear();
            return None;
        }
        if let Some(fault) = segment.content.as_ref().and_then(|content| content.fault()) {
            findings.failure();
            let offset = segment.read.offset;
            if !segment.trouble.fail(now) && !segment.trouble.is_told {
                // It may be in the making: opened again, it is read from where we are.
                segment.content = None;
                return Some(Read::Nothing);
            }
            let path = segment.path.display().to_string();
            let text = format!("{path}: {fault} behind byte {offset} of the decompressed log");
            findings.notice(NoticeKind::Unreadable, &path, None, text);
            // What stands there of a record is handed over, but read again if the file is mended.
            let remainder = segment.remainder(is_alone);
            segment.is_finished = true;
            segment.is_dirty = true;
            segment.trouble.clear();
            return match remainder {
                Ok(Cut::Piece(mut piece)) => {
                    piece.after = segment.read;
                    Some(Read::Piece(segment.id, piece))
                }
                _ => None,
            };
        }
        segment.trouble.clear();
        if segment.is_at_end() {
            segment.is_finished = true;
            segment.is_dirty = true;
            return None;
        }
        // The last line of a rotated file is not whole: its writer may still be at it.
        if segment.is_named { Some(Read::Nothing) } else { None }
    }

    /// Goes back to what is durable.
    pub(crate) fn rewind(&mut self) {
        for segment in &mut self.segments {
            segment.rewind();
        }
    }
}

/// Counts a failure, and tells it when it lasts.
fn cannot_read(segment: &mut Segment, error: &io::Error, now: Duration, findings: &mut Findings) {
    findings.failure();
    if segment.trouble.fail(now) {
        let path = segment.path.display().to_string();
        let offset = segment.read.offset;
        let text = format!("cannot read {path} behind byte {offset}: {error}; it is tried again");
        findings.notice(NoticeKind::Unreadable, &path, None, text);
    }
}

/// The last part of a path; paths of other than UTF-8 never come here.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}
