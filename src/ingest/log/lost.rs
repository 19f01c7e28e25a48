//! Files that are gone before all of them was read: what is told of them.

use crate::ingest::batch::NoticeKind;
use crate::ingest::log::disk::Disk;
use crate::ingest::log::family::Family;
use crate::ingest::log::findings::{Findings, spelled};
use crate::ingest::log::name::Rank;
use crate::ingest::log::probe::Probe;
use crate::ingest::log::segment::Segment;

impl Family {
    /// Tells when the file that was being written at the last look was rotated and deleted since,
    /// and others were rotated after it: between it and them there may have been more.
    pub(crate) fn tell_overtaken(
        &mut self,
        had_name: &[u64],
        first_new: u64,
        findings: &mut Findings,
    ) {
        let mut new = self.segments.iter().filter(|one| one.id >= first_new);
        let Some(oldest) = new.find(|one| one.rank != Rank::Live) else { return };
        let is_overtaken = |segment: &&Segment| {
            let is_gone = !segment.is_named && segment.stat.links == 0;
            is_gone && segment.rank == Rank::Live && had_name.contains(&segment.id)
        };
        if let Some(segment) = self.segments.iter().find(is_overtaken) {
            let path = segment.path.display().to_string();
            let text = format!(
                "{path} was rotated and deleted between two looks; what was written after it and \
                 before {} may be gone unread: let rotation keep more files, or look more often",
                oldest.path.display()
            );
            findings.gap();
            findings.notice(NoticeKind::Gap, &path, None, text);
        }
    }

    /// Tells of files that are gone before they were read.
    pub(crate) fn tell_lost(&self, disk: &dyn Disk, lost: &[u64], findings: &mut Findings) {
        let (mut names, mut sum) = (Vec::new(), Some(0));
        for id in lost {
            let Some(segment) = self.segments.iter().find(|segment| segment.id == *id) else {
                continue;
            };
            let path = segment.path.display().to_string();
            let unread = segment.unread_bytes();
            // That it was truncated is not remembered by a run that is killed.
            let was_live = segment.is_replaced || segment.rank == Rank::Live;
            let is_copied = || self.was_empty(segment) || self.has_copy(disk, segment);
            if was_live && !segment.is_finished && is_copied() {
                continue;
            }
            if segment.is_replaced {
                let known = (unread > 0).then_some(unread);
                let text = format!(
                    "{path} was truncated; {unread} bytes of it that had been seen were not read"
                );
                findings.notice(NoticeKind::Truncated, &path, known, text);
            } else if segment.rank == Rank::Live && !segment.is_finished {
                let text = format!(
                    "{path}, read up to byte {}, is gone with all that was written to it since",
                    segment.read.offset
                );
                findings.gap();
                findings.notice(NoticeKind::Gap, &path, (unread > 0).then_some(unread), text);
            } else if unread > 0 {
                let (size, what) = match segment.is_packed() {
                    true => (None, "compressed bytes"),
                    false => (Some(unread), "bytes"),
                };
                names.push(format!("{path} ({unread} {what})"));
                sum = sum.zip(size).map(|(sum, size): (u64, u64)| sum + size);
                findings.gap();
            }
        }
        if !names.is_empty() {
            let text = format!("deleted before it was read: {}", spelled(&names));
            findings.notice(NoticeKind::Gap, &self.subject(), sum, text);
        }
    }

    /// Whether nothing of it was ever seen, and its file was truncated and goes on.
    fn was_empty(&self, truncated: &Segment) -> bool {
        let goes_on =
            |other: &Segment| other.id > truncated.id && other.stat.is_same_file(&truncated.stat);
        truncated.stat.size == 0 && truncated.read.offset == 0 && self.segments.iter().any(goes_on)
    }

    /// Whether a file that is read as one of its own holds all of what a truncated one held.
    fn has_copy(&self, disk: &dyn Disk, truncated: &Segment) -> bool {
        let copies = self.segments.iter().filter(|other| {
            let is_whole = other.is_packed() || other.stat.size >= truncated.stat.size;
            is_whole && other.id != truncated.id && other.is_named && other.rank != Rank::Live
        });
        copies.rev().any(|copy| {
            let probe = Probe::open(disk, &copy.path);
            probe.and_then(|mut probe| probe.fits(truncated, false)).unwrap_or(false)
        })
    }
}
