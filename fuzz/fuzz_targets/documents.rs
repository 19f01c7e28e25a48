//! Any bytes as a file of documents and as a file of lines: no panic, an end, records in order.
//! `cargo +nightly fuzz run documents fuzz/corpus/documents tests/corpus/ingest`

#![no_main]

use std::io::Cursor;
use std::path::PathBuf;

use kubewitness::ingest::chunk::Chunk;
use kubewitness::ingest::discover::LogFile;
use kubewitness::ingest::marker::Form;
use kubewitness::ingest::replay::ChunkReader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for form in [Form::Documents, Form::Lines] {
        let stream = Box::new(Cursor::new(bytes.to_vec()));
        let file = LogFile::from_stream(PathBuf::from("-"), form, stream);
        let mut reader = ChunkReader::new(vec![file]);
        let mut chunk = Chunk::new();
        let mut end = 0;
        while reader.next_chunk(&mut chunk) {
            for record in chunk.records() {
                assert!(record.offset >= end && record.line >= 1);
                end = record.offset + record.bytes.len() as u64;
                assert!(end <= bytes.len() as u64);
            }
        }
    }
});
