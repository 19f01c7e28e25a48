//! Sinks that fail in every way, and a spool that is full.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pipeline::Clock;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::deliver::{Delivery, run};
use crate::pipeline::notice::Kind;
use crate::pipeline::tests::flow::traffic;
use crate::pipeline::tests::{NOW_US, Plan, RULES, Rig, batch, engine, small};
use crate::record::{StoredEvent, kind};
use crate::sinks::config::Common;
use crate::sinks::frame::Frame;
use crate::sinks::{CheckError, Delivered, Item, Rejection, SendError, Sink};
use crate::spool::disk::Disk;
use crate::spool::disk::sim::Sim;
use crate::spool::{self, Options, Spool, Start};

/// A sink that answers as it is told, and then accepts; while it is shut it answers nothing else
/// than that it is.
#[derive(Clone, Default)]
pub(crate) struct Recording {
    script: Arc<Mutex<VecDeque<Result<Delivered, SendError>>>>,
    is_shut: Arc<AtomicBool>,
    /// Sequence numbers of what it accepted.
    pub(crate) got: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Recording {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        if self.is_shut.load(Ordering::Acquire) {
            return Err(SendError::Retry { after: None, cause: "shut".to_owned() });
        }
        let answer = self.script.lock().unwrap().pop_front().unwrap_or(Ok(Delivered::default()));
        if let Ok(Delivered { rejected, .. }) = &answer {
            let is_rejected = |index: &usize| rejected.iter().any(|one| one.index == *index);
            let accepted = (0..batch.len()).filter(|index| !is_rejected(index));
            self.got.lock().unwrap().extend(accepted.map(|index| batch[index].seq));
        }
        answer
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        Ok(())
    }
}

pub(crate) fn common(name: &str) -> Common {
    let json = serde_json::json!({"name": name, "records": ["events", "alerts", "notices"],
        "batch": {"wait_max": "0s"}});
    serde_json::from_value(json).unwrap()
}

fn retry() -> Result<Delivered, SendError> {
    Err(SendError::Retry { after: None, cause: "not now".to_owned() })
}

fn block() -> Result<Delivered, SendError> {
    Err(SendError::Block { cause: "no such index".to_owned(), remedy: "make it".to_owned() })
}

fn rejected(index: usize) -> Result<Delivered, SendError> {
    let rejection = Rejection { index, reason: "mapping", cause: "no".to_owned() };
    Ok(Delivered { rejected: vec![rejection], ..Delivered::default() })
}

