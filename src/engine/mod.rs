//! The compiled rule set: which rules match an event, and what their matches feed.
//!
//! Pure: no I/O, no clock, no async. An event's slots are read at most once each, by **facets**
//! ([`facet`]): what a user name, an address, a URI says of every predicate on it is a number, its
//! class. A **decision graph** ([`graph`]) leads from class to class to the rules that hold; its
//! nodes are made as events come, once for all threads ([`learnt`]). Where that does not pay (plain
//! JSON, thousands of rules on one field, events that never repeat) an index of necessary clauses
//! ([`index`]) finds the rules that can hold. The cost grows with the event, not with the number of
//! rules.

pub mod field;
pub mod values;
pub mod letters;
pub mod relation;
pub mod search;
pub mod wildcard;
pub mod literal;
pub mod predicate;
pub mod matcher;
pub mod cost;
pub mod memo;
pub mod program;
pub mod builder;
pub mod clause;
pub mod gate;
pub mod index;
pub mod facet;
pub mod question;
pub mod left;
pub mod signpost;
pub mod learnt;
pub mod graph;
pub mod explain;
pub mod window;
pub mod terms;
pub mod keyed;
pub mod verdict;
pub mod correlate;
pub mod feed;
pub mod table;

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::engine::builder::Builder;
use crate::engine::correlate::{Correlator, Feed, Limits};
use crate::engine::feed::FeedPlan;
use crate::engine::field::{FieldId, Shape};
use crate::engine::graph::{Graph, Stale};
use crate::engine::index::{ClassKey, Classes, Index};
use crate::engine::learnt::Learnt;
use crate::engine::program::{Program, State};
use crate::engine::question::Questions;
use crate::engine::signpost::Step;
use crate::engine::values::Subject;
use crate::engine::window::Weigh;
use crate::event::redact::FieldRedactor;
use crate::event::{Event, Slot};
use crate::rule::{Body, Condition, Rule, RuleSet};

/// A rule set that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The literals of one field are too many for one automaton.
    #[error("the text patterns of a field are too many or too long")]
    Automaton {
        /// What the builder said.
        #[source]
        cause: aho_corasick::BuildError,
    },
    /// A correlation names a rule that is not in the set; the reader refuses such sets.
    #[error("correlation {correlation} refers to {rule}, which is not in the rule set")]
    Reference {
        /// The correlation's id.
        correlation: Arc<str>,
        /// The unknown rule.
        rule: Arc<str>,
    },
}

/// A compiled rule set, shared by all threads. What they learn of it as events come makes no
/// difference but to the time that the next ones take.
#[derive(Debug)]
pub struct Engine {
    learnt: Arc<Mutex<Learnt>>,
    rules: RuleSet,
    program: Program,
    index: Index,
    questions: Questions,
    /// Per expression, the index of its rule.
    detections: Vec<u32>,
    /// Per correlation, the index of its rule.
    correlations: Vec<u32>,
    /// Per expression, what a match feeds.
    plans: Vec<Vec<FeedPlan>>,
    proxies: Vec<IpNet>,
}

/// What one thread needs to evaluate events; reused from event to event.
#[derive(Debug)]
pub struct Scratch {
    state: State,
    classes: Classes,
    graph: Graph,
    entries: FxHashMap<ClassKey, Step>,
    redactor: FieldRedactor,
    candidates: Vec<u32>,
    matched: Vec<u32>,
}

impl Scratch {
    /// What [`Engine::evaluate`] found last, to be held while the scratch is used on;
    /// [`Scratch::give_back`] spares the next event an allocation.
    pub fn take_matched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.matched)
    }

    /// Takes back what [`Scratch::take_matched`] gave.
    pub fn give_back(&mut self, matched: Vec<u32>) {
        self.matched = matched;
    }

    /// The value of a field as it may be shown.
    pub fn redact<'v>(&mut self, field: &str, resource: &str, value: &'v str) -> Cow<'v, str> {
        self.redactor.redact(field, resource, value)
    }
}

