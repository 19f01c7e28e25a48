//! Conditions compiled together: one table of fields, one list of predicates shared by all, one
//! expression a condition. A predicate is decided at most once an event.

use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::engine::field::{FieldId, FieldTable, Source};
use crate::engine::matcher::FieldMatcher;
use crate::engine::memo::Memo;
use crate::engine::predicate::{Check, Predicate, PredicateId};
use crate::engine::values::{Item, Subject, Values};
use crate::event::value::{Type, Value};

/// Scratch space beyond this is given back after the event that needed it.
pub const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// A boolean expression over predicates.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Every part holds.
    And(Arc<[Expression]>),
    /// Some part holds.
    Or(Arc<[Expression]>),
    /// The part does not hold.
    Not(Arc<Expression>),
    /// A search identifier, kept for explanations.
    Named(Arc<str>, Arc<Expression>),
    /// A predicate.
    Predicate(PredicateId),
}

impl Expression {
    /// Hands over every predicate that is named, some perhaps more than once.
    pub fn each_predicate(&self, take: &mut dyn FnMut(PredicateId)) {
        match self {
            Expression::And(parts) | Expression::Or(parts) => {
                parts.iter().for_each(|part| part.each_predicate(take));
            }
            Expression::Not(part) | Expression::Named(_, part) => part.each_predicate(take),
            Expression::Predicate(id) => take(*id),
        }
    }
}

/// Conditions compiled together.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) fields: FieldTable,
    pub(crate) predicates: Vec<Predicate>,
    pub(crate) labels: Vec<Box<str>>,
    /// Per predicate, cheaper ones of which one holds whenever it does, where there are such.
    pub(crate) necessary: Vec<Box<[PredicateId]>>,
    pub(crate) shared: Vec<FieldMatcher>,
    pub(crate) expressions: Vec<Expression>,
    /// Every predicate asks one value of the element itself.
    pub(crate) is_of_value: bool,
}

/// What is known of a predicate for the event at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Unknown,
    Holds,
    Fails,
}

/// The states of blocks on elements.
pub type Blocks = FxHashMap<PredicateId, Box<State>>;

/// The state of evaluating one event; reused for the next.
#[derive(Debug)]
pub struct State {
    /// The values found so far.
    pub values: Values,
    truth: Vec<Truth>,
    decided: Vec<PredicateId>,
    is_shared: Vec<bool>,
    shared: Vec<FieldId>,
    buffer: Vec<u8>,
    /// Per field, the text predicates that hold for a value.
    memos: Vec<Memo<Box<[PredicateId]>>>,
    /// Per predicate that is decided by itself, whether it holds for a value.
    checked: FxHashMap<PredicateId, Memo<bool>>,
    /// The states of the blocks that were evaluated, kept for the next event.
    pub blocks: Blocks,
}

impl State {
    /// Forgets the last event.
    #[inline]
    pub fn clear(&mut self) {
        self.values.clear();
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
        for id in self.decided.drain(..) {
            self.truth[id.0 as usize] = Truth::Unknown;
        }
        for field in self.shared.drain(..) {
            self.is_shared[field.0 as usize] = false;
        }
    }

    /// The predicates decided so far.
    pub fn decided(&self) -> &[PredicateId] {
        &self.decided
    }

    /// Whether a predicate is known to hold.
    #[inline]
    pub fn holds(&self, id: PredicateId) -> bool {
        self.truth[id.0 as usize] == Truth::Holds
    }

    fn set(&mut self, id: PredicateId, holds: bool) {
        self.truth[id.0 as usize] = if holds { Truth::Holds } else { Truth::Fails };
        self.decided.push(id);
    }
}

/// Notes predicates that hold.
fn hitting<'t>(
    truth: &'t mut [Truth],
    decided: &'t mut Vec<PredicateId>,
) -> impl FnMut(PredicateId) + 't {
    |id| {
        let truth = &mut truth[id.0 as usize];
        if *truth == Truth::Unknown {
            *truth = Truth::Holds;
            decided.push(id);
        }
    }
}

/// Whether keywords are looked for in an event as it is written: it has no escapes that could hide
/// one or look like a part of one, or is too long to be copied for them.
fn is_read_as_written(raw: &[u8], has_escapable: bool) -> bool {
    if raw.len() > BUFFER_KEPT_BYTES {
        return true;
    }
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', raw.get(at..).unwrap_or_default()) {
        // What stands for itself behind a backslash is no letter of a keyword without any.
        if has_escapable || !matches!(raw.get(at + found + 1), Some(b'"' | b'\\')) {
            return false;
        }
        at += found + 2;
    }
    true
}

impl Program {
    /// Fresh state for a thread.
    pub fn state(&self, proxies: &[IpNet]) -> State {
        State {
            values: Values::new(&self.fields, proxies),
            truth: vec![Truth::Unknown; self.predicates.len()],
            decided: Vec::new(),
            is_shared: vec![false; self.fields.len()],
            shared: Vec::new(),
            buffer: Vec::new(),
            memos: vec![Memo::default(); self.fields.len()],
            checked: FxHashMap::default(),
            blocks: FxHashMap::default(),
        }
    }

