//! Any bytes as an event: no panic, valid JSON stays valid, redacting again changes nothing.
//! `cargo +nightly fuzz run redact fuzz/corpus/redact tests/corpus/redaction`

#![no_main]

use kubewitness::event::Event;
use kubewitness::event::redact::{Mode, Redactor, Scratch};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let redactor = Redactor::new(Mode::Secrets, Some(b"key"));
    let Some(event) = Event::salvage(bytes) else { return };
    let mut scratch = Scratch::default();
    let mut once = Vec::new();
    redactor.redact(&event, &mut scratch, &mut once);
    // What was harmless before is passed over, and comes out the same.
    let mut same = Vec::new();
    redactor.redact(&event, &mut scratch, &mut same);
    assert_eq!(once, same);
    if serde_json::from_slice::<serde_json::Value>(bytes).is_ok() {
        assert!(serde_json::from_slice::<serde_json::Value>(&once).is_ok());
        let event = Event::salvage(&once).expect("redaction keeps an event an event");
        let mut twice = Vec::new();
        redactor.redact(&event, &mut scratch, &mut twice);
        assert_eq!(once, twice);
    }
});
