//! Scripts of what a process does with a spool, the model of what must be true of it afterwards,
//! and the check of a disk against the model.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::spool::cursor::{self, Cursor, Start};
use crate::spool::dead_letter::{DeadLetter, DeadLetters};
use crate::spool::disk::sim::{Content, Names, Sim};
use crate::spool::reader::Limits;
use crate::spool::tests::Rig;
use crate::spool::{Batch, Error, Options, guard, snapshot};

/// One thing a process does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Appends batches in one group: the sizes of their records' payloads.
    Append(Vec<Vec<usize>>),
    /// A cursor reads so many records and acknowledges them.
    Ack(&'static str, usize),
    /// A cursor's position is stored.
    Store(&'static str),
    /// A snapshot is written of all but the last so many records.
    Snapshot(u64),
    /// A dead letter is kept.
    Letter,
    /// The oldest dead letter is removed.
    Unletter,
    /// The process exits and opens the spool again.
    Reopen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Answered with its first sequence number.
    Acked(u64),
    /// Refused: it must not be there.
    Refused,
    /// The process died, or was told that nobody knows.
    Unknown,
}

/// What was done and answered so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Payloads and fate of every batch that was ever given to the writer.
    batches: Vec<(Vec<String>, Fate)>,
    /// By cursor: last acknowledged, and last known to be stored.
    cursors: BTreeMap<&'static str, (u64, u64)>,
    /// Sequence numbers of snapshots: those begun, and the last that was finished.
    snapshots: Vec<u64>,
    snapshot: Option<u64>,
    letters_begun: u64,
    letters_kept: Vec<String>,
    letters_going: Vec<String>,
}

/// A running process and its model.
pub(crate) struct Run {
    pub(crate) model: Model,
    options: Options,
    sim: Sim,
    rig: Option<Rig>,
    cursors: BTreeMap<&'static str, Cursor>,
}

impl Run {
    pub(crate) fn new(sim: &Sim, options: &Options) -> Run {
        let (sim, options) = (sim.clone(), options.clone());
        Run { model: Model::default(), options, sim, rig: None, cursors: BTreeMap::new() }
    }

    /// Does the actions until one fails in a way that ends the process.
    pub(crate) fn act(&mut self, actions: &[Action]) -> Result<(), Error> {
        actions.iter().try_for_each(|action| self.one(action))
    }

    fn rig(&mut self) -> Result<&mut Rig, Error> {
        if self.rig.is_none() {
            let rig = Rig::open(&self.sim, &self.options)?;
            for name in ["fast", "slow"] {
                let cursor = rig.cursor(name, Start::Oldest)?;
                let (acked, stored) = self.model.cursors.entry(name).or_default();
                assert!((*stored..=*acked).contains(&cursor.acked()));
                // What was acknowledged and not stored is read again.
                (*acked, *stored) = (cursor.acked(), cursor.acked());
                self.cursors.insert(name, cursor);
            }
            self.rig = Some(rig);
        }
        Ok(self.rig.as_mut().expect("just opened"))
    }

    fn one(&mut self, action: &Action) -> Result<(), Error> {
        self.rig()?;
        match action {
            Action::Append(sizes) => self.append(sizes),
            Action::Ack(name, records) => {
                let cursor = self.cursors.get_mut(name).expect("opened with the rig");
                let limits = Limits { records_max: *records, ..Limits::default() };
                let Some(records) = cursor.reader.read_blocking(&limits)? else { return Ok(()) };
                cursor.note_ack(records.seq_last)?;
                self.model.cursors.entry(name).or_default().0 = records.seq_last;
                Ok(())
            }
            Action::Store(name) => {
                let cursor = &self.cursors[name];
                cursor::store(&cursor.catalog, &cursor.position)?;
                let known = self.model.cursors.entry(name).or_default();
                known.1 = known.0;
                Ok(())
            }
            Action::Snapshot(back) => {
                let catalog = self.rig()?.opened.catalog.clone();
                let oldest = self.model.snapshot.unwrap_or(0);
                let seq = catalog.seq_durable().saturating_sub(*back).max(oldest);
                self.model.snapshots.push(seq);
                let state = format!("as of {seq}");
                match snapshot::write(&catalog, "windows", seq, state.as_bytes()) {
                    Err(Error::SeqBehind { .. }) => drop(self.model.snapshots.pop()),
                    written => {
                        written?;
                        self.model.snapshot = Some(seq);
                    }
                }
                Ok(())
            }
            Action::Letter => self.letter(),
            Action::Unletter => self.unletter(),
            Action::Reopen => {
                self.cursors.clear();
                self.rig = None;
                self.rig().map(drop)
            }
        }
    }

    fn append(&mut self, sizes: &[Vec<usize>]) -> Result<(), Error> {
        let mut group = Vec::new();
        let first = self.model.batches.len();
        for records in sizes {
            let number = self.model.batches.len();
            let text =
                |(index, size): (usize, &usize)| format!("{:-<size$}", format!("{number}.{index}"));
            let payloads: Vec<String> = records.iter().enumerate().map(text).collect();
            let mut batch = Batch::new();
            payloads.iter().for_each(|payload| batch.push(3, payload.as_bytes()));
            group.push(batch);
            self.model.batches.push((payloads, Fate::Unknown));
        }
        let answers = self.rig()?.writer.commit(&mut group);
        let mut fatal = Ok(());
        for (index, answer) in answers.into_iter().enumerate() {
            self.model.batches[first + index].1 = match answer {
                Ok(appended) => Fate::Acked(appended.seq_first),
                Err(error) if error.is_full() => Fate::Refused,
                Err(error) => {
                    fatal = Err(error);
                    Fate::Unknown
                }
            };
        }
        fatal
    }

