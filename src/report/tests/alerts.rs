//! Alerts to format.

use crate::alert::evidence::Evidence;
use crate::alert::summary::{Facts, Window, summarise};
use crate::alert::time::EventTime;
use crate::alert::{Actor, Alert, AlertKind, AlertRule, Reason, Request, RuleSource, attack};
use crate::event::actor::ActorKind;
use crate::rule::Level;

/// Everything that could act on a terminal, a browser, a spreadsheet or a log.
pub(crate) const HOSTILE: &str = concat!(
    "=cmd|' /C calc'!A0;@x \u{1b}]0;pwn\u{7}\u{1b}[2J\u{9b}31m\u{7f}\u{0}\u{8}\r\n\t",
    "\u{202e}gnp\u{2066}\u{200b}\u{feff}\u{2028}\u{2029}\u{e0041}",
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "<!--<script>\"'`&lt;${x}{{x}} https://evil.example/",
);

const TIME: i64 = 1_795_306_612_710_682;

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// One alert out of a few words; the rest follows from them.
fn alert(
    number: i64,
    level: Level,
    rule: (&str, &[&str]),
    actor: Actor,
    request: Request,
) -> Alert {
    let time = EventTime(TIME + number * 61_500_000);
    let (title, tags) = rule;
    let facts =
        Facts { actor: &actor, request: &request, command: None, rule_title: title, window: None };
    Alert {
        id: format!("{number:032x}"),
        time,
        kind: AlertKind::Match,
        cluster: "prod-1".to_owned(),
        attack: attack::from_tags(tags),
        rule: AlertRule {
            id: format!("rule-{number}"),
            title: title.to_owned(),
            level,
            source: RuleSource::Sigma,
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        },
        summary: summarise(facts),
        reason: vec![Reason {
            field: "verb".to_owned(),
            value: request.verb.clone().unwrap_or_default(),
            matched: "is one of get, list, watch".to_owned(),
        }],
        events: vec![Evidence {
            audit_id: format!("00000000-0000-4000-8000-{number:012}"),
            stage: "ResponseComplete".to_owned(),
            time,
            position: format!("audit.log:{}", 100 + number),
        }],
        count: 1,
        runbook: text("See what else this actor did in the hour before."),
        actor,
        request,
    }
}

fn actor(username: &str, kind: ActorKind, ip: &str, user_agent: &str) -> Actor {
    Actor {
        username: text(username),
        kind: Some(kind),
        groups: vec!["devs".to_owned(), "system:authenticated".to_owned()],
        source_ips: vec![ip.to_owned()],
        source_ip: text(ip),
        user_agent: text(user_agent),
        ..Actor::default()
    }
}

fn request(verb: &str, resource: &str, namespace: &str, name: &str, code: i32) -> Request {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Request {
        verb: text(verb),
        uri: Some(format!("/api/v1/{resource}?limit=500")),
        resource: text(resource),
        subresource: text(subresource),
        namespace: text(namespace),
        name: text(name),
        decision: text(if code == 403 { "forbid" } else { "allow" }),
        code: Some(code),
        ..Request::default()
    }
}

/// One alert of every level and kind.
pub(crate) fn ordinary() -> Vec<Alert> {
    let alice = || actor("alice", ActorKind::User, "10.0.0.7", "kubectl/v1.36.2");
    let web = "system:serviceaccount:shop:web";
    let web = || actor(web, ActorKind::ServiceAccount, "2001:db8:85a3::8a2e:370:7334", "curl/8.5");
    let nobody = || actor("system:anonymous", ActorKind::Anonymous, "203.0.113.9", "zgrab/0.x");
    let secrets: &[&str] = &["attack.t1552.007", "attack.credential_access"];
    let mut burst = alert(
        4,
        Level::Low,
        ("Burst of failed authentication", &["attack.credential-access"]),
        nobody(),
        Request {
            uri: text("/api?timeout=32s"),
            code: Some(401),
            ..request("get", "", "", "", 401)
        },
    );
    burst.kind = AlertKind::Correlation;
    burst.count = 12;
    burst.summary = summarise(Facts {
        actor: &burst.actor,
        request: &burst.request,
        command: None,
        rule_title: &burst.rule.title,
        window: Some(Window {
            count: 12,
            group_by: &[("actor.source_ip".to_owned(), "203.0.113.9".to_owned())],
            timespan_us: 60_000_000,
        }),
    });
    vec![
        alert(
            0,
            Level::Informational,
            ("Actor asked who it is", &["attack.discovery"]),
            web(),
            request("create", "selfsubjectreviews", "", "", 201),
        ),
        alert(
            1,
            Level::High,
            ("Secrets listed across all namespaces", secrets),
            alice(),
            request("list", "secrets", "", "", 200),
        ),
        alert(
            2,
            Level::Medium,
            ("Command run in a pod", &["attack.t1609", "attack.execution"]),
            alice(),
            request("create", "pods/exec", "shop", "web-6d5f7c9b8-x2x4z", 101),
        ),
        alert(
            3,
            Level::Critical,
            ("Anonymous write allowed", &["attack.t1190", "attack.initial_access"]),
            nobody(),
            request("create", "pods", "kube-system", "miner", 201),
        ),
        burst,
    ]
}

/// Alerts with a hostile value in every text that an event, a rule or a file name can bring.
pub(crate) fn hostile() -> Vec<Alert> {
    let text = || Some(HOSTILE.to_owned());
    let plain = || HOSTILE.to_owned();
    let actor = Actor {
        username: text(),
        kind: Some(ActorKind::User),
        groups: vec![plain(), plain()],
        impersonated: text(),
        source_ips: vec![plain()],
        source_ip: text(),
        user_agent: text(),
        credential_id: text(),
    };
    let request = Request {
        verb: text(),
        uri: text(),
        resource: text(),
        subresource: text(),
        api_group: text(),
        namespace: text(),
        name: text(),
        decision: text(),
        code: Some(200),
    };
    let mut all = alert(1, Level::High, ("", &[]), actor.clone(), request.clone());
    all.id = plain();
    all.cluster = plain();
    all.rule.id = plain();
    all.rule.title = plain();
    all.rule.tags = vec![plain()];
    all.attack = vec![attack::Attack { technique: text(), tactics: vec![plain()] }];
    all.reason = vec![Reason { field: plain(), value: plain(), matched: plain() }];
    all.runbook = text();
    for event in &mut all.events {
        event.audit_id = plain();
        event.stage = plain();
        event.position = plain();
    }
    let path = Request { resource: None, ..request };
    let mut other = alert(2, Level::Critical, (HOSTILE, &[]), actor, path);
    other.summary = plain();
    vec![all, other]
}
