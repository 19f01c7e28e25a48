//! What a predicate costs to decide and how often it holds: the estimates by which the index
//! chooses.
//!
//! They decide speed only, never a result. The shares were counted on the recorded sample and on
//! generated traffic and rounded; they need to be right within a factor of ten.

use crate::engine::field::{FieldId, FieldTable, Source};
use crate::engine::predicate::{Check, Predicate};
use crate::event::Slot;
use crate::event::derived::Derived;
use crate::rule::{Pattern, Piece, Place};

/// Relative weight of a predicate inside one rule; lighter ones are decided first.
pub fn weight(fields: &FieldTable, predicate: &Predicate) -> u32 {
    let field = match fields.source(predicate.field) {
        Source::Slot(_) | Source::Element(..) => 1,
        Source::Derived(Derived::ActorKind | Derived::Outcome) => 2,
        Source::Derived(_) => 4,
        Source::Walk(_) => 10,
        Source::Rewrite(..) => 12,
        Source::Whole => 40,
    };
    let check = match predicate.check {
        Check::Text { .. } | Check::Any | Check::Null | Check::Exists(_) => 0,
        Check::Compare(..) | Check::Cidr(_) => 1,
        Check::Wildcard { .. } | Check::Regex(_) | Check::TimePart(..) => 3,
        Check::FieldRef(..) => 5,
        Check::Elements(..) => 20,
    };
    field + check
}

/// Nanoseconds to read a field on every event and look its value up.
pub fn field_ns(fields: &FieldTable, field: FieldId) -> f64 {
    match fields.source(field) {
        Source::Slot(Slot::Resource | Slot::Verb | Slot::StatusCode) => 20.0,
        Source::Slot(Slot::StatusMessage) => 10.0,
        Source::Slot(Slot::RequestUri | Slot::UserAgent) => 100.0,
        Source::Slot(Slot::UserGroups | Slot::SourceIps) => 100.0,
        Source::Slot(_) | Source::Element(..) => 40.0,
        Source::Derived(Derived::ActorKind | Derived::Outcome) => 40.0,
        Source::Derived(Derived::Command | Derived::ProxyPath) => 30.0,
        Source::Derived(_) => 100.0,
        Source::Walk(groups) => fields
            .groups()
            .iter()
            .enumerate()
            .filter(|(bit, _)| groups & (1 << bit) != 0)
            .map(|(_, group)| walk_ns(group.slot))
            .sum(),
        Source::Rewrite(..) => 2_500.0,
        Source::Whole => 4_000.0,
    }
}

/// Whether a predicate is cheap to decide for every event and hardly ever holds: text of a field
/// that repeats or is short, and that is rarely this.
pub fn is_selective(fields: &FieldTable, predicate: &Predicate) -> bool {
    const SHARE_MAX: f64 = 0.006;
    let is_cheap = matches!(
        fields.source(predicate.field),
        Source::Slot(
            Slot::Resource
                | Slot::Username
                | Slot::UserAgent
                | Slot::Namespace
                | Slot::Name
                | Slot::ApiGroup
                | Slot::Subresource
                | Slot::StatusCode
                | Slot::RequestUri
        )
    );
    is_cheap
        && matches!(predicate.check, Check::Text { .. })
        && share(fields, predicate) <= SHARE_MAX
}

/// Whether reading the field means walking a body, which is never worth it for every event.
pub fn is_in_body(fields: &FieldTable, predicate: &Predicate) -> bool {
    match fields.source(predicate.field) {
        Source::Slot(_) | Source::Element(..) | Source::Derived(_) => false,
        Source::Rewrite(..) | Source::Whole => true,
        Source::Walk(groups) => fields.groups().iter().enumerate().any(|(bit, group)| {
            groups & (1 << bit) != 0
                && matches!(group.slot, None | Some(Slot::RequestObject | Slot::ResponseObject))
        }),
    }
}

/// Nanoseconds to walk a subtree: nearly every event has annotations and hardly any an impersonated
/// user.
fn walk_ns(slot: Option<Slot>) -> f64 {
    match slot {
        Some(Slot::ImpersonatedUser | Slot::AuthenticationMetadata | Slot::StatusDetails) => 10.0,
        Some(Slot::Annotations | Slot::UserExtra) => 250.0,
        _ => 2_000.0,
    }
}

/// Nanoseconds to evaluate a candidate and refuse it: more where it asks for a subtree.
pub fn candidate_ns(fields: &FieldTable, walks: impl Iterator<Item = Source>) -> f64 {
    let walked: f64 = walks
        .map(|source| match source {
            Source::Walk(groups) => fields
                .groups()
                .iter()
                .enumerate()
                .filter(|(bit, _)| groups & (1 << bit) != 0)
                .map(|(_, group)| walk_ns(group.slot))
                .fold(0.0, f64::max),
            Source::Rewrite(..) => 2_000.0,
            Source::Whole => 4_000.0,
            Source::Slot(_) | Source::Element(..) | Source::Derived(_) => 0.0,
        })
        .fold(0.0, f64::max);
    150.0 + walked / 2.0
}

