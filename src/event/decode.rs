//! Bytes to events: one record in, its events and rejects out, whatever it is wrapped in.
//!
//! A record tells by itself what it is: an event line, an EventList, a CRI-framed or time-stamped
//! line, an envelope of a managed cloud (`envelope.rs`), or several of these glued
//! together by a torn write. The common case, a bare event line, costs one prefix comparison and
//! one look for bytes beyond ASCII more than [`Event::parse`], and allocates nothing; everything
//! else takes the road through `Walk`.
//!
//! What can be saved is saved and marked partial; what cannot is a [`Reject`]. Nothing here panics
//! or recurses deeper than [`ENVELOPE_DEPTH_MAX`], and memory is bounded by a few copies of the
//! record.

mod wrapped;

use crate::event::envelope::{self, Document, Shape};
use crate::event::line::{self, CriLine, CriParts, Joined};
use crate::event::pieces::Pieces;
use crate::event::reject::{PartialReason, Reject, RejectReason};
use crate::event::{Event, Malformed, MalformedKind, Slot, csv, json, salvage, split, texts};
use std::borrow::Cow;

/// Envelopes inside envelopes beyond this are refused; Firehose of CloudWatch documents of events,
/// the deepest known, needs four.
pub const ENVELOPE_DEPTH_MAX: u8 = 8;

/// The most that the payload of one envelope may decompress to.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;

/// How often a record may be torn before the rest of it is given up: each tear costs a search.
pub const TEARS_MAX: usize = 100;

/// What one step through a record found.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "handed over once an event; a box would allocate")]
pub enum Decoded<'a> {
    /// An audit event.
    Event {
        /// The event; its bytes live as long as the call that hands it over.
        event: Event<'a>,
        /// The how-many-th event of its record this is, from 0.
        ordinal: u32,
        /// What the envelope says beyond the event.
        context: EnvelopeContext<'a>,
    },
    /// Input that became no event.
    Reject(Reject),
    /// A part that is no event and was never meant to be one: reachability probes, lines of other
    /// control-plane components.
    Control,
}

/// What an envelope says beyond the event, and what happened to the event on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvelopeContext<'a> {
    /// The cluster's name, where the envelope tells it.
    pub cluster: Option<&'a str>,
    /// The envelope's own time in microseconds since the epoch, for events without one.
    pub time_us: Option<i64>,
    /// Why the event is not all there; `None` for a whole event.
    pub partial: Option<PartialReason>,
}

/// What decoding keeps from one record to the next: parts of lines, the last document header.
#[derive(Debug, Default)]
pub struct Scratch {
    cri: CriParts,
    pieces: Pieces,
    header: Vec<u8>,
    document: Document,
}

/// Decodes one record (a line, a document, or an element of a document's list).
///
/// Records that hold parts of lines must come in order; call [`finish`] behind the last one.
pub fn decode(record: &[u8], scratch: &mut Scratch, emit: &mut dyn FnMut(Decoded<'_>)) {
    if record.starts_with(salvage::EVENT_START)
        && record.is_ascii()
        && let Ok(event) = Event::parse(record.trim_ascii_end())
        && !texts::has_some(&event)
    {
        emit(Decoded::Event { event, ordinal: 0, context: EnvelopeContext::default() });
        return;
    }
    let mut walk = Walk::new(&mut scratch.cri, &mut scratch.pieces, emit);
    walk.record(record);
}

/// Decodes one element of a document's list. `header` is the document up to the bracket that opens
/// the list: CloudWatch documents name the cluster there.
pub fn decode_element(
    header: &[u8],
    element: &[u8],
    scratch: &mut Scratch,
    emit: &mut dyn FnMut(Decoded<'_>),
) {
    if scratch.header != header {
        scratch.document = Document::read(header);
        scratch.header.clear();
        scratch.header.extend_from_slice(header);
    }
    if scratch.document.is_control {
        emit(Decoded::Control);
        return;
    }
    let mut walk = Walk::new(&mut scratch.cri, &mut scratch.pieces, emit);
    let at = At { cluster: scratch.document.cluster.as_deref(), ..At::default() };
    walk.pieces(element, at);
}

/// Hands over what still waits for the rest of its line; call it behind the last record of a chunk.
pub fn finish(scratch: &mut Scratch, emit: &mut dyn FnMut(Decoded<'_>)) {
    let rest: Vec<_> = scratch.cri.finish().collect();
    for (bytes, time_us) in rest {
        let mut walk = Walk::new(&mut scratch.cri, &mut scratch.pieces, emit);
        let at = At { time_us: Some(time_us), ..At::default() }.copy(bytes.len());
        walk.salvage(&bytes, at);
    }
    let rest: Vec<_> = scratch.pieces.finish().collect();
    for (text, time_us) in rest {
        let mut walk = Walk::new(&mut scratch.cri, &mut scratch.pieces, emit);
        walk.message(&text, At { time_us, ..At::default() }.copy(text.len()));
    }
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, Default)]
struct At<'c> {
    cluster: Option<&'c str>,
    time_us: Option<i64>,
    partial: Option<PartialReason>,
    depth: u8,
    /// Offset of the piece in the record.
    offset: usize,
    /// Length of the piece in the record when the piece is a decoded copy of it.
    copied: Option<usize>,
}

impl At<'_> {
    /// A part of the piece, or what is left of it, from `offset` on.
    fn skip(self, offset: usize) -> Self {
        let offset = if self.copied.is_some() { 0 } else { offset };
        At { offset: self.offset + offset, ..self }
    }

    /// A decoded copy of `length` bytes.
    fn copy(self, length: usize) -> Self {
        At { copied: self.copied.or(Some(length)), ..self }
    }

    fn partial(self, reason: PartialReason) -> Self {
        At { partial: self.partial.or(Some(reason)), ..self }
    }

    fn deeper(self) -> Self {
        At { depth: self.depth + 1, ..self }
    }
}

