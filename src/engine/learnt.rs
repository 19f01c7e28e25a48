//! What was learnt of the rules as events came: the nodes of the decision graph, the steps between
//! them, and the classes of values. All threads of an engine learn here, each thing once; what they
//! use they keep by themselves ([`Graph`]).
//!
//! [`Graph`]: crate::engine::graph::Graph

use std::cell::Cell;
use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use crate::engine::facet::{ClassTable, FacetId, PartSet};
use crate::engine::field::FieldId;
use crate::engine::gate::{self, Known, Possible};
use crate::engine::index::{CLASSES_MAX, ClassKey, RuleIndex};
use crate::engine::left::{Left, Outcome, Rests, partial};
use crate::engine::matcher::FieldMatcher;
use crate::engine::predicate::PredicateId;
use crate::engine::program::{Program, State};
use crate::engine::question::Questions;
use crate::engine::signpost::Step;
use crate::engine::values::Subject;
use crate::event::Event;

/// Answers are bits of one word.
const ASKED_MAX: usize = 64;

/// A rule that is not decided yet.
#[derive(Clone, Debug)]
struct Open {
    rule: RuleIndex,
    /// What is left of its condition.
    left: Arc<Left>,
}

/// What a node asks of an event.
#[derive(Debug)]
pub enum Ask {
    /// Nothing: every rule is decided.
    Nothing,
    /// Which of these predicates, all of one facet, hold.
    Facet((FacetId, PartSet), Box<[PredicateId]>),
    /// Which of these text predicates of a field hold.
    Text(FieldId, Box<[PredicateId]>),
    /// Whether this predicate holds.
    One(PredicateId),
    /// Which of these fields are there.
    Present(Box<[FieldId]>),
}

impl Ask {
    /// The facet that is asked for, if one is.
    pub fn facet(&self) -> Option<(FacetId, PartSet)> {
        match self {
            Ask::Facet(facet, _) => Some(*facet),
            _ => None,
        }
    }

    /// What the event says, where that is not for a facet to tell; `None` where nothing is asked.
    #[inline]
    pub fn answer(&self, program: &Program, state: &mut State, event: &Event<'_>) -> Option<u64> {
        let subject = Subject::Audit(event);
        match self {
            Ask::Nothing | Ask::Facet(..) => None,
            Ask::Text(field, ids) => {
                program.share(*field, state, subject);
                let bits = ids.iter().rev();
                Some(bits.fold(0, |bits, id| bits << 1 | u64::from(state.holds(*id))))
            }
            Ask::One(id) => Some(u64::from(program.test(*id, state, subject))),
            Ask::Present(fields) => Some(fields.iter().rev().fold(0, |bits, field| {
                state.values.find(program.fields(), subject, *field);
                bits << 1 | u64::from(state.values.is_present(*field))
            })),
        }
    }

    /// A number for an answer that says the same of a rest in every node which asks this.
    fn number(&self, bits: u64) -> Option<u64> {
        match self {
            // Of its facet a node asks for everything that is open.
            Ask::Facet((facet, _), _) => Some(facet.number() << 33 | bits),
            Ask::One(id) => Some(1 << 63 | u64::from(id.0) << 1 | bits),
            Ask::Nothing | Ask::Text(..) | Ask::Present(_) => None,
        }
    }
}

#[derive(Debug)]
struct Node {
    ask: Arc<Ask>,
    open: Box<[Open]>,
    /// Fields of which was asked whether they are there, ascending.
    met: Box<[FieldId]>,
}

/// Bounds of what is learnt; beyond one of them everything starts afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open rules of all nodes together.
    pub open_max: usize,
    /// Steps, and classes of values.
    pub steps_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { open_max: 1 << 19, steps_max: 1 << 16 }
    }
}

