//! Any bytes as a checkpoint of a log, and any text as a file's name: no panic, and what is
//! accepted comes back as it went.
//! `cargo +nightly fuzz run log fuzz/corpus/log`

#![no_main]

use kubewitness::ingest::log::checkpoint::FileCheckpoint;
use kubewitness::ingest::log::name::{LogName, live_name};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = FileCheckpoint::parse(bytes) {
        let again = FileCheckpoint::parse(&checkpoint.encode());
        assert_eq!(again.ok().as_ref(), Some(&checkpoint));
    }
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    let live = live_name(name);
    assert!(live.len() <= name.len());
    for other in ["audit.log", "audit", "0.log", live.as_str()] {
        if let Some(found) = LogName::parse(other, name) {
            assert!(name.starts_with(&found.plain));
        }
    }
});
