//! The JSON of an alert is a contract: fields, order, absence.

use crate::alert::evidence::Evidence;
use crate::alert::time::EventTime;
use crate::alert::{Actor, Alert, AlertKind, AlertRule, Reason, Request, RuleSource};
use crate::event::actor::ActorKind;
use crate::rule::Level;

const FULL: &str = concat!(
    r#"{"id":"0123456789abcdef0123456789abcdef","time":"2026-11-22T00:16:52.710682Z","#,
    r#""kind":"match","cluster":"prod-1","#,
    r#""rule":{"id":"r1","title":"T","level":"high","source":"sigma","#,
    r#""tags":["attack.t1552.007","attack.credential_access"]},"#,
    r#""attack":[{"technique":"T1552.007","tactics":["credential-access"]}],"#,
    r#""actor":{"username":"alice","kind":"user","groups":["devs"],"impersonated":"root","#,
    r#""source_ips":["1.2.3.4","10.0.0.7"],"source_ip":"10.0.0.7","user_agent":"kubectl/v1.36","#,
    r#""credential_id":"X509SHA256=ab"},"#,
    r#""request":{"verb":"list","uri":"/api/v1/secrets","resource":"secrets","subresource":"s","#,
    r#""api_group":"g","namespace":"n","name":"x","decision":"allow","code":200},"#,
    r#""reason":[{"field":"verb","value":"list","matched":"equals list"}],"summary":"S","#,
    r#""events":[{"audit_id":"a1","stage":"ResponseComplete","#,
    r#""time":"2026-11-22T00:16:52.710682Z","#,
    r#""position":"audit.log:7"}],"count":1,"runbook":"Look."}"#,
);

const BARE: &str = concat!(
    r#"{"id":"0123456789abcdef0123456789abcdef","time":"2026-11-22T00:16:52.710682Z","#,
    r#""kind":"correlation","cluster":"","#,
    r#""rule":{"id":"r1","title":"T","level":"informational","source":"sigma","tags":[]},"#,
    r#""attack":[],"actor":{"groups":[],"source_ips":[]},"request":{},"reason":[],"summary":"S","#,
    r#""events":[],"count":0}"#,
);

fn full() -> Alert {
    let text = |text: &str| Some(text.to_owned());
    let tags = vec!["attack.t1552.007".to_owned(), "attack.credential_access".to_owned()];
    Alert {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        time: EventTime(1_795_306_612_710_682),
        kind: AlertKind::Match,
        cluster: "prod-1".to_owned(),
        attack: crate::alert::attack::from_tags(&tags),
        rule: AlertRule {
            id: "r1".to_owned(),
            title: "T".to_owned(),
            level: Level::High,
            source: RuleSource::Sigma,
            tags,
        },
        actor: Actor {
            username: text("alice"),
            kind: Some(ActorKind::User),
            groups: vec!["devs".to_owned()],
            impersonated: text("root"),
            source_ips: vec!["1.2.3.4".to_owned(), "10.0.0.7".to_owned()],
            source_ip: text("10.0.0.7"),
            user_agent: text("kubectl/v1.36"),
            credential_id: text("X509SHA256=ab"),
        },
        request: Request {
            verb: text("list"),
            uri: text("/api/v1/secrets"),
            resource: text("secrets"),
            subresource: text("s"),
            api_group: text("g"),
            namespace: text("n"),
            name: text("x"),
            decision: text("allow"),
            code: Some(200),
        },
        reason: vec![Reason {
            field: "verb".to_owned(),
            value: "list".to_owned(),
            matched: "equals list".to_owned(),
        }],
        summary: "S".to_owned(),
        events: vec![Evidence {
            audit_id: "a1".to_owned(),
            stage: "ResponseComplete".to_owned(),
            time: EventTime(1_795_306_612_710_682),
            position: "audit.log:7".to_owned(),
        }],
        count: 1,
        runbook: text("Look."),
    }
}

fn bare() -> Alert {
    let mut alert = full();
    alert.kind = AlertKind::Correlation;
    alert.cluster = String::new();
    alert.rule.level = Level::Informational;
    alert.rule.tags = Vec::new();
    alert.attack = Vec::new();
    alert.actor = Actor::default();
    alert.request = Request::default();
    alert.reason = Vec::new();
    alert.events = Vec::new();
    alert.count = 0;
    alert.runbook = None;
    alert
}

#[test]
fn json_has_the_fields_of_the_contract_in_their_order() {
    for (alert, json) in [(full(), FULL), (bare(), BARE)] {
        assert_eq!(serde_json::to_string(&alert).unwrap(), json);
        assert_eq!(serde_json::from_str::<Alert>(json).unwrap(), alert);
    }
}

#[test]
fn readers_take_null_for_absent_and_refuse_unknown_levels() {
    let json = BARE.replace(r#""request":{}"#, r#""request":{"verb":null,"code":null}"#);
    assert_eq!(serde_json::from_str::<Alert>(&json).unwrap(), bare());
    let json = BARE.replace("informational", "urgent");
    assert!(serde_json::from_str::<Alert>(&json).is_err());
}
