//! Which file is which: the names in a directory against the files that are known.
//!
//! An open file is certain: its inode cannot be another's. A closed one is the same while nothing
//! of it changed; else, and after a restart, only its bytes tell: the first ones and those before
//! the position must be what they were. So a renamed, compressed, copied or restored file goes on
//! where it was read to, and a new file in an old inode starts at its beginning. Where it cannot be
//! told, a file is read again: duplicates are recognised later, gaps are not.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::ingest::batch::NoticeKind;
use crate::ingest::log::disk::Disk;
use crate::ingest::log::family::{Family, OPEN_FILES_MAX};
use crate::ingest::log::findings::Findings;
use crate::ingest::log::listing::{Entry, LISTINGS_MAX};
use crate::ingest::log::name::{Rank, unpacked};
use crate::ingest::log::probe::Probe;
use crate::ingest::log::segment::{Segment, in_order};

/// A file that so many scans in a row did not find is gone: a scan can miss one that is being
/// renamed.
const MISSING_SCANS: u32 = 2;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Admission {
    /// It has its segment.
    Settled,
    /// It cannot be told now which file it is.
    Unclear,
    /// Nothing is there any more, or another file: the directory has changed.
    Gone,
}

/// The segments by what makes them certain.
struct Index {
    paths: HashMap<PathBuf, usize>,
    /// Device and inode of open files.
    open: HashMap<(u64, u64), usize>,
}

impl Index {
    fn new(segments: &[Segment]) -> Index {
        let (mut paths, mut open) = (HashMap::new(), HashMap::new());
        let current = segments.iter().enumerate().filter(|(_, segment)| !segment.is_replaced);
        for (at, segment) in current {
            paths.insert(segment.path.clone(), at);
            if segment.content.is_some() {
                open.insert((segment.stat.device, segment.stat.inode), at);
            }
        }
        Index { paths, open }
    }
}

impl Family {
    /// Brings the segments in line with what the directory holds.
    ///
    /// # Errors
    /// The directory cannot be read; nothing has changed then.
    pub(crate) fn reconcile(
        &mut self,
        disk: &dyn Disk,
        now: Duration,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let entries = self.list(disk).inspect_err(|error| {
            // Nothing is there yet: what comes is read from its beginning.
            self.is_from_end &= error.kind() != io::ErrorKind::NotFound;
        })?;
        let named = self.segments.iter().filter(|segment| segment.is_named);
        let had_name: Vec<u64> = named.map(|segment| segment.id).collect();
        let first_new = findings.next_id;
        let mut is_empty = entries.is_empty();
        let mut worst = self.assign(disk, entries, now, findings);
        for _ in 1..LISTINGS_MAX {
            // Where the directory cannot be read again, what was assigned counts until it can.
            let is_due = worst == Admission::Gone;
            let Some(Ok(entries)) = is_due.then(|| self.list(disk)) else { break };
            is_empty = entries.is_empty();
            worst = self.assign(disk, entries, now, findings);
        }
        self.must_scan |= worst == Admission::Gone;
        self.is_from_end = false;
        self.tell_overtaken(&had_name, first_new, findings);
        let lost = self.settle(&had_name, is_empty, worst == Admission::Settled);
        self.tell_lost(disk, &lost, findings);
        self.segments = in_order(std::mem::take(&mut self.segments));
        let backups = self.segments.iter().filter(|one| one.is_named && one.rank != Rank::Live);
        self.backups_max = self.backups_max.max(backups.count() as u64);
        self.hold_open(disk);
        Ok(())
    }

    /// Gives each entry to its segment, oldest first; the worst that became of one.
    fn assign(
        &mut self,
        disk: &dyn Disk,
        mut entries: Vec<Entry>,
        now: Duration,
        findings: &mut Findings,
    ) -> Admission {
        self.segments.iter_mut().for_each(|segment| segment.is_named = false);
        let index = Index::new(&self.segments);
        entries.retain(|entry| !self.known(&index, entry, findings));
        self.unknown.retain(|path, _| entries.iter().any(|entry| entry.path == *path));
        let mut worst = Admission::Settled;
        for entry in entries {
            worst = worst.max(self.admit(disk, entry, now, findings));
        }
        worst
    }

    /// Whether the entry is a file that is known for certain; then its segment is placed there.
    fn known(&mut self, index: &Index, entry: &Entry, findings: &mut Findings) -> bool {
        let unchanged = index.paths.get(&entry.path).copied().filter(|at| {
            let segment = &self.segments[*at];
            !segment.is_named && segment.name_stat.is_unchanged(&entry.stat)
        });
        let open = index.open.get(&(entry.stat.device, entry.stat.inode)).copied();
        let open = open.filter(|at| !self.segments[*at].is_named);
        match open.or(unchanged) {
            Some(at) => {
                place(&mut self.segments[at], entry, findings);
                true
            }
            None => false,
        }
    }

