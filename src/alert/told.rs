//! What windows keep of a match to tell it later: one allocation each, for there are hundreds of
//! thousands.
//!
//! ```text
//! u8 flags │ audit id: [u8;16] where it is a UUID, else str │ str position │ head
//! ```
//! `str` is a u32 length, little-endian, and the bytes; the head is there where the flags say so.

use std::sync::Arc;

use crate::alert::evidence::Evidence;
use crate::alert::sighting::{Head, Reader, Stage, put};
use crate::alert::time::EventTime;
use crate::engine::window::Weigh;

/// The audit id is a UUID, in sixteen bytes.
const UUID: u8 = 1;
/// The whole head follows.
const WHOLE: u8 = 2;

/// What is kept of a sighting in memory; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Told(Arc<[u8]>);

impl Weigh for Told {
    fn weight(&self) -> usize {
        // The counts of its owners stand before the bytes.
        16 + self.0.len()
    }
}

impl Told {
    /// Keeps what is evidence of a sighting; the head too, where a correlation may fire when
    /// another one is at hand.
    pub fn new(audit_id: &str, position: &str, whole: Option<&Head>) -> Told {
        let uuid = uuid(audit_id);
        let flags = if uuid.is_some() { UUID } else { 0 } | if whole.is_some() { WHOLE } else { 0 };
        let mut bytes = Vec::with_capacity(128);
        bytes.push(flags);
        match uuid {
            Some(uuid) => bytes.extend_from_slice(&uuid),
            None => put(&mut bytes, audit_id.as_bytes()),
        }
        put(&mut bytes, position.as_bytes());
        if let Some(head) = whole {
            head.pack(&mut bytes);
        }
        Told(bytes.into())
    }

    /// What it is stored as.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes up what was stored; whatever is none tells nothing.
    pub fn stored(bytes: &[u8]) -> Told {
        Told(bytes.into())
    }

    /// The evidence of its event.
    pub fn evidence(&self, time_us: i64, stage: Stage) -> Evidence {
        let (audit_id, position, _) = self.parts().unwrap_or_default();
        evidence(time_us, stage, &audit_id, position)
    }

    /// The head, where it was kept.
    pub fn whole(&self) -> Option<Head> {
        let (.., rest) = self.parts()?;
        let mut head = Head::default();
        head.unpack(rest?)?;
        Some(head)
    }

    fn parts(&self) -> Option<(String, &str, Option<&[u8]>)> {
        let mut reader = Reader { bytes: &self.0 };
        let flags = reader.byte()?;
        let audit_id = match flags & UUID {
            0 => reader.text()?,
            _ => text_of(reader.array()?),
        };
        let position = std::str::from_utf8(reader.part()?).ok()?;
        Some((audit_id, position, (flags & WHOLE != 0).then_some(reader.bytes)))
    }
}

/// The bytes of a UUID as kube-apiserver writes audit ids; `None` for whatever a client chose that
/// would be written in another way.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.bytes().enumerate() {
        let digit = match byte {
            b'-' if matches!(at, 8 | 13 | 18 | 23) => continue,
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let place = uuid.get_mut(digits / 2)?;
        *place = *place << 4 | digit;
        digits += 1;
    }
    // Thirty-two digits in thirty-six bytes: no hyphen is missing.
    (digits == 32 && text.len() == 36).then_some(uuid)
}

/// `8-4-4-4-12` hexadecimal digits.
fn text_of(uuid: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(uuid));
    let cuts = [0, 8, 12, 16, 20, 32];
    cuts.windows(2).map(|cut| &digits[cut[0]..cut[1]]).collect::<Vec<_>>().join("-")
}

/// The evidence of an event.
pub fn evidence(time_us: i64, stage: Stage, audit_id: &str, position: &str) -> Evidence {
    Evidence {
        audit_id: audit_id.to_owned(),
        stage: stage.as_str().to_owned(),
        time: EventTime(time_us),
        position: position.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_it_was_told() {
        let head = Head {
            audit_id: "a".to_owned(),
            cluster: "prod".to_owned(),
            position: "log:1".to_owned(),
            event: b"{}".to_vec(),
        };
        for (audit_id, length) in [
            ("37da3cdb-4883-4a0c-b61b-33a4c941a5f0", 26),
            ("00000000-0000-0000-0000-000000000000", 26),
            // Written in another way, or none.
            ("37DA3CDB-4883-4A0C-B61B-33A4C941A5F0", 50),
            ("37da3cdb48834a0cb61b33a4c941a5f0", 46),
            ("37da3cdb4-883-4a0c-b61b-33a4c941a5f0", 50),
            ("", 14),
            ("\u{e4}-\u{fffd}", 20),
        ] {
            for whole in [None, Some(&head)] {
                let told = Told::new(audit_id, "log:1", whole);
                let evidence = told.evidence(7, Stage::Panic);
                assert_eq!((&*evidence.audit_id, &*evidence.position), (audit_id, "log:1"));
                assert_eq!(told.whole().as_ref(), whole);
                assert_eq!(Told::stored(told.bytes()), told);
                if whole.is_none() {
                    assert_eq!(told.bytes().len(), length, "{audit_id}");
                }
            }
        }
    }

    #[test]
    fn what_is_none_tells_nothing() {
        for bytes in [&b""[..], &[0], &[UUID, 7], &[WHOLE, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let told = Told::stored(bytes);
            assert_eq!(told.evidence(7, Stage::Panic).position, "");
            assert_eq!(told.whole(), None);
        }
    }
}
