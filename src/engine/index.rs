//! Which rules can still match an event: the two filters before any condition is evaluated.
//!
//! The **index** hangs every rule on one necessary clause, a set of predicates of which at least one
//! holds whenever the rule does; a rule is a candidate only when a predicate of its clause holds. The
//! clause with the least expected cost wins.
//!
//! The **gate** is a bit mask: for a few fields with few values (verb, stage, kind of actor, outcome,
//! subresource) it says under which values the rule's condition can hold at all, found by evaluating
//! the condition in three-valued logic with everything else unknown.

use rustc_hash::FxHashMap;

use crate::engine::cost;
use crate::engine::field::{FieldId, Shape, Source};
use crate::engine::matcher::FieldMatcher;
use crate::engine::predicate::{Check, PredicateId};
use crate::engine::program::{Expression, Program, State};
use crate::engine::values::{Item, Subject};
use crate::event::derived::{Outcome, actor_kind};
use crate::event::{Event, Slot};

/// Position of a detection among the compiled expressions.
pub type RuleIndex = u32;

/// The two filters.
#[derive(Clone, Debug)]
pub struct Index {
    gates: Vec<u64>,
    /// Fields whose text predicates are decided for every event.
    fields: Vec<FieldId>,
    /// Predicates that are decided one by one for every event.
    loose: Vec<PredicateId>,
    /// Per predicate, the rules that hang on it.
    postings: FxHashMap<PredicateId, Vec<RuleIndex>>,
    /// Rules without a necessary clause.
    always: Vec<RuleIndex>,
}

/// A field of the gate: its name, the values that have a bit, and whether absence has one. One more
/// bit stands for every other value.
struct GateField {
    name: &'static str,
    values: &'static [&'static str],
}

const VERBS: [&str; 11] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "post",
    "put",
    "head",
];
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const KINDS: [&str; 5] = ["user", "service_account", "node", "anonymous", "system"];
const OUTCOMES: [&str; 4] = ["success", "denied", "failed", "unknown"];
const SUBRESOURCES: [&str; 12] = [
    "status",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "token",
    "log",
    "scale",
    "binding",
    "eviction",
    "approval",
    "ephemeralcontainers",
];

const GATE: [GateField; 5] = [
    GateField { name: "verb", values: &VERBS },
    GateField { name: "stage", values: &STAGES },
    GateField { name: "actor.kind", values: &KINDS },
    GateField { name: "request.outcome", values: &OUTCOMES },
    GateField { name: "objectRef.subresource", values: &SUBRESOURCES },
];

/// Where a gate field's bits begin; behind its values come "absent" and "another value".
const fn gate_offset(field: usize) -> usize {
    let mut offset = 0;
    let mut index = 0;
    while index < field {
        offset += GATE[index].values.len() + 2;
        index += 1;
    }
    offset
}

const _: () = assert!(gate_offset(GATE.len()) <= 64, "the gate fits 64 bits");

const REQUEST_RECEIVED: u64 = 1 << gate_offset(1);