    /// The fields.
    pub fn fields(&self) -> &FieldTable {
        &self.fields
    }

    /// A predicate.
    pub fn predicate(&self, id: PredicateId) -> &Predicate {
        &self.predicates[id.0 as usize]
    }

    /// The matcher of a field's text predicates.
    pub fn matcher(&self, field: FieldId) -> &FieldMatcher {
        &self.shared[field.0 as usize]
    }

    /// How many predicates there are.
    pub fn predicates(&self) -> usize {
        self.predicates.len()
    }

    /// Cheaper predicates of which one holds whenever this one does, where there are such.
    pub fn necessary(&self, id: PredicateId) -> &[PredicateId] {
        &self.necessary[id.0 as usize]
    }

    /// Whether a predicate can hold where this tells which of its [`Program::necessary`] do.
    pub fn is_possible(&self, id: PredicateId, holds: impl FnMut(PredicateId) -> bool) -> bool {
        let necessary = self.necessary(id);
        necessary.is_empty() || necessary.iter().copied().any(holds)
    }

    /// What a predicate asks, for people: `endswith ":default"`.
    pub fn label(&self, id: PredicateId) -> &str {
        &self.labels[id.0 as usize]
    }

    /// The expressions in the order in which their conditions were added.
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// Whether an expression holds for the subject.
    pub fn holds(&self, expression: &Expression, state: &mut State, subject: Subject<'_>) -> bool {
        match expression {
            Expression::And(parts) => parts.iter().all(|part| self.holds(part, state, subject)),
            Expression::Or(parts) => parts.iter().any(|part| self.holds(part, state, subject)),
            Expression::Not(part) => !self.holds(part, state, subject),
            Expression::Named(_, part) => self.holds(part, state, subject),
            Expression::Predicate(id) => self.test(*id, state, subject),
        }
    }

    /// Decides a predicate.
    #[inline]
    pub fn test(&self, id: PredicateId, state: &mut State, subject: Subject<'_>) -> bool {
        match state.truth[id.0 as usize] {
            Truth::Holds => true,
            Truth::Fails => false,
            Truth::Unknown => self.decide(id, state, subject),
        }
    }

    fn decide(&self, id: PredicateId, state: &mut State, subject: Subject<'_>) -> bool {
        let Predicate { field, check } = &self.predicates[id.0 as usize];
        if FieldMatcher::decides(check) {
            self.share(*field, state, subject);
            return state.truth[id.0 as usize] == Truth::Holds;
        }
        if !self.is_possible(id, |necessary| self.test(necessary, state, subject)) {
            state.set(id, false);
            return false;
        }
        state.values.find(&self.fields, subject, *field);
        if let Check::FieldRef(other, ..) = check {
            state.values.find(&self.fields, subject, *other);
        }
        let holds = match check {
            Check::Elements(..) => {
                let State { values, blocks, .. } = state;
                self.holds_on_elements(id, values.items(*field, subject.raw()), blocks)
            }
            Check::Regex(_) | Check::Wildcard { .. } => {
                let memo = state.checked.entry(id).or_default();
                state.values.items(*field, subject.raw()).any(|item| memo.check(check, &item))
            }
            check => check.holds(*field, &state.values, subject),
        };
        state.set(id, holds);
        holds
    }

