//! A disk in memory: keeps apart what was written and what was synced, and fails on schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What happens at one numbered step; steps are the operations that change the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The step does half of its work, and every later step fails: the process is dead.
    Die,
    /// The step fails with this errno, having done half of its work if it is a write.
    Errno(i32),
    /// The write fails with this errno and has done nothing.
    ErrnoClean(i32),
    /// The write reports that it wrote only half.
    Short,
}

/// What of the unsynced content a loss of power leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing that was not synced.
    Synced,
    /// All of it.
    All,
    /// The first half of the writes and half of the next.
    Prefix,
    /// All, but every even (or odd) sector of 64 bytes of it is missing.
    Holes(u64),
    /// Only the last write, and zeros before it.
    Last,
}

/// What of the unsynced changes of names a loss of power leaves on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// None of them.
    Synced,
    /// All of them.
    All,
    /// The first half of them.
    Prefix,
}

/// Every way of losing power that is tried at every step.
pub(crate) const LOSSES: [(Content, Names); 11] = [
    (Content::Synced, Names::Synced),
    (Content::Synced, Names::All),
    (Content::Synced, Names::Prefix),
    (Content::All, Names::Synced),
    (Content::All, Names::All),
    (Content::Prefix, Names::All),
    (Content::Prefix, Names::Prefix),
    (Content::Holes(0), Names::All),
    (Content::Holes(1), Names::Synced),
    (Content::Holes(1), Names::All),
    (Content::Last, Names::All),
];

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Cut(u64),
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Naming {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    names_synced: BTreeMap<PathBuf, usize>,
    names_unsynced: Vec<Naming>,
    steps: u64,
    faults: BTreeMap<u64, Fault>,
    dead: bool,
    /// Times that a file or directory was opened.
    openings: u64,
    /// Openings that fail, and with which errno.
    denied: (Range<u64>, i32),
}

/// Handle to the disk; clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct Sim(Arc<Mutex<State>>);

/// One open file.
pub(crate) struct Handle {
    sim: Sim,
    inode: usize,
}

fn dead() -> io::Error {
    io::Error::other("the simulated process is dead")
}

