//! What a log sends to a witness (c2sp.org/tlog-witness, add-checkpoint): which tree the witness
//! knows, the proof that it is a prefix, and the new checkpoint. Also a file that proves to anybody
//! that one checkpoint of a log follows from another.
//!
//! ```text
//! "old " size │ hashes of the proof in base64 │ empty line      then the signed checkpoint
//! ```

use crate::archive::note::{hash_of_text, text_of_hash};
use crate::archive::tree::Hash;

/// Hashes of a proof.
const PROOF_MAX: usize = 63;
/// Bytes of a submission that is looked at.
pub const SUBMISSION_BYTES_MAX: usize = 64 << 10;

/// A submission, taken apart. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The size of the tree that the witness cosigned last; 0 for none.
    pub old: u64,
    /// Why it is a prefix.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

impl Submission {
    /// The body.
    pub fn encode(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| text_of_hash(hash) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old, self.note)
    }

    /// Reads a body; `None` when it has not the form of one.
    pub fn decode(bytes: &[u8]) -> Option<Submission> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = lines.next()?.strip_prefix("old ")?;
        let is_canonical = old == "0" || !old.starts_with(['0', '+']);
        let old = old.parse().ok().filter(|_| is_canonical)?;
        let proof: Vec<Hash> = lines.map(hash_of_text).collect::<Option<_>>()?;
        (proof.len() <= PROOF_MAX).then(|| Submission { old, proof, note: note.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_are_read_back_and_other_texts_are_none() {
        for proof in [vec![], vec![[1; 32], [2; 32]]] {
            let submission = Submission { old: 7, proof, note: "a\n1\n\n\n\u{2014} b c\n".into() };
            assert_eq!(Submission::decode(submission.encode().as_bytes()), Some(submission));
        }
        let hash = text_of_hash(&[0; 32]);
        let long = format!("old 1\n{}\nnote", format!("{hash}\n").repeat(64));
        for text in
            ["", "old 1\n", "old 01\n\nn", "old +1\n\nn", "old\n\nn", "old 1\nAAAA\n\nn", &long]
        {
            assert_eq!(Submission::decode(text.as_bytes()), None, "{text}");
        }
    }
}
