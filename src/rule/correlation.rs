//! Correlation rules: what `correlation:` says, and the resolution of its references.
//!
//! Beside the specification's types there is `new_terms`. `generate` may stand at the root, where
//! the schema has it, or inside `correlation:`, where the reference implementation reads it.

use std::sync::Arc;

use crate::rule::condition::{self, Expression};
use crate::rule::keys::{line_of, normal_id, text, texts};
use crate::rule::problem::{Fault, did_you_mean};
use crate::rule::yaml::{Entry, Node, Value};
use crate::rule::{
    Aggregate, Comparison, Correlation, CorrelationKind, NewTerms, ORDERED_RULES_MAX,
    RuleExpression, TemporalCondition, Threshold,
};

const TYPES: [&str; 9] = [
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
    "new_terms",
];

const KEYS: [&str; 7] =
    ["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];

const OPERATORS: [(&str, Comparison); 6] = [
    ("gt", Comparison::Gt),
    ("gte", Comparison::Gte),
    ("lt", Comparison::Lt),
    ("lte", Comparison::Lte),
    ("eq", Comparison::Eq),
    ("neq", Comparison::Neq),
];

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

/// A correlation whose references are still as written.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The referenced rules, by id or name, in the order written.
    pub rules: Vec<String>,
    /// Whether the referenced rules still alert by themselves.
    pub generate: bool,
    line: usize,
    kind: Kind,
    group_by: Vec<Arc<str>>,
    aliases: Vec<DraftAlias>,
    timespan_us: i64,
}

/// An alias with its fields by rule, as written.
type DraftAlias = (Arc<str>, Vec<Entry>);

/// The kind before the names in an expression are resolved.
#[derive(Clone, Debug)]
enum Kind {
    Done(CorrelationKind),
    Expression { ordered: bool, expression: Expression, line: usize },
}

impl Kind {
    fn is_ordered(&self) -> bool {
        match self {
            Kind::Done(kind) => matches!(kind, CorrelationKind::TemporalOrdered(_)),
            Kind::Expression { ordered, .. } => *ordered,
        }
    }
}

/// A rule that can be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referent {
    /// Its id.
    pub id: Arc<str>,
    /// Its name.
    pub name: Option<String>,
}

impl Referent {
    fn is_called(&self, reference: &str) -> bool {
        *self.id == *normal_id(reference) || self.name.as_deref() == Some(reference)
    }
}

impl Draft {
    /// Reads what stands under `correlation:`; `generate` is the key of the document's root.
    ///
    /// # Errors
    /// The first fault in it.
    pub fn read(body: &Node, generate: Option<&Node>) -> Result<Draft, Fault> {
        let Value::Map(entries) = &body.value else {
            return Err(Fault::new(body.line, "correlation is a map"));
        };
        known_keys(entries, &KEYS, "correlation")?;
        let kind = kind(body)?;
        let mut rules = texts(body, "rules")?;
        if let (Kind::Expression { expression, .. }, true) = (&kind, rules.is_empty()) {
            rules = identifiers(expression);
        }
        if rules.is_empty() {
            return Err(Fault::new(body.line, "no rules; name the rules to correlate"));
        }
        let span = text(body, "timespan")?
            .ok_or_else(|| Fault::new(body.line, "no timespan; write for instance 5m"))?;
        let timespan_us =
            timespan(&span).map_err(|message| Fault::new(line_of(body, "timespan"), message))?;
        let generate = match generate.or_else(|| body.get("generate")).map(|n| (&n.value, n.line)) {
            None | Some((Value::Null, _)) => false,
            Some((Value::Bool(value), _)) => *value,
            Some((_, line)) => return Err(Fault::new(line, "generate is true or false")),
        };
        Ok(Draft {
            rules,
            generate,
            line: body.line,
            kind,
            group_by: texts(body, "group-by")?.into_iter().map(Arc::from).collect(),
            aliases: aliases(body)?,
            timespan_us,
        })
    }

