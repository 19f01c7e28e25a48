//! Conditions on their way into one program: fields interned, predicates shared, parts of a
//! conjunction ordered by what they cost.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::engine::Error;
use crate::engine::cost;
use crate::engine::field::{FieldId, FieldTable, Shape, Source};
use crate::engine::literal::{self, Literal};
use crate::engine::matcher::FieldMatcher;
use crate::engine::predicate::{Check, Predicate, PredicateId};
use crate::engine::program::{Expression, Program};
use crate::engine::search::LazyRegex;
use crate::rule::{Condition, Matcher, Place, Quantifier, Test};

/// Whether a condition on an element only says what its value is, never what it is not: of an
/// element that is not there neither can be said.
fn is_about_value(condition: &Condition) -> bool {
    match condition {
        Condition::And(parts) | Condition::Or(parts) => parts.iter().all(is_about_value),
        Condition::Named(_, part) => is_about_value(part),
        Condition::Not(_) => false,
        Condition::Test(test) => {
            let is_of_value = matches!(
                test.matcher,
                Matcher::Text { .. }
                    | Matcher::Regex { .. }
                    | Matcher::Cidr(_)
                    | Matcher::Compare { .. }
            );
            test.field.as_deref() == Some(".") && is_of_value
        }
    }
}

/// The same condition on a field.
fn on_field(condition: &Condition, name: &Arc<str>) -> Condition {
    let each = |parts: &[Condition]| parts.iter().map(|part| on_field(part, name)).collect();
    match condition {
        Condition::And(parts) => Condition::And(each(parts)),
        Condition::Or(parts) => Condition::Or(each(parts)),
        Condition::Not(part) => Condition::Not(Box::new(on_field(part, name))),
        Condition::Named(title, part) => {
            Condition::Named(title.clone(), Box::new(on_field(part, name)))
        }
        Condition::Test(test) => {
            Condition::Test(Test { field: Some(Arc::clone(name)), matcher: test.matcher.clone() })
        }
    }
}

/// Collects conditions and compiles them.
#[derive(Debug)]
pub struct Builder {
    fields: FieldTable,
    predicates: Vec<Predicate>,
    labels: Vec<Box<str>>,
    necessary: Vec<Box<[PredicateId]>>,
    known: FxHashMap<(FieldId, Box<str>), PredicateId>,
    expressions: Vec<Expression>,
}

/// What a matcher is known by: its label, or all of it where labels of different ones are equal: of
/// blocks, and of a whole number and the float beside it.
fn key(matcher: &Matcher, label: &str) -> Box<str> {
    match matcher {
        Matcher::Elements { .. } | Matcher::Compare { .. } => format!("\u{1}{matcher:?}").into(),
        _ => label.into(),
    }
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
            Condition::Not(part) => Expression::Not(Arc::new(self.expression(part)?)),
            Condition::Named(name, part) => {
                Expression::Named(name.clone(), Arc::new(self.expression(part)?))
            }
            Condition::Test(test) => match self.element(test)? {
                Some(expression) => expression,
                None => Expression::Predicate(self.predicate(test)?),
            },
        })
    }

    /// A test of what one element of a slot's array is (`sourceIPs[0]: '::1'`), as tests of a field
    /// of its own: they are then decided with all others of the slot.
    fn element(&mut self, test: &Test) -> Result<Option<Expression>, Error> {
        let Matcher::Elements { quantifier: Quantifier::Index(place), inner } = &test.matcher
        else {
            return Ok(None);
        };
        let Some(name) = test.field.as_deref().filter(|_| is_about_value(inner)) else {
            return Ok(None);
        };
        let Some(field) = self.fields.intern_element(name, *place) else { return Ok(None) };
        let name = Arc::clone(self.fields.name(field));
        self.expression(&on_field(inner, &name)).map(Some)
    }

    /// The parts of a conjunction or disjunction, cheapest first: what is decided by a slot spares
    /// a walk through a body.
    fn parts(&mut self, parts: &[Condition]) -> Result<Arc<[Expression]>, Error> {
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
            Some(name) => match &test.matcher {
                Matcher::Elements { quantifier: Quantifier::Index(place), .. } => {
                    let element = self.fields.intern_walked_element(name, *place);
                    element.unwrap_or_else(|| self.fields.intern(name))
                }
                _ => self.fields.intern(name),
            },
            None => self.fields.intern_whole(),
        };
        let label: Box<str> = crate::engine::explain::label(&test.matcher).into();
        let key = (field, key(&test.matcher, &label));
        if let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        let check = match self.check(&test.matcher, test.field.is_none())? {
            // Of several arrays the element of one is enough.
            Check::Elements(Quantifier::Index(_), block)
                if matches!(self.fields.source(field), Source::Walk(_)) =>
            {
                Check::Elements(Quantifier::Any, block)
            }
            check => check,
        };
        let necessary = self.literals_of(field, &check);
        let id = self.push(Predicate { field, check }, label, necessary);
        self.known.insert(key, id);
        Ok(id)
    }

    fn push(
        &mut self,
        predicate: Predicate,
        label: Box<str>,
        necessary: Box<[PredicateId]>,
    ) -> PredicateId {
        let id = PredicateId(self.predicates.len() as u32);
        self.predicates.push(predicate);
        self.labels.push(label);
        self.necessary.push(necessary);
        id
    }

    /// For a pattern with wildcards or a regular expression, the predicates that its longest
    /// literal, or that of one of its alternatives, is somewhere in the text: decided together with
    /// all others, and nearly always enough to say no.
    fn literals_of(&mut self, field: FieldId, check: &Check) -> Box<[PredicateId]> {
        /// Shorter literals are in too many texts to be worth it.
        const LITERAL_MIN: usize = 3;
        let literals = match check {
            Check::Wildcard { pattern, cased } => {
                vec![Literal { text: pattern.literal().into(), cased: *cased }]
            }
            // The event as a whole is read as it is written or unescaped, as it is convenient.
            Check::Regex(regex) if self.fields.source(field) != Source::Whole => {
                literal::needed(regex.source())
            }
            _ => Vec::new(),
        };
        if literals.iter().any(|literal| literal.text.len() < LITERAL_MIN) {
            return Box::default();
        }
        literals.into_iter().map(|literal| self.inside(field, literal)).collect()
    }

    /// The predicate that a text is somewhere in the values of a field.
    fn inside(&mut self, field: FieldId, Literal { text, cased }: Literal) -> PredicateId {
        let label: Box<str> = format!("\u{0}{}{text}", u8::from(cased)).into();
        let key = (field, label.clone());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let check = Check::Text { text: text.into(), place: Place::Inside, cased };
        let id = self.push(Predicate { field, check }, label, Box::default());
        self.known.insert(key, id);
        id
    }

    fn check(&mut self, matcher: &Matcher, is_keyword: bool) -> Result<Check, Error> {
        Ok(match matcher {
            Matcher::Text { pattern, cased } if is_keyword => {
                Check::of_pattern(&crate::engine::cost::anywhere(pattern), *cased)
            }
            Matcher::Text { pattern, cased } => Check::of_pattern(pattern, *cased),
            Matcher::Regex { source } => Check::Regex(LazyRegex::new(source)),
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
        let is_of_value = |Predicate { field, check }: &Predicate| {
            !check.is_about_field() && &**self.fields.name(*field) == "."
        };
        let is_of_value = self.predicates.iter().all(is_of_value);
        Ok(Program {
            is_of_value,
            fields: self.fields,
            predicates: self.predicates,
            labels: self.labels,
            necessary: self.necessary,
            shared,
            expressions: self.expressions,
        })
    }
}