impl Index {
    /// Builds the filters for a program whose expressions are the rules. `names_stage` says of a rule
    /// whether it asks for stages itself; the others never match RequestReceived (contract).
    pub fn new(program: &Program, names_stage: &[bool]) -> Index {
        let is_audit = program.fields().shape() == Shape::Audit;
        let gates: Vec<u64> = program
            .expressions()
            .iter()
            .zip(names_stage)
            .map(|(expression, names_stage)| match (is_audit, names_stage) {
                (false, _) => u64::MAX,
                (true, true) => gate(program, expression),
                (true, false) => gate(program, expression) & !REQUEST_RECEIVED,
            })
            .collect();
        let mut index = Index {
            gates,
            fields: Vec::new(),
            loose: Vec::new(),
            postings: FxHashMap::default(),
            always: Vec::new(),
        };
        let clauses: Vec<_> = program.expressions().iter().map(|e| clauses(program, e)).collect();
        let mut users: FxHashMap<Reading, f64> = FxHashMap::default();
        for clauses in &clauses {
            let mut read: Vec<_> =
                clauses.iter().flatten().map(|id| Reading::of(program, *id)).collect();
            read.sort();
            read.dedup();
            read.into_iter().for_each(|reading| *users.entry(reading).or_default() += 1.0);
        }
        for (position, clauses) in clauses.iter().enumerate() {
            let fields = program.fields();
            let mut asked = Vec::new();
            sources(program, &program.expressions()[position], &mut asked);
            let candidate_ns =
                gate_share(index.gates[position]) * cost::candidate_ns(fields, asked.into_iter());
            let best = clauses.iter().min_by(|left, right| {
                let price = |clause: &[PredicateId]| price(program, clause, candidate_ns, &users);
                price(left).total_cmp(&price(right))
            });
            index.hang(program, position as RuleIndex, best.map(Vec::as_slice));
        }
        index.fields.sort();
        index.loose.sort();
        index
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

    /// Collects the rules that can match, each once, in no particular order.
    pub fn candidates(
        &self,
        program: &Program,
        state: &mut State,
        subject: Subject<'_>,
        candidates: &mut Vec<RuleIndex>,
    ) {
        let bits = match subject {
            Subject::Audit(event) => gate_bits(event),
            Subject::Json(_) => u64::MAX,
        };
        let passes = |rule: &RuleIndex| self.gates[*rule as usize] & bits == bits;
        for &field in &self.fields {
            program.share(field, state, subject);
        }
        for &id in &self.loose {
            program.test(id, state, subject);
        }
        candidates.extend(self.always.iter().filter(|rule| passes(rule)));
        for index in 0..state.decided().len() {
            let id = state.decided()[index];
            let Some(rules) = self.postings.get(&id) else { continue };
            if program.test(id, state, subject) {
                candidates.extend(rules.iter().filter(|rule| passes(rule)));
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
    }

    /// For a report on the index: rules that every event meets, fields read for every event.
    pub fn sizes(&self) -> (usize, usize) {
        (self.always.len(), self.fields.len() + self.loose.len())
    }
}

/// Expected nanoseconds an event for hanging a rule on this clause, where refusing the rule as a
/// candidate costs `candidate_ns`.
fn price(
    program: &Program,
    clause: &[PredicateId],
    candidate_ns: f64,
    users: &FxHashMap<Reading, f64>,
) -> f64 {
    let fields = program.fields();
    let mut read = Vec::new();
    let mut price = 0.0;
    for id in clause {
        let predicate = program.predicate(*id);
        price += cost::share(fields, predicate) * candidate_ns + cost::check_ns(&predicate.check);
        let reading = Reading::of(program, *id);
        if !read.contains(&reading) {
            read.push(reading);
            let is_in_body = cost::is_in_body(fields, predicate);
            let readers = users.get(&reading).copied().filter(|_| !is_in_body).unwrap_or(1.0);
            price += cost::field_ns(fields, predicate) / readers;
        }
    }
    price
}

/// What is read once for all rules that ask for it: a field, or the subtree that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reading {
    Field(FieldId),
    Groups(u32),
}

impl Reading {
    fn of(program: &Program, id: PredicateId) -> Reading {
        let field = program.predicate(id).field;
        match program.fields().source(field) {
            Source::Walk(groups) => Reading::Groups(groups),
            _ => Reading::Field(field),
        }
    }
}

/// Where the fields of an expression are found.
fn sources(program: &Program, expression: &Expression, found: &mut Vec<Source>) {
    match expression {
        Expression::And(parts) | Expression::Or(parts) => {
            parts.iter().for_each(|part| sources(program, part, found));
        }
        Expression::Not(part) | Expression::Named(_, part) => sources(program, part, found),
        Expression::Predicate(id) => {
            found.push(program.fields().source(program.predicate(*id).field));
        }
    }
}

/// The share of events that pass a gate.
fn gate_share(gate: u64) -> f64 {
    let shares = cost::GATE_SHARES.iter().enumerate();
    shares
        .map(|(field, shares)| {
            let offset = gate_offset(field);
            let passing = shares.iter().enumerate();
            passing
                .filter(|(bit, _)| gate & (1 << (offset + bit)) != 0)
                .map(|(_, s)| s)
                .sum::<f64>()
        })
        .product()
}

/// Necessary clauses of an expression: each is a set of predicates of which one holds whenever the
/// expression does.
fn clauses(program: &Program, expression: &Expression) -> Vec<Vec<PredicateId>> {
    /// Clauses longer than this are no help and make the index large.
    const CLAUSE_MAX: usize = 4_096;
    match expression {
        Expression::Predicate(id) => vec![vec![program.necessary(*id).unwrap_or(*id)]],
        Expression::Named(_, part) => clauses(program, part),
        Expression::And(parts) => parts.iter().flat_map(|part| clauses(program, part)).collect(),
        Expression::Or(parts) => {
            let mut union = Vec::new();
            for part in parts {
                // Of each branch the best clause: the union is what must be watched.
                let best = clauses(program, part).into_iter().min_by(|left, right| {
                    rough_price(program, left).total_cmp(&rough_price(program, right))
                });
                match best {
                    Some(clause) => union.extend(clause),
                    None => return Vec::new(),
                }
            }
            union.sort();
            union.dedup();
            if union.len() > CLAUSE_MAX { Vec::new() } else { vec![union] }
        }
        Expression::Not(_) => Vec::new(),
    }
}

/// The price of a clause before it is known how many rules share its fields.
fn rough_price(program: &Program, clause: &[PredicateId]) -> f64 {
    const CANDIDATE_NS: f64 = 150.0;
    const READERS: f64 = 20.0;
    let fields = program.fields();
    let price = |id: &PredicateId| {
        let predicate = program.predicate(*id);
        let readers = if cost::is_in_body(fields, predicate) { 1.0 } else { READERS };
        cost::share(fields, predicate) * CANDIDATE_NS
            + cost::field_ns(fields, predicate) / readers
            + cost::check_ns(&predicate.check)
    };
    clause.iter().map(price).sum()
}

/// Whether an expression can hold, and whether it can fail.
#[derive(Clone, Copy)]
struct Possible {
    holds: bool,
    fails: bool,
}

/// The gate of an expression: the bits of all values under which it can hold.
fn gate(program: &Program, expression: &Expression) -> u64 {
    let mut mask = 0;
    for (number, field) in GATE.iter().enumerate() {
        let offset = gate_offset(number);
        for (bit, value) in field.values.iter().enumerate() {
            if possible(program, expression, field.name, Some(value)).holds {
                mask |= 1 << (offset + bit);
            }
        }
        if possible(program, expression, field.name, None).holds {
            mask |= 1 << (offset + field.values.len());
        }
        mask |= 1 << (offset + field.values.len() + 1);
    }
    mask
}

fn possible(
    program: &Program,
    expression: &Expression,
    field: &str,
    value: Option<&str>,
) -> Possible {
    let part = |part: &Expression| possible(program, part, field, value);
    match expression {
        Expression::And(parts) => Possible {
            holds: parts.iter().all(|p| part(p).holds),
            fails: parts.iter().any(|p| part(p).fails),
        },
        Expression::Or(parts) => Possible {
            holds: parts.iter().any(|p| part(p).holds),
            fails: parts.iter().all(|p| part(p).fails),
        },
        Expression::Not(inner) => {
            let Possible { holds, fails } = part(inner);
            Possible { holds: fails, fails: holds }
        }
        Expression::Named(_, inner) => part(inner),
        Expression::Predicate(id) => {
            let predicate = program.predicate(*id);
            if &**program.fields().name(predicate.field) != field {
                return Possible { holds: true, fails: true };
            }
            let holds = match (&predicate.check, value) {
                (Check::FieldRef(..) | Check::Elements(..), _) => {
                    return Possible { holds: true, fails: true };
                }
                (Check::Null, value) => value.is_none(),
                (Check::Exists(wanted), value) => value.is_some() == *wanted,
                (check, Some(value)) => check.holds_on(&Item::Made(value)),
                (_, None) => false,
            };
            Possible { holds, fails: !holds }
        }
    }
}

/// The event's bit in each gate field.
#[inline]
fn gate_bits(event: &Event<'_>) -> u64 {
    let slot_bit = |number: usize, slot: Slot| {
        let values = GATE[number].values;
        let bit = match event.slot(slot) {
            None => values.len(),
            Some(value) => {
                let known = value
                    .plain()
                    .and_then(|text| values.iter().position(|known| known.as_bytes() == text));
                known.unwrap_or(values.len() + 1)
            }
        };
        1u64 << (gate_offset(number) + bit)
    };
    let kind = 1u64 << (gate_offset(2) + actor_kind(event) as usize);
    let outcome = 1u64 << (gate_offset(3) + Outcome::of(event.code()) as usize);
    slot_bit(0, Slot::Verb)
        | slot_bit(1, Slot::Stage)
        | kind
        | outcome
        | slot_bit(4, Slot::Subresource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::actor::ActorKind;

    #[test]
    fn bits_follow_the_order_of_the_enums() {
        for (kind, word) in [
            (ActorKind::User, "user"),
            (ActorKind::ServiceAccount, "service_account"),
            (ActorKind::Node, "node"),
            (ActorKind::Anonymous, "anonymous"),
            (ActorKind::System, "system"),
        ] {
            assert_eq!(KINDS[kind as usize], word);
            assert_eq!(kind.as_str(), word);
        }
        for (field, shares) in GATE.iter().zip(cost::GATE_SHARES) {
            assert_eq!(shares.len(), field.values.len() + 2, "{}", field.name);
        }
        for outcome in [Outcome::Success, Outcome::Denied, Outcome::Failed, Outcome::Unknown] {
            assert_eq!(OUTCOMES[outcome as usize], outcome.as_str());
        }
    }
}
