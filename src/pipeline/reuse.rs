//! One audit id on many requests: the API server never repeats one, so a client chose it, and a
//! pipeline that takes it for the identity of an event would keep the first and drop the rest.
//!
//! A rule cannot say this of all requests at a bearable price: every one of them would be a match.
//! Here it is one look into a bounded table for each.

use std::hash::Hasher as _;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::alert::context::Context;
use crate::alert::evidence::Evidence;
use crate::alert::id::{RequestKey, RequestParts, alert_id};
use crate::alert::time::EventTime;
use crate::alert::{Alert, AlertKind, AlertRule, Reason, RuleSource, attack};
use crate::engine::Engine;
use crate::event::redact::redact_text;
use crate::event::{Event, Slot};
use crate::record::StoredEvent;
use crate::rule::Level;

/// Requests with one audit id that raise an alert. An aggregated API server hands the id on, so two
/// may be right.
pub const SHARED_MIN: u32 = 10;

/// Audit ids that are remembered, half of them at least.
pub const AUDIT_IDS_MAX: usize = 1 << 16;

/// How many requests were completed under each of the last audit ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AuditIds {
    young: FxHashMap<u64, u32>,
    old: FxHashMap<u64, u32>,
}

impl AuditIds {
    /// Counts a request; true when it is the one that makes them too many.
    pub fn count(&mut self, id: u64) -> bool {
        if self.young.len() >= AUDIT_IDS_MAX / 2 && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.get(&id).copied().unwrap_or_default();
        let count = self.young.entry(id).or_insert(before);
        *count = count.saturating_add(1);
        *count == SHARED_MIN
    }
}

/// A hash of the audit id of an event that completes a request; `None` for other events.
pub fn id_of(event: &Event<'_>, cluster: &str, key: &[u8; 16]) -> Option<u64> {
    if event.plain(Slot::Stage) != Some(b"ResponseComplete") {
        return None;
    }
    let id = event.text(Slot::AuditId).filter(|id| !id.is_empty())?;
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write_u64(cluster.len() as u64);
    hasher.write(cluster.as_bytes());
    hasher.write(id.as_bytes());
    Some(hasher.finish())
}

/// The alert about the event that made them too many; `None` when it cannot be read.
pub fn alert(stored: &StoredEvent<'_>, engine: &Engine) -> Option<Alert> {
    const RULE: &str = "kubewitness-audit-id-reused";
    const TITLE: &str = "One audit id on many requests";
    let event = Event::salvage(stored.raw)?;
    let audit_id = redact_text(&event.text(Slot::AuditId)?).into_owned();
    let cluster = stored.cluster;
    let Context { actor, request, .. } = Context::new(stored.raw, engine.proxies());
    let key = RequestKey::new(RequestParts {
        cluster,
        audit_id: &audit_id,
        username: "",
        verb: "",
        uri: "",
        received_at: "",
    });
    let tags = ["attack.defense_evasion", "attack.t1562.008"].map(str::to_owned);
    let who = actor.username.as_deref().unwrap_or("somebody unknown");
    let time = EventTime(stored.time_us);
    let position = stored.position.to_owned();
    let stage = "ResponseComplete".to_owned();
    Some(Alert {
        id: alert_id(RULE, &[key], cluster),
        time,
        kind: AlertKind::Correlation,
        cluster: cluster.to_owned(),
        rule: AlertRule {
            id: RULE.to_owned(),
            title: TITLE.to_owned(),
            level: Level::Medium,
            source: RuleSource::Builtin,
            tags: tags.to_vec(),
        },
        attack: attack::from_tags(&tags),
        summary: format!("{TITLE}: {who} and whoever else sent {SHARED_MIN} with {audit_id:?}"),
        actor,
        request,
        reason: vec![Reason {
            field: "auditID".to_owned(),
            value: audit_id.clone(),
            matched: format!("{SHARED_MIN} requests"),
        }],
        events: vec![Evidence { audit_id, stage, time, position }],
        count: u64::from(SHARED_MIN),
        runbook: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_once_and_forgets_the_oldest() {
        let mut ids = AuditIds::default();
        let told: Vec<u32> = (1..=1_000).filter(|_| ids.count(7)).collect();
        assert_eq!(told, [SHARED_MIN]);
        for id in 100..100 + AUDIT_IDS_MAX as u64 * 2 {
            assert!(!ids.count(id));
            assert!(ids.young.len() + ids.old.len() <= AUDIT_IDS_MAX);
        }
        assert_eq!((1..=20).filter(|_| ids.count(7)).count(), 1, "forgotten, and told anew");
    }
}
