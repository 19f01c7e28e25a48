//! Any bytes as a body of the webhook receiver, plain and as gzip, in pieces: no panic, an end, and
//! records that stand where they say, in order.
//! `cargo +nightly fuzz run webhook fuzz/corpus/webhook tests/corpus/ingest`

#![no_main]

use kubewitness::ingest::chunk::Chunk;
use kubewitness::ingest::webhook::cutter::Cutter;
use kubewitness::ingest::webhook::inflate::Inflate;

/// The least that the receiver's configuration allows.
const EVENT_BYTES_MAX: usize = 128 << 10;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, body)) = bytes.split_first() else { return };
    let piece = usize::from(first % 64) + 1;
    let text = if first & 64 == 0 { body.to_vec() } else { inflated(body, piece) };
    let mut cutter = Cutter::new(EVENT_BYTES_MAX);
    let mut chunks: Vec<Chunk> = Vec::new();
    for mut part in text.chunks(piece * 997) {
        while !part.is_empty() {
            chunks.extend(cutter.push(&mut part));
        }
    }
    chunks.extend(std::iter::from_fn(|| cutter.finish()));
    let mut end = 0;
    for record in chunks.iter().flat_map(Chunk::records) {
        let at = record.offset as usize;
        assert!(at >= end && record.line >= 1);
        end = at + record.bytes.len();
        assert_eq!(&text[at..end], record.bytes);
    }
});

fn inflated(body: &[u8], piece: usize) -> Vec<u8> {
    let mut inflate = Inflate::new(8 << 20, 200);
    let (mut text, mut output) = (Vec::new(), [0; 4096]);
    for mut part in body.chunks(piece) {
        loop {
            match inflate.step(&mut part, &mut output) {
                Ok(0) if part.is_empty() => break,
                Ok(count) => text.extend_from_slice(&output[..count]),
                Err(_) => return text,
            }
        }
    }
    text
}
