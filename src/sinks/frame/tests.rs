//! The frame against a sink that answers by a script.

use super::*;
use crate::record::StoredEvent;
use crate::sinks::config::BatchConfig;
use crate::sinks::filter;

/// Answers by the items it is sent, and remembers what it accepted.
#[derive(Default)]
struct Scripted {
    /// Batches of more items are too large.
    items_max: usize,
    /// Items that poison a batch without being named.
    poison: Vec<u64>,
    /// Items that are refused by name.
    refused: Vec<u64>,
    /// Items that are not taken so many times.
    busy: Vec<(u64, usize)>,
    /// Errors to answer with first.
    errors: Vec<SendError>,
    accepted: Vec<u64>,
    calls: usize,
}

impl Sink for Scripted {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        self.calls += 1;
        if let Some(error) = self.errors.pop() {
            return Err(error);
        }
        if batch.len() > self.items_max {
            return Err(SendError::TooLarge { cause: "413".into() });
        }
        if batch.iter().any(|item| self.poison.contains(&item.seq)) {
            return Err(SendError::Reject { reason: "invalid", cause: "400".into() });
        }
        let mut delivered = Delivered::default();
        for (index, item) in batch.iter().enumerate() {
            let busy = self.busy.iter_mut().find(|(seq, left)| *seq == item.seq && *left > 0);
            if let Some((_, left)) = busy {
                *left -= 1;
                delivered.again.push(index);
            } else if self.refused.contains(&item.seq) {
                let cause = String::new();
                delivered.rejected.push(Rejection { index, reason: "mapping", cause });
            } else {
                self.accepted.push(item.seq);
            }
        }
        Ok(delivered)
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        Ok(())
    }
}

fn common(bytes_max: u64, rejects_in_a_row_max: usize) -> Common {
    Common {
        name: "s".into(),
        records: vec![RecordKind::Alerts, RecordKind::Events],
        filter: filter::Config::default(),
        batch: BatchConfig {
            bytes_max: crate::units::Size(bytes_max),
            rejects_in_a_row_max,
            ..BatchConfig::default()
        },
    }
}

fn alerts<'r>(count: u64) -> impl Iterator<Item = Item<'r>> {
    (1..=count).map(|seq| Item { seq, outgoing: Outgoing::Alert(b"{}") })
}

/// Sends eight items until nothing is left; returns what was accepted, the dead letters' positions
/// with their reasons, and how often the frame said that it is not done.
async fn run(sink: Scripted) -> (Vec<u64>, Vec<String>, usize) {
    let mut frame = Frame::new(common(1_000, 0), sink);
    let mut load = frame.load_items(alerts(8));
    let mut unsent = 0;
    while frame.send(&mut load).await.is_err() {
        unsent += 1;
        assert!(unsent < 10);
    }
    assert!(load.is_sent());
    let letters = load.dead_letters("s", 0);
    let letters = letters.iter().map(|l| format!("{} {}", l.position, l.reason)).collect();
    (frame.sink.accepted, letters, unsent)
}

#[tokio::test]
async fn every_item_is_accepted_once_or_given_up_by_name() {
    let plain = || Scripted { items_max: 100, ..Scripted::default() };
    let retry = SendError::retry("503");
    let all = [1, 2, 3, 4, 5, 6, 7, 8];
    for (name, sink, accepted, letters, unsent) in [
        ("fine", plain(), all.to_vec(), vec![], 0),
        ("too large", Scripted { items_max: 1, ..plain() }, all.to_vec(), vec![], 0),
        (
            "always too large",
            Scripted { items_max: 0, ..plain() },
            vec![],
            all.map(|seq| format!("alerts:{seq} too_large")).to_vec(),
            0,
        ),
        (
            "poison",
            Scripted { poison: vec![3, 8], ..plain() },
            vec![1, 2, 4, 5, 6, 7],
            vec!["alerts:3 invalid".into(), "alerts:8 invalid".into()],
            0,
        ),
        (
            "refused by name, and busy",
            Scripted { refused: vec![2], busy: vec![(5, 2), (2, 1)], ..plain() },
            vec![1, 3, 4, 6, 7, 8, 5],
            vec!["alerts:2 mapping".into()],
            2,
        ),
        (
            "retry",
            Scripted { errors: vec![retry.clone(), retry], ..plain() },
            all.to_vec(),
            vec![],
            2,
        ),
        (
            "block",
            Scripted { errors: vec![SendError::block("401", "renew")], ..plain() },
            all.to_vec(),
            vec![],
            1,
        ),
    ] {
        assert_eq!(run(sink).await, (accepted, letters, unsent), "{name}");
    }
}

