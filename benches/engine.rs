//! Matching alone, on events that are parsed already: the shipped rules, and what ten thousand
//! rules cost over a hundred.

mod meter;
mod ruleset;
mod synthetic;
mod traffic;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use kubewitness::engine::Engine;
use kubewitness::engine::values::Subject;
use kubewitness::event::Event;

use crate::synthetic::{Way, synthetic};

/// Bytes of input of an iteration.
const BYTES: u64 = 16_000_000;

fn main() {
    let mut criterion = meter::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion<meter::CpuTime>) {
    let input = traffic::Traffic::open().head(BYTES);
    let lines = input.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let events: Vec<Event<'_>> = lines.map(|line| Event::parse(line).expect("an event")).collect();
    let shipped = ruleset::shipped_rules();
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(events.len() as u64));
    let mut cases = vec![("shipped".to_owned(), shipped.clone())];
    for way in [Way::Distinct, Way::Live] {
        for copies in [1, 100] {
            let rules = synthetic(&shipped, copies, way);
            cases.push((format!("{way:?}/{}", rules.rules.len()), rules));
        }
    }
    for (name, rules) in cases {
        let engine = ruleset::compile(rules);
        let mut scratch = engine.scratch();
        group.bench_function(name, |bencher| {
            bencher.iter(|| match_all(&engine, &mut scratch, &events));
        });
    }
    group.finish();
}

fn match_all(engine: &Engine, scratch: &mut kubewitness::engine::Scratch, events: &[Event<'_>]) {
    for event in events {
        black_box(engine.evaluate(Subject::Audit(event), scratch));
    }
}
