//! The gate: a few fields with few values that nearly every rule asks for, as one bit mask.
//!
//! For verb, stage, kind of actor, outcome and subresource, a rule's mask says under which values
//! its condition can hold at all, found by evaluating the condition in three-valued logic with
//! everything else unknown. An event has one bit a field.

use crate::engine::field::FieldId;
use crate::engine::predicate::Check;
use crate::engine::program::{Expression, Program};
use crate::engine::values::Item;
use crate::event::derived::{Outcome, actor_kind};
use crate::event::{Event, Slot};
use crate::rule::Quantifier;
use crate::rule::taxonomy::STAGES;

/// A field of the gate: its name, the values that have a bit, and whether absence has one. One more
/// bit stands for every other value.
struct GateField {
    name: &'static str,
    values: &'static [&'static str],
}

const VERBS: [&str; 11] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "post",
    "put",
    "head",
];
const KINDS: [&str; 5] = ["user", "service_account", "node", "anonymous", "system"];
const OUTCOMES: [&str; 4] = ["success", "denied", "failed", "unknown"];
const SUBRESOURCES: [&str; 12] = [
    "status",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "token",
    "log",
    "scale",
    "binding",
    "eviction",
    "approval",
    "ephemeralcontainers",
];

const GATE: [GateField; 5] = [
    GateField { name: "verb", values: &VERBS },
    GateField { name: "stage", values: &STAGES },
    GateField { name: "actor.kind", values: &KINDS },
    GateField { name: "request.outcome", values: &OUTCOMES },
    GateField { name: "objectRef.subresource", values: &SUBRESOURCES },
];

/// Where a gate field's bits begin; behind its values come "absent" and "another value".
const fn gate_offset(field: usize) -> usize {
    let mut offset = 0;
    let mut index = 0;
    while index < field {
        offset += GATE[index].values.len() + 2;
        index += 1;
    }
    offset
}

const _: () = assert!(gate_offset(GATE.len()) <= 64, "the gate fits 64 bits");

/// The bit of the stage that only rules which name it match.
pub const REQUEST_RECEIVED: u64 = 1 << gate_offset(1);

/// What is known of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'k> {
    /// It has this value.
    Value(&'k str),
    /// It is absent.
    Absent,
    /// It has a value that no rule names as a whole.
    Other,
    /// Nothing.
    Unknown,
}

/// Whether an expression can hold, and whether it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possible {
    /// It can hold.
    pub holds: bool,
    /// It can fail.
    pub fails: bool,
}

/// Evaluates an expression in three-valued logic.
pub fn possible<'k>(
    program: &Program,
    expression: &Expression,
    known: &dyn Fn(FieldId) -> Known<'k>,
) -> Possible {
    let part = |part: &Expression| possible(program, part, known);
    match expression {
        Expression::And(parts) => {
            let mut all = Possible { holds: true, fails: false };
            for one in parts.iter().map(part) {
                all = Possible { holds: all.holds && one.holds, fails: all.fails || one.fails };
                if !all.holds {
                    break;
                }
            }
            all
        }
        Expression::Or(parts) => {
            let mut any = Possible { holds: false, fails: true };
            for one in parts.iter().map(part) {
                any = Possible { holds: any.holds || one.holds, fails: any.fails && one.fails };
                if !any.fails {
                    break;
                }
            }
            any
        }
        Expression::Not(inner) => {
            let Possible { holds, fails } = part(inner);
            Possible { holds: fails, fails: holds }
        }
        Expression::Named(_, inner) => part(inner),
        Expression::Predicate(id) => {
            let predicate = program.predicate(*id);
            decided(&predicate.check, known(predicate.field))
        }
    }
}