/// Nanoseconds to decide the predicate by itself on every event, for checks that are not shared.
pub fn check_ns(check: &Check) -> f64 {
    match check {
        Check::Text { .. } => 0.0,
        Check::Any | Check::Null | Check::Exists(_) => 5.0,
        Check::Compare(..) | Check::Cidr(_) => 40.0,
        Check::Wildcard { .. } | Check::Regex(_) | Check::TimePart(..) => 150.0,
        Check::FieldRef(..) => 200.0,
        Check::Elements(..) => 2_000.0,
    }
}

/// Resources that every cluster has and uses.
const BUILT_IN: [&str; 24] = [
    "clusterrolebindings",
    "clusterroles",
    "cronjobs",
    "customresourcedefinitions",
    "daemonsets",
    "deployments",
    "endpoints",
    "endpointslices",
    "horizontalpodautoscalers",
    "ingresses",
    "jobs",
    "mutatingwebhookconfigurations",
    "namespaces",
    "networkpolicies",
    "persistentvolumeclaims",
    "persistentvolumes",
    "replicasets",
    "rolebindings",
    "roles",
    "secrets",
    "serviceaccounts",
    "services",
    "statefulsets",
    "validatingwebhookconfigurations",
];

/// The share of events for which the predicate holds.
pub fn share(fields: &FieldTable, predicate: &Predicate) -> f64 {
    let (text, place) = match &predicate.check {
        Check::Text { text, place, .. } => (&**text, *place),
        Check::Wildcard { pattern, .. } => (pattern.literal(), Place::Inside),
        Check::Any | Check::Exists(true) => {
            // Of a field that is found by a walk, hardly any event has a value.
            let is_walked = matches!(fields.source(predicate.field), Source::Walk(_));
            return if is_walked { 0.02 } else { 0.6 };
        }
        Check::Regex(_) => return 0.05,
        _ => return 0.3,
    };
    let source = fields.source(predicate.field);
    let is_username = matches!(source, Source::Slot(Slot::Username))
        || matches!(source, Source::Derived(Derived::ActorName));
    let by_place = match place {
        Place::Whole => 0.005,
        Place::Prefix if is_username && text.starts_with("system:") => 0.5,
        // A walked field is absent from most events.
        Place::Prefix | Place::Suffix if matches!(source, Source::Walk(_)) => 0.005,
        Place::Prefix | Place::Suffix => 0.05,
        Place::Inside if text.len() < 4 => 0.3,
        Place::Inside if text.len() < 8 => 0.001,
        Place::Inside => 0.000_5,
    };
    match (source, text) {
        (Source::Slot(Slot::Verb), "get" | "watch" | "patch" | "update") => 0.2,
        (Source::Slot(Slot::Verb), _) => 0.05,
        (Source::Slot(Slot::Stage | Slot::Level | Slot::Kind | Slot::ApiVersion), _) => 0.8,
        (Source::Slot(Slot::Resource), "pods") => 0.2,
        (Source::Slot(Slot::Resource), "leases" | "nodes" | "events" | "configmaps") => 0.1,
        (Source::Slot(Slot::Resource), resource) if BUILT_IN.contains(&resource) => 0.03,
        (Source::Slot(Slot::Namespace), "kube-system") => 0.3,
        (Source::Slot(Slot::Subresource), "status") => 0.2,
        (Source::Slot(Slot::Subresource), _) => 0.02,
        (Source::Slot(Slot::StatusCode), "200") => 0.85,
        (Source::Slot(Slot::StatusCode), "201") => 0.1,
        (Source::Slot(Slot::StatusCode), _) => 0.02,
        (Source::Slot(Slot::ApiGroup), "apps" | "coordination.k8s.io" | "batch") => 0.1,
        (Source::Slot(Slot::ApiGroup), group) if group.ends_with(".k8s.io") => 0.03,
        (Source::Slot(Slot::UserGroups), _) => 0.3,
        (Source::Derived(Derived::Outcome), "success") => 0.9,
        (Source::Derived(Derived::ActorKind), "user") => 0.2,
        (Source::Derived(Derived::ActorKind), "anonymous") => 0.01,
        (Source::Derived(Derived::ActorKind), _) => 0.4,
        (Source::Derived(Derived::DryRun), "false") => 1.0,
        _ => by_place,
    }
}

/// The pattern anywhere in a text: what a keyword means.
pub fn anywhere(pattern: &Pattern) -> Pattern {
    let mut pieces = vec![Piece::AnyRun];
    pieces.extend(pattern.pieces.iter().cloned());
    pieces.push(Piece::AnyRun);
    pieces.dedup_by(|right, left| *right == Piece::AnyRun && *left == Piece::AnyRun);
    Pattern { pieces }
}
