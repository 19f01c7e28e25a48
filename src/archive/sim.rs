//! A store in memory that can die at any operation, keeps versions and deletion markers as object
//! stores do, and lets a test tamper with what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::archive::store::{Answer, Error, Listed, Lock, Put, Store, Versions};

/// Burns down by one an operation; burnt out, everything fails: the process is dead.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fuse(Arc<Mutex<Option<u64>>>);

impl Fuse {
    /// Lets `operations` pass.
    pub(crate) fn set(&self, operations: Option<u64>) {
        *self.0.lock().unwrap() = operations;
    }

    pub(crate) fn burn(&self) -> io::Result<()> {
        match self.0.lock().unwrap().as_mut() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("dead")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Option<u64> {
        *self.0.lock().unwrap()
    }

    pub(crate) fn is_burnt(&self) -> bool {
        *self.0.lock().unwrap() == Some(0)
    }
}

/// Versions of a key, oldest first; `None` is a deletion marker.
type History = Vec<Option<Bytes>>;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    objects: Mutex<BTreeMap<String, History>>,
    hidden: Mutex<Vec<String>>,
    /// Everything that anybody ever tried to create.
    attempts: Mutex<BTreeMap<String, BTreeSet<Bytes>>>,
    pub(crate) fuse: Fuse,
    /// How it says that it locks; and until when objects are, where they are.
    pub(crate) lock: Mutex<Option<Lock>>,
    pub(crate) locked_until_us: Mutex<Option<i64>>,
    unlocked: Mutex<Vec<String>>,
    /// Creates what exists, as stores do that know no conditions.
    pub(crate) is_unconditional: AtomicBool,
    /// Bytes that were read.
    pub(crate) read: AtomicU64,
}

impl Memory {
    /// Another store with the same objects.
    pub(crate) fn copy(&self) -> Memory {
        let objects = Mutex::new(self.objects.lock().unwrap().clone());
        let attempts = Mutex::new(self.attempts.lock().unwrap().clone());
        Memory { objects, attempts, ..Memory::default() }
    }

    /// Another store with the same objects, of which the same are hidden.
    pub(crate) fn copy_all(&self) -> Memory {
        let hidden = Mutex::new(self.hidden.lock().unwrap().clone());
        let unlocked = Mutex::new(self.unlocked.lock().unwrap().clone());
        let locked_until_us = Mutex::new(*self.locked_until_us.lock().unwrap());
        Memory { hidden, unlocked, locked_until_us, ..self.copy() }
    }

    /// Keys that were to be created with more than one content.
    pub(crate) fn contested(&self) -> Vec<String> {
        let attempts = self.attempts.lock().unwrap();
        let contested = attempts.iter().filter(|(_, contents)| contents.len() > 1);
        contested.map(|(key, _)| key.clone()).collect()
    }

    /// Key and current contents of everything.
    pub(crate) fn contents(&self) -> BTreeMap<String, Bytes> {
        let objects = self.objects.lock().unwrap();
        let current = objects
            .iter()
            .filter_map(|(key, history)| Some((key.clone(), history.last()?.clone()?)));
        current.collect()
    }

    /// Uploads that left a version, by key.
    pub(crate) fn uploads(&self) -> BTreeMap<String, u64> {
        let objects = self.objects.lock().unwrap();
        objects.iter().map(|(key, history)| (key.clone(), history.len() as u64)).collect()
    }

    /// Puts a version over what is there, as an attacker with credentials can.
    pub(crate) fn overwrite(&self, key: &str, bytes: Option<Bytes>) {
        self.objects.lock().unwrap().entry(key.to_owned()).or_default().push(bytes);
    }

    /// Replaces all history, as whoever runs the store can.
    pub(crate) fn rewrite(&self, key: &str, bytes: Option<Bytes>) {
        let mut objects = self.objects.lock().unwrap();
        objects.remove(key);
        if let Some(bytes) = bytes {
            objects.insert(key.to_owned(), vec![Some(bytes)]);
        }
    }

    /// Leaves a key out of listings.
    pub(crate) fn hide(&self, key: &str) {
        self.hidden.lock().unwrap().push(key.to_owned());
    }

