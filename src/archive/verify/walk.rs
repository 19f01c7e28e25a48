//! Every record in order: its commit, the tree that the commits make, the numbers that they count,
//! and what was derived from them.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};

use crate::archive::fringe::{Derived, Fringe};
use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::record::{Kind, Record};
use crate::archive::recover::Commit;
use crate::archive::store::{self, Store};
use crate::archive::tile::{TILE_WIDTH, Tile, decode_bundle, hashes_of};
use crate::archive::tree::{Frontier, Hash, leaf_hash};
use crate::archive::verify::object::{Checked, check, check_object};
use crate::archive::verify::{Class, Known, Options, Report, Step, extras};
use crate::event::time::parse_us;

/// Bytes of a full bundle.
const BUNDLE_BYTES_MAX: u64 = TILE_WIDTH * (2 + crate::archive::record::RECORD_BYTES_MAX as u64);

struct Walk<'w> {
    store: &'w Arc<dyn Store>,
    options: &'w Options,
    known: &'w [Known],
    report: &'w mut Report,
    frontier: Frontier,
    fringe: Fringe,
    /// A leaf was not what the key signed, or not to be had: roots prove nothing before the next
    /// commit says where the tree stands.
    is_doubtful: bool,
    /// Nothing more can be said of tiles.
    is_lost: bool,
    /// A record of the open bundle is not known.
    has_hole: bool,
    numbers: Option<(String, u64, u64)>,
    newest_us: Option<i64>,
    /// What the newest record is and says: a log that was closed is not late.
    newest: (Option<Kind>, String),
    /// Hashes of the keys of segments, by record.
    objects: Vec<u64>,
}

pub(crate) async fn verify(
    store: &Arc<dyn Store>,
    options: &Options,
    size: u64,
    known: &[Known],
    report: &mut Report,
    progress: &(dyn Fn(Step) + Sync),
) -> Result<(), store::Error> {
    let mut walk = Walk {
        store,
        options,
        known,
        report,
        frontier: Frontier::default(),
        fringe: Fringe::default(),
        is_doubtful: false,
        is_lost: false,
        has_hole: false,
        numbers: None,
        newest_us: None,
        newest: (None, String::new()),
        objects: Vec::new(),
    };
    let key = &options.key;
    let records = stream::iter(0..size)
        .map(|seq| check(Arc::clone(store), seq, key.clone(), options.level, options.now_us));
    let mut records = records.buffered(options.parallel.max(1));
    while let Some(checked) = records.next().await {
        walk.take(checked?).await?;
        let (records, lines) = (walk.frontier.size(), walk.report.lines);
        progress(Step { records, records_total: size, lines });
    }
    walk.end().await
}

