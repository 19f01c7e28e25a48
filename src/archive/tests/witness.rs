//! Witnesses: what they cosign, what they refuse, and what the verifier says of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::archive::cosignature::Cosigner;
use crate::archive::cosigners::{Cosigners, Refusal, Reply, Wire};
use crate::archive::layout::{CHECKPOINT, COSIGNED, cosigned_key};
use crate::archive::policy::Policy;
use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tests::{NOW_US, append, signer};
use crate::archive::verify::{Class, Level, Options, Report, verify};
use crate::archive::witness::Book;
use crate::archive::writer::{self, Error, Writer};

const NOW_S: u64 = (NOW_US / 1_000_000) as u64;

/// Witnesses behind URLs that are their numbers.
struct Witnesses {
    books: Vec<Book>,
    are_down: AtomicBool,
}

impl Witnesses {
    fn new(dir: &Path, number: u8) -> Arc<Witnesses> {
        let book = |at| {
            let dir = dir.join(format!("witness-{at}"));
            Book::open(&dir, Witnesses::cosigner(at), vec![signer().verifier()]).unwrap()
        };
        let books = (0..number).map(book).collect();
        Arc::new(Witnesses { books, are_down: AtomicBool::new(false) })
    }

    fn cosigner(at: u8) -> Cosigner {
        Cosigner::new(&format!("witness.example.com/w{at}"), &[at; 32]).unwrap()
    }

    fn policy(number: u8, least: usize) -> Policy {
        let witness = |at| format!("witness w{at} {} {at}\n", Witnesses::cosigner(at).witness());
        let names: Vec<_> = (0..number).map(|at| format!("w{at}")).collect();
        let witnesses: String = (0..number).map(witness).collect();
        let group = format!("group all-of-them {least} {}\n", names.join(" "));
        Policy::parse(&format!("{witnesses}{group}quorum all-of-them\n")).unwrap()
    }
}

impl Wire for Witnesses {
    fn ask<'a>(
        &'a self,
        url: String,
        body: Option<String>,
    ) -> BoxFuture<'a, Result<Reply, String>> {
        async move {
            if self.are_down.load(Ordering::Relaxed) {
                return Err("connection refused".to_owned());
            }
            let (at, rest) = url.split_once('/').unwrap();
            let book = &self.books[at.parse::<usize>().unwrap()];
            let Some(body) = body else {
                let hash = rest.strip_suffix("/checkpoint").unwrap();
                let head = book.head_of(hash).unwrap();
                let status = if head.is_some() { 200 } else { 404 };
                let body = head.map(|(note, _)| note).unwrap_or_default();
                return Ok(Reply { status, is_size: false, body });
            };
            let answer = book.add(body.as_bytes(), NOW_S);
            let is_size = answer.content_type() == "text/x.tlog.size";
            Ok(Reply { status: answer.status(), is_size, body: answer.body() })
        }
        .boxed()
    }
}

async fn open(
    store: &Arc<Memory>,
    dir: &Path,
    wire: &Arc<Witnesses>,
    (least, is_required): (usize, bool),
) -> Result<Writer, Error> {
    let policy = Witnesses::policy(wire.books.len() as u8, least);
    let cosigners = Cosigners::new(policy, is_required, wire.clone());
    let options = writer::Options {
        publish_us: i64::MAX,
        cosigners: Some(Arc::new(cosigners)),
        ..Default::default()
    };
    Writer::open_with(store.clone(), signer(), State::open(dir).unwrap(), options, NOW_US).await
}

async fn verified(store: &Memory, policy: &Policy, known: Vec<(String, String)>) -> Report {
    let options = Options {
        key: signer().verifier(),
        level: Level::Full,
        known,
        policy: Some(policy.clone()),
        now_us: NOW_US,
        age_us_max: Some(1_000_000),
        parallel: 4,
    };
    verify(Arc::new(store.copy_all()), &options, &|_| {}).await.unwrap()
}

fn classes(report: &Report) -> Vec<Class> {
    report.counts.keys().copied().collect()
}

