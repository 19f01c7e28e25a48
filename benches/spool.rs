//! Append rate of the spool beside its floor, in the same run: a loop that writes the same bytes
//! and syncs. A batch is 400 events of 1.6 KB, as a kube-apiserver's webhook backend sends them.
//!
//! `spool/append/N` is N tasks that append one batch each at a time: with more than one, batches
//! share a sync. `floor/N` is the loop with N batches a sync. Since disks of virtual machines slow
//! down after a burst, the two are also measured in turns, a second each at most, and the medians
//! are printed first: compare those.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kubewitness::clock::Stopwatch;
use kubewitness::spool::{Batch, Frames, Limits, Options, Spool, Start};

const EVENTS: usize = 400;
const EVENT_BYTES: usize = 1_600;

/// Bytes of one event; different enough that nothing on the way could shrink them.
fn event(number: usize) -> Vec<u8> {
    (0..EVENT_BYTES).map(|at| (at * 31 + number * 17) as u8).collect()
}

fn batch() -> Batch {
    let mut frames = Frames::with_capacity(EVENTS * (EVENT_BYTES + 32));
    for number in 0..EVENTS {
        frames.push(1, |bytes| bytes.extend_from_slice(&event(number)));
    }
    let mut batch = Batch::new();
    batch.append(frames);
    batch
}

/// Writes and syncs `batches` batches, `together` a sync; starts the file anew now and then.
fn floor(dir: &Path, bytes: &[u8], batches: u64, together: u64) -> Duration {
    let path = dir.join("floor");
    let create = || File::create(&path).expect("a temporary file can be created");
    let mut file = create();
    let time = Stopwatch::start();
    for number in 0..batches {
        if number % 100 == 99 {
            file = create();
        }
        file.write_all(bytes).expect("the disk has room");
        if number % together == together - 1 {
            file.sync_data().expect("the disk syncs");
        }
    }
    file.sync_data().expect("the disk syncs");
    time.elapsed()
}

/// Appends `batches` batches by so many tasks, while a cursor passes them, so that segments are
/// deleted as in real use.
async fn append(dir: &Path, batch: &Batch, batches: u64, tasks: u64) -> Duration {
    let (spool, _) = Spool::open(dir, Options::default()).expect("the spool opens");
    let mut cursor = spool.cursor("sink", Start::Newest).await.expect("the cursor opens");
    let time = Stopwatch::start();
    let appenders: Vec<_> = (0..tasks)
        .map(|task| {
            let (appender, batch) = (spool.appender(), batch.clone());
            let count = batches / tasks + u64::from(task < batches % tasks);
            tokio::spawn(async move {
                for _ in 0..count {
                    appender.append(batch.clone()).await.expect("the batch is appended");
                }
            })
        })
        .collect();
    for appender in appenders {
        appender.await.expect("the task ends");
    }
    let elapsed = time.elapsed();
    while let Some(records) = cursor.try_read(&Limits::default()).await.expect("it reads") {
        cursor.ack(records.seq_last).await.expect("it acknowledges");
    }
    drop(cursor);
    spool.close().await.expect("the spool closes");
    elapsed
}

/// Reads everything with one cursor; time for `batches` batches.
async fn read(dir: &Path, batch: &Batch, batches: u64) -> Duration {
    let (spool, _) = Spool::open(dir, Options::default()).expect("the spool opens");
    let mut cursor = spool.cursor("sink", Start::Newest).await.expect("the cursor opens");
    for _ in 0..batches {
        spool.append(batch.clone()).await.expect("the batch is appended");
    }
    let time = Stopwatch::start();
    while let Some(records) = cursor.try_read(&Limits::default()).await.expect("it reads") {
        cursor.ack(records.seq_last).await.expect("it acknowledges");
    }
    let elapsed = time.elapsed();
    drop(cursor);
    spool.close().await.expect("the spool closes");
    elapsed
}

/// Measures floor and spool in turns and prints the median time of a batch of each.
fn in_turns(runtime: &tokio::runtime::Runtime, dir: &Path, batch: &Batch, together: u64) {
    const ROUNDS: usize = 31;
    const BATCHES: u64 = 96;
    let bytes = vec![0x5a; batch.bytes() as usize];
    let spool = dir.join("spool");
    let (mut floors, mut appends) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(floor(dir, &bytes, BATCHES, together));
        appends.push(runtime.block_on(append(&spool, batch, BATCHES, together)));
    }
    floors.sort();
    appends.sort();
    let (floor, append) = (floors[ROUNDS / 2], appends[ROUNDS / 2]);
    println!(
        "in turns, {together} together: floor {:?}, append {:?} a batch, append/floor {:.2}",
        floor / BATCHES as u32,
        append / BATCHES as u32,
        append.as_secs_f64() / floor.as_secs_f64()
    );
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let batch = batch();
    let bytes = vec![0x5a; batch.bytes() as usize];
    for together in [1, 8] {
        in_turns(&runtime, dir.path(), &batch, together);
    }
    let mut group = criterion.benchmark_group("spool");
    group.throughput(Throughput::Bytes((EVENTS * EVENT_BYTES) as u64));
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for together in [1, 8] {
        group.bench_function(format!("floor/{together}"), |bencher| {
            bencher.iter_custom(|batches| floor(dir.path(), &bytes, batches, together));
        });
        group.bench_function(format!("append/{together}"), |bencher| {
            let spool = dir.path().join("spool");
            bencher
                .iter_custom(|batches| runtime.block_on(append(&spool, &batch, batches, together)));
        });
    }
    group.bench_function("read", |bencher| {
        let spool = dir.path().join("spool");
        bencher.iter_custom(|batches| runtime.block_on(read(&spool, &batch, batches)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
