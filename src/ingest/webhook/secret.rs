//! Tokens in files: read again when they change, compared in constant time, never shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::ingest::webhook::Error;

/// The longest token accepted.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// A token in a file. Only its digest is kept, so that comparing tells nothing of its length.
pub(crate) struct Secret {
    path: PathBuf,
    digest: ArcSwap<[u8; 32]>,
    /// For whose events the token speaks.
    pub(crate) cluster: Option<Arc<str>>,
}

impl Secret {
    /// Reads the file. Blocks.
    pub(crate) fn open(path: &Path, cluster: Option<&str>) -> Result<Secret, Error> {
        let digest = ArcSwap::from_pointee(read(path)?);
        Ok(Secret { path: path.to_owned(), digest, cluster: cluster.map(Arc::from) })
    }

    /// Reads the file again; whether the token changed. Blocks. After an error the old one holds.
    pub(crate) fn reload(&self) -> Result<bool, Error> {
        let digest = read(&self.path)?;
        let is_new = **self.digest.load() != digest;
        if is_new {
            self.digest.store(Arc::new(digest));
        }
        Ok(is_new)
    }

    /// Whether this is the token.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        self.matches(&digest(presented)).into()
    }

    fn matches(&self, digest: &[u8; 32]) -> Choice {
        self.digest.load().as_slice().ct_eq(digest)
    }
}

/// The secret whose token this is; takes the same time whichever it is.
pub(crate) fn find<'s>(secrets: &'s [Secret], presented: &[u8]) -> Option<&'s Secret> {
    let digest = digest(presented);
    let mut found = u64::MAX;
    for (index, secret) in secrets.iter().enumerate() {
        found.conditional_assign(&(index as u64), secret.matches(&digest));
    }
    secrets.get(usize::try_from(found).unwrap_or(usize::MAX))
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn read(path: &Path) -> Result<[u8; 32], Error> {
    let text = std::fs::read(path).map_err(|source| Error::read(path, source))?;
    let token = text.trim_ascii();
    let problem = match token {
        [] => "is empty; write the token into it",
        _ if token.len() > TOKEN_BYTES_MAX => "is too long for a token",
        _ if token.iter().any(u8::is_ascii_whitespace) => {
            "holds more than one word; a token is one"
        }
        _ => return Ok(digest(token)),
    };
    Err(Error::Contents { path: path.to_owned(), problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_tokens_of_files_that_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a"), "first\n").unwrap();
        std::fs::write(path("b"), "second").unwrap();
        let secrets =
            [Secret::open(&path("a"), None).unwrap(), Secret::open(&path("b"), Some("c")).unwrap()];
        let cluster = |token: &[u8]| find(&secrets, token).map(|secret| secret.cluster.as_deref());
        assert_eq!(cluster(b"first"), Some(None));
        assert_eq!(cluster(b"second"), Some(Some("c")));
        for wrong in ["", "firs", "first\n", "firstt", "FIRST"] {
            assert_eq!(cluster(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(!secrets[0].reload().unwrap());
        std::fs::write(path("a"), "third").unwrap();
        assert!(secrets[0].reload().unwrap());
        assert!(secrets[0].is(b"third") && !secrets[0].is(b"first"));
        for (text, words) in [("", "is empty"), (" \n", "is empty"), ("two words", "more than one")]
        {
            std::fs::write(path("a"), text).unwrap();
            let error = secrets[0].reload().unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("two"), "{error}");
            assert!(secrets[0].is(b"third"));
        }
        std::fs::remove_file(path("a")).unwrap();
        assert!(secrets[0].reload().is_err() && secrets[0].is(b"third"));
    }
}
