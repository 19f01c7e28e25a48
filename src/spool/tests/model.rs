//! Random scripts with a random fault, checked against the model.

use proptest::prelude::*;

use crate::spool::Options;
use crate::spool::disk::sim::{Fault, LOSSES, Sim};
use crate::spool::tests::script::{Action, Run, check};
use crate::spool::tests::small;

fn action() -> impl Strategy<Value = Action> {
    let batch = prop::collection::vec(0_usize..80, 1..4);
    let name = prop::sample::select(vec!["fast", "slow"]);
    prop_oneof![
        6 => prop::collection::vec(batch, 1..4).prop_map(Action::Append),
        3 => (name.clone(), 1_usize..8).prop_map(|(name, records)| Action::Ack(name, records)),
        2 => name.prop_map(Action::Store),
        1 => (0_u64..5).prop_map(Action::Snapshot),
        1 => Just(Action::Letter),
        1 => Just(Action::Unletter),
        1 => Just(Action::Reopen),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let errno = prop::sample::select(vec![5, 28]);
    prop_oneof![
        3 => Just(Fault::Die),
        1 => errno.clone().prop_map(Fault::Errno),
        1 => errno.prop_map(Fault::ErrnoClean),
        1 => Just(Fault::Short),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn any_script_with_faults_keeps_to_the_model(
        actions in prop::collection::vec(action(), 1..40),
        faults in prop::collection::vec((1_u64..200, fault()), 0..3),
        bytes_max in prop::sample::select(vec![1_000_u64, 1_500, 1 << 20]),
        loss in prop::sample::select(LOSSES.to_vec()),
    ) {
        let options = Options { bytes_max, ..small() };
        let sim = Sim::default();
        for (step, fault) in &faults {
            sim.fail_at(*step, *fault);
        }
        let mut run = Run::new(&sim, &options);
        let ended = run.act(&actions).err();
        let roomy = small();
        let what = format!("ended by {ended:?}, power lost");
        check(&sim.after_power_loss(loss.0, loss.1), &roomy, &run.model, &what);
        sim.restart();
        check(&sim, &roomy, &run.model, "restarted");
    }
}
