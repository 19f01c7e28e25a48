//! What stands where: the rule for a member, the root of an object, the pointer of a JSON Patch.

use crate::event::json::skip_string;
use crate::event::redact::patterns::is_secretive_member;
use crate::event::redact::places::{Rule, TABLE, below};
use crate::event::redact::scopes::{
    AWS_AUTH, CONFIG_MAP, COREDNS, EMBEDDED, EVENT, OBJECT, Scopes, scopes_of,
};
use crate::event::redact::walk::{Broken, Form, Site, Walker};
use crate::event::value::{Type, Value};

/// Objects in lists in lists beyond this are replaced whole: each costs a look for its kind.
const ROOTS_MAX: u8 = 4;

/// Steps of a pointer beyond this lead nowhere known, and what they lead to is replaced.
const POINTER_STEPS_MAX: usize = 1_000;

/// Of a text so many times its length may be read once more, and as much of a short one.
const REREAD_TIMES: usize = 4;
const REREAD_MIN: usize = 4 << 10;

/// Whether a member of this name could be the content of a Secret or config map, however spelt.
fn is_content(key: &[u8]) -> bool {
    let is_data =
        key.len().checked_sub(4).is_some_and(|at| key[at..].eq_ignore_ascii_case(b"data"));
    is_data || matches!(key, b"items" | b"spec")
}

