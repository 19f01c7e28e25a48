//! Dies, or meets an error, at every step that changes the disk; starts again; sends what was not
//! answered. What the spool then holds is what a run without a fault holds.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::pipeline::tests::flow::traffic;
use crate::pipeline::tests::{Held, Plan, Rig, chained, held};
use crate::spool::disk::sim::{Content, Fault, Names, Sim};

const BATCH: usize = 9;

/// Sends lines in batches, several at a time, until the first that is not acknowledged; returns how
/// many lines were.
async fn send_from(rig: &Rig, lines: &[String], start: usize) -> usize {
    let mut answers = Vec::new();
    for (number, part) in lines[start..].chunks(BATCH).enumerate() {
        let offset = start + number * BATCH;
        let (batch, answer) = crate::pipeline::tests::batch("log", part, offset);
        if rig.pipeline.intake().send(batch).await.is_err() {
            break;
        }
        answers.push((offset + part.len(), answer));
    }
    let mut acked = start;
    for (end, answer) in answers {
        match answer.await {
            Ok(Ok(_)) => acked = end,
            _ => break,
        }
    }
    acked
}

/// Position that the last run stored.
fn resumed(rig: &Rig) -> usize {
    let checkpoint = rig.pipeline.checkpoints("log").first();
    checkpoint.map_or(0, |one| String::from_utf8_lossy(&one.value).parse().unwrap())
}

async fn run_all(sim: &Sim, engine: &Arc<Engine>, lines: &[String]) -> Option<usize> {
    let rig = Rig::start(sim, Plan::new(engine)).await.ok()?;
    let start = resumed(&rig);
    let acked = send_from(&rig, lines, start).await;
    // A drain that fails is a crash like another.
    drop(rig.pipeline.drain(Duration::from_secs(5)).await);
    Some(acked)
}

fn check(held: &Held, whole: &Held, what: &str) {
    let raw = |held: &Held| held.events.iter().map(|event| event.2.clone()).collect::<Vec<_>>();
    assert_eq!(raw(held), raw(whole), "{what}: every event once, in its order");
    assert_eq!(held.alerts, held.expected, "{what}: alerts are those of the events");
    assert_eq!(held.alerts, whole.alerts, "{what}: alerts are those of the run without a fault");
}

/// Every `stride`th step, with one way of losing power after the other.
async fn at_every_step(fault: Fault, stride: u64, losses: &[(Content, Names)]) {
    let engine = chained();
    let lines = traffic(72);
    let sim = Sim::default();
    assert_eq!(run_all(&sim, &engine, &lines).await, Some(lines.len()));
    let whole = held(&sim, &engine);
    let steps = sim.steps();
    assert!(steps > 30, "only {steps} steps");
    let mut step = 1;
    while step <= steps {
        let sim = Sim::default();
        sim.fail_at(step, fault);
        let acked = run_all(&sim, &engine, &lines).await.unwrap_or(0);
        let turn = (step / stride) as usize % losses.len();
        for (content, names) in &losses[turn..=turn] {
            let what = format!("{fault:?} at step {step}, left {content:?} {names:?}");
            let left = sim.after_power_loss(*content, *names);
            let survived = held(&left, &engine);
            assert!(survived.events.len() >= acked, "{what}: acknowledged {acked}, and gone");
            let again = run_all(&left, &engine, &lines).await;
            assert_eq!(again, Some(lines.len()), "{what}");
            check(&held(&left, &engine), &whole, &what);
        }
        step += stride;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_at_any_step_loses_and_doubles_nothing() {
    let losses = [
        (Content::Synced, Names::Synced),
        (Content::All, Names::All),
        (Content::Prefix, Names::All),
    ];
    at_every_step(Fault::Die, 1, &losses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_disk_loses_and_doubles_nothing() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for errno in [EIO, ENOSPC] {
        for fault in [Fault::Errno(errno), Fault::ErrnoClean(errno)] {
            at_every_step(fault, 7, &[(Content::Synced, Names::All)]).await;
        }
    }
}