    fn letters(&mut self) -> Result<DeadLetters, Error> {
        Ok(self.rig()?.opened.dead_letters.clone())
    }

    fn letter(&mut self) -> Result<(), Error> {
        self.model.letters_begun += 1;
        let reason = format!("letter {}", self.model.letters_begun);
        let letter = DeadLetter { reason: reason.clone(), ..DeadLetter::default() };
        match self.letters()?.append_blocking(&[letter]) {
            Ok(()) => self.model.letters_kept.push(reason),
            Err(Error::DeadLettersFull { .. } | Error::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn unletter(&mut self) -> Result<(), Error> {
        let letters = self.letters()?;
        let Some(oldest) = letters.read_blocking(0, 1)?.pop() else { return Ok(()) };
        let reason = oldest.letter.reason;
        self.model.letters_kept.retain(|kept| *kept != reason);
        self.model.letters_going = vec![reason];
        letters.remove_blocking(&[oldest.id])?;
        self.model.letters_going.clear();
        Ok(())
    }
}

/// Opens a disk and checks that it is what the model allows; then that it can be used, and that
/// what was visible survives another loss of power.
pub(crate) fn check(sim: &Sim, options: &Options, model: &Model, what: &str) {
    let mut rig = match Rig::open(sim, options) {
        Ok(rig) => rig,
        Err(error) => {
            panic!("{what}: cannot open: {error}: {:?}", std::error::Error::source(&error))
        }
    };
    assert_eq!(rig.recovery.damages, [], "{what}");
    let seen = rig.all();
    check_records(&rig, &seen, model, what);
    check_positions(&rig, model, what);
    check_letters(&rig, model, what);

    let again = sim.after_power_loss(Content::Synced, Names::Synced);
    let survived = Rig::open(&again, options).unwrap().all();
    assert_eq!(survived, seen, "{what}: what was visible after opening was not durable");

    let appended = rig.append(&["afterwards"]).unwrap();
    drop(rig);
    let last = Rig::open(sim, options).unwrap().all().pop().unwrap();
    assert_eq!(last, (appended.seq_first, "afterwards".to_owned()), "{what}");
}

fn check_records(rig: &Rig, seen: &[(u64, String)], model: &Model, what: &str) {
    let in_order = seen.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
    assert!(in_order, "{what}: numbers left out or repeated: {seen:?}");
    let passed = model.cursors.values().map(|known| known.0).min().unwrap_or(0);
    let held = model.snapshots.iter().copied().max().unwrap_or(u64::MAX);
    let passed = passed.min(held);
    let mut rest = seen;
    for (number, (payloads, fate)) in model.batches.iter().enumerate() {
        let here = rest.first().is_some_and(|(_, payload)| *payload == payloads[0]);
        if here {
            let (batch, behind) = rest.split_at(payloads.len().min(rest.len()));
            let found: Vec<&String> = batch.iter().map(|(_, payload)| payload).collect();
            assert!(
                found.iter().copied().eq(payloads),
                "{what}: half of batch {number}: {found:?}"
            );
            if let Fate::Acked(seq) = fate {
                assert_eq!(batch[0].0, *seq, "{what}: batch {number} moved");
            }
            rest = behind;
        }
        match fate {
            Fate::Acked(seq) if !here => {
                let last = seq + payloads.len() as u64 - 1;
                assert!(last <= passed, "{what}: acked batch {number} at {seq} is lost");
                assert!(rest.len() == seen.len(), "{what}: batch {number} lost from the middle");
            }
            Fate::Refused => assert!(!here, "{what}: refused batch {number} is there"),
            Fate::Acked(_) | Fate::Unknown => {}
        }
    }
    assert!(rest.is_empty(), "{what}: nobody appended {rest:?}");
    assert_eq!(rig.read(rig.opened.catalog.seq_oldest()).missing, 0, "{what}");
}

fn check_positions(rig: &Rig, model: &Model, what: &str) {
    let cursors = guard(&rig.opened.catalog.cursors);
    for (name, (acked, stored)) in &model.cursors {
        // A cursor may not have been created yet.
        let Some(position) = cursors.get(*name) else {
            assert_eq!(*stored, 0, "{what}: cursor {name} is lost");
            continue;
        };
        let found = position.acked.load(Ordering::Acquire);
        assert!(
            (*stored..=*acked).contains(&found),
            "{what}: {name} at {found} of {stored}..{acked}"
        );
    }
    drop(cursors);
    let found = snapshot::read(&rig.opened.catalog, "windows").unwrap();
    match (found, model.snapshot) {
        (None, known) => assert_eq!(known, None, "{what}: snapshot lost"),
        (Some(found), known) => {
            assert_eq!(found.bytes, format!("as of {}", found.seq).as_bytes(), "{what}");
            assert!(model.snapshots.contains(&found.seq), "{what}: snapshot of {}", found.seq);
            assert!(
                Some(found.seq) >= known,
                "{what}: snapshot {} older than {known:?}",
                found.seq
            );
            let oldest = rig.opened.catalog.seq_oldest();
            assert!(oldest <= found.seq + 1, "{what}: {oldest} does not follow the snapshot");
        }
    }
}

fn check_letters(rig: &Rig, model: &Model, what: &str) {
    let found = rig.opened.dead_letters.read_blocking(0, 100).unwrap();
    let found: Vec<String> = found.into_iter().map(|stored| stored.letter.reason).collect();
    for kept in &model.letters_kept {
        assert!(found.contains(kept), "{what}: {kept} is lost, left are {found:?}");
    }
    let last = format!("letter {}", model.letters_begun);
    for reason in &found {
        let is_known = model.letters_kept.contains(reason)
            || model.letters_going.contains(reason)
            || *reason == last;
        assert!(is_known, "{what}: {reason} came back");
    }
}
