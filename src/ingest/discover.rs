//! Which files a command line names: files, directories, patterns, standard input.
//!
//! A directory is scanned with all below it, links followed. There a file counts when its head
//! shows audit events; everything else is skipped and counted. A file named by itself must be an
//! audit log. Of `x.log` and `x.log.gz` (or `.zst`) only the plain one is read, as long as it can
//! be: the log backend compresses in place and removes the plain file when the compressed one is
//! complete, so while both exist the plain one is the whole one. When it holds nothing, its twin is
//! read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::ingest::compress::{self, Counted};
use crate::ingest::marker::{self, Form, HEAD_BYTES};
use crate::ingest::{Error, InputFormat};

/// How far the head of a file named by itself is searched: its first events may stand behind
/// garbage.
pub const NAMED_HEAD_BYTES_MAX: usize = 256 << 20;

/// How much of a stream that cannot be read twice is kept to look at.
pub const STREAM_HEAD_BYTES_MAX: usize = 4 << 20;

/// A file to read.
pub struct LogFile {
    /// Its path; `-` for standard input.
    pub path: PathBuf,
    /// Its size on disk, for progress; 0 for a stream.
    pub size: u64,
    /// How it is cut into records.
    pub form: Form,
    stream: Option<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFile").field("path", &self.path).field("form", &self.form).finish()
    }
}

impl LogFile {
    /// A stream that is read once, under a name to report.
    pub fn from_stream(name: PathBuf, form: Form, stream: Box<dyn Read + Send>) -> LogFile {
        LogFile { path: name, size: 0, form, stream: Some(stream) }
    }

    /// Opens the file decompressed; bytes as they stand in it are added to `count`.
    pub(crate) fn open(self, count: &Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
        match self.stream {
            Some(stream) => Ok(Box::new(Counted::new(stream, Arc::clone(count)))),
            None => {
                let file = Counted::new(File::open(&self.path)?, Arc::clone(count));
                Ok(compress::open(Box::new(file)))
            }
        }
    }
}

/// What the paths of a command line come to.
#[derive(Debug, Default)]
pub struct Discovery {
    /// The files to read, in the order of their paths.
    pub files: Vec<LogFile>,
    /// How many scanned files hold no audit events.
    pub skipped: u64,
    /// The first few of them.
    pub skipped_paths: Vec<PathBuf>,
    /// What could not be read while scanning: path and reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Paths of skipped files that are kept.
const SKIPPED_PATHS_MAX: usize = 16;

impl Discovery {
    fn skip(&mut self, path: &Path) {
        self.skipped += 1;
        if self.skipped_paths.len() < SKIPPED_PATHS_MAX {
            self.skipped_paths.push(path.to_owned());
        }
    }
}

/// Finds the files to read. `stdin` is what `-` stands for.
///
/// # Errors
/// A path that does not exist, a file named by itself that is no audit log, or nothing to read at
/// all: each names what is wrong and what to do.
pub fn discover(
    paths: &[PathBuf],
    format: InputFormat,
    stdin: impl FnOnce() -> Box<dyn Read + Send>,
) -> Result<Discovery, Error> {
    let mut search = Search { format, ..Search::default() };
    let mut stdin = Some(stdin);
    let mut found = Discovery::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let Some(stdin) = stdin.take() else { continue };
            found.files.push(stream(path.clone(), stdin(), format)?);
            continue;
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => search.directory(path, &mut found)?,
            Ok(_) => {
                search.named.insert(path.clone());
            }
            Err(error) => search.pattern(path, error, &mut found)?,
        }
    }
    search.collect(&mut found)?;
    found.files.sort_by(|a, b| a.path.cmp(&b.path));
    if found.files.is_empty() {
        let unreadable = found.unreadable.len() as u64;
        return Err(Error::NothingFound { skipped: found.skipped, unreadable });
    }
    Ok(found)
}

#[derive(Default)]
struct Search {
    format: InputFormat,
    named: BTreeSet<PathBuf>,
    scanned: BTreeSet<PathBuf>,
    /// Directories by their real path: links may form a loop.
    entered: HashSet<PathBuf>,
    /// Files by their real path: two ways to one file are one file.
    taken: HashSet<PathBuf>,
}

impl Search {
    /// Walks a directory named by the user, depth first, without recursion.
    fn directory(&mut self, root: &Path, found: &mut Discovery) -> Result<(), Error> {
        let read = |source| Error::Read { path: root.to_owned(), source };
        fs::read_dir(root).map_err(read)?;
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            let Ok(real) = fs::canonicalize(&directory) else { continue };
            if !self.entered.insert(real) {
                continue;
            }
            for path in children(&directory, found) {
                self.entry(path, &mut open, found);
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, open: &mut Vec<PathBuf>, found: &mut Discovery) {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => open.push(path),
            Ok(metadata) if metadata.is_file() => {
                self.scanned.insert(path);
            }
            Ok(_) => found.skip(&path),
            Err(error) => note(found, &path, &error),
        }
    }

