//! Observations in order of time to alerts: stages of one request folded, correlations fed.
//!
//! Pure, and the same live and in replay: what is raised depends on the observations and their
//! order.

pub mod open;
pub mod state;

use std::sync::Arc;

use crate::alert::attack;
use crate::alert::context::Context;
use crate::alert::evidence::{EVENTS_MAX, edges};
use crate::alert::id::alert_id;
use crate::alert::raise::open::OpenRequests;
use crate::alert::sighting::{Head, Match, Sighting};
use crate::alert::summary::{Facts, Window, summarise};
use crate::alert::time::EventTime;
use crate::alert::told::{self, Told};
use crate::alert::trace::{self, AtHand, Heads, Labels, Trace};
use crate::alert::{Alert, AlertKind, AlertRule, Reason, RuleSource};
use crate::engine::correlate::{Correlator, Feed, Fired, Limits};
use crate::engine::values::Subject;
use crate::engine::window::Weigh;
use crate::engine::{Engine, Scratch};
use crate::event::Event;
use crate::rule::{Body, Rule};

/// Raises alerts. `K` is what correlations keep of an event to find its head again.
#[derive(Debug)]
pub struct Raiser<K = Told> {
    engine: Arc<Engine>,
    scratch: Scratch,
    correlator: Correlator<Trace<K>>,
    open: OpenRequests,
    /// What stands for each detection in `open`.
    rules: Vec<u128>,
    /// Matches of each detection, stages of one request counted once.
    matches: Vec<u64>,
}

/// What an observation comes to.
#[derive(Debug)]
pub enum Raised {
    /// One of the sighting's matches that is an alert by itself; what it says depends on nothing
    /// else and can be told later ([`Telling`]).
    Match(usize),
    /// The alert of a correlation.
    Correlated(Box<Alert>),
}

/// Tells the alerts of one sighting.
#[derive(Debug)]
pub struct Telling<'e> {
    engine: &'e Engine,
    /// What its alerts have in common.
    context: Option<Context>,
}

impl<'e> Telling<'e> {
    /// Nothing told yet.
    pub fn new(engine: &'e Engine) -> Telling<'e> {
        Telling { engine, context: None }
    }

    /// The alert of one of the sighting's matches.
    pub fn alert<K: Clone>(
        &mut self,
        sighting: &Sighting,
        heads: &mut dyn Heads<Kept = K>,
        place: usize,
    ) -> Alert {
        let (head, found) = (heads.head(sighting), &sighting.matches[place]);
        let proxies = self.engine.proxies();
        let context = self.context.get_or_insert_with(|| Context::new(&head.event, proxies));
        match_alert(self.engine.detection(found.detection), sighting, head, context, found)
    }
}

impl Raiser {
    /// Takes the next sighting, with its head; calls `raise` for each alert, those of single events
    /// first.
    pub fn observe(&mut self, sighting: &Sighting, raise: &mut dyn FnMut(Alert)) {
        let engine = Arc::clone(&self.engine);
        let mut telling = Telling::new(&engine);
        self.observe_with(sighting, &mut AtHand, &mut |raised| match raised {
            Raised::Match(place) => raise(telling.alert(sighting, &mut AtHand, place)),
            Raised::Correlated(alert) => raise(*alert),
        });
    }

    /// Lets time pass without an event.
    pub fn advance(&mut self, time_us: i64, raise: &mut dyn FnMut(Alert)) {
        let mut fired = Vec::new();
        self.correlator.advance(time_us, &mut |one| fired.push(one));
        let fired = fired.into_iter();
        fired.filter_map(|one| self.fired(one, None, &mut AtHand)).for_each(raise);
    }

    /// As [`Raiser::finish_with`], for heads at hand.
    pub fn finish(&mut self, raise: &mut dyn FnMut(Alert)) {
        self.finish_with(&mut AtHand, raise);
    }
}

impl<K: Weigh> Raiser<K> {
    /// Nothing seen yet.
    pub fn new(engine: Arc<Engine>, limits: Limits) -> Raiser<K> {
        Raiser {
            correlator: engine.correlator(limits),
            scratch: engine.scratch(),
            matches: vec![0; engine.detections()],
            rules: open::rules(&engine),
            engine,
            open: OpenRequests::default(),
        }
    }

    /// Takes the next sighting; calls `raise` for what it comes to, matches first.
    pub fn observe_with(
        &mut self,
        sighting: &Sighting,
        heads: &mut dyn Heads<Kept = K>,
        raise: &mut dyn FnMut(Raised),
    ) {
        let mut fired = Vec::new();
        let mut kept = None;
        self.correlator.begin_event();
        for (place, found) in sighting.matches.iter().enumerate() {
            if !self.is_first(sighting, found.detection) {
                continue;
            }
            self.matches[found.detection as usize] += 1;
            if self.engine.detection(found.detection).alerts {
                raise(Raised::Match(place));
            }
            for feed in &found.feeds {
                let engine = &self.engine;
                let mut trace = || {
                    let is_whole = || sighting.matches.iter().any(|m| engine.waits(m.detection));
                    let kept = kept.get_or_insert_with(|| heads.keep(sighting, is_whole()));
                    let waits = engine.waits(found.detection);
                    Trace::new(sighting, found.detection, feed, waits, kept.clone())
                };
                let fire = &mut |one| fired.push(one);
                self.correlator.observe(feed, sighting.time_us, &mut trace, fire);
            }
        }
        for one in fired {
            if let Some(alert) = self.fired(one, Some(sighting), heads) {
                raise(Raised::Correlated(Box::new(alert)));
            }
        }
    }