struct Walk<'w> {
    cri: &'w mut CriParts,
    pieces: &'w mut Pieces,
    emit: &'w mut dyn FnMut(Decoded<'_>),
    ordinal: u32,
    /// How many things the record has come to so far.
    given: usize,
}

impl<'w> Walk<'w> {
    fn new(
        cri: &'w mut CriParts,
        pieces: &'w mut Pieces,
        emit: &'w mut dyn FnMut(Decoded<'_>),
    ) -> Walk<'w> {
        Walk { cri, pieces, emit, ordinal: 0, given: 0 }
    }
}

impl Walk<'_> {
    /// A whole record: split at NUL runs, which no JSON holds.
    fn record(&mut self, record: &[u8]) {
        let record = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
        // JSON text sequences (RFC 7464) put a record separator before each.
        let record = record.strip_prefix(b"\x1e").unwrap_or(record);
        let mut start = 0;
        while let Some(found) = memchr::memchr(0, &record[start..]) {
            let from = start + found;
            self.pieces(&record[start..from], At { offset: start, ..At::default() });
            let length = record[from..].iter().take_while(|byte| **byte == 0).count();
            let at = At { offset: from, ..At::default() };
            self.reject(at, length, RejectReason::NulRun, "");
            start = from + length;
        }
        self.pieces(&record[start..], At { offset: start, ..At::default() });
    }

    /// One value or line after the other until the bytes are used up.
    fn pieces(&mut self, bytes: &[u8], at: At<'_>) {
        if at.depth >= ENVELOPE_DEPTH_MAX {
            self.reject(at, bytes.len(), RejectReason::EnvelopeTooDeep, "");
            return;
        }
        let mut start = json::skip_blank(bytes, 0);
        let (mut tears, mut line_end) = (0, 0);
        while start < bytes.len() {
            let rest = &bytes[start..];
            let at = at.skip(start);
            let used = match rest[0] {
                b'{' => self.object(rest, at, &mut tears),
                b'[' => self.array(rest, at),
                _ => {
                    // Looked for once a line, however many events stand on it.
                    let is_new = line_end <= start;
                    if is_new {
                        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                        line_end = start + length;
                    }
                    self.text(&bytes[start..line_end], is_new, at, &mut tears)
                }
            };
            start = json::skip_blank(bytes, start + used.max(1));
            if tears > TEARS_MAX {
                let length = bytes.len() - start;
                self.reject(at, length, RejectReason::MalformedJson, "torn too often");
                return;
            }
        }
    }

    /// An object and how many bytes it took.
    fn object(&mut self, bytes: &[u8], at: At<'_>, tears: &mut usize) -> usize {
        let shape = match bytes.starts_with(salvage::EVENT_START) {
            true => Shape::Event,
            false => envelope::shape(bytes),
        };
        if shape == Shape::Event || shape == Shape::Unknown {
            return self.event(bytes, at, tears);
        }
        let end = split::value_end(bytes, 0);
        let object = &bytes[..end.unwrap_or(bytes.len())];
        let given = self.given;
        match shape {
            Shape::Event | Shape::Unknown => {}
            Shape::Flat => {
                let detail = "its members are flattened";
                self.reject(at, object.len(), RejectReason::NotAuditEvent, detail);
            }
            Shape::List(open) => self.list(object, open, at),
            Shape::Holds(range, form) => self.held(object, range, form, at),
            Shape::Aks => self.aks(object, at),
            Shape::AksTable => self.aks_row(object, at),
            Shape::Gke => self.gke(object, at),
        }
        match end {
            _ if self.given > given => {}
            Some(_) => self.give(Decoded::Control),
            None => self.reject(at, object.len(), RejectReason::Truncated, "cut envelope"),
        }
        object.len()
    }

    /// An event that these bytes start with; how many bytes it took.
    fn event(&mut self, bytes: &[u8], at: At<'_>, tears: &mut usize) -> usize {
        // The end of a line is no part of its event.
        let whole = bytes.trim_ascii_end();
        match Event::parse(whole) {
            Ok(event) if texts::has_some(&event) => {
                let json = texts::to_audit(whole);
                self.whole(&json, at.copy(whole.len()));
            }
            Ok(event) if at.partial.is_none() && std::str::from_utf8(whole).is_ok() => {
                self.emit_event(event, at);
            }
            Ok(_) => self.whole(whole, at),
            Err(Malformed { kind: MalformedKind::Trailing, offset }) => {
                return self.event(&bytes[..offset], at, tears).min(offset);
            }
            Err(Malformed { kind: MalformedKind::NotAnAuditEvent, .. }) => {
                self.reject(at, bytes.len(), RejectReason::NotAuditEvent, "");
            }
            Err(Malformed { kind: MalformedKind::TooDeep, .. }) => return self.deep(bytes, at),
            Err(_) => return self.torn(bytes, at, tears),
        }
        bytes.len()
    }

    /// Exactly one well-formed event.
    fn whole(&mut self, bytes: &[u8], at: At<'_>) {
        match envelope::lossy(bytes) {
            Cow::Borrowed(_) => self.parsed(bytes, at),
            Cow::Owned(text) => {
                self.parsed(text.as_bytes(), at.partial(PartialReason::InvalidUtf8))
            }
        }
    }

    fn parsed(&mut self, bytes: &[u8], at: At<'_>) {
        match Event::parse(bytes) {
            Ok(mut event) => {
                if at.partial.is_some() {
                    event.set_partial();
                }
                self.emit_event(event, at);
            }
            Err(_) => self.salvage(bytes, at),
        }
    }

    fn give(&mut self, decoded: Decoded<'_>) {
        self.given += 1;
        (self.emit)(decoded);
    }

    fn emit_event(&mut self, event: Event<'_>, at: At<'_>) {
        let context =
            EnvelopeContext { cluster: at.cluster, time_us: at.time_us, partial: at.partial };
        self.give(Decoded::Event { event, ordinal: self.ordinal, context });
        self.ordinal += 1;
    }

    /// An event with a body that nests too deep; how many bytes it took.
    fn deep(&mut self, bytes: &[u8], at: At<'_>) -> usize {
        let end = split::value_end(bytes, 0).unwrap_or(bytes.len());
        let event = &bytes[..end];
        match salvage::flatten(event) {
            Some((flat, body)) => {
                let body_at = at.skip(body.start);
                self.reject(body_at, body.len(), RejectReason::NestingTooDeep, "");
                self.whole(&flat, at.partial(PartialReason::NestingTooDeep));
            }
            None => {
                self.reject(at, event.len(), RejectReason::NestingTooDeep, "");
                self.salvage_silently(event, at.partial(PartialReason::NestingTooDeep));
            }
        }
        end
    }

    /// Bytes that stop being JSON: what stands before the break is salvaged; an event behind it is
    /// left to the caller. How many bytes were used.
    fn torn(&mut self, bytes: &[u8], at: At<'_>, tears: &mut usize) -> usize {
        let next = salvage::next_start(bytes);
        let fragment = &bytes[..next.unwrap_or(bytes.len())];
        if next.is_some() && line::is_prefix(fragment) {
            return fragment.len();
        }
        *tears += 1;
        self.salvage(fragment, at);
        fragment.len()
    }

    /// The beginning of an event, or a reject.
    fn salvage(&mut self, bytes: &[u8], at: At<'_>) {
        if self.salvage_silently(bytes, at.partial(PartialReason::Truncated)) {
            return;
        }
        let is_cut = salvage::fault(bytes).is_none() && bytes.starts_with(b"{");
        let reason = match (is_cut, bytes.first()) {
            (true, _) => RejectReason::Truncated,
            (false, Some(b'{' | b'[')) => RejectReason::MalformedJson,
            (false, _) => RejectReason::NotJson,
        };
        self.reject(at, bytes.len(), reason, "");
    }

    fn salvage_silently(&mut self, bytes: &[u8], at: At<'_>) -> bool {
        let text = envelope::lossy(bytes);
        let Some(mut event) = Event::salvage(text.as_bytes()) else { return false };
        // An audit id alone may stand in anything that speaks of audit events.
        if event.slot(Slot::Level).or(event.slot(Slot::Kind)).is_none() {
            return false;
        }
        event.set_partial();
        self.emit_event(event, at);
        true
    }

    /// An array of anything; how many bytes it took.
    fn array(&mut self, bytes: &[u8], at: At<'_>) -> usize {
        let end = split::value_end(bytes, 0).unwrap_or(bytes.len());
        if bytes[1..].trim_ascii_start().starts_with(b"]") {
            self.reject(at, end, RejectReason::NotAuditEvent, "");
            return end;
        }
        self.elements(&bytes[..end], 0, at.deeper());
        end
    }

    fn elements(&mut self, bytes: &[u8], open: usize, at: At<'_>) {
        let mut index = open + 1;
        let mut is_cut = false;
        loop {
            index = json::skip_blank(bytes, index);
            let start = index;
            let end = match bytes.get(index) {
                Some(b']') => return,
                None if is_cut => return,
                // The element at the cut has told of it; a cut between elements tells of itself.
                None => return self.reject(at.skip(index), 0, RejectReason::Truncated, "cut list"),
                Some(b',') => {
                    index += 1;
                    continue;
                }
                Some(b'{' | b'[') => split::value_end(bytes, start),
                Some(_) => json::skip_value(bytes, start).ok(),
            };
            is_cut = end.is_none();
            index = end.unwrap_or(bytes.len());
            self.pieces(&bytes[start..index], at.skip(start));
        }
    }

    /// A line that does not start as JSON, or the rest of one; how many bytes it took.
    fn text(&mut self, text: &[u8], is_new: bool, at: At<'_>, tears: &mut usize) -> usize {
        if text[0] == b'"'
            && let Some(used) = self.quoted(text, at)
        {
            return used;
        }
        let end = text.len();
        if line::is_legacy(text) {
            self.reject(at, end, RejectReason::LegacyFormat, "");
        } else if let Some(cri) = CriLine::parse(text) {
            self.cri(&cri, at);
        } else if let Some((time_us, rest)) = line::timestamp(text) {
            let offset = text.len() - rest.len();
            let at = At { time_us: Some(time_us), ..at.skip(offset).deeper() };
            match rest.trim_ascii_start().first() {
                Some(b'{' | b'[') => self.pieces(rest, at),
                _ => self.behind_prefix(rest, at),
            }
        } else if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok() {
            self.reject(at, end, RejectReason::NotAuditEvent, "");
        } else if let Some(start) = line::json_start(text) {
            return start;
        } else if let Some(field) = is_new.then(|| csv::event(text)).flatten() {
            self.message(&envelope::lossy(&field), at.copy(end).deeper());
        } else {
            return self.torn(text, at, tears);
        }
        end
    }

    /// What stands behind the names that a shipper puts before an event (host, log stream,
    /// program); text without an event is a line of something else.
    fn behind_prefix(&mut self, text: &[u8], at: At<'_>) {
        match line::json_start(text).or_else(|| salvage::first_start(text)) {
            Some(start) => self.pieces(&text[start..], at.skip(start).deeper()),
            None => self.give(Decoded::Control),
        }
    }

    fn cri(&mut self, line: &CriLine<'_>, at: At<'_>) {
        let at = At { time_us: Some(line.time_us), ..at.deeper() };
        if !line.is_partial && !self.cri.is_waiting(line) {
            self.pieces(line.content, at);
            return;
        }
        let (bytes, time_us) = match self.cri.push(line) {
            Joined::Waiting => return,
            Joined::Line(bytes, time_us) => (bytes, time_us),
            Joined::TooLong(bytes, time_us) => {
                self.reject(at, line.content.len(), RejectReason::LineTooLong, "");
                (bytes, time_us)
            }
        };
        self.pieces(&bytes, At { time_us: Some(time_us), ..at }.copy(line.content.len()));
    }

    fn reject(&mut self, at: At<'_>, length: usize, reason: RejectReason, detail: &'static str) {
        let length = at.copied.unwrap_or(length) as u64;
        let offset = at.offset as u64;
        self.give(Decoded::Reject(Reject { reason, offset, length, detail }));
    }
}

#[cfg(test)]
mod tests;