    /// A path that does not exist may be a pattern; what it matches is scanned.
    fn pattern(
        &mut self,
        path: &Path,
        error: io::Error,
        found: &mut Discovery,
    ) -> Result<(), Error> {
        let read = || Error::Read { path: path.to_owned(), source: error };
        let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '['])) else {
            return Err(read());
        };
        let problem = |problem: &str| Error::Glob {
            pattern: pattern.to_owned(),
            problem: problem.to_owned(),
        };
        if pattern.contains("**") {
            let wanted = glob::Pattern::new(pattern).map_err(|error| problem(error.msg))?;
            return match self.below(&wanted, path, found)? {
                true => Ok(()),
                false => Err(problem("matches no file")),
            };
        }
        let matches = glob::glob(pattern).map_err(|error| problem(error.msg))?;
        let mut is_empty = true;
        for entry in matches {
            is_empty = false;
            match entry {
                Ok(path) if path.is_dir() => self.directory(&path, found)?,
                Ok(path) => {
                    self.scanned.insert(path);
                }
                Err(error) => note(found, error.path(), error.error()),
            }
        }
        if is_empty { Err(problem("matches no file")) } else { Ok(()) }
    }

    /// Scans what a pattern with `**` matches; false when that is nothing. Links to directories
    /// above would let it go on for ever, so each directory is entered once.
    fn below(
        &mut self,
        wanted: &glob::Pattern,
        path: &Path,
        found: &mut Discovery,
    ) -> Result<bool, Error> {
        const OPTIONS: glob::MatchOptions = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let is_plain =
            |part: &Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let root: PathBuf = path.components().take_while(is_plain).collect();
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        let (mut open, mut entered, mut is_met) = (vec![root], HashSet::new(), false);
        while let Some(directory) = open.pop() {
            let Ok(real) = fs::canonicalize(&directory) else { continue };
            if !entered.insert(real) {
                continue;
            }
            for path in children(&directory, found) {
                let name = path.strip_prefix(".").unwrap_or(&path);
                let is_match = wanted.matches_path_with(name, OPTIONS);
                is_met |= is_match;
                match (path.is_dir(), is_match) {
                    (true, true) => self.directory(&path, found)?,
                    (true, false) => open.push(path),
                    (false, true) => _ = self.scanned.insert(path),
                    (false, false) => {}
                }
            }
        }
        Ok(is_met)
    }

    fn collect(&mut self, found: &mut Discovery) -> Result<(), Error> {
        let named = twins(self.named.iter());
        for twins in named.values() {
            self.named(twins, found)?;
        }
        for (plain, twins) in twins(self.scanned.iter()) {
            if !named.contains_key(&plain) {
                self.scanned_twins(&twins, found);
            }
        }
        Ok(())
    }

    /// Files named one by one: the first of the twins that is an audit log, or an error.
    fn named(&mut self, twins: &[PathBuf], found: &mut Discovery) -> Result<(), Error> {
        let mut problem = None;
        for path in twins {
            match look(path, self.format, true) {
                Ok(Look::Log(file)) => {
                    if self.is_new(path) {
                        found.files.push(file);
                    }
                    return Ok(());
                }
                Ok(Look::Other(text) | Look::Packed(text)) => {
                    problem.get_or_insert(Error::NoAuditLog { path: path.clone(), problem: text });
                }
                Err(source) => {
                    problem.get_or_insert(Error::Read { path: path.clone(), source });
                }
            }
        }
        problem.map_or(Ok(()), Err)
    }

    fn scanned_twins(&mut self, twins: &[PathBuf], found: &mut Discovery) {
        let mut others = None;
        for path in twins {
            if self.taken.contains(&fs::canonicalize(path).unwrap_or_default()) {
                return;
            }
            match look(path, self.format, false) {
                Ok(Look::Log(file)) => {
                    self.is_new(path);
                    found.files.push(file);
                    return;
                }
                Ok(Look::Other(_)) => others = Some(path),
                Ok(Look::Packed(text)) => {
                    return note(found, path, &io::Error::other(text));
                }
                Err(error) => note(found, path, &error),
            }
        }
        others.into_iter().for_each(|path| found.skip(path));
    }

    fn is_new(&mut self, path: &Path) -> bool {
        fs::canonicalize(path).map_or(true, |real| self.taken.insert(real))
    }
}

/// What a directory holds; what of it cannot be read is noted.
fn children(directory: &Path, found: &mut Discovery) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            note(found, directory, &error);
            return Vec::new();
        }
    };
    let path = |entry: io::Result<fs::DirEntry>| match entry {
        Ok(entry) => Some(entry.path()),
        Err(error) => {
            note(found, directory, &error);
            None
        }
    };
    entries.filter_map(path).collect()
}

fn note(found: &mut Discovery, path: &Path, error: &io::Error) {
    found.unreadable.push((path.to_owned(), error.to_string()));
}

