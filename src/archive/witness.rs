//! A witness (c2sp.org/tlog-witness): cosigns checkpoints of logs that it knows, each only when
//! every one that it cosigned before is a prefix of it. What it cosigned is on its disk before
//! anybody hears of it, so it never takes a step back.
//!
//! ```text
//! lock                             held while a witness lives
//! <SHA-256 of origin>.checkpoint   the last checkpoint that was cosigned, with the cosignature
//! <SHA-256 of origin>-<size>-<hash>.refused   submissions with a valid signature that do not
//!                                  follow from it: what convicts a log that has two histories
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::archive::cosignature::Cosigner;
use crate::archive::note::{Checkpoint, Verifier, parts, text_of_bytes};
use crate::archive::recover::CHECKPOINT_BYTES_MAX;
use crate::archive::submission::Submission;
use crate::archive::tree::{empty_root, is_consistent};

/// Refused submissions that are kept.
const REFUSED_MAX: usize = 100;

/// A witness that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} belongs to a running witness; give each its own directory", .0.display())]
    Locked(PathBuf),
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: it is cosigned; the signature line.
    Cosigned(String),
    /// 400: not a submission.
    Malformed,
    /// 403: no key that is known for this log signed it.
    Forbidden,
    /// 404: a log that is not known.
    Unknown,
    /// 409: the last tree that was cosigned has this size, or this size and another root.
    Conflict(u64),
    /// 422: the trees are not shown to be one.
    Inconsistent,
    /// 500: what was cosigned last is not to be had, so nothing is.
    Failed,
}

impl Answer {
    /// The status code of the specification.
    pub fn status(&self) -> u16 {
        match self {
            Answer::Cosigned(_) => 200,
            Answer::Malformed => 400,
            Answer::Forbidden => 403,
            Answer::Unknown => 404,
            Answer::Conflict(_) => 409,
            Answer::Inconsistent => 422,
            Answer::Failed => 500,
        }
    }

