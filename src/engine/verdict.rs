//! Whether the matches in a window satisfy a correlation, and which of them are the evidence.

use crate::engine::window::{Mark, last_of_each_value};
use crate::rule::{
    Aggregate, Comparison, Correlation, CorrelationKind, ORDERED_RULES_MAX, RuleExpression,
    TemporalCondition, Threshold,
};

/// Whether the answer is known only when the window is over: something must not have happened.
pub fn waits(rule: &Correlation) -> bool {
    match &rule.kind {
        CorrelationKind::Temporal(TemporalCondition::Expression(expression))
        | CorrelationKind::TemporalOrdered(TemporalCondition::Expression(expression)) => {
            has_not(expression)
        }
        _ => false,
    }
}

/// Whether every referenced rule must have matched: a window without one of them need not be looked
/// at.
pub fn needs_all(rule: &Correlation) -> bool {
    matches!(
        rule.kind,
        CorrelationKind::Temporal(TemporalCondition::All)
            | CorrelationKind::TemporalOrdered(TemporalCondition::All)
    )
}

fn has_not(expression: &RuleExpression) -> bool {
    match expression {
        RuleExpression::Rule(_) => false,
        RuleExpression::Not(_) => true,
        RuleExpression::And(parts) | RuleExpression::Or(parts) => parts.iter().any(has_not),
    }
}

/// An aggregate is of so many times the matches that other windows keep.
const AGGREGATED: usize = 8;

/// What is asked of the number of matches or values; nothing where that is not the question.
fn counted(rule: &Correlation) -> &[Threshold] {
    match &rule.kind {
        CorrelationKind::EventCount(thresholds)
        | CorrelationKind::ValueCount { thresholds, .. } => thresholds,
        _ => &[],
    }
}

/// How many matches a window holds, for the condition to be told: one more than a threshold, and of
/// an aggregate several times as many as else, for all of them are part of it.
pub fn marks_max(rule: &Correlation, marks_max: usize) -> usize {
    if let CorrelationKind::Aggregate { .. } = rule.kind {
        return marks_max.saturating_mul(AGGREGATED);
    }
    let largest = counted(rule).iter().map(|threshold| threshold.than).fold(0.0, f64::max);
    // A cast saturates; a threshold that large is refused by nobody and reached by nobody.
    (largest.ceil() as usize).saturating_add(1).max(marks_max)
}

/// Whether it asks which of its rules matched.
pub fn is_temporal(rule: &Correlation) -> bool {
    matches!(rule.kind, CorrelationKind::Temporal(_) | CorrelationKind::TemporalOrdered(_))
}

/// Whether its rules have to match in order.
pub fn is_ordered(rule: &Correlation) -> bool {
    matches!(rule.kind, CorrelationKind::TemporalOrdered(_))
}

/// With fewer matches than this, of whatever time, the condition holds for no window.
pub fn marks_min(rule: &Correlation) -> usize {
    let least = |threshold: &Threshold| match threshold.op {
        Comparison::Gt | Comparison::Gte | Comparison::Eq => threshold.than,
        Comparison::Lt | Comparison::Lte | Comparison::Neq => 0.0,
    };
    // A match is there, or nobody would ask. A cast saturates.
    counted(rule).iter().map(least).fold(1.0, f64::max).ceil() as usize
}

/// Whether so many matches can satisfy the condition: spares a look at each of them.
pub fn is_possible(rule: &Correlation, count: usize) -> bool {
    match &rule.kind {
        CorrelationKind::EventCount(thresholds) => hold(thresholds, count as f64),
        // There are no more values than matches.
        CorrelationKind::ValueCount { .. } => count >= marks_min(rule),
        _ => true,
    }
}

