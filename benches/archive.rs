//! What an event costs on its way into the archive: hash, tree, zstd and the object's checksum; and
//! what it costs to prove it again. The goal is 10 µs an event and core.

use std::hint::black_box;
use std::io::Read as _;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::GzDecoder;
use kubewitness::archive::segment::{Builder, Line, Sealed, read_lines};
use kubewitness::archive::tree::{Frontier, leaf_hash};
use sha2::{Digest, Sha256};

const SAMPLE: &[u8] = include_bytes!("../tests/corpus/sample.log.gz");
/// Events of one segment: what 8 MiB hold.
const EVENTS: usize = 10_000;

fn sample() -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(SAMPLE).read_to_end(&mut text).expect("the sample is gzip");
    let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.into_iter().filter(|line| !line.is_empty()).cycle().take(EVENTS).collect()
}

fn seal(events: &[Vec<u8>]) -> Sealed {
    let mut builder = Builder::default();
    for (seq, raw) in (0..).zip(events) {
        let (source, position) = ("log", "audit.log:123456");
        let line = Line { raw, seq, time_us: 0, received_us: 0, flags: 0, source, position };
        builder.push(&line).expect("memory takes what it is given");
    }
    builder.seal().expect("memory takes what it is given").expect("there are events")
}

fn prove(sealed: &Sealed) -> bool {
    let mut tree = Frontier::default();
    let read = read_lines(&sealed.bytes, sealed.raw_size, |_, line| {
        tree.push(leaf_hash(line));
        true
    });
    let sha256: [u8; 32] = Sha256::digest(&sealed.bytes).into();
    read.is_ok() && tree.root() == sealed.event_root && sha256 == sealed.sha256
}

fn archive(criterion: &mut Criterion) {
    let events = sample();
    let sealed = seal(&events);
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Elements(EVENTS as u64)).sample_size(20);
    group.bench_function("seal", |bencher| bencher.iter(|| seal(black_box(&events))));
    group.bench_function("prove", |bencher| bencher.iter(|| assert!(prove(black_box(&sealed)))));
    group.finish();
    let raw: usize = events.iter().map(Vec::len).sum();
    println!("{} bytes an event raw, {} stored", raw / EVENTS, sealed.bytes.len() / EVENTS);
}

criterion_group!(benches, archive);
criterion_main!(benches);