    /// Resolves every reference.
    ///
    /// # Errors
    /// A reference that `find` does not know, or an alias or condition for a rule that is not
    /// listed.
    pub fn resolve<'a>(
        self,
        find: impl Fn(&str) -> Option<&'a Referent>,
        known: impl Fn(&str) -> String,
    ) -> Result<Correlation, Fault> {
        let line = self.line;
        let mut referents: Vec<&Referent> = Vec::with_capacity(self.rules.len());
        let mut names = Vec::with_capacity(self.rules.len());
        for reference in self.rules {
            let referent = find(&reference).ok_or_else(|| {
                let hint = known(&reference);
                Fault::new(line, format!("no rule with the id or name {reference:?}{hint}"))
            })?;
            // Listed twice it is met twice only where the order is of rules.
            if self.kind.is_ordered() || !referents.contains(&referent) {
                referents.push(referent);
                names.push(reference);
            }
        }
        let mut aliases = Vec::with_capacity(self.aliases.len());
        for (alias, entries) in &self.aliases {
            let mut fields = Vec::with_capacity(entries.len());
            for entry in entries {
                let rule = referents.iter().find(|referent| referent.is_called(&entry.key));
                let Some(rule) = rule else {
                    let message =
                        format!("alias {alias:?}: {:?} is not among the rules", entry.key);
                    return Err(Fault::new(entry.line, message));
                };
                let field = entry.value.scalar_text().ok_or_else(|| {
                    Fault::new(entry.line, format!("alias {alias:?}: a field is a text"))
                })?;
                fields.push((Arc::clone(&rule.id), Arc::from(field)));
            }
            aliases.push((Arc::clone(alias), fields));
        }
        let kind = match self.kind {
            Kind::Done(kind) => kind,
            Kind::Expression { ordered, expression, line } => {
                let expression = over_rules(&expression, &names, &referents)
                    .map_err(|message| Fault::new(line, format!("condition: {message}")))?;
                let condition = TemporalCondition::Expression(expression);
                match ordered {
                    true => CorrelationKind::TemporalOrdered(condition),
                    false => CorrelationKind::Temporal(condition),
                }
            }
        };
        let is_choice = matches!(&kind, CorrelationKind::TemporalOrdered(condition)
            if *condition != TemporalCondition::All);
        if is_choice && referents.len() > ORDERED_RULES_MAX {
            let most = format!("a condition on rules in order takes at most {ORDERED_RULES_MAX}");
            return Err(Fault::new(self.line, most));
        }
        Ok(Correlation {
            kind,
            rules: referents.iter().map(|referent| Arc::clone(&referent.id)).collect(),
            rule_names: names,
            group_by: self.group_by,
            aliases,
            timespan_us: self.timespan_us,
            generate: self.generate,
        })
    }
}

fn identifiers(expression: &Expression) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    expression.visit(&mut |leaf| {
        if let Expression::Identifier(name) = leaf
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    });
    names
}

/// The expression over positions in the list of rules.
fn over_rules(
    expression: &Expression,
    names: &[String],
    referents: &[&Referent],
) -> Result<RuleExpression, String> {
    let each = |parts: &[Expression]| -> Result<Vec<RuleExpression>, String> {
        parts.iter().map(|part| over_rules(part, names, referents)).collect()
    };
    match expression {
        Expression::And(parts) => Ok(RuleExpression::And(each(parts)?)),
        Expression::Or(parts) => Ok(RuleExpression::Or(each(parts)?)),
        Expression::Not(inner) => {
            Ok(RuleExpression::Not(Box::new(over_rules(inner, names, referents)?)))
        }
        Expression::Identifier(name) => referents
            .iter()
            .position(|referent| referent.is_called(name))
            .map(RuleExpression::Rule)
            .ok_or_else(|| {
                let hint = did_you_mean(name, names.iter().map(String::as_str));
                format!("{name:?} is not among the rules{hint}")
            }),
        Expression::Of { all, target } => {
            let selected: Vec<RuleExpression> = (0..names.len())
                .filter(|index| condition::is_selected(&names[*index], target))
                .map(RuleExpression::Rule)
                .collect();
            match (selected.is_empty(), all) {
                (true, _) => Err(format!("{target:?} selects none of the rules")),
                (false, true) => Ok(RuleExpression::And(selected)),
                (false, false) => Ok(RuleExpression::Or(selected)),
            }
        }
    }
}

