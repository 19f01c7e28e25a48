//! Where the answers lead that are known at each node of a decision graph.
//!
//! An event passes a dozen nodes, and what that costs is what has to be fetched from memory. So
//! what the walk needs of a node stands on one cache line: what it asks, and the answers that came
//! first, which are mostly those that come.

use rustc_hash::FxHashMap;

use crate::engine::facet::{FacetId, PartSet};
use crate::engine::index::RuleIndex;

/// Answers that stand at the node itself: what is left of a cache line.
const NEAR: usize = 4;

/// An answer, and what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The next node.
    pub next: u32,
    /// The rules that now hold.
    pub matched: Box<[RuleIndex]>,
}

/// A step that is known.
#[derive(Clone, Copy, Debug)]
struct Known {
    next: u32,
    /// Where its rules stand in the list; 0 for none.
    matched: u32,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Signpost {
    /// The facet that the node asks for; no parts where it asks for something else.
    facet: (FacetId, PartSet),
    /// Answers, with a next node of [`u32::MAX`] for those that are not known yet.
    near: [(u32, Known); NEAR],
}

/// The signposts of a graph, one for each node that is known.
#[derive(Debug)]
pub struct Signposts {
    list: Vec<Signpost>,
    /// By node and answer, what has no place at the node.
    far: FxHashMap<(u32, u64), Known>,
    /// The rules of steps, none of them first.
    matched: Vec<Box<[RuleIndex]>>,
    steps: usize,
}

impl Default for Signposts {
    fn default() -> Signposts {
        let (list, far) = (Vec::new(), FxHashMap::default());
        Signposts { list, far, matched: vec![Box::default()], steps: 0 }
    }
}

impl Signposts {
    /// Sets up the one of a node, which asks for these parts of a facet, if for a facet.
    pub fn set(&mut self, node: u32, facet: Option<(FacetId, PartSet)>) {
        let nowhere = Known { next: u32::MAX, matched: 0 };
        let blank = Signpost { facet: Default::default(), near: [(0, nowhere); NEAR] };
        let node = node as usize;
        if self.list.len() <= node {
            self.list.resize(node + 1, blank);
        }
        self.list[node].facet = facet.unwrap_or_default();
    }

    /// How many steps are known.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The facet that a node asks for, if it asks for one.
    #[inline]
    pub fn facet(&self, node: u32) -> Option<(FacetId, PartSet)> {
        let facet = self.list[node as usize].facet;
        (facet.1 != PartSet::default()).then_some(facet)
    }

    /// Where an answer leads, and the rules that hold with it; `None` when it came never before.
    #[inline]
    pub fn follow(&self, node: u32, answer: u64) -> Option<(u32, &[RuleIndex])> {
        let near = &self.list[node as usize].near;
        let is_it =
            |(known, step): &&(u32, Known)| u64::from(*known) == answer && step.next != u32::MAX;
        let step = match near.iter().find(is_it) {
            Some((_, step)) => step,
            None => self.far.get(&(node, answer))?,
        };
        Some((step.next, &self.matched[step.matched as usize]))
    }

    /// Remembers a step that was not known.
    pub fn learn(&mut self, node: u32, answer: u64, step: &Step) {
        let matched = if step.matched.is_empty() { 0 } else { self.matched.len() as u32 };
        if matched > 0 {
            self.matched.push(step.matched.clone());
        }
        let known = Known { next: step.next, matched };
        self.steps += 1;
        let near = &mut self.list[node as usize].near;
        let free = near.iter_mut().find(|(_, step)| step.next == u32::MAX);
        match (free, u32::try_from(answer)) {
            (Some(free), Ok(answer)) => *free = (answer, known),
            _ => {
                self.far.insert((node, answer), known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signpost_is_one_cache_line() {
        assert_eq!(size_of::<Signpost>(), 64);
    }

    #[test]
    fn leads_where_it_was_told() {
        let mut signposts = Signposts::default();
        signposts.set(1, None);
        signposts.set(0, Some(Default::default()));
        let answers: Vec<u64> = (0..40).map(|bit| 1 << bit).chain([0, u64::MAX]).collect();
        let step = |node: u32, answer: u64| {
            let matched = (0..answer.count_ones() % 3).map(|rule| rule + node).collect();
            Step { next: node * 1_000 + answer.trailing_zeros(), matched }
        };
        for node in 0..2 {
            for answer in &answers {
                assert!(signposts.follow(node, *answer).is_none(), "{node} {answer}");
                signposts.learn(node, *answer, &step(node, *answer));
            }
        }
        for node in 0..2 {
            for answer in &answers {
                let Step { next, matched } = step(node, *answer);
                assert_eq!(signposts.follow(node, *answer), Some((next, &*matched)));
            }
            assert!(signposts.follow(node, 3).is_none());
        }
        assert_eq!(signposts.steps(), answers.len() * 2);
        assert!(signposts.facet(0).is_none() && signposts.facet(1).is_none());
    }
}
