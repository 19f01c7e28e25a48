//! Fingerprints of a file's bytes at known places, by which a file is recognised whatever its name,
//! inode or compression.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The most bytes that an anchor covers.
pub const ANCHOR_BYTES_MAX: usize = 4 << 10;

/// Some bytes of a file: how many, and their hash. Its place is known from the context: the first
/// bytes of a file, or the last before a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// How many bytes; an anchor of none fits everywhere and proves nothing.
    pub length: u32,
    /// The first half of their SHA-256.
    pub hash: u128,
}

impl Anchor {
    /// The anchor of the first bytes of a file that starts with `bytes`.
    pub fn of_head(bytes: &[u8]) -> Anchor {
        Anchor::of(&bytes[..bytes.len().min(ANCHOR_BYTES_MAX)])
    }

    /// The anchor of the bytes before a position that is preceded by `bytes`.
    pub fn of_tail(bytes: &[u8]) -> Anchor {
        Anchor::of(&bytes[bytes.len().saturating_sub(ANCHOR_BYTES_MAX)..])
    }

    fn of(bytes: &[u8]) -> Anchor {
        if bytes.is_empty() {
            return Anchor::default();
        }
        let digest = Sha256::digest(bytes);
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Anchor { length: bytes.len() as u32, hash: u128::from_le_bytes(half) }
    }

    /// Whether a file that starts with `bytes` can be the one that the anchor was taken of.
    pub fn fits_head(&self, bytes: &[u8]) -> bool {
        bytes.get(..self.length as usize).is_some_and(|head| Anchor::of(head) == *self)
    }

    /// Whether exactly these bytes are the anchor's.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        Anchor::of(bytes) == *self
    }
}
