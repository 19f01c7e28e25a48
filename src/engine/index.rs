//! Which rules can still match an event: the filter before any condition is evaluated.
//!
//! Events fall into **classes**: equal verb, stage, kind of actor, outcome, subresource
//! ([`gate`]), resource, and the parts that are there (bodies, extras, …). Of
//! a class everything that depends on these alone is known, so a rule belongs to it only when
//! three-valued logic says that its condition can still hold, and there it hangs on one necessary
//! **clause** of what is left to know: a set of predicates of which one holds whenever the rule
//! does. An event meets the rules of its class whose clause holds.
//!
//! Classes are made when their first event comes, one set a thread; a cluster has a few hundred.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::engine::clause::{self, Reading};
use crate::engine::cost;
use crate::engine::field::{FieldId, Shape, Source};
use crate::engine::gate::{self, Known};
use crate::engine::matcher::FieldMatcher;
use crate::engine::predicate::{Check, Predicate, PredicateId};
use crate::engine::program::{Expression, Program, State};
use crate::engine::values::Subject;
use crate::event::derived::Derived;
use crate::event::{Event, Slot};
use crate::rule::Place;

/// Position of a detection among the compiled expressions.
pub type RuleIndex = u32;

/// Classes beyond this number are not kept; their events meet the rules of the class of all events.
pub const CLASSES_MAX: usize = 2_048;

/// What is known of every rule before the first event.
#[derive(Clone, Debug)]
pub struct Index {
    gates: Vec<u64>,
    clauses: Vec<Vec<Vec<PredicateId>>>,
    candidate_ns: Vec<f64>,
    /// The gate's fields as far as rules name them.
    gate_fields: Vec<(FieldId, &'static str)>,
    resource_field: Option<FieldId>,
    /// Per field, the parts of an event (bits of [`PRESENCE`]) without which it has no value; 0
    /// where that cannot be said.
    roots: Vec<u8>,
    /// Resources that rules name, with their number; 0 is absent.
    resources: FxHashMap<Box<[u8]>, u32>,
    resource_names: Vec<Box<str>>,
    /// The class of all events.
    general: Arc<Class>,
    /// Of many rules, those that hang on a field which is cheap to read for every event: no class
    /// has to look at them one by one.
    common: Class,
    is_common: Vec<bool>,
    concerns: Vec<Concern>,
}

/// What of a class matters for a rule.
#[derive(Clone, Debug, Default)]
struct Concern {
    /// Bits of the gate's fields that it names.
    bits: u64,
    /// Parts that hold fields which it names.
    presence: u8,
    /// Whether it asks for the resource.
    has_resource: bool,
    /// The resources that it names; none where it asks for more than equality.
    resources: Option<Vec<u32>>,
}

/// From so many rules on, those that a cheap clause can find are kept out of the classes.
pub const RULES_MANY: usize = 1_000;

/// The rules that events of one class can match.
#[derive(Clone, Debug, Default)]
struct Class {
    /// Fields whose text predicates are decided for every event.
    fields: Vec<FieldId>,
    /// Predicates that are decided one by one for every event.
    loose: Vec<PredicateId>,
    /// Per predicate, the rules that hang on it.
    postings: FxHashMap<PredicateId, Vec<RuleIndex>>,
    /// Rules of which nothing is left to hang them on.
    always: Vec<RuleIndex>,
}

/// The classes that a thread has met.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    met: FxHashMap<ClassKey, Arc<Class>>,
}

/// What events of one class have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassKey {
    /// Bits of the gate's fields.
    bits: u64,
    /// Number of the resource.
    resource: u32,
    /// Bits of [`PRESENCE`].
    presence: u8,
}

/// Parts of an event that many events lack, and with them every value that a rule could ask for.
const PRESENCE: [Slot; 6] = [
    Slot::RequestObject,
    Slot::ResponseObject,
    Slot::ImpersonatedUser,
    Slot::UserExtra,
    Slot::StatusMessage,
    Slot::UserAgent,
];

const ABSENT: u32 = 0;
/// A resource that no rule names as a whole.
const OTHER: u32 = u32::MAX;
/// A resource that cannot be told at a glance (escapes, capitals).
const UNCLEAR: u32 = u32::MAX - 1;

impl ClassKey {
    /// The bits of the gate's fields.
    pub fn bits(self) -> u64 {
        self.bits
    }
}