/// The evidence (indexes into `marks`, which are in order of time) when the condition holds.
/// `around` are the rules that matched within one time span before or after, for `not`.
pub fn satisfies<E>(rule: &Correlation, marks: &[&Mark<E>], around: &[u32]) -> Option<Vec<usize>> {
    let all = || (0..marks.len()).collect();
    match &rule.kind {
        CorrelationKind::EventCount(thresholds) => hold(thresholds, marks.len() as f64).then(all),
        CorrelationKind::ValueCount { thresholds, .. } => {
            let values = last_of_each_value(marks);
            hold(thresholds, values.len() as f64).then_some(values)
        }
        CorrelationKind::Temporal(condition) => temporal(rule, condition, marks, around),
        CorrelationKind::TemporalOrdered(condition) => ordered(rule, condition, marks, around),
        CorrelationKind::Aggregate { function, thresholds, .. } => {
            hold(thresholds, aggregate(*function, marks)?).then(all)
        }
        CorrelationKind::NewTerms(_) => None,
    }
}

/// Whether matches can be told that no later window needs, see [`needed`].
pub fn can_prune(rule: &Correlation) -> bool {
    let is_plain = matches!(
        rule.kind,
        CorrelationKind::Temporal(_) | CorrelationKind::TemporalOrdered(TemporalCondition::All)
    );
    is_plain && !waits(rule)
}

/// Which of a window's matches, of which all later ones are younger, can be evidence in any window
/// that ends later: ascending. What [`satisfies`] makes of these and later matches is what it makes
/// of all: it takes the last match of each rule, or of each rule before the next one's.
pub fn needed<E>(rule: &Correlation, old: &[&Mark<E>]) -> Vec<usize> {
    let rules = rule.rules.len();
    let mut needed: Vec<usize> = match &rule.kind {
        CorrelationKind::TemporalOrdered(TemporalCondition::All) => {
            (1..=rules).filter_map(|first| chain(rule, 0..first, old)).flatten().collect()
        }
        CorrelationKind::TemporalOrdered(_) => {
            // Whatever choice of rules is asked for: its latest chain, which is a choice itself.
            let has = |one: usize| old.iter().any(|mark| mark.member as usize == one);
            choices(rules, has)
                .filter_map(|choice| chain(rule, chosen(rules, choice), old))
                .flatten()
                .collect()
        }
        _ => last_of_each(rules, old).into_iter().flatten().collect(),
    };
    needed.sort_unstable();
    needed.dedup();
    needed
}

fn hold(thresholds: &[Threshold], value: f64) -> bool {
    thresholds.iter().all(|threshold| threshold.op.holds(value, threshold.than))
}

/// The last match of each rule of the correlation, where there is one.
fn last_of_each<E>(rules: usize, marks: &[&Mark<E>]) -> Vec<Option<usize>> {
    let mut last = vec![None; rules];
    for (index, mark) in marks.iter().enumerate() {
        last[mark.member as usize] = Some(index);
    }
    last
}

fn temporal<E>(
    rule: &Correlation,
    condition: &TemporalCondition,
    marks: &[&Mark<E>],
    around: &[u32],
) -> Option<Vec<usize>> {
    let last = last_of_each(rule.rules.len(), marks);
    let found = last.iter().flatten().count();
    let holds = match condition {
        TemporalCondition::All => found == last.len(),
        TemporalCondition::Count(thresholds) => hold(thresholds, found as f64),
        TemporalCondition::Expression(expression) => {
            let here = |rule: usize| last.get(rule).is_some_and(Option::is_some);
            let near = |rule: usize| here(rule) || around.iter().any(|id| *id as usize == rule);
            evaluate(expression, &here, &near)
        }
    };
    let mut evidence: Vec<usize> = last.into_iter().flatten().collect();
    evidence.sort_unstable();
    holds.then_some(evidence)
}

/// Evaluates over the rules that matched; under a `not` over those that matched anywhere near.
fn evaluate(
    expression: &RuleExpression,
    here: &dyn Fn(usize) -> bool,
    near: &dyn Fn(usize) -> bool,
) -> bool {
    match expression {
        RuleExpression::Rule(rule) => here(*rule),
        RuleExpression::And(parts) => parts.iter().all(|part| evaluate(part, here, near)),
        RuleExpression::Or(parts) => parts.iter().any(|part| evaluate(part, here, near)),
        RuleExpression::Not(part) => !evaluate(part, near, here),
    }
}