/// What all threads have learnt.
#[derive(Debug, Default)]
pub struct Learnt {
    bounds: Bounds,
    /// How often it started afresh: numbers of nodes and classes hold within one epoch.
    epoch: u64,
    nodes: Vec<Node>,
    /// By node and answer, where that is no class.
    steps: FxHashMap<(u32, u64), Step>,
    /// By node that asks for a facet, and the predicates asked for that hold: classes that differ
    /// in others only share a step.
    by_hits: FxHashMap<(u32, Box<[PredicateId]>), Step>,
    classes: ClassTable,
    rests: Rests,
    /// The steps into the graph.
    entries: FxHashMap<ClassKey, Step>,
    /// By rule and what it depends on, what is known of it before anything is asked.
    entered: FxHashMap<(RuleIndex, ClassKey), Outcome>,
    known: FxHashMap<u64, Vec<u32>>,
    open: usize,
    /// Per predicate, scratch space: what an answer says of it, and how much its topic matters.
    answers: Vec<Option<bool>>,
    weights: Vec<f32>,
}

impl Learnt {
    /// Nothing yet.
    pub fn new(bounds: Bounds) -> Learnt {
        Learnt { bounds, ..Learnt::default() }
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The bounds.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether a bound is reached.
    pub fn is_full(&self) -> bool {
        self.open > self.bounds.open_max
            || self.steps.len() + self.by_hits.len() > self.bounds.steps_max
            || self.classes.count() > self.bounds.steps_max
            || self.entries.len() > CLASSES_MAX
    }

    /// Forgets everything; a new epoch begins.
    pub fn clear(&mut self) {
        *self = Learnt { epoch: self.epoch + 1, ..Learnt::new(self.bounds) };
    }

    /// The number of a class.
    pub fn class(&mut self, facet: FacetId, hits: &[PredicateId]) -> u32 {
        self.classes.number(facet, hits)
    }

    /// What a node asks.
    pub fn ask(&self, node: u32) -> &Arc<Ask> {
        &self.nodes[node as usize].ask
    }

    /// The step into the graph for events of a class, of which these rules are possible and the
    /// values of fields known; with each rule comes as much of that as its condition depends on.
    pub fn enter<'k>(
        &mut self,
        questions: &Questions,
        program: &Program,
        key: ClassKey,
        rules: impl Iterator<Item = (RuleIndex, ClassKey)>,
        known: &dyn Fn(FieldId) -> Known<'k>,
    ) -> Step {
        if let Some(step) = self.entries.get(&key) {
            return step.clone();
        }
        // Hundreds of rules ask the same.
        let mut answers = vec![None; program.predicates()];
        let answers = Cell::from_mut(answers.as_mut_slice()).as_slice_of_cells();
        let decide = |id: PredicateId| {
            let answer = &answers[id.0 as usize];
            answer.get().unwrap_or_else(|| {
                let predicate = program.predicate(id);
                let decided = decided(gate::decided(&predicate.check, known(predicate.field)));
                answer.set(Some(decided));
                decided
            })
        };
        let mut open = Vec::new();
        let mut matched = Vec::new();
        if self.entered.len() > self.bounds.open_max {
            self.entered.clear();
        }
        for (rule, concern) in rules {
            let outcome = self.entered.entry((rule, concern)).or_insert_with(|| {
                let known = partial(questions.expression(rule), &decide);
                self.rests.outcome(questions, known)
            });
            match outcome.clone() {
                Outcome::Holds => matched.push(rule),
                Outcome::Fails => {}
                Outcome::Open(left) => open.push(Open { rule, left }),
            }
        }
        let next = self.node(questions, program, open, Box::default());
        let step = Step { next, matched: matched.into() };
        self.entries.insert(key, step.clone());
        step
    }

