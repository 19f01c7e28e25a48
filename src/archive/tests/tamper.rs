//! What can be done to an archive, and the class that the verifier must find: that one, no other.

use std::sync::Arc;

use bytes::Bytes;

use crate::archive::layout::{CHECKPOINT, commit_key};
use crate::archive::note::Signer;
use crate::archive::recover::Commit;
use crate::archive::sim::Memory;
use crate::archive::state::State;
use crate::archive::tests::{NOW_US, append, open, signer};
use crate::archive::verify::{Class, Level, Options, Report, verify};
use crate::archive::writer::{self, Writer};

const SIZE: u64 = 261;
const DAY_US: i64 = 86_400_000_000;

/// A published log of [`SIZE`] records, its last number, and what it was when it had 100.
async fn base() -> (Memory, Memory, u64) {
    let (store, dir) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
    let state = State::open(dir.path()).unwrap();
    let options =
        writer::Options { retention_days: Some(2), publish_us: i64::MAX, ..Default::default() };
    let opened = Writer::open_with(store.clone(), signer(), state, options, NOW_US).await;
    let (mut writer, mut seq, mut before) = (opened.unwrap(), 0, None);
    while writer.size() < SIZE {
        seq += 1;
        append(&mut writer, seq..=seq).await.unwrap();
        if writer.size() == 100 {
            writer.publish(0).await.unwrap();
            before = Some(store.copy());
        }
    }
    writer.publish(0).await.unwrap();
    (store.copy(), before.unwrap(), seq)
}

fn get(store: &Memory, key: &str) -> Bytes {
    store.contents()[key].clone()
}

fn note_of(store: &Memory, seq: u64) -> String {
    commit_of(store, seq).proof.note
}

fn commit_of(store: &Memory, seq: u64) -> Commit {
    Commit::decode(&get(store, &commit_key(seq)), seq, &signer().verifier()).unwrap()
}

fn segment_of(store: &Memory, seq: u64) -> String {
    commit_of(store, seq).record.segment.unwrap().object
}

fn flip(store: &Memory, key: &str, at: usize) {
    let mut bytes = get(store, key).to_vec();
    bytes[at] ^= 1;
    store.rewrite(key, Some(bytes.into()));
}

/// Another letter of base64 in place of one: the text stays one.
fn other_letter(store: &Memory, key: &str, at: usize) {
    let mut bytes = get(store, key).to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    store.rewrite(key, Some(bytes.into()));
}

fn swap(store: &Memory, one: &str, other: &str) {
    let (first, second) = (get(store, one), get(store, other));
    store.rewrite(one, Some(second));
    store.rewrite(other, Some(first));
}

async fn verified(store: &Memory, level: Level, known: &[String], now_us: i64) -> Report {
    let options = Options {
        key: signer().verifier(),
        level,
        known: known.iter().map(|note| ("saved".to_owned(), note.clone())).collect(),
        now_us,
        policy: None,
        age_us_max: Some(DAY_US),
        parallel: 4,
    };
    verify(Arc::new(store.copy_all()), &options, &|_| {}).await.unwrap()
}

async fn check(what: &str, store: &Memory, level: Level, known: &[String], expected: &[Class]) {
    let report = verified(store, level, known, NOW_US).await;
    let found: Vec<Class> = report.counts.keys().copied().collect();
    assert_eq!(found, expected, "{what} {level:?}: {:#?}", report.findings);
    assert!(report.head.is_some() || !expected.is_empty());
}

