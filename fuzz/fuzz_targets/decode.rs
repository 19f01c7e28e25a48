//! Any bytes as one record: no panic, and never nothing for a record that is not blank.
//! `cargo +nightly fuzz run decode fuzz/corpus/decode tests/corpus/ingest`

#![no_main]

use kubewitness::event::decode::{Scratch, decode, finish};

libfuzzer_sys::fuzz_target!(|record: &[u8]| {
    let mut scratch = Scratch::default();
    let mut found = 0;
    decode(record, &mut scratch, &mut |_| found += 1);
    finish(&mut scratch, &mut |_| found += 1);
    let is_blank = record.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    assert!(found > 0 || is_blank || record.len() < 100);
});