#[tokio::test]
async fn a_part_is_cut_by_bytes() {
    let mut frame = Frame::new(common(5, 0), Scripted { items_max: 100, ..Scripted::default() });
    let mut load = frame.load_items(alerts(5));
    frame.send(&mut load).await.unwrap();
    assert_eq!((frame.sink.calls, frame.sink.accepted.len()), (3, 5));
}

#[tokio::test]
async fn refusing_everything_blocks() {
    let sink = Scripted { items_max: 100, poison: (1..=8).collect(), ..Scripted::default() };
    let mut frame = Frame::new(common(1_000, 3), sink);
    let mut load = frame.load_items(alerts(8));
    let unsent = frame.send(&mut load).await.unwrap_err();
    assert!(unsent.to_string().contains("refused 3 items one after the other"), "{unsent}");
    assert_eq!(load.dead_letters("s", 0).len(), 3);
}

#[test]
fn a_filter_passes_what_is_named() {
    let alert = |level: &str, namespace: &str| {
        format!(
            r#"{{"id":"1","time":"2026-01-01T00:00:00Z","kind":"match","cluster":"c",
            "rule":{{"id":"r1","title":"t","level":"{level}","source":"sigma"}},"actor":{{}},
            "request":{{"namespace":"{namespace}"}},"summary":"","count":1}}"#
        )
    };
    let event = |namespace: &str| {
        format!(r#"{{"auditID":"1","verb":"get","objectRef":{{"namespace":"{namespace}"}}}}"#)
    };
    let (low, high) = (alert("low", "dev"), alert("high", "prod-1"));
    let (dev, prod) = (event("dev"), event("prod-1"));
    let event = |raw| {
        Outgoing::Event(StoredEvent {
            flags: 0,
            time_us: 0,
            received_us: 0,
            duplicate_key: [0; 16],
            cluster: "c",
            source: "s",
            position: "p",
            raw,
        })
    };
    let all = [
        Outgoing::Alert(low.as_bytes()),
        Outgoing::Alert(high.as_bytes()),
        event(dev.as_bytes()),
        event(prod.as_bytes()),
        Outgoing::Alert(b"damaged"),
        Outgoing::Notice(b"{}"),
    ];
    for (records, filter, passed) in [
        (r#"["events"]"#, "{}", vec![3, 4]),
        (r#"["alerts","notices"]"#, r#"{"level":"medium"}"#, vec![2, 5, 6]),
        (r#"["alerts"]"#, r#"{"rules":["r2"]}"#, vec![5]),
        (r#"["alerts","events","notices"]"#, r#"{"namespaces":["prod*"]}"#, vec![2, 4, 5, 6]),
        (r#"["alerts","events"]"#, r#"{"namespaces":["prod"]}"#, vec![5]),
    ] {
        let common = Common {
            records: serde_json::from_str(records).unwrap(),
            filter: serde_json::from_str(filter).unwrap(),
            ..common(1_000, 0)
        };
        let mut frame = Frame::new(common, Scripted::default());
        let items = all.iter().zip(1..).map(|(outgoing, seq)| Item { seq, outgoing: *outgoing });
        let load = frame.load_items(items);
        let seqs: Vec<u64> = load.items.iter().map(|item| item.seq).collect();
        assert_eq!(seqs, passed, "{records} {filter}");
    }
}
