//! Chunks: whole records at any chunk size, over-long lines, compression that ends early.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::ingest::InputFormat;
use crate::ingest::discover::{LogFile, discover};

/// A reader of one byte sequence with chunks of about `chunk_bytes`.
fn reader(bytes: Vec<u8>, chunk_bytes: usize) -> ChunkReader {
    let head = &bytes[..bytes.len().min(marker::HEAD_BYTES)];
    let text = &head[head.iter().take_while(|byte| **byte == 0).count()..];
    let form = marker::form(text);
    let file = LogFile::from_stream(
        PathBuf::from("-"),
        form,
        compress::open(Box::new(Cursor::new(bytes))),
    );
    ChunkReader { chunk_bytes, ..ChunkReader::new(vec![file]) }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Offset, line and bytes.
    records: Vec<(u64, u64, String)>,
    rejects: Vec<String>,
}

fn read(bytes: &[u8], chunk_bytes: usize) -> Found {
    let mut reader = reader(bytes.to_vec(), chunk_bytes);
    let (mut chunk, mut found) = (Chunk::new(), Found::default());
    let mut items = 0;
    while reader.next_chunk(&mut chunk) {
        for record in chunk.records() {
            if let Some(item) = record.item {
                assert_eq!(item, items);
                items += 1;
            }
            let text = String::from_utf8_lossy(record.bytes).into_owned();
            if !text.trim().is_empty() {
                found.records.push((record.offset, record.line, text));
            }
        }
        for LineReject { line, reject } in &chunk.rejects {
            let text = format!("{}:{}+{} line {line}", reject.reason, reject.offset, reject.length);
            found.rejects.push(text);
        }
    }
    found
}

#[track_caller]
fn check(input: impl AsRef<[u8]>, records: &[(u64, u64, &str)], rejects: &[&str]) {
    let records = records.iter().map(|(at, line, text)| (*at, *line, (*text).to_owned())).collect();
    let rejects = rejects.iter().map(|text| (*text).to_owned()).collect();
    let expected = Found { records, rejects };
    for chunk_bytes in [1, 7, 64, 4096] {
        assert_eq!(read(input.as_ref(), chunk_bytes), expected, "chunks of {chunk_bytes}");
    }
}

#[test]
fn lines() {
    check("", &[], &[]);
    check("a\nbb\n\nccc", &[(0, 1, "a"), (2, 2, "bb"), (6, 4, "ccc")], &[]);
    check("a\r\n{}\r\n", &[(0, 1, "a\r"), (3, 2, "{}\r")], &[]);
    check("\0\0\0a\n", &[(3, 1, "a")], &["nul_run:0+3 line 1"]);
    check(
        "a\nb\0\0\0\0c\nd\0",
        &[(0, 1, "a"), (2, 2, "b"), (7, 2, "c"), (9, 3, "d")],
        &["nul_run:3+4 line 2", "nul_run:10+1 line 3"],
    );
}

