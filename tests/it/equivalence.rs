//! The engine and the reference agree on generated conditions and generated events.

use kubewitness::engine::Engine;
use kubewitness::engine::field::Shape;
use kubewitness::engine::values::Subject;
use kubewitness::event::Event;
use kubewitness::rule::load::{Options, load_texts};
use kubewitness::rule::number::Number;
use kubewitness::rule::{
    Body, Comparison, Condition, Matcher, Pattern, Piece, Place, Quantifier, RuleSet, Test,
    TimePart,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::reference;

/// Keys and paths are few, so that rules and events meet.
const KEYS: [&str; 8] = ["a", "b", "c", "a.b", "b.c", "a.b.c", "x/y", "ä"];
const PATHS: [&str; 12] =
    ["a", "b", "c", "a.b", "b.c", "a.b.c", "a.x/y", "x/y", "ä", "a\\.b", "b.a", "c.b.a"];

/// Texts, as they stand between the quotes of JSON.
const TEXTS: [&str; 30] = [
    "",
    "a",
    "A",
    "ab",
    "aB",
    "abc",
    "xabcx",
    "Ä",
    "ä",
    "ς",
    "Σ",
    "σ",
    "\\u0041b",
    "a\\nb",
    "a\\\\b",
    "a*b",
    "\\ud83d\\ude00",
    "10.1.2.3",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "2026-08-01T22:15:30.123456Z",
    "2026-01-01T01:00:00+02:00",
    "5",
    " 5",
    "5.50",
    "true",
    "İ",
    "xİb",
    "b\\n",
    "5.0",
];

const NUMBERS: [&str; 8] =
    ["5", "5.5", "0", "-3", "1000", "9007199254740992", "9007199254740993", "1e3"];
const TOKENS: [&str; 16] = [
    "null",
    "true",
    "false",
    "0",
    "5",
    "-3",
    "5.5",
    "5.0",
    "1e3",
    "9007199254740993",
    "9007199254740992",
    "-0",
    "-0.0",
    "5.50",
    "9007199254740993.0",
    "1e400",
];

/// What patterns are made of.
const LITERALS: [&str; 14] =
    ["a", "B", "ab", "abc", "Ä", "Σ", "İ", "5", ".0", "10.", "*", "\n", "😀", ""];

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => select(&TEXTS[..]).prop_map(|text| format!("\"{text}\"")),
        2 => select(&TOKENS[..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            2 => object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::btree_map(select(&KEYS[..]), value, 0..5).prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let piece = prop_oneof![
        3 => select(&LITERALS[..]).prop_map(|text| Piece::Literal(text.to_owned())),
        2 => Just(Piece::AnyRun),
        1 => Just(Piece::AnyOne),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| {
        let mut pattern = Pattern { pieces: Vec::new() };
        pieces.into_iter().for_each(|piece| pattern.push(piece));
        pattern
    })
}

fn comparison() -> impl Strategy<Value = Comparison> {
    select(
        &[
            Comparison::Eq,
            Comparison::Neq,
            Comparison::Gt,
            Comparison::Gte,
            Comparison::Lt,
            Comparison::Lte,
        ][..],
    )
}

fn place() -> impl Strategy<Value = Place> {
    select(&[Place::Whole, Place::Prefix, Place::Suffix, Place::Inside][..])
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let parts = select(
        &[
            TimePart::Minute,
            TimePart::Hour,
            TimePart::Day,
            TimePart::Week,
            TimePart::Month,
            TimePart::Year,
        ][..],
    );
    prop_oneof![
        6 => (pattern(), any::<bool>())
            .prop_map(|(pattern, cased)| Matcher::Text { pattern, cased }),
        1 => select(&["^a", "b$", "(?m)^b$", "(?i)AB", "a.b", "(?s)a.b", "5", "[^\\s\\S]", ""][..])
            .prop_map(|source| Matcher::Regex { source: source.into() }),
        1 => select(&["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "0.0.0.0/0", "::/0"][..])
            .prop_map(|net| Matcher::Cidr(net.parse().unwrap())),
        2 => (comparison(), select(&NUMBERS[..]))
            .prop_map(|(op, than)| Matcher::Compare { op, than: Number::parse(than).unwrap() }),
        1 => Just(Matcher::Null),
        1 => any::<bool>().prop_map(Matcher::Exists),
        1 => (select(&PATHS[..]), place(), any::<bool>()).prop_map(|(other, place, cased)| {
            Matcher::FieldRef { other: other.into(), place, cased }
        }),
        1 => (parts, comparison(), select(&[0, 1, 15, 22, 31, 8, 2026][..]))
            .prop_map(|(part, op, than)| Matcher::TimePart { part, op, than }),
    ]
}

fn quantifier() -> impl Strategy<Value = Quantifier> {
    prop_oneof![
        Just(Quantifier::Any),
        Just(Quantifier::All),
        Just(Quantifier::AllOrEmpty),
        Just(Quantifier::None),
        (0..3usize).prop_map(Quantifier::Index),
    ]
}

/// Joins tests; `test` makes the leaves.
fn tree(test: impl Strategy<Value = Condition> + 'static) -> impl Strategy<Value = Condition> {
    test.boxed().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::And),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::Or),
            inner.clone().prop_map(|inner| Condition::Not(Box::new(inner))),
            inner.prop_map(|inner| Condition::Named("selection".into(), Box::new(inner))),
        ]
    })
}