    /// Finds out what an unknown entry is.
    fn admit(
        &mut self,
        disk: &dyn Disk,
        entry: Entry,
        now: Duration,
        findings: &mut Findings,
    ) -> Admission {
        let candidates = self.candidates(&entry);
        let is_empty_one = |at: &usize| {
            let segment = &self.segments[*at];
            segment.head.length == 0 && segment.stat.is_same_file(&entry.stat)
        };
        let is_new = entry.stat.size == 0 && !candidates.iter().any(is_empty_one);
        if candidates.is_empty() || is_new {
            return self.add(disk, &entry, now, findings);
        }
        if self.unknown.get(&entry.path).is_some_and(|trouble| trouble.is_waiting(now)) {
            self.must_scan = true;
            return Admission::Unclear;
        }
        let admission = match self.identify(disk, &entry, &candidates, findings) {
            Ok(true) => Admission::Settled,
            Ok(false) => self.add(disk, &entry, now, findings),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Admission::Gone,
            Err(error) => {
                findings.failure();
                self.must_scan = true;
                let path = entry.path.display().to_string();
                if self.unknown.entry(entry.path).or_default().fail(now) {
                    let text = format!("cannot look at {path}: {error}; it is tried again");
                    findings.notice(NoticeKind::Unreadable, &path, None, text);
                }
                return Admission::Unclear;
            }
        };
        self.unknown.remove(&entry.path);
        admission
    }

