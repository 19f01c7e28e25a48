//! What is left of a condition when some of its predicates are decided.

use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use crate::engine::predicate::PredicateId;
use crate::engine::program::Expression;
use crate::engine::question::Questions;

/// What is left of a condition.
#[derive(Debug)]
pub struct Left {
    /// The rest, without names.
    pub expression: Expression,
    /// The predicates in it, ascending.
    pub asks: Box<[PredicateId]>,
    /// The questions that would decide something, with how much each matters.
    pub topics: Box<[(PredicateId, f32)]>,
    /// Equal for equal rests.
    pub hash: u64,
}

/// What is known of an expression.
pub enum Partial {
    /// It holds.
    Holds,
    /// It fails.
    Fails,
    /// That depends on this.
    Open(Expression),
}

/// What an answer makes of a condition.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It fails.
    Fails,
    /// This is left of it.
    Open(Arc<Left>),
}

/// The rests that a thread has met, equal ones once, and what answers made of them: a rule with one
/// rest is open in many nodes of a graph.
#[derive(Debug, Default)]
pub struct Rests {
    known: FxHashMap<u64, Vec<Arc<Left>>>,
    /// By the address of a known rest, and the answer.
    after: FxHashMap<(usize, u64), Outcome>,
}

impl Rests {
    /// What is known of an expression, as an outcome.
    pub fn outcome(&mut self, questions: &Questions, partial: Partial) -> Outcome {
        match partial {
            Partial::Holds => Outcome::Holds,
            Partial::Fails => Outcome::Fails,
            Partial::Open(expression) => Outcome::Open(self.rest(questions, expression)),
        }
    }

    /// What an answer makes of a rest that came from here; `answer` is a number for all that
    /// `decide` says of its predicates, where there is one.
    pub fn after(
        &mut self,
        questions: &Questions,
        left: &Arc<Left>,
        answer: Option<u64>,
        decide: &dyn Fn(PredicateId) -> Option<bool>,
    ) -> Outcome {
        let key = answer.map(|answer| (Arc::as_ptr(left).addr(), answer));
        if let Some(known) = key.and_then(|key| self.after.get(&key)) {
            return known.clone();
        }
        let outcome = self.outcome(questions, partial(&left.expression, decide));
        if let Some(key) = key {
            self.after.insert(key, outcome.clone());
        }
        outcome
    }

    fn rest(&mut self, questions: &Questions, expression: Expression) -> Arc<Left> {
        let mut asks = Vec::new();
        let mut hasher = FxHasher::default();
        describe(&expression, &mut asks, &mut hasher);
        let hash = hasher.finish();
        let known = self.known.entry(hash).or_default();
        if let Some(left) = known.iter().find(|left| is_same(&left.expression, &expression)) {
            return Arc::clone(left);
        }
        asks.sort();
        asks.dedup();
        let topics = questions.weigh(&expression, &asks);
        let left = Arc::new(Left { expression, asks: asks.into(), topics, hash });
        known.push(Arc::clone(&left));
        left
    }
}

fn describe(expression: &Expression, asks: &mut Vec<PredicateId>, hasher: &mut FxHasher) {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => {
            hasher.write_u32(if matches!(expression, Expression::And(_)) { 1 } else { 2 });
            hasher.write_usize(parts.len());
            parts.iter().for_each(|part| describe(part, asks, hasher));
        }
        Expression::Not(part) => {
            hasher.write_u32(3);
            describe(part, asks, hasher);
        }
        Expression::Named(_, part) => describe(part, asks, hasher),
        Expression::Predicate(id) => {
            hasher.write_u32(4);
            hasher.write_u32(id.0);
            asks.push(*id);
        }
    }
}

fn is_same(one: &Expression, other: &Expression) -> bool {
    match (one, other) {
        (Expression::And(one), Expression::And(other))
        | (Expression::Or(one), Expression::Or(other)) => {
            one.len() == other.len()
                && one.iter().zip(other.iter()).all(|(one, other)| is_same(one, other))
        }
        (Expression::Not(one), Expression::Not(other)) => is_same(one, other),
        (Expression::Predicate(one), Expression::Predicate(other)) => one == other,
        _ => false,
    }
}

/// What is left of an expression when these predicates are decided.
pub fn partial(expression: &Expression, decide: &dyn Fn(PredicateId) -> Option<bool>) -> Partial {
    match expression {
        Expression::And(parts) => join(parts, decide, false),
        Expression::Or(parts) => join(parts, decide, true),
        Expression::Not(part) => match partial(part, decide) {
            Partial::Holds => Partial::Fails,
            Partial::Fails => Partial::Holds,
            Partial::Open(left) => Partial::Open(Expression::Not(Arc::new(left))),
        },
        Expression::Named(_, part) => partial(part, decide),
        Expression::Predicate(id) => match decide(*id) {
            Some(true) => Partial::Holds,
            Some(false) => Partial::Fails,
            None => Partial::Open(Expression::Predicate(*id)),
        },
    }
}

/// A conjunction or disjunction; `decisive` is the truth of one part that decides the whole.
fn join(
    parts: &[Expression],
    decide: &dyn Fn(PredicateId) -> Option<bool>,
    decisive: bool,
) -> Partial {
    let mut left = Vec::new();
    for part in parts {
        match (partial(part, decide), decisive) {
            (Partial::Holds, true) => return Partial::Holds,
            (Partial::Fails, false) => return Partial::Fails,
            (Partial::Open(part), _) => left.push(part),
            _ => {}
        }
    }
    match (left.len(), decisive) {
        (0, true) => Partial::Fails,
        (0, false) => Partial::Holds,
        (1, _) => Partial::Open(left.remove(0)),
        (_, true) => Partial::Open(Expression::Or(left.into())),
        (_, false) => Partial::Open(Expression::And(left.into())),
    }
}