    /// Takes the lock off a key.
    pub(crate) fn unlock(&self, key: &str) {
        self.unlocked.lock().unwrap().push(key.to_owned());
    }

    fn current(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key)?.last()?.clone()
    }

    /// An operation: the process may be dead before it, or after it, when nobody hears the answer.
    fn run<'a, T: Send + 'a>(
        &'a self,
        key: &'a str,
        work: impl FnOnce(&Memory) -> T + Send + 'a,
    ) -> Answer<'a, T> {
        let dead = move |error: io::Error| Error::Unavailable {
            operation: "reach",
            key: key.to_owned(),
            source: error.into(),
        };
        async move {
            self.fuse.burn().map_err(dead)?;
            let answer = work(self);
            self.fuse.burn().map_err(dead)?;
            Ok(answer)
        }
        .boxed()
    }
}

impl Store for Memory {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Put> {
        self.run(key, move |memory| {
            let mut attempts = memory.attempts.lock().unwrap();
            attempts.entry(key.to_owned()).or_default().insert(bytes.clone());
            let is_conditional = !memory.is_unconditional.load(Ordering::Relaxed);
            if is_conditional && memory.current(key).is_some() {
                return Put::Exists;
            }
            memory.overwrite(key, Some(bytes));
            Put::Created
        })
    }

    fn replace<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, ()> {
        self.run(key, move |memory| memory.overwrite(key, Some(bytes)))
    }

    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>> {
        let found = self.run(key, move |memory| memory.current(key));
        async move {
            let found = found.await?;
            let size = found.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.read.fetch_add(size, Ordering::Relaxed);
            if size > limit {
                return Err(Error::TooLarge { key: key.to_owned(), size, limit });
            }
            Ok(found)
        }
        .boxed()
    }

    fn read_range<'a>(&'a self, key: &'a str, start: u64, end: u64) -> Answer<'a, Option<Bytes>> {
        self.run(key, move |memory| {
            let found = memory.current(key)?;
            let at = |place: u64| found.len().min(place as usize);
            let found = found.slice(at(start)..at(end));
            memory.read.fetch_add(found.len() as u64, Ordering::Relaxed);
            Some(found)
        })
    }

    fn read_oldest<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>> {
        self.run(key, move |memory| {
            let objects = memory.objects.lock().unwrap();
            let oldest = objects.get(key)?.iter().flatten().next().cloned();
            oldest.filter(|bytes| bytes.len() as u64 <= limit)
        })
    }

    fn has_locks(&self) -> bool {
        self.locked_until_us.lock().unwrap().is_some()
    }

    fn size<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        self.run(key, move |memory| memory.current(key).map(|bytes| bytes.len() as u64))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        self.run(prefix, move |memory| {
            let hidden = memory.hidden.lock().unwrap();
            let contents = memory.contents().into_iter();
            let listed =
                contents.filter(|(key, _)| key.starts_with(prefix) && !hidden.contains(key));
            listed.map(|(key, bytes)| Listed { key, size: bytes.len() as u64 }).collect()
        })
    }

    fn shadows<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Versions>> {
        self.run(prefix, move |memory| {
            let objects = memory.objects.lock().unwrap();
            let shadowed = objects.iter().filter(|(key, history)| {
                key.starts_with(prefix) && (history.len() > 1 || history.contains(&None))
            });
            let versions = shadowed.map(|(key, history)| Versions {
                key: key.clone(),
                versions: history.iter().flatten().count() as u64,
                is_deleted: history.last() == Some(&None),
            });
            versions.collect()
        })
    }

    fn locked_until<'a>(&'a self, key: &'a str) -> Answer<'a, Option<i64>> {
        self.run(key, move |memory| {
            let is_unlocked = memory.unlocked.lock().unwrap().iter().any(|it| it == key);
            memory.locked_until_us.lock().unwrap().filter(|_| !is_unlocked)
        })
    }

    fn lock<'a>(&'a self) -> Answer<'a, Option<Lock>> {
        async { Ok(*self.lock.lock().unwrap()) }.boxed()
    }

    fn location(&self) -> String {
        "memory".into()
    }
}
