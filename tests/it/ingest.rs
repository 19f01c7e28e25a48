//! Every file of tests/corpus/ingest against tests/golden/ingest.txt: what is found, skipped,
//! decoded, salvaged and rejected, and where. `UPDATE_GOLDEN=1` rewrites the golden file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kubewitness::event::decode::{Decoded, Scratch, decode, decode_element, finish};
use kubewitness::event::{Slot, time};
use kubewitness::ingest::InputFormat;
use kubewitness::ingest::chunk::Chunk;
use kubewitness::ingest::discover::{Discovery, discover};
use kubewitness::ingest::replay::ChunkReader;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/ingest")
}

fn show(decoded: Decoded<'_>) -> String {
    match decoded {
        Decoded::Control => "control".to_owned(),
        Decoded::Reject(reject) => {
            format!("reject {} at {}, {} bytes", reject.reason, reject.offset, reject.length)
        }
        Decoded::Event { event, ordinal, context } => {
            let text = |slot| event.text(slot).unwrap_or_else(|| "-".into());
            let mut shown = format!("{} {}", text(Slot::Verb), text(Slot::RequestUri));
            let _ = write!(shown, " by {} {}", text(Slot::Username), text(Slot::StatusCode));
            let time_us = event.time_us().or(context.time_us).map(time::format_us);
            let _ = write!(shown, " {}", time_us.as_deref().unwrap_or("-"));
            if ordinal > 0 {
                let _ = write!(shown, " (event {ordinal} of its record)");
            }
            if let Some(cluster) = context.cluster {
                let _ = write!(shown, " in {cluster}");
            }
            if let Some(reason) = context.partial {
                let _ = write!(shown, " partial: {}", reason.name());
            }
            shown
        }
    }
}

fn replayed(found: Discovery) -> String {
    let names: Vec<_> = found.files.iter().map(|file| file.path.clone()).collect();
    let mut shown = String::new();
    let mut reader = ChunkReader::new(found.files);
    let (mut chunk, mut scratch) = (Chunk::new(), Scratch::default());
    let mut last = usize::MAX;
    while reader.next_chunk(&mut chunk) {
        if last != chunk.file {
            last = chunk.file;
            let name = names[last].strip_prefix(corpus()).expect("a file of the corpus");
            let _ = writeln!(shown, "\n{}", name.display());
        }
        for record in chunk.records() {
            let item = record.item.map(|item| format!(" item {item}")).unwrap_or_default();
            let mut emit = |decoded: Decoded<'_>| {
                let _ = writeln!(shown, "  {}{item}: {}", record.line, show(decoded));
            };
            match record.header {
                Some(header) => decode_element(header, record.bytes, &mut scratch, &mut emit),
                None => decode(record.bytes, &mut scratch, &mut emit),
            }
        }
        finish(&mut scratch, &mut |decoded| {
            let _ = writeln!(shown, "  end: {}", show(decoded));
        });
        for found in &chunk.rejects {
            let text = show(Decoded::Reject(found.reject.clone()));
            let _ = writeln!(shown, "  {}: {text}", found.line);
        }
    }
    shown
}

#[test]
fn every_form_of_the_corpus() {
    let found = discover(&[corpus()], InputFormat::Auto, || Box::new(std::io::empty()))
        .expect("the corpus holds logs");
    assert_eq!(found.unreadable, []);
    let skipped = found.skipped;
    let shown = format!("{skipped} files skipped\n{}", replayed(found));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ingest.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == golden, "not what tests/golden/ingest.txt says:\n{shown}");
}
