//! Field names of Kubernetes audit rules: the bare names that SigmaHQ's rules use, the audit paths
//! they mean, and the table of all paths that an audit event can have.
//!
//! SigmaHQ's kubernetes rules were written against two vocabularies. Some say `objectRef.resource`
//! as the event does, others say `apiGroup` or `hostPath`, which no event has: those rules never
//! fire. Where `Options::taxonomy` asks for it, [`canonical`] names
//! are put in their place, and three values are read as their authors meant them:
//!
//! | written | means |
//! |---|---|
//! | `verb: replace` | `verb: update`; audit events have no verb `replace` |
//! | `responseStatus.code: ALLOW` (`FORBID`, `DENY`) | the decision `allow` (`forbid`) |
//! | `isWrite`, `isServiceAccount`, `isNode` | a verb that writes; the kind of actor |

use std::sync::Arc;

use crate::rule::{
    Body, Condition, Correlation, CorrelationKind, Logsource, Matcher, Pattern, Rule, Test,
};

/// The annotation that holds the authorizer's decision.
pub const DECISION: &str = "annotations.authorization.k8s.io/decision";

/// Bare names and the audit paths they mean.
pub const NAMES: [(&str, &str); 20] = [
    ("apiGroup", "objectRef.apiGroup"),
    ("resource", "objectRef.resource"),
    ("subresource", "objectRef.subresource"),
    ("namespace", "objectRef.namespace"),
    ("name", "objectRef.name"),
    ("objectName", "objectRef.name"),
    ("username", "user.username"),
    ("groups", "user.groups"),
    ("privileged", "pod.container.securityContext.privileged"),
    ("capabilities", "pod.container.securityContext.capabilities.add"),
    ("hostPath", "pod.host_path"),
    ("hostNetwork", "pod.hostNetwork"),
    ("hostPID", "pod.hostPID"),
    ("hostIPC", "pod.hostIPC"),
    ("image", "pod.container.image"),
    ("serviceAccountName", "pod.serviceAccountName"),
    ("decision", DECISION),
    ("reason", "annotations.authorization.k8s.io/reason"),
    ("sourceIP", "sourceIPs"),
    ("command", "request.command"),
];

/// The prefix under which Elastic's integration keeps the same fields.
const ELASTIC_PREFIX: &str = "kubernetes.audit.";

/// Verbs that change something.
pub const WRITE_VERBS: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The verbs of requests for resources; a method that is none of HTTP's usual ones has no verb.
pub const RESOURCE_VERBS: [&str; 9] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"];

/// The usual HTTP methods of requests for other paths, beside those that are verbs of resources. A
/// client may send any other, so that a verb outside of both lists is rare but not impossible.
pub const METHOD_VERBS: [&str; 6] = ["post", "put", "head", "options", "trace", "connect"];

pub use crate::event::{LEVELS as AUDIT_LEVELS, STAGES};

/// Paths of `audit.k8s.io/v1` and the derived fields, spelled out.
pub const PATHS: [&str; 64] = [
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "user.username",
    "user.uid",
    "user.groups",
    "user.extra",
    "impersonatedUser",
    "impersonatedUser.username",
    "impersonatedUser.uid",
    "impersonatedUser.groups",
    "impersonatedUser.extra",
    "authenticationMetadata",
    "authenticationMetadata.impersonationConstraint",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "objectRef.resource",
    "objectRef.namespace",
    "objectRef.name",
    "objectRef.uid",
    "objectRef.apiGroup",
    "objectRef.apiVersion",
    "objectRef.resourceVersion",
    "objectRef.subresource",
    "responseStatus",
    "responseStatus.status",
    "responseStatus.message",
    "responseStatus.reason",
    "responseStatus.code",
    "responseStatus.details",
    "responseStatus.metadata",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
    "actor.kind",
    "actor.name",
    "actor.source_ip",
    "actor.source_public",
    "actor.credential_id",
    "actor.user_agent_family",
    "request.path",
    "request.command",
    "request.dry_run",
    "request.outcome",
    "actor.is_forwarded",
    "request.audit_id_kind",
    "request.annotation_keys",
    "request.path_is_clean",
    "request.proxy_path",
    "pod.host_path",
    "pod.image",
    "pod.image_repository",
    "pod.metadata",
    "pod.container",
    "csr.subject",
    "object",
];

/// Paths below which anything may stand.
pub const OPEN: [&str; 9] = [
    "user.extra.",
    "impersonatedUser.extra.",
    "responseStatus.details.",
    "responseStatus.metadata.",
    "requestObject.",
    "responseObject.",
    "annotations.",
    "pod.",
    "object.",
];

/// Returns the audit path that a name means, when it is not written as one.
pub fn canonical(field: &str) -> Option<&str> {
    let bare = field.strip_prefix(ELASTIC_PREFIX).unwrap_or(field);
    match NAMES.iter().find(|(name, _)| *name == bare) {
        Some((_, path)) => Some(path),
        None if bare.len() < field.len() => Some(bare),
        None => None,
    }
}

/// Whether an audit event, or its derived fields, can have the path.
pub fn is_path(field: &str) -> bool {
    PATHS.contains(&field) || OPEN.iter().any(|prefix| field.starts_with(prefix))
}

