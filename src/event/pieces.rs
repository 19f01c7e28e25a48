//! Lines that a log shipper hands over in pieces, each in a record of its own.
//!
//! Container runtimes cut a line at 16 KiB, and records that hold a line under `log` hold its
//! pieces then. Docker ends only the last one with a line feed, Fluent Bit writes `"logtag":"P"`
//! beside the others, and some shippers strip the line feed and say nothing. A piece taken for a
//! line would be a forgery waiting to be sent: whoever fills a body so that a cut falls before an
//! object of his has that object at the start of a record. So what says nothing and starts a JSON
//! value that it does not end waits for the record behind it, and an event there is believed only
//! where it cannot continue what waits.
//!
//! Pieces are told apart by `stream` and by nothing else. Several machines' pieces of one stream,
//! mixed in one file, come to cut events as they always did. Files of lines are read so that a line
//! stays in one chunk (`ingest::replay`); where records are elements of an array, or messages of
//! Kafka, what waits at the end of a chunk comes to a cut event, and what continues it in the next
//! chunk is taken for itself.

use crate::event::envelope::{self, Fields, Form, Shape};
use crate::event::line::CRI_JOINED_BYTES_MAX;
use crate::event::salvage;
use crate::event::split::{Scanner, Step, value_end};

/// Where runtimes cut.
const PIECE_BYTES: usize = 16 << 10;

/// What a record says of the line that it holds a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The line goes on in the next record.
    More,
    /// The line ends here.
    Last,
    /// Nothing.
    None,
}

/// The line, or the piece of a line, that a record holds.
#[derive(Debug)]
pub(crate) struct Piece<'t> {
    stream: usize,
    mark: Mark,
    text: &'t str,
}

impl<'t> Piece<'t> {
    /// The piece with this text in a record.
    pub(crate) fn of(record: &[u8], text: &'t str) -> Piece<'t> {
        let (stream, tag) = stream_and_tag(record);
        let mark = if text.ends_with('\n') { Mark::Last } else { tag };
        Piece { stream, mark, text }
    }

    /// What it says.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// Whether it may be the beginning of an event or of anything else in JSON.
    fn starts_anew(&self) -> bool {
        matches!(self.text.as_bytes(), [b'{', b'"', next, ..] if next.is_ascii_alphanumeric())
    }
}

fn stream_and_tag(record: &[u8]) -> (usize, Mark) {
    let (mut stream, mut mark) = (2, Mark::None);
    for field in Fields::of(record).filter(|field| field.is_complete) {
        match (field.key, &record[field.value]) {
            (b"stream", b"\"stdout\"") => stream = 0,
            (b"stream", b"\"stderr\"") => stream = 1,
            (b"logtag", b"\"P\"") => mark = Mark::More,
            (b"logtag", b"\"F\"") => mark = Mark::Last,
            _ => {}
        }
    }
    (stream, mark)
}

/// Of a record that holds a line: its stream, and whether the next record of the stream seems to
/// continue the line.
pub(crate) fn ending(record: &[u8]) -> Option<(usize, bool)> {
    if !record.starts_with(b"{") || record.starts_with(salvage::EVENT_START) {
        return None;
    }
    let Shape::Holds(range, Form::Piece) = envelope::shape(record) else { return None };
    let text = envelope::held_text(record, range);
    let piece = Piece::of(record, &text);
    let is_open = match piece.mark {
        Mark::More => true,
        Mark::Last => false,
        // All pieces but the last are of full length.
        Mark::None => json_start(&text)
            .map_or(text.len() >= PIECE_BYTES, |start| value_end(text.as_bytes(), start).is_none()),
    };
    Some((piece.stream, is_open))
}

/// Where the JSON of a text starts, if it holds any.
fn json_start(text: &str) -> Option<usize> {
    let blanks = text.len() - text.trim_ascii_start().len();
    match text.as_bytes().get(blanks) {
        Some(b'{') => Some(blanks),
        _ => salvage::first_start(text.as_bytes()),
    }
}

/// The pieces of lines that are still to be joined, one line a stream.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    streams: [Option<Waiting>; 3],
}

/// What a piece came to.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is a line by itself.
    Alone,
    /// More is to come.
    Waiting,
    /// The whole line and the time of its first piece.
    Line(String, Option<i64>),
    /// The first bytes of a line longer than [`CRI_JOINED_BYTES_MAX`], and the time.
    TooLong(String, Option<i64>),
}

#[derive(Debug)]
struct Waiting {
    text: String,
    time_us: Option<i64>,
    /// Looks for the end of the JSON in the text, up to `at` so far.
    scanner: Scanner,
    at: usize,
    /// Whether a mark, and not the end of the JSON, says where the line ends.
    is_marked: bool,
    is_too_long: bool,
}

