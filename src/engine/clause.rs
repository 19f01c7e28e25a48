//! Necessary clauses: sets of predicates of which one holds whenever a rule does, and their price.

use rustc_hash::FxHashMap;

use crate::engine::cost;
use crate::engine::field::{FieldId, Source};
use crate::engine::predicate::PredicateId;
use crate::engine::program::{Expression, Program};

/// Expected nanoseconds an event for hanging a rule on this clause, where refusing the rule as a
/// candidate costs `candidate_ns`.
pub fn price(
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
            price += cost::field_ns(fields, predicate.field) / readers;
        }
    }
    price
}

/// What is read once for all rules that ask for it: a field, or the subtree that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reading {
    /// A field by itself.
    Field(FieldId),
    /// The subtrees with these bits.
    Groups(u32),
}

impl Reading {
    /// The reading of a predicate's field.
    pub fn of(program: &Program, id: PredicateId) -> Reading {
        let field = program.predicate(id).field;
        match program.fields().source(field) {
            Source::Walk(groups) => Reading::Groups(groups),
            _ => Reading::Field(field),
        }
    }
}

/// Where the fields of an expression are found.
pub fn sources(program: &Program, expression: &Expression, found: &mut Vec<Source>) {
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

/// Necessary clauses of an expression: each is a set of predicates of which one holds whenever the
/// expression does.
pub fn clauses(program: &Program, expression: &Expression) -> Vec<Vec<PredicateId>> {
    /// Clauses longer than this are no help and make the index large.
    const CLAUSE_MAX: usize = 4_096;
    match expression {
        Expression::Predicate(id) => match program.necessary(*id) {
            [] => vec![vec![*id]],
            necessary => vec![necessary.to_vec()],
        },
        Expression::Named(_, part) => clauses(program, part),
        Expression::And(parts) => parts.iter().flat_map(|part| clauses(program, part)).collect(),
        Expression::Or(parts) => {
            let mut union = Vec::new();
            for part in parts.iter() {
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
            + cost::field_ns(fields, predicate.field) / readers
            + cost::check_ns(&predicate.check)
    };
    clause.iter().map(price).sum()
}
