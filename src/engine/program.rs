//! Conditions compiled together: one table of fields, one list of predicates shared by all, one
//! expression a condition. A predicate is decided at most once an event.

use std::sync::Arc;

use ipnet::IpNet;
use regex::RegexBuilder;
use rustc_hash::FxHashMap;

use crate::engine::Error;
use crate::engine::cost;
use crate::engine::field::{FieldId, FieldTable, Shape, Source};
use crate::engine::matcher::FieldMatcher;
use crate::engine::memo::Memo;
use crate::engine::predicate::{Check, Predicate, PredicateId};
use crate::engine::values::{Item, Subject, Values};
use crate::rule::{Condition, Matcher, Place, Test};

/// The compiled size that one regular expression may have, in bytes; the `regex` crate's own
/// default is ten times as much. Matching is linear in the text whatever the expression.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Scratch space beyond this is given back after the event that needed it.
pub const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// A boolean expression over predicates.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Every part holds.
    And(Box<[Expression]>),
    /// Some part holds.
    Or(Box<[Expression]>),
    /// The part does not hold.
    Not(Box<Expression>),
    /// A search identifier, kept for explanations.
    Named(Arc<str>, Box<Expression>),
    /// A predicate.
    Predicate(PredicateId),
}

/// Conditions compiled together.
#[derive(Clone, Debug)]
pub struct Program {
    fields: FieldTable,
    predicates: Vec<Predicate>,
    labels: Vec<Box<str>>,
    /// Per predicate, a cheaper one that holds whenever it does.
    necessary: Vec<Option<PredicateId>>,
    shared: Vec<FieldMatcher>,
    expressions: Vec<Expression>,
}

/// What is known of a predicate for the event at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Unknown,
    Holds,
    Fails,
}

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
    blocks: FxHashMap<PredicateId, Box<State>>,
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

    fn set(&mut self, id: PredicateId, holds: bool) {
        self.truth[id.0 as usize] = if holds { Truth::Holds } else { Truth::Fails };
        self.decided.push(id);
    }
}

/// Collects conditions and compiles them.
#[derive(Debug)]
pub struct Builder {
    fields: FieldTable,
    predicates: Vec<Predicate>,
    labels: Vec<Box<str>>,
    necessary: Vec<Option<PredicateId>>,
    known: FxHashMap<(FieldId, Box<str>), PredicateId>,
    expressions: Vec<Expression>,
}

impl Builder {
    /// Starts a program for events of this shape.
    pub fn new(shape: Shape) -> Builder {
        Builder {
            fields: FieldTable::new(shape),
            predicates: Vec::new(),
            labels: Vec::new(),
            necessary: Vec::new(),
            known: FxHashMap::default(),
            expressions: Vec::new(),
        }
    }

    /// The id of a field that is read without a condition on it (group-by keys).
    pub fn field(&mut self, name: &str) -> FieldId {
        self.fields.intern(name)
    }

    /// Adds a condition; its expression gets the next index.
    pub fn add(&mut self, condition: &Condition) -> Result<(), Error> {
        let expression = self.expression(condition)?;
        self.expressions.push(expression);
        Ok(())
    }

    fn expression(&mut self, condition: &Condition) -> Result<Expression, Error> {
        Ok(match condition {
            Condition::And(parts) => Expression::And(self.parts(parts)?),
            Condition::Or(parts) => Expression::Or(self.parts(parts)?),
            Condition::Not(part) => Expression::Not(Box::new(self.expression(part)?)),
            Condition::Named(name, part) => {
                Expression::Named(name.clone(), Box::new(self.expression(part)?))
            }
            Condition::Test(test) => Expression::Predicate(self.predicate(test)?),
        })
    }

    /// The parts of a conjunction or disjunction, cheapest first: what is decided by a slot spares
    /// a walk through a body.
    fn parts(&mut self, parts: &[Condition]) -> Result<Box<[Expression]>, Error> {
        let mut parts: Vec<_> =
            parts.iter().map(|part| self.expression(part)).collect::<Result<_, _>>()?;
        parts.sort_by_key(|part| self.weight(part));
        Ok(parts.into())
    }

    fn weight(&self, expression: &Expression) -> u32 {
        match expression {
            Expression::And(parts) | Expression::Or(parts) => {
                parts.iter().map(|part| self.weight(part)).max().unwrap_or(0)
            }
            Expression::Not(part) | Expression::Named(_, part) => self.weight(part),
            Expression::Predicate(id) => {
                let predicate = &self.predicates[id.0 as usize];
                cost::weight(&self.fields, predicate)
            }
        }
    }

    fn predicate(&mut self, test: &Test) -> Result<PredicateId, Error> {
        let field = match &test.field {
            Some(name) => self.fields.intern(name),
            None => self.fields.intern_whole(),
        };
        let label: Box<str> = crate::engine::explain::label(&test.matcher).into();
        // Blocks may have equal labels and different insides; each stays its own.
        let is_block = matches!(test.matcher, Matcher::Elements { .. });
        let key = (field, label.clone());
        if !is_block && let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        let check = self.check(&test.matcher, test.field.is_none())?;
        let necessary = self.literal_of(field, &check);
        let id = self.push(Predicate { field, check }, label, necessary);
        self.known.insert(key, id);
        Ok(id)
    }

    fn push(
        &mut self,
        predicate: Predicate,
        label: Box<str>,
        necessary: Option<PredicateId>,
    ) -> PredicateId {
        let id = PredicateId(self.predicates.len() as u32);
        self.predicates.push(predicate);
        self.labels.push(label);
        self.necessary.push(necessary);
        id
    }