impl State {
    /// Counts a step that changes the disk and looks up its fault.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(dead());
        }
        self.steps += 1;
        let fault = self.faults.get(&self.steps).copied();
        self.dead = fault == Some(Fault::Die);
        Ok(fault)
    }

    /// A step that is done wholly or not at all.
    fn atomic_step(&mut self) -> io::Result<()> {
        match self.step()? {
            None | Some(Fault::Short) => Ok(()),
            Some(Fault::Die) => Err(dead()),
            Some(Fault::Errno(code) | Fault::ErrnoClean(code)) => {
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }

    /// Counts an opening, which may be denied.
    fn opening(&mut self) -> io::Result<()> {
        self.openings += 1;
        let (denied, code) = &self.denied;
        match denied.contains(&self.openings) {
            true => Err(io::Error::from_raw_os_error(*code)),
            false => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        if self.dead {
            return Err(dead());
        }
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn name(&mut self, naming: Naming) {
        apply_naming(&mut self.names, &naming);
        self.names_unsynced.push(naming);
    }
}

fn apply_naming(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        Naming::Unlink(path) => drop(names.remove(path)),
        Naming::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(bytes);
        }
        Change::Cut(bytes) => content.resize(*bytes as usize, 0),
    }
}

/// What a loss of power leaves of one file.
fn survive(inode: &Inode, mode: Content) -> Vec<u8> {
    let mut content = inode.synced.clone();
    let changes = &inode.unsynced;
    match mode {
        Content::Synced => {}
        Content::All => changes.iter().for_each(|change| apply(&mut content, change)),
        Content::Prefix => {
            changes.iter().take(changes.len() / 2).for_each(|change| apply(&mut content, change));
            if let Some(Change::Write { offset, bytes }) = changes.get(changes.len() / 2) {
                let half = bytes[..bytes.len() / 2].to_vec();
                apply(&mut content, &Change::Write { offset: *offset, bytes: half });
            }
        }
        Content::Holes(phase) => {
            changes.iter().for_each(|change| apply(&mut content, change));
            for at in inode.synced.len().min(content.len())..content.len() {
                if (at as u64 / 64) % 2 == phase {
                    content[at] = 0;
                }
            }
        }
        Content::Last => {
            if let Some(last) = changes.last() {
                apply(&mut content, last);
            }
        }
    }
    content
}

impl Sim {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a test that panicked has failed already")
    }

    /// Schedules a fault at a step counted from the disk's creation.
    pub(crate) fn fail_at(&self, step: u64, fault: Fault) {
        self.state().faults.insert(step, fault);
    }

    /// Schedules a fault at the `n`th step from now; 1 is the next.
    pub(crate) fn fail_in(&self, n: u64, fault: Fault) {
        let mut state = self.state();
        let step = state.steps + n;
        state.faults.insert(step, fault);
    }

    /// Lets files be opened no more, for openings with these numbers, of which the first is 1.
    pub(crate) fn deny_openings(&self, denied: Range<u64>, errno: i32) {
        self.state().denied = (denied, errno);
    }

    /// How often a file or directory was opened so far.
    pub(crate) fn openings(&self) -> u64 {
        self.state().openings
    }

    /// Number of steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// True once a `Die` was met.
    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The process is started anew; the kernel kept all that was written.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.dead = false;
        state.faults.clear();
        state.denied = (0..0, 0);
    }

    /// Another disk with what a loss of power now would leave of this one.
    pub(crate) fn after_power_loss(&self, content: Content, names: Names) -> Sim {
        let state = self.state();
        let keep = match names {
            Names::Synced => 0,
            Names::All => state.names_unsynced.len(),
            Names::Prefix => state.names_unsynced.len() / 2,
        };
        let mut left = state.names_synced.clone();
        state.names_unsynced.iter().take(keep).for_each(|naming| apply_naming(&mut left, naming));
        let inodes = state
            .inodes
            .iter()
            .map(|inode| survive(inode, content))
            .map(|bytes| Inode { now: bytes.clone(), synced: bytes, unsynced: Vec::new() })
            .collect();
        Sim(Arc::new(Mutex::new(State {
            inodes,
            dirs: state.dirs.clone(),
            names: left.clone(),
            names_synced: left,
            ..State::default()
        })))
    }

    /// A copy of the disk as the kernel sees it.
    pub(crate) fn fork(&self) -> Sim {
        Sim(Arc::new(Mutex::new(self.state().clone())))
    }

    /// A file's content.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].now.clone()
    }

    /// Replaces a file's content, durably and behind the spool's back.
    pub(crate) fn tamper(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = Inode { now: bytes.clone(), synced: bytes, unsynced: Vec::new() };
        state.inodes.push(inode);
        let at = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), at);
        state.names_synced.insert(path.to_owned(), at);
    }

    /// Paths of all files, sorted.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.atomic_step()?;
        state.dirs.insert(path.to_owned());
        Ok(())
    }

    pub(super) fn create(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.state();
        state.opening()?;
        state.atomic_step()?;
        if let Ok(inode) = state.find(path) {
            state.inodes[inode].now.clear();
            state.inodes[inode].unsynced.push(Change::Cut(0));
            return Ok(Handle { sim: self.clone(), inode });
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.name(Naming::Link(path.to_owned(), inode));
        Ok(Handle { sim: self.clone(), inode })
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<Handle> {
        let mut state = self.state();
        state.opening()?;
        let inode = state.find(path)?;
        Ok(Handle { sim: self.clone(), inode })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.atomic_step()?;
        state.find(from)?;
        state.name(Naming::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.atomic_step()?;
        state.find(path)?;
        state.name(Naming::Unlink(path.to_owned()));
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.opening()?;
        if state.dead {
            return Err(dead());
        }
        if !state.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.opening()?;
        state.atomic_step()?;
        let (synced, unsynced) =
            std::mem::take(&mut state.names_unsynced).into_iter().partition(|naming| {
                let (Naming::Link(path, _) | Naming::Unlink(path) | Naming::Rename(_, path)) =
                    naming;
                path.parent() == Some(dir)
            });
        let synced: Vec<Naming> = synced;
        synced.iter().for_each(|naming| apply_naming(&mut state.names_synced, naming));
        state.names_unsynced = unsynced;
        Ok(())
    }
}

impl Handle {
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.sim.state();
        let fault = state.step()?;
        let count = match fault {
            None => bytes.len(),
            Some(Fault::ErrnoClean(_)) => 0,
            Some(_) => bytes.len() / 2,
        };
        let change = Change::Write { offset, bytes: bytes[..count].to_vec() };
        if count > 0 {
            let inode = &mut state.inodes[self.inode];
            apply(&mut inode.now, &change);
            inode.unsynced.push(change);
        }
        match fault {
            None | Some(Fault::Short) => Ok(count),
            Some(Fault::Die) => Err(dead()),
            Some(Fault::Errno(code) | Fault::ErrnoClean(code)) => {
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }

    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.sim.state();
        if state.dead {
            return Err(dead());
        }
        let content = &state.inodes[self.inode].now;
        let start = (offset as usize).min(content.len());
        let count = bytes.len().min(content.len() - start);
        bytes[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.sim.state();
        state.atomic_step()?;
        let inode = &mut state.inodes[self.inode];
        apply(&mut inode.now, &Change::Cut(bytes));
        inode.unsynced.push(Change::Cut(bytes));
        Ok(())
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        let state = self.sim.state();
        if state.dead {
            return Err(dead());
        }
        Ok(state.inodes[self.inode].now.len() as u64)
    }

    /// A failed sync does what Linux does: the changes are forgotten as if they had been written.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut state = self.sim.state();
        match state.atomic_step() {
            Ok(()) => {}
            Err(error) => {
                if !state.dead {
                    state.inodes[self.inode].unsynced.clear();
                }
                return Err(error);
            }
        }
        let inode = &mut state.inodes[self.inode];
        let changes = std::mem::take(&mut inode.unsynced);
        changes.iter().for_each(|change| apply(&mut inode.synced, change));
        Ok(())
    }
}
