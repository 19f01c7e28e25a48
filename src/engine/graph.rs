//! What an event's predicates say of all rules at once: a decision graph that is made as events
//! come.
//!
//! A node is a set of rules that are still open, each with what is left of its condition, and one
//! question: the class of a facet, which text predicates of a body's field hold, whether one
//! predicate holds, or which fields are there at all. The answer leads to the next node by a step
//! that names the rules which now hold; rules that can no longer hold are gone. Equal sets of what
//! is left are one node, however they were reached, so questions that have nothing to do with each
//! other add up and do not multiply.
//!
//! Real clusters ask for the same things over and over: after some thousand events nearly every
//! step is known, and an event costs as many look-ups as questions that matter for it, whatever
//! the number of rules. Where steps do not repeat the graph says so ([`Graph::is_on`]) and rests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::facet::Readings;
use crate::engine::index::RuleIndex;
use crate::engine::learnt::{Ask, Bounds, Learnt};
use crate::engine::program::{Program, State};
use crate::engine::question::Questions;
use crate::engine::signpost::{Signposts, Step};
use crate::event::Event;

/// A graph that was full again after fewer events than this is not worth its while.
const EVENTS_MIN: u64 = 500_000;
/// For so many events it then rests.
const EVENTS_AT_REST: u64 = 2_000_000;

/// What is learnt meanwhile began afresh: what a thread knows holds no more.
#[derive(Debug)]
pub struct Stale;

/// The graph as far as one thread knows it. What comes for the first time is asked of what all
/// threads have learnt.
#[derive(Debug)]
pub struct Graph {
    learnt: Arc<Mutex<Learnt>>,
    epoch: u64,
    bounds: Bounds,
    signposts: Signposts,
    /// Per node that is known, what it asks.
    asks: Vec<Option<Arc<Ask>>>,
    readings: Readings,
    is_full: bool,
    events: u64,
    resting: u64,
}

impl Default for Graph {
    fn default() -> Graph {
        Graph::with_bounds(Bounds::default())
    }
}

fn guard(learnt: &Mutex<Learnt>) -> MutexGuard<'_, Learnt> {
    // What a panic interrupts leaves at most a scratch space behind, never half a node or step.
    learnt.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Graph {
    /// A graph by itself, with other bounds.
    pub fn with_bounds(bounds: Bounds) -> Graph {
        Graph::sharing(Arc::new(Mutex::new(Learnt::new(bounds))))
    }

    /// A graph that learns with others.
    pub fn sharing(learnt: Arc<Mutex<Learnt>>) -> Graph {
        let (epoch, bounds) = {
            let learnt = guard(&learnt);
            (learnt.epoch(), learnt.bounds())
        };
        Graph {
            learnt,
            epoch,
            bounds,
            signposts: Signposts::default(),
            asks: Vec::new(),
            readings: Readings::default(),
            is_full: false,
            events: 0,
            resting: 0,
        }
    }

    /// Whether the graph is worth asking for the next event; counts the event.
    pub fn is_on(&mut self) -> bool {
        self.events += 1;
        if self.resting > 0 {
            self.resting -= 1;
            return false;
        }
        true
    }

    /// Whether the graph has reached a bound and must be cleared, with all steps into it.
    pub fn is_full(&self) -> bool {
        self.is_full || self.signposts.steps() > self.bounds.steps_max
    }

    /// Forgets everything, for all threads; rests for a while when that comes too often.
    pub fn clear(&mut self) {
        let resting = if self.events < EVENTS_MIN { EVENTS_AT_REST } else { 0 };
        {
            let mut learnt = guard(&self.learnt);
            if learnt.epoch() == self.epoch {
                learnt.clear();
            }
        }
        self.renew();
        self.resting = resting;
    }

    /// Begins again with what is learnt at present.
    pub fn renew(&mut self) {
        *self = Graph::sharing(Arc::clone(&self.learnt));
    }

    /// Follows the graph from a step to the end; adds the rules that hold.
    ///
    /// # Errors
    /// What this graph knows holds no more; [`Graph::renew`] mends that.
    pub fn walk(
        &mut self,
        questions: &Questions,
        program: &Program,
        first: &Step,
        state: &mut State,
        event: &Event<'_>,
        matched: &mut Vec<RuleIndex>,
    ) -> Result<(), Stale> {
        matched.extend_from_slice(&first.matched);
        let mut at = first.next;
        loop {
            let answer = match self.signposts.facet(at) {
                Some(facet) => {
                    let (learnt, epoch) = (&self.learnt, self.epoch);
                    let mut number = |facet, hits: &[_]| {
                        let mut learnt = guard(learnt);
                        (learnt.epoch() == epoch).then(|| learnt.class(facet, hits))
                    };
                    let facets = questions.facets();
                    let class =
                        self.readings.class(facets, facet, program, state, event, &mut number);
                    u64::from(class.ok_or(Stale)?)
                }
                None => {
                    let ask = self.asks[at as usize].as_ref();
                    match ask.and_then(|ask| ask.answer(program, state, event)) {
                        Some(answer) => answer,
                        None => return Ok(()),
                    }
                }
            };
            if let Some((next, holding)) = self.signposts.follow(at, answer) {
                matched.extend_from_slice(holding);
                at = next;
                continue;
            }
            let step = self.learn(|learnt| learnt.step(questions, program, at, answer))?;
            self.signposts.learn(at, answer, &step);
            matched.extend_from_slice(&step.matched);
            at = step.next;
        }
    }

    /// Asks for a step that is new to this thread, and takes over what it leads to.
    ///
    /// # Errors
    /// What this graph knows holds no more; [`Graph::renew`] mends that.
    pub fn learn(&mut self, step: impl FnOnce(&mut Learnt) -> Step) -> Result<Step, Stale> {
        let learnt = Arc::clone(&self.learnt);
        let mut learnt = guard(&learnt);
        if learnt.epoch() != self.epoch {
            return Err(Stale);
        }
        let step = step(&mut learnt);
        self.meet(&learnt, step.next);
        Ok(step)
    }

    /// Takes over what a node asks.
    fn meet(&mut self, learnt: &Learnt, node: u32) {
        self.is_full = learnt.is_full();
        let place = node as usize;
        if self.asks.len() <= place {
            self.asks.resize(place + 1, None);
        }
        if self.asks[place].is_none() {
            let ask = learnt.ask(node);
            self.signposts.set(node, ask.facet());
            self.asks[place] = Some(Arc::clone(ask));
        }
    }
}