impl Engine {
    /// Compiles a rule set for events of a shape. `proxies` are the networks whose X-Forwarded-For
    /// entries are believed.
    pub fn compile(rules: RuleSet, shape: Shape, proxies: &[IpNet]) -> Result<Engine, Error> {
        let mut builder = Builder::new(shape);
        let mut detections = Vec::new();
        let mut correlations = Vec::new();
        let mut names_stage = Vec::new();
        for (number, rule) in rules.rules.iter().enumerate() {
            match &rule.body {
                Body::Detection(condition) => {
                    builder.add(condition)?;
                    detections.push(number as u32);
                    names_stage.push(tests_field(condition, "stage"));
                }
                Body::Correlation(_) => correlations.push(number as u32),
            }
        }
        let plans = feed::plan(&rules, &detections, &correlations, &mut builder)?;
        let program = builder.build()?;
        let index = Index::new(&program, &names_stage);
        let questions = Questions::new(&program);
        let proxies = proxies.to_vec();
        Ok(Engine {
            learnt: Arc::default(),
            rules,
            program,
            index,
            questions,
            detections,
            correlations,
            plans,
            proxies,
        })
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// The compiled conditions.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The rule of a detection, by its position among the detections.
    pub fn detection(&self, position: u32) -> &Rule {
        &self.rules.rules[self.detections[position as usize] as usize]
    }

    /// How many detections there are.
    pub fn detections(&self) -> usize {
        self.detections.len()
    }

    /// The position of the detection with this rule id.
    pub fn position(&self, id: &str) -> Option<u32> {
        let found = self.detections.iter().position(|n| &*self.rules.rules[*n as usize].id == id);
        found.map(|position| position as u32)
    }

    /// The rule of a correlation, by its index among the correlations.
    pub fn correlation(&self, index: u32) -> &Rule {
        &self.rules.rules[self.correlations[index as usize] as usize]
    }

    /// How many correlations there are.
    pub fn correlations(&self) -> usize {
        self.correlations.len()
    }

    /// A correlator of all correlations, by their indexes, which knows nothing yet.
    pub fn correlator<E: Weigh>(&self, limits: Limits) -> Correlator<E> {
        let rules = feed::correlations(&self.rules, &self.correlations);
        let bodies = rules.iter().map(|(correlation, _)| (*correlation).clone()).collect();
        Correlator::new(bodies, limits).chained(&feed::chains(&rules))
    }

    /// Networks whose X-Forwarded-For entries are believed.
    pub fn proxies(&self) -> &[IpNet] {
        &self.proxies
    }

    /// Fresh scratch space for a thread.
    pub fn scratch(&self) -> Scratch {
        self.scratch_with(Graph::sharing(Arc::clone(&self.learnt)))
    }

    /// Fresh scratch space with a graph of its own.
    pub fn scratch_with(&self, graph: Graph) -> Scratch {
        Scratch {
            state: self.program.state(&self.proxies),
            classes: Classes::default(),
            graph,
            entries: FxHashMap::default(),
            redactor: FieldRedactor::default(),
            candidates: Vec::new(),
            matched: Vec::new(),
        }
    }

    /// The positions of the detections that match, ascending.
    pub fn evaluate<'s>(&self, subject: Subject<'_>, scratch: &'s mut Scratch) -> &'s [u32] {
        scratch.state.clear();
        scratch.candidates.clear();
        scratch.matched.clear();
        match subject {
            Subject::Audit(event) if scratch.graph.is_on() => {
                let key = self.index.key_of(event);
                self.follow(key, event, scratch);
            }
            _ => {
                let Scratch { state, classes, candidates, .. } = scratch;
                self.index.candidates(&self.program, classes, state, subject, candidates);
                self.try_candidates(subject, scratch);
            }
        }
        &scratch.matched
    }

    /// Finds what matches by the decision graph.
    fn follow(&self, key: ClassKey, event: &Event<'_>, scratch: &mut Scratch) {
        let subject = Subject::Audit(event);
        while self.walk(key, event, scratch).is_err() {
            scratch.graph.renew();
            scratch.entries.clear();
            scratch.matched.clear();
        }
        let Scratch { state, candidates, .. } = scratch;
        self.index.common(&self.program, key.bits(), state, subject, candidates);
        candidates.sort_unstable();
        candidates.dedup();
        self.try_candidates(subject, scratch);
        scratch.matched.sort_unstable();
    }

    fn walk(&self, key: ClassKey, event: &Event<'_>, scratch: &mut Scratch) -> Result<(), Stale> {
        let Scratch { state, graph, entries, matched, .. } = scratch;
        let program = &self.program;
        if graph.is_full() {
            graph.clear();
            entries.clear();
        }
        let first = match entries.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let known = self.index.known_of(key);
                let rules = self.index.rules_of(key);
                let rules = rules.map(|rule| (rule, self.index.concerning(rule, key)));
                let known = |field: FieldId| known[field.0 as usize];
                let enter = |learnt: &mut Learnt| {
                    learnt.enter(&self.questions, program, key, rules, &known)
                };
                free.insert(graph.learn(enter)?)
            }
        };
        graph.walk(&self.questions, program, first, state, event, matched)
    }

    fn try_candidates(&self, subject: Subject<'_>, scratch: &mut Scratch) {
        let Scratch { state, candidates, matched, .. } = scratch;
        for &position in candidates.iter() {
            let expression = &self.program.expressions()[position as usize];
            if self.program.holds(expression, state, subject) {
                matched.push(position);
            }
        }
    }

    /// The same by trying every rule, without index and gate: the reference for tests.
    pub fn evaluate_all(&self, subject: Subject<'_>, scratch: &mut Scratch) -> Vec<u32> {
        let state = &mut scratch.state;
        state.clear();
        let is_received = matches!(subject, Subject::Audit(event)
            if event.plain(crate::event::Slot::Stage) == Some(b"RequestReceived"));
        (0..self.detections.len() as u32)
            .filter(|position| {
                let names_stage = match &self.detection(*position).body {
                    Body::Detection(condition) => tests_field(condition, "stage"),
                    Body::Correlation(_) => false,
                };
                let expression = &self.program.expressions()[*position as usize];
                (names_stage || !is_received) && self.program.holds(expression, state, subject)
            })
            .collect()
    }

    /// What a match of this detection feeds, for the event of a cluster evaluated last with this
    /// scratch.
    pub fn feeds(
        &self,
        position: u32,
        subject: Subject<'_>,
        cluster: &str,
        scratch: &mut Scratch,
    ) -> Vec<Feed> {
        let plans = &self.plans[position as usize];
        let Scratch { state, redactor, .. } = scratch;
        let shown = &mut |field: &str, value: &str| shown(redactor, subject, field, value);
        plans.iter().map(|plan| plan.feed(&self.program, state, subject, cluster, shown)).collect()
    }

    /// The group-by values with which an event that this detection matches feeds a correlation,
    /// directly or by chained ones; redacted.
    pub fn labels(
        &self,
        position: u32,
        correlation: u32,
        subject: Subject<'_>,
        scratch: &mut Scratch,
    ) -> Vec<(String, String)> {
        let own = self.plans.get(position as usize);
        let mut plans: Vec<&FeedPlan> = own.into_iter().flatten().collect();
        while let Some(plan) = plans.pop() {
            if plan.correlation() == correlation {
                let Scratch { state, redactor, .. } = scratch;
                let shown = &mut |field: &str, value: &str| shown(redactor, subject, field, value);
                state.clear();
                return plan.labels(&self.program, state, subject, shown);
            }
            plans.extend(plan.parents());
        }
        Vec::new()
    }

    /// Whether a match of this detection feeds a correlation that waits for its window to be over.
    pub fn waits(&self, position: u32) -> bool {
        self.plans[position as usize].iter().any(FeedPlan::waits)
    }

    /// Why a detection matched, for the event evaluated last with this scratch.
    pub fn reasons(
        &self,
        position: u32,
        subject: Subject<'_>,
        scratch: &mut Scratch,
    ) -> Vec<explain::Reason> {
        let expression = &self.program.expressions()[position as usize];
        explain::reasons(&self.program, expression, &mut scratch.state, subject)
    }

    /// Every part of a detection's condition with whether it holds, as an indented text; values
    /// are redacted.
    pub fn explain(&self, position: u32, subject: Subject<'_>, scratch: &mut Scratch) -> String {
        let Scratch { state, redactor, .. } = scratch;
        state.clear();
        let expression = &self.program.expressions()[position as usize];
        let shown = &mut |field: &str, value: &str| shown(redactor, subject, field, value);
        explain::explain(&self.program, expression, state, subject, shown)
    }
}

/// The value of a subject's field as it may be shown.
fn shown(redactor: &mut FieldRedactor, subject: Subject<'_>, field: &str, value: &str) -> String {
    let resource = match subject {
        Subject::Audit(event) => event.text(Slot::Resource).unwrap_or_default(),
        Subject::Json(_) => Cow::Borrowed(""),
    };
    redactor.redact(field, &resource, value).into_owned()
}

/// Whether a condition tests a field of this name.
fn tests_field(condition: &Condition, name: &str) -> bool {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => {
            parts.iter().any(|part| tests_field(part, name))
        }
        Condition::Not(part) | Condition::Named(_, part) => tests_field(part, name),
        Condition::Test(test) => test.field.as_deref() == Some(name),
    }
}
