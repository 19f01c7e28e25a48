//! Where the values of a JSON stream end, found a buffer at a time.
//!
//! [`Scanner`] finds the end of one value of any size and depth; it may be handed the value's bytes
//! in as many pieces as the caller likes, never recurses, and looks at each block of 64 bytes once.
//! It also notices a torn write: a raw line break inside a string, or a document that starts at the
//! beginning of a line while another one is still open, is where an unfinished value stops. In a
//! value that is indented, every bracket that opens at the beginning of a line starts a document.

use wide::u8x16;

use crate::event::json::{Masks, Strings, load};

const BLOCK: usize = 64;

/// The members whose arrays hold the events of a document: EventList, AKS and Firehose, CloudWatch
/// Logs, `aws logs filter-log-events`, Splunk's exports and OTLP.
const LISTS: [&[u8]; 6] =
    [b"items", b"records", b"logEvents", b"events", b"results", b"resourceLogs"];

/// How documents of audit logs start; at the beginning of a line they end whatever was open before.
const STARTS: [&[u8]; 2] = [b"{\"kind\":\"Event", b"{\"messageType\":\""];

/// What a scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value ends before this index.
    End(usize),
    /// An array of events opens at this index (only from [`Scanner::document`]).
    List(usize),
    /// The value stops unfinished before this index: a torn write.
    Torn(usize),
    /// The bytes end inside the value.
    More,
}

/// The state of a scan between two buffers.
#[derive(Clone, Debug)]
pub struct Scanner {
    strings: Strings,
    depth: usize,
    watches_lists: bool,
    ends_in_newline: bool,
    /// Whether the value is printed over indented lines; `None` until its start was seen.
    is_indented: Option<bool>,
}

impl Scanner {
    /// For a value that starts with a bracket.
    pub fn value() -> Scanner {
        Scanner::inside(0)
    }

    /// For a value that starts with a bracket; stops at an array of events on its top level.
    pub fn document() -> Scanner {
        Scanner { watches_lists: true, ..Scanner::inside(0) }
    }

    /// For the rest of a value in which `depth` brackets are open.
    pub fn inside(depth: usize) -> Scanner {
        let strings = Strings::default();
        let is_indented = (depth > 0).then_some(false);
        Scanner { strings, depth, watches_lists: false, ends_in_newline: false, is_indented }
    }

    /// For the rest of a document of which one bracket is open, and of which this is the beginning;
    /// stops at another array of events.
    pub(crate) fn behind(header: &[u8]) -> Scanner {
        let is_indented = Some(is_indented(header));
        Scanner { is_indented, watches_lists: true, ..Scanner::inside(1) }
    }

    /// From now on stops at the value's end only.
    pub fn ignore_lists(&mut self) {
        self.watches_lists = false;
    }

    /// Whether what was scanned ends inside a string.
    pub(crate) fn is_in_string(&self) -> bool {
        self.strings.is_inside()
    }

    /// Scans on from `at`, which moves behind what need not be looked at again. `bytes` holds the
    /// value from wherever the caller keeps it; `is_last` says that no more will come.
    pub fn scan(&mut self, bytes: &[u8], at: &mut usize, is_last: bool) -> Step {
        let mut tail = [b' '; BLOCK];
        loop {
            let block: &[u8] = match bytes.get(*at..*at + BLOCK) {
                Some(block) => block,
                None if !is_last || *at >= bytes.len() => return Step::More,
                None => {
                    let rest = &bytes[*at..];
                    tail[..rest.len()].copy_from_slice(rest);
                    &tail
                }
            };
            if self.is_indented.is_none() {
                self.is_indented = Some(is_indented(block));
            }
            let before = self.strings;
            match self.block(block, bytes, *at, is_last) {
                None => *at += BLOCK,
                Some(Step::More) => {
                    self.strings = before;
                    return Step::More;
                }
                Some(step) => return step,
            }
        }
    }

    #[inline]
    fn block(&mut self, block: &[u8], bytes: &[u8], at: usize, is_last: bool) -> Option<Step> {
        let masks = Masks::of(block);
        let newlines = newlines(block);
        let inside = self.strings.inside(masks.quotes, masks.escapes);
        let (opens, closes) = (masks.opens & !inside, masks.closes & !inside);
        let line_starts = (newlines << 1 | u64::from(self.ends_in_newline)) & opens;
        let closing = closes.count_ones() as usize;
        let may_end = closing >= self.depth;
        let may_list = self.watches_lists && closing + 1 >= self.depth && opens != 0;
        if may_end || may_list || newlines & inside != 0 || line_starts != 0 {
            let torn = match self.torn(newlines & inside, line_starts, bytes, at, is_last) {
                Ok(torn) => torn,
                Err(step) => return Some(step),
            };
            return self.careful(opens, closes, bytes, at, torn, newlines);
        }
        self.depth = self.depth + opens.count_ones() as usize - closing;
        self.ends_in_newline = newlines >> 63 == 1;
        None
    }

    /// The bit at which the block is torn; 64 when it is whole.
    fn torn(
        &self,
        in_strings: u64,
        mut line_starts: u64,
        bytes: &[u8],
        at: usize,
        is_last: bool,
    ) -> Result<u32, Step> {
        while line_starts != 0 {
            let bit = line_starts.trailing_zeros();
            if self.is_indented == Some(true) {
                return Ok(bit.min(in_strings.trailing_zeros()));
            }
            let rest = &bytes[(at + bit as usize).min(bytes.len())..];
            for start in STARTS {
                if rest.starts_with(start) {
                    return Ok(bit.min(in_strings.trailing_zeros()));
                }
                if !is_last && start.starts_with(rest) {
                    return Err(Step::More);
                }
            }
            line_starts &= line_starts - 1;
        }
        Ok(in_strings.trailing_zeros())
    }

