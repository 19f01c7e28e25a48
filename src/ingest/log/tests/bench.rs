//! A log source, its disk and the pipeline behind it, driven by a script.
//!
//! ```text
//! w a b c       lumberjack writes lines      part a / rest a    a line in two writes
//! rotate        it rotates now               reopen             the writer's process starts anew
//! rotate-full   the same, unless nothing was written since the last time
//! mill / mill1  deletes and compresses, all of it or one operation
//! read / step   the source looks: until nothing more happens, or once
//! stop / start  kills and starts the source  refuse N           the pipeline refuses N batches
//! race N …      rotate or mill1 happens while the source looks, before its Nth use of the disk
//! cp mv ln sym rm trunc nul …                what others do to the files
//! ```
//! Files are named by their name in the directory; `@1` is the first backup that lumberjack made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ingest::batch::{Batch, Receipt, Refused};
use crate::ingest::intake::{Intake, Outlet, intake};
use crate::ingest::log::config::{Config, Start};
use crate::ingest::log::tail::{Moment, Step, Tail};
use crate::ingest::log::tests::lumberjack::{Lumberjack, gzip, packed};
use crate::ingest::log::tests::sim::{Operation, Sim};
use crate::units::Span;

pub(crate) const DIRECTORY: &str = "/l";
const STEP: Duration = Duration::from_millis(250);
const EPOCH_US: i64 = 1_767_225_600_000_000;

pub(crate) struct Bench {
    pub(crate) sim: Sim,
    writer: Arc<Mutex<Lumberjack>>,
    pub(crate) config: Config,
    tail: Option<Tail>,
    intake: Intake,
    outlet: Outlet,
    pub(crate) now: Duration,
    wall_back: Duration,
    /// Checkpoints that are durable.
    pub(crate) store: BTreeMap<String, Vec<u8>>,
    saved: BTreeMap<String, Vec<u8>>,
    /// Records that are durable, with the file's name and the line's number.
    pub(crate) records: Vec<(String, u64, Vec<u8>)>,
    /// Notices that are durable: kind and bytes.
    pub(crate) notices: Vec<String>,
    pub(crate) texts: Vec<String>,
    pub(crate) rejects: Vec<String>,
    pub(crate) nuls: u64,
    refusals: u32,
    stalled: u32,
    /// Batches that were taken and are answered later.
    held: Vec<Batch>,
    is_holding: bool,
}

pub(crate) fn line(token: &str) -> Vec<u8> {
    format!("{{\"kind\":\"Event\",\"auditID\":\"{token}\",\"pad\":\"{:.>60}\"}}\n", "").into_bytes()
}

/// The token of a line, or the line itself when it is none of ours.
pub(crate) fn token(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    match text.split_once("\"auditID\":\"").and_then(|(_, rest)| rest.split_once('"')) {
        Some((token, _)) if *record == *line(token).trim_ascii_end() => token.to_owned(),
        _ => format!("?{}", text.chars().take(40).collect::<String>()),
    }
}