impl Index {
    /// Prepares the filter for a program whose expressions are the rules. `names_stage` says of a
    /// rule whether it asks for stages itself; the others never match RequestReceived (contract).
    pub fn new(program: &Program, names_stage: &[bool]) -> Index {
        let is_audit = program.fields().shape() == Shape::Audit;
        let fields = program.fields();
        let rules = program.expressions().iter().zip(names_stage);
        let gates = rules
            .map(|(expression, names_stage)| match (is_audit, names_stage) {
                (false, _) => u64::MAX,
                (true, true) => gate::gate(program, expression),
                (true, false) => gate::gate(program, expression) & !gate::REQUEST_RECEIVED,
            })
            .collect();
        let candidate_ns = program
            .expressions()
            .iter()
            .map(|expression| {
                let mut asked = Vec::new();
                clause::sources(program, expression, &mut asked);
                cost::candidate_ns(fields, asked.into_iter())
            })
            .collect();
        let mut index = Index {
            gates,
            clauses: program.expressions().iter().map(|e| clause::clauses(program, e)).collect(),
            candidate_ns,
            gate_fields: Vec::new(),
            resource_field: None,
            roots: (0..fields.len()).map(|id| roots(program, FieldId(id as u32))).collect(),
            resources: FxHashMap::default(),
            resource_names: vec!["".into()],
            general: Arc::default(),
            common: Class::default(),
            is_common: vec![false; program.expressions().len()],
            concerns: Vec::new(),
        };
        if program.expressions().len() >= RULES_MANY {
            index.find_common(program);
        }
        if is_audit {
            let names: Vec<&str> = gate::values_of(0).map(|(name, _)| name).collect();
            for number in 0..fields.len() {
                let field = FieldId(number as u32);
                let name = &**fields.name(field);
                if let Some(name) = names.iter().find(|known| **known == name) {
                    index.gate_fields.push((field, name));
                }
                if name == Slot::Resource.path() {
                    index.resource_field = Some(field);
                }
            }
            index.number_resources(program);
            let rules = program.expressions().iter();
            index.concerns = rules.map(|expression| index.concern(program, expression)).collect();
        }
        index.general = Arc::new(index.class(program, u64::MAX, &|_| Known::Unknown));
        index
    }

    fn find_common(&mut self, program: &Program) {
        for (rule, clauses) in self.clauses.iter().enumerate() {
            let is_cheap = |clause: &&Vec<PredicateId>| {
                clause.iter().all(|id| cost::is_selective(program.fields(), program.predicate(*id)))
            };
            let share = |clause: &Vec<PredicateId>| {
                let shares = clause.iter().map(|id| program.predicate(*id));
                shares.map(|one| cost::share(program.fields(), one)).sum::<f64>()
            };
            let cheap = clauses.iter().filter(is_cheap);
            if let Some(clause) = cheap.min_by(|a, b| share(a).total_cmp(&share(b))) {
                self.common.hang(program, rule as RuleIndex, Some(clause));
                self.is_common[rule] = true;
            }
        }
    }

    fn number_resources(&mut self, program: &Program) {
        for number in 0..program.predicates() {
            let predicate = program.predicate(PredicateId(number as u32));
            let Check::Text { text, place: Place::Whole, cased: false } = &predicate.check else {
                continue;
            };
            if Some(predicate.field) == self.resource_field
                && !self.resources.contains_key(text.as_bytes())
            {
                self.resources.insert(text.as_bytes().into(), self.resource_names.len() as u32);
                self.resource_names.push(text.clone());
            }
        }
    }

