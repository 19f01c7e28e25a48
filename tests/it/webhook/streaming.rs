//! A body of hundreds of megabytes, in a process of its own whose memory is measured.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use kubewitness::ingest::batch::Receipt;
use kubewitness::ingest::intake::intake;
use kubewitness::ingest::webhook::WebhookSource;
use kubewitness::ingest::webhook::config::Config;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{ApiServer, event};

const CHILD: &str = "KUBEWITNESS_WEBHOOK_CHILD";

/// Events of the body, each of about 400 kB, as of large objects.
const EVENTS: usize = 768;
const EVENT_BYTES: usize = 400 << 10;

/// What the process may have resident, a fifth of the body; it was 23 MiB when this was written.
const RESIDENT_KIB_MAX: u64 = 60 << 10;

/// What the child does: it takes a body of 300 MB from itself, and says what became of it.
#[tokio::test]
async fn the_child_takes_a_large_body() {
    if std::env::var(CHILD).is_err() {
        return;
    }
    let (intake, mut outlet) = intake(16 << 20);
    let cancelled = CancellationToken::new();
    let listen = ([127, 0, 0, 1], 0).into();
    let config = Config { listen, ..Config::default() };
    let source = WebhookSource::bind(config, intake, cancelled.clone()).await.unwrap();
    let url = format!("http://{}/audit", source.address());
    let running = tokio::spawn(source.run());
    let (records, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let taking = tokio::spawn({
        let (records, bytes) = (Arc::clone(&records), Arc::clone(&bytes));
        async move {
            while let Some(batch) = outlet.next().await {
                records.fetch_add(batch.chunk.records().count() as u64, Ordering::Relaxed);
                bytes.fetch_add(batch.chunk.len() as u64, Ordering::Relaxed);
                _ = batch.done.send(Ok(Receipt::default()));
            }
        }
    });
    let item = Bytes::from(format!(",{}", event("large", &"x".repeat(EVENT_BYTES))));
    let head = Bytes::from_static(b"{\"kind\":\"EventList\",\"items\":[null");
    let frames = std::iter::once(head)
        .chain(std::iter::repeat_n(item, EVENTS))
        .chain([Bytes::from_static(b"]}")])
        .map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
    let body = reqwest::Body::wrap(StreamBody::new(stream::iter(frames)));
    let status = ApiServer::plain(&url).post(body).await.unwrap().status();
    cancelled.cancel();
    running.await.unwrap();
    taking.await.unwrap();
    let resident = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = resident.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB");
    let (records, bytes) = (records.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    println!("took {} {records} {bytes} {resident} .", status.as_u16());
}

#[test]
fn a_body_of_300_megabytes_passes_in_bounded_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "webhook::streaming::the_child_takes_a_large_body", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text
        .split_once("took ")
        .unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
        .1
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [status, records, bytes, resident] = numbers[..] else { panic!("{text}") };
    assert_eq!((status, records), (200, EVENTS as u64 + 1));
    assert!(bytes > 300_000_000 && resident < RESIDENT_KIB_MAX, "{bytes} bytes, {resident} KiB");
}
