//! The files of a log that are in its directory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::ingest::log::disk::{Disk, Stat};
use crate::ingest::log::family::{Family, name_of};
use crate::ingest::log::name::{LogName, Rank};
use crate::ingest::log::probe::Probe;
use crate::ingest::log::segment::Segment;

/// So often a directory is read again at most because the log was rotated meanwhile.
pub(crate) const LISTINGS_MAX: usize = 3;

/// What compressing nothing takes.
const EMPTY_GZIP_BYTES_MAX: u64 = 48;

/// A file in the directory, or the better of two that are one (`x.log` and `x.log.gz`).
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) rank: Rank,
    pub(crate) plain: String,
    pub(crate) stat: Stat,
}

impl Family {
    /// The log's files. A rotation between reading the directory and looking at the files would
    /// hide the file that was renamed, and what is younger would be read before it.
    pub(crate) fn list(&mut self, disk: &dyn Disk) -> io::Result<Vec<Entry>> {
        let live = self.directory.join(&self.live_name);
        let inode = || disk.stat(&live).ok().map(|stat| (stat.device, stat.inode));
        for _ in 0..LISTINGS_MAX {
            let before = inode();
            let (entries, is_gone) = self.list_once(disk)?;
            if inode() == before && !is_gone {
                return Ok(entries);
            }
        }
        Ok(self.list_once(disk)?.0)
    }

    /// The log's files as they are met, one for each pair of twins, and whether one of them was
    /// gone before it was looked at: compressed meanwhile, it is there under a name not read yet.
    fn list_once(&mut self, disk: &dyn Disk) -> io::Result<(Vec<Entry>, bool)> {
        let names = match disk.names(&self.directory) {
            // With its directory a log that a pattern found is gone for good.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_fixed => Vec::new(),
            result => result?,
        };
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let (mut others, mut is_gone) = (Vec::new(), false);
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
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    is_gone = true;
                    continue;
                }
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
        Ok((entries, is_gone))
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
}