    /// The class of events with these bits of which this is known.
    fn class<'k>(
        &self,
        program: &Program,
        bits: u64,
        known: &dyn Fn(FieldId) -> Known<'k>,
    ) -> Class {
        let mut left: Vec<(RuleIndex, Vec<Vec<PredicateId>>)> = Vec::new();
        let mut users: FxHashMap<Reading, f64> = FxHashMap::default();
        for (position, expression) in program.expressions().iter().enumerate() {
            let passes = bits == u64::MAX || self.gates[position] & bits == bits;
            let is_open = passes && !self.is_common[position];
            if !is_open || !gate::possible(program, expression, known).holds {
                continue;
            }
            let clauses = open_clauses(program, &self.clauses[position], known);
            let ids = clauses.iter().flatten();
            let mut read: Vec<_> = ids.map(|id| Reading::of(program, *id)).collect();
            read.sort();
            read.dedup();
            read.into_iter().for_each(|reading| *users.entry(reading).or_default() += 1.0);
            left.push((position as RuleIndex, clauses));
        }
        let mut class = Class::default();
        for (rule, clauses) in left {
            let candidate_ns = self.candidate_ns[rule as usize];
            let best = clauses.iter().min_by(|left, right| {
                let price = |one: &[PredicateId]| clause::price(program, one, candidate_ns, &users);
                price(left).total_cmp(&price(right))
            });
            class.hang(program, rule, best.map(Vec::as_slice));
        }
        class.fields.sort();
        class.loose.sort();
        class
    }

    /// Collects the rules that can match, each once, ascending.
    pub fn candidates(
        &self,
        program: &Program,
        classes: &mut Classes,
        state: &mut State,
        subject: Subject<'_>,
        candidates: &mut Vec<RuleIndex>,
    ) {
        // Of other JSON nothing is known; every gate lets it pass.
        let (class, bits) = match subject {
            Subject::Audit(event) => {
                let key = self.key_of(event);
                (self.class_of(program, classes, key), key.bits)
            }
            Subject::Json(_) => (Arc::clone(&self.general), 0),
        };
        class.collect(program, state, subject, &|_| true, candidates);
        self.common(program, bits, state, subject, candidates);
        candidates.sort_unstable();
        candidates.dedup();
    }

    /// The class of an event.
    #[inline]
    pub fn key_of(&self, event: &Event<'_>) -> ClassKey {
        ClassKey {
            bits: gate::bits_of(event),
            resource: self.resource_of(event),
            presence: presence_of(event),
        }
    }

    /// The rules that events of a class can match, as far as the gate tells; those that are found
    /// by themselves ([`Index::common`]) are left out.
    pub fn rules_of(&self, key: ClassKey) -> impl Iterator<Item = RuleIndex> {
        let gates = self.gates.iter().zip(&self.is_common).enumerate();
        gates
            .filter(move |(_, (gate, is_common))| **gate & key.bits == key.bits && !**is_common)
            .map(|(rule, _)| rule as RuleIndex)
    }

    /// What of a condition depends on the class of an event.
    fn concern(&self, program: &Program, expression: &Expression) -> Concern {
        let mut concern = Concern { resources: Some(Vec::new()), ..Concern::default() };
        expression.each_predicate(&mut |id| {
            let Predicate { field, check } = program.predicate(id);
            concern.presence |= self.roots[field.0 as usize];
            let gate_field = self.gate_fields.iter().find(|(known, _)| known == field);
            concern.bits |= gate_field.map_or(0, |(_, name)| gate::mask_of(name));
            if Some(*field) == self.resource_field {
                concern.has_resource = true;
                match check {
                    Check::Text { text, place: Place::Whole, cased: false } => {
                        let number = self.resources.get(text.as_bytes()).copied();
                        concern.resources.iter_mut().for_each(|known| known.extend(number));
                    }
                    Check::Null | Check::Exists(_) => {}
                    _ => concern.resources = None,
                }
            }
        });
        concern
    }

    /// As much of a class as a rule's condition depends on: of all classes that have this in common
    /// the same is known for it.
    pub fn concerning(&self, rule: RuleIndex, key: ClassKey) -> ClassKey {
        let concern = &self.concerns[rule as usize];
        let resource = match (&concern.resources, key.resource) {
            _ if !concern.has_resource => ABSENT,
            (_, special @ (ABSENT | OTHER | UNCLEAR)) => special,
            (Some(named), number) if !named.contains(&number) => OTHER,
            (_, number) => number,
        };
        let presence = key.presence & concern.presence;
        ClassKey { bits: key.bits & concern.bits, resource, presence }
    }

    /// What is known of each field in events of a class.
    pub fn known_of(&self, key: ClassKey) -> Vec<Known<'_>> {
        (0..self.roots.len()).map(|field| self.known(key, FieldId(field as u32))).collect()
    }

    fn known(&self, key: ClassKey, field: FieldId) -> Known<'_> {
        let roots = self.roots[field.0 as usize];
        if roots != 0 && roots & key.presence == 0 {
            return Known::Absent;
        }
        if Some(field) == self.resource_field {
            return match key.resource {
                ABSENT => Known::Absent,
                OTHER => Known::Other,
                UNCLEAR => Known::Unknown,
                number => Known::Value(&self.resource_names[number as usize]),
            };
        }
        let name = self.gate_fields.iter().find(|(known, _)| *known == field);
        let Some((_, name)) = name else { return Known::Unknown };
        let mut values = gate::values_of(key.bits);
        values.find(|(known, _)| known == name).map_or(Known::Unknown, |(_, value)| value)
    }

    fn class_of(&self, program: &Program, classes: &mut Classes, key: ClassKey) -> Arc<Class> {
        if let Some(class) = classes.met.get(&key) {
            return Arc::clone(class);
        }
        let is_received = key.bits & gate::REQUEST_RECEIVED != 0;
        if classes.met.len() >= CLASSES_MAX && !is_received {
            return Arc::clone(&self.general);
        }
        let known = self.known_of(key);
        let class = self.class(program, key.bits, &|field| known[field.0 as usize]);
        let class = Arc::new(class);
        if classes.met.len() < CLASSES_MAX {
            classes.met.insert(key, Arc::clone(&class));
        }
        class
    }

    /// Of many rules, those that hang on a field which is cheap to read for every event and that
    /// can match one with these bits of the gate: added in no order, perhaps twice.
    pub fn common(
        &self,
        program: &Program,
        bits: u64,
        state: &mut State,
        subject: Subject<'_>,
        candidates: &mut Vec<RuleIndex>,
    ) {
        if !self.common.postings.is_empty() {
            let passes = |rule: RuleIndex| self.gates[rule as usize] & bits == bits;
            self.common.collect(program, state, subject, &passes, candidates);
        }
    }

    fn resource_of(&self, event: &Event<'_>) -> u32 {
        let Some(value) = event.slot(Slot::Resource) else { return ABSENT };
        match value.plain() {
            Some(plain) if plain.iter().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) => {
                self.resources.get(plain).copied().unwrap_or(OTHER)
            }
            _ => UNCLEAR,
        }
    }
}