#[tokio::test]
async fn an_archive_is_proven_and_every_change_of_an_object_is_told() {
    let (base, _, _) = base().await;
    let saved = [note_of(&base, 99), note_of(&base, SIZE - 1)];
    for level in [Level::Quick, Level::Records, Level::Full] {
        check("untouched", &base, level, &saved, &[]).await;
    }
    let report = verified(&base, Level::Full, &saved, NOW_US).await;
    assert_eq!((report.records, report.lines), (SIZE, SIZE - 1));
    let (segment, other) = (segment_of(&base, 7), segment_of(&base, 200));
    type Tamper<'t> = &'t dyn Fn(&Memory);
    let size = get(&base, &segment).len();
    let note = get(&base, &commit_key(20)).len();
    let cases: &[(&str, Tamper<'_>, &[Class])] = &[
        ("first byte of a segment", &|it| flip(it, &segment, 0), &[Class::Altered]),
        ("a byte of a segment", &|it| flip(it, &segment, 30), &[Class::Altered]),
        ("last byte of a segment", &|it| flip(it, &segment, size - 1), &[Class::Altered]),
        ("segment deleted", &|it| it.rewrite(&segment, None), &[Class::Missing]),
        ("segments swapped", &|it| swap(it, &segment, &other), &[Class::Altered]),
        (
            "segment cut",
            &|it| it.rewrite(&segment, Some(get(it, &segment).slice(..size - 1))),
            &[Class::Altered],
        ),
        (
            "segment longer",
            &|it| it.rewrite(&segment, Some([&get(it, &segment)[..], b"\n"].concat().into())),
            &[Class::Altered],
        ),
        ("record of a commit", &|it| flip(it, &commit_key(20), 40), &[Class::Altered]),
        (
            "signature of a commit",
            &|it| other_letter(it, &commit_key(20), note - 20),
            &[Class::BadSignature],
        ),
        ("commit cut", &|it| it.rewrite(&commit_key(20), Some("c2sp".into())), &[Class::Altered]),
        ("commit deleted", &|it| it.rewrite(&commit_key(128), None), &[Class::Missing]),
        ("open commit deleted", &|it| it.rewrite(&commit_key(258), None), &[Class::Missing]),
        ("last commit deleted", &|it| it.rewrite(&commit_key(SIZE - 1), None), &[Class::Missing]),
        ("first commit deleted", &|it| it.rewrite(&commit_key(0), None), &[Class::Missing]),
        ("commits swapped", &|it| swap(it, &commit_key(20), &commit_key(21)), &[Class::Altered]),
        ("tile", &|it| flip(it, "tile/0/000", 77), &[Class::Altered]),
        ("open tile", &|it| flip(it, "tile/0/001.p/5", 77), &[Class::Altered]),
        ("former tile", &|it| flip(it, "tile/0/000.p/100", 77), &[Class::Altered]),
        ("upper tile", &|it| flip(it, "tile/1/000.p/1", 7), &[Class::Altered]),
        ("bundle", &|it| flip(it, "tile/entries/000", 77), &[Class::Altered]),
        ("tile deleted", &|it| it.rewrite("tile/0/000", None), &[Class::Missing]),
        ("bundle deleted", &|it| it.rewrite("tile/entries/000", None), &[Class::Missing]),
        ("checkpoint", &|it| flip(it, CHECKPOINT, 3), &[Class::BadSignature]),
        ("no checkpoint", &|it| it.rewrite(CHECKPOINT, Some("?".into())), &[Class::Altered]),
        ("object beside", &|it| it.overwrite("data/x", Some("?".into())), &[Class::Orphan]),
        (
            "commit far behind",
            &|it| it.overwrite(&commit_key(90_000), Some("?".into())),
            &[Class::Orphan],
        ),
    ];
    for (what, tamper, expected) in cases {
        let store = base.copy();
        tamper(&store);
        check(what, &store, Level::Full, &saved, expected).await;
    }
}

/// Of single objects nothing is asked at this level; what is asked is told as it is.
#[tokio::test]
async fn a_quick_look_tells_changes_of_the_tree_from_a_second_history() {
    let (base, _, _) = base().await;
    let saved = [note_of(&base, 99), note_of(&base, SIZE - 1)];
    let no_pointer = base.copy();
    no_pointer.rewrite(CHECKPOINT, None);
    type Tamper<'t> = &'t dyn Fn(&Memory);
    let cases: &[(&str, Tamper<'_>, &[Class])] = &[
        ("a tile below", &|it| flip(it, "tile/0/000", 77), &[Class::Altered]),
        ("a tile above", &|it| flip(it, "tile/1/000.p/1", 7), &[Class::Altered]),
        ("tile deleted", &|it| it.rewrite("tile/0/000", None), &[Class::Missing]),
        ("tile above deleted", &|it| it.rewrite("tile/1/000.p/1", None), &[Class::Missing]),
        ("tile cut", &|it| it.rewrite("tile/0/000", Some("x".into())), &[Class::Altered]),
    ];
    for (what, tamper, expected) in cases {
        for store in [&base, &no_pointer] {
            let store = store.copy();
            tamper(&store);
            check(what, &store, Level::Quick, &saved, expected).await;
        }
    }
    let store = base.copy();
    flip(&store, "tile/0/001.p/5", 77);
    check("the open tile", &store, Level::Quick, &saved, &[Class::Altered]).await;
    flip(&store, CHECKPOINT, 3);
    check("the pointer", &store, Level::Quick, &saved, &[Class::BadSignature]).await;
    let store = no_pointer.copy();
    store.rewrite(&commit_key(258), None);
    let found = verified(&store, Level::Quick, &saved, NOW_US).await;
    assert!(found.counts.contains_key(&Class::Missing), "{:?}", found.findings);
    check("no pointer", &no_pointer, Level::Quick, &saved, &[]).await;
    let other = [signer().sign_checkpoint(50, [1; 32]), signer().sign_checkpoint(SIZE, [1; 32])];
    check("two histories", &no_pointer, Level::Quick, &other, &[Class::Fork]).await;
}

#[tokio::test]
async fn what_is_not_locked_as_its_record_says_is_told() {
    let (base, _, _) = base().await;
    let locked = |days: i64| {
        let store = base.copy();
        *store.locked_until_us.lock().unwrap() = Some(NOW_US + days * DAY_US);
        store
    };
    let (segment, good, short) = (segment_of(&base, 7), locked(2), locked(1));
    for level in [Level::Records, Level::Full] {
        check("as long", &good, level, &[], &[]).await;
        check("not as long", &short, level, &[], &[Class::Unlocked]).await;
        let store = locked(3);
        store.unlock(&segment);
        check("one is not", &store, level, &[], &[Class::Unlocked]).await;
        assert_eq!(verified(&store, level, &[], NOW_US).await.findings[0].key, segment);
        // Behind its retention it need not be any more.
        let later = verified(&store, level, &[], NOW_US + 2 * DAY_US + 1).await;
        assert_eq!(later.counts.into_keys().collect::<Vec<_>>(), [Class::Stale]);
        store.hide(&segment);
        store.rewrite(&segment, None);
        let both = [Class::Unlocked, Class::Missing];
        check("gone and hidden", &store, level, &[], &both).await;
    }
}

#[tokio::test]
async fn versions_and_hidden_entries_deceive_nobody() {
    let (base, before, _) = base().await;
    let (segment, saved) = (segment_of(&base, 7), [note_of(&base, SIZE - 1)]);
    let shadows: [(&str, &str, Option<Bytes>); 5] = [
        ("other bytes", &segment, Some("forged".into())),
        ("same bytes", &segment, Some(get(&base, &segment))),
        ("deleted", &segment, None),
        ("commit deleted", &commit_key(100), None),
        ("commit forged", &commit_key(100), Some(get(&base, &commit_key(101)))),
    ];
    for (what, key, bytes) in shadows {
        let store = base.copy();
        store.overwrite(key, bytes);
        check(what, &store, Level::Full, &saved, &[Class::Shadowed]).await;
    }
    let hidden = base.copy();
    base.contents().keys().for_each(|key| hidden.hide(key));
    check("hidden", &hidden, Level::Full, &saved, &[]).await;
    hidden.rewrite(&segment, None);
    check("hidden and deleted", &hidden, Level::Full, &saved, &[Class::Missing]).await;
    for (key, class) in [
        (commit_key(100), Class::Missing),
        (commit_key(SIZE - 1), Class::Missing),
        ("tile/0/000".to_owned(), Class::Missing),
        ("tile/entries/000".to_owned(), Class::Missing),
    ] {
        let hidden = base.copy();
        base.contents().keys().for_each(|key| hidden.hide(key));
        hidden.rewrite(&key, None);
        check(&key, &hidden, Level::Full, &saved, &[class]).await;
        let hidden = base.copy();
        base.contents().keys().for_each(|key| hidden.hide(key));
        hidden.rewrite(&key, Some("forged".into()));
        check(&key, &hidden, Level::Full, &saved, &[Class::Altered]).await;
    }
    for level in [Level::Quick, Level::Records, Level::Full] {
        check("rolled back", &before, level, &saved, &[Class::Rollback]).await;
        check("rolled back, not known", &before, level, &[], &[]).await;
    }
}

#[tokio::test]
async fn two_histories_and_strange_keys_are_told() {
    let (base, before, seq) = base().await;
    let saved = [note_of(&base, SIZE - 1)];
    let (fork, dir) = (Arc::new(before.copy()), tempfile::tempdir().unwrap());
    let mut writer = open(&fork, dir.path()).await.unwrap();
    append(&mut writer, seq + 1..=seq + 1).await.unwrap();
    let store = base.copy();
    let forged = commit_of(&fork, 100);
    store.rewrite(&commit_key(100), Some(get(&fork, &commit_key(100))));
    assert!(forged.record.segment.is_none(), "a gap: this writer lost its disk");
    let expected = [Class::Orphan, Class::Gap, Class::Fork];
    check("another record", &store, Level::Full, &saved, &expected).await;
    let root = signer().sign_checkpoint(SIZE, [1; 32]);
    for level in [Level::Quick, Level::Records, Level::Full] {
        check("another root", &base, level, std::slice::from_ref(&root), &[Class::Fork]).await;
        let old = [signer().sign_checkpoint(50, [1; 32])];
        check("another old root", &base, level, &old, &[Class::Fork]).await;
    }
    let store = base.copy();
    let stranger = Signer::new(signer().name(), &[8; 32]).unwrap();
    let note = stranger.sign_checkpoint(SIZE, [1; 32]);
    store.rewrite(CHECKPOINT, Some(note.into()));
    check("a stranger's", &store, Level::Full, &saved, &[Class::BadSignature]).await;
}

#[tokio::test]
async fn time_decides_what_may_be_gone_and_what_is_late() {
    let (base, _, seq) = base().await;
    let store = base.copy();
    store.rewrite(&segment_of(&base, 7), None);
    let classes = |report: Report| report.counts.keys().copied().collect::<Vec<_>>();
    let late = verified(&store, Level::Records, &[], NOW_US + 3 * DAY_US).await;
    assert_eq!(late.worst(&[Class::Stale]), None);
    assert_eq!(classes(late), [Class::Expired, Class::Stale]);
    let early = verified(&store, Level::Records, &[], NOW_US + DAY_US).await;
    assert_eq!(classes(early), [Class::Missing]);
    let (lost, dir) = (Arc::new(base.copy()), tempfile::tempdir().unwrap());
    let mut writer = open(&lost, dir.path()).await.unwrap();
    append(&mut writer, seq + 9..=seq + 9).await.unwrap();
    check("a lost disk", &lost, Level::Full, &[], &[Class::Gap]).await;
}
