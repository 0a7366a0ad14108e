//! The golden vectors of the update operations, natively: the quick half of what the `tests` crate runs everywhere.

use iii_stream_core::apply_ops_json;
use serde_json::{Map, Value};

fn check(line: &str) -> Result<(), String> {
    let case: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |field: &str| case.get(field).map(Value::to_string);
    let name = text("name").unwrap_or_default();
    let applied = apply_ops_json(text("old").as_deref(), &text("ops").unwrap_or_default())
        .map_err(|error| format!("{name}: {error}"))?;
    let value: Value = serde_json::from_str(&applied.value).map_err(|error| error.to_string())?;
    let codes: Vec<_> = applied
        .errors
        .iter()
        .map(|error| serde_json::json!({"op_index": error.op_index, "code": error.code()}))
        .collect();
    if Some(&value) == case.get("new") && Some(&Value::Array(codes.clone())) == case.get("errors") {
        return Ok(());
    }
    Err(format!(
        "{name}: got {value} {codes:?}, expected {:?} {:?}",
        case.get("new"),
        case.get("errors")
    ))
}

#[test]
fn every_vector() {
    let lines: Vec<_> = include_str!("../../tests/vectors/update-ops.jsonl")
        .lines()
        .collect();
    let failures: Vec<_> = lines.iter().filter_map(|line| check(line).err()).collect();
    assert_eq!(lines.len(), 1_287);
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        lines.len(),
        failures.join("\n")
    );
}

#[test]
fn every_rejected_vector() {
    for line in include_str!("../../tests/vectors/update-ops-rejected.jsonl").lines() {
        let case: Map<String, Value> = serde_json::from_str(line).expect("a vector is an object");
        let ops = case.get("ops").map(Value::to_string).unwrap_or_default();
        let outcome = apply_ops_json(Some(r#"{"a":5}"#), &ops);
        // The product document takes an absent path as the root, where the engine refuses the request.
        let accepts = case.get("document_accepts") == Some(&Value::Bool(true));
        assert_eq!(outcome.is_ok(), accepts, "{line}");
        if let Err(error) = outcome {
            assert_eq!(
                Some(error.code()),
                case.get("code").and_then(Value::as_str),
                "{line}"
            );
        }
    }
}
