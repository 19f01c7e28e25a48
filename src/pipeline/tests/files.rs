//! A process that may open no more files, or a system in which none may: at every opening.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::pipeline::Failure;
use crate::pipeline::tests::delivery::{Recording, common};
use crate::pipeline::tests::flow::traffic;
use crate::pipeline::tests::{Held, Plan, RULES, Rig, engine, held, small};
use crate::sinks::frame::Frame;
use crate::spool::Options;
use crate::spool::disk::sim::Sim;

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// So many openings in a row fail.
const DENIED: u64 = 3;

/// One run from its start to its end. `None` when it could not start.
async fn run(sim: &Sim, engine: &Arc<Engine>, sink: &Recording, lines: &[String]) -> Option<()> {
    let sinks = vec![Frame::new(common("lake"), sink.clone())];
    // Everything is still there when it is compared.
    let options = Options { passed_bytes_min: 3 << 20, ..small() };
    let rig = match Rig::with_sinks(sim, Plan { options, sinks, ..Plan::new(engine) }).await {
        Ok(rig) => rig,
        Err(Failure::Spool(error)) => {
            assert!(error.lacks_files(), "{error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    for (number, part) in lines.chunks(9).enumerate() {
        // Refused is what no segment could be opened for; its source sends it again.
        while rig.send("log", part, number * 9).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Positions that could not be stored at the very end are those of the start before.
    drop(rig.pipeline.drain(Duration::from_secs(60)).await);
    Some(())
}

async fn denied_from(first: u64, errno: i32, engine: Arc<Engine>, whole: Arc<Held>) {
    let what = format!("errno {errno} from opening {first}");
    let (sim, sink, lines) = (Sim::default(), Recording::default(), traffic(72));
    sim.deny_openings(first..first + DENIED, errno);
    let is_started = run(&sim, &engine, &sink, &lines).await.is_some();
    sim.deny_openings(0..0, errno);
    let stored = held(&sim, &engine).events;
    assert_eq!(stored.len(), if is_started { lines.len() } else { 0 }, "{what}");
    run(&sim, &engine, &sink, &lines).await.unwrap();
    let held = held(&sim, &engine);
    assert_eq!((&held.events, &held.alerts), (&whole.events, &whole.alerts), "{what}");
    let mut got = sink.got.lock().unwrap().clone();
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), lines.len() + held.alerts.len(), "{what}: all was delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_files_it_waits_or_says_why_and_loses_nothing() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    run(&sim, &engine, &Recording::default(), &traffic(72)).await.unwrap();
    let (whole, openings) = (Arc::new(held(&sim, &engine)), sim.openings());
    assert!(openings > 30, "only {openings}");
    let mut runs = JoinSet::new();
    for errno in [EMFILE, ENFILE] {
        for first in (1..openings).step_by(DENIED as usize) {
            runs.spawn(denied_from(first, errno, Arc::clone(&engine), Arc::clone(&whole)));
        }
    }
    while let Some(ended) = runs.join_next().await {
        ended.unwrap();
    }
}