    /// What follows from an answer.
    pub fn step(&mut self, questions: &Questions, program: &Program, at: u32, bits: u64) -> Step {
        let Ask::Facet((facet, _), ids) = &*self.nodes[at as usize].ask else {
            if let Some(step) = self.steps.get(&(at, bits)) {
                return step.clone();
            }
            let step = self.decide(questions, program, at, bits, &[]);
            self.steps.insert((at, bits), step.clone());
            return step;
        };
        let hits = self.classes.hits(*facet, bits as u32);
        let is_hit = |id: &&PredicateId| hits.binary_search(id).is_ok();
        let hits: Box<[PredicateId]> = ids.iter().filter(is_hit).copied().collect();
        let key = (at, hits);
        if let Some(step) = self.by_hits.get(&key) {
            return step.clone();
        }
        let step = self.decide(questions, program, at, bits, &key.1);
        self.by_hits.insert(key, step.clone());
        step
    }

    /// What follows from one that comes for the first time; of a facet the predicates are given
    /// that hold.
    fn decide(
        &mut self,
        questions: &Questions,
        program: &Program,
        at: u32,
        bits: u64,
        hits: &[PredicateId],
    ) -> Step {
        let mut answers = std::mem::take(&mut self.answers);
        answers.resize(program.predicates(), None);
        let Node { ask, open, met } = &self.nodes[at as usize];
        let asked = match &**ask {
            Ask::Facet(_, ids) => {
                ids.iter().for_each(|id| answers[id.0 as usize] = Some(false));
                hits.iter().for_each(|id| answers[id.0 as usize] = Some(true));
                ids.to_vec()
            }
            ask => answer(questions, program, ask, bits, open, &mut answers),
        };
        let number = ask.number(bits);
        let mut left = Vec::with_capacity(open.len());
        let mut matched = Vec::new();
        let decide = |id: PredicateId| answers[id.0 as usize];
        for one in open {
            if one.left.asks.iter().all(|id| decide(*id).is_none()) {
                left.push(one.clone());
                continue;
            }
            match self.rests.after(questions, &one.left, number, &decide) {
                Outcome::Holds => matched.push(one.rule),
                Outcome::Fails => {}
                Outcome::Open(rest) => left.push(Open { rule: one.rule, left: rest }),
            }
        }
        let met = met_after(ask, met);
        asked.iter().for_each(|id| answers[id.0 as usize] = None);
        self.answers = answers;
        Step { next: self.node(questions, program, left, met), matched: matched.into() }
    }

    /// The node for these open rules; an equal one is used again.
    fn node(
        &mut self,
        questions: &Questions,
        program: &Program,
        open: Vec<Open>,
        met: Box<[FieldId]>,
    ) -> u32 {
        // What is known of fields that nobody asks for any more makes no difference.
        let is_asked = |field: &FieldId| {
            let mut asks = open.iter().flat_map(|one| one.left.asks.iter());
            asks.any(|id| questions.of(*id).root == *field)
        };
        let met: Box<[FieldId]> = met.into_iter().filter(is_asked).collect();
        let mut hasher = FxHasher::default();
        open.iter().for_each(|one| {
            hasher.write_u32(one.rule);
            hasher.write_u64(one.left.hash);
        });
        met.iter().for_each(|field| hasher.write_u32(field.0));
        let hash = hasher.finish();
        let is_equal = |node: &Node| {
            node.met == met
                && node.open.len() == open.len()
                && node.open.iter().zip(&open).all(|(one, other)| {
                    one.rule == other.rule && Arc::ptr_eq(&one.left, &other.left)
                })
        };
        let mut known = self.known.get(&hash).into_iter().flatten();
        if let Some(node) = known.find(|node| is_equal(&self.nodes[**node as usize])) {
            return *node;
        }
        let ask = self.choose(questions, program, &open, &met);
        let number = self.nodes.len() as u32;
        self.open += open.len() + 1;
        self.nodes.push(Node { ask: Arc::new(ask), open: open.into(), met });
        self.known.entry(hash).or_default().push(number);
        number
    }
}

/// The truth of a predicate of which this is possible, where that is but one.
fn decided(possible: Possible) -> Option<bool> {
    (!possible.holds || !possible.fails).then_some(possible.holds)
}

