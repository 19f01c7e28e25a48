//! The steps of a [`Walk`] through the envelopes of managed clouds and log shippers.

use std::io::Read;
use std::ops::Range;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::event::decode::{At, Decoded, INFLATED_BYTES_MAX, Walk};
use crate::event::envelope::{self, Document, Fields, Form};
use crate::event::json::skip_string;
use crate::event::line::{self, CriLine};
use crate::event::pieces::{Piece, Taken};
use crate::event::reject::{PartialReason, RejectReason};
use crate::event::{aks, gke, otlp, time};

/// Standard alphabet, padding or not, as senders please.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Walk<'_> {
    /// A document with an array of events at `open`.
    pub(crate) fn list(&mut self, object: &[u8], open: usize, at: At<'_>) {
        let document = Document::read(&object[..open]);
        let is_empty = object[open + 1..].trim_ascii_start().starts_with(b"]");
        if document.is_control || is_empty {
            self.give(Decoded::Control);
            return;
        }
        let at = At { cluster: document.cluster.as_deref().or(at.cluster), ..at };
        self.elements(object, open, at.deeper());
        // A name that comes twice: no event of the second list is passed over.
        for open in envelope::lists(object).filter(|other| *other > open) {
            self.elements(object, open, at.deeper());
        }
    }

    /// What a member holds.
    pub(crate) fn held(&mut self, object: &[u8], range: Range<usize>, form: Form, at: At<'_>) {
        let time_us = held_time(object).or(at.time_us);
        let at = At { time_us, ..at }.skip(range.start).deeper();
        match form {
            Form::Object => self.pieces(&object[range], at),
            Form::KeyValues => {
                let at = at.copy(range.len());
                match otlp::to_json(&object[range.clone()]) {
                    Some(json) => self.pieces(&json, at),
                    None => self.reject(at, range.len(), RejectReason::MalformedJson, "OTLP value"),
                }
            }
            Form::Base64 => {
                self.payload(&envelope::held_text(object, range.clone()), range.len(), at)
            }
            Form::Text | Form::Piece => {
                let text = envelope::held_text(object, range.clone());
                let at = match std::str::from_utf8(&object[range.clone()]) {
                    Ok(_) => at.copy(range.len()),
                    Err(_) => at.copy(range.len()).partial(PartialReason::InvalidUtf8),
                };
                match form {
                    Form::Piece => self.piece(&Piece::of(object, &text), range.len(), at),
                    _ => self.message(&text, at),
                }
            }
        }
    }

    /// The line that a record holds, or the piece of a line; written, it is `length` bytes long.
    fn piece(&mut self, piece: &Piece<'_>, length: usize, at: At<'_>) {
        if let Some((text, time_us)) = self.pieces.torn(piece) {
            self.message(&text, At { time_us, ..at });
        }
        match self.pieces.push(piece, at.time_us) {
            Taken::Alone => self.message(piece.text(), at),
            // The record has come to something, of which a later one tells.
            Taken::Waiting => self.given += 1,
            Taken::Line(text, time_us) => self.message(&text, At { time_us, ..at }),
            Taken::TooLong(text, time_us) => {
                self.reject(at, length, RejectReason::LineTooLong, "");
                self.message(&text, At { time_us, ..at });
            }
        }
    }

    /// A JSON string that stands where an object may stand; how many bytes it took. Loki gives
    /// lines with a time in nanoseconds before each.
    pub(crate) fn quoted(&mut self, bytes: &[u8], at: At<'_>) -> Option<usize> {
        let (end, _) = skip_string(bytes, 0).ok()?;
        let text = envelope::held_text(bytes, 0..end);
        if envelope::speaks_of_audit(text.as_bytes()) {
            self.message(&text, at.copy(end).deeper());
            return Some(end);
        }
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| self.give(Decoded::Control))?;
        Some(end)
    }

    /// The text of a message: an event, a cut event, or a line of something else.
    pub(crate) fn message(&mut self, text: &str, at: At<'_>) {
        let text = text.trim();
        let (text, at) = match text.strip_suffix("[Truncated...]") {
            Some(text) => (text, at.partial(PartialReason::Truncated)),
            None => (text, at),
        };
        match text.as_bytes().first() {
            Some(b'{' | b'[') => self.pieces(text.as_bytes(), at),
            // A string in a string.
            Some(b'"') if envelope::speaks_of_audit(text.as_bytes()) => {
                self.pieces(text.as_bytes(), at);
            }
            _ if line::is_legacy(text.as_bytes()) => {
                self.reject(at, text.len(), RejectReason::LegacyFormat, "");
            }
            _ => match (CriLine::parse(text.as_bytes()), line::timestamp(text.as_bytes())) {
                (Some(line), _) => self.cri(&line, at),
                (None, Some((time_us, rest))) => {
                    self.behind_prefix(rest, At { time_us: Some(time_us), ..at });
                }
                (None, None) => self.behind_prefix(text.as_bytes(), at),
            },
        }
    }

    /// Base64, maybe of gzip.
    pub(crate) fn payload(&mut self, text: &str, length: usize, at: At<'_>) {
        let at = at.copy(length);
        let Ok(bytes) = BASE64.decode(text.trim()) else {
            self.reject(at, length, RejectReason::InvalidBase64, "");
            return;
        };
        if !bytes.starts_with(b"\x1f\x8b") {
            self.pieces(&bytes, at);
            return;
        }
        let mut inflated = Vec::new();
        let source = flate2::read::MultiGzDecoder::new(bytes.as_slice());
        let result = source.take(INFLATED_BYTES_MAX as u64 + 1).read_to_end(&mut inflated);
        if inflated.len() > INFLATED_BYTES_MAX {
            self.reject(at, length, RejectReason::DecompressedTooLarge, "");
            inflated.truncate(INFLATED_BYTES_MAX);
        }
        if result.is_err() {
            self.reject(at, length, RejectReason::CorruptCompression, "");
        }
        self.pieces(&inflated, at);
    }

    pub(crate) fn aks(&mut self, object: &[u8], at: At<'_>) {
        let category = envelope::text(object, "category").unwrap_or_default();
        let properties = Fields::of(object).find(|field| field.key == b"properties");
        let (true, Some(field)) = (category.starts_with("kube-audit"), properties) else {
            self.give(Decoded::Control);
            return;
        };
        let cluster =
            envelope::text(object, "resourceId").and_then(|id| envelope::aks_cluster(&id));
        let stamp = envelope::text(object, "time").and_then(|text| time::parse_us(text.as_bytes()));
        let at = At {
            cluster: cluster.as_deref().or(at.cluster),
            time_us: stamp.or(at.time_us),
            ..at.skip(field.value.start).deeper()
        };
        if object[field.value.start] == b'"' {
            let text = envelope::held_text(object, field.value.clone());
            return self.message(&text, at.copy(field.value.len()));
        }
        let properties = &object[field.value];
        let Some(log) = Fields::of(properties).find(|field| field.key == b"log") else {
            return self.pieces(properties, at);
        };
        let at = at.skip(log.value.start);
        match properties[log.value.start] {
            b'"' => {
                let text = envelope::held_text(properties, log.value.clone());
                self.message(&text, at.copy(log.value.len()));
            }
            _ => self.pieces(&properties[log.value], at),
        }
    }

    /// A row of one of AKS' own tables.
    pub(crate) fn aks_row(&mut self, object: &[u8], at: At<'_>) {
        let (json, cluster) = aks::to_audit(object);
        let at = At { cluster: cluster.as_deref().or(at.cluster), ..at };
        self.whole(&json, at.copy(object.len()));
    }

    pub(crate) fn gke(&mut self, object: &[u8], at: At<'_>) {
        match gke::to_audit(object) {
            gke::Mapped::Event { json, cluster } => {
                let at = At { cluster: cluster.as_deref().or(at.cluster), ..at };
                self.whole(&json, at.copy(object.len()));
            }
            gke::Mapped::Other { cluster } => {
                let at = At { cluster: cluster.as_deref().or(at.cluster), ..at };
                self.other_payload(object, at);
            }
            gke::Mapped::Unknown => self.reject(at, object.len(), RejectReason::NotAuditEvent, ""),
            gke::Mapped::Malformed => {
                self.reject(at, object.len(), RejectReason::MalformedJson, "cut LogEntry");
            }
        }
    }

    /// What a LogEntry holds beside Google's own audit log: a container's text or JSON. Most
    /// entries are of other components, so what does not speak of audit events is not opened.
    fn other_payload(&mut self, object: &[u8], at: At<'_>) {
        const KEYS: [&[u8]; 2] = [b"textPayload", b"jsonPayload"];
        let payload = Fields::of(object).find(|field| KEYS.contains(&field.key));
        let range = payload.map_or(0..0, |field| field.value);
        let form = match object.get(range.start) {
            Some(b'"') => Form::Text,
            Some(b'{') => Form::Object,
            _ => return self.give(Decoded::Control),
        };
        match envelope::speaks_of_audit(&object[range.clone()]) {
            true => self.held(object, range, form, at),
            false => self.give(Decoded::Control),
        }
    }
}

/// The time that an envelope gives its message.
fn held_time(object: &[u8]) -> Option<i64> {
    const KEYS: [&[u8]; 5] =
        [b"timestamp", b"time", b"@timestamp", b"TimeGenerated", b"publishTime"];
    let field = Fields::of(object).find(|field| field.is_complete && KEYS.contains(&field.key))?;
    let text = match object[field.value.start] {
        b'"' => envelope::held_text(object, field.value),
        _ => std::str::from_utf8(&object[field.value]).ok()?.to_owned(),
    };
    time::parse_any_us(text.as_bytes())
}