    /// The segments that the entry may be, likelier ones first.
    fn candidates(&self, entry: &Entry) -> Vec<usize> {
        let mut candidates = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let is_lost = segment.content.is_none() && !segment.is_named;
            // An empty file would take any other's empty copy for its own.
            let is_spent =
                segment.is_finished && segment.read.offset == 0 && segment.stat.links == 0;
            let is_renamed = segment.content.is_some() && !segment.is_named && !is_spent;
            let is_copy = entry.rank != Rank::Live && segment.is_named;
            let has_its_name = (is_lost || is_renamed) && is_same_name(segment, &entry.plain);
            let likelihood = if is_lost && segment.stat.is_same_file(&entry.stat) {
                0
            } else if has_its_name {
                1
            } else if is_lost {
                2
            } else if is_renamed && entry.stat.size > 0 {
                3
            } else if is_copy && segment.was_live && segment.content.is_some() {
                4
            } else {
                continue;
            };
            // Of those that had the inode one after the other the last one has it.
            let youth = if likelihood == 0 { segment.id } else { 0 };
            candidates.push((likelihood, Reverse(youth), index));
        }
        candidates.sort();
        candidates.into_iter().map(|(_, _, index)| index).collect()
    }

    /// Whether the entry is one of the candidates, or a copy of one.
    fn identify(
        &mut self,
        disk: &dyn Disk,
        entry: &Entry,
        candidates: &[usize],
        findings: &mut Findings,
    ) -> io::Result<bool> {
        let mut probe = Probe::open(disk, &entry.path)?;
        if !probe.stat.is_same_file(&entry.stat) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let is_stamped = matches!(entry.rank, Rank::Stamped(_));
        for index in candidates {
            let segment = &mut self.segments[*index];
            let is_copy = segment.is_named;
            let fits = match is_copy {
                true => probe.is_copy(segment)?,
                false => {
                    let is_same = is_stamped && is_same_name(segment, &entry.plain);
                    probe.fits(segment, is_same)?
                }
            };
            if !fits {
                continue;
            }
            if is_copy {
                return Ok(true);
            }
            place(segment, entry, findings);
            if segment.content.is_none() {
                adopt(segment, probe)?;
            }
            return Ok(true);
        }
        let may_be = |at: &&usize| {
            let segment = &self.segments[**at];
            probe.may_be(segment) && self.is_next_rotated(entry, segment)
        };
        if let Some(index) = candidates.iter().find(may_be) {
            let segment = &mut self.segments[*index];
            place(segment, entry, findings);
            if segment.content.is_none() {
                adopt(segment, probe)?;
            }
            return Ok(true);
        }
        for index in candidates {
            let segment = &mut self.segments[*index];
            // The file that was being written has other contents now, and not by a rotation.
            segment.is_replaced |= segment.content.is_none()
                && segment.path == entry.path
                && segment.stat.is_same_file(&entry.stat);
        }
        Ok(false)
    }

    /// Whether this was rotated next after what was known before the segment, which was being
    /// written then: rotation deletes the oldest first, so nothing between is gone while an older
    /// one is there, or where there never was one. What was met later is younger.
    fn is_next_rotated(&self, entry: &Entry, segment: &Segment) -> bool {
        let rotated = self.segments.iter().filter(|one| one.rank != Rank::Live);
        let (older, younger): (Vec<_>, Vec<_>) =
            rotated.filter(|one| one.id != segment.id).partition(|one| one.id < segment.id);
        entry.rank != Rank::Live
            && younger.iter().all(|one| one.rank > entry.rank)
            && (older.is_empty() || older.iter().any(|one| one.is_named && one.rank < entry.rank))
    }

    /// A file that was not there before. It is looked into at once: without its first bytes nothing
    /// would tell later which of the rotated files it became.
    fn add(
        &mut self,
        disk: &dyn Disk,
        entry: &Entry,
        now: Duration,
        findings: &mut Findings,
    ) -> Admission {
        let rank = entry.rank.clone();
        let mut segment = Segment::new(findings.new_id(), &entry.path, rank, entry.stat, now);
        let mut admission = Admission::Settled;
        let open = self.segments.iter().filter(|one| one.content.is_some()).count();
        let has_room = open < OPEN_FILES_MAX;
        let look = match has_room || self.is_from_end || segment.rank == Rank::Live {
            true => segment.open(disk).and_then(|()| segment.refresh_head()),
            // Of thousands of backups those that wait longest are known by their names.
            false => Ok(()),
        };
        match look {
            // It stays: found again by its inode or its name, or told to be gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => admission = Admission::Gone,
            Ok(()) if self.is_from_end => {
                if let Err(error) = segment.skip_to_end() {
                    let path = entry.path.display();
                    tracing::warn!(%path, %error, "read from its beginning");
                }
            }
            Ok(()) => {}
            // What cannot be read is met again, and told, when it is its turn.
            Err(_) => segment.content = None,
        }
        if segment.is_finished || !has_room {
            segment.content = None;
        }
        self.segments.push(segment);
        admission
    }

    /// Lets go of the segments that are gone, and says which.
    fn settle(&mut self, had_name: &[u64], is_empty: bool, is_certain: bool) -> Vec<u64> {
        let mut lost = Vec::new();
        for segment in &mut self.segments {
            if segment.is_named {
                (segment.missing_scans, segment.nameless_scans) = (0, 0);
                continue;
            }
            segment.nameless_scans = segment.nameless_scans.saturating_add(1);
            if had_name.contains(&segment.id) {
                segment.is_dirty = true;
            }
            // Where nothing at all is left, a mount is missing rather than every file.
            let counts = is_certain && (!is_empty || !self.is_fixed);
            if counts && segment.missing_scans < MISSING_SCANS {
                segment.missing_scans += 1;
                self.must_scan |= segment.content.is_none();
            }
            let is_over = segment.content.is_none() && segment.in_flight == 0;
            if is_over && counts && segment.missing_scans >= MISSING_SCANS {
                segment.missing_scans = u32::MAX;
                lost.push(segment.id);
            }
        }
        lost
    }

    /// Opens unread files before their turn, oldest first: an open file cannot be deleted.
    fn hold_open(&mut self, disk: &dyn Disk) {
        let open = self.segments.iter().filter(|segment| segment.content.is_some()).count();
        let unread = self.segments.iter_mut().filter(|segment| {
            segment.content.is_none() && segment.is_named && !segment.is_finished
        });
        for segment in unread.take(OPEN_FILES_MAX.saturating_sub(open)) {
            // What cannot be opened is met again, and told, when it is to be read.
            if let Err(error) = segment.open(disk) {
                match Errno::from_io_error(&error) {
                    Some(Errno::MFILE | Errno::NFILE) => break,
                    _ => continue,
                }
            }
            if segment.refresh_head().is_err() {
                segment.content = None;
            }
        }
        let largest = self.segments.iter().filter(|one| one.rank != Rank::Live);
        let largest = largest.map(|one| one.stat.size.max(one.read.offset)).max();
        self.file_bytes_max = self.file_bytes_max.max(largest.unwrap_or(0));
    }
}

/// Whether the segment was last found under this name, compressed or not.
fn is_same_name(segment: &Segment, plain: &str) -> bool {
    let name = segment.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    unpacked(name).0 == plain
}

/// The segment's file was found under this name.
fn place(segment: &mut Segment, entry: &Entry, findings: &mut Findings) {
    if segment.rank == Rank::Live && entry.rank != Rank::Live {
        findings.rotation();
    }
    if segment.path != entry.path || segment.rank != entry.rank {
        segment.is_dirty = true;
    }
    segment.path.clone_from(&entry.path);
    segment.rank = entry.rank.clone();
    segment.was_live |= entry.rank == Rank::Live;
    segment.is_named = true;
    segment.name_stat = entry.stat;
    if segment.content.is_none() {
        segment.stat = entry.stat;
    }
}

/// The segment goes on in this file.
fn adopt(segment: &mut Segment, probe: Probe) -> io::Result<()> {
    let is_whole = match probe.content.claimed_length()? {
        Some(length) => length == segment.read.offset as u32,
        None => probe.stat.size <= segment.read.offset && !probe.content.is_packed(),
    };
    segment.is_dirty = true;
    if segment.is_finished && is_whole {
        return Ok(());
    }
    segment.is_finished = false;
    segment.is_replaced = false;
    segment.take(probe.content, probe.stat);
    Ok(())
}
