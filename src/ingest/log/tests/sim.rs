//! A disk in memory: inodes are reused at once, files can be held open, have a hole at their start,
//! fail, and read short.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ingest::log::disk::{Disk, DiskFile, Stat};

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    List,
    Open,
    Read,
}

struct Fault {
    operation: Operation,
    name: String,
    errno: i32,
    times: u32,
}

#[derive(Default)]
struct Node {
    inode: u64,
    /// NULs at the start that take no space.
    hole: u64,
    data: Vec<u8>,
    links: u64,
    holders: u64,
    modified_ns: i64,
    born_ns: i64,
}

impl Node {
    fn size(&self) -> u64 {
        self.hole + self.data.len() as u64
    }
}

#[derive(Default)]
struct State {
    device: u64,
    names: BTreeMap<PathBuf, u64>,
    symlinks: BTreeMap<PathBuf, PathBuf>,
    nodes: BTreeMap<u64, Node>,
    serial: u64,
    /// Numbers that were given back.
    inodes: BTreeSet<u64>,
    directories: BTreeMap<PathBuf, i64>,
    now_ns: i64,
    faults: Vec<Fault>,
    is_short: bool,
    is_unmounted: bool,
}

/// What others do between two uses of the disk, and before which of these.
type Race = (u32, Box<dyn FnOnce() + Send>);

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Sim(Arc<Mutex<State>>, Arc<Mutex<Vec<Race>>>);

/// An open file, of a reader or a writer.
pub(crate) struct SimFile {
    sim: Sim,
    serial: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.sim.lock();
        if let Some(node) = state.nodes.get_mut(&self.serial) {
            node.holders -= 1;
        }
        state.free(self.serial);
    }
}

impl State {
    fn tick(&mut self) -> i64 {
        self.now_ns += 1;
        self.now_ns
    }

    fn touch_directory(&mut self, path: &Path) {
        let now = self.tick();
        self.directories.insert(path.parent().unwrap().to_owned(), now);
    }

    fn free(&mut self, serial: u64) {
        if self.nodes.get(&serial).is_some_and(|node| node.links + node.holders == 0) {
            let node = self.nodes.remove(&serial).unwrap();
            self.inodes.insert(node.inode);
        }
    }

    /// The lowest number that is free, as ext4 does it.
    fn free_inode(&mut self) -> u64 {
        self.inodes.pop_first().unwrap_or(10 + self.nodes.len() as u64)
    }

    fn stat(&self, serial: u64) -> Stat {
        let node = &self.nodes[&serial];
        Stat {
            device: self.device,
            inode: node.inode,
            size: node.size(),
            links: node.links,
            modified_ns: node.modified_ns,
            born_ns: node.born_ns,
            is_file: true,
        }
    }

