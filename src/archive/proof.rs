//! Proof files (c2sp.org/tlog-proof@v1): one entry, its inclusion path and a signed checkpoint.
//!
//! The commit of a record is such a file with the record's bytes as `extra`. The proof of one event
//! adds its place and path in the record's own tree.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::archive::note::{Checkpoint, Verifier, hash_of_text, text_of_hash};
use crate::archive::record::Record;
use crate::archive::tree::{Hash, leaf_hash, root_from_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of a path: a tree has at most 64 levels.
const PATH_MAX: usize = 64;

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has not the form of a proof.
    #[error("not a proof file: {0}")]
    Form(&'static str),
    /// The checkpoint's signature.
    #[error(transparent)]
    Note(#[from] crate::archive::note::Error),
    /// The path does not lead to the checkpoint's root.
    #[error("the record is not in the tree that was signed")]
    NotIncluded,
    /// The event's path does not lead to the record's root.
    #[error("the event is not in the segment that the record describes")]
    NotInSegment,
    /// The record says another place than the proof.
    #[error("the record is of another place in the log")]
    Misplaced,
}

/// A proof file, taken apart. Nothing of it is proven before [`Proof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What is said beside the proof: a record, or an [`EventProof`].
    pub extra: Vec<u8>,
    /// The leaf's place in the log.
    pub index: u64,
    /// Its path, from the leaf up.
    pub path: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

impl Proof {
    /// The file.
    pub fn encode(&self) -> String {
        let (extra, index) = (STANDARD.encode(&self.extra), self.index);
        let path: String = self.path.iter().map(|hash| text_of_hash(hash) + "\n").collect();
        format!("{HEADER}\nextra {extra}\nindex {index}\n{path}\n{}", self.note)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn decode(bytes: &[u8]) -> Result<Proof, Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Form("not a text"))?;
        let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or(Error::Form("it does not begin with c2sp.org/tlog-proof@v1"))?;
        let (head, note) = rest.split_once("\n\n").ok_or(Error::Form("no checkpoint in it"))?;
        let mut lines = head.split('\n').peekable();
        let extra = lines.next_if(|line| line.starts_with("extra "));
        let extra = STANDARD
            .decode(extra.map_or("", |line| &line["extra ".len()..]))
            .map_err(|_| Error::Form("extra is not base64"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.filter(|text| *text == "0" || !text.starts_with(['0', '+']));
        let index = index.and_then(|text| text.parse().ok()).ok_or(Error::Form("no index"))?;
        let path: Option<Vec<Hash>> = lines.map(hash_of_text).collect();
        let path = path.filter(|path| path.len() <= PATH_MAX).ok_or(Error::Form("no path"))?;
        Ok(Proof { extra, index, path, note: note.to_owned() })
    }

    /// Checks that `leaf` stands at the proof's index in a tree that the key signed.
    ///
    /// # Errors
    /// The signature or the path does not hold.
    pub fn verify(&self, leaf: Hash, key: &Verifier) -> Result<Checkpoint, Error> {
        let checkpoint = key.checkpoint(&self.note)?;
        let root = root_from_inclusion(leaf, self.index, checkpoint.size, &self.path);
        if root != Some(checkpoint.root) {
            return Err(Error::NotIncluded);
        }
        Ok(checkpoint)
    }

    /// Checks a record that this proof is about: it stands at its place in a tree that the key
    /// signed. In a commit the record is `extra`.
    ///
    /// # Errors
    /// The record has no form or another place, or [`Proof::verify`] fails.
    pub fn verify_record(
        &self,
        record: &[u8],
        key: &Verifier,
    ) -> Result<(Record, Checkpoint), Error> {
        let checkpoint = self.verify(leaf_hash(record), key)?;
        let record = Record::decode(record).ok_or(Error::Form("the record cannot be read"))?;
        if record.seq != self.index {
            return Err(Error::Misplaced);
        }
        Ok((record, checkpoint))
    }
}

/// What the proof of one event holds as `extra`, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventProof {
    /// Version of this form: 1.
    pub v: u8,
    /// The record's bytes in base64.
    pub record: String,
    /// The event's place in the segment.
    pub event: u64,
    /// Its path in the segment's tree, from the leaf up, in base64.
    pub path: Vec<String>,
}

impl EventProof {
    /// Takes together what proves an event of a record.
    pub fn new(record: &[u8], event: u64, path: &[Hash]) -> EventProof {
        let path = path.iter().map(text_of_hash).collect();
        EventProof { v: 1, record: STANDARD.encode(record), event, path }
    }
}

/// Checks, with nothing but the proof and a key, that these bytes are an event of the log.
///
/// # Errors
/// Which step does not hold.
pub fn verify_event(
    proof: &Proof,
    event: &[u8],
    key: &Verifier,
) -> Result<(Record, EventProof, Checkpoint), Error> {
    let place: EventProof = serde_json::from_slice(&proof.extra)
        .map_err(|_| Error::Form("it proves a record, not an event"))?;
    if place.v != 1 {
        return Err(Error::Form("of a later version"));
    }
    let record = STANDARD.decode(&place.record);
    let record = record.map_err(|_| Error::Form("the record is not base64"))?;
    let (record, checkpoint) = proof.verify_record(&record, key)?;
    let segment = record.segment.as_ref().ok_or(Error::NotInSegment)?;
    let path: Option<Vec<Hash>> = place.path.iter().map(|hash| hash_of_text(hash)).collect();
    let path = path.ok_or(Error::Form("no path in the segment"))?;
    let root = root_from_inclusion(leaf_hash(event), place.event, segment.count, &path);
    if root.is_none() || root != hash_of_text(&segment.event_root) {
        return Err(Error::NotInSegment);
    }
    Ok((record, place, checkpoint))
}
