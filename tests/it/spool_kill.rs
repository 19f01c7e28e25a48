//! The spool in a process that is killed with SIGKILL at random points, again and again.
//!
//! The child is this test binary itself, told by the environment to append and to print what was
//! acknowledged. The parent kills it somewhere in the middle, opens the spool and compares.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kubewitness::spool::{Batch, Error, Limits, Options, Spool, Start, verify};

const CHILD: &str = "KUBEWITNESS_SPOOL_KILL_DIR";
const KILLS: u64 = 50;

fn options() -> Options {
    Options { segment_bytes_max: 32 << 10, batch_bytes_max: 8 << 10, ..Options::default() }
}

/// What the child does: two tasks append batches of three records, a third one delivers; every
/// acknowledged batch is a line on stdout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (spool, recovery) = Spool::open(Path::new(&dir), options()).expect("the spool opens");
    assert_eq!(recovery.damages, []);
    let life = recovery.cursors.first().map_or(0, |_| spool.stats().seq_durable);
    for task in 0..2 {
        let appender = spool.appender();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let mut batch = Batch::new();
                let name = format!("{life}.{task}.{number}");
                for part in 0..3_usize {
                    batch.push(1, format!("{name}.{part}{}", "-".repeat(part * 700)).as_bytes());
                }
                let appended = appender.append(batch).await.expect("the batch is appended");
                let line = format!("acked {} {name}\n", appended.seq_first);
                std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
            }
        });
    }
    let mut cursor = spool.cursor("sink", Start::Oldest).await.expect("the cursor opens");
    loop {
        let records = cursor.read(&Limits::default()).await.expect("it reads");
        assert_eq!(records.missing, 0);
        // The newest records stay undelivered, so that there is something to compare.
        let seq = records.seq_last.saturating_sub(60);
        cursor.ack(seq.max(cursor.acked())).await.expect("it acknowledges");
    }
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command
        .args(["--exact", "spool_kill::the_child_appends_until_it_is_killed", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("the child starts")
}

/// Lets the child acknowledge some batches, kills it, and returns all that it acknowledged.
fn live_and_die(dir: &Path, lines: u64) -> Vec<(u64, String)> {
    let mut child = start(dir);
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let (mut acked, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        // A line that the kill cut short was not acknowledged to anybody.
        if output.read_line(&mut line).expect("the pipe reads") == 0 || !line.ends_with('\n') {
            break;
        }
        let mut words = line.split_whitespace().skip_while(|word| *word != "acked").skip(1);
        if let (Some(Ok(seq)), Some(name)) = (words.next().map(str::parse), words.next()) {
            acked.push((seq, name.to_owned()));
        }
        if acked.len() as u64 == lines {
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it ended");
    acked
}

/// Everything in the spool: payload by sequence number.
async fn held(spool: &Spool) -> BTreeMap<u64, String> {
    let mut reader = spool.reader(spool.stats().seq_oldest);
    let mut held = BTreeMap::new();
    while let Some(records) = reader.try_read(&Limits::default()).await.expect("it reads") {
        assert_eq!((records.missing, &records.damages[..]), (0, &[][..]));
        let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
        held.extend(records.iter().map(|record| (record.seq, text(record.payload))));
    }
    held
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    // Seeded: xorshift, so that every run kills at the same counts.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut batches = 0;
    for kill in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let acked = live_and_die(dir.path(), 1 + random % 40);
        assert!(!acked.is_empty());
        batches += acked.len();
        let seen = verify(dir.path()).expect("it reads");
        assert_eq!((seen.damages, seen.missing), (vec![], 0), "kill {kill}");
        let (spool, recovery) = Spool::open(dir.path(), options()).expect("the spool opens");
        assert_eq!(recovery.damages, [], "kill {kill}");
        let held = held(&spool).await;
        let oldest = spool.stats().seq_oldest;
        for (seq, name) in acked {
            for part in 0..3 {
                let found = held.get(&(seq + part));
                let is_there =
                    found.is_some_and(|payload| payload.starts_with(&format!("{name}.{part}")));
                assert!(is_there || seq + part < oldest, "kill {kill}: {name} at {seq}: {found:?}");
            }
        }
        // Whole batches only: the records of each are side by side.
        let parts: Vec<&str> = held
            .values()
            .map(|payload| payload.trim_end_matches('-').rsplit('.').next().unwrap_or(""))
            .collect();
        assert!(parts.chunks(3).all(|parts| parts == ["0", "1", "2"]), "kill {kill}");
        spool.close().await.expect("it closes");
    }
    assert!(batches > 200, "only {batches} batches in all");
}

#[tokio::test]
async fn a_spool_in_use_by_another_process_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    let mut child = start(dir.path());
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("acked") {
        line.clear();
        assert!(output.read_line(&mut line).expect("the pipe reads") > 0);
    }
    let error = Spool::open(dir.path(), options()).err();
    let pid = child.id().to_string();
    child.kill().expect("it runs");
    child.wait().expect("it ended");
    assert!(matches!(&error, Some(Error::Locked { pid: found, .. }) if *found == pid), "{error:?}");
}