/// The matches of these rules in this order, the latest such chain: from the end backwards, always
/// the last match of the wanted rule before what was taken. Two rules may match one event; matches
/// of equal time count as in order. A rule that is listed twice must match twice, at two times.
fn chain<E>(
    rule: &Correlation,
    rules: impl DoubleEndedIterator<Item = usize>,
    marks: &[&Mark<E>],
) -> Option<Vec<usize>> {
    let mut evidence = Vec::new();
    let mut before = marks.len();
    for wanted in rules.rev() {
        let limit = evidence.last().map(|index: &usize| marks[*index].time_us);
        let id = |member: usize| rule.rules.get(member);
        let again = evidence.iter().rfind(|index| id(marks[**index].member as usize) == id(wanted));
        let again = again.map_or(i64::MAX, |index| marks[*index].time_us);
        let found = (0..marks.len())
            .rev()
            .filter(|index| *index < before || limit == Some(marks[*index].time_us))
            .filter(|index| marks[*index].time_us < again)
            .find(|index| marks[*index].member as usize == wanted && !evidence.contains(index))?;
        before = found;
        evidence.push(found);
    }
    evidence.reverse();
    Some(evidence)
}

/// The rules that matched in the order written, as the condition asks; of several choices of them
/// that satisfy it one of the largest.
fn ordered<E>(
    rule: &Correlation,
    condition: &TemporalCondition,
    marks: &[&Mark<E>],
    around: &[u32],
) -> Option<Vec<usize>> {
    let rules = rule.rules.len();
    let has = |one: usize| marks.iter().any(|mark| mark.member as usize == one);
    let chain_of = |choice: u32| chain(rule, chosen(rules, choice), marks);
    match condition {
        TemporalCondition::All => chain(rule, 0..rules, marks),
        TemporalCondition::Count(thresholds) => {
            // How many matched in order is how many of them did at most.
            let evidence = choices(rules, has).find_map(chain_of)?;
            hold(thresholds, evidence.len() as f64).then_some(evidence)
        }
        TemporalCondition::Expression(expression) => choices(rules, has).find_map(|choice| {
            let near = |one: usize| has(one) || around.contains(&(one as u32));
            evaluate(expression, &|one| is_in(choice, one), &near).then(|| chain_of(choice))?
        }),
    }
}

fn is_in(choice: u32, one: usize) -> bool {
    choice >> one & 1 == 1
}

/// The rules of a choice, ascending.
fn chosen(rules: usize, choice: u32) -> impl DoubleEndedIterator<Item = usize> {
    (0..rules).filter(move |one| is_in(choice, *one))
}

/// Every choice of the rules that matched, a bit for each, the largest first. The reader refuses
/// more than [`ORDERED_RULES_MAX`].
fn choices(rules: usize, has: impl Fn(usize) -> bool) -> impl Iterator<Item = u32> {
    let met: u32 =
        (0..rules.min(ORDERED_RULES_MAX)).filter(|one| has(*one)).map(|one| 1 << one).sum();
    let mut choices: Vec<u32> = (1..=met).filter(|choice| choice & !met == 0).collect();
    choices.sort_by_key(|choice| std::cmp::Reverse(choice.count_ones()));
    choices.into_iter()
}

/// The aggregate over the numbers of the window; `None` when there are none.
fn aggregate<E>(function: Aggregate, marks: &[&Mark<E>]) -> Option<f64> {
    let sum = || marks.iter().map(|mark| mark.number()).sum::<f64>();
    match function {
        _ if marks.is_empty() => None,
        Aggregate::Sum => Some(sum()),
        Aggregate::Avg => Some(sum() / marks.len() as f64),
        Aggregate::Percentile(percentile) => {
            let mut numbers: Vec<f64> = marks.iter().map(|mark| mark.number()).collect();
            let count = numbers.len();
            let mut ranked = |rank: usize| *numbers.select_nth_unstable_by(rank, f64::total_cmp).1;
            if percentile == 50.0 && count.is_multiple_of(2) {
                // The median of an even number is the mean of the two in the middle.
                return Some((ranked(count / 2 - 1) + ranked(count / 2)) / 2.0);
            }
            let rank = (percentile * count as f64 / 100.0).ceil().max(1.0) as usize - 1;
            Some(ranked(rank.min(count - 1)))
        }
    }
}