fn test_of(field: &'static str, matcher: Matcher) -> Condition {
    Condition::Test(Test { field: Some(field.into()), matcher })
}

fn condition() -> impl Strategy<Value = Condition> {
    let plain = (select(&PATHS[..]), matcher()).prop_map(|(field, m)| test_of(field, m));
    let keyword = (pattern(), any::<bool>()).prop_map(|(pattern, cased)| {
        let pattern = pattern.with_any_before().with_any_after();
        Condition::Test(Test { field: None, matcher: Matcher::Text { pattern, cased } })
    });
    let relative = || {
        let field = prop_oneof![Just("."), select(&PATHS[..])];
        (field, matcher()).prop_map(|(field, matcher)| test_of(field, matcher))
    };
    let elements = |inner: BoxedStrategy<Condition>| {
        (select(&PATHS[..]), quantifier(), inner).prop_map(|(field, quantifier, inner)| {
            test_of(field, Matcher::Elements { quantifier, inner: Box::new(inner) })
        })
    };
    let nested = prop_oneof![3 => relative(), 1 => elements(tree(relative()).boxed())];
    tree(prop_oneof![
        8 => plain,
        1 => keyword,
        2 => elements(tree(nested).boxed()),
    ])
}

/// Fields of audit events: plain ones, and such as are looked for in a part that may be missing.
const AUDIT_PATHS: [&str; 9] = [
    "verb",
    "user.username",
    "objectRef.name",
    "objectRef.namespace",
    "requestObject.a",
    "requestObject.b.c",
    "responseObject.a",
    "annotations.x/y",
    "user.extra.k",
];

fn audit_condition() -> impl Strategy<Value = Condition> {
    let test = (select(&AUDIT_PATHS[..]), matcher(), select(&AUDIT_PATHS[..]));
    tree(test.prop_map(|(field, matcher, other)| match matcher {
        Matcher::FieldRef { place, cased, .. } => {
            test_of(field, Matcher::FieldRef { other: other.into(), place, cased })
        }
        matcher => test_of(field, matcher),
    }))
}

fn audit_event() -> impl Strategy<Value = String> {
    let part = |key: &'static str| {
        let value = prop::option::of(object(json()));
        value.prop_map(move |value| value.map(|value| format!(",\"{key}\":{value}")))
    };
    let text = || select(&["a", "ab", "5", "get"][..]);
    let extra = prop::option::of(json());
    let bodies = (part("requestObject"), part("responseObject"), part("annotations"));
    (text(), text(), text(), extra, bodies).prop_map(|(verb, user, name, extra, bodies)| {
        let extra = extra.map(|value| format!(r#","extra":{{"k":[{value}]}}"#));
        let parts = [bodies.0, bodies.1, bodies.2].map(Option::unwrap_or_default).concat();
        format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"i",
            "stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}"{}}},
            "objectRef":{{"name":"{name}"}}{parts}}}"#,
            extra.unwrap_or_default(),
        )
    })
}

/// A rule set of these conditions, in their order.
fn rules(conditions: &[Condition]) -> RuleSet {
    let text: String = (0..conditions.len())
        .map(|number| {
            let logsource = "logsource: {product: any}\ndetection: {s: {a: b}, condition: s}";
            format!("---\ntitle: t\nid: rule-{number:04}\n{logsource}\n")
        })
        .collect();
    let mut rules = load_texts(&[("rules.yml".into(), text)], &Options::default()).unwrap();
    for (rule, condition) in rules.rules.iter_mut().zip(conditions) {
        rule.body = Body::Detection(condition.clone());
    }
    rules
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_the_reference(
        conditions in prop::collection::vec(condition(), 1..8),
        events in prop::collection::vec(object(json()), 1..12),
    ) {
        let engine = Engine::compile(rules(&conditions), Shape::Json, &[]).unwrap();
        let mut scratch = engine.scratch();
        for event in &events {
            let expected: Vec<u32> = (0..conditions.len() as u32)
                .filter(|number| reference::holds(&conditions[*number as usize], event))
                .collect();
            let subject = Subject::Json(event.as_bytes());
            prop_assert_eq!(engine.evaluate(subject, &mut scratch), &expected[..], "{}", event);
        }
    }

    #[test]
    fn what_was_learnt_of_events_makes_no_difference(
        conditions in prop::collection::vec(audit_condition(), 1..8),
        events in prop::collection::vec(audit_event(), 1..12),
    ) {
        let engine = Engine::compile(rules(&conditions), Shape::Audit, &[]).unwrap();
        let (mut scratch, mut plain) = (engine.scratch(), engine.scratch());
        for event in events.iter().chain(&events) {
            let parsed = Event::parse(event.as_bytes()).unwrap();
            let expected = engine.evaluate_all(Subject::Audit(&parsed), &mut plain);
            let found = engine.evaluate(Subject::Audit(&parsed), &mut scratch);
            prop_assert_eq!(found, &expected[..], "{}", event);
        }
    }
}
