//! Observations in order of time to alerts: stages of one request folded, correlations fed.
//!
//! Pure, and the same live and in replay: what is raised depends on the observations and their
//! order.

pub mod open;
pub mod state;

use std::sync::Arc;

use crate::alert::attack;
use crate::alert::context::Context;
use crate::alert::evidence::{Evidence, EvidenceList};
use crate::alert::id::{RequestKey, alert_id};
use crate::alert::raise::open::OpenRequests;
use crate::alert::sighting::{Match, Sighting, Stage};
use crate::alert::summary::{Facts, Window, summarise};
use crate::alert::time::EventTime;
use crate::alert::{Alert, AlertKind, AlertRule, Reason, RuleSource};
use crate::engine::correlate::{Correlator, Feed, Fired, Limits};
use crate::engine::values::Subject;
use crate::engine::{Engine, Scratch};
use crate::event::Event;
use crate::rule::{Body, Rule};

/// Raises alerts.
#[derive(Debug)]
pub struct Raiser {
    engine: Arc<Engine>,
    scratch: Scratch,
    correlator: Correlator<Arc<Trace>>,
    open: OpenRequests,
    /// What stands for each detection in `open`.
    rules: Vec<u128>,
    /// Matches of each detection, stages of one request counted once.
    matches: Vec<u64>,
}

/// What a correlation keeps of an event until it fires.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    request_key: RequestKey,
    time_us: i64,
    stage: Stage,
    audit_id: Box<str>,
    position: Box<str>,
    /// The whole sighting, where the correlation may fire when another one is at hand.
    sighting: Option<Box<Sighting>>,
}

impl Trace {
    fn new(sighting: &Sighting, is_kept_whole: bool) -> Trace {
        Trace {
            request_key: sighting.request_key,
            time_us: sighting.time_us,
            stage: sighting.stage,
            audit_id: sighting.audit_id.as_str().into(),
            position: sighting.position.as_str().into(),
            sighting: is_kept_whole.then(|| Box::new(sighting.clone())),
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            audit_id: self.audit_id.to_string(),
            stage: self.stage.as_str().to_owned(),
            time: EventTime(self.time_us),
            position: self.position.to_string(),
        }
    }
}

impl Raiser {
    /// Nothing seen yet.
    pub fn new(engine: Arc<Engine>, limits: Limits) -> Raiser {
        Raiser {
            correlator: Correlator::new(engine.correlations(), limits),
            scratch: engine.scratch(),
            matches: vec![0; engine.detections()],
            rules: open::rules(&engine),
            engine,
            open: OpenRequests::default(),
        }
    }

    /// Takes the next sighting; calls `raise` for each alert, those of single events first.
    pub fn observe(&mut self, sighting: &Sighting, raise: &mut dyn FnMut(Alert)) {
        let mut context = None;
        let mut fired = Vec::new();
        let mut trace = None;
        for found in &sighting.matches {
            if !self.is_first(sighting, found.detection) {
                continue;
            }
            self.matches[found.detection as usize] += 1;
            let rule = self.engine.detection(found.detection);
            if rule.alerts {
                let proxies = self.engine.proxies();
                let context = context.get_or_insert_with(|| Context::new(sighting, proxies));
                raise(match_alert(rule, sighting, context, found));
            }
            let is_kept_whole = self.engine.waits(found.detection);
            for feed in &found.feeds {
                let trace =
                    trace.get_or_insert_with(|| Arc::new(Trace::new(sighting, is_kept_whole)));
                if is_kept_whole && trace.sighting.is_none() {
                    *trace = Arc::new(Trace::new(sighting, true));
                }
                let fire = &mut |one| fired.push(one);
                self.correlator.observe(feed, sighting.time_us, trace, fire);
            }
        }
        for one in fired {
            self.raise_fired(one, Some(sighting), raise);
        }
    }

    /// Lets time pass without an event.
    pub fn advance(&mut self, time_us: i64, raise: &mut dyn FnMut(Alert)) {
        let mut fired = Vec::new();
        self.correlator.advance(time_us, &mut |one| fired.push(one));
        fired.into_iter().for_each(|one| self.raise_fired(one, None, raise));
    }

    /// The end of all input: correlations that waited for something not to happen are decided.
    pub fn finish(&mut self, raise: &mut dyn FnMut(Alert)) {
        let mut fired = Vec::new();
        self.correlator.finish(&mut |one| fired.push(one));
        fired.into_iter().for_each(|one| self.raise_fired(one, None, raise));
    }

    /// Matches by the id of their rule, stages of one request counted once; rules without any are
    /// left out.
    pub fn matches(&self) -> impl Iterator<Item = (&str, u64)> {
        let counts = self.matches.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(|(position, count)| (&*self.engine.detection(position as u32).id, *count))
    }

    /// How much state had to be forgotten to stay within the limits: of correlations, of requests.
    pub fn evictions(&self) -> (u64, u64) {
        (self.correlator.evictions(), self.open.forgotten())
    }