fn kind(body: &Node) -> Result<Kind, Fault> {
    let Some(word) = text(body, "type")? else {
        let message = format!("no type; known are {}", TYPES.join(", "));
        return Err(Fault::new(body.line, message));
    };
    let line = line_of(body, "type");
    let condition = body.get("condition").filter(|node| node.value != Value::Null);
    let ordered = match word.as_str() {
        "temporal" => false,
        "temporal_ordered" => true,
        _ => return counted(&word, condition, line).map(Kind::Done),
    };
    let done = |condition| match ordered {
        true => Kind::Done(CorrelationKind::TemporalOrdered(condition)),
        false => Kind::Done(CorrelationKind::Temporal(condition)),
    };
    match condition {
        None => Ok(done(TemporalCondition::All)),
        Some(Node { value: Value::Text(text), line }) => {
            let expression = condition::parse(text)
                .map_err(|message| Fault::new(*line, format!("condition: {message}")))?;
            Ok(Kind::Expression { ordered, expression, line: *line })
        }
        Some(node) => Ok(done(TemporalCondition::Count(thresholds(node, &[])?))),
    }
}

/// Every type that needs a condition.
fn counted(word: &str, condition: Option<&Node>, line: usize) -> Result<CorrelationKind, Fault> {
    if !TYPES.contains(&word) {
        let message = format!("unknown correlation type {word:?}{}", did_you_mean(word, TYPES));
        return Err(Fault::new(line, message));
    }
    let Some(node) = condition else {
        let message = format!("{word} needs a condition, for instance {{gte: 10}}");
        return Err(Fault::new(line, message));
    };
    let aggregate = |function, extra: &[&str]| -> Result<CorrelationKind, Fault> {
        Ok(CorrelationKind::Aggregate {
            function,
            field: single_field(node)?,
            thresholds: thresholds(node, extra)?,
        })
    };
    match word {
        "event_count" => Ok(CorrelationKind::EventCount(thresholds(node, &[])?)),
        "value_count" => Ok(CorrelationKind::ValueCount {
            fields: fields(node)?,
            thresholds: thresholds(node, &["field"])?,
        }),
        "value_sum" => aggregate(Aggregate::Sum, &["field"]),
        "value_avg" => aggregate(Aggregate::Avg, &["field"]),
        "value_median" => aggregate(Aggregate::Percentile(50.0), &["field"]),
        "value_percentile" => {
            aggregate(Aggregate::Percentile(percentile(node)?), &["field", "percentile"])
        }
        _ => new_terms(node).map(CorrelationKind::NewTerms),
    }
}

fn fields(node: &Node) -> Result<Vec<Arc<str>>, Fault> {
    let fields = texts(node, "field")?;
    if fields.is_empty() {
        return Err(Fault::new(node.line, "the condition names no field"));
    }
    Ok(fields.into_iter().map(Arc::from).collect())
}

fn single_field(node: &Node) -> Result<Arc<str>, Fault> {
    let mut fields = fields(node)?;
    match (fields.pop(), fields.is_empty()) {
        (Some(field), true) => Ok(field),
        _ => Err(Fault::new(node.line, "an aggregate is over one field")),
    }
}

fn percentile(node: &Node) -> Result<f64, Fault> {
    let Some(value) = node.get("percentile") else {
        return Err(Fault::new(node.line, "no percentile; write a number from 0 to 100"));
    };
    match number(value) {
        Some(number) if (0.0..=100.0).contains(&number) => Ok(number),
        _ => Err(Fault::new(value.line, "a percentile is a number from 0 to 100")),
    }
}

