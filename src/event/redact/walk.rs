//! The walk through bytes that finds what to replace: one pass, a stack and no recursion.
//!
//! The walk knows strict JSON; where it meets anything else, the value of the event it is in is
//! replaced whole. Documents inside strings (last-applied configurations, admission patches) are
//! walked likewise, each by a walk of its own and no deeper than [`EMBEDDED_MAX`].

use std::borrow::Cow;

use crate::event::json::{Stop, skip_blank, skip_string, skip_value};
use crate::event::redact::Redactor;
use crate::event::redact::harmless::Harmless;
use crate::event::redact::hints::Hints;
use crate::event::redact::patterns::{Class, LENGTH_MIN, is_secretive, is_secretive_member};
use crate::event::redact::places::{Active, Rule};
use crate::event::redact::scopes::Scopes;
use crate::event::redact::splice::{Decoded, Edit};
use crate::event::redact::texts::{Spans, Words};
use crate::event::value::Value;

/// Documents in strings in documents beyond this are replaced whole.
pub(crate) const EMBEDDED_MAX: u8 = 2;
/// So much of a pair is looked through for its name.
const PAIR_BYTES_MAX: usize = 1024;

/// The bytes are no JSON.
#[derive(Debug)]
pub(crate) struct Broken;

/// What is known of the request that an object belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'s> {
    pub(crate) scopes: Scopes,
    pub(crate) namespace: &'s str,
    pub(crate) name: &'s str,
}

/// Where a value stands: what is done with it, and what may be reached below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) rule: Rule,
    pub(crate) class: Class,
    pub(crate) scopes: Scopes,
    /// How many roots it stands in.
    pub(crate) roots: u8,
    /// The places that can be reached below it: from here to the end of `actives`.
    pub(crate) actives: usize,
}

impl Site {
    /// Whether the key of a value that no place names says that it is a credential.
    pub(crate) fn is_named(&self, key: Option<&[u8]>) -> bool {
        self.class == Class::Full
            && matches!(self.rule, Rule::Search | Rule::Text | Rule::Copy)
            && key.is_some_and(is_secretive_member)
    }
}

/// An open object or array.
pub(crate) struct Frame {
    pub(crate) site: Site,
    pub(crate) form: Form,
    pub(crate) close: u8,
    pub(crate) is_empty: bool,
    /// Where its opening bracket stands.
    pub(crate) start: usize,
    /// The kinds that its members named so far say it is, of those that are told apart anywhere.
    pub(crate) told: Scopes,
    /// Whether a member was met that could be the content of such an object.
    pub(crate) has_content: bool,
}

impl Frame {
    /// One that was opened at `start`.
    pub(crate) fn new(site: Site, form: Form, close: u8, start: usize) -> Frame {
        Frame { site, form, close, is_empty: true, start, told: 0, has_content: false }
    }

    /// Whether of its members only those hold something that say so by their keys, and of its
    /// elements none.
    fn is_plain(&self, actives: usize) -> bool {
        let Site { rule, actives: own, .. } = self.site;
        let is_rule_plain = match self.close {
            b'}' => matches!(rule, Rule::Search | Rule::Text | Rule::Root | Rule::Extra),
            _ => rule == Rule::Search && own == actives,
        };
        is_rule_plain && matches!(self.form, Form::Plain)
    }
}

/// What an open object or array is.
pub(crate) enum Form {
    Plain,
    /// A JSON Patch, or a list of objects.
    Patch,
    /// An operation of a JSON Patch; the site's places are those behind its pointer.
    Operation(Rule),
    /// A name and a value.
    Pair {
        is_secretive: bool,
    },
    /// The words of a command.
    Command(Words),
}

/// A walk through one text.
pub(crate) struct Walker<'w> {
    pub(crate) redactor: &'w Redactor,
    pub(crate) text: &'w [u8],
    /// Where the member at hand ends, or the text.
    pub(crate) reach: usize,
    pub(crate) subject: Subject<'w>,
    /// In how many strings the text stands.
    pub(crate) depth: u8,
    /// Bytes that were read once more because an object turned out to be another.
    pub(crate) reread: usize,
    pub(crate) edits: Vec<Edit>,
    /// Values of the event that could not be read.
    pub(crate) unreadable: u32,
    pub(crate) actives: Vec<Active>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) spans: Spans,
    pub(crate) hints: Hints,
    /// Members of events that were found harmless.
    pub(crate) harmless: Harmless,
}

