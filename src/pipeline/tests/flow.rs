//! What goes through, in what order, and what is answered.

use crate::pipeline::tests::{Plan, RULES, Rig, engine, held, line, staged};
use crate::spool::disk::sim::Sim;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A little of everything: users, reads of secrets in old and new namespaces, pods, sessions.
pub(crate) fn traffic(lines: u32) -> Vec<String> {
    let users = ["ada", "bob", "eve"];
    (0..lines)
        .map(|n| {
            let user = users[n as usize % 3];
            match n % 7 {
                0 => staged(n, user, "create", "pods/exec", "dev", "ResponseStarted"),
                1 => line(n, user, "create", "pods", "dev"),
                2 if n > 40 => line(n, user, "get", "secrets", &format!("team-{}", n % 11)),
                6 if n > 7 => staged(
                    n - 6,
                    users[(n as usize - 6) % 3],
                    "create",
                    "pods/exec",
                    "dev",
                    "ResponseComplete",
                ),
                _ => line(n, user, "get", if n % 2 == 0 { "secrets" } else { "nodes" }, "dev"),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_in_the_spool_are_those_of_evaluating_it_anew() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    let lines = traffic(300);
    for (number, part) in lines.chunks(17).enumerate() {
        let source = if number % 3 == 0 { "webhook" } else { "log" };
        let receipt = rig.send(source, part, number * 17).await.unwrap();
        assert_eq!((receipt.events, receipt.duplicates), (part.len() as u64, 0));
    }
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
    let held = held(&sim, &engine);
    assert_eq!(held.events.len(), lines.len());
    assert!(held.events.iter().map(|(_, _, raw)| raw).eq(&lines), "in their order");
    for rule in ["secret-read", "session-opened", "many-secrets", "new-namespace", "pod-without"] {
        let found = held.alerts.iter().any(|alert| alert.contains(rule));
        assert!(found, "the traffic shows {rule}");
    }
    assert_eq!(held.alerts, held.expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_stored_once_and_a_shared_audit_id_is_no_copy() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    let lines = traffic(30);
    assert_eq!(rig.send("log", &lines, 0).await.unwrap().events, 30);
    // The webhook's items lack the two keys that the log's lines have.
    let bare = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
    let items: Vec<String> = lines.iter().map(|line| line.replace(bare, "{")).collect();
    let again = rig.send("webhook", &items, 0).await.unwrap();
    assert_eq!((again.events, again.duplicates), (0, 30));
    let one_id: Vec<String> = (0..1_000)
        .map(|n| line(n, "eve", "get", "nodes", "dev").replace(&format!("id-{n}-eve"), "chosen"))
        .collect();
    assert_eq!(rig.send("log", &one_id, 30).await.unwrap().events, 1_000);
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
    assert_eq!(held(&sim, &engine).events.len(), 1_030);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_when_nothing_comes() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    rig.send("log", &[line(1, "ada", "create", "pods", "dev")], 0).await.unwrap();
    rig.now_us.fetch_add(300_000_000, Ordering::AcqRel);
    let mut waited = 0;
    let appended = rig.pipeline.spool().stats().records;
    while rig.pipeline.spool().stats().records < appended + 2 && waited < 500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited += 1;
    }
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
    let held = held(&sim, &engine);
    assert!(held.alerts.iter().any(|alert| alert.contains("pod-without-secret")));
    assert_eq!(held.alerts, held.expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_the_state_of_rules_that_did_not_change() {
    let (sim, before) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&before)).await.unwrap();
    let secret = |n| line(n, "ada", "get", "secrets", "dev");
    rig.send("log", &[secret(1), secret(2)], 0).await.unwrap();
    // Another rule in front, another threshold for one that the third read would reach.
    let more = "title: Other\nid: a-first\nlogsource: {product: kubernetes, service: audit}\n\
                detection: {s: {verb: list}, condition: s}\nlevel: low\n---";
    let after = engine(&format!("{more}{RULES}"));
    rig.pipeline.orders().send(crate::pipeline::Order::Rules(after.clone())).ok().unwrap();
    rig.send("log", &[secret(3), line(4, "ada", "list", "pods", "dev")], 2).await.unwrap();
    let changed = engine(&RULES.replace("{gte: 3}", "{gte: 2}"));
    rig.pipeline.orders().send(crate::pipeline::Order::Rules(changed)).ok().unwrap();
    rig.send("log", &[secret(200)], 4).await.unwrap();
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
    let alerts = held(&sim, &after).alerts;
    let many = alerts.iter().filter(|alert| alert.contains("\"many-secrets\"")).count();
    assert_eq!(many, 1, "the third read completes what the first two began; a change starts anew");
    assert_eq!(alerts.iter().filter(|alert| alert.contains("\"a-first\"")).count(), 1);
    // The same after a restart: unchanged rules go on.
    let rig = Rig::start(&sim, Plan::new(&before)).await.unwrap();
    rig.send("log", &[secret(201), secret(202)], 5).await.unwrap();
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
}