/// The comparisons of a condition; keys other than operators must be in `extra`.
fn thresholds(node: &Node, extra: &[&str]) -> Result<Vec<Threshold>, Fault> {
    let Value::Map(entries) = &node.value else {
        let message = format!("the condition is a map such as {{gte: 10}}, not {}", node.kind());
        return Err(Fault::new(node.line, message));
    };
    let known: Vec<&str> =
        OPERATORS.map(|(word, _)| word).into_iter().chain(extra.to_vec()).collect();
    known_keys(entries, &known, "condition")?;
    let mut found = Vec::new();
    for entry in entries {
        let Some((_, op)) = OPERATORS.iter().find(|(word, _)| *word == entry.key) else { continue };
        let Some(than) = number(&entry.value) else {
            let message = format!("{} needs a number, not {}", entry.key, entry.value.kind());
            return Err(Fault::new(entry.line, message));
        };
        found.push(Threshold { op: *op, than });
    }
    if found.is_empty() {
        return Err(Fault::new(
            node.line,
            "the condition compares nothing; add for instance gte: 10",
        ));
    }
    Ok(found)
}

fn number(node: &Node) -> Option<f64> {
    let number = match &node.value {
        Value::Integer(text) => text.parse().ok()?,
        Value::Float(number) => *number,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn new_terms(node: &Node) -> Result<NewTerms, Fault> {
    let Value::Map(entries) = &node.value else {
        return Err(Fault::new(node.line, "the condition of new_terms is a map with a field"));
    };
    known_keys(entries, &["field", "learning", "group-matches-min", "dormant"], "condition")?;
    let span = |key: &str| -> Result<Option<i64>, Fault> {
        let Some(span) = text(node, key)? else { return Ok(None) };
        timespan(&span)
            .map(Some)
            .map_err(|message| Fault::new(line_of(node, key), format!("{key}: {message}")))
    };
    let group_matches_min = match node.get("group-matches-min") {
        None => 0,
        Some(Node { value: Value::Integer(text), line }) => text
            .parse()
            .map_err(|_| Fault::new(*line, "group-matches-min is a count, 0 or more"))?,
        Some(other) => return Err(Fault::new(other.line, "group-matches-min is a count")),
    };
    Ok(NewTerms {
        fields: fields(node)?,
        learning_us: span("learning")?.unwrap_or(0),
        group_matches_min,
        dormant_us: span("dormant")?,
    })
}

fn aliases(body: &Node) -> Result<Vec<DraftAlias>, Fault> {
    let Some(node) = body.get("aliases").filter(|node| node.value != Value::Null) else {
        return Ok(Vec::new());
    };
    let wrong = |line| Fault::new(line, "aliases map a name to {rule: field}");
    let Value::Map(entries) = &node.value else { return Err(wrong(node.line)) };
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Map(fields) = &entry.value.value else { return Err(wrong(entry.line)) };
        found.push((Arc::from(entry.key.as_str()), fields.clone()));
    }
    Ok(found)
}

/// Reads a timespan: a positive whole number with s, m, h, d, w, M (30 days) or y (365 days).
///
/// # Errors
/// What is wrong with it.
pub fn timespan(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no timespan; write a number with s, m, h, d, w, M or y");
    let text_end = text.char_indices().next_back().ok_or_else(wrong)?;
    let unit = match text_end.1 {
        's' => SECOND_US,
        'm' => 60 * SECOND_US,
        'h' => 3_600 * SECOND_US,
        'd' => DAY_US,
        'w' => 7 * DAY_US,
        'M' => 30 * DAY_US,
        'y' => 365 * DAY_US,
        _ => return Err(wrong()),
    };
    let digits = &text[..text_end.0];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: i64 = digits.parse().map_err(|_| wrong())?;
    match count.checked_mul(unit) {
        Some(0) => Err(format!("{text:?} is no time at all; a timespan is positive")),
        Some(span) => Ok(span),
        None => Err(format!("{text:?} is too long")),
    }
}

fn known_keys(entries: &[Entry], known: &[&str], place: &str) -> Result<(), Fault> {
    match entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
        None => Ok(()),
        Some(entry) => {
            let hint = did_you_mean(&entry.key, known.iter().copied());
            let message = format!("unknown key {:?} in {place}{hint}", entry.key);
            Err(Fault::new(entry.line, message))
        }
    }
}
