//! Replay end to end with every shipped rule, beside the floor: a SIMD JSON reader that takes twenty
//! fields out of the same file and does nothing with them.

mod extraction;
mod meter;
mod replaying;
mod ruleset;
mod traffic;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = meter::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion<meter::CpuTime>) {
    let traffic = traffic::Traffic::open();
    let engine = ruleset::compile(ruleset::shipped_rules());
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Bytes(traffic.bytes()));
    group.bench_function("extract twenty fields", |bencher| {
        bencher.iter(|| {
            traffic::each_line(traffic.file(), |line| assert!(extraction::extract(line)));
        });
    });
    for threads in [1, 2] {
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter(|| replaying::replay(&engine, traffic.path(), threads));
        });
    }
    group.finish();
}
