//! Crash by exhaustion: dies at every step of a script, and loses power in every way there.

use crate::spool::disk::sim::{Content, Fault, LOSSES, Names, Sim};
use crate::spool::tests::script::{Action, Run, check};
use crate::spool::tests::{Rig, small};
use crate::spool::{Error, Options};

fn script() -> Vec<Action> {
    use Action::*;
    vec![
        Append(vec![vec![10]]),
        Append(vec![vec![30, 0, 60]]),
        Letter,
        Append(vec![vec![20], vec![100, 5], vec![40]]),
        Ack("fast", 3),
        Append(vec![vec![150], vec![150], vec![150, 20]]),
        Store("fast"),
        Ack("slow", 2),
        Letter,
        Snapshot(4),
        Store("slow"),
        Append(vec![vec![200]]),
        Reopen,
        Append(vec![vec![70, 70]]),
        Snapshot(1),
        Unletter,
        Ack("slow", 9),
        Store("slow"),
        Ack("fast", 100),
        Store("fast"),
        Letter,
        Snapshot(0),
        Append(vec![vec![90], vec![300], vec![10; 5]]),
        Unletter,
        Unletter,
        Ack("slow", 100),
        Store("slow"),
        Snapshot(0),
        Append(vec![vec![1]]),
    ]
}

/// Runs the script with a fault at one step; returns `None` when the script ended before it.
fn run_with(step: u64, fault: Fault, options: &Options) -> Option<(Sim, Run, Result<(), Error>)> {
    let sim = Sim::default();
    sim.fail_at(step, fault);
    let mut run = Run::new(&sim, options);
    let done = run.act(&script());
    (sim.steps() >= step).then_some((sim, run, done))
}

/// Checks the disk as it is, and after every way of losing power.
fn check_everywhere(sim: &Sim, run: &Run, options: &Options, what: &str) {
    for (content, names) in LOSSES {
        let what = format!("{what}, power lost, left: {content:?} {names:?}");
        check(&sim.after_power_loss(content, names), options, &run.model, &what);
    }
    let restarted = sim.fork();
    restarted.restart();
    check(&restarted, options, &run.model, &format!("{what}, restarted"));
}

#[test]
fn the_script_itself_is_kept() {
    let sim = Sim::default();
    let mut run = Run::new(&sim, &small());
    run.act(&script()).unwrap();
    check_everywhere(&sim, &run, &small(), "no fault");
}

#[test]
fn dying_at_any_step_loses_nothing_acknowledged() {
    let mut step = 1;
    while let Some((sim, run, _)) = run_with(step, Fault::Die, &small()) {
        check_everywhere(&sim, &run, &small(), &format!("died at step {step}"));
        step += 1;
    }
    assert!(step > 100, "the script has only {step} steps");
}

#[test]
fn an_error_at_any_step_loses_nothing_acknowledged() {
    const ENOSPC: i32 = 28;
    const EIO: i32 = 5;
    let faults = [
        Fault::Errno(ENOSPC),
        Fault::ErrnoClean(ENOSPC),
        Fault::Errno(EIO),
        Fault::ErrnoClean(EIO),
        Fault::Short,
    ];
    for fault in faults {
        let mut step = 1;
        while let Some((sim, run, done)) = run_with(step, fault, &small()) {
            let what = format!("{fault:?} at step {step}, then {:?}", done.err());
            check_everywhere(&sim, &run, &small(), &what);
            step += 1;
        }
    }
}

#[test]
fn wanting_files_at_any_opening_loses_nothing_acknowledged() {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    for (denied, errno) in [(1, EMFILE), (1, ENFILE), (4, EMFILE)] {
        for first in 1.. {
            let sim = Sim::default();
            sim.deny_openings(first..first + denied, errno);
            let mut run = Run::new(&sim, &small());
            let done = run.act(&script());
            if sim.openings() < first {
                assert!(first > 50, "the script opens only {first} files");
                break;
            }
            let is_said = done.as_ref().err().is_none_or(Error::lacks_files);
            assert!(is_said, "errno {errno} at opening {first}: {:?}", done.err());
            let what = format!("{denied} times errno {errno} from opening {first}");
            check_everywhere(&sim, &run, &small(), &what);
        }
    }
}

#[test]
fn dying_again_while_recovering_loses_nothing() {
    let mut step = 1;
    while let Some((sim, run, _)) = run_with(step, Fault::Die, &small()) {
        step += 3;
        for (content, names) in [(Content::Holes(0), Names::All), (Content::All, Names::All)] {
            let left = sim.after_power_loss(content, names);
            for again in 1.. {
                let second = left.fork();
                second.fail_in(again, Fault::Die);
                let opened = Rig::open(&second, &small());
                if opened.is_ok() {
                    break;
                }
                assert!(second.is_dead());
                let what = format!("died at step {step} and {again} of recovery");
                check_everywhere(&second, &run, &small(), &what);
            }
        }
    }
}