/// Notes what an answer says of predicates; returns these.
fn answer(
    questions: &Questions,
    program: &Program,
    ask: &Ask,
    bits: u64,
    open: &[Open],
    answers: &mut [Option<bool>],
) -> Vec<PredicateId> {
    let bit = |place: usize| bits >> place & 1 == 1;
    match ask {
        Ask::Nothing | Ask::Facet(..) => Vec::new(),
        Ask::Text(_, ids) => {
            let places = ids.iter().enumerate();
            places.for_each(|(place, id)| answers[id.0 as usize] = Some(bit(place)));
            ids.to_vec()
        }
        Ask::One(id) => {
            answers[id.0 as usize] = Some(bit(0));
            vec![*id]
        }
        Ask::Present(fields) => {
            let mut asked = Vec::new();
            for id in open.iter().flat_map(|one| one.left.asks.iter()) {
                let place = fields.binary_search(&questions.of(*id).root);
                if place.is_ok_and(|place| !bit(place)) && answers[id.0 as usize].is_none() {
                    let check = &program.predicate(*id).check;
                    answers[id.0 as usize] = decided(gate::decided(check, Known::Absent));
                    asked.push(*id);
                }
            }
            asked
        }
    }
}

/// The fields that need not be asked for again after an answer: whatever it was, so that no way
/// through the graph is without end.
fn met_after(ask: &Ask, before: &[FieldId]) -> Box<[FieldId]> {
    let mut met = before.to_vec();
    if let Ask::Present(fields) = ask {
        met.extend_from_slice(fields);
        met.sort();
    }
    met.into()
}

impl Learnt {
    /// The question that is likely to decide most for what it costs.
    fn choose(
        &mut self,
        questions: &Questions,
        program: &Program,
        open: &[Open],
        met: &[FieldId],
    ) -> Ask {
        self.weights.resize(program.predicates(), 0.0);
        let mut topics = Vec::new();
        for (topic, weight) in open.iter().flat_map(|one| one.left.topics.iter()) {
            let sum = &mut self.weights[topic.0 as usize];
            if *sum == 0.0 {
                topics.push(*topic);
            }
            *sum += weight;
        }
        let price =
            |topic: &PredicateId| questions.of(*topic).cost_ns / self.weights[topic.0 as usize];
        let best = topics
            .iter()
            .copied()
            .min_by(|one, other| price(one).total_cmp(&price(other)).then_with(|| one.cmp(other)));
        topics.iter().for_each(|topic| self.weights[topic.0 as usize] = 0.0);
        let Some(topic) = best else { return Ask::Nothing };
        let question = questions.of(topic);
        let asks = || open.iter().flat_map(|one| one.left.asks.iter().copied());
        if let Some(facet) = question.facet {
            let mut ids: Vec<_> = asks().filter(|id| questions.of(*id).topic == topic).collect();
            ids.sort();
            ids.dedup();
            return Ask::Facet((facet, questions.facets().parts(&ids)), ids.into());
        }
        if question.is_walked {
            let mut fields: Vec<FieldId> = asks()
                .map(|id| questions.of(id))
                .filter(|one| one.is_walked && one.is_in_body == question.is_in_body)
                .map(|one| one.root)
                .filter(|field| met.binary_search(field).is_err())
                .collect();
            fields.sort();
            fields.dedup();
            fields.truncate(ASKED_MAX);
            if fields.len() > 1 {
                return Ask::Present(fields.into());
            }
        }
        if !FieldMatcher::decides(&program.predicate(topic).check) {
            return Ask::One(topic);
        }
        let mut ids: Vec<_> = asks().filter(|id| questions.of(*id).topic == topic).collect();
        ids.sort();
        ids.dedup();
        ids.truncate(ASKED_MAX);
        Ask::Text(program.predicate(topic).field, ids.into())
    }
}
