//! Observations in order of time to alerts: stages of one request folded, correlations fed.
//!
//! Pure, and the same live and in replay: what is raised depends on the observations and their order.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::alert::attack;
use crate::alert::evidence::{Evidence, EvidenceList};
use crate::alert::id::alert_id;
use crate::alert::observation::{Context, Match, Observation};
use crate::alert::summary::{Facts, Window, summarise};
use crate::alert::time::EventTime;
use crate::alert::{Alert, AlertKind, AlertRule, RuleSource};
use crate::engine::Engine;
use crate::engine::correlate::{Correlator, Fired, Limits};
use crate::rule::{Body, Rule};

/// Requests that are remembered because a later stage of them may still come: sessions and watches
/// that were opened, refused authentications. The oldest give way.
pub const OPEN_REQUESTS_MAX: usize = 1 << 18;

/// Raises alerts.
#[derive(Debug)]
pub struct Raiser {
    engine: Arc<Engine>,
    correlator: Correlator<Arc<Context>>,
    open: FxHashSet<([u8; 16], u32)>,
    order: VecDeque<([u8; 16], u32)>,
    forgotten: u64,
    matches: u64,
}

impl Raiser {
    /// Nothing seen yet.
    pub fn new(engine: Arc<Engine>, limits: Limits) -> Raiser {
        Raiser {
            correlator: Correlator::new(engine.correlations(), limits),
            engine,
            open: FxHashSet::default(),
            order: VecDeque::new(),
            forgotten: 0,
            matches: 0,
        }
    }

    /// Takes the next observation; calls `raise` for each alert, those of single events first.
    pub fn observe(&mut self, observation: Observation, raise: &mut dyn FnMut(Alert)) {
        let context = Arc::new(observation.context);
        for found in observation.matches {
            if !self.is_first(&context, found.detection) {
                continue;
            }
            self.matches += 1;
            let rule = self.engine.detection(found.detection);
            if rule.alerts {
                raise(match_alert(rule, &context, &found));
            }
            let engine = &self.engine;
            for feed in &found.feeds {
                self.correlator.observe(feed, context.time_us, &context, &mut |fired| {
                    raise_correlation(engine, fired, raise);
                });
            }
        }
    }

    /// Lets time pass without an event.
    pub fn advance(&mut self, time_us: i64, raise: &mut dyn FnMut(Alert)) {
        let engine = &self.engine;
        self.correlator.advance(time_us, &mut |fired| raise_correlation(engine, fired, raise));
    }

    /// The end of all input: correlations that waited for something not to happen are decided.
    pub fn finish(&mut self, raise: &mut dyn FnMut(Alert)) {
        let engine = &self.engine;
        self.correlator.finish(&mut |fired| raise_correlation(engine, fired, raise));
    }

    /// How many matches were taken, stages of one request counted once.
    pub fn matches(&self) -> u64 {
        self.matches
    }

    /// How much state had to be forgotten to stay within the limits: of correlations, of requests.
    pub fn evictions(&self) -> (u64, u64) {
        (self.correlator.evictions(), self.forgotten)
    }

    /// The state of the correlations.
    pub fn correlator(&mut self) -> &mut Correlator<Arc<Context>> {
        &mut self.correlator
    }

    /// Whether this detection has not matched an earlier stage of the same request. Only stages that
    /// another can follow are remembered.
    fn is_first(&mut self, context: &Context, detection: u32) -> bool {
        let key = (context.request_key.0, detection);
        if self.open.contains(&key) {
            return false;
        }
        if matches!(context.stage.as_str(), "RequestReceived" | "ResponseStarted") {
            self.open.insert(key);
            self.order.push_back(key);
            if self.order.len() > OPEN_REQUESTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.open.remove(&oldest);
                self.forgotten += 1;
            }
        }
        true
    }
}

fn match_alert(rule: &Rule, context: &Context, found: &Match) -> Alert {
    let summary = summarise(Facts {
        actor: &context.actor,
        request: &context.request,
        command: context.command.as_deref(),
        rule_title: &rule.title,
        window: None,
    });
    Alert {
        id: alert_id(&rule.id, &[context.request_key], &context.cluster),
        kind: AlertKind::Match,
        reason: found.reasons.clone(),
        summary,
        events: vec![evidence(context)],
        count: 1,
        ..alert(rule, context)
    }
}

fn raise_correlation(engine: &Engine, fired: Fired<Arc<Context>>, raise: &mut dyn FnMut(Alert)) {
    let rule = engine.correlation(fired.correlation);
    let Some(last) = fired.evidence.last() else { return };
    if !rule.alerts {
        return;
    }
    let timespan_us = match &rule.body {
        Body::Correlation(correlation) => correlation.timespan_us,
        Body::Detection(_) => 0,
    };
    // One event can match several rules of a correlation; as evidence it counts once.
    let mut requests = Vec::new();
    let mut list = EvidenceList::new();
    let mut before: Option<&Arc<Context>> = None;
    for context in &fired.evidence {
        if before.is_some_and(|before| Arc::ptr_eq(before, context)) {
            continue;
        }
        before = Some(context);
        requests.push(context.request_key);
        list.push(evidence(context));
    }
    let (events, count) = list.into_parts();
    let summary = summarise(Facts {
        actor: &last.actor,
        request: &last.request,
        command: last.command.as_deref(),
        rule_title: &rule.title,
        window: Some(Window { count, group_by: &fired.group, timespan_us }),
    });
    let reason = fired
        .group
        .iter()
        .map(|(field, value)| crate::alert::Reason {
            field: field.clone(),
            value: value.clone(),
            matched: "group-by".to_owned(),
        })
        .collect();
    raise(Alert {
        id: alert_id(&rule.id, &requests, &last.cluster),
        kind: AlertKind::Correlation,
        reason,
        summary,
        events,
        count,
        ..alert(rule, last)
    });
}

/// What every alert of a rule on an event has.
fn alert(rule: &Rule, context: &Context) -> Alert {
    let runbook = rule.custom.get("runbook").and_then(|text| text.as_str());
    Alert {
        id: String::new(),
        time: EventTime(context.time_us),
        kind: AlertKind::Match,
        cluster: context.cluster.clone(),
        rule: AlertRule {
            id: rule.id.to_string(),
            title: rule.title.to_string(),
            level: rule.level,
            source: RuleSource::Sigma,
            tags: rule.tags.clone(),
        },
        attack: attack::from_tags(&rule.tags),
        actor: context.actor.clone(),
        request: context.request.clone(),
        reason: Vec::new(),
        summary: String::new(),
        events: Vec::new(),
        count: 0,
        runbook: runbook.map(str::to_owned),
    }
}

fn evidence(context: &Context) -> Evidence {
    Evidence {
        audit_id: context.audit_id.clone(),
        stage: context.stage.clone(),
        time: EventTime(context.time_us),
        position: context.position.clone(),
    }
}