/// What a check can say of a field of which this is known.
pub fn decided(check: &Check, known: Known<'_>) -> Possible {
    const BOTH: Possible = Possible { holds: true, fails: true };
    let holds = match (check, known) {
        (_, Known::Unknown) => return BOTH,
        (Check::Elements(quantifier, _), Known::Absent) => {
            matches!(quantifier, Quantifier::None | Quantifier::AllOrEmpty)
        }
        (Check::FieldRef(..) | Check::Elements(..), known) if known != Known::Absent => {
            return BOTH;
        }
        (Check::Null, known) => known == Known::Absent,
        (Check::Exists(wanted), known) => (known != Known::Absent) == *wanted,
        (_, Known::Absent) => false,
        (check, Known::Value(value)) => check.holds_on(&Item::Made(value)),
        (Check::Text { place: crate::rule::Place::Whole, .. }, Known::Other) => false,
        (_, Known::Other) => return BOTH,
    };
    Possible { holds, fails: !holds }
}

/// The gate of an expression: the bits of all values under which it can hold.
pub fn gate(program: &Program, expression: &Expression) -> u64 {
    let mut mask = 0;
    for (number, field) in GATE.iter().enumerate() {
        let offset = gate_offset(number);
        let can_hold = |value: Known<'_>| {
            let known = |id: FieldId| {
                if &**program.fields().name(id) == field.name { value } else { Known::Unknown }
            };
            possible(program, expression, &known).holds
        };
        for (bit, value) in field.values.iter().enumerate() {
            mask |= u64::from(can_hold(Known::Value(value))) << (offset + bit);
        }
        mask |= u64::from(can_hold(Known::Absent)) << (offset + field.values.len());
        mask |= 1 << (offset + field.values.len() + 1);
    }
    mask
}

/// The bits of the gate's field of this name.
pub fn mask_of(name: &str) -> u64 {
    let number = GATE.iter().position(|field| field.name == name);
    number.map_or(0, |number| {
        let width = GATE[number].values.len() + 2;
        ((1 << width) - 1) << gate_offset(number)
    })
}

/// What an event's bits say of the gate's fields, by their names.
pub fn values_of(bits: u64) -> impl Iterator<Item = (&'static str, Known<'static>)> {
    GATE.iter().enumerate().map(move |(number, field)| {
        let own = bits >> gate_offset(number);
        let bit = own.trailing_zeros() as usize;
        let known = match field.values.get(bit) {
            Some(value) => Known::Value(value),
            None if bit == field.values.len() => Known::Absent,
            None => Known::Unknown,
        };
        (field.name, known)
    })
}

/// The event's bit in each gate field.
#[inline]
pub fn bits_of(event: &Event<'_>) -> u64 {
    let slot_bit = |number: usize, slot: Slot| {
        let values = GATE[number].values;
        let bit = match event.slot(slot) {
            None => values.len(),
            Some(value) => {
                let known = value
                    .plain()
                    .and_then(|text| values.iter().position(|known| known.as_bytes() == text));
                known.unwrap_or(values.len() + 1)
            }
        };
        1u64 << (gate_offset(number) + bit)
    };
    let kind = 1u64 << (gate_offset(2) + actor_kind(event) as usize);
    let outcome = 1u64 << (gate_offset(3) + Outcome::of(event.code()) as usize);
    slot_bit(0, Slot::Verb)
        | slot_bit(1, Slot::Stage)
        | kind
        | outcome
        | slot_bit(4, Slot::Subresource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::actor::ActorKind;

    #[test]
    fn bits_follow_the_order_of_the_enums() {
        for (kind, word) in [
            (ActorKind::User, "user"),
            (ActorKind::ServiceAccount, "service_account"),
            (ActorKind::Node, "node"),
            (ActorKind::Anonymous, "anonymous"),
            (ActorKind::System, "system"),
        ] {
            assert_eq!(KINDS[kind as usize], word);
            assert_eq!(kind.as_str(), word);
        }
        for outcome in [Outcome::Success, Outcome::Denied, Outcome::Failed, Outcome::Unknown] {
            assert_eq!(OUTCOMES[outcome as usize], outcome.as_str());
        }
    }
}
