//! A store in a local directory: objects are files, created by linking a finished file to its name,
//! which never replaces one.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::FutureExt as _;

use crate::archive::store::{Answer, Error, Listed, Lock, Put, Store, Versions};

/// Prefix of files that are being written; never part of a key.
const UNFINISHED: &str = ".unfinished-";

/// A directory as a store.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The store under `root`, which is made when the first object is.
    pub fn new(root: &Path) -> Directory {
        Directory { root: root.to_owned() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Runs blocking file work away from the async threads.
    fn run<'a, T: Send + 'static>(
        &'a self,
        operation: &'static str,
        key: &'a str,
        work: impl FnOnce(&Path) -> Result<T, Fault> + Send + 'static,
    ) -> Answer<'a, T> {
        let path = self.path(key);
        let key = key.to_owned();
        async move {
            let done = tokio::task::spawn_blocking(move || work(&path)).await;
            let done = done.unwrap_or_else(|join| Err(Fault::Io(io::Error::other(join))));
            done.map_err(|fault| fault.of(operation, key))
        }
        .boxed()
    }
}

enum Fault {
    Io(io::Error),
    TooLarge { size: u64, limit: u64 },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl Fault {
    fn of(self, operation: &'static str, key: String) -> Error {
        match self {
            Fault::TooLarge { size, limit } => Error::TooLarge { key, size, limit },
            Fault::Io(source) if is_lasting(&source) => Error::Refused {
                operation,
                key,
                remedy: "check the directory and its permissions",
                source: source.into(),
            },
            Fault::Io(source) => Error::Unavailable { operation, key, source: source.into() },
        }
    }
}

fn is_lasting(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotADirectory)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a directory and those above it, each synced into the one that holds it.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    make_dir(above)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// A synced file beside `path` with these bytes, its directory made.
fn unfinished(path: &Path, bytes: &[u8]) -> io::Result<tempfile::TempPath> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_dir(dir)?;
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file.into_temp_path())
}

fn sync_dir_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn create(path: &Path, bytes: &[u8]) -> io::Result<Put> {
    if path.symlink_metadata().is_ok() {
        return Ok(Put::Exists);
    }
    let unfinished = unfinished(path, bytes)?;
    let put = match fs::hard_link(&unfinished, path) {
        Ok(()) => Put::Created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Put::Exists,
        Err(error) => return Err(error),
    };
    drop(unfinished);
    sync_dir_of(path)?;
    Ok(put)
}

fn read_range(path: &Path, start: u64, end: u64) -> Result<Option<Bytes>, Fault> {
    let mut file = match File::open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.seek(io::SeekFrom::Start(start))?;
    file.take(end.saturating_sub(start)).read_to_end(&mut bytes)?;
    Ok(Some(bytes.into()))
}

fn read(path: &Path, limit: u64) -> Result<Option<Bytes>, Fault> {
    let file = match File::open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other?,
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Fault::TooLarge { size: found.len().max(limit + 1), limit });
    }
    Ok(Some(bytes.into()))
}

/// Files under a directory, deepest names last; links are files, not ways.
fn files(dir: &Path, prefix: &str, listed: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (kind, key) = (entry.file_type()?, format!("{prefix}{name}"));
        if kind.is_dir() {
            files(&entry.path(), &format!("{key}/"), listed)?;
        } else if !name.starts_with(UNFINISHED) {
            listed.push(Listed { key, size: entry.metadata()?.len() });
        }
    }
    Ok(())
}

impl Store for Directory {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Put> {
        self.run("create", key, move |path| Ok(create(path, &bytes)?))
    }

    fn replace<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, ()> {
        self.run("replace", key, move |path| {
            unfinished(path, &bytes)?.persist(path).map_err(|error| error.error)?;
            Ok(sync_dir_of(path)?)
        })
    }

    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>> {
        self.run("read", key, move |path| read(path, limit))
    }

    fn read_range<'a>(&'a self, key: &'a str, start: u64, end: u64) -> Answer<'a, Option<Bytes>> {
        self.run("read", key, move |path| read_range(path, start, end))
    }

    fn read_oldest<'a>(&'a self, _: &'a str, _: u64) -> Answer<'a, Option<Bytes>> {
        async { Ok(None) }.boxed()
    }

    fn has_locks(&self) -> bool {
        false
    }

    fn size<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        self.run("look at", key, |path| match path.metadata() {
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(found) => Ok(found.is_file().then_some(found.len())),
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>> {
        let owned = prefix.to_owned();
        self.run("list", prefix, move |path| {
            let mut listed = Vec::new();
            files(path, &owned, &mut listed)?;
            listed.sort();
            Ok(listed)
        })
    }

    fn shadows<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Versions>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn locked_until<'a>(&'a self, _: &'a str) -> Answer<'a, Option<i64>> {
        async { Ok(None) }.boxed()
    }

    fn lock<'a>(&'a self) -> Answer<'a, Option<Lock>> {
        async { Ok(None) }.boxed()
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_created_is_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::new(dir.path());
        let key = "data/a/b";
        assert_eq!(store.read(key, 9).await.unwrap(), None);
        assert_eq!(store.size(key).await.unwrap(), None);
        assert_eq!(store.create(key, "one".into()).await.unwrap(), Put::Created);
        assert_eq!(store.create(key, "two".into()).await.unwrap(), Put::Exists);
        assert_eq!(store.read(key, 3).await.unwrap(), Some("one".into()));
        assert!(matches!(store.read(key, 2).await, Err(Error::TooLarge { size: 3, limit: 2, .. })));
        assert_eq!(store.read("data/a", 9).await.unwrap(), None);
        assert_eq!(store.read("data/a/b/c", 9).await.unwrap(), None);
        store.replace("checkpoint", "1".into()).await.unwrap();
        store.replace("checkpoint", "2".into()).await.unwrap();
        assert_eq!(store.read("checkpoint", 9).await.unwrap(), Some("2".into()));
        let listed = store.list("data/").await.unwrap();
        assert_eq!(listed, [Listed { key: "data/a/b".into(), size: 3 }]);
        assert!(store.list("tile/").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn of_many_writers_one_creates() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::new(dir.path());
        let puts = (0..20u8).map(|at| store.create("commit/0", vec![at].into()));
        let puts = futures_util::future::join_all(puts).await;
        let created: Vec<usize> =
            (0..20).filter(|at| *puts[*at].as_ref().unwrap() == Put::Created).collect();
        let [winner] = created.as_slice() else { panic!("{created:?}") };
        let bytes = store.read("commit/0", 9).await.unwrap().unwrap();
        assert_eq!(bytes.as_ref(), [*winner as u8]);
        assert_eq!(store.list("commit/").await.unwrap().len(), 1);
    }
}