impl Waiting {
    fn new(piece: &Piece<'_>, start: usize, time_us: Option<i64>) -> Waiting {
        Waiting {
            text: piece.text.to_owned(),
            time_us,
            scanner: Scanner::value(),
            at: start,
            is_marked: piece.mark == Mark::More,
            is_too_long: false,
        }
    }

    /// Whether the JSON of the text ends, or stops being JSON, in what has come so far.
    fn is_over(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let step = self.scanner.scan(bytes, &mut self.at, false);
        let step = match step {
            // The rest of a block is looked at again when there is more.
            Step::More => self.scanner.clone().scan(bytes, &mut { self.at }, true),
            step => step,
        };
        step != Step::More
    }

    /// Whether an object cannot stand behind the text: inside a string its first quote would end
    /// that string, and a letter cannot follow.
    fn refuses_object(&self) -> bool {
        let mut scanner = self.scanner.clone();
        let bytes = self.text.as_bytes();
        scanner.scan(bytes, &mut { self.at }, true);
        let last = bytes.trim_ascii_end().last();
        scanner.is_in_string() || !matches!(last, Some(b':' | b',' | b'['))
    }
}

impl Pieces {
    /// Takes out what waits where this piece shows that it does not go on: the shipper cuts lines
    /// for good. To be called before [`Pieces::push`].
    pub(crate) fn torn(&mut self, piece: &Piece<'_>) -> Option<(String, Option<i64>)> {
        let slot = &mut self.streams[piece.stream];
        slot.take_if(|waiting| {
            let is_torn = waiting.is_too_long || waiting.refuses_object();
            !waiting.is_marked && piece.starts_anew() && is_torn
        })
        .filter(|waiting| !waiting.is_too_long)
        .map(|waiting| (waiting.text, waiting.time_us))
    }

    /// Adds a piece; gives the joined line back when it was the last one.
    pub(crate) fn push(&mut self, piece: &Piece<'_>, time_us: Option<i64>) -> Taken {
        let slot = &mut self.streams[piece.stream];
        let Some(waiting) = slot else {
            return match Pieces::first(piece, time_us) {
                Some(waiting) => {
                    *slot = Some(waiting);
                    Taken::Waiting
                }
                None => Taken::Alone,
            };
        };
        let mut taken = Taken::Waiting;
        if !waiting.is_too_long && waiting.text.len() + piece.text.len() > CRI_JOINED_BYTES_MAX {
            waiting.is_too_long = true;
            taken = Taken::TooLong(std::mem::take(&mut waiting.text), waiting.time_us);
        }
        if !waiting.is_too_long {
            waiting.text.push_str(piece.text);
        }
        waiting.is_marked |= piece.mark == Mark::More;
        let is_last = match piece.mark {
            Mark::More => false,
            Mark::Last => true,
            Mark::None => waiting.is_marked || !waiting.is_too_long && waiting.is_over(),
        };
        match slot.take_if(|_| is_last) {
            Some(waiting) if !waiting.is_too_long => Taken::Line(waiting.text, waiting.time_us),
            _ => taken,
        }
    }

    /// What a line begins with that waits for more.
    fn first(piece: &Piece<'_>, time_us: Option<i64>) -> Option<Waiting> {
        match piece.mark {
            Mark::Last => None,
            Mark::More => Some(Waiting::new(piece, 0, time_us)),
            Mark::None => {
                let start = json_start(piece.text)?;
                let mut waiting = Waiting::new(piece, start, time_us);
                (!waiting.is_over()).then_some(waiting)
            }
        }
    }

    /// The unfinished lines at the end of the input.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = (String, Option<i64>)> {
        let streams = std::mem::take(&mut self.streams);
        streams
            .into_iter()
            .flatten()
            .filter(|waiting| !waiting.is_too_long)
            .map(|waiting| (waiting.text, waiting.time_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_goes_on() {
        let full = "x".repeat(PIECE_BYTES);
        for (record, expected) in [
            (r#"{"log":"{\"a\":1}\n","stream":"stdout"}"#, Some((0, false))),
            (r#"{"log":"{\"a\":1}","stream":"stderr"}"#, Some((1, false))),
            (r#"{"log":"{\"a\":","stream":"stdout"}"#, Some((0, true))),
            (r#"{"log":"{\"a\":\n","stream":"stdout"}"#, Some((0, false))),
            (r#"{"log":"{\"a\":"}"#, Some((2, true))),
            (r#"{"logtag":"P","log":"I1122 klog","stream":"stderr"}"#, Some((1, true))),
            (r#"{"logtag":"F","log":"{\"a\":"}"#, Some((2, false))),
            (r#"{"log":"I1122 klog"}"#, Some((2, false))),
            (&format!(r#"{{"log":"{full}"}}"#), Some((2, true))),
            (r#"{"message":"{\"a\":"}"#, None),
            (r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","log":"{"}"#, None),
            ("text", None),
        ] {
            assert_eq!(ending(record.as_bytes()), expected, "{record}");
        }
    }
}
