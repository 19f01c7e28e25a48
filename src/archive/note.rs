//! Signed notes (c2sp.org/signed-note) with Ed25519 keys, and the checkpoints that are written as
//! such (c2sp.org/tlog-checkpoint).
//!
//! ```text
//! note        text (lines) │ empty line │ signature lines
//! signature   "— " name " " base64(key id, 4 bytes │ signature, 64 bytes)
//! key id      SHA-256(name │ 0x0a │ 0x01 │ public key), first 4 bytes
//! public key  name "+" hex(key id) "+" base64(0x01 │ public key)
//! secret key  "PRIVATE+KEY+" name "+" hex(key id) "+" base64(0x01 │ seed)
//! checkpoint  origin │ size │ base64(root), a line each; the origin is the key's name
//! ```

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::archive::tree::Hash;

/// Ed25519, as signed-note numbers algorithms.
pub(crate) const ED25519: u8 = 0x01;
/// Bytes of a note that is looked at: a checkpoint has a few hundred.
const NOTE_BYTES_MAX: usize = 1 << 20;
/// Signature lines of a note that is looked at.
const SIGNATURES_MAX: usize = 100;
/// Bytes of a key's name, so that it stays a readable line.
const NAME_BYTES_MAX: usize = 200;

/// A key or note that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that notes cannot carry.
    #[error(
        "{0:?} cannot name a log: it needs 1 to {NAME_BYTES_MAX} characters, no space and no `+`"
    )]
    Name(String),
    /// A text that is no key of the kind that was asked for.
    #[error("not an Ed25519 {0} in the form of c2sp.org/signed-note")]
    Key(&'static str),
    /// A note without the form of one.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// A note without a signature by the key.
    #[error("no signature by {0}")]
    Unsigned(String),
    /// A signature by the key's id that does not hold.
    #[error("the signature by {0} does not hold")]
    Forged(String),
}

/// True for names that a note can carry: no space, no `+`, no control character.
pub fn is_name(name: &str) -> bool {
    let is_bad = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '+';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(is_bad)
}

pub(crate) fn key_id(name: &str, algorithm: u8, public: &VerifyingKey) -> [u8; 4] {
    let key = Sha256::new().chain_update(name).chain_update([b'\n', algorithm]);
    let hash: Hash = key.chain_update(public.as_bytes()).finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

pub(crate) fn hex(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

pub(crate) fn tagged(algorithm: u8, bytes: &[u8; 32]) -> String {
    STANDARD.encode([&[algorithm], bytes.as_slice()].concat())
}

/// The three parts of a key's text, and its 32 bytes.
pub(crate) fn key_parts(text: &str, wanted: u8) -> Option<(&str, &str, [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = STANDARD.decode(key).ok()?;
    let (algorithm, key) = bytes.split_first()?;
    (*algorithm == wanted && is_name(name)).then_some(())?;
    Some((name, id, key.try_into().ok()?))
}

/// A public key with its name: what a verifier pins; and the keys of the same log before it, where
/// they are known.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    public: VerifyingKey,
    /// Former keys, each with the largest checkpoint that it signed, in order.
    former: Vec<(u64, VerifyingKey)>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Verifier({self})")
    }
}

/// Prints the public key's text, `name+id+key`.
impl fmt::Display for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = hex(key_id(&self.name, ED25519, &self.public));
        write!(out, "{}+{id}+{}", self.name, tagged(ED25519, self.public.as_bytes()))
    }
}

impl Verifier {
    /// Reads a public key's text.
    ///
    /// # Errors
    /// [`Error::Key`] when it is none, or its id is not that of its name and key.
    pub fn parse(text: &str) -> Result<Verifier, Error> {
        let wrong = Error::Key("public key");
        let (name, id, key) = key_parts(text.trim(), ED25519).ok_or_else(|| wrong.clone())?;
        let public = VerifyingKey::from_bytes(&key).map_err(|_| wrong.clone())?;
        if id != hex(key_id(name, ED25519, &public)) {
            return Err(wrong);
        }
        Ok(Verifier { name: name.to_owned(), public, former: Vec::new() })
    }

