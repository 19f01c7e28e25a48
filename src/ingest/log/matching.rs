//! Which file is which: the names in a directory against the files that are known.
//!
//! An open file is certain: its inode cannot be another's. A closed one is the same while nothing
//! of it changed; else, and after a restart, only its bytes tell: the first ones and those before
//! the position must be what they were. So a renamed, compressed, copied or restored file goes on
//! where it was read to, and a new file in an old inode starts at its beginning. Where it cannot be
//! told, a file is read again: duplicates are recognised later, gaps are not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::ingest::batch::NoticeKind;
use crate::ingest::log::disk::{Disk, Stat};
use crate::ingest::log::family::{Family, OPEN_FILES_MAX, name_of};
use crate::ingest::log::findings::Findings;
use crate::ingest::log::name::{LogName, Rank, unpacked};
use crate::ingest::log::probe::Probe;
use crate::ingest::log::segment::{Segment, in_order};

/// A file that so many scans in a row did not find is gone: a scan can miss one that is being
/// renamed.
const MISSING_SCANS: u32 = 2;

/// So often a directory is read again at most because the log was rotated meanwhile.
const LISTINGS_MAX: usize = 3;

/// What compressing nothing takes.
const EMPTY_GZIP_BYTES_MAX: u64 = 48;

/// A file in the directory, or the better of two that are one (`x.log` and `x.log.gz`).
struct Entry {
    path: PathBuf,
    rank: Rank,
    plain: String,
    stat: Stat,
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
        let mut entries = self.list(disk).inspect_err(|error| {
            // Nothing is there yet: what comes is read from its beginning.
            self.is_from_end &= error.kind() != io::ErrorKind::NotFound;
        })?;
        let is_empty = entries.is_empty();
        let had_name: Vec<u64> = self
            .segments
            .iter_mut()
            .filter_map(|segment| std::mem::take(&mut segment.is_named).then_some(segment.id))
            .collect();
        let index = Index::new(&self.segments);
        entries.retain(|entry| !self.known(&index, entry, findings));
        self.unknown.retain(|path, _| entries.iter().any(|entry| entry.path == *path));
        let first_new = findings.next_id;
        let mut is_certain = true;
        for entry in entries {
            is_certain &= self.admit(disk, entry, first_new, now, findings);
        }
        self.is_from_end = false;
        self.tell_overtaken(&had_name, first_new, findings);
        let lost = self.settle(&had_name, is_empty, is_certain);
        self.tell_lost(disk, &lost, findings);
        self.segments = in_order(std::mem::take(&mut self.segments));
        let backups = self.segments.iter().filter(|one| one.is_named && one.rank != Rank::Live);
        self.backups_max = self.backups_max.max(backups.count() as u64);
        self.hold_open(disk);
        Ok(())
    }

    /// The log's files. A rotation between reading the directory and looking at the files would
    /// hide the file that was renamed, and what is younger would be read before it.
    fn list(&mut self, disk: &dyn Disk) -> io::Result<Vec<Entry>> {
        let live = self.directory.join(&self.live_name);
        let inode = || disk.stat(&live).ok().map(|stat| (stat.device, stat.inode));
        for _ in 0..LISTINGS_MAX {
            let before = inode();
            let entries = self.list_once(disk)?;
            if inode() == before {
                return Ok(entries);
            }
        }
        self.list_once(disk)
    }

    /// The log's files as they are met, one for each pair of twins.
    fn list_once(&mut self, disk: &dyn Disk) -> io::Result<Vec<Entry>> {
        let names = match disk.names(&self.directory) {
            // With its directory a log that a pattern found is gone for good.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_fixed => Vec::new(),
            result => result?,
        };
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let mut others = Vec::new();
        for name in names {
            let path = self.directory.join(&name);
            let Some(LogName { rank, plain, is_packed }) = LogName::parse(&self.live_name, &name)
            else {
                others.push(path);
                continue;
            };
            let stat = match disk.stat(&path) {
                Ok(stat) if stat.is_file => stat,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A link to itself stands in no other's way.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => continue,
                Err(error) => return Err(error),
            };
            let entry = Entry { path, rank, plain: plain.clone(), stat };
            // The log backend compresses in place and unlinks the plain file when the compressed
            // one is complete: while both exist the plain one is the whole one.
            let is_better = entries.get(&plain).is_none_or(|twin| {
                let (whole, copy) =
                    if is_packed { (&twin.stat, &stat) } else { (&stat, &twin.stat) };
                is_packed == (whole.size == 0 && copy.size > EMPTY_GZIP_BYTES_MAX)
            });
            if is_better {
                entries.insert(plain, entry);
            }
        }
        let mut entries: Vec<Entry> = entries.into_values().collect();
        entries.extend(self.under_other_names(disk, &others, &entries));
        // Of a file with two names (a hard link, or a rename in between) the live one counts.
        let live = entries.iter().find(|entry| entry.rank == Rank::Live).map(|entry| entry.stat);
        entries.retain(|entry| {
            entry.rank == Rank::Live || !live.is_some_and(|live| live.is_same_file(&entry.stat))
        });
        entries.sort_by(|a, b| a.rank.cmp(&b.rank));
        Ok(entries)
    }

    /// Files of an earlier run that are still there under names that no rotation gives: renamed by
    /// hand, or left behind when a link was led to another file, as the runtime does when a
    /// container starts again. Only what is that file by its inode and by its bytes counts.
    fn under_other_names(&self, disk: &dyn Disk, names: &[PathBuf], found: &[Entry]) -> Vec<Entry> {
        let is_missing = |segment: &&Segment| {
            let is_known = segment.content.is_some() || segment.is_replaced;
            !is_known && !found.iter().any(|entry| entry.stat.is_same_file(&segment.stat))
        };
        let mut entries = Vec::new();
        let is_of_rotation = |path: &&PathBuf| {
            path.parent() == Some(self.directory.as_path())
                && LogName::parse(&self.live_name, &name_of(path)).is_some()
        };
        for segment in self.segments.iter().filter(is_missing) {
            // Of the log's own names those are listed that count.
            let own = std::iter::once(&segment.path).filter(|path| !is_of_rotation(path));
            let paths = own.chain(names);
            let here = paths.filter_map(|path| {
                let stat = disk.stat(path).ok()?;
                (stat.is_file && stat.is_same_file(&segment.stat)).then_some((path, stat))
            });
            let is_it = |(path, _): &(&PathBuf, Stat)| {
                let probe = Probe::open(disk, path);
                probe.and_then(|mut probe| probe.fits(segment, false)).unwrap_or(false)
            };
            let it = { here }.find(is_it);
            entries.extend(it.map(|(path, stat)| {
                let rank = Rank::Numbered(Reverse(u32::MAX));
                Entry { path: path.clone(), rank, plain: name_of(path), stat }
            }));
        }
        entries
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

    /// Finds out what an unknown entry is. False when that is not possible now.
    fn admit(
        &mut self,
        disk: &dyn Disk,
        entry: Entry,
        first_new: u64,
        now: Duration,
        findings: &mut Findings,
    ) -> bool {
        let candidates = self.candidates(&entry);
        let is_empty_one = |at: &usize| {
            let segment = &self.segments[*at];
            segment.head.length == 0 && segment.stat.is_same_file(&entry.stat)
        };
        let is_new = entry.stat.size == 0 && !candidates.iter().any(is_empty_one);
        if candidates.is_empty() || is_new {
            self.add(disk, &entry, now, findings);
            return true;
        }
        if self.unknown.get(&entry.path).is_some_and(|trouble| trouble.is_waiting(now)) {
            self.must_scan = true;
            return false;
        }
        match self.identify(disk, &entry, &candidates, first_new, findings) {
            Ok(true) => {}
            Ok(false) => self.add(disk, &entry, now, findings),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.must_scan = true;
                return false;
            }
            Err(error) => {
                findings.failure();
                self.must_scan = true;
                let path = entry.path.display().to_string();
                if self.unknown.entry(entry.path).or_default().fail(now) {
                    let text = format!("cannot look at {path}: {error}; it is tried again");
                    findings.notice(NoticeKind::Unreadable, &path, None, text);
                }
                return false;
            }
        }
        self.unknown.remove(&entry.path);
        true
    }

    /// The segments that the entry may be, likelier ones first.
    fn candidates(&self, entry: &Entry) -> Vec<usize> {
        let mut candidates: Vec<(u8, usize)> = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let is_lost = segment.content.is_none() && !segment.is_named;
            let is_renamed = segment.content.is_some() && !segment.is_named;
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
            candidates.push((likelihood, index));
        }
        candidates.sort();
        candidates.into_iter().map(|(_, index)| index).collect()
    }

    /// Whether the entry is one of the candidates, or a copy of one.
    fn identify(
        &mut self,
        disk: &dyn Disk,
        entry: &Entry,
        candidates: &[usize],
        first_new: u64,
        findings: &mut Findings,
    ) -> io::Result<bool> {
        let mut probe = Probe::open(disk, &entry.path)?;
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
        if findings.next_id == first_new
            && self.is_next_rotated(entry, first_new)
            && let Some(index) = candidates.iter().find(|at| probe.may_be(&self.segments[**at]))
        {
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

    /// Whether this, if it is the oldest file that is new, was rotated next after what is known:
    /// rotation deletes the oldest first, so nothing between is gone while an older one is there,
    /// or where there never was one.
    fn is_next_rotated(&self, entry: &Entry, first_new: u64) -> bool {
        let known = self.segments.iter().filter(|one| one.id < first_new);
        let mut rotated = known.filter(|one| one.rank != Rank::Live).peekable();
        entry.rank != Rank::Live
            && (rotated.peek().is_none()
                || rotated.any(|one| one.is_named && one.rank < entry.rank))
    }

    /// A file that was not there before.
    fn add(&mut self, disk: &dyn Disk, entry: &Entry, now: Duration, findings: &mut Findings) {
        let rank = entry.rank.clone();
        let mut segment = Segment::new(findings.new_id(), &entry.path, rank, entry.stat, now);
        if self.is_from_end
            && let Err(error) = segment.skip_to_end(disk)
        {
            tracing::warn!(path = %entry.path.display(), %error, "read from its beginning");
        }
        if segment.is_finished {
            segment.content = None;
        }
        self.segments.push(segment);
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