    /// The state of the correlations.
    pub fn correlator(&mut self) -> &mut Correlator<Arc<Trace>> {
        &mut self.correlator
    }

    /// Whether this detection has not matched an earlier stage of the same request. Only stages
    /// that another can follow are remembered.
    fn is_first(&mut self, sighting: &Sighting, detection: u32) -> bool {
        let (request, rule) = (sighting.request_key, self.rules[detection as usize]);
        if self.open.contains(request, rule) {
            return false;
        }
        if sighting.stage.is_open() {
            self.open.insert(request, rule);
        }
        true
    }

    /// Raises the alert of a correlation. What completed it is the sighting at hand, or, where it
    /// waited, the last of its evidence.
    fn raise_fired(
        &mut self,
        fired: Fired<Arc<Trace>>,
        now: Option<&Sighting>,
        raise: &mut dyn FnMut(Alert),
    ) {
        let engine = Arc::clone(&self.engine);
        let rule = engine.correlation(fired.correlation);
        let Some(last) = fired.evidence.last() else { return };
        let whole = last.sighting.as_deref();
        let sighting = if fired.has_waited { whole } else { now };
        let (true, Some(sighting)) = (rule.alerts, sighting) else { return };
        let context = Context::new(sighting, engine.proxies());
        let group = self.group(&fired, sighting);
        raise(correlation_alert(rule, sighting, &context, &fired, &group));
    }

    /// The group-by values of what fired.
    fn group(&mut self, fired: &Fired<Arc<Trace>>, sighting: &Sighting) -> Vec<(String, String)> {
        for found in &sighting.matches {
            let mut feeds: Vec<&Feed> = found.feeds.iter().collect();
            while let Some(feed) = feeds.pop() {
                if feed.correlation != fired.correlation {
                    feeds.extend(&feed.parents);
                    continue;
                }
                if !feed.labels.is_empty() {
                    return feed.labels.clone();
                }
                let Some(event) = Event::salvage(&sighting.event) else { return Vec::new() };
                let subject = Subject::Audit(&event);
                let scratch = &mut self.scratch;
                return self.engine.labels(found.detection, feed.correlation, subject, scratch);
            }
        }
        Vec::new()
    }
}

fn match_alert(rule: &Rule, sighting: &Sighting, context: &Context, found: &Match) -> Alert {
    let summary = summarise(Facts {
        actor: &context.actor,
        request: &context.request,
        command: context.command.as_deref(),
        rule_title: &rule.title,
        window: None,
    });
    Alert {
        id: alert_id(&rule.id, &[sighting.request_key], &sighting.cluster),
        kind: AlertKind::Match,
        reason: found.reasons.clone(),
        summary,
        events: vec![Trace::new(sighting, false).evidence()],
        count: 1,
        ..alert(rule, sighting, context)
    }
}

fn correlation_alert(
    rule: &Rule,
    sighting: &Sighting,
    context: &Context,
    fired: &Fired<Arc<Trace>>,
    group: &[(String, String)],
) -> Alert {
    let timespan_us = match &rule.body {
        Body::Correlation(correlation) => correlation.timespan_us,
        Body::Detection(_) => 0,
    };
    // One event can match several rules of a correlation; as evidence it counts once.
    let mut requests = Vec::new();
    let mut list = EvidenceList::new();
    let mut before: Option<&Trace> = None;
    let is_same = |a: &Trace, b: &Trace| {
        a.request_key == b.request_key && a.time_us == b.time_us && a.stage == b.stage
    };
    for trace in &fired.evidence {
        if before.is_some_and(|before| is_same(before, trace)) {
            continue;
        }
        before = Some(trace);
        requests.push(trace.request_key);
        list.push(trace.evidence());
    }
    let (events, count) = list.into_parts();
    let summary = summarise(Facts {
        actor: &context.actor,
        request: &context.request,
        command: context.command.as_deref(),
        rule_title: &rule.title,
        window: Some(Window { count, group_by: group, timespan_us }),
    });
    let reason = group
        .iter()
        .map(|(field, value)| Reason {
            field: field.clone(),
            value: crate::event::redact::redact_text(value).into_owned(),
            matched: "group-by".to_owned(),
        })
        .collect();
    Alert {
        id: alert_id(&rule.id, &requests, &sighting.cluster),
        kind: AlertKind::Correlation,
        reason,
        summary,
        events,
        count,
        ..alert(rule, sighting, context)
    }
}

/// What every alert of a rule on an event has.
fn alert(rule: &Rule, sighting: &Sighting, context: &Context) -> Alert {
    let runbook = rule.custom.get("runbook").and_then(|text| text.as_str());
    Alert {
        id: String::new(),
        time: EventTime(sighting.time_us),
        kind: AlertKind::Match,
        cluster: sighting.cluster.clone(),
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
