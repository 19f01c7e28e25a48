//! The members of an event itself. Each is by itself: one that cannot be read is replaced whole.
//! Most stand where kube-apiserver writes them, and many were there in events before.

use std::sync::LazyLock;

use crate::event::json::skip_blank;
use crate::event::redact::patterns::{Class, LENGTH_MIN, is_mark};
use crate::event::redact::places::{Active, Rule, TABLE};
use crate::event::redact::scopes::{EVENT, SECRET, STRICT, Scopes};
use crate::event::redact::walk::{Site, Walker, end_of};
use crate::event::{Event, Slot};

/// Longer strings by themselves, with their quotes, are names and times; shorter ones are words
/// such as a verb or a stage.
const WORD_BYTES_MAX: usize = 20;

/// What the table says of the value in a slot.
struct Known {
    rule: Rule,
    /// The places that can be reached below it.
    actives: Vec<Active>,
}

/// By slot; of those inside of another nobody asks.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let known = |(_, path): &(Slot, &str)| {
        let mut actives = Vec::new();
        TABLE.begin(EVENT, &mut actives);
        let rule = rule_of(path.as_bytes(), &mut actives);
        Known { rule, actives: actives.split_off(1) }
    };
    Slot::ALL.iter().map(known).collect()
});

/// The rule of a member of the event; what can be reached below it goes to `actives`, where the
/// event's own place is the first.
fn rule_of(key: &[u8], actives: &mut Vec<Active>) -> Rule {
    TABLE.step(EVENT, Some(key), (0, 1), actives).unwrap_or(Rule::Search)
}

/// A member: where its key and its value start, and where that ends, if it does.
struct Member {
    key: usize,
    value: usize,
    end: Option<usize>,
    site: Site,
}

impl<'w> Walker<'w> {
    /// Walks an event. What follows a value without end goes with it.
    pub(crate) fn event(&mut self, event: &'w Event<'w>) {
        TABLE.begin(EVENT, &mut self.actives);
        let at = self.members(event);
        let rest = &self.text[at..];
        let is_done = matches!(rest, [b'"', inner @ .., b'"'] if is_mark(inner.trim_ascii()));
        if !rest.is_empty() && !is_done {
            self.unreadable += 1;
            self.replace(at, self.text.len());
        }
    }

    /// The members of the event; returns where reading ends, or cannot go on.
    fn members(&mut self, event: &Event<'_>) -> usize {
        let text = self.text;
        let mut slot = 0;
        let mut at = skip_blank(text, 0);
        if text.get(at) != Some(&b'{') {
            return at;
        }
        at = skip_blank(text, at + 1);
        if text.get(at) == Some(&b'}') {
            return skip_blank(text, at + 1);
        }
        loop {
            let Some(member) = self.member_at(at, event, &mut slot) else { return at };
            let Some(end) = self.member(&member) else { return member.value };
            self.actives.truncate(member.site.actives);
            at = skip_blank(text, end);
            match text.get(at) {
                Some(b',') => at = skip_blank(text, at + 1),
                Some(b'}') => return skip_blank(text, at + 1),
                _ => return at,
            }
        }
    }

    /// The member whose key starts at `at`. Where a value ends of which the scan knows, the walk
    /// need not find it out.
    #[inline]
    fn member_at(&mut self, at: usize, event: &Event<'_>, slot: &mut usize) -> Option<Member> {
        let actives = self.actives.len();
        let (rule, value, end, is_own) = match event.expected_member(at, slot) {
            Some((slot, (start, end))) => {
                let known = &KNOWN[slot as usize];
                self.actives.extend_from_slice(&known.actives);
                (known.rule, start, Some(end), true)
            }
            None => {
                let (key, value) = self.key(at).ok()?;
                let rule = rule_of(&key, &mut self.actives);
                let end = event.end_of_value(value, slot);
                match (rule, self.text.get(value)) {
                    // What no event has may hold what the body of one does, also as a text: log
                    // shippers keep the line beside what they read in it.
                    (Rule::Search, first) if self.is_foreign(&key, actives) => match first {
                        Some(b'{' | b'[') => (Rule::Body, value, end, false),
                        Some(b'"') => (Rule::Copy, value, end, false),
                        _ => (rule, value, end, false),
                    },
                    _ => (rule, value, end, true),
                }
            }
        };
        let class = match rule {
            Rule::Body | Rule::Text | Rule::Copy => Class::Full,
            _ => Class::Strong,
        };
        // A body may be long, and is read to its end anyhow.
        let end = end.or_else(|| (rule != Rule::Body).then(|| end_of(self.text, value))?);
        let scopes = if is_own && rule == Rule::Body { EVENT | STRICT } else { EVENT };
        let site = Site { rule, class, scopes, roots: 0, actives };
        Some(Member { key: at, value, end, site })
    }

    /// Whether a member is no part of an event.
    fn is_foreign(&self, key: &[u8], actives: usize) -> bool {
        self.actives.len() == actives && !Slot::ALL.iter().any(|(_, path)| path.as_bytes() == key)
    }

    /// Looks at one member; returns where it ends, if it does.
    fn member(&mut self, member: &Member) -> Option<usize> {
        let Member { key, value: at, site, .. } = *member;
        self.reach = member.end.unwrap_or(self.text.len());
        let Some(end) = member.end.filter(|_| site.rule != Rule::Body) else {
            return self.walked(at, site);
        };
        // In what is bare nothing is secret by its place.
        let is_bare = site.rule == Rule::Search && self.actives.len() == site.actives;
        let is_word = self.text[at] == b'"';
        if is_bare && is_word && end - at < LENGTH_MIN {
            return Some(end);
        }
        // Who asks, from where and what it was allowed repeats from event to event; names and times
        // do not.
        let may_repeat = !is_bare || !is_word || end - at <= WORD_BYTES_MAX;
        if may_repeat && self.harmless.has(&self.text[key..end]) {
            return Some(end);
        }
        let is_escaped = memchr::memchr(b'\\', &self.text[at..end]).is_some();
        let edits = self.edits.len();
        let behind = match is_bare && !is_escaped && !self.is_suspicious(at, end) {
            true => end,
            false => self.walked(at, site)?,
        };
        // What is escaped may be a document, and that depends on the object of the request.
        if may_repeat && !is_escaped && self.edits.len() == edits {
            self.harmless.add(&self.text[key..end]);
        }
        Some(behind)
    }

    /// The scopes of a body: of what is no member of an event only a part may be the object.
    fn body_scopes(&self, site: Site) -> Scopes {
        let scopes = self.subject.scopes;
        scopes | if scopes & SECRET != 0 { site.scopes & STRICT } else { 0 }
    }

    /// Walks one value of the event; what cannot be read is replaced whole.
    fn walked(&mut self, at: usize, site: Site) -> Option<usize> {
        let edits = self.edits.len();
        let site = match site.rule {
            Rule::Body => Site { rule: Rule::Root, scopes: self.body_scopes(site), ..site },
            _ => site,
        };
        if let Ok(end) = self.walk(at, site) {
            return Some(end);
        }
        self.edits.truncate(edits);
        self.frames.clear();
        let end = end_of(self.text, at)?;
        self.unreadable += 1;
        self.replace(at, end);
        Some(end)
    }
}
