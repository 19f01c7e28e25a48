//! Replay end to end with every shipped rule, beside the floor: a SIMD JSON reader that takes
//! twenty fields out of the same file and does nothing with them.

mod extraction;
mod meter;
mod replaying;
mod ruleset;
mod traffic;

use std::path::Path;
use std::sync::Arc;

use cpu_time::ProcessTime;
use criterion::{BatchSize, Criterion, Throughput};
use kubewitness::engine::Engine;

/// How often the two are measured in turns for their ratio.
const ROUNDS: usize = 5;

fn main() {
    let traffic = traffic::Traffic::open();
    let engine = ruleset::compile(ruleset::shipped_rules());
    let mut criterion = meter::criterion();
    bench(&mut criterion, &traffic, &engine);
    criterion.final_summary();
    let mut ratios: Vec<f64> = (0..ROUNDS).map(|_| ratio(&engine, traffic.path())).collect();
    ratios.sort_by(f64::total_cmp);
    println!("replay / extraction: {:.2}, the median of {ROUNDS} rounds", ratios[ROUNDS / 2]);
}

/// The rate of a replay on one thread over that of the extraction, by CPU time.
fn ratio(engine: &Arc<Engine>, path: &Path) -> f64 {
    let file = std::fs::File::open(path).expect("the file can be read");
    let started = ProcessTime::now();
    traffic::each_line(file, |line| assert!(extraction::extract(line)));
    let extraction = started.elapsed();
    let replayed = replaying::replay(&ruleset::afresh(engine), path, 1);
    extraction.as_secs_f64() / replayed.cpu.as_secs_f64()
}

fn bench(
    criterion: &mut Criterion<meter::CpuTime>,
    traffic: &traffic::Traffic,
    engine: &Arc<Engine>,
) {
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Bytes(traffic.bytes()));
    group.bench_function("extract twenty fields", |bencher| {
        bencher.iter(|| {
            traffic::each_line(traffic.file(), |line| assert!(extraction::extract(line)));
        });
    });
    for threads in [1, 2] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_batched(
                || ruleset::afresh(engine),
                |engine| replaying::replay(&engine, traffic.path(), threads),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}
