//! The compiled engine finds what trying every shipped rule finds.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kubewitness::engine::field::Shape;
use kubewitness::engine::graph::Graph;
use kubewitness::engine::learnt::{Bounds, Learnt};
use kubewitness::engine::values::Subject;
use kubewitness::engine::{Engine, Scratch};
use kubewitness::event::Event;
use kubewitness::event::decode::{self, Decoded};
use kubewitness::rule::{Body, Rule, RuleSet, shipped};

fn rules() -> RuleSet {
    shipped::load(&shipped::options().unwrap()).unwrap()
}

/// The detections several times over, each copy with an id of its own: more than
/// [`RULES_MANY`](kubewitness::engine::index::RULES_MANY).
fn many_rules() -> RuleSet {
    let is_detection = |rule: &&Rule| matches!(rule.body, Body::Detection(_));
    let shipped = rules();
    let copies = (0..3).flat_map(|copy| {
        let detections = shipped.rules.iter().filter(is_detection).cloned();
        detections.map(move |rule| Rule { id: format!("{}-{copy}", rule.id).into(), ..rule })
    });
    let mut rules: Vec<Rule> = copies.collect();
    rules.sort_by(|left, right| left.id.cmp(&right.id));
    assert!(rules.len() > kubewitness::engine::index::RULES_MANY);
    RuleSet { rules }
}

/// The compiled engine finds what trying every rule finds.
fn check(engine: &Engine, scratch: &mut Scratch, slow: &mut Scratch, event: &Event<'_>) -> usize {
    let subject = Subject::Audit(event);
    let fast = engine.evaluate(subject, scratch).to_vec();
    let all = engine.evaluate_all(subject, slow);
    let text = String::from_utf8_lossy(event.raw());
    assert_eq!(fast, all, "{text}");
    all.len()
}

fn case_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            case_files(&path, files);
        } else if path.to_string_lossy().ends_with(".events.jsonl") {
            files.push(path);
        }
    }
}

/// Every shipped rule on every event of the sample and of every rule's cases, whole and cut: index,
/// classes and memos never change what matches.
#[test]
fn the_index_hides_no_match() {
    compare(rules(), 1, vec![Graph::default()]);
}

#[test]
fn the_index_of_many_rules_hides_no_match() {
    compare(many_rules(), 7, vec![Graph::default()]);
}

/// A graph that is full after a few events is cleared and then rests, so that the classes decide.
#[test]
fn a_full_graph_hides_no_match() {
    compare(rules(), 7, vec![Graph::with_bounds(NARROW)]);
}

const NARROW: Bounds = Bounds { open_max: 5_000, steps_max: 500 };

/// Graphs that learn together use what the others learnt, and begin again when one of them clears
/// it under the others.
#[test]
fn graphs_that_learn_together_hide_no_match() {
    for bounds in [Bounds::default(), NARROW] {
        let learnt = Arc::new(Mutex::new(Learnt::new(bounds)));
        let graphs = (0..3).map(|_| Graph::sharing(Arc::clone(&learnt)));
        compare(rules(), 7, graphs.collect());
        let cleared = learnt.lock().unwrap().epoch();
        assert_eq!(cleared > 0, bounds == NARROW, "cleared {cleared} times");
    }
}

/// Compares on every `stride`-th event; graphs take turns.
fn compare(rules: RuleSet, stride: usize, graphs: Vec<Graph>) {
    let engine = Engine::compile(rules, Shape::Audit, &[]).unwrap();
    let mut scratches: Vec<_> =
        graphs.into_iter().map(|graph| engine.scratch_with(graph)).collect();
    let mut slow = engine.scratch();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let sample = std::fs::File::open("tests/corpus/sample.log.gz").unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(sample).read_to_string(&mut text).unwrap();
    lines.extend(text.lines().map(|line| line.as_bytes().to_vec()));
    let mut files = Vec::new();
    case_files(Path::new("detections"), &mut files);
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let events = case.get("event").into_iter();
            let events =
                events.chain(case.get("events").and_then(|e| e.as_array()).into_iter().flatten());
            lines.extend(events.map(|event| event.to_string().into_bytes()));
            lines.extend(case.get("input").and_then(|i| i.as_str()).map(|i| i.as_bytes().to_vec()));
        }
    }
    let (mut events, mut matches) = (0, 0);
    for line in lines.iter().step_by(stride) {
        let mut decoder = decode::Scratch::default();
        decode::decode(line, &mut decoder, &mut |decoded| {
            if let Decoded::Event { event, .. } = decoded {
                events += 1;
                let turn = events % scratches.len();
                let scratch = &mut scratches[turn];
                matches += check(&engine, scratch, &mut slow, &event);
                let half = &event.raw()[..event.raw().len() / 2];
                if let Some(cut) = Event::salvage(half) {
                    check(&engine, scratch, &mut slow, &cut);
                }
            }
        });
    }
    assert!(events > 3_000 / stride && matches > events, "{matches} matches on {events} events");
}
