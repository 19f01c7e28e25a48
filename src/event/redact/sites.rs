//! What stands where: the rule for a member, the root of an object, the pointer of a JSON Patch.

use crate::event::json::skip_string;
use crate::event::redact::patterns::is_secretive_member;
use crate::event::redact::places::{Rule, TABLE, below};
use crate::event::redact::scopes::{
    AWS_AUTH, CONFIG_MAP, COREDNS, EMBEDDED, EVENT, OBJECT, Scopes, scopes_of,
};
use crate::event::redact::walk::{Form, Site, Walker};
use crate::event::value::{Type, Value};

/// Objects in lists in lists beyond this are replaced whole: each costs a look for its kind.
const ROOTS_MAX: u8 = 4;

/// Steps of a pointer beyond this lead nowhere known, and what they lead to is replaced.
const POINTER_STEPS_MAX: usize = 1_000;

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

    /// Whether the kind whose value starts at `at` is one that is told apart in whatever object,
    /// and the site does not know of it.
    pub(crate) fn tells_embedded(&self, at: usize, site: Site) -> bool {
        site.scopes & OBJECT != 0 && self.embedded(at) & !site.scopes != 0
    }

    fn embedded(&self, at: usize) -> Scopes {
        if self.text.get(at) != Some(&b'"') {
            return 0;
        }
        let end = skip_string(self.text, at).map_or(at, |(end, _)| end);
        let kind = Value::of(&self.text[at..end]).text();
        kind.map_or(0, |kind| scopes_of(&kind)) & EMBEDDED
    }

    /// An object of such a kind that stands in another, told by the kind at `at`: where it starts,
    /// and as what it is read once more. What was found in it is given up. Mere references to such
    /// objects have a kind, too, but nothing that could be their content.
    pub(crate) fn revealed(&mut self, at: usize) -> Option<(usize, Site)> {
        let frame = self.frames.last()?;
        let is_plain = matches!(frame.form, Form::Plain)
            && matches!(frame.site.rule, Rule::Search | Rule::Text | Rule::Root);
        if !is_plain || !self.tells_embedded(at, frame.site) {
            return None;
        }
        let (start, site) = (frame.start, frame.site);
        let content = ["data", "stringData", "binaryData", "metadata", "items"];
        let mut members = Value::of(&self.text[start..]).members();
        if !members.any(|(key, _)| content.contains(&&*key)) {
            return None;
        }
        let scopes = site.scopes | self.embedded(at);
        self.frames.pop();
        self.actives.truncate(site.actives);
        self.edits.truncate(self.edits.partition_point(|edit| edit.start < start));
        self.hints.forget();
        Some((start, Site { rule: Rule::Root, scopes, ..site }))
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
