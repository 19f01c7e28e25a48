//! Cuts a stream of JSON documents into records: the elements of their lists, or documents whole.
//!
//! The splitter works on a window of the stream that its owner moves on: it says from where on the
//! window must be kept, and is handed more. An EventList of any size so needs the memory of its
//! largest element.

use crate::event::json::{skip_blank, skip_string};
use crate::event::reject::{Reject, RejectReason};
use crate::event::split::{Scanner, Step};
use crate::ingest::chunk::{ITEMS_MAX, Item, LINE_KEPT_BYTES, LineReject, lines};

/// The most that may stand in a document before its list.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// What is kept of a document behind its list, to know the name of another list by.
const LOOK_BEHIND_BYTES: usize = 64;

/// Where the splitter stands.
#[derive(Clone, Debug)]
enum State {
    /// Between documents.
    Top,
    /// In a document that has shown no list yet.
    Document(Scanner),
    /// Between the elements of a list; `is_bare` when it is a document's outermost array.
    List { is_bare: bool },
    /// In an element of a list.
    Element { scanner: Scanner, is_bare: bool },
    /// Behind the list of a document.
    Rest(Scanner),
    /// In a line between documents that is no JSON, too long to be kept.
    Garbage,
}

/// What the splitter rejects: `length` bytes that end before `at` in the window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: RejectReason,
    pub(crate) at: usize,
    pub(crate) length: u64,
}

/// The rejects of a window of these bytes, which starts on this line and at this offset.
pub(crate) fn placed(
    refused: Vec<Refused>,
    window: &[u8],
    first_line: u64,
    offset: u64,
) -> impl Iterator<Item = LineReject> {
    // They come in the order of the bytes, and there can be one for every other byte.
    let (mut line, mut counted) = (first_line, 0);
    refused.into_iter().map(move |Refused { reason, at, length }| {
        line += lines(&window[counted..at.max(counted)]);
        counted = at.max(counted);
        let offset = (offset + at as u64).saturating_sub(length);
        LineReject { line, reject: Reject { reason, offset, length, detail: "" } }
    })
}

/// The state of cutting between two windows.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    /// Start of the unfinished record.
    start: usize,
    /// Where scanning goes on.
    at: usize,
    header: Vec<u8>,
    /// Whether the unfinished record is only passed over, and how much of it is behind the window.
    skipped: Option<u64>,
    nul_run: u64,
}

/// What a window yields.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    pub(crate) items: Vec<Item>,
    pub(crate) headers: Vec<u8>,
    pub(crate) refused: Vec<Refused>,
}

impl Splitter {
    pub(crate) fn new() -> Splitter {
        let header = Vec::new();
        Splitter { state: State::Top, start: 0, at: 0, header, skipped: None, nul_run: 0 }
    }

    /// From where on the window must be kept.
    pub(crate) fn keep(&self) -> usize {
        if self.skipped.is_some() { self.at } else { self.start.min(self.at) }
    }

    /// Tells that the window now starts `length` bytes further on.
    pub(crate) fn forget(&mut self, length: usize) {
        if let Some(skipped) = &mut self.skipped {
            *skipped += length as u64;
        }
        self.start = self.start.saturating_sub(length);
        self.at -= length;
    }

    /// Gives the unfinished record up: a part of it becomes a record, the rest is passed over.
    /// Returns up to where the window of `length` bytes is used.
    pub(crate) fn give_up(&mut self, length: usize, cut: &mut Cut) -> usize {
        self.push(cut, self.start, length.min(self.start + LINE_KEPT_BYTES));
        self.skipped = Some(0);
        match &mut self.state {
            State::Document(scanner) | State::Element { scanner, .. } => scanner.ignore_lists(),
            State::Top | State::List { .. } | State::Rest(_) | State::Garbage => {
                self.state = State::Garbage;
                self.at = length;
            }
        }
        self.at
    }

    /// Cuts what can be cut; `is_last` says that nothing follows the window.
    pub(crate) fn split(&mut self, window: &[u8], is_last: bool, cut: &mut Cut) {
        while cut.items.len() + cut.refused.len() < ITEMS_MAX {
            let is_going_on = match self.state {
                State::Top => self.top(window, is_last, cut),
                State::List { is_bare } => self.list(window, is_last, is_bare, cut),
                State::Garbage => self.garbage(window, is_last, cut),
                State::Document(_) | State::Element { .. } | State::Rest(_) => {
                    self.value(window, is_last, cut)
                }
            };
            if !is_going_on {
                break;
            }
        }
        if is_last && self.at >= window.len() {
            self.end_nul_run(cut);
        }
    }

    fn top(&mut self, window: &[u8], is_last: bool, cut: &mut Cut) -> bool {
        self.at = skip_blank(window, self.at);
        let nuls = window[self.at..].iter().take_while(|byte| **byte == 0).count();
        if nuls > 0 {
            self.at += nuls;
            self.start = self.at;
            self.nul_run += nuls as u64;
            return true;
        }
        self.start = self.at;
        let rest = &window[self.at..];
        if rest.is_empty() {
            return false;
        }
        self.end_nul_run(cut);
        match rest[0] {
            b',' => self.at += 1,
            b'{' => self.state = State::Document(Scanner::document()),
            b'[' => {
                self.header.clear();
                self.header.push(b'[');
                self.at += 1;
                self.state = State::List { is_bare: true };
            }
            0xef if rest.starts_with(b"\xef\xbb\xbf") => self.at += 3,
            _ => return self.text(window, is_last, cut),
        }
        true
    }

