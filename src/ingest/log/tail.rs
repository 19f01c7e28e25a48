//! Reads the logs of one source and sends what they hold, in order, as batches.
//!
//! Everything happens in [`Tail::step`], which never waits: it takes the answers that are there,
//! looks at the files, reads what is new and sends it as far as there is room. Whoever owns it
//! decides when to step again; tests step by hand.
//!
//! A batch carries the position behind its records, so that both become durable in one append. What
//! is refused is not kept: once every batch under way is answered, each file goes back to its last
//! durable position and is read again.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::ingest::batch::{Answer, Batch, Checkpoint, Notice, NoticeKind, Refused, Stalled};
use crate::ingest::chunk::Chunk;
use crate::ingest::intake::{Intake, Unsent};
use crate::ingest::log::checkpoint::FileCheckpoint;
use crate::ingest::log::config::{Config, Start};
use crate::ingest::log::cut::{Piece, Position};
use crate::ingest::log::disk::Disk;
use crate::ingest::log::family::{Family, Read, name_of};
use crate::ingest::log::findings::Findings;
use crate::ingest::log::gauge::Gauges;
use crate::ingest::log::name::{LogName, live_name};

/// How many batches may be unanswered.
pub(crate) const BATCHES_MAX: usize = 8;

/// How many positions of other files a batch takes along.
const CHECKPOINTS_MAX: usize = 256;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Since the source was started; never goes back.
    pub(crate) elapsed: Duration,
    /// By the wall clock, microseconds since the epoch.
    pub(crate) wall_us: i64,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do at once.
    Busy,
    /// Everything that is there was read.
    Idle,
    /// An answer or room is needed to go on.
    Waiting,
    /// Nobody takes batches any more.
    Closed,
}

/// A batch that was sent and is not answered.
struct Flight {
    answer: Answer,
    result: Option<Result<(), Refused>>,
    /// The log and the number of the file that it is of.
    segment: Option<(PathBuf, u64)>,
    after: Position,
    notices: Vec<Notice>,
    forgotten: Vec<String>,
}

/// Reads the logs of one source.
pub(crate) struct Tail {
    config: Config,
    source: Arc<str>,
    cluster: Option<Arc<str>>,
    disk: Arc<dyn Disk>,
    intake: Intake,
    families: BTreeMap<PathBuf, Family>,
    /// What an earlier run knew, until the logs are found.
    remembered: Vec<(u64, FileCheckpoint)>,
    findings: Findings,
    flights: VecDeque<Flight>,
    /// Sent again as soon as there is room.
    unsent: Option<(Box<Batch>, Flight)>,
    stalled: Stalled,
    is_refused: bool,
    retry_at: Duration,
    retry_wait: Duration,
    discovered_at: Option<Duration>,
    /// The log with a record so large that it must be alone.
    large: Option<PathBuf>,
    read_at: Option<Duration>,
    is_silent: bool,
    sequence: u64,
    gauges: Gauges,
}

impl Tail {
    /// Continues where the checkpoints say.
    pub(crate) fn new(
        config: Config,
        checkpoints: BTreeMap<String, Vec<u8>>,
        disk: Arc<dyn Disk>,
        intake: Intake,
        now: Moment,
    ) -> Tail {
        let source: Arc<str> = config.name.as_str().into();
        let cluster = config.cluster.as_deref().map(Arc::from);
        let mut findings = Findings { source: source.to_string(), ..Findings::default() };
        findings.now_us = now.wall_us;
        let is_first = checkpoints.is_empty();
        let remembered = findings.remembered(checkpoints);
        let mut tail = Tail {
            source,
            cluster,
            disk,
            intake,
            families: BTreeMap::new(),
            remembered,
            findings,
            flights: VecDeque::new(),
            unsent: None,
            stalled: Stalled::default(),
            is_refused: false,
            retry_at: Duration::ZERO,
            retry_wait: RETRY_MIN,
            discovered_at: None,
            large: None,
            read_at: None,
            is_silent: false,
            sequence: 0,
            gauges: Gauges::default(),
            config,
        };
        let is_from_end = is_first && tail.config.start == Start::End;
        tail.discover(now.elapsed, is_from_end);
        tail
    }