impl Logsource {
    /// Whether audit events of Kubernetes are among the logs it is about.
    pub fn is_kubernetes_audit(&self) -> bool {
        self.product.as_deref().is_none_or(|product| product == "kubernetes")
            && self.service.as_deref().is_none_or(|service| service == "audit")
    }
}

/// Rewrites a rule about audit events to audit paths; other rules stay as they are.
pub fn apply(rule: &mut Rule) {
    if !rule.logsource.is_kubernetes_audit() {
        return;
    }
    for field in &mut rule.fields {
        if let Some(path) = canonical(field) {
            *field = path.to_owned();
        }
    }
    match &mut rule.body {
        Body::Detection(condition) => {
            let written = std::mem::replace(condition, Condition::And(Vec::new()));
            *condition = rewrite(written);
        }
        Body::Correlation(correlation) => rewrite_correlation(correlation),
    }
}

/// Rewrites a condition to audit paths.
pub fn rewrite(condition: Condition) -> Condition {
    match condition {
        Condition::And(parts) => Condition::And(parts.into_iter().map(rewrite).collect()),
        Condition::Or(parts) => {
            let mut rewritten: Vec<Condition> = Vec::with_capacity(parts.len());
            let mut is_verb_seen = false;
            for part in parts.into_iter().map(rewrite) {
                // `update` and `replace` in one list become the same test.
                let is_update = is_update(&part);
                if !(is_update && is_verb_seen) {
                    rewritten.push(part);
                }
                is_verb_seen |= is_update;
            }
            Condition::any_of(rewritten).unwrap_or(Condition::Or(Vec::new()))
        }
        Condition::Not(inner) => Condition::Not(Box::new(rewrite(*inner))),
        Condition::Named(name, inner) => Condition::Named(name, Box::new(rewrite(*inner))),
        Condition::Test(test) => rewrite_test(test),
    }
}

fn is_update(condition: &Condition) -> bool {
    matches!(condition, Condition::Test(test)
        if test.field.as_deref() == Some("verb") && literal(test) == Some("update"))
}

fn rewrite_test(mut test: Test) -> Condition {
    let Some(field) = test.field.clone() else { return Condition::Test(test) };
    let bare = field.strip_prefix(ELASTIC_PREFIX).unwrap_or(&field);
    let word = literal(&test).map(str::to_ascii_lowercase);
    match (bare, word.as_deref()) {
        ("verb", Some("replace")) => return text_test("verb", "update"),
        ("responseStatus.code", Some("allow")) => return text_test(DECISION, "allow"),
        ("responseStatus.code", Some("forbid" | "deny")) => return text_test(DECISION, "forbid"),
        ("isWrite", Some(word @ ("true" | "false"))) => {
            let verbs = WRITE_VERBS.iter().map(|verb| text_test("verb", verb)).collect();
            return negated_unless(word == "true", Condition::Or(verbs));
        }
        ("isServiceAccount", Some(word @ ("true" | "false"))) => {
            return negated_unless(word == "true", text_test("actor.kind", "service_account"));
        }
        ("isNode", Some(word @ ("true" | "false"))) => {
            return negated_unless(word == "true", text_test("actor.kind", "node"));
        }
        _ => {}
    }
    if let Some(path) = canonical(&field) {
        test.field = Some(Arc::from(path));
    }
    if let Matcher::FieldRef { other, .. } = &mut test.matcher
        && let Some(path) = canonical(other).map(Arc::from)
    {
        *other = path;
    }
    Condition::Test(test)
}

fn literal(test: &Test) -> Option<&str> {
    match &test.matcher {
        Matcher::Text { pattern, .. } => pattern.as_literal(),
        _ => None,
    }
}

fn text_test(field: &str, text: &str) -> Condition {
    let matcher = Matcher::Text { pattern: Pattern::literal(text), cased: false };
    Condition::Test(Test { field: Some(Arc::from(field)), matcher })
}

fn negated_unless(expected: bool, condition: Condition) -> Condition {
    if expected { condition } else { Condition::Not(Box::new(condition)) }
}

fn rewrite_correlation(correlation: &mut Correlation) {
    let aliases: Vec<Arc<str>> =
        correlation.aliases.iter().map(|(alias, _)| Arc::clone(alias)).collect();
    let path = |field: &Arc<str>| canonical(field).map(Arc::from);
    for (_, fields) in &mut correlation.aliases {
        fields.iter_mut().for_each(|(_, field)| *field = path(field).unwrap_or(field.clone()));
    }
    let map = |field: &mut Arc<str>| {
        if let Some(path) = path(field).filter(|_| !aliases.contains(field)) {
            *field = path;
        }
    };
    correlation.group_by.iter_mut().for_each(map);
    match &mut correlation.kind {
        CorrelationKind::ValueCount { fields, .. } => fields.iter_mut().for_each(map),
        CorrelationKind::Aggregate { field, .. } => map(field),
        CorrelationKind::NewTerms(terms) => terms.fields.iter_mut().for_each(map),
        CorrelationKind::EventCount(_)
        | CorrelationKind::Temporal(_)
        | CorrelationKind::TemporalOrdered(_) => {}
    }
}
