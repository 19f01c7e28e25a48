//! An API server's retries against outages: what lasts shorter than they do loses nothing.

use std::time::Duration;

use kubewitness::ingest::batch::Refused;
use kubewitness::ingest::webhook::config::{Config, Limits, Token};
use kubewitness::units::Span;

use crate::apiserver::{ApiServer, Sent, batch};
use crate::webhook::{Mode, Stage};

/// Real seconds for a second of the API server's.
const SCALE: f64 = 0.002;

fn apiserver(stage: &Stage) -> ApiServer {
    ApiServer::plain(&stage.url("/audit")).scale(SCALE)
}

#[tokio::test]
async fn a_batch_is_lost_after_five_tries() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "right").unwrap();
    let tokens = vec![Token { file, cluster: None }];
    let stage = Stage::start(Config { tokens, ..Config::default() }).await;
    let sent = apiserver(&stage).token("wrong").send(batch("a", 1)).await;
    assert_eq!(sent, Sent { is_delivered: false, tries: 5, requests: 5 });
    stage.stop().await;
}

/// A token is rotated while its API server keeps on sending: the file is read again in time.
#[tokio::test]
async fn a_new_token_comes_into_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "old").unwrap();
    let tokens = vec![Token { file: file.clone(), cluster: None }];
    let reload_interval = Span::from_millis(200);
    let stage = Stage::start(Config { tokens, reload_interval, ..Config::default() }).await;
    assert!(apiserver(&stage).token("old").send(batch("a", 1)).await.is_delivered);
    std::fs::write(&file, "new").unwrap();
    let sent = apiserver(&stage).token("new").scale(0.1).send(batch("b", 1)).await;
    assert!(sent.is_delivered, "{sent:?}");
    assert!(!apiserver(&stage).token("old").send(batch("c", 1)).await.is_delivered);
    assert_eq!(stage.taken().ids(), ["a-0", "b-0"]);
    stage.stop().await;
}

#[tokio::test]
async fn saturation_is_retried_within_a_try() {
    let stage = Stage::start(Config::default()).await;
    stage.set(Mode::Refuse(Refused::Full));
    let sending = tokio::spawn({
        let apiserver = apiserver(&stage);
        async move { apiserver.send(batch("a", 5)).await }
    });
    // Refused so often that the first try ends; `Retry-After` makes eleven requests of it.
    stage.held(15).await;
    stage.set(Mode::Accept);
    let sent = sending.await.unwrap();
    assert!(sent.is_delivered && sent.tries == 2 && sent.requests >= 16, "{sent:?}");
    assert_eq!(stage.taken().events.len(), 5);
    stage.stop().await;
}

/// The receiver is away, comes back on the same port, and gets what was sent meanwhile; batches
/// are sent side by side, as an API server does.
#[tokio::test]
async fn a_restart_loses_nothing() {
    let mut stage = Stage::start(Config::default()).await;
    let address = stage.address;
    let apiserver = apiserver(&stage).scale(0.02);
    let mut got = Vec::new();
    for life in 0..4 {
        let sending: Vec<_> = (0..20)
            .map(|number| {
                let apiserver = apiserver.clone();
                let body = batch(&format!("{life}-{number}"), 3);
                tokio::spawn(async move { apiserver.send(body).await })
            })
            .collect();
        let pipeline = stage.pipeline.clone();
        // Some are answered before the end, some while it drains, the others by the next life.
        stage.held(5).await;
        stage.stop().await;
        got.append(&mut pipeline.taken.lock().unwrap().ids());
        stage = Stage::listen(Config { listen: address, ..Config::default() }).await;
        for sent in sending {
            assert!(sent.await.unwrap().is_delivered);
        }
        got.append(&mut stage.taken().ids());
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 4 * 20 * 3);
    stage.stop().await;
}

/// The answer comes too late: the API server sends the same body again, and both are taken; that
/// they are one is for the pipeline to find out.
#[tokio::test]
async fn a_late_answer_is_retried() {
    let limits = Limits { answer_timeout: Span(Duration::from_millis(50)), ..Default::default() };
    let stage = Stage::start(Config { limits, ..Config::default() }).await;
    stage.set(Mode::Hold);
    let sending = tokio::spawn({
        let apiserver = apiserver(&stage);
        async move { apiserver.send(batch("a", 1)).await }
    });
    stage.held(2).await;
    stage.set(Mode::Accept);
    assert!(sending.await.unwrap().is_delivered);
    let taken = stage.taken();
    assert!(taken.events.len() >= 2, "{taken:?}");
    assert!(taken.ids().iter().all(|id| id == "a-0"));
    stage.stop().await;
}