    /// Does what can be done without waiting.
    pub(crate) fn step(&mut self, now: Moment) -> Step {
        self.findings.now_us = now.wall_us;
        if !self.collect(now.elapsed) {
            return Step::Closed;
        }
        if self.is_refused {
            if !self.flights.is_empty() || now.elapsed < self.retry_at {
                return Step::Waiting;
            }
            self.begin_again();
        }
        let is_due = self.discovered_at.is_none_or(|at| now.elapsed >= at + self.discover_every());
        if is_due {
            self.discover(now.elapsed, false);
        }
        for family in self.families.values_mut() {
            family.look(&*self.disk, now.elapsed, &mut self.findings);
        }
        self.families.retain(|_, family| family.is_fixed || !family.is_over());
        self.watch_silence(now);
        let step = self.read(now);
        self.gauges.update(&self.source, &self.families, now.elapsed);
        step
    }

    /// The directories in which something may change.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.families.values().map(|family| family.directory.as_path())
    }

    /// Why a log cannot be followed, when that lasts.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.families.values().find_map(Family::problem)
    }

    /// Arranges to be woken when the oldest batch under way is answered. True when it is.
    pub(crate) fn is_answered(&mut self, context: &mut Context<'_>) -> bool {
        let Some(front) = self.flights.front_mut() else { return false };
        if front.result.is_none()
            && let Poll::Ready(answer) = Pin::new(&mut front.answer).poll(context)
        {
            front.result = Some(answer.unwrap_or(Err(Refused::Closed)).map(|_| ()));
        }
        front.result.is_some()
    }

    fn discover_every(&self) -> Duration {
        self.config.discover_interval.0
    }

    /// Finds the logs that the configuration names.
    fn discover(&mut self, now: Duration, is_from_end: bool) {
        self.discovered_at = Some(now);
        for pattern in self.config.path.patterns().to_vec() {
            if !is_pattern(&pattern) {
                let path = PathBuf::from(pattern);
                if !self.families.contains_key(&path) {
                    let mut family = Family::new(path.clone(), true);
                    if let Ok(real) = self.disk.resolve(&path) {
                        family.move_to(&real);
                    }
                    self.families.insert(path, family);
                }
                continue;
            }
            match self.disk.matches(&pattern) {
                Ok(paths) => paths.iter().for_each(|path| self.matched(path)),
                Err(error) => {
                    self.findings.failure();
                    tracing::warn!(pattern, %error, "pattern cannot be followed");
                }
            }
        }
        for (id, known) in std::mem::take(&mut self.remembered) {
            self.remember(id, &known);
        }
        if is_from_end {
            self.families.values_mut().for_each(|family| family.is_from_end = true);
        }
    }

    /// A file that a pattern matches: it, or what it was rotated from, is a log.
    fn matched(&mut self, path: &Path) {
        if !self.disk.stat(path).is_ok_and(|stat| stat.is_file) {
            return;
        }
        let Ok(real) = self.disk.resolve(path) else { return };
        let live = real.with_file_name(live_name(&name_of(&real)));
        let is_known = |family: &Family| {
            LogName::parse(&family.live_name, &name_of(&real)).is_some()
                && real.parent() == Some(family.directory.as_path())
        };
        if !self.families.values().any(is_known) {
            self.families.insert(live.clone(), Family::new(live, false));
        }
    }

    /// Gives a file of an earlier run to its log.
    fn remember(&mut self, id: u64, known: &FileCheckpoint) {
        let name = name_of(&known.path);
        let is_of = |family: &&mut Family| {
            known.path.parent() == Some(family.directory.as_path())
                && LogName::parse(&family.live_name, &name).is_some()
        };
        let is_only = self.families.len() == 1 && self.config.path.patterns().len() == 1;
        if let Some(family) = self.families.values_mut().find(is_of) {
            return family.remember(id, known);
        }
        match self.families.values_mut().next().filter(|family| is_only && family.is_fixed) {
            Some(family) => family.remember(id, known),
            None => {
                let path = known.path.with_file_name(live_name(&name));
                let family = Family::new(path.clone(), false);
                self.families.entry(path).or_insert(family).remember(id, known);
            }
        }
    }

    /// Takes answers in order. False when nothing will be accepted any more.
    fn collect(&mut self, now: Duration) -> bool {
        for flight in self.flights.iter_mut().filter(|flight| flight.result.is_none()) {
            flight.result = match flight.answer.try_recv() {
                Ok(answer) => Some(answer.map(|_| ())),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => None,
                Err(_) => Some(Err(Refused::Closed)),
            };
        }
        while let Some(result) = self.flights.front().and_then(|flight| flight.result) {
            let Some(flight) = self.flights.pop_front() else { break };
            match result {
                Ok(()) if !self.is_refused => self.landed(flight),
                Err(Refused::Closed) => return false,
                // Even if it was stored: what was before it is read again, and it with that.
                Ok(()) | Err(Refused::Full | Refused::Stalled) => self.refused(flight, now),
            }
        }
        true
    }

    fn landed(&mut self, flight: Flight) {
        self.retry_wait = RETRY_MIN;
        let Some((path, id)) = flight.segment else { return };
        let Some(family) = self.families.get_mut(&path) else { return };
        if let Some(segment) = family.segments.iter_mut().find(|segment| segment.id == id) {
            segment.durable = flight.after;
            segment.in_flight = segment.in_flight.saturating_sub(1);
        }
    }

    fn refused(&mut self, flight: Flight, now: Duration) {
        if !self.is_refused {
            self.is_refused = true;
            self.retry_at = now + self.retry_wait;
            self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
            metrics::counter!(
                "kubewitness_log_refusals_total", "source" => self.source.to_string()
            )
            .increment(1);
        }
        self.take_back(flight);
    }

    /// What a batch carried beside records goes with a later one.
    fn take_back(&mut self, flight: Flight) {
        let newer = std::mem::replace(&mut self.findings.notices, flight.notices);
        self.findings.notices.extend(newer);
        self.findings.forgotten.extend(flight.forgotten);
    }

    /// Every batch is answered, and one was refused.
    fn begin_again(&mut self) {
        if let Some((_, flight)) = self.unsent.take() {
            self.take_back(flight);
        }
        self.families.values_mut().for_each(Family::rewind);
        self.large = None;
        self.is_refused = false;
        self.stalled.set(false);
    }

    /// Reads and sends as long as there is something, and room.
    fn read(&mut self, now: Moment) -> Step {
        if let Some((batch, flight)) = self.unsent.take()
            && let Some(step) = self.launch(batch, flight)
        {
            return step;
        }
        let mut is_busy = false;
        loop {
            let mut has_progress = false;
            let paths: Vec<PathBuf> = match &self.large {
                Some(_) if !self.flights.is_empty() => return Step::Waiting,
                Some(path) => vec![path.clone()],
                None => self.families.keys().cloned().collect(),
            };
            for path in paths {
                if self.flights.len() >= BATCHES_MAX {
                    return Step::Waiting;
                }
                let is_alone = self.flights.is_empty();
                let Some(family) = self.families.get_mut(&path) else { continue };
                match family.read(&*self.disk, now.elapsed, is_alone, &mut self.findings) {
                    Read::Piece(id, piece) => {
                        has_progress = true;
                        self.read_at = Some(now.elapsed);
                        if let Some(step) = self.send(&path, id, *piece, now) {
                            return step;
                        }
                    }
                    Read::More => is_busy = true,
                    Read::Large => {
                        self.large = Some(path);
                        return Step::Waiting;
                    }
                    Read::Nothing => {}
                }
                self.large = None;
            }
            if !has_progress {
                break;
            }
        }
        match self.send_rest(now) {
            Some(step) => step,
            None if is_busy => Step::Busy,
            None => Step::Idle,
        }
    }

    fn send(&mut self, path: &Path, id: u64, piece: Piece, now: Moment) -> Option<Step> {
        let family = self.families.get_mut(path)?;
        let segment = family.segments.iter_mut().find(|segment| segment.id == id)?;
        let Piece { mut chunk, after, nuls } = piece;
        self.findings.bytes(chunk.len() as u64, nuls);
        segment.read = after;
        segment.in_flight += 1;
        segment.is_dirty = true;
        let label: Arc<str> = segment.path.to_string_lossy().into();
        chunk.sequence = self.sequence;
        self.sequence += 1;
        self.dispatch(Some((path.to_owned(), id)), label, chunk, after, now)
    }

    /// Sends what is not of any records.
    fn send_rest(&mut self, now: Moment) -> Option<Step> {
        loop {
            let segments = || self.families.values().flat_map(|family| &family.segments);
            let has_rest = !self.findings.notices.is_empty()
                || !self.findings.forgotten.is_empty()
                || segments().any(|segment| segment.is_dirty);
            if !has_rest {
                return None;
            }
            if self.flights.len() >= BATCHES_MAX {
                return Some(Step::Waiting);
            }
            let label = Arc::clone(&self.source);
            let step = self.dispatch(None, label, Chunk::new(), Position::START, now);
            if step.is_some() {
                return step;
            }
        }
    }

    fn dispatch(
        &mut self,
        segment: Option<(PathBuf, u64)>,
        label: Arc<str>,
        chunk: Chunk,
        after: Position,
        now: Moment,
    ) -> Option<Step> {
        let forgotten = std::mem::take(&mut self.findings.forgotten);
        let notices = std::mem::take(&mut self.findings.notices);
        let own = segment.as_ref().map(|(_, id)| *id);
        let mut checkpoints: Vec<Checkpoint> = forgotten
            .iter()
            .map(|key| Checkpoint { key: key.clone(), value: Vec::new() })
            .collect();
        let segments = self.families.values_mut().flat_map(|family| &mut family.segments);
        let dirty = segments.filter(|segment| segment.is_dirty && Some(segment.id) != own);
        for segment in dirty.take(CHECKPOINTS_MAX) {
            segment.is_dirty = false;
            let value = segment.checkpoint().encode();
            checkpoints.push(Checkpoint { key: segment.id.to_string(), value });
        }
        if let Some((path, id)) = &segment
            && let Some(family) = self.families.get_mut(path)
            && let Some(segment) = family.segments.iter_mut().find(|segment| segment.id == *id)
        {
            segment.is_dirty = false;
            let value = segment.checkpoint().encode();
            checkpoints.push(Checkpoint { key: id.to_string(), value });
        }
        let (mut batch, answer) = Batch::new(&self.source, &label, chunk);
        batch.cluster.clone_from(&self.cluster);
        batch.checkpoints = checkpoints;
        batch.notices.clone_from(&notices);
        batch.received_us = now.wall_us;
        batch.stalled = Some(self.stalled.clone());
        let flight = Flight { answer, result: None, segment, after, notices, forgotten };
        self.launch(Box::new(batch), flight)
    }

    /// Sends a batch, or keeps it until there is room.
    fn launch(&mut self, batch: Box<Batch>, flight: Flight) -> Option<Step> {
        match self.intake.try_send(*batch) {
            Ok(()) => {
                self.flights.push_back(flight);
                None
            }
            Err(Unsent::Saturated(batch)) => {
                self.unsent = Some((batch, flight));
                Some(Step::Waiting)
            }
            Err(Unsent::Closed(_)) => Some(Step::Closed),
        }
    }

    /// Tells when nothing came for too long, and when something comes again.
    fn watch_silence(&mut self, now: Moment) {
        let Some(after) = self.config.silent_after else { return };
        let quiet = now.elapsed.saturating_sub(*self.read_at.get_or_insert(now.elapsed));
        let is_silent = quiet >= after.0;
        if is_silent == self.is_silent {
            return;
        }
        self.is_silent = is_silent;
        let (kind, text) = match is_silent {
            true => (NoticeKind::Silent, format!("nothing was written for {} s", quiet.as_secs())),
            false => (NoticeKind::Resumed, "is being written again".to_owned()),
        };
        let source = Arc::clone(&self.source);
        self.findings.notice(kind, &source, None, text);
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}
