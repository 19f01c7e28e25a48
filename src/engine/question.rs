//! What there is to ask about predicates: which are answered together, and what an answer costs.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::engine::cost;
use crate::engine::facet::{FacetId, Facets};
use crate::engine::field::{FieldId, Source};
use crate::engine::index::RuleIndex;
use crate::engine::matcher::FieldMatcher;
use crate::engine::predicate::PredicateId;
use crate::engine::program::{Expression, Program};

/// What there is to ask about each predicate: the same for all graphs of a program.
#[derive(Debug)]
pub struct Questions {
    list: Vec<Question>,
    facets: Facets,
    /// Per rule, its condition as it is asked.
    expressions: Vec<Expression>,
}

/// What there is to ask about one predicate.
#[derive(Debug)]
pub struct Question {
    /// Predicates that one question decides name the first of them.
    pub topic: PredicateId,
    /// The facet that decides it, if one does.
    pub facet: Option<FacetId>,
    /// Nanoseconds to get the answer.
    pub cost_ns: f32,
    /// The field whose presence decides whether the predicate's field has values.
    pub root: FieldId,
    /// Whether presence is worth asking for: the field is one of many in a subtree.
    pub is_walked: bool,
    /// Whether reading it means walking a body.
    pub is_in_body: bool,
}

impl Questions {
    /// The questions of a program.
    pub fn new(program: &Program) -> Questions {
        let fields = program.fields();
        let facets = Facets::new(program);
        let mut first_of: FxHashMap<FieldId, PredicateId> = FxHashMap::default();
        let mut first_in: FxHashMap<FacetId, PredicateId> = FxHashMap::default();
        let ids = (0..program.predicates()).map(|number| PredicateId(number as u32));
        let question = |id: PredicateId| {
            let predicate = program.predicate(id);
            let is_text = FieldMatcher::decides(&predicate.check);
            let check_ns = if is_text { 0.0 } else { cost::check_ns(&predicate.check) };
            let facet = facets.of(id);
            let (topic, cost_ns) = match facet {
                Some(facet) => {
                    (*first_in.entry(facet).or_insert(id), facets.cost_ns(facet, fields))
                }
                None if is_text => (
                    *first_of.entry(predicate.field).or_insert(id),
                    cost::field_ns(fields, predicate.field),
                ),
                None => (id, cost::field_ns(fields, predicate.field) + check_ns),
            };
            let root = match fields.source(predicate.field) {
                Source::Rewrite(base, _) => base,
                _ => predicate.field,
            };
            Question {
                topic,
                facet,
                cost_ns: cost_ns as f32,
                root,
                is_walked: facet.is_none() && matches!(fields.source(root), Source::Walk(_)),
                is_in_body: cost::is_in_body(fields, predicate),
            }
        };
        let list = ids.map(question).collect();
        let rules = program.expressions().iter();
        let expressions = rules.map(|expression| asked(program, &facets, expression)).collect();
        Questions { list, facets, expressions }
    }

    /// The condition of a rule: without names, and with what is cheap to ask before a predicate
    /// that is decided by itself.
    pub fn expression(&self, rule: RuleIndex) -> &Expression {
        &self.expressions[rule as usize]
    }

    /// The facets.
    pub fn facets(&self) -> &Facets {
        &self.facets
    }

    /// The question of a predicate.
    pub fn of(&self, id: PredicateId) -> &Question {
        &self.list[id.0 as usize]
    }

    /// The topics of an expression; one on which a whole conjunct depends counts more, for it
    /// decides alone when the answer is no.
    pub fn weigh(
        &self,
        expression: &Expression,
        asks: &[PredicateId],
    ) -> Box<[(PredicateId, f32)]> {
        const NECESSARY: f32 = 1.0;
        const MENTIONED: f32 = 0.1;
        let mut topics: Vec<_> = asks.iter().map(|id| (self.of(*id).topic, MENTIONED)).collect();
        let conjuncts: &[Expression] = match expression {
            Expression::And(parts) => parts,
            whole => std::slice::from_ref(whole),
        };
        let necessary = conjuncts.iter().filter_map(|part| self.only_topic(part));
        topics.extend(necessary.map(|topic| (topic, NECESSARY)));
        topics.sort_by_key(|(topic, _)| *topic);
        topics.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            if is_same {
                first.1 += later.1;
            }
            is_same
        });
        topics.into()
    }

    /// The one topic that an expression is about, if it is one.
    fn only_topic(&self, expression: &Expression) -> Option<PredicateId> {
        match expression {
            Expression::And(parts) | Expression::Or(parts) => {
                let first = self.only_topic(parts.first()?)?;
                let is_one = parts[1..].iter().all(|part| self.only_topic(part) == Some(first));
                is_one.then_some(first)
            }
            Expression::Not(part) | Expression::Named(_, part) => self.only_topic(part),
            Expression::Predicate(id) => Some(self.of(*id).topic),
        }
    }
}

/// An expression as it is asked.
fn asked(program: &Program, facets: &Facets, expression: &Expression) -> Expression {
    let part = |part: &Expression| asked(program, facets, part);
    match expression {
        Expression::And(parts) => {
            let mut all = Vec::with_capacity(parts.len());
            for one in parts.iter().map(part) {
                match one {
                    Expression::And(inner) => all.extend(inner.iter().cloned()),
                    one => all.push(one),
                }
            }
            Expression::And(all.into())
        }
        Expression::Or(parts) => Expression::Or(parts.iter().map(part).collect()),
        Expression::Not(inner) => Expression::Not(Arc::new(part(inner))),
        Expression::Named(_, inner) => part(inner),
        Expression::Predicate(id) => match program.necessary(*id) {
            [_, ..] if facets.of(*id).is_none() => {
                let necessary = program.necessary(*id).iter().copied();
                let any = necessary.map(Expression::Predicate).collect();
                Expression::And([Expression::Or(any), Expression::Predicate(*id)].into())
            }
            _ => expression.clone(),
        },
    }
}
