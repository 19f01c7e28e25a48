//! Which matches feed which correlations, and with what key and value.

use std::hash::Hasher as _;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use siphasher::sip::SipHasher13;

use crate::engine::Error;
use crate::engine::builder::Builder;
use crate::engine::correlate::{Feed, slack_us};
use crate::engine::field::FieldId;
use crate::engine::program::{Program, State};
use crate::engine::values::Subject;
use crate::engine::verdict;
use crate::rule::number::Number;
use crate::rule::{Body, Correlation, CorrelationKind, Rule, RuleSet};

/// The value of a field as it may be shown.
pub type Shown<'s> = &'s mut dyn FnMut(&str, &str) -> String;

/// How a match of one rule becomes a [`Feed`] of one correlation.
#[derive(Clone, Debug)]
pub struct FeedPlan {
    correlation: u32,
    member: u32,
    /// Name (alias where there is one) and field of each group-by key.
    group: Vec<(Arc<str>, FieldId)>,
    value: Vec<FieldId>,
    is_number: bool,
    is_term: bool,
    waits: bool,
    /// Some group-by field stands in a body.
    has_body_keys: bool,
    parents: Vec<FeedPlan>,
}

/// The plans of every detection, by its position.
pub fn plan(
    rules: &RuleSet,
    detections: &[u32],
    correlations: &[u32],
    builder: &mut Builder,
) -> Result<Vec<Vec<FeedPlan>>, Error> {
    let mut planner = Planner { rules, correlations, builder, late: Vec::new() };
    planner.check_references()?;
    planner.late = planner.late();
    Ok(detections
        .iter()
        .map(|number| {
            let rule = &rules.rules[*number as usize];
            planner.plans(&rule.id, &rule.id)
        })
        .collect())
}

struct Planner<'p> {
    rules: &'p RuleSet,
    correlations: &'p [u32],
    builder: &'p mut Builder,
    /// Of each correlation, whether it may fire when another event is at hand.
    late: Vec<bool>,
}

/// The correlations with these numbers, each with its rule.
pub fn correlations<'r>(rules: &'r RuleSet, numbers: &[u32]) -> Vec<(&'r Correlation, &'r Rule)> {
    let rules = numbers.iter().map(|number| &rules.rules[*number as usize]);
    rules
        .filter_map(|rule| match &rule.body {
            Body::Correlation(correlation) => Some((correlation, rule)),
            Body::Detection(_) => None,
        })
        .collect()
}

/// Which correlation is fed by which: their indexes, the inner one first.
pub fn chains(rules: &[(&Correlation, &Rule)]) -> Vec<(usize, usize)> {
    let places = rules.iter().enumerate().map(|(place, (_, rule))| (&*rule.id, place));
    let places: FxHashMap<&str, usize> = places.collect();
    let places = &places;
    let fed = rules.iter().enumerate().flat_map(|(outer, (correlation, _))| {
        correlation.rules.iter().filter_map(move |id| Some((*places.get(&**id)?, outer)))
    });
    fed.collect()
}

impl<'p> Planner<'p> {
    /// What waits for its window to be over fires late, and so does what it feeds.
    fn late(&self) -> Vec<bool> {
        let all = self.all();
        let slack = slack_us(all.iter().map(|(correlation, _)| *correlation), &chains(&all));
        all.iter().zip(slack).map(|((one, _), slack)| verdict::waits(one) || slack > 0).collect()
    }

    fn check_references(&self) -> Result<(), Error> {
        for (correlation, rule) in self.all() {
            for id in &correlation.rules {
                if !self.rules.rules.iter().any(|known| known.id == *id) {
                    let (correlation, rule) = (rule.id.clone(), id.clone());
                    return Err(Error::Reference { correlation, rule });
                }
            }
        }
        Ok(())
    }

    fn all(&self) -> Vec<(&'p Correlation, &'p Rule)> {
        correlations(self.rules, self.correlations)
    }

