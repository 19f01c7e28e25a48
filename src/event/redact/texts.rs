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
        find_decoded(path, 0, spans);
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

/// So often a text is decoded that was encoded more than once on its way through proxies.
const DECODED_MAX: usize = 3;

fn find_decoded(part: &[u8], start: usize, spans: &mut Spans) {
    let mut found = Spans::new();
    find_encoded(part, DECODED_MAX, &mut found);
    spans.extend(found.iter().map(|(from, to)| (start + from, start + to)));
}

/// What is found in a text as it stands, and decoded up to so many times.
fn find_encoded(part: &[u8], times: usize, spans: &mut Spans) {
    find(part, Class::Full, spans);
    if times > 0 && memchr::memchr(b'%', part).is_some() {
        let decoded = Decoded::percent(part);
        if decoded.bytes.len() < part.len() {
            let mut inner = Spans::new();
            find_encoded(&decoded.bytes, times - 1, &mut inner);
            back(&decoded, 0, &inner, spans);
            merge(spans, 0);
        }
    }
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
    merge(spans, from);
}

/// What stands before a value that validation echoes.
const ECHOES: [&[u8]; 3] = [b"Invalid value: ", b"Unsupported value: ", b"Duplicate value: "];
/// What stands before a value in what Go prints of a struct: differences of pods, and of objects
/// that have no type.
const DUMPED: &[u8] = b"Value:";
/// What stands before a quoted text that could not be read as a number, or as what was wanted.
const QUOTED: [&[u8]; 2] = [b"parsing \"", b"cannot unmarshal string \""];
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
    let mut behind = 0;
    for at in memmem::find_iter(text, DUMPED) {
        let is_word = at == 0 || !text[at - 1].is_ascii_alphabetic();
        if at >= behind && is_word {
            behind = dumped(text, at + DUMPED.len(), spans);
        }
    }
    for sign in QUOTED {
        for at in memmem::find_iter(text, sign) {
            echoed(text, at + sign.len() - 1, spans);
        }
    }
    let context =
        CONTEXTS.iter().filter_map(|sign| memmem::find(text, sign).map(|at| at + sign.len()));
    if let Some(start) = context.min() {
        whole(text, start, text.len(), spans);
    }
    merge(spans, from);
}

/// A value in what Go prints of a struct: quoted, or up to what ends a member; what has parts of
/// its own goes on to the end. Returns where it ends.
fn dumped(text: &[u8], at: usize, spans: &mut Spans) -> usize {
    let start = at + text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let rest = &text[start..];
    if rest.first() == Some(&b'"') {
        return echoed(text, start, spans);
    }
    // Prose has a blank behind the colon.
    if start > at {
        return start;
    }
    let is_end = |byte: &u8| matches!(byte, b'}' | b',' | b' ' | b'\n' | b')' | b'"');
    let end = rest.iter().position(is_end).unwrap_or(rest.len());
    let is_mark_here = rest.starts_with(b"[REDACTED");
    let has_parts = !is_mark_here && memchr::memchr3(b'{', b'[', b'(', &rest[..end]).is_some();
    let end = if has_parts { text.len() } else { start + end };
    whole(text, start, end, spans);
    end
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

/// A whole command line: its words, whatever shell reads them.
pub(crate) fn command_line(text: &[u8], spans: &mut Spans) {
    let from = spans.len();
    Words::new(true).line(text, spans);
    find(text, Class::Full, spans);
    merge(spans, from);
}

/// Programs whose short flags take passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Other,
    /// `-pPASSWORD`: MySQL's and MariaDB's.
    MySql,
    /// `-p PASSWORD` and `-pPASSWORD`.
    SshPass,
    /// `-a PASSWORD`.
    Redis,
    /// `-u USER:PASSWORD`.
    Curl,
}

impl Program {
    /// The program that a word names, wherever in a command it stands.
    fn of(word: &[u8]) -> Option<Program> {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
        match name {
            b"sshpass" => Some(Program::SshPass),
            b"redis-cli" | b"valkey-cli" | b"keydb-cli" => Some(Program::Redis),
            b"curl" => Some(Program::Curl),
            b"mysql" | b"mysqldump" | b"mysqladmin" | b"mysqlimport" | b"mysqlshow"
            | b"mysqlcheck" | b"mysqlpump" | b"mysqlsh" | b"mariadb" | b"mariadb-dump"
            | b"mariadb-admin" => Some(Program::MySql),
            _ => None,
        }
    }
}

/// What the next word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Anything,
    /// The value of a flag that takes a credential.
    Credential,
    /// `user:password`.
    Login,
}

/// The words of a command, one after the other.
#[derive(Debug)]
pub(crate) struct Words {
    is_begun: bool,
    program: Program,
    expected: Expected,
}

impl Words {
    /// Before the first word, which is a program's name or not.
    pub(crate) fn new(has_program: bool) -> Words {
        let (program, expected) = (Program::Other, Expected::Anything);
        Words { is_begun: !has_program, program, expected }
    }

    /// Adds what is to be replaced in the next word.
    pub(crate) fn next(&mut self, word: &[u8], spans: &mut Spans) {
        let is_program = !std::mem::replace(&mut self.is_begun, true);
        if is_mark(word) {
            self.expected = Expected::Anything;
        } else if word.contains(&b' ') || word.contains(&b'\n') {
            match std::mem::replace(&mut self.expected, Expected::Anything) {
                Expected::Credential => whole(word, 0, word.len(), spans),
                // A script, or a text: the words in it are a command's own.
                _ => command_line(word, spans),
            }
        } else if !self.is_said(word, spans) {
            self.program = Program::of(word).unwrap_or(self.program);
            if !is_program && is_opaque(word) && !is_plain(word) {
                whole(word, 0, word.len(), spans);
            } else {
                find(word, Class::Full, spans);
            }
        }
    }

