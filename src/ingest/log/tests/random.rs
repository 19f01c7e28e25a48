//! Any order of writing, rotating, compressing, deleting, looking, refusing and killing: every line
//! becomes durable at least once and in order, or is told to be lost.

use std::collections::BTreeSet;

use crate::ingest::log::tests::bench::{Bench, line, token};

/// How many orders are tried.
const SEEDS: u64 = 1_000;

/// How the files are rotated in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rotation {
    Lumberjack,
    /// As logrotate's `create`, and the writer starts anew.
    Rename,
    /// As logrotate's `copytruncate`, for a writer that appends.
    Copy,
    /// The same, for one that does not.
    CopyWithHole,
}

struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

struct Run {
    seed: u64,
    random: Random,
    rotation: Rotation,
    bench: Bench,
    written: u64,
    /// The highest number that logrotate gave.
    copies: u64,
    part: Option<u64>,
    /// What was written before anything was durable can vanish, and nobody knows.
    unknown: u64,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let all = [Rotation::Lumberjack, Rotation::Rename, Rotation::Copy, Rotation::CopyWithHole];
        let rotation = all[random.below(4) as usize];
        let bench = Bench::new("audit.log");
        bench.writer().is_compressing = random.below(2) == 0;
        bench.writer().backups_max = random.below(4) as usize;
        let log = vec![format!("{rotation:?}")];
        Run { seed, random, rotation, bench, written: 0, copies: 0, part: None, unknown: 0, log }
    }

    fn act(&mut self) {
        let script = match self.random.below(22) {
            0..=5 => self.write(),
            6..=8 => self.rotate(),
            9..=10 => "mill1".to_owned(),
            11 if self.rotation == Rotation::Lumberjack => "mill".to_owned(),
            11..=15 => "step".to_owned(),
            16 => "stop".to_owned(),
            17 => format!("refuse {}", 1 + self.random.below(3)),
            18 => "hold".to_owned(),
            19..=20 => self.race(),
            _ => "answer".to_owned(),
        };
        if self.bench.store.is_empty() {
            self.unknown = self.written;
        }
        self.bench.run(&script);
        self.log.push(script);
    }

    fn write(&mut self) -> String {
        let mut script = match self.part.take() {
            Some(number) => format!("rest n{number};"),
            None => String::new(),
        };
        for _ in 0..self.random.below(4) {
            script += &format!("w n{};", self.written);
            self.written += 1;
        }
        if self.random.below(8) == 0 && script.contains("w ") {
            script += &format!("part n{};", self.written);
            self.part = Some(self.written);
            self.written += 1;
        }
        script
    }

    fn rotate(&mut self) -> String {
        // What is written by one call is never cut in two by a rotation.
        let mut script = match self.part.take() {
            Some(number) => format!("rest n{number};"),
            None => String::new(),
        };
        if self.written == 0 {
            return script;
        }
        if self.rotation == Rotation::Lumberjack {
            return script + "rotate-full";
        }
        for number in (1..=self.copies).rev() {
            script += &format!("mv audit.log.{number} audit.log.{};", number + 1);
        }
        self.copies += 1;
        script += match self.rotation {
            Rotation::Rename => "reopen; mv audit.log audit.log.1; put audit.log",
            Rotation::Copy => "reopen; cp audit.log audit.log.1; trunc audit.log 0",
            _ => "cp audit.log audit.log.1; trunc audit.log 0",
        };
        script
    }

    /// The writer's process goes on while the source looks. Where it also deletes, a file can come
    /// and go between two uses of the disk, and nobody knows.
    fn race(&mut self) -> String {
        let keeps_all = self.bench.writer().backups_max == 0;
        if self.rotation != Rotation::Lumberjack || self.part.is_some() || !keeps_all {
            return "step".to_owned();
        }
        let operations = 1 + self.random.below(24);
        let mut script = format!("race {operations} rotate;");
        for _ in 0..self.random.below(10) {
            script += &format!("race {} mill1;", operations + 1 + self.random.below(12));
        }
        script + "step"
    }

    fn check(mut self) {
        let end = match self.part.take() {
            Some(number) => format!("rest n{number}; answer; refuse 0; read; pass 70; read"),
            None => "answer; refuse 0; read; pass 70; read".to_owned(),
        };
        self.bench.run(&end);
        let (seed, log) = (self.seed, self.log.join("; "));
        let mut seen = BTreeSet::new();
        let mut last = None;
        for (_, _, record) in self.bench.records.iter().filter(|(_, _, found)| !found.is_empty()) {
            let token = token(record);
            let number = token.strip_prefix('n').and_then(|number| number.parse::<u64>().ok());
            let number = number.unwrap_or_else(|| panic!("seed {seed}: invented {token}\n{log}"));
            if seen.insert(number) {
                assert!(
                    last < Some(number),
                    "seed {seed}: {number} behind {last:?}\n{log}\n{}",
                    self.bench.origins()
                );
                last = Some(number);
            }
        }
        let missing: Vec<u64> = (0..self.written).filter(|number| !seen.contains(number)).collect();
        let texts = &self.bench.texts;
        assert!(
            missing.iter().all(|number| *number < self.unknown) || !texts.is_empty(),
            "seed {seed}: lost {missing:?} in silence\n{log}\n{}",
            self.bench.origins()
        );
        let told = self.bench.notices.iter().filter_map(|notice| notice.split_once(':'));
        let told: u64 = told.map(|(_, bytes)| bytes.parse::<u64>().unwrap()).sum();
        let lost: usize = missing.iter().map(|number| line(&format!("n{number}")).len()).sum();
        assert!(
            told <= lost as u64,
            "seed {seed}: {told} bytes told, {lost} lost: {missing:?} {texts:?}\n{log}"
        );
        if self.rotation != Rotation::Lumberjack || self.bench.writer().backups_max == 0 {
            assert!(texts.is_empty(), "seed {seed}: nothing was deleted: {texts:?}\n{log}");
        }
    }
}

#[test]
fn nothing_is_lost_in_silence() {
    for seed in first()..SEEDS {
        let mut run = Run::new(seed);
        for _ in 0..60 {
            run.act();
        }
        run.check();
    }
}

/// Where to begin, to look at one order more closely.
fn first() -> u64 {
    std::env::var("KUBEWITNESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}