/// Groups paths that differ by `.gz` or `.zst` only, the plain one first.
fn twins<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut groups: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in paths {
        let is_packed = path.extension().is_some_and(|end| end == "gz" || end == "zst");
        let plain = if is_packed { path.with_extension("") } else { path.clone() };
        // Paths come sorted, so the plain one comes before its twins.
        groups.entry(plain).or_default().push(path.clone());
    }
    groups
}

enum Look {
    Log(LogFile),
    /// Something else, and what.
    Other(&'static str),
    /// What it holds cannot be told before somebody has unpacked it.
    Packed(&'static str),
}

/// Looks at the head of a file.
fn look(path: &Path, format: InputFormat, is_named: bool) -> io::Result<Look> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        let opened = compress::open(Box::new(File::open(path)?));
        return look_at_stream(path.to_owned(), opened, format);
    }
    let mut reader = compress::open(Box::new(File::open(path)?));
    let is_forced = is_named && format != InputFormat::Auto;
    let mut head = read_head(&mut *reader)?;
    let form = form_of(&head, format);
    let size = metadata.len();
    let log = Look::Log(LogFile { path: path.to_owned(), size, form, stream: None });
    if is_forced {
        return Ok(log);
    }
    if let Some(problem) = compress::unsupported(&head) {
        return Ok(Look::Packed(problem));
    }
    if marker::is_audit(&head) {
        return Ok(log);
    }
    if head.is_empty() {
        return Ok(Look::Other(if size == 0 { "is empty" } else { "holds no text" }));
    }
    let mut searched = head.len();
    while is_named && searched < NAMED_HEAD_BYTES_MAX {
        // An overlap, so that a marker on the seam is seen.
        let overlap = head.split_off(head.len() - head.len().min(4096));
        head = overlap;
        let kept = head.len();
        fill(&mut *reader, &mut head, 1 << 20)?;
        searched += head.len() - kept;
        if marker::is_audit(&head) {
            return Ok(log);
        }
        if head.len() == kept {
            break;
        }
    }
    Ok(Look::Other("holds no audit event in any known form"))
}

fn stream(
    path: PathBuf,
    stream: Box<dyn Read + Send>,
    format: InputFormat,
) -> Result<LogFile, Error> {
    let opened = compress::open(stream);
    match look_at_stream(path.clone(), opened, format) {
        Ok(Look::Log(file)) => Ok(file),
        Ok(Look::Other(problem) | Look::Packed(problem)) => {
            Err(Error::NoAuditLog { path, problem })
        }
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Looks at a stream; what was looked at is read again before the rest. An empty one is a log of no
/// events: what a filter before it found nothing in.
fn look_at_stream(
    path: PathBuf,
    mut stream: Box<dyn Read + Send>,
    format: InputFormat,
) -> io::Result<Look> {
    let mut head = Vec::new();
    let mut result = Ok(0);
    while head.len() < STREAM_HEAD_BYTES_MAX {
        let length = if head.is_empty() { HEAD_BYTES } else { 1 << 20 };
        result = stream.by_ref().take(length as u64).read_to_end(&mut head);
        if !matches!(result, Ok(1..)) || marker::is_audit(&head) {
            break;
        }
    }
    let text = &head[head.iter().take_while(|byte| **byte == 0).count()..];
    let is_forced = format != InputFormat::Auto;
    if let Some(problem) = compress::unsupported(&head).filter(|_| !is_forced) {
        return Ok(Look::Packed(problem));
    }
    if !text.is_empty() && !is_forced && !marker::is_audit(text) {
        return Ok(Look::Other("holds no audit event in any known form"));
    }
    let form = form_of(&text[..text.len().min(HEAD_BYTES)], format);
    let failed = Failed(result.err());
    let stream = Box::new(Cursor::new(head).chain(failed).chain(stream));
    Ok(Look::Log(LogFile::from_stream(path, form, stream)))
}

/// An error that was met while looking, for whoever reads up to it.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn form_of(head: &[u8], format: InputFormat) -> Form {
    match format {
        InputFormat::Jsonl | InputFormat::Cri => Form::Lines,
        InputFormat::EventList => Form::Documents,
        InputFormat::Auto | InputFormat::Eks | InputFormat::Aks | InputFormat::Gke => {
            marker::form(head)
        }
    }
}

/// The first bytes behind leading NULs (the hole of a copytruncate may come first).
fn read_head(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        fill(reader, &mut head, HEAD_BYTES - before)?;
        let nuls = head.iter().take_while(|byte| **byte == 0).count();
        let is_over = head.len() < HEAD_BYTES;
        head.drain(..nuls);
        if nuls == 0 || is_over {
            return Ok(head);
        }
    }
}

/// Appends up to `length` bytes; a fault of compressed data ends them as the end of the file does.
fn fill(reader: &mut dyn Read, head: &mut Vec<u8>, length: usize) -> io::Result<()> {
    match reader.take(length as u64).read_to_end(head) {
        Err(error) if compress::fault_of(&error).is_none() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
