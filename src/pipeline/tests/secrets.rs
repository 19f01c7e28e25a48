//! Secrets planted in every place that redaction knows: none reaches the disk.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::redact::{Mode, Redactor};
use crate::pipeline::tests::{Plan, Rig, engine};
use crate::spool::disk::sim::Sim;

#[derive(Deserialize)]
struct Case<'c> {
    secrets: Vec<String>,
    #[serde(borrow)]
    event: &'c RawValue,
}

/// Matches everything, by values that stand in bodies as well, and feeds a correlation that waits,
/// which keeps whole sightings.
const RULES: &str = r#"
title: Everything
id: everything
name: everything
logsource: {product: kubernetes, service: audit}
detection: {s: {verb|exists: true}, t: {requestURI|contains: ''}, u: {level|contains: e}, condition: s or t or u}
level: low
---
title: Anything in a body
id: body
name: body
logsource: {product: kubernetes, service: audit}
detection: {k: ['a', 'e', 'o'], condition: k}
level: low
---
title: Waits
id: waits
correlation:
  type: temporal
  rules: [everything, body]
  group-by: [user.username]
  timespan: 30s
  generate: true
  condition: everything and not body
level: low
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_planted_secret_reaches_the_disk() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let redactor = Redactor::new(Mode::Secrets, Some(b"a key for tests, long enough"));
    let plan = Plan { redactor, ..Plan::new(&engine) };
    let rig = Rig::start(&sim, plan).await.unwrap();
    let cases = include_str!("../../../tests/corpus/redaction/cases.jsonl");
    let mut secrets = Vec::new();
    let mut offset = 0;
    for line in cases.lines() {
        let case: Case<'_> = serde_json::from_str(line).unwrap();
        let raw = case.event.get().to_owned();
        let mut lines = vec![raw.clone()];
        // Cut, torn, and not an event at all: dead letters must not show it either.
        lines.push(raw[..raw.len() * 2 / 3].to_owned());
        lines.push(raw[raw.len() / 3..].to_owned());
        lines.push(raw.replacen('{', "[", 1));
        lines.push(format!("{{\"data\":{{\"key\":{raw:?}}}}}"));
        rig.send("log", &lines, offset).await.unwrap();
        offset += lines.len();
        secrets.extend(case.secrets);
    }
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    let mut found = Vec::new();
    for path in sim.paths() {
        let content = sim.content(&path);
        for secret in &secrets {
            if memchr::memmem::find(&content, secret.as_bytes()).is_some() {
                found.push(format!("{secret} in {}", path.display()));
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} secrets:\n{}", secrets.len(), found.join("\n"));
}