impl Bench {
    pub(crate) fn new(name: &str) -> Bench {
        let sim = Sim::default();
        let path = Path::new(DIRECTORY).join(name);
        let (intake, outlet) = intake(16 << 20);
        let config = Config::new(path.to_str().unwrap());
        let mut bench = Bench {
            writer: Arc::new(Mutex::new(Lumberjack::new(sim.clone(), &path))),
            sim,
            config,
            tail: None,
            intake,
            outlet,
            now: Duration::from_secs(10_000),
            wall_back: Duration::ZERO,
            store: BTreeMap::new(),
            saved: BTreeMap::new(),
            records: Vec::new(),
            notices: Vec::new(),
            texts: Vec::new(),
            rejects: Vec::new(),
            nuls: 0,
            refusals: 0,
            stalled: 0,
            held: Vec::new(),
            is_holding: false,
        };
        bench.sim.write(&Path::new(DIRECTORY).join("unrelated"), b"");
        bench.pass(Duration::ZERO);
        bench
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Lumberjack> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall_us(&self) -> i64 {
        EPOCH_US + (self.now - self.wall_back).as_micros() as i64
    }

    fn moment(&self) -> Moment {
        Moment { elapsed: self.now, wall_us: self.wall_us() }
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now += span;
        let now_us = self.wall_us();
        self.sim.set_now(now_us);
        self.writer().set_now(now_us);
    }

    /// Kills the source: what was not answered is forgotten.
    pub(crate) fn stop(&mut self) {
        self.tail = None;
        self.held.clear();
        while self.outlet.try_next().is_some() {}
    }

    pub(crate) fn start(&mut self) {
        let disk = Arc::new(self.sim.clone());
        let (config, store) = (self.config.clone(), self.store.clone());
        self.tail = Some(Tail::new(config, store, disk, self.intake.clone(), self.moment()));
    }

    /// One look and its answers. False when nothing more is to be expected.
    pub(crate) fn step(&mut self) -> bool {
        self.pass(STEP);
        if self.tail.is_none() {
            self.start();
        }
        let moment = self.moment();
        let step = self.tail.as_mut().unwrap().step(moment);
        self.sim.calm();
        assert_ne!(step, Step::Closed);
        let has_sent = self.answer();
        has_sent || step != Step::Idle
    }

    /// Steps until nothing happens for a while.
    pub(crate) fn read(&mut self) {
        let mut quiet = 0;
        for _ in 0..2_000 {
            quiet = if self.step() { 0 } else { quiet + 1 };
            if quiet >= 20 {
                return;
            }
        }
        panic!("there is always more to do");
    }

    fn answer(&mut self) -> bool {
        let mut has_sent = false;
        while let Some(batch) = self.outlet.try_next() {
            has_sent = true;
            self.held.push(batch);
        }
        if !self.is_holding {
            self.answer_held();
        }
        has_sent
    }

    /// Answers as the pipeline does: once it refused, all until the source begins again.
    fn answer_held(&mut self) {
        for batch in std::mem::take(&mut self.held) {
            let stalled = batch.stalled.clone().unwrap();
            let refused = if stalled.is_set() {
                self.stalled += 1;
                Some(Refused::Stalled)
            } else if self.refusals > 0 {
                self.refusals -= 1;
                stalled.set(true);
                Some(Refused::Full)
            } else {
                None
            };
            match refused {
                Some(refused) => drop(batch.done.send(Err(refused))),
                None => self.accept(batch),
            }
        }
    }

    fn accept(&mut self, batch: Batch) {
        let file = batch.label.rsplit('/').next().unwrap().to_owned();
        for record in batch.chunk.records() {
            self.records.push((file.clone(), record.line, record.bytes.to_vec()));
        }
        for found in &batch.chunk.rejects {
            self.rejects.push(found.reject.reason.name().to_owned());
            self.nuls +=
                if found.reject.reason.name() == "nul_run" { found.reject.length } else { 0 };
        }
        for checkpoint in batch.checkpoints {
            match checkpoint.value.is_empty() {
                true => drop(self.store.remove(&checkpoint.key)),
                false => drop(self.store.insert(checkpoint.key, checkpoint.value)),
            }
        }
        for notice in batch.notices {
            let bytes = notice.lost_bytes.map(|bytes| format!(":{bytes}")).unwrap_or_default();
            self.notices.push(format!("{}{bytes}", notice.kind.as_str()));
            self.texts.push(notice.text);
        }
        let _killed = batch.done.send(Ok(Receipt::default()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let (base, rest) = match name.split_once('.') {
            Some((base, rest)) if base.starts_with('@') => (base, format!(".{rest}")),
            _ => (name, String::new()),
        };
        match base.strip_prefix('@') {
            Some(number) => {
                let backup = &self.writer().backups[number.parse::<usize>().unwrap() - 1];
                PathBuf::from(format!("{}{rest}", backup.display()))
            }
            None => Path::new(DIRECTORY).join(name),
        }
    }

    /// Which file each record came from, for messages.
    pub(crate) fn origins(&self) -> String {
        let origins = self.records.iter();
        let origins =
            origins.map(|(file, line, record)| format!("{} {file}:{line}", token(record)));
        origins.collect::<Vec<String>>().join("\n")
    }

    pub(crate) fn tokens(&self) -> String {
        let tokens: Vec<String> = self
            .records
            .iter()
            .filter(|(_, _, record)| !record.is_empty())
            .map(|(_, _, record)| token(record))
            .collect();
        tokens.join(" ")
    }

    pub(crate) fn run(&mut self, script: &str) {
        for command in script.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if !self.run_source(&words) && !self.run_writer(&words) && !self.run_others(&words) {
                panic!("{command:?} is no command");
            }
        }
    }

    fn run_source(&mut self, words: &[&str]) -> bool {
        match *words {
            ["read"] => self.read(),
            ["step"] => drop(self.step()),
            ["start"] => self.start(),
            ["stop"] => self.stop(),
            ["hold"] => self.is_holding = true,
            ["answer"] => {
                self.is_holding = false;
                self.answer_held();
            }
            ["refuse", times] => self.refusals = times.parse().unwrap(),
            ["save"] => self.saved = self.store.clone(),
            ["restore"] => self.store = self.saved.clone(),
            ["forget"] => self.store.clear(),
            ["checkpoints", with] => self.store.values_mut().for_each(|value| {
                *value = match with {
                    "zero" => vec![0; value.len()],
                    "torn" => value[..value.len() / 2].to_vec(),
                    "newer" => String::from_utf8_lossy(value)
                        .replace("\"version\":1", "\"version\":2")
                        .into_bytes(),
                    _ => b"garbage".to_vec(),
                };
            }),
            ["from-end"] => self.config.start = Start::End,
            ["follow", path] => {
                self.config.path = Config::new(&format!("{DIRECTORY}/{path}")).path;
            }
            ["silent-after", seconds] => {
                self.config.silent_after = Some(Span::from_secs(seconds.parse().unwrap()));
            }
            ["pass", seconds] => self.pass(Duration::from_secs(seconds.parse().unwrap())),
            _ => return false,
        }
        true
    }

    fn run_writer(&mut self, words: &[&str]) -> bool {
        match *words {
            ["w", ref tokens @ ..] => {
                tokens.iter().for_each(|token| self.writer().write(&line(token)));
            }
            ["part", token] => self.writer().write(&line(token)[..30]),
            ["rest", token] => self.writer().write(&line(token)[30..]),
            ["nul", length] => self.writer().write(&vec![0; length.parse().unwrap()]),
            ["raw", ref words @ ..] => {
                let text = words.join(" ").replace("\\n", "\n").replace("\\r", "\r");
                self.writer().write(text.as_bytes());
            }
            ["long", letter, length] => {
                self.writer().write(letter.repeat(length.parse().unwrap()).as_bytes());
            }
            ["rotate"] => {
                self.pass(Duration::from_millis(3));
                self.writer().rotate();
            }
            ["rotate-full"] => self.writer().rotate_later(),
            ["rotate-at-once"] => self.writer().rotate(),
            ["reopen"] => self.writer().close(),
            ["mill"] => self.writer().mill(),
            ["mill1"] => drop(self.writer().mill_step()),
            ["race", operations, command] => {
                let (writer, is_rotation) = (Arc::clone(&self.writer), command == "rotate");
                self.sim.race(operations.parse().unwrap(), move || {
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    match is_rotation {
                        true => writer.rotate_later(),
                        false => drop(writer.mill_step()),
                    }
                });
            }
            ["compress"] => self.writer().is_compressing = true,
            ["keep", backups] => self.writer().backups_max = backups.parse().unwrap(),
            _ => return false,
        }
        true
    }

    fn run_others(&mut self, words: &[&str]) -> bool {
        match *words {
            ["put", name, ref tokens @ ..] => {
                let text: Vec<u8> = tokens.iter().flat_map(|token| line(token)).collect();
                self.sim.write(&self.path(name), &text);
            }
            ["add", name, ref tokens @ ..] => {
                let text: Vec<u8> = tokens.iter().flat_map(|token| line(token)).collect();
                self.sim.open_existing(&self.path(name)).unwrap().write_at(&text, None);
            }
            ["cp", from, to] => self.sim.copy(&self.path(from), &self.path(to)),
            ["mv", from, to] => self.sim.rename(&self.path(from), &self.path(to)),
            ["ln", from, to] => self.sim.link(&self.path(from), &self.path(to)),
            ["sym", target, path] => self.sim.symlink(&self.path(target), &self.path(path)),
            ["rm", name] => self.sim.remove(&self.path(name)),
            ["trunc", name, size] => {
                self.sim.truncate(&self.path(name), size.parse().unwrap());
            }
            ["gzip", name] => {
                let bytes = self.sim.contents(&self.path(name));
                self.sim.write(&packed(&self.path(name)), &gzip(&bytes));
            }
            ["zstd", name] => {
                let bytes = zstd::encode_all(&*self.sim.contents(&self.path(name)), 1).unwrap();
                self.sim.write(&self.path(&format!("{name}.zst")), &bytes);
            }
            ["cut", name, length] => {
                let size = self.sim.contents(&self.path(name)).len() as u64;
                self.sim.truncate(&self.path(name), size - length.parse::<u64>().unwrap());
            }
            ["append", name, length] => {
                let garbage = vec![b'?'; length.parse().unwrap()];
                self.sim.open_existing(&self.path(name)).unwrap().write_at(&garbage, None);
            }
            ["join", name, other] => {
                let bytes = self.sim.contents(&self.path(other));
                self.sim.open_existing(&self.path(name)).unwrap().write_at(&bytes, None);
            }
            ["hole", size] => {
                let file = self.sim.open_existing(&self.writer().path).unwrap();
                self.sim.truncate(&self.writer().path, 0);
                file.write_at(&line("hole"), Some(size.parse().unwrap()));
                self.sim.truncate(&self.writer().path, size.parse().unwrap());
                self.writer().close();
            }
            ["clock-back", seconds] => {
                self.wall_back += Duration::from_secs(seconds.parse().unwrap());
                self.pass(Duration::ZERO);
            }
            ["gunzip-by-hand", name, ref tokens @ ..] => {
                let text: Vec<u8> = tokens.iter().flat_map(|token| line(token)).collect();
                self.sim.write(&self.path(name), &gzip(&text));
            }
            ["spoil", name, at] => {
                let mut bytes = self.sim.contents(&self.path(name));
                let end = bytes.len();
                let at: usize = at.parse().unwrap();
                bytes[end - at..].fill(0xff);
                self.sim.write(&self.path(name), &bytes);
            }
            _ => return self.run_faults(words),
        }
        true
    }

    fn run_faults(&mut self, words: &[&str]) -> bool {
        match *words {
            ["device", number] => self.sim.set_device(number.parse().unwrap()),
            ["short-reads"] => self.sim.set_short(true),
            ["unmount"] => self.sim.set_unmounted(true),
            ["mount"] => self.sim.set_unmounted(false),
            ["fail", operation, name, errno, times] => {
                let operation = match operation {
                    "list" => Operation::List,
                    "open" => Operation::Open,
                    _ => Operation::Read,
                };
                let name =
                    if name == "*" { String::new() } else { self.path(name).display().to_string() };
                self.sim.fail(operation, &name, errno.parse().unwrap(), times.parse().unwrap());
            }
            ["heal"] => self.sim.heal(),
            _ => return false,
        }
        true
    }
}
