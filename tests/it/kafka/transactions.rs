//! Transactions tied to the cursor: whatever a crash interrupts, a reader of what is committed sees
//! each event once.

use std::time::Duration;

use kubewitness::sinks::frame::Frame;
use kubewitness::sinks::{Item, Position};
use serde_json::{Value, json};

use crate::kafka::{RAW, event, frame, send_all, topic};

const LOAD: usize = 50;
const LOADS: usize = 6;

/// Where a process dies while it delivers a load.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// While it is sent, after so many milliseconds; wherever it stands then.
    Sending(u64),
    /// When all of it was accepted, and the cursor does not know yet.
    Sent,
    /// When the cursor knows, and has not stored it since so many loads.
    Acked(usize),
}

pub(crate) async fn transactions() {
    crashes().await;
    other_spool().await;
    refused().await;
}

fn transactional(id: &str, more: Value) -> Frame {
    let mut settings = json!({"transactional_id": id});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    frame(settings)
}

fn raws(marker: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| RAW.replace("AUDIT", &format!("{marker}-{n}"))).collect()
}

async fn crashes() {
    let deaths = [
        Death::Sending(1),
        Death::Sending(3),
        Death::Sending(10),
        Death::Sending(40),
        Death::Sending(150),
        Death::Sent,
        Death::Acked(1),
        Death::Acked(3),
    ];
    for (number, death) in deaths.into_iter().enumerate() {
        let marker = format!("txn-{}-{number}", std::process::id());
        let raws = raws(&marker, LOAD * LOADS);
        let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
        let loads: Vec<&[Item<'_>]> = items.chunks(LOAD).collect();
        let cursor = 0xfeed + number as u128;
        let mut first = transactional(&marker, json!({}));
        let mut stored = 0;
        for (index, load) in loads[..3].iter().enumerate() {
            first.resume(Position { cursor, acked: (index * LOAD) as u64 });
            send_all(&mut first, load).await;
            stored = index + 1;
        }
        first.resume(Position { cursor, acked: (stored * LOAD) as u64 });
        match death {
            Death::Sending(millis) => {
                let mut load = first.load_items(loads[3].iter().copied());
                let sending = first.send(&mut load);
                let _ = tokio::time::timeout(Duration::from_millis(millis), sending).await;
            }
            Death::Sent => drop(send_all(&mut first, loads[3]).await),
            Death::Acked(loads) => stored -= loads,
        }
        drop(first);
        // The next process begins with what the cursor had stored, in batches of another size.
        let mut second = transactional(&marker, json!({}));
        let mut acked = stored * LOAD;
        for load in items[acked..].chunks(LOAD - 7) {
            second.resume(Position { cursor, acked: acked as u64 });
            send_all(&mut second, load).await;
            acked += load.len();
        }
        let found = topic("events");
        for raw in &raws {
            assert_eq!(found.get(raw).map(Vec::len), Some(1), "{death:?}: {raw}");
        }
    }
}

/// The position of a spool that is gone hides nothing of another one's.
async fn other_spool() {
    let marker = format!("txn-other-{}", std::process::id());
    let raws = raws(&marker, 40);
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    for (cursor, copies) in [(1, 1), (1, 1), (2, 2)] {
        let mut sink = transactional(&marker, json!({}));
        sink.resume(Position { cursor, acked: 0 });
        send_all(&mut sink, &items).await;
        let found = topic("events");
        for raw in &raws {
            assert_eq!(found.get(raw).map(Vec::len), Some(copies), "{cursor}: {raw}");
        }
    }
}

/// A message that the topic does not take is a dead letter, also when the process dies before the
/// letter is written; the others arrive.
async fn refused() {
    let marker = format!("txn-refused-{}", std::process::id());
    let mut raws = raws(&marker, 20);
    raws[7] = RAW.replace("AUDIT", &format!("{marker}-{}", "x".repeat(5_000)));
    let items: Vec<Item<'_>> = raws.iter().zip(1..).map(|(raw, seq)| event(seq, raw)).collect();
    let small =
        || transactional(&marker, json!({"topics": {"events": "small"}, "compression": "none"}));
    for _ in 0..2 {
        let mut sink = small();
        sink.resume(Position { cursor: 7, acked: 0 });
        let mut load = sink.load_items(items.iter().copied());
        let mut tries = 0;
        while let Err(unsent) = sink.send(&mut load).await {
            tries += 1;
            assert!(tries < 20, "{unsent}");
        }
        let letters = load.dead_letters("lake", 0);
        assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "too_large"));
        assert_eq!(letters[0].bytes, raws[7].as_bytes());
    }
    let found = topic("small");
    for (number, raw) in raws.iter().enumerate() {
        // What follows the refused one is repeated, what stands before it is not.
        let copies = found.get(raw).map_or(0, Vec::len);
        let expected = if number < 7 { 1 } else { 2 };
        assert_eq!(copies, if number == 7 { 0 } else { expected }, "{number}");
    }
}