    /// What the word before, or the word as a flag, says of it; false where neither says anything.
    fn is_said(&mut self, word: &[u8], spans: &mut Spans) -> bool {
        match std::mem::replace(&mut self.expected, Expected::Anything) {
            Expected::Credential if !word.starts_with(b"-") => whole(word, 0, word.len(), spans),
            Expected::Login if login(word, 0, spans) => {}
            _ if word.starts_with(b"-") => self.flag(word, spans),
            _ => return false,
        }
        true
    }

    /// A word that is a flag.
    fn flag(&mut self, word: &[u8], spans: &mut Spans) {
        let equals = memchr::memchr(b'=', word);
        let name = &word[..equals.unwrap_or(word.len())];
        match equals {
            Some(equals) if is_secretive(name) || is_opaque(&word[equals + 1..]) => {
                whole(word, equals + 1, word.len(), spans);
            }
            Some(equals) if self.is_login(name) && login(word, equals + 1, spans) => {}
            Some(_) => find(word, Class::Full, spans),
            None => {
                let is_short = name.len() > 2 && !name.starts_with(b"--");
                let takes = (self.program, name);
                let has_password = matches!(self.program, Program::MySql | Program::SshPass)
                    && name.starts_with(b"-p")
                    // Ports of another program's.
                    && !name[2..].iter().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-'));
                if is_short && has_password {
                    whole(word, 2, word.len(), spans);
                    return;
                }
                let is_curl = self.program == Program::Curl;
                if is_short && is_curl && name.starts_with(b"-u") && login(word, 2, spans) {
                    return;
                }
                let is_credential = is_secretive(name)
                    || matches!(takes, (Program::SshPass, b"-p") | (Program::Redis, b"-a"));
                self.expected = match is_credential {
                    true => Expected::Credential,
                    false if self.is_login(name) => Expected::Login,
                    false => Expected::Anything,
                };
                find(word, Class::Full, spans);
            }
        }
    }

    /// The words of a line that a shell splits, by the flags among them; nothing by its look alone.
    fn line(&mut self, text: &[u8], spans: &mut Spans) {
        let mut at = 0;
        while let Some((start, end, next)) = shell_word(text, at) {
            let is_quoted = next > end;
            at = next;
            let word = &text[start..end];
            if word.iter().all(|byte| is_separator(*byte)) {
                (self.program, self.expected) = (Program::Other, Expected::Anything);
                continue;
            }
            let mut found = Spans::new();
            if is_mark(word) {
                self.expected = Expected::Anything;
            } else if !self.is_said(word, &mut found) {
                match is_quoted && word.contains(&b' ') {
                    // A script. Quotes of one kind do not stand in each other, so this ends.
                    true => Words::new(true).line(word, &mut found),
                    false => self.program = Program::of(word).unwrap_or(self.program),
                }
            }
            spans.extend(found.iter().map(|(from, to)| (start + from, start + to)));
        }
    }

    /// Whether a flag takes `user:password`.
    fn is_login(&self, name: &[u8]) -> bool {
        self.program == Program::Curl && matches!(name, b"-u" | b"--user" | b"-U" | b"--proxy-user")
    }
}

/// Whether a new command begins behind it.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b';' | b'|' | b'&' | b'\n' | b'(' | b')' | b'`')
}

/// The next word at or behind `at`, separators by themselves: where it starts and ends, and where
/// to go on. What stands in quotes is of one word with what stands beside; the quotes around a
/// whole word are none of it. A quote that nothing closes is a character like others.
fn shell_word(text: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let is_blank = |byte: u8| byte.is_ascii_whitespace() && !is_separator(byte);
    let start = at + text[at..].iter().position(|byte| !is_blank(*byte))?;
    if is_separator(text[start]) {
        let count = text[start..].iter().take_while(|byte| is_separator(**byte)).count();
        return Some((start, start + count, start + count));
    }
    let mut end = start;
    let mut inner = None;
    while let Some(&byte) = text.get(end).filter(|byte| !is_blank(**byte) && !is_separator(**byte))
    {
        let close = matches!(byte, b'"' | b'\'').then(|| memchr::memchr(byte, &text[end + 1..]));
        match close.flatten() {
            Some(length) => {
                inner = (end == start).then_some((start + 1, start + 1 + length));
                end += length + 2;
            }
            None => {
                inner = None;
                end += 1;
            }
        }
    }
    let (from, to) = inner.filter(|(_, to)| *to + 1 == end).unwrap_or((start, end));
    Some((from, to, end))
}

/// Adds the password behind the colon of a login that starts at `start`; false where there is none.
/// Two numbers are a user and a group.
fn login(word: &[u8], start: usize, spans: &mut Spans) -> bool {
    let Some(colon) = memchr::memchr(b':', &word[start..]) else { return false };
    let (user, password) = (&word[start..start + colon], &word[start + colon + 1..]);
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if password.is_empty() || is_number(user) && is_number(password) {
        return false;
    }
    whole(word, start + colon + 1, word.len(), spans);
    true
}
