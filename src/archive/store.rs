//! Where a log's objects lie: the few operations that the archive asks of a store.
//!
//! The one that everything rests on is [`Store::create`]: of several writers of one key exactly one
//! creates it, whatever they write, and the others are told. Keys are `/`-separated, relative, and
//! of the forms in `layout`.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// An operation on a store that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may succeed later: the store cannot be reached, is too busy, or did not answer in time.
    #[error("cannot {operation} {key}: {source}")]
    Unavailable {
        /// `create`, `read` and so on.
        operation: &'static str,
        /// The object.
        key: String,
        /// What the store or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It will fail again until somebody changes something: permissions, a missing bucket.
    #[error("cannot {operation} {key}: {source}; {remedy}")]
    Refused {
        /// `create`, `read` and so on.
        operation: &'static str,
        /// The object.
        key: String,
        /// What the store or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do.
        remedy: &'static str,
    },
    /// The object is larger than its reader allows.
    #[error("{key} has {size} bytes, more than the {limit} that such an object may have")]
    TooLarge {
        /// The object.
        key: String,
        /// Its bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is durable, with these bytes.
    Created,
    /// There was one before, which has not been touched.
    Exists,
}

/// An object as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

/// What a store keeps behind the current state of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    /// The key.
    pub key: String,
    /// Versions with contents.
    pub versions: u64,
    /// A deletion was recorded over them.
    pub is_deleted: bool,
}

/// Who may undo a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Whoever has a special right.
    Governance,
    /// Nobody, before it ends.
    Compliance,
}

/// Whose locks they are: they are set up in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locker {
    /// S3's Object Lock.
    S3,
    /// A retention policy of a bucket of Google Cloud Storage.
    Google,
    /// Immutable versions in a container of Azure Blob Storage.
    Azure,
}

/// The lock that each object is uploaded with, where the bucket's default is not to be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may undo it.
    pub mode: LockMode,
    /// For how many days from the upload.
    pub days: u32,
}

/// How a store locks what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose lock it is.
    pub locker: Locker,
    /// Every overwriting and deletion keeps what was before, or is refused.
    pub has_versions: bool,
    /// Objects can be locked.
    pub is_enabled: bool,
    /// How objects are locked by default; `None` when they are not.
    pub mode: Option<LockMode>,
    /// For how many days they are.
    pub days: Option<u32>,
    /// Whether an object can be replaced while it is locked, what it was before being kept.
    pub is_replaceable: bool,
    /// The store cannot tell before the first object is there: to be asked again then.
    pub is_presumed: bool,
}

/// The result of an operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A store, with a prefix that every key is under. Operations wait for the far side and can be
/// called from several tasks; what is created or replaced is durable when they return.
pub trait Store: Send + Sync {
    /// Creates an object unless there is one; never changes one.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Put>;

    /// Creates or replaces an object: for `checkpoint` only.
    fn replace<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, ()>;

    /// Reads an object of at most `limit` bytes; `None` when there is none.
    fn read<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>>;

    /// Reads bytes `start` to `end` of an object, fewer where it ends before; `None` when there is
    /// none.
    fn read_range<'a>(&'a self, key: &'a str, start: u64, end: u64) -> Answer<'a, Option<Bytes>>;

    /// Reads the first version that a key ever had; `None` where the store keeps no versions.
    fn read_oldest<'a>(&'a self, key: &'a str, limit: u64) -> Answer<'a, Option<Bytes>>;

    /// Bytes of an object; `None` when there is none.
    fn size<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>>;

    /// Objects under a prefix that ends with `/`, as the store lists them. A hint: what is missing
    /// here may exist.
    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Listed>>;

    /// Keys that begin with `prefix` and have more than one version, or a deletion over them. Empty
    /// where the store keeps no versions.
    fn shadows<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Versions>>;

    /// Whether the store locks objects, so that [`Store::locked_until`] has a meaning.
    fn has_locks(&self) -> bool;

    /// Until when the object is locked, microseconds since the epoch; `None` when it is not, or the
    /// store does not lock.
    fn locked_until<'a>(&'a self, key: &'a str) -> Answer<'a, Option<i64>>;

    /// How the store locks; `None` where that cannot be asked.
    fn lock<'a>(&'a self) -> Answer<'a, Option<Lock>>;

    /// Where it is, for messages.
    fn location(&self) -> String;
}
