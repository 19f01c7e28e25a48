//! What is done with most of a body: members are passed over that no place names and that hold
//! nothing suspicious. The rest is [`Walker::step`]'s, and both come to the same.

use crate::event::json::{skip_blank, skip_string};
use crate::event::redact::patterns::{Class, is_secretive_member};
use crate::event::redact::places::{Rule, TABLE, is_safe_extra};
use crate::event::redact::scopes::OBJECT;
use crate::event::redact::walk::{Broken, Form, Frame, Site, Walker, scalar_end};

impl Walker<'_> {
    /// Goes on in the innermost frame, which is plain, and in those that open in it, up to the end
    /// of that frame or to a member that has to be looked at. Returns where reading goes on.
    pub(crate) fn pass_plain(&mut self, at: usize) -> Result<usize, Broken> {
        let text = self.text;
        let outer = self.frames.len() - 1;
        let Frame { site: outermost, mut close, is_empty: mut is_first, .. } = self.frames[outer];
        // What is reached from the outer frame is not from those in it.
        let within = Site { rule: Rule::Search, actives: self.actives.len(), ..outermost };
        let mut site = outermost;
        let mut at = at;
        loop {
            let start = at;
            at = skip_blank(text, at);
            let byte = *text.get(at).ok_or(Broken)?;
            if byte == close {
                at += 1;
                self.frames.pop();
                if self.frames.len() == outer {
                    self.actives.truncate(outermost.actives);
                    return Ok(at);
                }
                let frame = &self.frames[self.frames.len() - 1];
                (site, close, is_first) = (frame.site, frame.close, false);
                continue;
            }
            if !is_first {
                if byte != b',' {
                    return Err(Broken);
                }
                at = skip_blank(text, at + 1);
            }
            let value = match close {
                b'}' => self.behind_plain_key(at, site)?,
                _ => Some(at),
            };
            let passed = value.and_then(|value| self.behind_plain_scalar(value));
            match (passed, value) {
                (Some(end), _) => (at, is_first) = (end, false),
                (None, Some(value)) if matches!(text.get(value), Some(b'{' | b'[')) => {
                    self.frames.last_mut().ok_or(Broken)?.is_empty = false;
                    close = if text[value] == b'{' { b'}' } else { b']' };
                    site = within;
                    self.frames.push(Frame::new(site, Form::Plain, close, value));
                    (at, is_first) = (value + 1, true);
                }
                _ => {
                    self.frames.last_mut().ok_or(Broken)?.is_empty = is_first;
                    return self.step(start);
                }
            }
        }
    }

    /// Where the value of the member at `at` starts; nothing where its key says something.
    #[inline]
    fn behind_plain_key(&self, at: usize, site: Site) -> Result<Option<usize>, Broken> {
        let (key, is_escaped, value) = self.raw_key(at)?;
        let says = is_escaped
            || site.scopes & OBJECT != 0 && TABLE.may_begin(key)
            || TABLE.may_lead_to(key, &self.actives[site.actives..])
            || site.class == Class::Full && is_secretive_member(key)
            || site.rule == Rule::Extra && !is_safe_extra(key)
            || self.may_reveal(key, value);
        Ok((!says).then_some(value))
    }

    /// Where the string, number or word at `at` ends; nothing where it has to be looked at.
    #[inline]
    fn behind_plain_scalar(&mut self, at: usize) -> Option<usize> {
        match self.text.get(at)? {
            b'"' => {
                let (end, is_escaped) = skip_string(self.text, at).ok()?;
                (!is_escaped && !self.is_suspicious(at + 1, end - 1)).then_some(end)
            }
            b'{' | b'[' => None,
            _ => scalar_end(self.text, at),
        }
    }
}