fn event(number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let position = format!("audit.log:{number}");
    let stored = StoredEvent {
        flags: 0,
        time_us: 0,
        received_us: 0,
        duplicate_key: [0; 16],
        cluster: "prod-1",
        source: "log",
        position: &position,
        raw: b"{}",
    };
    stored.encode(&mut bytes);
    bytes
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_a_far_side_is_met_and_nothing_is_lost() {
    for (name, script, expected, letters, notices) in [
        ("accepts", vec![], vec![1, 2, 3], 0, vec![]),
        ("comes back", vec![retry(), retry(), retry()], vec![1, 2, 3], 0, vec![]),
        ("refuses one", vec![rejected(1)], vec![1, 3], 1, vec![]),
        (
            "is blocked for a while",
            vec![block(), block(), retry(), block()],
            vec![1, 2, 3],
            0,
            vec![Kind::SinkBlocked, Kind::SinkResumed],
        ),
    ] {
        let options = small();
        let disk = Disk::Sim(Sim::default());
        let (spool, _) = Spool::open_on(disk, Path::new("/spool"), options, None).unwrap();
        let cursor = spool.cursor("lake", Start::Oldest).await.unwrap();
        let mut records = spool::Batch::new();
        (0..3).for_each(|number| records.push(kind::EVENT, &event(number)));
        records.push(kind::CHECKPOINT, b"stays here");
        spool.append(records).await.unwrap();
        let sink = Recording { script: Arc::new(Mutex::new(script.into())), ..<_>::default() };
        let got = Arc::clone(&sink.got);
        let told = Arc::new(Mutex::new(Vec::new()));
        let notify = {
            let told = Arc::clone(&told);
            Box::new(move |notice: crate::pipeline::notice::Notice| {
                told.lock().unwrap().push(notice.kind);
            })
        };
        let dead_letters = spool.dead_letters().clone();
        let delivery = Delivery {
            frame: Frame::new(common("lake"), sink),
            cursor,
            dead_letters: dead_letters.clone(),
            notify,
            damages: Arc::default(),
            backoff: Backoff::default(),
            clock: Clock::of(|| NOW_US),
            hurry: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let running = tokio::spawn(run(delivery));
        spool.close().await.unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(*got.lock().unwrap(), expected, "{name}");
        assert_eq!(dead_letters.size().0, letters, "{name}");
        assert_eq!(*told.lock().unwrap(), notices, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_refuses_and_goes_on_where_it_stopped() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let (dead, well) = (Recording::default(), Recording::default());
    dead.is_shut.store(true, Ordering::Release);
    let options = Options {
        bytes_max: 64 << 10,
        segment_bytes_max: 16 << 10,
        batch_bytes_max: 8 << 10,
        passed_bytes_min: 0,
        ..small()
    };
    let sinks = [("dead", &dead), ("well", &well)];
    let sinks = sinks.map(|(name, sink)| Frame::new(common(name), sink.clone())).into();
    let rig = Rig::with_sinks(&sim, Plan { options, sinks, ..Plan::new(&engine) }).await.unwrap();
    let lines = traffic(400);
    // As a tail does: everything at once, until one is refused; then the rest again, in order.
    let (mut acked, mut refusals) = (0, 0);
    while acked < lines.len() {
        let mut answers = Vec::new();
        for (number, part) in lines[acked..].chunks(10).enumerate() {
            let offset = acked + number * 10;
            let (batch, answer) = batch("log", part, offset);
            rig.pipeline.intake().send(batch).await.unwrap();
            answers.push((offset + part.len(), answer));
            // What waits in the writer is answered when there is room: nobody waits for it here.
            tokio::task::yield_now().await;
        }
        let is_shut = dead.is_shut.load(Ordering::Acquire);
        if is_shut {
            wait_for(|| rig.pipeline.health().ready().is_err()).await;
            let (batch, answer) = batch("webhook", &lines[..1], 0);
            rig.pipeline.intake().send(batch).await.unwrap();
            assert!(answer.await.unwrap().is_err(), "refused while it is full");
            assert!(rig.pipeline.health().live().is_ok(), "a full disk is no reason to die");
            dead.is_shut.store(false, Ordering::Release);
        }
        for (end, answer) in answers {
            match answer.await.unwrap() {
                Ok(_) if end > acked => acked = end,
                Ok(_) => {}
                Err(_) => {
                    refusals += 1;
                    break;
                }
            }
        }
    }
    assert!(refusals > 0, "the spool was never full");
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    // Both sinks got every event, whatever is still held.
    let events = |sink: &Recording| sink.got.lock().unwrap().len();
    assert!(events(&dead) >= 400 && events(&dead) == events(&well));
    assert!(dead.got.lock().unwrap().is_sorted_by(|before, after| before < after));
}

pub(crate) async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_time_though_the_spool_is_full_and_a_sink_is_dead() {
    let (sim, engine) = (Sim::default(), engine(RULES));
    let dead = Recording::default();
    dead.is_shut.store(true, Ordering::Release);
    let options = Options {
        bytes_max: 64 << 10,
        segment_bytes_max: 16 << 10,
        batch_bytes_max: 8 << 10,
        passed_bytes_min: 0,
        ..small()
    };
    let sinks = vec![Frame::new(common("dead"), dead.clone())];
    let plan = Plan { options: options.clone(), sinks, ..Plan::new(&engine) };
    let rig = Rig::with_sinks(&sim, plan).await.unwrap();
    let lines = traffic(300);
    let mut answers = Vec::new();
    for (number, part) in lines.chunks(10).enumerate() {
        let (batch, answer) = batch("log", part, number * 10);
        rig.pipeline.intake().send(batch).await.unwrap();
        answers.push(answer);
    }
    wait_for(|| rig.pipeline.health().ready().is_err()).await;
    let drained = rig.pipeline.drain(Duration::from_millis(300)).await.unwrap();
    assert_eq!(drained.sinks_behind, 1);
    let mut acked = 0;
    for answer in answers {
        acked += usize::from(matches!(answer.await, Ok(Ok(_)))) * 10;
    }
    assert!((1..300).contains(&acked), "{acked} acknowledged");
    // With a sink that delivers, everything that was acknowledged comes out, and the rest goes in.
    dead.is_shut.store(false, Ordering::Release);
    let sinks = vec![Frame::new(common("dead"), dead.clone())];
    let plan = Plan { options, sinks, ..Plan::new(&engine) };
    let rig = Rig::with_sinks(&sim, plan).await.unwrap();
    let checkpoint = &rig.pipeline.checkpoints("log")[0].value;
    assert_eq!(String::from_utf8_lossy(checkpoint), acked.to_string());
    for (number, part) in lines[acked..].chunks(10).enumerate() {
        while rig.send("log", part, acked + number * 10).await.is_err() {}
    }
    rig.pipeline.drain(Duration::from_secs(60)).await.unwrap();
    assert!(dead.got.lock().unwrap().len() >= 300);
}
