//! Secrets inside texts whose form is known: request URIs, URLs, messages, words of commands.
//!
//! Every function adds the parts to replace to a list of spans, in order and apart from each other.

use memchr::memmem;

use crate::event::json;
use crate::event::redact::patterns::{
    Class, find, is_mark, is_opaque, is_plain, is_secretive, merge,
};
use crate::event::redact::splice::Decoded;

/// Parts of a text.
pub(crate) type Spans = Vec<(usize, usize)>;

/// A request URI: credentials in its path, and in its query by name, by place, and by look.
pub(crate) fn uri(text: &[u8], spans: &mut Spans) {
    uri_by(true, text, spans);
}

/// The same, where `may_look` says whether some part of it may look like a credential.
pub(crate) fn uri_by(may_look: bool, text: &[u8], spans: &mut Spans) {
    // What is encoded may be anything.
    let may_look = may_look || memchr::memchr(b'%', text).is_some();
    let mark = memchr::memchr(b'?', text);
    let path = &text[..mark.unwrap_or(text.len())];
    if may_look {
        find(path, Class::Full, spans);
    }
    let Some(mark) = mark else { return };
    // What stands behind a proxy is another server's, and so is the query.
    let is_proxied = memmem::find(path, b"/proxy/").is_some() || path.ends_with(b"/proxy");
    let mut words = Words::new(true);
    let mut at = mark + 1;
    for pair in text[mark + 1..].split(|byte| *byte == b'&') {
        let equals = memchr::memchr(b'=', pair);
        let name = Decoded::percent(&pair[..equals.unwrap_or(pair.len())]);
        let start = at + equals.map_or(pair.len(), |equals| equals + 1);
        let end = at + pair.len();
        match equals {
            None if is_proxied => whole(text, at, end, spans),
            None if may_look => find_decoded(pair, at, spans),
            Some(_) if is_proxied || is_parameter(&name.bytes) => whole(text, start, end, spans),
            Some(_) if *name.bytes == *b"command" => {
                let word = Decoded::percent(&text[start..end]);
                let mut inner = Spans::new();
                words.next(&word.bytes, &mut inner);
                back(&word, start, &inner, spans);
            }
            Some(_) if may_look => find_decoded(&text[start..end], start, spans),
            _ => {}
        }
        at = end + 1;
    }
}

/// Whether a query parameter of this name holds a credential.
fn is_parameter(name: &[u8]) -> bool {
    !OWN_PARAMETERS.contains(&name) && is_secretive(name)
}

/// Parameters of the Kubernetes API that hold no credential, whatever their names look like; nearly
/// every one that is sent is one of them
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-parameters/common-parameters/>).
const OWN_PARAMETERS: [&[u8]; 15] = [
    b"limit",
    b"watch",
    b"timeout",
    b"resourceVersion",
    b"timeoutSeconds",
    b"allowWatchBookmarks",
    b"fieldManager",
    b"fieldValidation",
    b"labelSelector",
    b"fieldSelector",
    b"continue",
    b"resourceVersionMatch",
    b"sendInitialEvents",
    b"propagationPolicy",
    b"dryRun",
];

fn whole(text: &[u8], start: usize, end: usize, spans: &mut Spans) {
    if start < end && !is_mark(&text[start..end]) {
        spans.push((start, end));
    }
}

fn find_decoded(part: &[u8], start: usize, spans: &mut Spans) {
    let decoded = Decoded::percent(part);
    let mut inner = Spans::new();
    find(&decoded.bytes, Class::Full, &mut inner);
    back(&decoded, start, &inner, spans);
}

fn back(decoded: &Decoded<'_>, start: usize, inner: &Spans, spans: &mut Spans) {
    spans.extend(
        inner.iter().map(|(from, to)| (start + decoded.origin(*from), start + decoded.origin(*to))),
    );
}

