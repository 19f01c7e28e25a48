//! The figures that the project promises, in one table: rates by CPU time, their ratios within this
//! run, and peak memory. benches/README.md says what each means.

mod extraction;
mod replaying;
mod ruleset;
mod synthetic;
mod traffic;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cpu_time::ProcessTime;
use kubewitness::alert::time::EventTime;
use kubewitness::engine::Engine;
use kubewitness::engine::values::Subject;
use kubewitness::event::decode::{Decoded, Scratch, decode};
use kubewitness::rule::RuleSet;
use kubewitness::rule::pack::{Pack, select};

use crate::replaying::{Replayed, peak_bytes, replay};
use crate::synthetic::{Way, synthetic};
use crate::traffic::{Traffic, each_line};

/// How often everything is measured, in turns, so that a machine whose speed drifts slows all.
const ROUNDS: usize = 5;

/// Bytes of input for the many rules.
const MANY_RULES_BYTES: u64 = 16_000_000;

fn main() {
    let traffic = Traffic::open();
    let rules = ruleset::shipped_rules();
    header(&traffic, &rules);
    let before = ProcessTime::now();
    let engine = ruleset::compile(rules.clone());
    println!("rules compiled in {:.0} CPU ms\n", before.elapsed().as_secs_f64() * 1e3);
    // First, while nothing else was in memory.
    let first = replay(&engine, traffic.path(), 2);
    let peak = peak_bytes();
    let standard = ruleset::compile(select(rules.clone(), Pack::Standard));
    let rounds: Vec<Round> =
        (0..ROUNDS).map(|_| Round::run(&traffic, &engine, &standard)).collect();
    table(&rounds, traffic.bytes(), first);
    ratios(&rounds);
    println!("{:<44}{:>8.0} MB", "peak memory of a replay on two threads", peak as f64 / 1e6);
    many_rules(&traffic, &rules);
    println!("\nload average at the end: {}", load());
}

/// One measurement of everything.
struct Round {
    lines: Duration,
    extract: Duration,
    decode: Duration,
    matching: Duration,
    one: Replayed,
    two: Replayed,
    standard: Replayed,
}

impl Round {
    fn run(traffic: &Traffic, engine: &Arc<Engine>, standard: &Arc<Engine>) -> Round {
        let matching = ruleset::afresh(engine);
        let replay_of = |engine: &Arc<Engine>, threads| {
            replay(&ruleset::afresh(engine), traffic.path(), threads)
        };
        Round {
            lines: cpu(|| each_line(traffic.file(), |line| _ = black_box(line))),
            extract: cpu(|| {
                each_line(traffic.file(), |line| {
                    assert!(extraction::extract(line), "not JSON: {}", line.escape_ascii());
                });
            }),
            decode: cpu(|| {
                let mut scratch = Scratch::default();
                each_line(traffic.file(), |line| {
                    decode(line, &mut scratch, &mut |decoded| _ = black_box(decoded));
                });
            }),
            matching: cpu(|| {
                _ = decode_and_match(&matching, |take| each_line(traffic.file(), take));
            }),
            one: replay_of(engine, 1),
            two: replay_of(engine, 2),
            standard: replay_of(standard, 1),
        }
    }
}

/// Decodes and matches every line that `lines` hands over; how many detections matched.
fn decode_and_match(engine: &Engine, lines: impl FnOnce(&mut dyn FnMut(&[u8]))) -> u64 {
    let mut decoder = Scratch::default();
    let mut scratch = engine.scratch();
    let mut matches = 0;
    lines(&mut |line| {
        decode(line, &mut decoder, &mut |decoded| {
            if let Decoded::Event { event, .. } = decoded {
                matches += engine.evaluate(Subject::Audit(&event), &mut scratch).len() as u64;
            }
        });
    });
    matches
}

fn cpu(work: impl FnOnce()) -> Duration {
    let started = ProcessTime::now();
    work();
    started.elapsed()
}