    /// For a pattern with wildcards, the predicate that its longest literal is somewhere in the
    /// text: decided together with all others, and nearly always enough to say no.
    fn literal_of(&mut self, field: FieldId, check: &Check) -> Option<PredicateId> {
        /// Shorter literals are in too many texts to be worth it.
        const LITERAL_MIN: usize = 3;
        let Check::Wildcard { literal, cased, .. } = check else { return None };
        if literal.len() < LITERAL_MIN {
            return None;
        }
        let cased_label = if *cased { "cased " } else { "" };
        let label: Box<str> = format!("\u{0}{cased_label}{literal}").into();
        let key = (field, label.clone());
        if let Some(&id) = self.known.get(&key) {
            return Some(id);
        }
        let check = Check::Text { text: literal.clone(), place: Place::Inside, cased: *cased };
        let id = self.push(Predicate { field, check }, label, None);
        self.known.insert(key, id);
        Some(id)
    }

    fn check(&mut self, matcher: &Matcher, is_keyword: bool) -> Result<Check, Error> {
        Ok(match matcher {
            Matcher::Text { pattern, cased } if is_keyword => {
                Check::of_pattern(&crate::engine::cost::anywhere(pattern), *cased)
            }
            Matcher::Text { pattern, cased } => Check::of_pattern(pattern, *cased),
            Matcher::Regex { source } => {
                let regex = RegexBuilder::new(source).size_limit(REGEX_BYTES_MAX).build();
                Check::Regex(regex.map_err(|cause| Error::Regex {
                    source_text: source.to_string(),
                    cause: Box::new(cause),
                })?)
            }
            Matcher::Cidr(net) => Check::Cidr(*net),
            Matcher::Compare { op, than } => Check::Compare(*op, *than),
            Matcher::Null => Check::Null,
            Matcher::Exists(wanted) => Check::Exists(*wanted),
            Matcher::FieldRef { other, place, cased } => {
                Check::FieldRef(self.fields.intern(other), *place, *cased)
            }
            Matcher::TimePart { part, op, than } => Check::TimePart(*part, *op, *than),
            Matcher::Elements { quantifier, inner } => {
                let mut builder = Builder::new(Shape::Json);
                builder.add(inner)?;
                Check::Elements(*quantifier, Arc::new(builder.build()?))
            }
        })
    }

    /// Compiles what was added.
    pub fn build(mut self) -> Result<Program, Error> {
        self.fields.finish();
        let mut by_field: Vec<Vec<PredicateId>> = vec![Vec::new(); self.fields.len()];
        for (index, predicate) in self.predicates.iter().enumerate() {
            by_field[predicate.field.0 as usize].push(PredicateId(index as u32));
        }
        let shared = by_field
            .iter()
            .map(|ids| {
                let checks = ids.iter().map(|id| (*id, &self.predicates[id.0 as usize].check));
                FieldMatcher::new(checks).map_err(|cause| Error::Automaton { cause })
            })
            .collect::<Result<_, _>>()?;
        Ok(Program {
            fields: self.fields,
            predicates: self.predicates,
            labels: self.labels,
            necessary: self.necessary,
            shared,
            expressions: self.expressions,
        })
    }
}

/// Whether keywords are looked for in an event as it is written: it has no escapes that could hide
/// one, or is too long to be copied for them.
fn is_read_as_written(raw: &[u8], has_escapable: bool) -> bool {
    let holds = |escape: &[u8]| memchr::memmem::find(raw, escape).is_some();
    let is_hidden = if has_escapable { holds(b"\\") } else { holds(b"\\u") || holds(b"\\/") };
    raw.len() > BUFFER_KEPT_BYTES || !is_hidden
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

    /// How many predicates there are.
    pub fn predicates(&self) -> usize {
        self.predicates.len()
    }

    /// A cheaper predicate that holds whenever this one does, where there is one.
    pub fn necessary(&self, id: PredicateId) -> Option<PredicateId> {
        self.necessary[id.0 as usize]
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
        if let Some(necessary) = self.necessary[id.0 as usize]
            && !self.test(necessary, state, subject)
        {
            state.set(id, false);
            return false;
        }
        state.values.find(&self.fields, subject, *field);
        if let Check::FieldRef(other, ..) = check {
            state.values.find(&self.fields, subject, *other);
        }
        let holds = match check {
            Check::Elements(quantifier, block) => {
                let mut inner =
                    state.blocks.remove(&id).unwrap_or_else(|| Box::new(block.state(&[])));
                let items = state.values.items(*field, subject.raw());
                let holds =
                    quantifier.holds(items, &mut |item| block.holds_on_element(&item, &mut inner));
                state.blocks.insert(id, inner);
                holds
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
        state.values.find(&self.fields, subject, field);
        let State { values, truth, decided, buffer, memos, .. } = state;
        let matcher = &self.shared[field.0 as usize];
        let memo = &mut memos[field.0 as usize];
        let mut hit = |id: PredicateId| {
            let truth = &mut truth[id.0 as usize];
            if *truth == Truth::Unknown {
                *truth = Truth::Holds;
                decided.push(id);
            }
        };
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
        let made;
        let raw = match item {
            Item::Json(value) => value.raw(),
            Item::Made(text) => {
                made = serde_json::Value::from(*text).to_string();
                made.as_bytes()
            }
        };
        state.clear();
        let subject = Subject::Json(raw);
        self.expressions.iter().all(|expression| self.holds(expression, state, subject))
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