/// A URL: user information, the values of its query, and whatever looks like a credential.
pub(crate) fn url(text: &[u8], spans: &mut Spans) {
    let from = spans.len();
    let authority = memmem::find(text, b"://").map_or(0, |at| at + 3);
    let rest = &text[authority..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    if let Some(sign) = memchr::memrchr(b'@', &rest[..end]) {
        whole(text, authority, authority + sign, spans);
    }
    if let Some(mark) = memchr::memchr(b'?', text) {
        let mut at = mark + 1;
        for pair in text[mark + 1..].split(|byte| *byte == b'&') {
            let name = memchr::memchr(b'=', pair).map_or(0, |equals| equals + 1);
            whole(text, at + name, at + pair.len(), spans);
            at += pair.len() + 1;
        }
    }
    find(text, Class::Full, spans);
    spans[from..].sort_unstable();
    merge(spans, from);
}

/// What stands before a value that validation echoes.
const ECHOES: [&[u8]; 3] = [b"Invalid value: ", b"Unsupported value: ", b"Duplicate value: "];
/// What stands before the bytes that a decoder could not read; they go on to the end.
const CONTEXTS: [&[u8]; 2] = [b"byte of ...|", b"bigger context ...|"];

/// A message: values that it echoes, and whatever looks like a credential.
pub(crate) fn message(text: &[u8], spans: &mut Spans) {
    let from = spans.len();
    find(text, Class::Full, spans);
    if memmem::find(text, b" value: ").is_some() {
        for echo in ECHOES {
            let mut behind = 0;
            for at in memmem::find_iter(text, echo) {
                if at >= behind {
                    let start = at + echo.len();
                    behind = echoed(text, start, spans);
                }
            }
        }
    }
    let context =
        CONTEXTS.iter().filter_map(|sign| memmem::find(text, sign).map(|at| at + sign.len()));
    if let Some(start) = context.min() {
        whole(text, start, text.len(), spans);
    }
    spans[from..].sort_unstable();
    merge(spans, from);
}

/// The value that starts here: quoted, JSON, a plain scalar up to the colon behind it; a dump of
/// anything else goes on to the end. Returns where it ends.
fn echoed(text: &[u8], start: usize, spans: &mut Spans) -> usize {
    let rest = &text[start..];
    let end = match rest.first() {
        Some(b'"') => match json::skip_string(text, start) {
            Ok((end, _)) => {
                whole(text, start + 1, end - 1, spans);
                return end;
            }
            Err(_) => text.len(),
        },
        Some(b'{' | b'[')
            if is_mark(&rest[..memchr::memchr(b']', rest).map_or(0, |at| at + 1)]) =>
        {
            return start;
        }
        Some(b'{' | b'[') => json::skip_value(text, start).unwrap_or(text.len()),
        _ => {
            let end = memmem::find(rest, b": ").unwrap_or(rest.len());
            // Go's dumps of structs hold anything, colons too.
            if memchr::memchr2(b'{', b'(', &rest[..end]).is_some() {
                text.len()
            } else {
                start + end
            }
        }
    };
    whole(text, start, end, spans);
    end
}

/// The words of a command, one after the other.
#[derive(Debug)]
pub(crate) struct Words {
    is_begun: bool,
    /// The word before was a flag whose value is a credential.
    is_value: bool,
}

impl Words {
    /// Before the first word, which is a program's name or not.
    pub(crate) fn new(has_program: bool) -> Words {
        Words { is_begun: !has_program, is_value: false }
    }

    /// Adds what is to be replaced in the next word.
    pub(crate) fn next(&mut self, word: &[u8], spans: &mut Spans) {
        let is_program = !std::mem::replace(&mut self.is_begun, true);
        let is_value = std::mem::replace(&mut self.is_value, false);
        if is_mark(word) {
            return;
        }
        if word.starts_with(b"-") && !word.contains(&b' ') {
            let equals = memchr::memchr(b'=', word);
            let name = &word[..equals.unwrap_or(word.len())];
            match equals {
                Some(equals) if is_secretive(name) || is_opaque(&word[equals + 1..]) => {
                    whole(word, equals + 1, word.len(), spans);
                }
                Some(_) => find(word, Class::Full, spans),
                None => {
                    self.is_value = is_secretive(name);
                    find(word, Class::Full, spans);
                }
            }
        } else if is_value || !is_program && is_opaque(word) && !is_plain(word) {
            whole(word, 0, word.len(), spans);
        } else {
            find(word, Class::Full, spans);
        }
    }
}
