//! Decoding alone: one event's fields found in its line, and records of any form to events.

mod extraction;
mod meter;
mod traffic;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use kubewitness::event::Event;
use kubewitness::event::decode::{Scratch, decode};

/// Bytes of input of an iteration: more than the cache of a core holds.
const BYTES: u64 = 16_000_000;

fn main() {
    let mut criterion = meter::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion<meter::CpuTime>) {
    let input = traffic::Traffic::open().head(BYTES);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(input.len() as u64));
    group.bench_function("split", |bencher| {
        bencher.iter(|| traffic::each_line(&input[..], |line| _ = black_box(line)));
    });
    group.bench_function("extract twenty fields", |bencher| {
        bencher.iter(|| traffic::each_line(&input[..], |line| assert!(extraction::extract(line))));
    });
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            traffic::each_line(&input[..], |line| {
                black_box(Event::parse(line).expect("an event"));
            });
        });
    });
    group.bench_function("decode", |bencher| {
        let mut scratch = Scratch::default();
        bencher.iter(|| {
            traffic::each_line(&input[..], |line| {
                decode(line, &mut scratch, &mut |decoded| _ = black_box(decoded));
            });
        });
    });
    group.finish();
}