    /// The end of all input: correlations that waited for something not to happen are decided.
    pub fn finish_with(&mut self, heads: &mut dyn Heads<Kept = K>, raise: &mut dyn FnMut(Alert)) {
        let mut fired = Vec::new();
        self.correlator.finish(&mut |one| fired.push(one));
        let fired = fired.into_iter();
        fired.filter_map(|one| self.fired(one, None, heads)).for_each(raise);
    }

    /// The rules by which it raises.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
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
    pub fn correlator(&mut self) -> &mut Correlator<Trace<K>> {
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

    /// The alert of a correlation that fired, if it raises one. What completed it is the sighting
    /// at hand, or, where it waited, the last of its evidence.
    fn fired(
        &mut self,
        fired: Fired<Trace<K>>,
        now: Option<&Sighting>,
        heads: &mut dyn Heads<Kept = K>,
    ) -> Option<Alert> {
        let engine = Arc::clone(&self.engine);
        let rule = engine.correlation(fired.correlation);
        let last = fired.evidence.last().filter(|_| rule.alerts)?;
        let (time_us, head) = match (fired.has_waited, now) {
            (true, _) => (last.time_us, heads.whole(&last.kept)?),
            (false, now) => (now?.time_us, heads.head(now?).clone()),
        };
        let group = match (last.labels(fired.correlation), now) {
            (Some(labels), _) if fired.has_waited => labels.clone(),
            (_, Some(now)) if !fired.has_waited => self.group(&fired, now, &head),
            _ => self.labels(last.detection, fired.correlation, &head),
        };
        let context = Context::new(&head.event, engine.proxies());
        Some(correlation_alert(rule, (time_us, &head), &context, &fired, &group, heads))
    }

    /// The group-by values of what fired.
    fn group(&mut self, fired: &Fired<Trace<K>>, sighting: &Sighting, head: &Head) -> Labels {
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
                return self.labels(found.detection, feed.correlation, head);
            }
        }
        Vec::new()
    }

    fn labels(&mut self, detection: u32, correlation: u32, head: &Head) -> Labels {
        let Some(event) = Event::salvage(&head.event) else { return Vec::new() };
        let subject = Subject::Audit(&event);
        self.engine.labels(detection, correlation, subject, &mut self.scratch)
    }
}

fn match_alert(
    rule: &Rule,
    sighting: &Sighting,
    head: &Head,
    context: &Context,
    found: &Match,
) -> Alert {
    let summary = summarise(Facts {
        actor: &context.actor,
        request: &context.request,
        command: context.command.as_deref(),
        rule_title: &rule.title,
        window: None,
    });
    let Sighting { time_us, stage, .. } = *sighting;
    Alert {
        id: alert_id(&rule.id, &[sighting.request_key], &head.cluster),
        kind: AlertKind::Match,
        reason: found.reasons.clone(),
        summary,
        events: vec![told::evidence(time_us, stage, &head.audit_id, &head.position)],
        count: 1,
        ..alert(rule, (time_us, head), context)
    }
}

fn correlation_alert<K: Clone>(
    rule: &Rule,
    (time_us, head): (i64, &Head),
    context: &Context,
    fired: &Fired<Trace<K>>,
    group: &[(String, String)],
    heads: &mut dyn Heads<Kept = K>,
) -> Alert {
    let timespan_us = match &rule.body {
        Body::Correlation(correlation) => correlation.timespan_us,
        Body::Detection(_) => 0,
    };
    let traces = trace::events(&fired.evidence);
    let timespan_us = spanned(&traces, timespan_us);
    let requests: Vec<_> = traces.iter().map(|trace| trace.request_key).collect();
    let events = edges(&traces, EVENTS_MAX).map(|trace| heads.evidence(trace)).collect();
    let count = traces.len() as u64;
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
            value: value.clone(),
            matched: "group-by".to_owned(),
        })
        .collect();
    Alert {
        id: alert_id(&rule.id, &requests, &head.cluster),
        kind: AlertKind::Correlation,
        reason,
        summary,
        events,
        count,
        ..alert(rule, (time_us, head), context)
    }
}

/// The timespan that these events are within, or the least multiple: what an inner correlation
/// handed on can lie before the window.
fn spanned<K>(traces: &[&Trace<K>], timespan_us: i64) -> i64 {
    let [first, .., last] = traces else { return timespan_us };
    let lasted_us = last.time_us.saturating_sub(first.time_us).max(1);
    let spans = lasted_us.unsigned_abs().div_ceil(timespan_us.max(1).unsigned_abs());
    timespan_us.saturating_mul(i64::try_from(spans).unwrap_or(i64::MAX))
}

/// What every alert of a rule on an event has.
fn alert(rule: &Rule, (time_us, head): (i64, &Head), context: &Context) -> Alert {
    let runbook = rule.custom.get("runbook").and_then(|text| text.as_str());
    Alert {
        id: String::new(),
        time: EventTime(time_us),
        kind: AlertKind::Match,
        cluster: head.cluster.clone(),
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