    /// The key of these bytes under this name.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn of(name: &str, public: VerifyingKey) -> Result<Verifier, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Verifier { name: name.to_owned(), public, former: Vec::new() })
    }

    /// The note of a text that this key signed elsewhere.
    ///
    /// # Errors
    /// [`Error::Forged`]: the signature does not hold.
    pub fn note(&self, text: &str, signature: &Signature) -> Result<String, Error> {
        let is_held = self.public.verify_strict(text.as_bytes(), signature).is_ok();
        is_held.then(|| self.signed(text, signature)).ok_or(Error::Forged(self.to_string()))
    }

    fn signed(&self, text: &str, signature: &Signature) -> String {
        let id = key_id(&self.name, ED25519, &self.public);
        let line = STANDARD.encode([id.as_slice(), &signature.to_bytes()].concat());
        format!("{text}\n\u{2014} {} {line}\n", self.name)
    }

    /// The keys of a log whose key was changed: this one up to checkpoints of `size`, behind them
    /// `next`. `None` when `next` is of another log.
    pub fn followed_by(&self, size: u64, next: &Verifier) -> Option<Verifier> {
        let former = self.former.iter().copied().chain([(size, self.public)]).collect();
        let (name, public) = (next.name.clone(), next.public);
        (self.name == next.name).then_some(Verifier { name, public, former })
    }

    /// Whether `other` is this key or one before it.
    pub fn has(&self, other: &Verifier) -> bool {
        let is_former = self.former.iter().any(|(_, key)| *key == other.public);
        self.name == other.name && (self.public == other.public || is_former)
    }

    /// The first key of the log that is known: the same whichever key of it was pinned.
    pub fn first(&self) -> Verifier {
        let public = self.former.first().map_or(self.public, |(_, key)| *key);
        Verifier { name: self.name.clone(), public, former: Vec::new() }
    }

    /// Keys before this one that are known.
    pub fn former(&self) -> usize {
        self.former.len()
    }

    /// The key's name, which is the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of a note that this key signed. Signatures of other keys are passed over.
    ///
    /// # Errors
    /// The note has no form, no signature by this key, or one that does not hold.
    pub fn open<'n>(&self, note: &'n str) -> Result<&'n str, Error> {
        self.open_with(note, &self.public)
    }

    fn open_with<'n>(&self, note: &'n str, public: &VerifyingKey) -> Result<&'n str, Error> {
        let (text, signatures) = parts(note)?;
        let id = key_id(&self.name, ED25519, public);
        let mut found = Err(Error::Unsigned(self.to_string()));
        for line in signatures {
            let (name, bytes) = signature_parts(line)?;
            if name != self.name || bytes[..4] != id {
                continue;
            }
            let signature =
                Signature::from_slice(&bytes[4..]).map_err(|_| Error::Forged(self.to_string()))?;
            public
                .verify_strict(text.as_bytes(), &signature)
                .map_err(|_| Error::Forged(self.to_string()))?;
            found = Ok(text);
        }
        found
    }

    /// Opens a note and reads the checkpoint in it, which must be of this key's log, and signed by
    /// the key that the log had at its size.
    ///
    /// # Errors
    /// As [`Verifier::open`]; the text is no checkpoint, or one of another origin.
    pub fn checkpoint(&self, note: &str) -> Result<Checkpoint, Error> {
        let claimed = Checkpoint::parse(parts(note)?.0)?;
        let former = self.former.iter().find(|(until, _)| claimed.size <= *until);
        let public = former.map_or(&self.public, |(_, key)| key);
        let checkpoint = Checkpoint::parse(self.open_with(note, public)?)?;
        if checkpoint.origin != self.name {
            return Err(Error::Form("the checkpoint is of another origin"));
        }
        Ok(checkpoint)
    }
}

/// A note's text with its last line end, and its signature lines.
pub(crate) fn parts(note: &str) -> Result<(&str, Vec<&str>), Error> {
    if note.len() > NOTE_BYTES_MAX || note.contains(|letter: char| letter < ' ' && letter != '\n') {
        return Err(Error::Form("too long, or with control characters"));
    }
    let end = note.rfind("\n\n").ok_or(Error::Form("no empty line before the signatures"))?;
    let (text, signatures) = (&note[..=end], &note[end + 2..]);
    let lines = signatures.strip_suffix('\n').ok_or(Error::Form("no line end at the end"))?;
    let lines: Vec<_> = lines.split('\n').collect();
    if lines.len() > SIGNATURES_MAX {
        return Err(Error::Form("too many signatures"));
    }
    Ok((text, lines))
}

pub(crate) fn signature_parts(line: &str) -> Result<(&str, Vec<u8>), Error> {
    let wrong = Error::Form("a signature line without name and signature");
    let rest = line.strip_prefix("\u{2014} ").ok_or_else(|| wrong.clone())?;
    let (name, signature) = rest.split_once(' ').ok_or_else(|| wrong.clone())?;
    let bytes = STANDARD.decode(signature).map_err(|_| wrong.clone())?;
    if !is_name(name) || bytes.len() < 5 {
        return Err(wrong);
    }
    Ok((name, bytes))
}

/// A secret key with its name: what a log is signed with.
pub struct Signer {
    name: String,
    secret: SigningKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signer({})", self.verifier())
    }
}