    /// The plans for a rule with this id; fields are read from the event of the base rule `base`.
    /// The reader refuses cycles, so this ends.
    fn plans(&mut self, id: &Arc<str>, base: &Arc<str>) -> Vec<FeedPlan> {
        let fed: Vec<(u32, u32, Correlation, Arc<str>)> = self
            .all()
            .into_iter()
            .enumerate()
            .flat_map(|(index, (correlation, rule))| {
                let members = correlation.rules.iter().enumerate();
                members
                    .filter(|(_, member)| *member == id)
                    .map(move |(member, _)| {
                        (index as u32, member as u32, correlation.clone(), rule.id.clone())
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        let plan = |(correlation, member, body, own_id): (u32, u32, Correlation, Arc<str>)| {
            let fields = resolved(&body, &body.group_by, (id, base));
            let ids = fields.iter().map(|field| self.builder.field(field));
            let group = body.group_by.iter().cloned().zip(ids);
            FeedPlan {
                correlation,
                member,
                has_body_keys: fields.iter().any(|field| is_in_body(field)),
                group: group.collect(),
                value: self.value(&body, (id, base)),
                waits: self.late[correlation as usize],
                is_number: matches!(body.kind, CorrelationKind::Aggregate { .. }),
                is_term: matches!(body.kind, CorrelationKind::NewTerms(_)),
                parents: self.plans(&own_id, base),
            }
        };
        fed.into_iter().map(plan).collect()
    }

    fn value(&mut self, correlation: &Correlation, rule: Referred<'_>) -> Vec<FieldId> {
        let fields: Vec<Arc<str>> = match &correlation.kind {
            CorrelationKind::ValueCount { fields, .. } => fields.clone(),
            CorrelationKind::NewTerms(terms) => terms.fields.clone(),
            CorrelationKind::Aggregate { field, .. } => vec![field.clone()],
            _ => Vec::new(),
        };
        let fields = resolved(correlation, &fields, rule);
        fields.iter().map(|field| self.builder.field(field)).collect()
    }
}

/// The rule that a correlation refers to, and the base rule whose event it is.
type Referred<'r> = (&'r Arc<str>, &'r Arc<str>);

/// The fields that a correlation names, aliases resolved for the rule that is referenced (or for
/// the base rule of a chained correlation).
fn resolved(
    correlation: &Correlation,
    names: &[Arc<str>],
    (id, base): Referred<'_>,
) -> Vec<Arc<str>> {
    let resolve = |name: &Arc<str>| {
        let alias = correlation.aliases.iter().find(|(alias, _)| alias == name);
        let fields = alias.map_or(&[][..], |(_, fields)| fields.as_slice());
        let of = |rule: &Arc<str>| fields.iter().find(|(known, _)| known == rule);
        of(id).or_else(|| of(base)).map_or_else(|| name.clone(), |(_, field)| field.clone())
    };
    names.iter().map(resolve).collect()
}

impl FeedPlan {
    /// The correlation that is fed.
    pub fn correlation(&self) -> u32 {
        self.correlation
    }

    /// What the correlation, once it fires, is itself fed into.
    pub fn parents(&self) -> &[FeedPlan] {
        &self.parents
    }

    /// Whether the correlation, or one that it feeds, may fire when another event is at hand.
    pub fn waits(&self) -> bool {
        self.waits || self.parents.iter().any(FeedPlan::waits)
    }

    /// The feed for an event of a cluster; state of different clusters never mixes.
    pub fn feed(
        &self,
        program: &Program,
        state: &mut State,
        subject: Subject<'_>,
        cluster: &str,
        shown: Shown<'_>,
    ) -> Feed {
        let mut key = SipHasher13::new();
        hash(&mut key, Some(cluster.as_bytes()));
        for (_, field) in &self.group {
            program.with_text(*field, state, subject, &mut |text| hash(&mut key, text));
        }
        // A term belongs to its group, a counted value stands for itself.
        let mut value = if self.is_term { key } else { SipHasher13::new() };
        let mut is_valueless = true;
        let mut aggregated = None;
        for field in &self.value {
            program.with_text(*field, state, subject, &mut |text| {
                is_valueless &= text.is_none();
                hash(&mut value, text);
                if self.is_number {
                    let text = text.and_then(|text| std::str::from_utf8(text).ok());
                    let number = text.and_then(Number::parse).map(Number::to_f64);
                    // What is too large for a float would leave no sum to speak of.
                    aggregated = number.filter(|number| number.is_finite());
                }
            });
        }
        Feed {
            correlation: self.correlation,
            member: self.member,
            key: key.finish(),
            labels: if self.has_body_keys {
                self.labels(program, state, subject, shown)
            } else {
                Vec::new()
            },
            value: if self.value.is_empty() { 0 } else { value.finish() },
            number: aggregated,
            is_valueless,
            parents: self
                .parents
                .iter()
                .map(|plan| plan.feed(program, state, subject, cluster, shown))
                .collect(),
        }
    }

    /// The group-by fields with their values, for people: as `shown` lets them be shown.
    pub fn labels(
        &self,
        program: &Program,
        state: &mut State,
        subject: Subject<'_>,
        shown: Shown<'_>,
    ) -> Vec<(String, String)> {
        self.group
            .iter()
            .map(|(name, field)| {
                let text = program.text(*field, state, subject);
                let path = program.fields().name(*field);
                let text = text.map_or_else(|| "(none)".to_owned(), |text| shown(path, &text));
                (name.to_string(), text)
            })
            .collect()
    }
}

/// Whether a field's values stand in requestObject or responseObject.
fn is_in_body(name: &str) -> bool {
    const META: [&str; 14] = [
        "level",
        "auditID",
        "stage",
        "requestURI",
        "verb",
        "user",
        "impersonatedUser",
        "sourceIPs",
        "userAgent",
        "objectRef",
        "responseStatus",
        "annotations",
        "actor",
        "request",
    ];
    !META.contains(&name.split('.').next().unwrap_or(name))
}

/// Hashes a value so that no two lists of values run together. SipHash, because an attacker chooses
/// the values and must not be able to make two of them collide.
fn hash(hasher: &mut SipHasher13, text: Option<&[u8]>) {
    match text {
        None => hasher.write_u8(0),
        Some(text) => {
            hasher.write_u64(text.len() as u64 + 1);
            hasher.write(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Engine;
    use crate::engine::field::Shape;
    use crate::engine::values::Subject;
    use crate::rule::load::{Options, load_texts};

    #[test]
    fn an_alias_stands_for_the_field_of_each_rule() {
        let rule = |name: &str| {
            let detection = format!("detection: {{s: {{k: {name}}}, condition: s}}");
            format!("title: {name}\nname: {name}\nlogsource: {{product: p}}\n{detection}\n---\n")
        };
        let alias = "{b: {one: src, two: dst}}";
        let text = rule("one")
            + &rule("two")
            + "title: c\ncorrelation: {type: value_count, rules: [one, two], timespan: 1m, \
               group-by: [b], aliases: "
            + alias
            + ", condition: {field: b, gte: 2}}";
        let rules = load_texts(&[("r.yml".into(), text)], &Options::default()).unwrap();
        let engine = Engine::compile(rules, Shape::Json, &[]).unwrap();
        let mut scratch = engine.scratch();
        let mut feed = |event: &str| {
            let subject = Subject::Json(event.as_bytes());
            let position = engine.evaluate(subject, &mut scratch)[0];
            let feeds = engine.feeds(position, subject, "", &mut scratch);
            (feeds[0].key, feeds[0].value, feeds[0].is_valueless)
        };
        let first = feed(r#"{"k":"one","src":"x"}"#);
        assert!(!first.2);
        assert_eq!(feed(r#"{"k":"two","dst":"x","src":"y"}"#), first);
        assert_ne!(feed(r#"{"k":"two","dst":"y"}"#).1, first.1);
    }
}
