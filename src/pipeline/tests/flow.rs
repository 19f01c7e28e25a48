//! What goes through, in what order, and what is answered.

use crate::ingest::batch::{Notice, NoticeKind};
use crate::pipeline::tests::delivery::{Recording, common, wait_for};
use crate::pipeline::tests::{
    NOW_US, Plan, RULES, Rig, all, batch, chained, engine, held, line, staged,
};
use crate::sinks::frame::Frame;
use crate::spool::disk::sim::Sim;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A little of everything: users, reads of secrets in old and new namespaces, pods, sessions at
/// two stages; four seconds apart.
pub(crate) fn traffic(lines: u32) -> Vec<String> {
    let users = ["ada", "bob", "eve"];
    let one = |n: u32| {
        let (second, user) = (n * 4, users[n as usize % 3]);
        let exec = |second, stage| staged(second, "ada", "create", "pods/exec", "dev", stage);
        match n % 7 {
            0 => exec(second, "ResponseStarted"),
            1 => line(second, "zoe", "create", "pods", "dev"),
            2 if n > 20 => line(second, user, "get", "secrets", &format!("team-{}", n % 11)),
            6 => exec(second - 24, "ResponseComplete"),
            _ if n.is_multiple_of(2) => line(second, user, "get", "secrets", "dev"),
            _ => line(second, user, "get", "nodes", "dev"),
        }
    };
    (0..lines).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_in_the_spool_are_those_of_evaluating_it_anew() {
    let (sim, engine) = (Sim::default(), chained());
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    let lines = traffic(300);
    for (number, part) in lines.chunks(17).enumerate() {
        let source = if number % 3 == 0 { "webhook" } else { "log" };
        let receipt = rig.send(source, part, number * 17).await.unwrap();
        assert_eq!((receipt.events, receipt.duplicates), (part.len() as u64, 0));
    }
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let held = held(&sim, &engine);
    assert_eq!(held.events.len(), lines.len());
    assert!(held.events.iter().map(|(_, _, raw)| raw).eq(&lines), "in their order");
    for (rule, words) in [
        ("secret-read", "\"count\":1"),
        ("session-opened", "\"count\":1"),
        ("many-secrets", "\"count\":3"),
        // Of what it counts it names what that rests on.
        ("secrets-again", "6 events by ada within 4m"),
        ("new-namespace", "\"count\":1"),
        ("pod-without", "\"count\":1"),
    ] {
        let found = held.alerts.iter().any(|alert| alert.contains(rule) && alert.contains(words));
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
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let held = held(&sim, &engine);
    assert_eq!(held.events.len(), 1_030);
    assert_eq!(held.built_in.len(), 1, "one alert says that an audit id is shared");
    assert!(held.built_in[0].contains("kubewitness-audit-id-reused"), "{:?}", held.built_in);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_append_holds_is_stored_without_its_bodies() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    // Three quarters of an append are 12 KiB here; two of these are larger than a whole one.
    let cases =
        [(11_000, true), (12_500, false), (15_900, false), (40_000, false), (1 << 20, false)];
    for (number, (bytes, _)) in (0..).zip(cases) {
        let body =
            format!(r#""requestObject":{{"spec":"{}"}},"responseStatus""#, "x".repeat(bytes));
        let event = line(number, "ada", "get", "secrets", "dev");
        let event = event.replacen(r#""responseStatus""#, &body, 1);
        let receipt = rig.send("log", &[event], number as usize).await.unwrap();
        assert_eq!(receipt.events, 1, "{bytes} bytes");
    }
    let letters = rig.pipeline.spool().dead_letters().read(0, 10).await.unwrap();
    let reasons: Vec<&str> = letters.iter().map(|one| one.letter.reason.as_str()).collect();
    assert_eq!(reasons, ["line_too_long"; 4], "one for each that was cut");
    rig.pipeline.drain(Duration::from_secs(5)).await.unwrap();
    let held = held(&sim, &engine);
    let is_whole = |raw: &String| !raw.contains(r#""requestObject":null"#);
    let whole: Vec<bool> = held.events.iter().map(|(_, _, raw)| is_whole(raw)).collect();
    assert_eq!(whole, cases.map(|(_, is_whole)| is_whole));
    assert!(held.alerts.len() > cases.len() && held.alerts == held.expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_when_nothing_comes() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    rig.send("log", &[line(1, "ada", "create", "pods", "dev")], 0).await.unwrap();
    rig.now_us.fetch_add(300_000_000, Ordering::AcqRel);
    let appended = rig.pipeline.spool().stats().records;
    wait_for(|| rig.pipeline.spool().stats().records >= appended + 2).await;
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
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
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let alerts = held(&sim, &after).alerts;
    let many = alerts.iter().filter(|alert| alert.contains("\"many-secrets\"")).count();
    assert_eq!(many, 1, "the third read completes what the first two began; a change starts anew");
    assert_eq!(alerts.iter().filter(|alert| alert.contains("\"a-first\"")).count(), 1);
    // The same after a restart: unchanged rules go on.
    let rig = Rig::start(&sim, Plan::new(&before)).await.unwrap();
    rig.send("log", &[secret(201), secret(202)], 5).await.unwrap();
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_notices_raises_alerts() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    let (mut batch, answer) = batch("log", &[], 0);
    batch.notices.push(Notice {
        kind: NoticeKind::Gap,
        at_us: NOW_US,
        text: "audit-2026-01-01.log was deleted before 17 bytes of it were read".to_owned(),
        subject: "audit-2026-01-01.log".to_owned(),
        lost_bytes: Some(17),
    });
    rig.pipeline.intake().send(batch).await.unwrap();
    answer.await.unwrap().unwrap();
    rig.send("log", &traffic(20), 0).await.unwrap();
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let before = held(&sim, &engine);
    assert!(before.notices[0].contains(r#""kind":"gap""#), "{:?}", before.notices);
    assert!(before.notices[0].contains(r#""lost_bytes":17"#));
    assert!(before.built_in[0].contains("kubewitness-source-gap"), "{:?}", before.built_in);
    assert!(before.built_in[0].contains(r#""level":"high""#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_the_spool_is_told_once() {
    // In the last segment, which opening looks through, and in one that only sinks read.
    for lines in [20, 72] {
        told_once(&traffic(lines)).await;
    }
}

async fn told_once(lines: &[String]) {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let rig = Rig::start(&sim, Plan::new(&engine)).await.unwrap();
    // The second half says that the first was synced, so what is wrong with that is no torn end.
    let half = lines.len() / 2;
    rig.send("log", &lines[..half], 0).await.unwrap();
    rig.send("log", &lines[half..], half).await.unwrap();
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    // A bit rots in an event that had been durable.
    let found = sim.paths().into_iter().find_map(|path| {
        let bytes = sim.content(&path);
        let at = memchr::memmem::find(&bytes, br#""auditID":""#)?;
        path.extension().is_some_and(|end| end == "seg").then_some((path, bytes, at))
    });
    let (segment, mut bytes, at) = found.unwrap();
    bytes[at] ^= 1;
    sim.tamper(&segment, bytes);
    // Two sinks meet it; it is told once.
    let sinks = ["one", "two"].map(|name| Frame::new(common(name), Recording::default()));
    let plan = Plan { sinks: sinks.into(), ..Plan::new(&engine) };
    let rig = Rig::with_sinks(&sim, plan).await.unwrap();
    let is_told = |record: &String| record.contains("kubewitness-spool-damaged");
    wait_for(|| all(&sim).iter().any(is_told)).await;
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let told = all(&sim).into_iter().filter(is_told).count();
    assert_eq!(told, 1, "damage among {} events", lines.len());
}