impl Signer {
    /// The key of a seed of 32 random bytes.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Signer, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Signer { name: name.to_owned(), secret: SigningKey::from_bytes(seed) })
    }

    /// Reads a secret key's text.
    ///
    /// # Errors
    /// [`Error::Key`], which tells nothing of the text.
    pub fn parse(text: &str) -> Result<Signer, Error> {
        let wrong = Error::Key("secret key (PRIVATE+KEY+name+id+key)");
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or_else(|| wrong.clone())?;
        let (name, id, seed) = key_parts(rest, ED25519).ok_or_else(|| wrong.clone())?;
        let signer = Signer::new(name, &seed)?;
        if id != hex(key_id(name, ED25519, &signer.secret.verifying_key())) {
            return Err(wrong);
        }
        Ok(signer)
    }

    /// The secret key's text. Whoever has it can sign for the log.
    pub fn secret_text(&self) -> String {
        let id = hex(key_id(&self.name, ED25519, &self.secret.verifying_key()));
        format!("PRIVATE+KEY+{}+{id}+{}", self.name, tagged(ED25519, self.secret.as_bytes()))
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        let (name, public) = (self.name.clone(), self.secret.verifying_key());
        Verifier { name, public, former: Vec::new() }
    }

    /// The key's name, which is the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs a text, which must end with a line end.
    pub fn sign(&self, text: &str) -> String {
        self.verifier().signed(text, &self.secret.sign(text.as_bytes()))
    }

    /// Signs a checkpoint of this key's log.
    pub fn sign_checkpoint(&self, size: u64, root: Hash) -> String {
        let origin = self.name.clone();
        self.sign(&Checkpoint { origin, size, root }.text())
    }
}

/// The state of a log at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// Its leaves.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads a checkpoint's text. Extension lines behind the root are passed over.
    ///
    /// # Errors
    /// [`Error::Form`].
    pub fn parse(text: &str) -> Result<Checkpoint, Error> {
        let wrong = Error::Form("not a checkpoint: origin, size and root, a line each");
        let mut lines = text.split('\n');
        let mut next = || lines.next().filter(|line| !line.is_empty()).ok_or_else(|| wrong.clone());
        let (origin, size, root) = (next()?, next()?, next()?);
        let is_canonical = size == "0" || !size.starts_with(['0', '+']);
        let size = size.parse().ok().filter(|_| is_canonical).ok_or_else(|| wrong.clone())?;
        let root = hash_of_text(root).ok_or(wrong)?;
        Ok(Checkpoint { origin: origin.to_owned(), size, root })
    }
}

/// Reads a hash in base64.
pub fn hash_of_text(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Prints a hash in base64.
pub fn text_of_hash(hash: &Hash) -> String {
    STANDARD.encode(hash)
}

/// Prints bytes in lower-case hexadecimal.
pub fn text_of_bytes(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes what it is given");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of c2sp.org/signed-note.
    const KEY: &str = "example.com/foo+530cb3f5+AZYG0v3lAAtH7bqjv0v5o6ZWpOX9VdVk5z2Uq6gH/0dB";

    #[test]
    fn keys_and_notes_are_read_back() {
        let signer = Signer::new("audit.example.com/prod-eu1/cp-1", &[7; 32]).unwrap();
        let key = signer.verifier().to_string();
        assert_eq!(
            key,
            "audit.example.com/prod-eu1/cp-1+70cc14c8+\
             AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
        );
        let verifier = Verifier::parse(&key).unwrap();
        assert_eq!(Signer::parse(&signer.secret_text()).unwrap().verifier(), verifier);
        let note = signer.sign_checkpoint(5, [9; 32]);
        let checkpoint = verifier.checkpoint(&note).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root), (5, [9; 32]));
        assert!(!format!("{signer:?}").contains("PRIVATE"));
    }

    #[test]
    fn other_signatures_are_passed_over_and_ours_must_hold() {
        let (ours, other) =
            (Signer::new("a", &[1; 32]).unwrap(), Signer::new("b", &[2; 32]).unwrap());
        let (text, verifier) = ("a\n1\n\n", ours.verifier());
        let line = |signer: &Signer| signer.sign(text).rsplit_once("\n\n").unwrap().1.to_owned();
        let both = format!("{text}\n{}{}", line(&other), line(&ours));
        assert_eq!(verifier.open(&both), Ok(text));
        let alone = format!("{text}\n{}", line(&other));
        assert_eq!(verifier.open(&alone), Err(Error::Unsigned(verifier.to_string())));
        let forged = both.replace("a\n1", "a\n2");
        assert_eq!(verifier.open(&forged), Err(Error::Forged(verifier.to_string())));
        for broken in ["", "a\n\n", "a\n\nb", "a\n\n- b c\n", "a\n\n\u{2014} b\n", "a\r\n\nb\n"] {
            assert!(matches!(verifier.open(broken), Err(Error::Form(_))), "{broken:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = Signer::new("a", &[1; 32]).unwrap().verifier().to_string();
        let cases = ["", "a", "a+b+c", KEY, &good[1..], &good.replace("a+", "b+")];
        for case in cases {
            assert!(Verifier::parse(case).is_err(), "{case}");
        }
        for name in ["", "a b", "a+b", "a\nb", &"a".repeat(201)] {
            assert!(Signer::new(name, &[0; 32]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let root = STANDARD.encode([0; 32]);
        let good = format!("o\n10\n{root}\n");
        assert_eq!(Checkpoint::parse(&good).unwrap().text(), good);
        assert!(Checkpoint::parse(&format!("{good}extension\n")).is_ok());
        for size in ["", "-1", "+1", "01", "1.0", "18446744073709551616"] {
            assert!(Checkpoint::parse(&format!("o\n{size}\n{root}\n")).is_err(), "{size}");
        }
        assert!(Checkpoint::parse("o\n1\nAAAA\n").is_err());
    }
}