#[test]
fn documents() {
    let a = r#"{"a":"}]\"["}"#;
    check(
        format!("{{\n\"items\": [\n{a},\n {a}]\n, \"x\": [1]}}\n{{\"b\":\n1}}"),
        &[(13, 3, a), (29, 4, a), (56, 6, "{\"b\":\n1}")],
        &[],
    );
    check(
        format!("[{a},1,\"]\" ,[2]]"),
        &[(1, 1, a), (15, 1, "1"), (17, 1, "\"]\""), (22, 1, "[2]")],
        &[],
    );
    check(format!("{a}{a}\n{a}"), &[(0, 1, a), (13, 1, a), (27, 2, a)], &[]);
    let blanks = " ".repeat(90);
    check(
        format!(
            "{{\"items\":[{a}],\n\"x\":[1],{blanks}\"items\" : [\n{a}],{blanks}\"items\":[]}}{a}"
        ),
        &[(10, 1, a), (136, 3, a), (252, 3, a)],
        &[],
    );
    check(
        format!("{{\"items\":[{a},{{\"b\":\"x\n{{\"kind\":\"EventList\",\"items\":[{a}]}}"),
        &[(10, 1, a), (24, 1, "{\"b\":\"x"), (61, 2, a)],
        &[],
    );
    check(
        format!("{{\"items\":[{a},{{\"b\":\n{{\"kind\":\"EventList\",\"items\":[{a}]}}"),
        &[(10, 1, a), (24, 1, "{\"b\":\n"), (59, 2, a)],
        &[],
    );
    check(format!("{{\"items\":[{a}\0\0{a}"), &[(10, 1, a), (25, 1, a)], &["nul_run:23+2 line 1"]);
    check(
        format!("{a}{a}nonsense\n{a}"),
        &[(0, 1, a), (13, 1, a), (26, 1, "nonsense"), (35, 2, a)],
        &[],
    );
    let pretty = "{\n  \"items\": [\n    {\n      \"a\": [";
    let whole = "{\n      \"a\": []\n    }";
    check(
        format!("{pretty}\n{pretty}]\n    }}\n  ]\n}}\n{{\n  \"b\": 1\n}}"),
        &[(19, 3, "{\n      \"a\": [\n"), (53, 7, whole), (81, 12, "{\n  \"b\": 1\n}")],
        &[],
    );
    check(
        format!("{pretty}]\n    }}\n  ],\n{pretty}]\n    }}\n  ]\n}}"),
        &[(19, 3, whole), (65, 9, whole)],
        &[],
    );
    check(
        format!(
            "{a}\n\ntext\n{{\n  \"b\": 1\n}}\n{a}\nmore\n{{\r\n  \"c\": 1\n}}{{\n  \"d\": 1\n}}"
        ),
        &[
            (0, 1, a),
            (15, 3, "text"),
            (20, 4, "{\n  \"b\": 1\n}"),
            (33, 7, a),
            (47, 8, "more"),
            (52, 9, "{\r\n  \"c\": 1\n}"),
            (65, 11, "{\n  \"d\": 1\n}"),
        ],
        &[],
    );
    let event = r#"{"auditID":"a","items":[1,2]}"#;
    check(format!("{event}{event}"), &[(0, 1, event), (29, 1, event)], &[]);
}

#[test]
fn cri_lines_stay_together() {
    let line =
        |stream: &str, flag: &str| format!("2026-01-02T03:04:05.000000001Z {stream} {flag} x\n");
    let text = [
        line("stdout", "F"),
        line("stdout", "P"),
        line("stderr", "F"),
        line("stdout", "P"),
        line("stdout", "F"),
        line("stderr", "P"),
        line("stdout", "F"),
        line("stderr", "F"),
    ]
    .concat();
    for chunk_bytes in [1, 60, 100, 150, 250] {
        let mut reader = reader(text.clone().into_bytes(), chunk_bytes);
        let (mut chunk, mut open) = (Chunk::new(), [false; 2]);
        while reader.next_chunk(&mut chunk) {
            assert_eq!(open, [false; 2], "chunks of {chunk_bytes}");
            for record in chunk.records() {
                let line = CriLine::parse(record.bytes).expect("framed");
                open[usize::from(line.is_stderr)] = line.is_partial;
            }
        }
    }
}

#[test]
fn pieces_in_records_stay_together() {
    let line = |text: &str, stream: &str| {
        format!("{{\"log\":{},\"stream\":\"{stream}\"}}\n", serde_json::Value::from(text))
    };
    let long = "x".repeat(16 << 10);
    let text = [
        line("{\"a\":1}\n", "stdout"),
        line("{\"a\":\"", "stdout"),
        line("I1122 klog\n", "stderr"),
        line(&long, "stdout"),
        line("\"}\n", "stdout"),
        line("{\"a\":", "stderr"),
        line("1}", "stdout"),
        line("1}", "stderr"),
    ]
    .concat();
    for chunk_bytes in [1, 60, 100, 250, 20_000] {
        let mut reader = reader(text.clone().into_bytes(), chunk_bytes);
        let (mut chunk, mut open) = (Chunk::new(), [false; 3]);
        while reader.next_chunk(&mut chunk) {
            assert_eq!(open, [false; 3], "chunks of {chunk_bytes}");
            for record in chunk.records() {
                let (stream, is_open) = pieces::ending(record.bytes).expect("of pieces");
                open[stream] = is_open;
            }
        }
    }
    // Lines that are all cut for good end where they have to.
    let cut = line(&format!("{{\"a\":\"{long}"), "stdout");
    let count = SMALL_CHUNK_BYTES_MAX / cut.len() * 3;
    let found = read(cut.repeat(count).as_bytes(), CHUNK_BYTES);
    assert_eq!((found.records.len(), found.rejects.len()), (count, 0));
}

