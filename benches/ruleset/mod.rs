//! The shipped rules, compiled.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::sync::Arc;

use kubewitness::engine::Engine;
use kubewitness::engine::field::Shape;
use kubewitness::rule::RuleSet;
use kubewitness::rule::shipped;

/// Every shipped rule, whatever its pack.
pub fn shipped_rules() -> RuleSet {
    let options = shipped::options().expect("the shipped lists can be read");
    shipped::load(&options).expect("the shipped rules are sound")
}

/// An engine for audit events.
pub fn compile(rules: RuleSet) -> Arc<Engine> {
    Arc::new(Engine::compile(rules, Shape::Audit, &[]).expect("the rules compile"))
}

/// The same rules in an engine that has learnt nothing yet, as every process begins.
pub fn afresh(engine: &Engine) -> Arc<Engine> {
    compile(engine.rules().clone())
}