/// What a walker leaves for the next: room, and members of events that were found harmless.
#[derive(Default)]
pub(crate) struct Leftovers {
    pub(crate) edits: Vec<Edit>,
    actives: Vec<Active>,
    frames: Vec<Frame>,
    spans: Spans,
    hints: Hints,
    harmless: Harmless,
}

impl<'w> Walker<'w> {
    /// Begins at depth 0.
    pub(crate) fn new(
        redactor: &'w Redactor,
        text: &'w [u8],
        subject: Subject<'w>,
        leftovers: Leftovers,
    ) -> Walker<'w> {
        let Leftovers { mut edits, mut actives, mut frames, spans, mut hints, harmless } =
            leftovers;
        edits.clear();
        actives.clear();
        frames.clear();
        hints.forget();
        Walker {
            redactor,
            text,
            reach: text.len(),
            subject,
            depth: 0,
            reread: 0,
            edits,
            unreadable: 0,
            actives,
            frames,
            spans,
            hints,
            harmless,
        }
    }

    /// What the next can use, with the edits of this one.
    pub(crate) fn finish(self) -> Leftovers {
        let Walker { edits, actives, frames, spans, hints, harmless, .. } = self;
        Leftovers { edits, actives, frames, spans, hints, harmless }
    }

    /// Whether something between two offsets around strings without escapes may be a credential by
    /// itself.
    #[inline]
    pub(crate) fn is_suspicious(&mut self, start: usize, end: usize) -> bool {
        end - start >= LENGTH_MIN && self.hints.may_be_in(self.text, (start, end), self.reach)
    }

    /// Walks the value at `at`; returns the offset behind it.
    pub(crate) fn walk(&mut self, at: usize, site: Site) -> Result<usize, Broken> {
        let mut at = self.value(at, None, site)?;
        while let Some(frame) = self.frames.last() {
            let is_plain = frame.is_plain(self.actives.len());
            at = if is_plain { self.pass_plain(at)? } else { self.step(at)? };
        }
        Ok(at)
    }

    /// One member, element or closing bracket of the innermost frame.
    pub(crate) fn step(&mut self, at: usize) -> Result<usize, Broken> {
        let text = self.text;
        let mut at = skip_blank(text, at);
        let frame = self.frames.last_mut().ok_or(Broken)?;
        let byte = *text.get(at).ok_or(Broken)?;
        let is_first = std::mem::replace(&mut frame.is_empty, false);
        if byte == frame.close {
            self.actives.truncate(frame.site.actives);
            self.frames.pop();
            return Ok(at + 1);
        }
        if !is_first {
            if byte != b',' {
                return Err(Broken);
            }
            at = skip_blank(text, at + 1);
        }
        if frame.close == b']' {
            let site = self.child(None);
            return self.value(at, None, site);
        }
        let (key, at) = self.key(at)?;
        if let Some((start, site)) = self.revealed(&key, at)? {
            return self.open(start, None, site);
        }
        let site = self.child(Some(&key));
        self.value(at, Some(&key), site)
    }

    /// Reads a key and the colon behind it; returns it and where its value starts.
    pub(crate) fn key(&self, at: usize) -> Result<(Cow<'w, [u8]>, usize), Broken> {
        let (inner, is_escaped, value) = self.raw_key(at)?;
        let key = if is_escaped { Decoded::json(inner).bytes } else { Cow::Borrowed(inner) };
        Ok((key, value))
    }

    /// The same as it stands, and whether it has escapes.
    #[inline]
    pub(crate) fn raw_key(&self, at: usize) -> Result<(&'w [u8], bool, usize), Broken> {
        let text = self.text;
        if text.get(at) != Some(&b'"') {
            return Err(Broken);
        }
        let (end, is_escaped) = skip_string(text, at).map_err(|_| Broken)?;
        let colon = skip_blank(text, end);
        if text.get(colon) != Some(&b':') {
            return Err(Broken);
        }
        Ok((&text[at + 1..end - 1], is_escaped, skip_blank(text, colon + 1)))
    }

    /// Looks at a value; of an object or array at the opening bracket, which becomes a frame.
    fn value(&mut self, at: usize, key: Option<&[u8]>, site: Site) -> Result<usize, Broken> {
        let end = match self.text.get(at) {
            Some(b'"') => {
                let (end, is_escaped) = skip_string(self.text, at).map_err(|_| Broken)?;
                self.string(at, end, is_escaped, key, site);
                end
            }
            Some(b'{' | b'[') => return self.open(at, key, site),
            Some(first) => {
                let end = scalar_end(self.text, at).ok_or(Broken)?;
                let is_number = matches!(first, b'-' | b'0'..=b'9');
                let is_secret = match site.rule {
                    Rule::Whole | Rule::Each | Rule::PairValue { is_secretive: true } => true,
                    Rule::Leaves => is_number,
                    _ => is_number && site.is_named(key),
                };
                if is_secret && *first != b'n' {
                    self.replace(at, end);
                }
                end
            }
            None => return Err(Broken),
        };
        self.actives.truncate(site.actives);
        Ok(end)
    }

    fn open(&mut self, at: usize, key: Option<&[u8]>, site: Site) -> Result<usize, Broken> {
        let is_object = self.text[at] == b'{';
        let mut site = site;
        let mut form = Form::Plain;
        if site.is_named(key) {
            match is_object {
                true => form = Form::Pair { is_secretive: true },
                false => site.rule = Rule::Leaves,
            }
        }
        match site.rule {
            Rule::Keep => return self.pass(at, site, false),
            Rule::Whole | Rule::Arg | Rule::PairValue { .. } => return self.pass(at, site, true),
            Rule::Root => match self.root(at, site) {
                Some(inner) => {
                    let is_element =
                        self.frames.last().is_some_and(|outer| matches!(outer.form, Form::Patch));
                    site = inner;
                    if !is_object {
                        form = Form::Patch;
                    } else if is_element && let Some(rule) = self.operation(at, site) {
                        form = Form::Operation(rule);
                    }
                }
                None => return self.pass(at, site, true),
            },
            Rule::Pair if is_object => form = Form::Pair { is_secretive: self.names_secret(at) },
            Rule::Parameter if is_object => {
                site.rule = Rule::Search;
                if self.names_secret(at) {
                    form = Form::Pair { is_secretive: true };
                }
            }
            Rule::Args if !is_object => form = Form::Command(Words::new(key == Some(b"command"))),
            _ => {}
        }
        let close = if is_object { b'}' } else { b']' };
        self.frames.push(Frame::new(site, form, close, at));
        Ok(at + 1)
    }

    /// Whether the name of the pair at `at` says that its value is a credential, or there is none.
    fn names_secret(&self, at: usize) -> bool {
        let end = self.text.len().min(at + PAIR_BYTES_MAX);
        let pair = Value::of(&self.text[at..end]);
        let name = pair.members().find(|(key, _)| key == "name");
        let name = name.and_then(|(_, name)| name.text());
        name.is_none_or(|name| is_secretive(name.as_bytes()))
    }

    /// Passes over an object or array, and replaces it if so told.
    fn pass(&mut self, at: usize, site: Site, replaces: bool) -> Result<usize, Broken> {
        let end = end_of(self.text, at).ok_or(Broken)?;
        if replaces {
            self.replace(at, end);
        }
        self.actives.truncate(site.actives);
        Ok(end)
    }
}

/// The end of the value that starts at `at`, however deep it is.
pub(crate) fn end_of(text: &[u8], at: usize) -> Option<usize> {
    match skip_value(text, at) {
        Ok(end) => return Some(end),
        Err(Stop::Depth(_)) => {}
        Err(Stop::End | Stop::Syntax(_)) => return None,
    }
    let mut depth = 0usize;
    let mut index = at;
    loop {
        match text.get(index)? {
            b'"' => {
                index = skip_string(text, index).ok()?.0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(index + 1),
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        index += 1;
    }
}

/// The end of a number or word, also where the text ends with it.
pub(crate) fn scalar_end(text: &[u8], at: usize) -> Option<usize> {
    match skip_value(text, at) {
        Ok(end) => Some(end),
        Err(_) => {
            let is_scalar = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
            let is_last = text[at..].iter().all(is_scalar);
            (is_last && serde_json::from_slice::<serde_json::Number>(&text[at..]).is_ok())
                .then_some(text.len())
        }
    }
}