    /// The type of the body.
    pub fn content_type(&self) -> &'static str {
        match self {
            Answer::Conflict(_) => "text/x.tlog.size",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// The body.
    pub fn body(&self) -> String {
        match self {
            Answer::Cosigned(line) => line.clone(),
            Answer::Malformed => "not a submission of c2sp.org/tlog-witness\n".into(),
            Answer::Forbidden => "not signed by a key that is known for this log\n".into(),
            Answer::Unknown => "this log is not known here\n".into(),
            Answer::Conflict(size) => format!("{size}\n"),
            Answer::Inconsistent => "not shown to be a prefix: refused\n".into(),
            Answer::Failed => "the state of this witness cannot be used\n".into(),
        }
    }
}

/// A witness with its state.
#[derive(Debug)]
pub struct Book {
    cosigner: Cosigner,
    logs: Vec<Verifier>,
    dir: PathBuf,
    /// Held from looking at a head to having replaced it.
    turn: Mutex<()>,
    _lock: File,
}

impl Book {
    /// Opens a witness of these logs; several keys of one origin are all believed.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn open(dir: &Path, cosigner: Cosigner, logs: Vec<Verifier>) -> Result<Book, Error> {
        let failed = |source| Error::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Book { cosigner, logs, dir: dir.to_owned(), turn: Mutex::new(()), _lock: lock })
    }

    /// Takes a submission. Blocks on the disk.
    pub fn add(&self, body: &[u8], now_s: u64) -> Answer {
        let Some(submission) = Submission::decode(body) else { return Answer::Malformed };
        let claimed = parts(&submission.note).and_then(|(text, _)| Checkpoint::parse(text));
        let Ok(claimed) = claimed else { return Answer::Malformed };
        let keys = self.logs.iter().filter(|log| log.name() == claimed.origin);
        let mut keys = keys.peekable();
        if keys.peek().is_none() {
            return Answer::Unknown;
        }
        let Some(head) = keys.find_map(|log| log.checkpoint(&submission.note).ok()) else {
            return Answer::Forbidden;
        };
        if submission.old > head.size {
            return Answer::Malformed;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match self.head(&head.origin) {
            Ok(known) => known.map(|(_, head)| (head.size, head.root)),
            Err(error) => {
                tracing::error!(%error, origin = head.origin, "the last head cannot be read");
                return Answer::Failed;
            }
        };
        let (size, root) = known.unwrap_or_else(|| (0, empty_root()));
        if submission.old != size {
            return Answer::Conflict(size);
        }
        if head.size == size && head.root != root {
            self.keep(&head, body);
            return Answer::Conflict(size);
        }
        if !is_consistent((size, root), (head.size, head.root), &submission.proof) {
            self.keep(&head, body);
            return Answer::Inconsistent;
        }
        self.cosign(&submission.note, &head, now_s)
    }

    fn cosign(&self, note: &str, head: &Checkpoint, now_s: u64) -> Answer {
        let Ok((text, _)) = parts(note) else { return Answer::Malformed };
        let line = self.cosigner.cosign(text, now_s);
        let path = self.path_of(&head.origin);
        match self.replace(&path, format!("{note}{line}").as_bytes()) {
            Ok(()) => Answer::Cosigned(line),
            Err(error) => {
                tracing::error!(%error, origin = head.origin, "the head cannot be written");
                Answer::Failed
            }
        }
    }

    /// The last checkpoint of an origin that was cosigned, and what it says.
    ///
    /// # Errors
    /// It is there and cannot be used.
    pub fn head(&self, origin: &str) -> io::Result<Option<(String, Checkpoint)>> {
        self.read(&self.path_of(origin))
    }

    /// The same by the SHA-256 of the origin in hexadecimal, as a URL has it.
    ///
    /// # Errors
    /// As [`Book::head`].
    pub fn head_of(&self, hash: &str) -> io::Result<Option<(String, Checkpoint)>> {
        let known = self.logs.iter().find(|log| origin_hash(log.name()) == hash);
        known.map_or(Ok(None), |log| self.head(log.name()))
    }

    fn read(&self, path: &Path) -> io::Result<Option<(String, Checkpoint)>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut note = String::new();
        file.take(2 * CHECKPOINT_BYTES_MAX).read_to_string(&mut note)?;
        let damaged = || io::Error::other(format!("{} is damaged", path.display()));
        // Its own cosignature says that this witness wrote it, and that all of it is there.
        let own = self.cosigner.witness().cosigned(&note);
        own.ok().flatten().ok_or_else(damaged)?;
        let text = parts(&note).map_err(|_| damaged())?.0;
        let head = Checkpoint::parse(text).map_err(|_| damaged())?;
        Ok(Some((note, head)))
    }

    fn path_of(&self, origin: &str) -> PathBuf {
        self.dir.join(format!("{}.checkpoint", origin_hash(origin)))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Keeps a submission that does not follow from what is known: nobody but the log's key could
    /// have made it.
    fn keep(&self, head: &Checkpoint, body: &[u8]) {
        let hash = text_of_bytes(&head.root[..8]);
        tracing::error!(origin = head.origin, size = head.size, "the log shows another history");
        let name = format!("{}-{}-{hash}.refused", origin_hash(&head.origin), head.size);
        let is_refused = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".refused");
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let kept = entries.filter(|entry| is_refused(&entry.file_name())).count();
        if kept < REFUSED_MAX
            && let Err(error) = self.replace(&self.dir.join(name), body)
        {
            tracing::warn!(%error, "a refused submission is not kept");
        }
    }
}

