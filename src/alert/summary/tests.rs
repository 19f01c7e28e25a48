//! Cases: an actor, a request in one line, and the sentence.

use crate::alert::summary::{Facts, Window, span, summarise};
use crate::alert::{Actor, Request};
use crate::event::actor::ActorKind;

/// `verb resource[.group][/subresource] [namespace]/[name] code`, `-` where there is nothing; the
/// resource may be a path.
fn request(line: &str) -> Request {
    let words: Vec<&str> = line.split(' ').collect();
    let [verb, what, place, code] = words[..] else { panic!("{line}") };
    let text = |word: &str| (!word.is_empty() && word != "-").then(|| word.to_owned());
    let mut request = Request { verb: text(verb), code: code.parse().ok(), ..Request::default() };
    if what.starts_with('/') {
        request.uri = text(what);
        return request;
    }
    let (what, uri) = what.split_once('?').unwrap_or((what, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    request.resource = text(resource);
    request.subresource = text(subresource);
    request.api_group = text(group);
    request.namespace = text(namespace);
    request.name = text(name);
    request.uri = text(uri);
    request
}

fn alice() -> Actor {
    Actor {
        username: Some("alice".to_owned()),
        kind: Some(ActorKind::User),
        source_ip: Some("10.0.0.7".to_owned()),
        ..Actor::default()
    }
}

fn facts<'a>(actor: &'a Actor, request: &'a Request) -> Facts<'a> {
    Facts { actor, request, command: None, rule_title: "Title", window: None }
}

fn check_acts(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let request = request(line);
        let summary = summarise(facts(&alice(), &request));
        assert_eq!(summary, format!("alice (user, from 10.0.0.7) {expected}"), "{line}");
    }
}

#[test]
fn says_what_was_done() {
    check_acts(&[
        ("list secrets - 200", "listed secrets in all namespaces: allowed (200)"),
        ("list secrets shop/ 200", "listed secrets in namespace shop: allowed (200)"),
        ("list secrets - 403", "tried to list secrets in all namespaces: denied (403)"),
        ("list nodes - 200", "listed nodes: allowed (200)"),
        (
            "watch widgets.example.com - 200",
            "watched widgets.example.com across the cluster: allowed (200)",
        ),
        ("get widgets.example.com shop/w 200", "read widgets.example.com shop/w: allowed (200)"),
        ("get secrets shop/db 200", "read secret shop/db: allowed (200)"),
        ("get secrets shop/db 404", "tried to read secret shop/db: failed (404)"),
        ("get namespaces shop/shop 200", "read namespace shop: allowed (200)"),
        ("create pods shop/ 201", "created a pod in namespace shop: allowed (201)"),
        ("create ingresses.networking.k8s.io shop/i 201", "created ingress shop/i: allowed (201)"),
        (
            "create clusterrolebindings.rbac.authorization.k8s.io evil 201",
            "created clusterrolebinding evil: allowed (201)",
        ),
        ("create pods?/x?dryRun=All shop/p 201", "created pod shop/p as a dry run: allowed (201)"),
        (
            "delete networkpolicies.networking.k8s.io shop/n 200",
            "deleted networkpolicy shop/n: allowed (200)",
        ),
        (
            "deletecollection events shop/ 200",
            "deleted all events in namespace shop: allowed (200)",
        ),
        ("get /version?timeout=32s - 200", "requested /version: allowed (200)"),
        ("post /api - 405", "tried to send POST to /api: failed (405)"),
        ("frob secrets - 200", "sent frob to secrets in all namespaces: allowed (200)"),
        ("list secrets - -", "asked to list secrets in all namespaces"),
    ]);
}

#[test]
fn says_what_was_done_to_a_subresource() {
    check_acts(&[
        ("create pods/exec shop/web-1 101", "ran a command in pod shop/web-1: allowed (101)"),
        ("get pods/attach shop/web-1 101", "attached to pod shop/web-1: allowed (101)"),
        (
            "create pods/portforward shop/web-1 403",
            "tried to open a port-forward to pod shop/web-1: denied (403)",
        ),
        ("get pods/log shop/web-1 200", "read the logs of pod shop/web-1: allowed (200)"),
        ("create pods/eviction shop/web-1 201", "evicted pod shop/web-1: allowed (201)"),
        (
            "patch pods/ephemeralcontainers shop/web-1 200",
            "added a debug container to pod shop/web-1: allowed (200)",
        ),
        (
            "create serviceaccounts/token shop/web 201",
            "requested a token for service account shop/web: allowed (201)",
        ),
        (
            "create nodes/proxy?/api/v1/nodes/n1/proxy/run/a/b/c?cmd=id n1 200",
            "reached /run/a/b/c through the proxy of node n1: allowed (200)",
        ),
        (
            "get services/proxy shop/web 200",
            "reached / through the proxy of service shop/web: allowed (200)",
        ),
        ("patch deployments.apps/scale shop/web 200", "scaled deployment shop/web: allowed (200)"),
        (
            "update certificatesigningrequests.certificates.k8s.io/approval c1 200",
            "updated the approval of certificate signing request c1: allowed (200)",
        ),
        ("patch pods/status shop/web-1 200", "patched the status of pod shop/web-1: allowed (200)"),
        (
            "create selfsubjectrulesreviews.authorization.k8s.io - 201",
            "asked what it may do: allowed (201)",
        ),
        ("create tokenreviews.authentication.k8s.io - 201", "created a tokenreview: allowed (201)"),
    ]);
}

#[test]
fn says_who_did_it() {
    let get = request("get /version - 200");
    let actor = |username: &str, kind, ip: &str, impersonated: &str| Actor {
        username: (!username.is_empty()).then(|| username.to_owned()),
        kind,
        source_ip: (!ip.is_empty()).then(|| ip.to_owned()),
        impersonated: (!impersonated.is_empty()).then(|| impersonated.to_owned()),
        ..Actor::default()
    };
    let sa = "system:serviceaccount:shop:web";
    let cases = [
        (actor("alice", Some(ActorKind::User), "", ""), "alice (user)"),
        (
            actor(sa, Some(ActorKind::ServiceAccount), "10.0.0.7", ""),
            "system:serviceaccount:shop:web (from 10.0.0.7)",
        ),
        (actor(sa, Some(ActorKind::ServiceAccount), "", ""), sa),
        (
            actor("system:anonymous", Some(ActorKind::Anonymous), "::1", ""),
            "system:anonymous (not authenticated, from ::1)",
        ),
        (
            actor("bob", Some(ActorKind::User), "10.0.0.7", "system:admin"),
            "bob (user, from 10.0.0.7) acting as system:admin",
        ),
        (actor("", None, "10.0.0.7", ""), "an unknown user (from 10.0.0.7)"),
    ];
    for (actor, expected) in cases {
        let summary = summarise(facts(&actor, &get));
        assert_eq!(summary, format!("{expected} requested /version: allowed (200)"));
    }
}

#[test]
fn quotes_commands_and_shortens_them() {
    let exec = request("create pods/exec shop/web-1 101");
    let actor =
        Actor { username: Some("system:serviceaccount:shop:web".into()), ..Actor::default() };
    let ran = |command| summarise(Facts { command: Some(command), ..facts(&actor, &exec) });
    assert_eq!(
        ran("sh -c id"),
        "system:serviceaccount:shop:web ran \"sh -c id\" in pod shop/web-1: allowed (101)"
    );
    let long = ran(&"x".repeat(5000));
    assert!(long.chars().count() < 250 && long.contains('…'), "{long}");
}

#[test]
fn names_the_decision_when_the_answer_is_not_known() {
    let cases = [
        ("allow", "asked to list pods in namespace shop: allowed, answer unknown"),
        ("forbid", "tried to list pods in namespace shop: denied"),
    ];
    for (decision, expected) in cases {
        let mut request = request("list pods shop/ -");
        request.decision = Some(decision.to_owned());
        let summary = summarise(facts(&alice(), &request));
        assert_eq!(summary, format!("alice (user, from 10.0.0.7) {expected}"));
    }
}

#[test]
fn says_what_came_together() {
    let refused = request("get /api - 401");
    let nobody = Actor { source_ip: Some("10.0.0.7".into()), ..Actor::default() };
    let from = [("actor.source_ip".to_owned(), "10.0.0.7".to_owned())];
    let odd =
        [("objectRef.namespace".to_owned(), "shop".to_owned()), ("x.y".to_owned(), "z".to_owned())];
    let last =
        "an unauthenticated client (from 10.0.0.7) tried to request /api: not authenticated (401)";
    let cases = [
        (
            12,
            &from[..],
            60_000_000,
            format!("Title: 12 events from 10.0.0.7 within 1m, the last: {last}"),
        ),
        (
            2,
            &odd[..],
            5_400_000_000,
            format!("Title: 2 events in namespace shop with x.y z within 1h30m, the last: {last}"),
        ),
        (1, &from[..], 60_000_000, format!("Title: {last}")),
    ];
    for (count, group_by, timespan_us, expected) in cases {
        let window = Some(Window { count, group_by, timespan_us });
        assert_eq!(summarise(Facts { window, ..facts(&nobody, &refused) }), expected);
    }
}

#[test]
fn falls_back_to_the_rule_when_the_event_was_cut() {
    let request = Request::default();
    assert_eq!(summarise(facts(&alice(), &request)), "Title");
}

#[test]
fn spells_time_spans() {
    let cases = [(0, "0s"), (1_000_000, "1s"), (90_000_000, "1m30s"), (14 * 86_400_000_000, "14d")];
    for (micros, expected) in cases {
        assert_eq!(span(micros), expected);
    }
}

#[test]
fn stays_short_whatever_the_values() {
    let long = || Some("x".repeat(100_000));
    let actor = Actor { username: long(), impersonated: long(), source_ip: long(), ..alice() };
    let request = Request {
        verb: long(),
        resource: long(),
        subresource: long(),
        namespace: long(),
        name: long(),
        uri: long(),
        ..Request::default()
    };
    let summary = summarise(facts(&actor, &request));
    assert!(summary.chars().count() <= 700, "{}", summary.len());
}
