//! Dead letters of input that could not be used: position, length, and a beginning that shows what
//! kind of thing it was and none of its values; the rest only sealed.

use crypto_box::PublicKey;
use crypto_box::aead::OsRng;

use crate::alert::time::EventTime;
use crate::event::reject::Reject;
use crate::ingest::batch::Batch;
use crate::spool::DeadLetter;

/// Letters that one batch may write; those beyond it share one that says how many they are.
pub const BATCH_LETTERS_MAX: usize = 1_000;

/// So much of the input is looked at for the scrubbed beginning.
pub const PREFIX_BYTES_MAX: usize = 256;

/// So much of one piece of input is sealed.
pub const SEALED_BYTES_MAX: usize = 1 << 20;

/// Seals what only the owner of a private key may read.
#[derive(Clone, Debug)]
pub struct Seal(PublicKey);

impl Seal {
    /// Seals to a public key of X25519.
    pub fn new(public_key: [u8; 32]) -> Seal {
        Seal(PublicKey::from(public_key))
    }

    fn seal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(&mut OsRng, bytes).ok()
    }
}

/// The letters of one batch.
#[derive(Debug)]
pub struct Letters<'b> {
    batch: &'b Batch,
    seal: Option<&'b Seal>,
    letters: Vec<DeadLetter>,
    more: usize,
}

impl<'b> Letters<'b> {
    /// None yet.
    pub fn new(batch: &'b Batch, seal: Option<&'b Seal>) -> Letters<'b> {
        Letters { batch, seal, letters: Vec::new(), more: 0 }
    }

    /// Adds what was rejected; `bytes` is as much of it as is at hand.
    pub fn push(&mut self, reject: &Reject, position: String, bytes: &[u8]) {
        if self.letters.len() >= BATCH_LETTERS_MAX {
            self.more += 1;
            return;
        }
        let mut text = format!("{} bytes", reject.length);
        for part in [reject.detail, &scrubbed(bytes)] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        let letter = DeadLetter {
            at_us: self.batch.received_us,
            reason: reject.reason.name().to_owned(),
            source: self.batch.source.to_string(),
            position,
            attempts: 1,
            bytes: text.into_bytes(),
            ..DeadLetter::default()
        };
        let whole = &bytes[..bytes.len().min(SEALED_BYTES_MAX)];
        let sealed = self.seal.filter(|_| !whole.is_empty()).and_then(|seal| seal.seal(whole));
        if let Some(bytes) = sealed {
            self.letters.push(DeadLetter { is_sealed: true, bytes, ..letter.clone() });
        }
        self.letters.push(letter);
    }

    /// All of them.
    pub fn finish(mut self) -> Vec<DeadLetter> {
        if self.more > 0 {
            self.letters.push(DeadLetter {
                at_us: self.batch.received_us,
                reason: "more".to_owned(),
                source: self.batch.source.to_string(),
                position: format!("{}:{}", self.batch.label, self.batch.chunk.first_line),
                attempts: 1,
                bytes: format!("{} more of the same batch", self.more).into_bytes(),
                ..DeadLetter::default()
            });
        }
        self.letters
    }
}

/// Sealed bytes beyond this stay with the dead letters only.
const ENTRY_BYTES_MAX: usize = 64 << 10;

/// Writes a letter as a record of the spool has it.
pub fn to_json(letter: &DeadLetter, bytes: &mut Vec<u8>) {
    use base64::Engine as _;
    let sealed = letter.is_sealed && letter.bytes.len() <= ENTRY_BYTES_MAX;
    let sealed = sealed.then(|| base64::prelude::BASE64_STANDARD.encode(&letter.bytes));
    let text = match letter.is_sealed {
        true => format!("{} sealed bytes", letter.bytes.len()),
        false => String::from_utf8_lossy(&letter.bytes).into_owned(),
    };
    let object = serde_json::json!({
        "kind": letter.reason, "time": EventTime(letter.at_us), "source": letter.source,
        "subject": letter.position, "text": text, "lost_bytes": null, "sealed": sealed,
    });
    serde_json::to_writer(bytes, &object).expect("texts are JSON, and memory takes them");
}

/// Words that say what something is and never hold a secret.
const WORDS: [&str; 48] = [
    "Event",
    "EventList",
    "List",
    "Secret",
    "ConfigMap",
    "Pod",
    "Metadata",
    "Request",
    "RequestResponse",
    "None",
    "RequestReceived",
    "ResponseStarted",
    "ResponseComplete",
    "Panic",
    "audit.k8s.io",
    "audit.k8s.io/v1",
    "audit.k8s.io/v1beta1",
    "v1",
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "username",
    "groups",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "resource",
    "namespace",
    "name",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
    "items",
    "metadata",
    "log",
    "stream",
    "time",
    "message",
    "records",
    "logEvents",
];

/// The shape of the first bytes: known words as they are, every other letter as `a`, every other
/// digit as `9`.
pub fn scrubbed(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(PREFIX_BYTES_MAX)];
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'_');
    let mut text = String::with_capacity(head.len());
    for run in head.chunk_by(|left, right| is_word(*left) && is_word(*right)) {
        match std::str::from_utf8(run) {
            Ok(word) if WORDS.contains(&word) => text.push_str(word),
            _ => text.extend(run.iter().map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' => 'a',
                b'0'..=b'9' => '9',
                b' '..=b'~' => char::from(*byte),
                _ => '?',
            })),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_record_like_a_notice() {
        let letter = DeadLetter {
            at_us: 1_763_766_000_000_000,
            reason: "not_json".into(),
            source: "log".into(),
            position: "audit.log:7".into(),
            bytes: b"9 bytes".to_vec(),
            ..DeadLetter::default()
        };
        for (is_sealed, text, sealed) in
            [(false, "9 bytes", "null"), (true, "7 sealed bytes", "\"OSBieXRlcw==\"")]
        {
            let mut bytes = Vec::new();
            to_json(&DeadLetter { is_sealed, ..letter.clone() }, &mut bytes);
            let expected = format!(
                "{{\"kind\":\"not_json\",\"time\":\"2025-11-21T23:00:00.000000Z\",\"source\":\"log\",\
                 \"subject\":\"audit.log:7\",\"text\":\"{text}\",\"lost_bytes\":null,\
                 \"sealed\":{sealed}}}"
            );
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn a_beginning_shows_its_shape_and_no_value() {
        for (bytes, expected) in [
            (
                &b"{\"kind\":\"Secret\",\"data\":{\"k\":\"aHVudGVyMg==\"}}"[..],
                "{\"kind\":\"Secret\",\"aaaa\":{\"a\":\"aaaaaaaaaa==\"}}",
            ),
            (b"2026-11-22T00:01:02 hunter2\n\xff", "9999-99-99a99:99:99 aaaaaa9??"),
            (b"", ""),
        ] {
            assert_eq!(scrubbed(bytes), expected);
        }
        assert_eq!(scrubbed(&[b'x'; 1_000]).len(), PREFIX_BYTES_MAX);
    }
}
