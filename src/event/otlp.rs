//! OTLP's values (`opentelemetry/proto/common/v1`, `AnyValue`) written as the JSON that they were
//! made of: collectors that parse a log's lines hand the members out as lists of keys and values.

use crate::event::value::{Type, Value};

/// Values in values beyond this are refused: each level is walked over once for every one above it.
const DEPTH_MAX: usize = 64;

/// What is still to be written.
enum Task<'a> {
    Value(Value<'a>, usize),
    /// What stands between, behind or before values.
    Mark(&'static str),
    Key(Value<'a>),
}

/// The object that a `KeyValueList` is (`{"values":[{"key":…,"value":…}]}`); `None` where it is
/// none, or nests deeper than [`DEPTH_MAX`].
pub(crate) fn to_json(list: &[u8]) -> Option<Vec<u8>> {
    let mut json = Vec::with_capacity(list.len());
    let mut tasks = Vec::new();
    object(Value::of(list), 0, &mut tasks)?;
    while let Some(task) = tasks.pop() {
        match task {
            Task::Mark(mark) => json.extend_from_slice(mark.as_bytes()),
            Task::Key(key) => json.extend_from_slice(key.raw()),
            Task::Value(value, depth) => any(value, depth, &mut tasks, &mut json)?,
        }
    }
    Some(json)
}

/// Members in reverse: the last task is done first.
fn object<'a>(list: Value<'a>, depth: usize, tasks: &mut Vec<Task<'a>>) -> Option<()> {
    let start = tasks.len();
    tasks.push(Task::Mark("{"));
    let values = list.member("values");
    for (index, pair) in values.iter().flat_map(Value::elements).enumerate() {
        tasks.extend((index > 0).then_some(Task::Mark(",")));
        tasks.push(Task::Key(pair.member("key").filter(|key| key.kind() == Type::String)?));
        tasks.push(Task::Mark(":"));
        tasks.push(pair.member("value").map_or(Task::Mark("null"), |it| Task::Value(it, depth)));
    }
    tasks.push(Task::Mark("}"));
    tasks[start..].reverse();
    Some(())
}

fn array<'a>(list: Value<'a>, depth: usize, tasks: &mut Vec<Task<'a>>) {
    let start = tasks.len();
    tasks.push(Task::Mark("["));
    let values = list.member("values");
    for (index, value) in values.iter().flat_map(Value::elements).enumerate() {
        tasks.extend((index > 0).then_some(Task::Mark(",")));
        tasks.push(Task::Value(value, depth));
    }
    tasks.push(Task::Mark("]"));
    tasks[start..].reverse();
}

/// One `AnyValue`: an object with one member that names the kind of value; none is null.
fn any<'a>(
    value: Value<'a>,
    depth: usize,
    tasks: &mut Vec<Task<'a>>,
    json: &mut Vec<u8>,
) -> Option<()> {
    let deeper = Some(depth + 1).filter(|depth| *depth <= DEPTH_MAX)?;
    let Some((kind, held)) = value.members().next() else {
        json.extend_from_slice(b"null");
        return Some(());
    };
    match &*kind {
        "kvlistValue" => object(held, deeper, tasks)?,
        "arrayValue" => array(held, deeper, tasks),
        // 64-bit numbers are strings in JSON (protobuf.dev/programming-guides/json).
        "intValue" => {
            let number: i64 = held.text()?.parse().ok()?;
            json.extend_from_slice(number.to_string().as_bytes());
        }
        "stringValue" | "boolValue" | "doubleValue" | "bytesValue" => {
            json.extend_from_slice(held.raw());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_keys_and_values_are_objects() {
        let deep = |depth: usize| {
            let open = r#"{"arrayValue":{"values":["#.repeat(depth);
            format!(r#"{{"values":[{{"key":"a","value":{open}{}}}]}}"#, "]}}".repeat(depth))
        };
        for (list, expected) in [
            (r#"{"values":[]}"#.to_owned(), Some("{}".to_owned())),
            ("{}".to_owned(), Some("{}".to_owned())),
            (
                r#"{"values":[{"key":"a\"","value":{"stringValue":"x\n"}},
                {"key":"b","value":{"intValue":"-5"}},{"key":"c","value":{"intValue":7}},
                {"key":"d","value":{"boolValue":true}},{"key":"e","value":{"doubleValue":1.5}},
                {"key":"f","value":{}},{"key":"g"},{"key":"h","value":{"arrayValue":{}}},
                {"key":"i","value":{"kvlistValue":{"values":[{"key":"j","value":
                {"arrayValue":{"values":[{"stringValue":"k"},{"intValue":"1"}]}}}]}}}]}"#
                    .to_owned(),
                Some(
                    r#"{"a\"":"x\n","b":-5,"c":7,"d":true,"e":1.5,"f":null,"g":null,"h":[],"i":{"j":["k",1]}}"#
                        .to_owned(),
                ),
            ),
            (deep(DEPTH_MAX), Some(format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64)))),
            (deep(DEPTH_MAX + 1), None),
            (r#"{"values":[{"key":1,"value":{}}]}"#.to_owned(), None),
            (r#"{"values":[{"key":"a","value":{"intValue":"1,2"}}]}"#.to_owned(), None),
            (r#"{"values":[{"key":"a","value":{"other":1}}]}"#.to_owned(), None),
        ] {
            let json = to_json(list.as_bytes()).map(|json| String::from_utf8(json).unwrap());
            assert_eq!(json, expected, "{list}");
        }
    }
}