fn presence_of(event: &Event<'_>) -> u8 {
    let parts = PRESENCE.iter().enumerate();
    parts.map(|(bit, slot)| u8::from(event.slot(*slot).is_some()) << bit).sum()
}

/// The bits of the parts in which a field's values can stand.
fn roots(program: &Program, field: FieldId) -> u8 {
    let bit_of = |slot: Slot| PRESENCE.iter().position(|known| *known == slot).map(|bit| 1 << bit);
    match program.fields().source(field) {
        Source::Slot(slot) | Source::Element(slot, _) => bit_of(slot).unwrap_or(0),
        Source::Rewrite(base, _) => roots(program, base),
        Source::Derived(Derived::UserAgentFamily) => bit_of(Slot::UserAgent).unwrap_or(0),
        Source::Derived(Derived::CredentialId) => bit_of(Slot::UserExtra).unwrap_or(0),
        Source::Walk(walked) => {
            let groups = program.fields().groups().iter().enumerate();
            let used = groups.filter(|(bit, _)| walked & (1 << bit) != 0);
            let bits: Option<Vec<u8>> =
                used.map(|(_, group)| group.slot.and_then(bit_of)).collect();
            bits.map_or(0, |bits| bits.into_iter().fold(0, |all, bit| all | bit))
        }
        Source::Derived(_) | Source::Whole => 0,
    }
}

/// The clauses that say something beyond what is known: those with a predicate that holds anyway
/// are satisfied, predicates that cannot hold are left out.
fn open_clauses<'k>(
    program: &Program,
    clauses: &[Vec<PredicateId>],
    known: &dyn Fn(FieldId) -> Known<'k>,
) -> Vec<Vec<PredicateId>> {
    let mut open = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let mut left = Vec::new();
        let is_satisfied = clause.iter().any(|id| {
            let predicate = program.predicate(*id);
            let possible = gate::decided(&predicate.check, known(predicate.field));
            if possible.holds && possible.fails {
                left.push(*id);
            }
            !possible.fails
        });
        if !is_satisfied {
            open.push(left);
        }
    }
    open
}

impl Class {
    /// Adds the rules that pass and whose clause holds, in no order, perhaps twice.
    fn collect(
        &self,
        program: &Program,
        state: &mut State,
        subject: Subject<'_>,
        passes: &dyn Fn(RuleIndex) -> bool,
        candidates: &mut Vec<RuleIndex>,
    ) {
        for &field in &self.fields {
            program.share(field, state, subject);
        }
        for &id in &self.loose {
            program.test(id, state, subject);
        }
        candidates.extend(self.always.iter().copied().filter(|rule| passes(*rule)));
        for index in 0..state.decided().len() {
            let id = state.decided()[index];
            if let Some(rules) = self.postings.get(&id)
                && program.test(id, state, subject)
            {
                candidates.extend(rules.iter().copied().filter(|rule| passes(*rule)));
            }
        }
    }

    fn hang(&mut self, program: &Program, rule: RuleIndex, clause: Option<&[PredicateId]>) {
        let Some(clause) = clause else {
            self.always.push(rule);
            return;
        };
        for &id in clause {
            let predicate = program.predicate(id);
            if FieldMatcher::decides(&predicate.check) {
                if !self.fields.contains(&predicate.field) {
                    self.fields.push(predicate.field);
                }
            } else if !self.loose.contains(&id) {
                self.loose.push(id);
            }
            let rules = self.postings.entry(id).or_default();
            if rules.last() != Some(&rule) {
                rules.push(rule);
            }
        }
    }
}
