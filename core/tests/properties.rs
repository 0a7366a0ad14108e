//! What holds for every value and every list of operations.

use iii_stream_core::limits::OPS_MAX;
use iii_stream_core::{Json, OpError, Ops, OpsError, apply, apply_ops_json};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Few different keys, so that operations meet.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abc]",
        1 => Just(String::new()),
        1 => Just("a.b".to_owned()),
        1 => Just("__proto__".to_owned()),
        1 => Just("😀é".to_owned()),
        1 => Just("x".repeat(257)),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3..=3_i64).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |float| float.is_finite())
            .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn path() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => key().prop_map(Value::from),
        1 => Just(Value::Null),
        2 => prop::collection::vec(key(), 0..4).prop_map(|segments| json!(segments)),
    ]
}

/// Operations that can be read, though they may fail.
fn op() -> impl Strategy<Value = Value> {
    let by = prop_oneof![any::<i64>(), -2..=2_i64];
    prop_oneof![
        (key(), value())
            .prop_map(|(path, value)| json!({"type": "set", "path": path, "value": value})),
        (path(), value())
            .prop_map(|(path, value)| json!({"type": "merge", "path": path, "value": value})),
        (path(), value())
            .prop_map(|(path, value)| json!({"type": "append", "path": path, "value": value})),
        (key(), by.clone())
            .prop_map(|(path, by)| json!({"type": "increment", "path": path, "by": by})),
        (key(), by).prop_map(|(path, by)| json!({"type": "decrement", "path": path, "by": by})),
        key().prop_map(|path| json!({"type": "remove", "path": path})),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(op(), 0..12)
}

/// JSON text in forms that nobody writes: numbers, escapes and repeated keys that a writer would change, white space, and now
/// and then what cannot be read.
fn nasty_text() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec![
        "0",
        "-0",
        "7",
        "-1",
        "1.5",
        "1.50",
        "-0.0",
        "0.0",
        "1.0",
        "1e3",
        "1E400",
        "1e-7",
        "0.001",
        "0.0001",
        "100.0",
        "123456789012345678",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "0.1234567890123456",
        "9007199254740993.5",
        "12345678901234.5",
        "1234567890123456.0",
    ]);
    let number = prop_oneof![
        4 => number.prop_map(str::to_owned),
        2 => "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?",
        1 => any::<f64>().prop_map(|float| json!(float).to_string()),
    ];
    let string = prop::sample::select(vec![
        r#""""#,
        r#""a""#,
        r#""é😀""#,
        r#""\n\"\\""#,
        r#""\/""#,
        r#""\u00e9""#,
        r#""\u0001""#,
        r#""\ud800""#,
        r#""\b\f\r\t""#,
        r#""a:{}[],1.50""#,
    ]);
    let leaf = prop_oneof![
        number,
        string.prop_map(str::to_owned),
        prop::sample::select(vec!["null", "true", "false", "[]", "{}", "{ }"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|list| format!("[{}]", list.join(","))),
            nasty_object(inner),
        ]
    })
}

fn nasty_object(member: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        12 => "[a-h]".prop_map(|key| format!("\"{key}\"")),
        1 => prop::sample::select(vec![
            r#""""#, r#""\u0061""#, r#""\n""#, r#""__proto__""#, r#""a.b""#, r#""😀é""#, r#""$serde_json::private::RawValue""#,
        ]).prop_map(str::to_owned),
    ];
    let space = prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\n\t")];
    let member = (key, space, member)
        .prop_map(|(key, space, value)| format!("{space}{key}{space}:{space}{value}{space}"));
    prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

/// Reads the whole, applies, and writes the whole.
fn applied_to_the_whole(text: &str, ops: &Ops) -> Result<(String, Vec<OpError>), String> {
    let current = Json::from_text(text).map_err(|error| error.to_string())?;
    let applied = apply(Some(current.to_value()), ops);
    Ok((applied.value.to_string(), applied.errors))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Fields that operations do not look into may stay text: nobody can tell.
    #[test]
    fn applying_to_text_gives_what_applying_to_the_whole_gives(
        text in prop_oneof![9 => nasty_object(nasty_text()), 1 => nasty_text()], ops in ops(),
    ) {
        let ops_text = json!(ops).to_string();
        let ops = Ops::from_text(&ops_text)?;
        let one = apply_ops_json(Some(&text), &ops_text).map(|applied| (applied.value, applied.errors));
        let one = one.map_err(|error| match error {
            OpsError::Current { reason } => reason,
            other => panic!("{other}"),
        });
        prop_assert_eq!(one, applied_to_the_whole(&text, &ops), "{}", text);
    }
}

