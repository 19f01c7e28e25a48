//! What is replaced of a string, by the rule for its place and by what it looks like.

use crate::event::json::skip_blank;
use crate::event::redact::patterns::{Class, find, find_hinted, is_mark, is_plain};
use crate::event::redact::places::{Rule, TABLE};
use crate::event::redact::scopes::{OBJECT, Scopes};
use crate::event::redact::splice::{Decoded, Edit};
use crate::event::redact::texts::{self, Spans, Words};
use crate::event::redact::walk::{EMBEDDED_MAX, Form, Leftovers, Site, Subject, Walker};

/// What AKS writes in place of a body that is too big for it.
const TOO_BIG: &[u8] = b"skipped-too-big-size-object";

impl Walker<'_> {
    /// Looks at the string between the quotes at `at` and before `end`.
    pub(crate) fn string(
        &mut self,
        at: usize,
        end: usize,
        is_escaped: bool,
        key: Option<&[u8]>,
        site: Site,
    ) {
        let inner = &self.text[at + 1..end - 1];
        let Some(first) = inner.first() else { return };
        if *first == b'[' && is_mark(inner) {
            // The next word of a command is no longer what this one was.
            if let (Rule::Arg, Some(words)) = (site.rule, self.words()) {
                words.next(inner, &mut Spans::new());
            }
            return;
        }
        if site.rule == Rule::Keep {
            return;
        }
        let is_replaced = match site.rule {
            Rule::Whole | Rule::Each | Rule::Leaves | Rule::Extra => true,
            Rule::PairValue { is_secretive } => is_secretive || is_escaped || !is_plain(inner),
            Rule::Json(scopes) => !self.document(at, end, scopes, site),
            Rule::Root if site.roots == 0 => {
                inner != TOO_BIG && !self.document(at, end, OBJECT, site)
            }
            Rule::Search | Rule::Text | Rule::Copy => site.is_named(key),
            _ => false,
        };
        // Objects are kept as texts in annotations and fields of their makers' own.
        let may_be_document = is_escaped
            && site.class == Class::Full
            && matches!(site.rule, Rule::Search | Rule::Text | Rule::Copy)
            && starts_document(inner);
        if is_replaced {
            self.replace(at, end);
        } else if may_be_document && self.document(at, end, OBJECT, site) {
            // What was found in it stands among the edits.
        } else if !matches!(site.rule, Rule::PairValue { .. } | Rule::Json(_) | Rule::Root) {
            self.parts(at + 1, inner.len(), is_escaped, site);
        }
    }

    /// Replaces what is secret in the inside of a string.
    fn parts(&mut self, at: usize, length: usize, is_escaped: bool, site: Site) {
        let text = self.text;
        let inner = &text[at..at + length];
        let may_look = is_escaped || self.is_suspicious(at, at + length);
        if matches!(site.rule, Rule::Search | Rule::Text) && !may_look {
            return;
        }
        let decoded = is_escaped.then(|| Decoded::json(inner));
        let plain = decoded.as_ref().map_or(inner, |decoded| &decoded.bytes);
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        match site.rule {
            Rule::Message => texts::message(plain, &mut spans),
            Rule::Url => texts::url(plain, &mut spans),
            Rule::Uri => texts::uri_by(may_look, plain, &mut spans),
            Rule::Arg => match self.words() {
                Some(words) => words.next(plain, &mut spans),
                None => Words::new(false).next(plain, &mut spans),
            },
            _ if is_escaped => find(plain, site.class, &mut spans),
            _ => find_hinted(plain, site.class, &mut spans),
        }
        for &(start, end) in &spans {
            let origin = |offset| at + decoded.as_ref().map_or(offset, |d| d.origin(offset));
            self.edits.push(Edit {
                start: origin(start),
                end: origin(end),
                fingerprint: self.redactor.fingerprint(&plain[start..end]),
                quotes: None,
            });
        }
        self.spans = spans;
    }

    /// The words of the command that is the innermost frame.
    fn words(&mut self) -> Option<&mut Words> {
        match &mut self.frames.last_mut()?.form {
            Form::Command(words) => Some(words),
            _ => None,
        }
    }

    /// Replaces the value between two offsets.
    pub(crate) fn replace(&mut self, start: usize, end: usize) {
        let value = &self.text[start..end];
        let fingerprint = match value {
            [b'"', inner @ .., b'"'] => self.redactor.fingerprint(&Decoded::json(inner).bytes),
            _ => self.redactor.fingerprint(value),
        };
        self.edits.push(Edit { start, end, fingerprint, quotes: Some(0) });
    }

    /// Walks the JSON document in a string; false where there is none.
    fn document(&mut self, at: usize, end: usize, scopes: Scopes, site: Site) -> bool {
        if self.depth >= EMBEDDED_MAX {
            return false;
        }
        let decoded = Decoded::json(&self.text[at + 1..end - 1]);
        let text: &[u8] = &decoded.bytes;
        let start = skip_blank(text, 0);
        if !matches!(text.get(start), Some(b'{' | b'[')) {
            return false;
        }
        // Of a text that merely looks like an object it is not known what it is about.
        let is_about = !matches!(site.rule, Rule::Search | Rule::Text);
        let scopes_about = if is_about { self.subject.scopes } else { 0 };
        let subject = Subject { scopes: scopes_about, ..self.subject };
        let mut walker = Walker::new(self.redactor, text, subject, Leftovers::default());
        walker.depth = self.depth + 1;
        let mut inner = Site { class: Class::Full, actives: 0, ..site };
        if scopes & OBJECT != 0 {
            inner.rule = Rule::Root;
        } else {
            inner.rule = Rule::Search;
            inner.scopes = scopes;
            TABLE.begin(scopes, &mut walker.actives);
        }
        match walker.walk(start, inner) {
            Ok(behind) if skip_blank(text, behind) == text.len() => {
                self.edits.extend(walker.edits.iter().map(|edit| Edit {
                    start: at + 1 + decoded.origin(edit.start),
                    end: at + 1 + decoded.origin(edit.end),
                    quotes: edit.quotes.map(|depth| depth + 1),
                    ..*edit
                }));
                true
            }
            // What could not be looked through must not pass for what holds nothing.
            Err(_) if walker.reread > 0 => {
                self.replace(at, end);
                true
            }
            _ => false,
        }
    }
}

/// Whether the inside of a string starts as a JSON document does, behind blanks and line breaks.
fn starts_document(inner: &[u8]) -> bool {
    let mut rest = inner.trim_ascii_start();
    while let [b'\\', b'n' | b't' | b'r', behind @ ..] = rest {
        rest = behind.trim_ascii_start();
    }
    matches!(rest.first(), Some(b'{' | b'['))
}