fn header(traffic: &Traffic, rules: &RuleSet) {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    println!("date       {}", EventTime(kubewitness::clock::now_us()));
    println!("machine    {cores} x {}", model.trim_start_matches(['\t', ' ', ':']));
    println!("load       {}", load());
    println!("input      {}, {:.1} MB", traffic.name(), traffic.bytes() as f64 / 1e6);
    println!("rules      {}, every pack", rules.rules.len());
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn table(rounds: &[Round], bytes: u64, first: Replayed) {
    let events = first.events as f64;
    let per_event = |count: u64| count as f64 / events;
    let (matches, alerts) = (per_event(first.matches), per_event(first.alerts));
    println!("{} events, {matches:.2} matches and {alerts:.3} alerts an event\n", first.events);
    println!("{:<44}{:>8}{:>9}{:>11}{:>9}", "", "CPU s", "MB/s", "events/s", "wall s");
    let row = |name: &str, cpu: fn(&Round) -> Duration, wall: Option<fn(&Round) -> Duration>| {
        let cpu = median(rounds.iter().map(|round| cpu(round).as_secs_f64()));
        let wall = wall.map(|wall| median(rounds.iter().map(|round| wall(round).as_secs_f64())));
        let wall = wall.map_or(String::new(), |wall| format!("{wall:.2}"));
        let (bytes, events) = (bytes as f64 / 1e6 / cpu, events / cpu);
        println!("{name:<44}{cpu:>8.3}{bytes:>9.0}{events:>11.0}{wall:>9}");
    };
    row("read lines", |round| round.lines, None);
    row("extract twenty fields (SIMD reader)", |round| round.extract, None);
    row("decode", |round| round.decode, None);
    row("decode + match", |round| round.matching, None);
    row("replay, 1 thread", |round| round.one.cpu, Some(|round| round.one.wall));
    row("  of it behind the last byte, on one thread", |round| round.one.alone, None);
    row("replay, 2 threads", |round| round.two.cpu, Some(|round| round.two.wall));
    row("replay, 1 thread, standard pack", |round| round.standard.cpu, None);
    println!();
}

fn ratios(rounds: &[Round]) {
    let ratio = |name: &str, wanted: &str, of: fn(&Round) -> f64| {
        let middle = median(rounds.iter().map(of));
        let each: Vec<f64> = rounds.iter().map(of).collect();
        let least = each.iter().copied().fold(f64::INFINITY, f64::min);
        let most = each.iter().copied().fold(0.0, f64::max);
        println!("{name:<44}{middle:>8.2}  [{least:.2}-{most:.2}]  {wanted}");
    };
    println!("{:<44}{:>8}  of {} rounds", "ratios within a round", "median", rounds.len());
    ratio("decode / extraction", "", |r| quotient(r.extract, r.decode));
    ratio("decode + match / extraction", "at least 0.6", |r| quotient(r.extract, r.matching));
    ratio("replay / extraction", "at least 0.6", |r| quotient(r.extract, r.one.cpu));
    ratio("2 threads / 1 thread, by the wall", "at least 1.7 on two idle cores", |r| {
        quotient(r.one.wall, r.two.wall)
    });
}

/// How the rate of what took `right` compares with the rate of what took `left`.
fn quotient(left: Duration, right: Duration) -> f64 {
    left.as_secs_f64() / right.as_secs_f64()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// What ten thousand rules cost over a hundred, decoding included.
fn many_rules(traffic: &Traffic, shipped: &RuleSet) {
    let input = traffic.head(MANY_RULES_BYTES);
    println!();
    for way in [Way::Distinct, Way::Live] {
        let few = ruleset::compile(synthetic(shipped, 1, way));
        let many = ruleset::compile(synthetic(shipped, 100, way));
        let run = |engine: &Engine| decode_and_match(engine, |take| each_line(&input[..], take));
        let (few_matches, many_matches) = (run(&few), run(&many));
        let ratio = median((0..ROUNDS).map(|_| {
            let (few, many) = (ruleset::afresh(&few), ruleset::afresh(&many));
            let few = cpu(|| _ = run(&few));
            quotient(cpu(|| _ = run(&many)), few)
        }));
        let name = format!("10,000 {way:?} rules / 100").to_lowercase();
        println!(
            "{name:<44}{ratio:>8.2}  at most 1.5; {many_matches} matches, of 100 {few_matches}"
        );
    }
}
