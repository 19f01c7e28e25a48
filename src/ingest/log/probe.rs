//! What a file's bytes say of which file it is.

use std::io;
use std::path::Path;

use crate::ingest::log::anchor::ANCHOR_BYTES_MAX;
use crate::ingest::log::content::Content;
use crate::ingest::log::disk::{Disk, Stat};
use crate::ingest::log::name::Rank;
use crate::ingest::log::segment::{Segment, fits_before, is_packed};

/// A file's bytes, opened when they are asked for.
pub(crate) struct Probe {
    pub(crate) content: Content,
    head: Vec<u8>,
    pub(crate) stat: Stat,
}

impl Probe {
    /// Opens a file and reads its first bytes.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> io::Result<Probe> {
        let mut content = Content::of(disk.open(path)?, is_packed(path))?;
        let mut head = vec![0; ANCHOR_BYTES_MAX];
        let length = content.read_at(&mut head, 0)?;
        head.truncate(length);
        let stat = content.stat()?;
        Ok(Probe { content, head, stat })
    }

    /// Whether this is the segment's file, or a copy of it, at least up to its position.
    pub(crate) fn fits(&mut self, segment: &Segment, is_same_name: bool) -> io::Result<bool> {
        if !segment.head.fits_head(&self.head) {
            return Ok(false);
        }
        let head = &self.head[..segment.head.length as usize];
        let has_line = head.len() == ANCHOR_BYTES_MAX || head.contains(&b'\n');
        let is_weak = !has_line && (head.is_empty() || !segment.is_replaced);
        if segment.read.offset == 0 && is_weak {
            // The beginning of a line is the same in every log.
            return Ok(is_same_name || self.stat.is_same_file(&segment.stat));
        }
        let is_whole = |length: Option<u32>| length == Some(segment.read.offset as u32);
        if segment.is_finished && is_whole(self.content.claimed_length()?) {
            return Ok(true);
        }
        fits_before(&mut self.content, segment.read.tail, segment.read.offset)
    }

    /// Whether this may be the segment's file, which was being written when it was last seen, and
    /// had no whole line then: its order among the others has to tell the rest.
    pub(crate) fn may_be(&self, segment: &Segment) -> bool {
        let is_gone = segment.content.is_none() || segment.stat.links == 0;
        let is_live = segment.rank == Rank::Live && !segment.is_named && !segment.is_replaced;
        is_gone && is_live && segment.read.offset == 0 && segment.head.fits_head(&self.head)
    }

    /// Whether this is a copy of the segment's open file, be it still in the making.
    pub(crate) fn is_copy(&mut self, segment: &mut Segment) -> io::Result<bool> {
        let Some(original) = &mut segment.content else { return Ok(false) };
        let mut head = vec![0; self.head.len()];
        let length = original.read_at(&mut head, 0)?;
        if head.is_empty() || length < head.len() || head != self.head {
            return Ok(false);
        }
        if !self.content.is_packed() {
            // Both are compared where the shorter one ends: holes begin alike.
            let end = self.stat.size.min(segment.stat.size);
            let start = end.saturating_sub(ANCHOR_BYTES_MAX as u64);
            let (mut ours, mut theirs) = (vec![0; (end - start) as usize], Vec::new());
            theirs.resize(ours.len(), 0);
            original.read_at(&mut ours, start)?;
            self.content.read_at(&mut theirs, start)?;
            return Ok(ours == theirs);
        }
        fits_before(&mut self.content, segment.read.tail, segment.read.offset)
    }
}