#[test]
fn faults_of_compression_have_a_position() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"a\nb\n").expect("memory takes it");
    let gz = encoder.finish().expect("memory takes it");
    let cut = &gz[..gz.len() - 4];
    check(cut, &[(0, 1, "a"), (2, 2, "b")], &["truncated_compression:4+0 line 3"]);
    check([&gz[..], b"x"].concat(), &[(0, 1, "a"), (2, 2, "b")], &["trailing_garbage:4+0 line 3"]);
    check([&gz[..], &gz[..]].concat(), &[(0, 1, "a"), (2, 2, "b"), (4, 3, "a"), (6, 4, "b")], &[]);
}

#[test]
fn a_line_beyond_the_limit_leaves_its_head() {
    let long = vec![b'x'; LINE_BYTES_MAX + 5];
    let element = [b"{\"a\":\"", long.as_slice(), b"\"}"].concat();
    for (input, line) in [
        ([b"a\n", long.as_slice(), b"\nb\n"].concat(), 2),
        ([b"{\"items\":[1,", element.as_slice(), b",2]}"].concat(), 1),
    ] {
        let found = read(&input, CHUNK_BYTES);
        let lengths: Vec<usize> = found.records.iter().map(|(_, _, text)| text.len()).collect();
        assert_eq!(lengths, [1, LINE_KEPT_BYTES, 1]);
        assert_eq!(found.records[2].1, if line == 2 { 3 } else { 1 });
        assert_eq!(found.rejects.len(), 1);
        let start = found.records[1].0;
        assert!(found.rejects[0].starts_with(&format!("line_too_long:{start}+671")), "{found:?}");
        assert!(found.rejects[0].ends_with(&format!("line {line}")));
    }
}

#[test]
fn a_long_list_on_a_line_is_read_as_a_document() {
    let element = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    let list = format!("{{\"items\":[{}]}}", vec![element.as_str(); 30].join(","));
    let found = read(format!("a\n{list}\n{{\"b\":1}}\n").as_bytes(), CHUNK_BYTES);
    assert_eq!(found.records.len(), 32);
    assert_eq!(found.records[31], (list.len() as u64 + 3, 3, "{\"b\":1}".to_owned()));
}

#[test]
fn workers_never_wait_for_each_other_for_ever() {
    let line = format!("{}\n", "x".repeat(9 << 20));
    let bytes = line.repeat(4).into_bytes();
    let file = LogFile::from_stream(PathBuf::from("-"), Form::Lines, Box::new(Cursor::new(bytes)));
    let shared = SharedReader::new(ChunkReader::new(vec![file]));
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut chunk = Chunk::new();
                while shared.next_chunk(&mut chunk) {
                    count.fetch_add(chunk.records().count() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 4);
}

#[test]
fn progress_counts_bytes_of_files() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("a.log");
    let text = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\"}\n";
    std::fs::write(&path, text).expect("a file");
    let found = discover(&[path], InputFormat::Auto, || Box::new(std::io::empty())).expect("a log");
    let mut reader = ChunkReader::new(found.files);
    let mut chunk = Chunk::new();
    assert!(reader.next_chunk(&mut chunk) && !reader.next_chunk(&mut chunk));
    assert_eq!(reader.bytes_read().load(Ordering::Relaxed), text.len() as u64);
}

proptest! {
    #[test]
    fn chunks_of_any_size_give_the_same(
        text in "([a-z{}\\[\\]\",:\\\\\n\0]|\\{\"items\":\\[|\\{\"kind\":\"Event|\\{\\}){0,120}",
        start in "(a|\\{\n|\\[|\\{\"items\":\\[|\\{\\}\\{)?",
        size in 1usize..200,
    ) {
        let bytes = format!("{start}{text}").into_bytes();
        prop_assert_eq!(read(&bytes, size), read(&bytes, CHUNK_BYTES));
    }
}