#[tokio::test]
async fn heads_are_cosigned_and_the_verifier_asks_for_it() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let wire = Witnesses::new(dir.path(), 3);
    let mut writer = open(&store, &dir.path().join("state"), &wire, (2, false)).await.unwrap();
    for seq in 1..=70 {
        append(&mut writer, seq..=seq).await.unwrap();
        if seq % 9 == 0 {
            writer.publish(0).await.unwrap();
        }
    }
    writer.publish(0).await.unwrap();
    let policy = Witnesses::policy(3, 3);
    let report = verified(&store, &policy, Vec::new()).await;
    assert_eq!(classes(&report), [], "{:#?}", report.findings);
    assert_eq!(report.witnessed, Some((writer.size(), NOW_S)));
    assert_eq!(writer.witnessed(), writer.size());
    // A log that is not cosigned, by signatures that were taken away or are somebody else's.
    let size = writer.size();
    let strip = |note: &str| {
        let lines = note.split_inclusive('\n');
        lines.filter(|it| !it.starts_with("\u{2014} witness")).collect::<String>()
    };
    let note = String::from_utf8(store.contents()[CHECKPOINT].to_vec()).unwrap();
    let bare = store.copy_all();
    bare.rewrite(CHECKPOINT, Some(strip(&note).into()));
    let keys: Vec<String> = bare.contents().into_keys().collect();
    keys.iter().filter(|key| key.starts_with(COSIGNED)).for_each(|key| bare.rewrite(key, None));
    assert_eq!(classes(&verified(&bare, &policy, Vec::new()).await), [Class::BadSignature]);
    let other = Memory::copy_all(&bare);
    let stranger = Witnesses::cosigner(9).cosign(note.split("\n\n").next().unwrap(), NOW_S);
    let forged = stranger.replace("/w9", "/w1");
    other.rewrite(CHECKPOINT, Some(format!("{}{forged}", strip(&note)).into()));
    assert_eq!(classes(&verified(&other, &policy, Vec::new()).await), [Class::BadSignature]);
    let altered = store.copy_all();
    altered.rewrite(&cosigned_key(size), Some("no note".into()));
    assert_eq!(classes(&verified(&altered, &policy, Vec::new()).await), [Class::Altered]);
}

#[tokio::test]
async fn a_log_that_was_rolled_back_is_refused_and_the_verifier_says_so() {
    for is_required in [false, true] {
        let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
        let wire = Witnesses::new(dir.path(), 1);
        let how = (1, is_required);
        let mut writer = open(&store, &dir.path().join("state"), &wire, how).await.unwrap();
        append(&mut writer, 1..=20).await.unwrap();
        writer.publish(0).await.unwrap();
        let before = Arc::new(store.copy_all());
        append(&mut writer, 21..=40).await.unwrap();
        writer.publish(0).await.unwrap();
        let size = writer.size();
        // The store's end is cut, and the writer's disk is gone: nothing but the witness knows.
        let lost = open(&before, &dir.path().join("new"), &wire, how).await;
        assert!(
            matches!(&lost, Err(Error::Refused { refusal: Refusal::Rollback(known), .. })
                if *known == size),
            "{:?}",
            lost.err()
        );
        let policy = Witnesses::policy(1, 1);
        let asked = Cosigners::new(policy.clone(), false, wire.clone());
        let heads = asked.heads(signer().name()).await;
        assert_eq!(classes(&verified(&store, &policy, heads.clone()).await), []);
        let report = verified(&before, &policy, heads).await;
        assert_eq!(classes(&report), [Class::Rollback], "{:#?}", report.findings);
        assert_eq!(report.findings[0].key, "w0");
    }
}

#[tokio::test]
async fn a_second_history_is_refused() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let wire = Witnesses::new(dir.path(), 1);
    let mut writer = open(&store, &dir.path().join("state"), &wire, (1, true)).await.unwrap();
    append(&mut writer, 1..=20).await.unwrap();
    // Two disks, two stores, one key: only a witness sees both.
    let other = Arc::new(Memory::default());
    let mut open_mode = open(&other, &dir.path().join("a"), &wire, (1, false)).await.unwrap();
    append(&mut open_mode, 5..=9).await.unwrap();
    open_mode.publish(0).await.unwrap();
    assert_eq!(open_mode.witnessed(), 0);
    for seq in 10..20 {
        append(&mut open_mode, seq..=seq).await.unwrap();
    }
    drop(open_mode);
    let mut second = open(&other, &dir.path().join("a"), &wire, (1, true)).await.unwrap();
    let refused = append(&mut second, 20..=20).await;
    assert!(
        matches!(refused, Err(Error::Refused { refusal: Refusal::Fork(_), .. })),
        "{refused:?}"
    );
    assert!(!refused.unwrap_err().is_retryable());
}

#[tokio::test]
async fn nothing_counts_as_archived_before_a_quorum_that_is_required() {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let wire = Witnesses::new(dir.path(), 2);
    let mut writer = open(&store, &dir.path().join("state"), &wire, (1, true)).await.unwrap();
    append(&mut writer, 1..=3).await.unwrap();
    wire.are_down.store(true, Ordering::Relaxed);
    let refused = append(&mut writer, 4..=7).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("w1: connection refused"), "{refused}");
    let size = writer.size();
    wire.are_down.store(false, Ordering::Relaxed);
    append(&mut writer, 4..=7).await.unwrap();
    assert_eq!((writer.size(), writer.witnessed()), (size, size));
    // Without being required, it goes on.
    drop(writer);
    wire.are_down.store(true, Ordering::Relaxed);
    let mut writer = open(&store, &dir.path().join("state"), &wire, (1, false)).await.unwrap();
    append(&mut writer, 8..=9).await.unwrap();
    writer.publish(0).await.unwrap();
    assert_eq!(writer.witnessed(), 0);
}