    /// Whether a condition on elements holds for these, which need not be found before.
    pub fn holds_on_elements<'v>(
        &self,
        id: PredicateId,
        items: impl Iterator<Item = Item<'v>>,
        blocks: &mut Blocks,
    ) -> bool {
        let Check::Elements(quantifier, block) = &self.predicate(id).check else { return false };
        let inner = blocks.entry(id).or_insert_with(|| Box::new(block.state(&[])));
        quantifier.holds(items, &mut |item| block.holds_on_element(&item, inner))
    }

    /// Decides all text predicates of a field at once.
    #[inline]
    pub fn share(&self, field: FieldId, state: &mut State, subject: Subject<'_>) {
        if state.is_shared[field.0 as usize] {
            return;
        }
        state.is_shared[field.0 as usize] = true;
        state.shared.push(field);
        let is_whole = self.fields.source(field) == Source::Whole;
        let has_escapable = self.shared[field.0 as usize].has_escapable();
        if is_whole && is_read_as_written(subject.raw(), has_escapable) {
            return self.share_whole(field, state, subject.raw());
        }
        if let Some(slot) = self.fields.only_slot(field)
            && let Subject::Audit(event) = subject
        {
            return self.share_slot(field, event.slot(slot), state, subject);
        }
        state.values.find(&self.fields, subject, field);
        let State { values, truth, decided, buffer, memos, .. } = state;
        let matcher = &self.shared[field.0 as usize];
        let memo = &mut memos[field.0 as usize];
        let mut hit = hitting(truth, decided);
        for item in values.items(field, subject.raw()) {
            let key = item.key();
            if !memo.is_on(key) {
                matcher.test(&item, buffer, &mut hit);
            } else if let Some(ids) = memo.get(key) {
                ids.iter().for_each(|id| hit(*id));
            } else {
                let mut ids = Vec::new();
                matcher.test(&item, buffer, &mut |id| ids.push(id));
                ids.iter().for_each(|id| hit(*id));
                memo.insert(key, ids.into());
            }
        }
    }

    /// Decides the text predicates of a field whose values depend on one slot alone: a slot that
    /// was seen before spares reading, computing and spreading them.
    fn share_slot(
        &self,
        field: FieldId,
        slot: Option<Value<'_>>,
        state: &mut State,
        subject: Subject<'_>,
    ) {
        let Some(key) = slot.map(|value| value.raw()) else { return };
        let State { truth, decided, memos, .. } = state;
        let memo = &mut memos[field.0 as usize];
        let is_on = memo.is_on(key);
        if is_on && let Some(ids) = memo.get(key) {
            return ids.iter().for_each(|id| hitting(truth, decided)(*id));
        }
        state.values.find(&self.fields, subject, field);
        let State { values, truth, decided, buffer, memos, .. } = state;
        let matcher = &self.shared[field.0 as usize];
        let mut ids = Vec::new();
        for item in values.items(field, subject.raw()) {
            matcher.test(&item, buffer, &mut |id| ids.push(id));
        }
        ids.iter().for_each(|id| hitting(truth, decided)(*id));
        if is_on {
            memos[field.0 as usize].insert(key, ids.into());
        }
    }

    /// Decides the keywords on the event's bytes as they are.
    fn share_whole(&self, field: FieldId, state: &mut State, raw: &[u8]) {
        let State { truth, decided, buffer, .. } = state;
        self.shared[field.0 as usize].test_whole(raw, buffer, &mut |id| {
            let truth = &mut truth[id.0 as usize];
            if *truth == Truth::Unknown {
                *truth = Truth::Holds;
                decided.push(id);
            }
        });
    }

    /// Whether the program's only expression holds on an element of an array, or on a value that
    /// was computed (`pod.image[any]`), which has no inside but itself.
    pub fn holds_on_element(&self, item: &Item<'_>, state: &mut State) -> bool {
        if self.is_of_value && !item.is_container() {
            let mut expressions = self.expressions.iter();
            return expressions.all(|expression| self.holds_on_value(expression, item));
        }
        let mut holds = false;
        self.with_element(item, state, &mut |subject, state| {
            let mut expressions = self.expressions.iter();
            holds = expressions.all(|expression| self.holds(expression, state, subject));
        });
        holds
    }

    /// Makes an element the subject.
    pub fn with_element(
        &self,
        item: &Item<'_>,
        state: &mut State,
        look: &mut dyn FnMut(Subject<'_>, &mut State),
    ) {
        let made;
        let raw = match item {
            Item::Json(value) => value.raw(),
            Item::Made(text) => {
                made = serde_json::Value::from(*text).to_string();
                made.as_bytes()
            }
        };
        state.clear();
        look(Subject::Json(raw), state);
    }

    /// As [`Program::holds_on_element`], where all that is asked is what the element itself is
    /// (`sourceIPs[0]: '::1'`).
    fn holds_on_value(&self, expression: &Expression, item: &Item<'_>) -> bool {
        match expression {
            Expression::And(parts) => parts.iter().all(|part| self.holds_on_value(part, item)),
            Expression::Or(parts) => parts.iter().any(|part| self.holds_on_value(part, item)),
            Expression::Not(part) => !self.holds_on_value(part, item),
            Expression::Named(_, part) => self.holds_on_value(part, item),
            Expression::Predicate(id) => {
                let holds = |id| self.predicate(id).check.holds_on(item);
                self.is_possible(*id, holds) && holds(*id)
            }
        }
    }

    /// Hands over the values of a field as [`Program::text`] would give them, without allocating
    /// where there is one value and nothing in it is escaped.
    pub fn with_text(
        &self,
        field: FieldId,
        state: &mut State,
        subject: Subject<'_>,
        take: &mut dyn FnMut(Option<&[u8]>),
    ) {
        if let (Source::Slot(slot), Subject::Audit(event)) = (self.fields.source(field), subject) {
            let Some(value) = event.slot(slot) else { return take(None) };
            let plain = value.plain().filter(|_| value.kind() == Type::String);
            if let Some(plain) = plain.filter(|plain| plain.is_ascii()) {
                return take(Some(plain));
            }
        }
        state.values.find(&self.fields, subject, field);
        let mut items = state.values.items(field, subject.raw());
        if let (Some(first), None) = (items.next(), items.next())
            && let Some(plain) = first.plain().filter(|plain| plain.is_ascii())
        {
            return take(Some(plain));
        }
        drop(items);
        let text = self.text(field, state, subject);
        take(text.as_deref().map(str::as_bytes));
    }

    /// The values of a field as one text: a single value as it is, several joined by `,`; `None`
    /// when the field has no scalar value.
    pub fn text(&self, field: FieldId, state: &mut State, subject: Subject<'_>) -> Option<String> {
        state.values.find(&self.fields, subject, field);
        let mut items = state.values.items(field, subject.raw()).filter_map(|item| item.text());
        let mut text = items.next()?.into_owned();
        for more in items {
            text.push(',');
            text.push_str(&more);
        }
        Some(text)
    }
}