    /// Walks the brackets of a block one by one.
    fn careful(
        &mut self,
        opens: u64,
        closes: u64,
        bytes: &[u8],
        at: usize,
        torn: u32,
        newlines: u64,
    ) -> Option<Step> {
        let mut brackets = opens | closes;
        while brackets != 0 {
            let bit = brackets.trailing_zeros();
            if bit >= torn {
                break;
            }
            let index = at + bit as usize;
            if opens >> bit & 1 == 1 {
                if self.watches_lists && self.depth == 1 && opens_list(bytes, index) {
                    return Some(Step::List(index));
                }
                self.depth += 1;
            } else {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Some(Step::End(index + 1));
                }
            }
            brackets &= brackets - 1;
        }
        if torn < 64 {
            return Some(Step::Torn(at + torn as usize));
        }
        self.ends_in_newline = newlines >> 63 == 1;
        None
    }
}

/// Whether a value that starts so goes on in a line of its own, further in.
fn is_indented(start: &[u8]) -> bool {
    let [b'{' | b'[', rest @ ..] = start else { return false };
    let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
    matches!(rest, [b'\n', b' ' | b'\t', ..])
}

/// Whether the bracket at `index` opens the array of a member that holds events.
fn opens_list(bytes: &[u8], index: usize) -> bool {
    if bytes[index] != b'[' {
        return false;
    }
    let Some(rest) = bytes[..index].trim_ascii_end().strip_suffix(b":") else { return false };
    let Some(rest) = rest.trim_ascii_end().strip_suffix(b"\"") else { return false };
    LISTS.iter().any(|key| rest.strip_suffix(*key).is_some_and(|rest| rest.ends_with(b"\"")))
}

#[inline]
fn newlines(block: &[u8]) -> u64 {
    let mut mask = 0;
    for (step, part) in block.chunks_exact(16).enumerate() {
        let found = load(part).simd_eq(u8x16::splat(b'\n')).to_bitmask();
        mask |= u64::from(found) << (step * 16);
    }
    mask
}

/// The end of the value that opens with a bracket at `start`, whatever its depth; `None` when it is
/// cut or torn.
pub fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    match Scanner::value().scan(bytes, &mut at, true) {
        Step::End(end) => Some(end),
        Step::List(_) | Step::Torn(_) | Step::More => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(mut scanner: Scanner, text: &str) -> Step {
        scanner.scan(text.as_bytes(), &mut 0, true)
    }

    #[test]
    fn finds_ends_lists_and_tears() {
        let pad = " ".repeat(61);
        for (text, step) in [
            ("{}", Step::End(2)),
            ("{\"a\":\"}\"}x", Step::End(9)),
            ("{\"a\":[1,{\"b\":2}]}", Step::End(17)),
            ("{\"a\":", Step::More),
            ("{\"a\":\"x\n\"}", Step::Torn(7)),
            ("{\n\"a\":\n{\"b\":1}}", Step::End(15)),
            ("{\"a\":1,\n{\"kind\":\"Event\"", Step::Torn(8)),
            ("{\"items\":[1]}", Step::List(9)),
            ("{\"kind\":\"x\" , \"logEvents\" : [1]}", Step::List(28)),
            ("{\"x\":{\"items\":[1]},\"items\":{}}", Step::End(30)),
            ("{\"not_items\":[1]}", Step::End(17)),
            (&format!("{{{pad}\n\n{{\"kind\":\"Event"), Step::Torn(64)),
            ("{\n \"a\": {\n  \"b\": 1\n },\n \"c\": [\n  {}\n ]\n}", Step::End(40)),
            ("{\n \"a\": 1,\n{\n \"a\": 1\n}", Step::Torn(11)),
            ("{\r\n\t\"a\": [\r\n\t\t1,\r\n{\r\n\t\"a\"", Step::Torn(18)),
            ("[\n {\n  \"a\": \n[\n {}", Step::Torn(13)),
            ("{\n \"a\": 1\n}\n{\n \"a\"", Step::End(11)),
            (&format!("{{\n {pad}\n{{\n"), Step::Torn(65)),
        ] {
            assert_eq!(scan(Scanner::document(), text), step, "{text}");
        }
    }

    #[test]
    fn depth_has_no_limit_here() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(value_end(deep.as_bytes(), 0), Some(200_000));
    }

    proptest! {
        #[test]
        fn buffers_of_any_size_give_the_same(
            text in "[\\[\\]{}\",:\\\\\na ]{0,200}",
            sizes in prop::collection::vec(1usize..70, 1..40),
        ) {
            let bytes = format!("{{{text}");
            let whole = scan(Scanner::document(), &bytes);
            let (mut scanner, mut at, mut have) = (Scanner::document(), 0, 0);
            let mut step = Step::More;
            for size in sizes.iter().cycle() {
                have = (have + size).min(bytes.len());
                let is_last = have == bytes.len();
                step = scanner.scan(&bytes.as_bytes()[..have], &mut at, is_last);
                if step != Step::More || is_last {
                    break;
                }
            }
            prop_assert_eq!(step, whole);
        }
    }
}
