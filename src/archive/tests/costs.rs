//! How many objects an archive of some rate needs, counted, against what docs/archive.md promises.

use std::sync::Arc;

use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tests::{NOW_US, batch, items, signer};
use crate::archive::writer::{Options, Writer};

const DOCS: &str = include_str!("../../../docs/archive.md");
const DAY_US: i64 = 86_400_000_000;
/// Bytes of an event, stored: what benches/README.md has measured.
const STORED_BYTES: f64 = 92.0;
/// Dollars a million uploads, and a GB and month; days of a month.
const PRICES: (f64, f64, f64) = (5.0, 0.023, 30.0);

/// The rows of the table: events a second, segments and uploads a day, and so on.
fn rows() -> Vec<Vec<f64>> {
    let table = DOCS.split("| events/s |").nth(1).unwrap().split("\n\n").next().unwrap();
    let number = |cell: &str| {
        let word = cell.trim().split([' ', ',']).collect::<Vec<_>>();
        let digits: Vec<&str> =
            word.iter().copied().take_while(|it| it.starts_with(char::is_numeric)).collect();
        let factor = if cell.contains("million") { 1e6 } else { 1.0 };
        digits.concat().parse::<f64>().unwrap() * factor
    };
    // "50,000, 32 MiB a batch": what stands behind a comma and a space is no part of the number.
    let cells = |row: &str| {
        let row = row.trim_matches('|').split('|');
        row.map(|cell| number(cell.split(", ").next().unwrap_or(cell))).collect()
    };
    table.lines().skip(2).map(cells).collect()
}

/// Uploads in a day of so many segments, from a part of one.
async fn uploads_a_day(segments: f64, part: f64) -> f64 {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let state = State::open(dir.path()).unwrap();
    let opened =
        Writer::open_with(store.clone(), signer(), state, Options::default(), NOW_US).await;
    let mut writer = opened.unwrap();
    let appends = (segments * part) as u64;
    let mut seq = 0;
    for number in 1..=appends {
        // An alert would be a segment of its own.
        seq += if seq % 5 == 3 { 2 } else { 1 };
        let now_us = NOW_US + (number as f64 / segments * DAY_US as f64) as i64;
        let raws = batch(seq..=seq);
        writer.append(&items(&raws), seq, now_us).await.unwrap();
    }
    let uploads: u64 = store.uploads().values().sum();
    uploads as f64 / part
}

#[tokio::test]
async fn the_table_of_costs_is_what_a_writer_uploads() {
    let near = |what: &str, row: &[f64], found: f64, told: f64| {
        let is_near = (found - told).abs() <= told * 0.03 + 0.5;
        assert!(is_near, "{what} of {row:?}: {found}, not {told}");
    };
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [100.0, 1_000.0, 50_000.0]);
    let (million, gigabyte, days) = PRICES;
    for row in rows {
        let [rate, segments, uploads, a_month, gigabytes, objects, kept] = row[..] else {
            panic!("{row:?}");
        };
        // Some minutes in which there are 400.
        let found = uploads_a_day(segments, 400.0 / segments).await;
        near("uploads", &row, found, uploads);
        near("dollars for uploads", &row, found * days * million / 1e6, a_month);
        near("objects", &row, found * 365.0, objects);
        let a_day = rate * 86_400.0 * STORED_BYTES / 1e9;
        near("gigabytes", &row, a_day, gigabytes);
        near("dollars for a year", &row, a_day * 365.0 * gigabyte, kept);
    }
}