impl Walk<'_> {
    async fn take(&mut self, checked: Checked) -> Result<(), store::Error> {
        let (seq, commit) = (checked.seq, self.report(checked));
        let derived = match commit {
            Some(commit) => self.known_leaf(commit),
            None => self.unknown_leaf(seq).await?,
        };
        if !self.is_lost {
            for derived in derived {
                self.compare(derived).await?;
            }
        }
        self.meet();
        Ok(())
    }

    fn report(&mut self, checked: Checked) -> Option<Commit> {
        for finding in checked.findings {
            self.report.add(finding.class, &finding.key, finding.text);
        }
        self.report.lines += checked.lines;
        self.report.bytes += checked.bytes;
        checked.commit
    }

    fn known_leaf(&mut self, commit: Commit) -> Vec<Derived> {
        let leaf = leaf_hash(&commit.proof.extra);
        self.frontier.push(leaf);
        let derived = self.fringe.push_leaf(leaf, commit.proof.extra.clone());
        if self.frontier.root() != commit.head.root {
            if !self.is_doubtful {
                let text = "its signed root is not that of the records before it";
                self.report.add(Class::Fork, &commit_key(commit.record.seq), text);
            }
            // What lies before is proven by this commit's own path no more than its root says.
            if let Some(frontier) = commit.frontier() {
                self.frontier = frontier;
            }
            self.is_lost = true;
        }
        self.is_doubtful = false;
        self.report.records += 1;
        self.count(&commit.record);
        self.report.head = Some(commit.head);
        self.report.note = commit.proof.note;
        self.bundle_ends(derived)
    }

    /// Leaves out the bundle of a hole; its tile is compared all the same.
    fn bundle_ends(&mut self, mut derived: Vec<Derived>) -> Vec<Derived> {
        if !derived.is_empty() && std::mem::take(&mut self.has_hole) {
            derived.retain(|(key, _)| !key.starts_with("tile/entries/"));
        }
        derived
    }

    /// The commit is not to be had: the record may be in the bundle, its hash in the tile. The next
    /// commit's root says whether it was the right one.
    async fn unknown_leaf(&mut self, seq: u64) -> Result<Vec<Derived>, store::Error> {
        let (leaf, record) = self.spare(seq).await?;
        self.is_doubtful = true;
        self.numbers = None;
        let segment = match record.as_deref().and_then(Record::decode) {
            Some(record) => {
                self.count(&record);
                record.segment
            }
            None => {
                self.objects.push(extras::UNKNOWN);
                None
            }
        };
        if let Some(segment) = segment {
            let Options { level, now_us, .. } = *self.options;
            let checked = check_object(self.store, segment, level, now_us).await?;
            self.report(checked);
        }
        self.has_hole |= record.is_none();
        self.frontier.push(leaf);
        let derived = self.fringe.push_leaf(leaf, record.unwrap_or_default());
        Ok(self.bundle_ends(derived))
    }

    async fn spare(&self, seq: u64) -> Result<(Hash, Option<Vec<u8>>), store::Error> {
        let published = self.known.iter().find(|known| known.source == CHECKPOINT);
        let sizes = [u64::MAX / 2, published.map_or(0, |known| known.head.size)];
        let (index, place) = (seq / TILE_WIDTH, (seq % TILE_WIDTH) as usize);
        for tile in sizes.into_iter().filter_map(|size| Tile::within(0, index, size)) {
            let bundle = quietly(self.store.read(&tile.entries_path(), BUNDLE_BYTES_MAX).await)?;
            let records = bundle.as_deref().and_then(decode_bundle);
            if let Some(record) = records.as_ref().and_then(|records| records.get(place)) {
                return Ok((leaf_hash(record), Some(record.to_vec())));
            }
            let hashes = quietly(self.store.read(&tile.path(), 32 * TILE_WIDTH).await)?;
            let hashes = hashes.as_deref().and_then(hashes_of);
            if let Some(hash) = hashes.as_ref().and_then(|hashes| hashes.get(place)) {
                return Ok((*hash, None));
            }
        }
        Ok((Hash::default(), None))
    }

    async fn compare(&mut self, (key, expected): Derived) -> Result<(), store::Error> {
        let found = self.store.read(&key, expected.len() as u64).await;
        match found {
            Err(store::Error::TooLarge { size, .. }) => {
                let text = format!("{size} bytes instead of {}", expected.len());
                self.report.add(Class::Altered, &key, text);
            }
            Err(error) => return Err(error),
            Ok(None) => {
                let text = "there is no such object; it can be made again from the commits";
                self.report.add(Class::Missing, &key, text);
            }
            Ok(Some(found)) if found != expected => {
                self.report.add(Class::Altered, &key, "not what the commits make");
            }
            Ok(Some(found)) => self.report.bytes += found.len() as u64,
        }
        Ok(())
    }

    /// Compares with every head that something speaks of at this size.
    fn meet(&mut self) {
        let (size, root) = (self.frontier.size(), self.frontier.root());
        if self.is_doubtful {
            return;
        }
        for known in self.known.iter().filter(|known| known.head.size == size) {
            if known.head.root != root {
                let text = format!("another root was signed for {size} records");
                self.report.add(Class::Fork, &known.source, text);
            }
        }
    }

    /// The spool's numbers must go on where they ended.
    fn count(&mut self, record: &Record) {
        let key = commit_key(record.seq);
        let segment = record.segment.as_ref();
        self.objects.push(segment.map_or(extras::NO_SEGMENT, |it| extras::key_hash(&it.object)));
        self.newest_us = parse_us(record.sealed_at.as_bytes()).or(self.newest_us);
        let mark = record.says.get("mark").cloned().unwrap_or_default();
        self.newest = (Some(record.kind), mark);
        if record.kind == Kind::Gap {
            let reason = record.says.get("reason").map_or("no reason given", String::as_str);
            self.report.add(Class::Gap, &key, reason);
        }
        if let Some((spool, after, through)) = &self.numbers
            && *spool == record.spool
            && record.after != *through
            && (record.after, record.through) != (*after, *through)
        {
            let text = format!(
                "the spool was archived up to {through}, it goes on after {}",
                record.after
            );
            self.report.add(Class::Gap, &key, text);
        }
        self.numbers = Some((record.spool.clone(), record.after, record.through));
    }

    async fn end(mut self) -> Result<(), store::Error> {
        let published = self.known.iter().find(|known| known.source == CHECKPOINT);
        let is_published = published.is_some_and(|it| it.head.size == self.fringe.size());
        if is_published && !self.is_lost && !self.is_doubtful {
            let derived = self.fringe.partial();
            let derived = derived.into_iter();
            let has_hole = self.has_hole;
            let is_known = |key: &str| !has_hole || !key.starts_with("tile/entries/");
            for derived in derived.filter(|(key, _)| is_known(key)) {
                self.compare(derived).await?;
            }
        }
        let age_us = self.newest_us.map(|newest| self.options.now_us.saturating_sub(newest));
        if let (Some(age_us), Some(age_us_max)) = (age_us, self.options.age_us_max)
            && age_us > age_us_max
            && self.newest.0 != Some(Kind::Close)
        {
            let stopped = if self.newest.1 == "stop" { ": the writer was stopped" } else { "" };
            let text = format!("the newest record is {} s old{stopped}", age_us / 1_000_000);
            self.report.add(Class::Stale, &commit_key(self.frontier.size() - 1), text);
        }
        if self.report.note.is_empty()
            && let Some(known) = self.known.iter().max_by_key(|known| known.head.size)
        {
            self.report.note.clone_from(&known.note);
        }
        let size = self.frontier.size();
        extras::verify(self.store, self.options, size, &self.objects, self.report).await
    }
}

/// An object that is too large to be one is as good as none.
fn quietly<T>(read: Result<Option<T>, store::Error>) -> Result<Option<T>, store::Error> {
    match read {
        Err(store::Error::TooLarge { .. }) => Ok(None),
        other => other,
    }
}