    /// A line between documents that is no JSON; `decode` says what it is.
    fn text(&mut self, window: &[u8], is_last: bool, cut: &mut Cut) -> bool {
        let end =
            memchr::memchr2(b'\n', 0, &window[self.start..]).map(|length| self.start + length);
        match end {
            Some(end) => self.end_record(end, State::Top, cut),
            None if is_last => self.end_record(window.len(), State::Top, cut),
            None => return false,
        }
        true
    }

    fn garbage(&mut self, window: &[u8], is_last: bool, cut: &mut Cut) -> bool {
        match memchr::memchr(b'\n', &window[self.at..]) {
            Some(length) => self.end_record(self.at + length, State::Top, cut),
            None if is_last => self.end_record(window.len(), State::Top, cut),
            None => {
                self.at = window.len();
                return false;
            }
        }
        true
    }

    fn list(&mut self, window: &[u8], is_last: bool, is_bare: bool, cut: &mut Cut) -> bool {
        self.at = skip_blank(window, self.at);
        self.start = self.at;
        let Some(&byte) = window.get(self.at) else { return false };
        match byte {
            b',' => self.at += 1,
            b']' | b'}' => {
                self.at += 1;
                self.start = self.at;
                self.state = match is_bare || byte == b'}' {
                    true => State::Top,
                    false => State::Rest(Scanner::behind(&self.header)),
                };
            }
            b'{' | b'[' => {
                self.state = State::Element { scanner: Scanner::value(), is_bare };
            }
            0 => self.state = State::Top,
            _ => return self.scalar(window, is_last, is_bare, cut),
        }
        true
    }

    /// An element that is neither object nor array: no event, but counted.
    fn scalar(&mut self, window: &[u8], is_last: bool, is_bare: bool, cut: &mut Cut) -> bool {
        let end = match window[self.start] {
            b'"' => skip_string(window, self.start).ok().map(|(end, _)| end),
            _ => memchr::memchr3(b',', b']', b'\n', &window[self.start + 1..])
                .map(|length| self.start + 1 + length),
        };
        match end {
            Some(end) => self.end_record(end, State::List { is_bare }, cut),
            None if is_last => self.end_record(window.len(), State::Top, cut),
            None => return false,
        }
        true
    }

    /// A document, an element, or what follows a document's list.
    fn value(&mut self, window: &[u8], is_last: bool, cut: &mut Cut) -> bool {
        let (scanner, after) = match &mut self.state {
            State::Document(scanner) | State::Rest(scanner) => (scanner, State::Top),
            State::Element { scanner, is_bare } => (scanner, State::List { is_bare: *is_bare }),
            State::Top | State::List { .. } | State::Garbage => return false,
        };
        let step = scanner.scan(window, &mut self.at, is_last);
        match step {
            // A name that comes twice: no event of the second list is passed over.
            Step::List(open) if self.is_rest() => {
                self.at = open + 1;
                self.state = State::List { is_bare: false };
            }
            Step::List(open) => self.open_list(window, open),
            Step::End(end) => self.end_record(end, after, cut),
            Step::Torn(end) => self.end_record(end, State::Top, cut),
            Step::More if is_last => self.end_record(window.len(), State::Top, cut),
            Step::More => {
                if self.is_rest() {
                    self.start = self.at.saturating_sub(LOOK_BEHIND_BYTES).max(self.start);
                }
                return false;
            }
        }
        true
    }

    fn is_rest(&self) -> bool {
        matches!(self.state, State::Rest(_))
    }

    fn open_list(&mut self, window: &[u8], open: usize) {
        let header = &window[self.start..open + 1];
        let is_event = memchr::memmem::find(header, b"\"auditID\"").is_some();
        if is_event || header.len() > HEADER_BYTES_MAX {
            // An event with a list of its own, or no document of ours: one record, whatever is in
            // it.
            self.at = self.start;
            self.state = State::Document(Scanner::value());
            return;
        }
        self.header.clear();
        self.header.extend_from_slice(header);
        self.at = open + 1;
        self.start = self.at;
        self.state = State::List { is_bare: false };
    }

    /// The record that starts at `start` ends before `end`.
    fn end_record(&mut self, end: usize, after: State, cut: &mut Cut) {
        if let Some(skipped) = self.skipped.take() {
            let length = skipped + end as u64;
            cut.refused.push(Refused { reason: RejectReason::LineTooLong, at: end, length });
        } else if !self.is_rest() {
            self.push(cut, self.start, end);
        }
        self.at = end;
        self.start = end;
        self.state = after;
    }

    fn push(&self, cut: &mut Cut, start: usize, end: usize) {
        let header = match self.state {
            State::Element { .. } | State::List { .. } => self.header_in(cut),
            _ => 0..0,
        };
        cut.items.push(Item { bytes: start..end, header });
    }

    /// The header among those of the window; written once for all elements of a list.
    fn header_in(&self, cut: &mut Cut) -> std::ops::Range<usize> {
        if !cut.headers.ends_with(&self.header) {
            cut.headers.extend_from_slice(&self.header);
        }
        cut.headers.len() - self.header.len()..cut.headers.len()
    }

    fn end_nul_run(&mut self, cut: &mut Cut) {
        let length = std::mem::take(&mut self.nul_run);
        if length > 0 {
            cut.refused.push(Refused { reason: RejectReason::NulRun, at: self.at, length });
        }
    }
}