impl Walker<'_> {
    /// The site of a member or element of the innermost frame.
    pub(crate) fn child(&mut self, key: Option<&[u8]>) -> Site {
        let to = self.actives.len();
        let frame = self.frames.last().expect("a child stands in a frame");
        let from = frame.site.actives;
        let site = Site { actives: to, ..frame.site };
        match frame.form {
            Form::Patch => return Site { rule: Rule::Root, ..site },
            Form::Operation(rule) if key == Some(b"value") => {
                self.actives.extend_from_within(from..to);
                return Site { rule, ..site };
            }
            Form::Operation(_) => return Site { rule: Rule::Search, ..site },
            Form::Pair { is_secretive } if key == Some(b"value") => {
                return Site { rule: Rule::PairValue { is_secretive }, ..site };
            }
            Form::Plain | Form::Pair { .. } | Form::Command(_) => {}
        }
        let rule = TABLE.step(site.scopes, key, (from, to), &mut self.actives);
        Site { rule: rule.unwrap_or_else(|| below(frame.site.rule, key)), ..site }
    }

    /// The site of an object or JSON Patch that starts at `at`; `None` where objects stand in
    /// objects deeper than is looked.
    pub(crate) fn root(&mut self, at: usize, site: Site) -> Option<Site> {
        if site.roots >= ROOTS_MAX {
            return None;
        }
        let object = Value::of(&self.text[at..]);
        let kind =
            object.members().find(|(key, _)| key == "kind").and_then(|(_, kind)| kind.text());
        let mut scopes = (site.scopes | self.subject.scopes | OBJECT) & !EVENT;
        scopes |= kind.map_or(0, |kind| scopes_of(&kind));
        if scopes & CONFIG_MAP != 0 {
            scopes = scopes & !(COREDNS | AWS_AUTH) | self.readable_map(object);
        }
        self.actives.truncate(site.actives);
        TABLE.begin(scopes, &mut self.actives);
        Some(Site { scopes, roots: site.roots + 1, ..site })
    }

    /// Whether the member of this key may say that the innermost object is of a kind that is told
    /// apart anywhere; false is certain.
    #[inline]
    pub(crate) fn may_reveal(&self, key: &[u8], value: usize) -> bool {
        match is_content(key) {
            true => self.frames.last().is_some_and(|frame| !frame.has_content),
            false => key == b"kind" && self.embedded(value) != 0,
        }
    }

    /// The kind whose name starts at `at`, if it is one of those.
    fn embedded(&self, at: usize) -> Scopes {
        if self.text.get(at) != Some(&b'"') {
            return 0;
        }
        let end = skip_string(self.text, at).map_or(at, |(end, _)| end);
        let kind = Value::of(&self.text[at..end]).text();
        kind.map_or(0, |kind| scopes_of(&kind)) & EMBEDDED
    }

    /// An object of such a kind that stands in another, once both its kind and something that could
    /// be its content were met: where it starts, and as what it is read once more. What was found
    /// in it is given up. Mere references have a kind, too, but no content.
    ///
    /// # Errors
    /// Too much was read more than once: who nests such objects in each other hides something.
    pub(crate) fn revealed(
        &mut self,
        key: &[u8],
        at: usize,
    ) -> Result<Option<(usize, Site)>, Broken> {
        let told = if key == b"kind" { self.embedded(at) } else { 0 };
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        frame.told |= told;
        frame.has_content |= is_content(key);
        let site = frame.site;
        let may_be = !matches!(frame.form, Form::Patch | Form::Operation(_))
            && !matches!(site.rule, Rule::Leaves | Rule::Each | Rule::Whole | Rule::Extra);
        let is_news = frame.told & !site.scopes != 0 && site.scopes & OBJECT != 0;
        if !may_be || !is_news || !frame.has_content {
            return Ok(None);
        }
        let (start, scopes) = (frame.start, site.scopes | frame.told);
        self.reread += at - start;
        if self.reread > REREAD_MIN.max(self.text.len().saturating_mul(REREAD_TIMES)) {
            return Err(Broken);
        }
        self.frames.pop();
        self.actives.truncate(site.actives);
        self.edits.truncate(self.edits.partition_point(|edit| edit.start < start));
        self.hints.forget();
        Ok(Some((start, Site { rule: Rule::Root, scopes, ..site })))
    }

    /// The scope of a config map that rules and people read, else none.
    fn readable_map(&self, object: Value<'_>) -> Scopes {
        let metadata = object.members().find(|(key, _)| key == "metadata").map(|(_, value)| value);
        let text = |key: &str| metadata.and_then(|object| object.member(key)?.text());
        let namespace = text("namespace");
        if namespace.as_deref().unwrap_or(self.subject.namespace) != "kube-system" {
            return 0;
        }
        match text("name").as_deref().unwrap_or(self.subject.name) {
            "coredns" => COREDNS,
            "aws-auth" => AWS_AUTH,
            _ => 0,
        }
    }

    /// What the operation of a JSON Patch at `at` does with its value; `None` where the object is
    /// no operation. The places behind its pointer replace the site's own in `actives`.
    pub(crate) fn operation(&mut self, at: usize, site: Site) -> Option<Rule> {
        let object = Value::of(&self.text[at..]);
        object.members().find(|(key, _)| matches!(&**key, "op" | "value"))?;
        let pointer = object.member("path").filter(|path| path.kind() == Type::String)?.text()?;
        if !pointer.starts_with('/') {
            return Some(if pointer.is_empty() { Rule::Root } else { Rule::Leaves });
        }
        // An empty step names no member of any object, whatever it was meant for.
        let path = pointer.trim_start_matches('/');
        if path.split('/').count() > POINTER_STEPS_MAX {
            return Some(Rule::Whole);
        }
        let mut rule = Rule::Search;
        let mut is_secretive = false;
        for step in path.split('/') {
            let key = step.replace("~1", "/").replace("~0", "~");
            let to = self.actives.len();
            let range = (site.actives, to);
            let mut found = TABLE.step(site.scopes, Some(key.as_bytes()), range, &mut self.actives);
            // A number may be an index or a key.
            let is_index = key == "-" || key.bytes().all(|byte| byte.is_ascii_digit());
            if is_index {
                let element = TABLE.step(site.scopes, None, range, &mut self.actives);
                found = found.or(element);
            }
            self.actives.drain(site.actives..to);
            rule = found.unwrap_or_else(|| below(rule, (!is_index).then_some(key.as_bytes())));
            is_secretive = is_secretive_member(key.as_bytes());
        }
        Some(if is_secretive && rule == Rule::Search { Rule::Leaves } else { rule })
    }
}
