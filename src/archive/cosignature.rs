//! Cosignatures (c2sp.org/tlog-cosignature, version 1 with Ed25519): what a witness says of a
//! checkpoint: as of a time, this is the largest tree of that log that it knows, and every one that
//! it knew before is a prefix.
//!
//! ```text
//! signed      "cosignature/v1" │ "time " seconds │ the checkpoint's text, a line each
//! signature   "— " name " " base64(key id, 4 bytes │ seconds, 8 bytes big-endian │ signature)
//! key id      SHA-256(name │ 0x0a │ 0x04 │ public key), first 4 bytes
//! ```

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::archive::note::{
    Error, hex, is_name, key_id, key_parts, parts, signature_parts, tagged,
};

/// Ed25519 for cosignatures, as signed-note numbers algorithms.
const COSIGNATURE: u8 = 0x04;

/// The public key of a witness.
#[derive(Clone, PartialEq, Eq)]
pub struct Witness {
    name: String,
    public: VerifyingKey,
}

impl fmt::Debug for Witness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Witness({self})")
    }
}

/// Prints the public key's text, `name+id+key`.
impl fmt::Display for Witness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = hex(key_id(&self.name, COSIGNATURE, &self.public));
        write!(out, "{}+{id}+{}", self.name, tagged(COSIGNATURE, self.public.as_bytes()))
    }
}

impl Witness {
    /// Reads a public key's text.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn parse(text: &str) -> Result<Witness, Error> {
        let wrong = Error::Key("witness's public key");
        let (name, id, key) = key_parts(text.trim(), COSIGNATURE).ok_or_else(|| wrong.clone())?;
        let public = VerifyingKey::from_bytes(&key).map_err(|_| wrong.clone())?;
        if id != hex(key_id(name, COSIGNATURE, &public)) {
            return Err(wrong);
        }
        Ok(Witness { name: name.to_owned(), public })
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the key, by which equal ones are known whatever they are called.
    pub fn key(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    /// When this witness cosigned the note, seconds since the epoch; the newest where it did more
    /// than once, `None` where it did not. Signatures of others are passed over.
    ///
    /// # Errors
    /// [`Error::Form`], and [`Error::Forged`] for a line that claims to be this witness's.
    pub fn cosigned(&self, note: &str) -> Result<Option<u64>, Error> {
        let (text, lines) = parts(note)?;
        let id = key_id(&self.name, COSIGNATURE, &self.public);
        let mut newest = None;
        for line in lines {
            let (name, bytes) = signature_parts(line)?;
            if name != self.name || bytes[..4] != id {
                continue;
            }
            let forged = || Error::Forged(self.to_string());
            let (seconds, signature) = bytes[4..].split_first_chunk().ok_or_else(forged)?;
            let seconds = u64::from_be_bytes(*seconds);
            let signature = Signature::from_slice(signature).map_err(|_| forged())?;
            let signed = signed_text(text, seconds);
            self.public.verify_strict(signed.as_bytes(), &signature).map_err(|_| forged())?;
            newest = newest.max(Some(seconds));
        }
        Ok(newest)
    }

    /// The line of `lines` that is this witness's on the checkpoint `text`, with its line end.
    /// `None` when there is none that holds.
    pub fn line_of<'l>(&self, text: &str, lines: &'l str) -> Option<&'l str> {
        lines.split_inclusive('\n').find(|line| {
            let note = format!("{text}\n{line}");
            matches!(self.cosigned(&note), Ok(Some(_)))
        })
    }
}

fn signed_text(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// The secret key of a witness.
pub struct Cosigner {
    name: String,
    secret: SigningKey,
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cosigner({})", self.witness())
    }
}

impl Cosigner {
    /// The key of a seed of 32 random bytes, which is never used for anything else: the signed text
    /// does not name the witness.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Cosigner, Error> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Cosigner { name: name.to_owned(), secret: SigningKey::from_bytes(seed) })
    }

    /// Reads a secret key's text.
    ///
    /// # Errors
    /// [`Error::Key`], which tells nothing of the text.
    pub fn parse(text: &str) -> Result<Cosigner, Error> {
        let wrong = Error::Key("witness's secret key (PRIVATE+KEY+name+id+key)");
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or_else(|| wrong.clone())?;
        let (name, id, seed) = key_parts(rest, COSIGNATURE).ok_or_else(|| wrong.clone())?;
        let cosigner = Cosigner::new(name, &seed)?;
        let own = hex(key_id(name, COSIGNATURE, &cosigner.secret.verifying_key()));
        if id == own { Ok(cosigner) } else { Err(wrong) }
    }

    /// The secret key's text. Whoever has it can cosign as this witness.
    pub fn secret_text(&self) -> String {
        let id = hex(key_id(&self.name, COSIGNATURE, &self.secret.verifying_key()));
        format!("PRIVATE+KEY+{}+{id}+{}", self.name, tagged(COSIGNATURE, self.secret.as_bytes()))
    }

    /// The public half.
    pub fn witness(&self) -> Witness {
        Witness { name: self.name.clone(), public: self.secret.verifying_key() }
    }

    /// The signature line on a checkpoint's text, with its line end.
    pub fn cosign(&self, text: &str, seconds: u64) -> String {
        let id = key_id(&self.name, COSIGNATURE, &self.secret.verifying_key());
        let signature = self.secret.sign(signed_text(text, seconds).as_bytes()).to_bytes();
        let bytes = [id.as_slice(), &seconds.to_be_bytes(), &signature].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::note::Signer;

    #[test]
    fn a_cosignature_is_of_one_witness_one_time_and_one_text() {
        let cosigner = Cosigner::new("witness.example.com/w1", &[3; 32]).unwrap();
        let witness = cosigner.witness();
        assert_eq!(Witness::parse(&witness.to_string()).unwrap(), witness);
        assert_eq!(Cosigner::parse(&cosigner.secret_text()).unwrap().witness(), witness);
        let log = Signer::new("log.example.com", &[7; 32]).unwrap();
        let note = log.sign_checkpoint(5, [9; 32]);
        assert_eq!(witness.cosigned(&note), Ok(None));
        let text = &note[..note.rfind("\n\n").unwrap() + 1];
        let line = cosigner.cosign(text, 1_679_315_147);
        let cosigned = format!("{note}{line}{}", cosigner.cosign(text, 1_679_315_100));
        assert_eq!(witness.cosigned(&cosigned), Ok(Some(1_679_315_147)));
        assert!(log.verifier().checkpoint(&cosigned).is_ok());
        assert_eq!(witness.line_of(text, &cosigned[note.len()..]), Some(line.as_str()));
        let forged = format!("{}{line}", log.sign_checkpoint(6, [9; 32]));
        assert_eq!(witness.cosigned(&forged), Err(Error::Forged(witness.to_string())));
        let other = Cosigner::new("witness.example.com/w1", &[4; 32]).unwrap().witness();
        assert_eq!(other.cosigned(&cosigned), Ok(None));
        assert!(Witness::parse(&log.verifier().to_string()).is_err());
        assert!(Cosigner::parse(&log.secret_text()).is_err());
    }

    /// The example of c2sp.org/tlog-cosignature: its key is not published, its form is.
    #[test]
    fn the_specification_s_example_has_this_form() {
        let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolM\
                    I5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let (name, bytes) = signature_parts(line).unwrap();
        assert_eq!((name, bytes.len()), ("witness.example.com/w1", 4 + 8 + 64));
        assert_eq!(u64::from_be_bytes(*bytes[4..].first_chunk().unwrap()), 1_679_315_147);
    }
}
