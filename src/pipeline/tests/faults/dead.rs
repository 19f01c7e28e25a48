//! Sinks that are dead stop nobody: the others deliver everything before the dead deliver anything.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::pipeline::deliver::run;
use crate::pipeline::tests::faults::cases::Kinds;
use crate::pipeline::tests::faults::http::{self, Service};
use crate::pipeline::tests::faults::{
    RECORDS, Record, delivery, fill, open, stream, tokens, wait_for,
};
use crate::sinks::config::Config;
use crate::spool::disk::sim::Sim;
use crate::spool::{Spool, Start};

fn config(name: &str, settings: Value) -> Config {
    let mut config = json!({"name": name, "records": ["events", "alerts"],
        "batch": {"records_max": 7, "wait_max": "0s"}});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// Records that a sink has behind it.
fn passed(spool: &Spool, name: &str) -> u64 {
    let cursors = spool.cursors();
    cursors.iter().find(|(known, _, _)| known == name).unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sink_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    let (plain, plain_at) = http::Far::start(Service::Plain, 1, 0).await;
    let (bulk, bulk_at) = http::Far::start(Service::Elasticsearch, 1, 0).await;
    let (syslog, port) = stream::Far::start(None, true, 1, 0).await;
    let (failing, failing_at) = http::Far::start(Service::Plain, 1, 0).await;
    failing.break_down();
    // Accepted by the kernel and by nobody else: this one hangs.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging_at = hanging.local_addr().unwrap();
    let well = [
        config("well-http", json!({"type": "http", "url": format!("http://{plain_at}")})),
        config("well-bulk", json!({"type": "elasticsearch", "url": format!("http://{bulk_at}")})),
        config("well-syslog", json!({"type": "syslog", "address": format!("127.0.0.1:{port}")})),
        config("well-file", json!({"type": "file", "path": path})),
    ];
    let failing_one = config(
        "failing",
        json!({"type": "http", "shape": "each",
        "url": format!("http://{failing_at}")}),
    );
    let dead = [
        config("refused", json!({"type": "syslog", "address": "127.0.0.1:1"})),
        config("hanging", json!({"type": "http", "url": format!("http://{hanging_at}")})),
        config(
            "unknown",
            json!({"type": "kafka", "brokers": "127.0.0.1:1",
            "topics": {"events": "e", "alerts": "a"}}),
        ),
        failing_one,
    ];
    let spool = open(&Sim::default());
    let records: Vec<Record> =
        (0..RECORDS).map(|number| Record::new(number, Kinds::Both, "")).collect();
    // The dead ones begin, and each has its chance to be in the way.
    let mut running = Vec::new();
    for one in dead.iter().chain(&well) {
        let cursor = spool.cursor(&one.common.name, Start::Oldest).await.unwrap();
        running.push(tokio::spawn(run(delivery(one, &spool, cursor))));
    }
    fill(&spool, &records).await;
    wait_for(|| {
        well.iter().all(|one| passed(&spool, &one.common.name) == RECORDS as u64)
            && failing.requests() > 2
    })
    .await;
    for one in &dead {
        assert_eq!(passed(&spool, &one.common.name), 0, "{}", one.common.name);
    }
    assert!(failing.stored().is_empty());
    let count = |far: &Arc<http::Far>| far.stored().iter().map(|one| one.tokens.len()).sum();
    let counts: [usize; 4] = [
        count(&plain),
        count(&bulk),
        syslog.stored().len(),
        tokens(&std::fs::read_to_string(&path).unwrap()).len(),
    ];
    assert_eq!(counts, [RECORDS; 4]);
    failing.heal();
    wait_for(|| passed(&spool, "failing") == RECORDS as u64).await;
    assert_eq!(count(&failing), RECORDS);
    running.iter().for_each(tokio::task::JoinHandle::abort);
}