/// The SHA-256 of an origin in hexadecimal: its name in files and URLs.
pub fn origin_hash(origin: &str) -> String {
    text_of_bytes(&Sha256::digest(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::note::Signer;
    use crate::archive::tree::{Frontier, Hash, consistency_ranges, leaf_hash, root_of};

    struct Log {
        signer: Signer,
        leaves: Vec<Hash>,
    }

    impl Log {
        fn new(seed: u8, leaves: u64) -> Log {
            let signer = Signer::new("log.example.com", &[seed; 32]).unwrap();
            Log { signer, leaves: (0..leaves).map(|at| leaf_hash(&at.to_le_bytes())).collect() }
        }

        fn note(&self, size: u64) -> String {
            let mut tree = Frontier::default();
            self.leaves[..size as usize].iter().for_each(|leaf| tree.push(*leaf));
            self.signer.sign_checkpoint(size, tree.root())
        }

        fn body(&self, old: u64, size: u64) -> Vec<u8> {
            let ranges = consistency_ranges(old, size).into_iter();
            let root = |range: std::ops::Range<u64>| {
                root_of(&self.leaves[range.start as usize..range.end as usize])
            };
            let proof = ranges.map(root).collect();
            Submission { old, proof, note: self.note(size) }.encode().into_bytes()
        }
    }

    fn book(dir: &Path, logs: &[&Log]) -> Book {
        let cosigner = Cosigner::new("witness.example.com/w1", &[3; 32]).unwrap();
        let logs = logs.iter().map(|log| log.signer.verifier()).collect();
        Book::open(dir, cosigner, logs).unwrap()
    }

    #[test]
    fn a_log_that_grows_is_cosigned_and_one_that_does_not_is_refused() {
        let (log, dir) = (Log::new(7, 40), tempfile::tempdir().unwrap());
        let (mut fork, stranger) = (Log::new(7, 40), Log::new(8, 40));
        fork.leaves[3] = [0; 32];
        let mut other = Log::new(7, 9);
        other.signer = Signer::new("other.example.com", &[7; 32]).unwrap();
        let mut wrong_proof = Submission::decode(&log.body(12, 20)).unwrap();
        wrong_proof.proof.pop();
        let witness = book(dir.path(), &[&log]);
        let cases: [(&str, Vec<u8>, u16, &str); 15] = [
            ("no submission", b"old 0\n".to_vec(), 400, ""),
            ("another origin", other.body(0, 9), 404, ""),
            ("another key", stranger.body(0, 5), 403, ""),
            ("nothing is known yet", log.body(3, 5), 409, "0\n"),
            ("the first", log.body(0, 5), 200, "\u{2014} witness.example.com/w1 "),
            ("the same again", log.body(5, 5), 200, "\u{2014} witness.example.com/w1 "),
            ("from a size that is gone", log.body(0, 8), 409, "5\n"),
            ("grown", log.body(5, 12), 200, "\u{2014} witness.example.com/w1 "),
            ("rolled back", log.body(0, 5), 409, "12\n"),
            ("back, and said so", log.body(5, 9), 409, "12\n"),
            (
                "smaller than its old size",
                {
                    let note = log.note(5);
                    Submission { old: 12, proof: Vec::new(), note }.encode().into_bytes()
                },
                400,
                "",
            ),
            ("another root of the same size", fork.body(12, 12), 409, "12\n"),
            ("a fork", fork.body(12, 30), 422, ""),
            ("a proof that is too short", wrong_proof.encode().into_bytes(), 422, ""),
            ("still grown", log.body(12, 40), 200, "\u{2014} witness.example.com/w1 "),
        ];
        for (what, body, status, begin) in cases {
            let answer = witness.add(&body, 1_679_315_147);
            assert_eq!(answer.status(), status, "{what}: {answer:?}");
            assert!(answer.body().starts_with(begin), "{what}: {answer:?}");
            assert_eq!(status == 409, answer.content_type() == "text/x.tlog.size", "{what}");
        }
        let refused = fs::read_dir(dir.path()).unwrap().flatten();
        let refused = refused.filter(|it| it.path().extension().is_some_and(|it| it == "refused"));
        assert_eq!(refused.count(), 3);
    }

    #[test]
    fn what_was_cosigned_outlives_the_witness_and_damage_stops_it() {
        let (log, dir) = (Log::new(7, 40), tempfile::tempdir().unwrap());
        {
            let witness = book(dir.path(), &[&log]);
            assert_eq!(witness.add(&log.body(0, 20), 1).status(), 200);
            let second = Cosigner::new("w", &[3; 32]).unwrap();
            assert!(matches!(Book::open(dir.path(), second, vec![]), Err(Error::Locked(_))));
        }
        let witness = book(dir.path(), &[&log]);
        assert_eq!(witness.add(&log.body(0, 10), 2), Answer::Conflict(20));
        let hash = origin_hash("log.example.com");
        let (note, head) = witness.head_of(&hash).unwrap().unwrap();
        assert_eq!(head.size, 20);
        assert!(witness.head_of("00").unwrap().is_none());
        let path = dir.path().join(format!("{hash}.checkpoint"));
        fs::write(path, &note[..note.len() - 5]).unwrap();
        assert_eq!(witness.add(&log.body(20, 30), 3), Answer::Failed);
    }
}