    fn serial(&self, path: &Path) -> io::Result<u64> {
        if self.is_unmounted {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = self.symlinks.get(path).map_or(path, PathBuf::as_path);
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn fail(&mut self, operation: Operation, name: &str) -> io::Result<()> {
        let is_meant = |fault: &&mut Fault| {
            fault.operation == operation && fault.times > 0 && name.contains(&fault.name)
        };
        match self.faults.iter_mut().find(is_meant) {
            Some(fault) => {
                fault.times -= 1;
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            None => Ok(()),
        }
    }
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets something happen before the `operations`th use of the disk by the source from now on.
    pub(crate) fn race(&self, operations: u32, act: impl FnOnce() + Send + 'static) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push((operations, Box::new(act)));
    }

    /// What did not happen yet happens now.
    pub(crate) fn calm(&self) {
        let mut rest = std::mem::take(&mut *self.1.lock().unwrap_or_else(PoisonError::into_inner));
        rest.sort_by_key(|race| race.0);
        rest.into_iter().for_each(|(_, act)| act());
    }

    /// The source is about to use the disk.
    fn used(&self) {
        let due = {
            let mut races = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            races.iter_mut().for_each(|race| race.0 -= 1);
            races.extract_if(.., |race| race.0 == 0).collect::<Vec<Race>>()
        };
        due.into_iter().for_each(|(_, act)| act());
    }

    pub(crate) fn set_now(&self, now_us: i64) {
        let mut state = self.lock();
        state.now_ns = now_us * 1_000 + state.now_ns % 1_000;
    }

    /// Creates or truncates.
    pub(crate) fn create(&self, path: &Path) -> Arc<SimFile> {
        let mut state = self.lock();
        let now = state.tick();
        let serial = match state.names.get(path) {
            Some(serial) => *serial,
            None => {
                let inode = state.free_inode();
                state.serial += 1;
                let serial = state.serial;
                state
                    .nodes
                    .insert(serial, Node { inode, links: 1, born_ns: now, ..Node::default() });
                state.names.insert(path.to_owned(), serial);
                state.touch_directory(path);
                serial
            }
        };
        let node = state.nodes.get_mut(&serial).unwrap();
        (node.hole, node.data) = (0, Vec::new());
        node.modified_ns = now;
        node.holders += 1;
        Arc::new(SimFile { sim: self.clone(), serial })
    }

    pub(crate) fn open_existing(&self, path: &Path) -> Option<Arc<SimFile>> {
        let mut state = self.lock();
        let serial = state.serial(path).ok()?;
        state.nodes.get_mut(&serial).unwrap().holders += 1;
        Some(Arc::new(SimFile { sim: self.clone(), serial }))
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.lock().names.contains_key(path)
    }

    pub(crate) fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        state.nodes[&state.names[path]].data.clone()
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) {
        self.create(path).write_at(bytes, None);
    }

    /// Copies a file with its hole.
    pub(crate) fn copy(&self, from: &Path, to: &Path) {
        let (hole, data) = {
            let state = self.lock();
            let node = &state.nodes[&state.names[from]];
            (node.hole, node.data.clone())
        };
        self.create(to).write_at(&data, Some(hole));
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        let mut state = self.lock();
        let serial = state.names.remove(from).unwrap();
        if let Some(old) = state.names.insert(to.to_owned(), serial) {
            state.nodes.get_mut(&old).unwrap().links -= 1;
            state.free(old);
        }
        state.touch_directory(from);
        state.touch_directory(to);
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) {
        let mut state = self.lock();
        let serial = state.names[from];
        state.names.insert(to.to_owned(), serial);
        state.nodes.get_mut(&serial).unwrap().links += 1;
        state.touch_directory(to);
    }

    pub(crate) fn symlink(&self, target: &Path, path: &Path) {
        self.lock().symlinks.insert(path.to_owned(), target.to_owned());
    }

    pub(crate) fn remove(&self, path: &Path) {
        let mut state = self.lock();
        let Some(serial) = state.names.remove(path) else { return };
        state.nodes.get_mut(&serial).unwrap().links -= 1;
        state.free(serial);
        state.touch_directory(path);
    }

    pub(crate) fn truncate(&self, path: &Path, size: u64) {
        let mut state = self.lock();
        let now = state.tick();
        let serial = state.names[path];
        let node = state.nodes.get_mut(&serial).unwrap();
        if size < node.hole {
            (node.hole, node.data) = (size, Vec::new());
        }
        node.data.truncate((size - node.hole) as usize);
        node.modified_ns = now;
    }

    pub(crate) fn set_device(&self, device: u64) {
        self.lock().device = device;
    }

    pub(crate) fn set_short(&self, is_short: bool) {
        self.lock().is_short = is_short;
    }

    pub(crate) fn set_unmounted(&self, is_unmounted: bool) {
        self.lock().is_unmounted = is_unmounted;
    }

    pub(crate) fn fail(&self, operation: Operation, name: &str, errno: i32, times: u32) {
        let fault = Fault { operation, name: name.to_owned(), errno, times };
        self.lock().faults.push(fault);
    }

    pub(crate) fn heal(&self) {
        self.lock().faults.clear();
    }
}

impl SimFile {
    /// Writes at an offset, or at the end.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: Option<u64>) {
        let mut state = self.sim.lock();
        let now = state.tick();
        let node = state.nodes.get_mut(&self.serial).unwrap();
        let offset = offset.unwrap_or(node.size());
        if node.data.is_empty() && offset > node.hole {
            node.hole = offset;
        }
        let at = (offset - node.hole) as usize;
        let end = at + bytes.len();
        node.data.resize(node.data.len().max(end), 0);
        node.data[at..end].copy_from_slice(bytes);
        node.modified_ns = now;
    }
}

impl Disk for Sim {
    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.used();
        let mut state = self.lock();
        state.fail(Operation::List, &directory.display().to_string())?;
        if state.is_unmounted {
            return Ok(Vec::new());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.used();
        let state = self.lock();
        match state.serial(path) {
            Ok(serial) => Ok(state.stat(serial)),
            Err(error) => match state.directories.get(path) {
                Some(modified_ns) => {
                    let is_hidden = state.is_unmounted;
                    let modified_ns = if is_hidden { 0 } else { *modified_ns };
                    Ok(Stat { modified_ns, inode: u64::from(is_hidden), ..Stat::default() })
                }
                None => Err(error),
            },
        }
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.used();
        self.lock().fail(Operation::Open, &path.display().to_string())?;
        let file = self.open_existing(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.used();
        let state = self.lock();
        Ok(state.symlinks.get(path).cloned().unwrap_or_else(|| path.to_owned()))
    }

    fn matches(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = glob::Pattern::new(pattern).map_err(io::Error::other)?;
        let state = self.lock();
        let paths = state.names.keys().chain(state.symlinks.keys());
        Ok(paths.filter(|path| pattern.matches_path(path)).cloned().collect())
    }
}

impl DiskFile for SimFile {
    fn stat(&self) -> io::Result<Stat> {
        self.sim.used();
        Ok(self.sim.lock().stat(self.serial))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.sim.used();
        let mut state = self.sim.lock();
        if !state.faults.is_empty() {
            let name = state.names.iter().find(|(_, serial)| **serial == self.serial);
            let name = name.map(|(path, _)| path.display().to_string()).unwrap_or_default();
            state.fail(Operation::Read, &name)?;
        }
        let is_short = state.is_short;
        let node = &state.nodes[&self.serial];
        let length = if is_short { buffer.len().min(7) } else { buffer.len() };
        let length = length.min(node.size().saturating_sub(offset) as usize);
        let nuls = node.hole.saturating_sub(offset).min(length as u64) as usize;
        assert!(nuls < 1 << 22, "a hole is read");
        buffer[..nuls].fill(0);
        if nuls < length {
            let at = (offset + nuls as u64 - node.hole) as usize;
            buffer[nuls..length].copy_from_slice(&node.data[at..at + length - nuls]);
        }
        Ok(length)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let state = self.sim.lock();
        let node = &state.nodes[&self.serial];
        Ok((offset < node.size()).then(|| {
            // Data starts on a page.
            let page = node.hole / 4096 * 4096;
            offset.max(page)
        }))
    }
}