proptest! {
    /// Whatever JSON stands where operations should stand: an answer, never a panic, and no more errors than operations.
    #[test]
    fn any_json_is_answered(current in prop::option::of(value()), ops in value()) {
        let current = current.map(|value| value.to_string());
        if let Ok(applied) = apply_ops_json(current.as_deref(), &ops.to_string()) {
            prop_assert!(applied.errors.len() <= ops.as_array().map_or(0, Vec::len));
        }
    }

    /// Whatever text: an answer, never a panic.
    #[test]
    fn any_text_is_answered(current in ".{0,40}", ops in ".{0,40}") {
        let _ = apply_ops_json(Some(&current), &ops);
    }

    /// What came out can always go in again, and means the same.
    #[test]
    fn a_result_can_be_read_again(current in value(), ops in ops()) {
        let applied = apply_ops_json(Some(&current.to_string()), &json!(ops).to_string())?;
        let read = Json::from_text(&applied.value).map(|json| json.as_str().to_owned());
        prop_assert_eq!(read, Ok(applied.value));
    }

    /// Operations then operations give the same bytes as all of them together, and the same errors.
    #[test]
    fn ops_then_ops_are_ops_together(current in value(), first in ops(), second in ops()) {
        let together: Vec<_> = first.iter().chain(&second).cloned().collect();
        let text = |ops: &[Value]| json!(ops).to_string();
        let one = apply_ops_json(Some(&current.to_string()), &text(&together))?;
        let half = apply_ops_json(Some(&current.to_string()), &text(&first))?;
        let two = apply_ops_json(Some(&half.value), &text(&second))?;
        prop_assert_eq!(&one.value, &two.value);
        let codes: Vec<_> = one.errors.iter().map(|error| (error.op_index, error.code())).collect();
        let shifted = two.errors.iter().map(|error| (error.op_index + first.len(), error.code()));
        let halves: Vec<_> =
            half.errors.iter().map(|error| (error.op_index, error.code())).chain(shifted).collect();
        prop_assert_eq!(codes, halves);
    }

    /// Integers are exact from -2^63 to 2^64 - 1, and what leaves that range changes nothing.
    #[test]
    fn integers_are_exact(stored in prop_oneof![
        any::<i64>().prop_map(i128::from),
        any::<u64>().prop_map(i128::from),
        Just(i128::from(i64::MAX)), Just(i128::from(i64::MIN)), Just(i128::from(u64::MAX)), Just(0),
    ], by in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -1..=1_i64], adds in any::<bool>()) {
        let name = if adds { "increment" } else { "decrement" };
        let ops = json!([{"type": name, "path": "n", "by": by}]).to_string();
        let applied = apply_ops_json(Some(&format!(r#"{{"n":{stored}}}"#)), &ops)?;
        let sum = if adds { stored + i128::from(by) } else { stored - i128::from(by) };
        // A negative number never turns unsigned in one step: it would have to pass the signed range first.
        let range = if stored < 0 { i128::from(i64::MIN)..=i128::from(i64::MAX) } else { i128::from(i64::MIN)..=i128::from(u64::MAX) };
        let expected = if range.contains(&sum) { sum } else { stored };
        prop_assert_eq!(applied.value, format!(r#"{{"n":{expected}}}"#));
        prop_assert_eq!(applied.errors.is_empty(), range.contains(&sum));
    }

    /// Many removals from a large object leave its fields as one at a time would, in their order.
    #[test]
    fn many_removals_keep_the_order(
        fields in 60..140_usize,
        steps in prop::collection::vec((0..150_usize, any::<bool>()), 0..120),
    ) {
        let name = |index: usize| format!("k{index}");
        let mut model: Vec<(String, Value)> = (0..fields).map(|index| (name(index), json!(index))).collect();
        let current = Value::Object(model.iter().cloned().collect::<Map<_, _>>());
        let mut ops = Vec::new();
        for (step, (index, removes)) in steps.into_iter().enumerate() {
            let key = name(index);
            let place = model.iter().position(|(other, _)| *other == key);
            if removes {
                ops.push(json!({"type": "remove", "path": key}));
                if let Some(place) = place { model.remove(place); }
            } else {
                ops.push(json!({"type": "merge", "path": [], "value": {key.clone(): {"step": step}}}));
                ops.push(json!({"type": "append", "path": [key.clone(), "list"], "value": 1}));
                let value = json!({"step": step, "list": [1]});
                match place {
                    Some(place) => model[place].1 = value,
                    None => model.push((key, value)),
                }
            }
        }
        let applied = apply_ops_json(Some(&current.to_string()), &json!(ops).to_string())?;
        prop_assert!(applied.errors.is_empty());
        let expected = Value::Object(model.into_iter().collect());
        prop_assert_eq!(applied.value, expected.to_string());
    }
}

/// Work is in proportion to operations and value: thousands of removals from a huge object would take minutes if each
/// moved the whole of it.
#[test]
fn removals_from_a_huge_object_are_bounded() {
    let fields: Map<String, Value> = (0..100_000)
        .map(|index| (format!("k{index}"), json!(0)))
        .collect();
    let removals: Vec<_> = (0..OPS_MAX)
        .map(|index| json!({"type": "remove", "path": format!("k{index}")}))
        .collect();
    let ops = Ops::from_text(&json!(removals).to_string()).expect("operations");
    let start = std::time::Instant::now();
    let applied = apply(Some(Value::Object(fields)), &ops);
    assert_eq!(
        applied.value.as_object().map(Map::len),
        Some(100_000 - OPS_MAX)
    );
    assert!(start.elapsed().as_secs() < 10, "took {:?}", start.elapsed());
}
