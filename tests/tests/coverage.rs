//! The vectors are whole: every code of the core has one, and every limit has one at it and one past it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iii_stream_core::{OP_ERROR_CODES, limits};
use iii_stream_tests::vector::{self, Applied};
use serde_json::Value;
use serde_json::value::RawValue;

/// How a limit is recognised in the vectors.
struct Limit {
    /// Its constant in the core.
    name: &'static str,
    max: usize,
    /// What the limit counts in one op of an applied vector; `None` where the op is not subject to it.
    measure: fn(&Value) -> Option<usize>,
    /// How the code of an op that exceeds it ends.
    code: &'static str,
}

/// The limits that one op can exceed.
const OP_LIMITS: [Limit; 5] = [
    Limit {
        name: "PATH_SEGMENTS_MAX",
        max: limits::PATH_SEGMENTS_MAX,
        measure: |op| Some(op.get("path")?.as_array()?.len()),
        code: ".path.too_deep",
    },
    Limit {
        name: "PATH_SEGMENT_BYTES_MAX",
        max: limits::PATH_SEGMENT_BYTES_MAX,
        measure: longest_segment_bytes,
        code: ".path.segment_too_long",
    },
    Limit {
        name: "MERGE_VALUE_KEYS_MAX",
        max: limits::MERGE_VALUE_KEYS_MAX,
        measure: |op| Some(merge_value(op)?.as_object()?.len()),
        code: "merge.value.too_many_keys",
    },
    Limit {
        name: "MERGE_VALUE_DEPTH_MAX",
        max: limits::MERGE_VALUE_DEPTH_MAX,
        measure: |op| merge_value(op).map(depth),
        code: "merge.value.too_deep",
    },
    Limit {
        name: "VALUE_DEPTH_MAX",
        max: limits::VALUE_DEPTH_MAX,
        measure: result_depth,
        code: ".value.too_deep",
    },
];

/// Constants of the core's `limits` that no update can meet, or that are no single number.
const NOT_FOR_OPS: [&str; 9] = [
    "NAME_BYTES_MAX",
    "TTL_MS_MAX",
    "MUTATION_CLIENT_BYTES_MAX",
    "PROTO_KEYS",
    "GRANTS_MAX",
    "GRANT_PATTERNS_BYTES_MAX",
    "JOIN_CLIENTS_MAX",
    "REPLICA_PENDING_MAX",
    "SUBSCRIPTION_ID_BYTES_MAX",
];

fn merge_value(op: &Value) -> Option<&Value> {
    (op["type"] == "merge").then(|| op.get("value")).flatten()
}

fn segments(op: &Value) -> Vec<&str> {
    match op.get("path") {
        Some(Value::String(segment)) if !segment.is_empty() => vec![segment],
        Some(Value::Array(segments)) => segments.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn longest_segment_bytes(op: &Value) -> Option<usize> {
    segments(op).into_iter().map(str::len).max()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(members) => 1 + members.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// How deep an item nests that holds what this op puts there.
fn result_depth(op: &Value) -> Option<usize> {
    let above = match op["type"].as_str()? {
        "set" => segments(op).len(),
        "append" => segments(op).len() + 1,
        _ => return None,
    };
    Some(above + op.get("value").map_or(0, depth))
}

fn ops_of(text: &RawValue) -> Vec<Value> {
    serde_json::from_str(text.get()).unwrap_or_default()
}

/// The code an op of a vector must fail with.
fn code_at(vector: &Applied, op_index: usize) -> Option<&str> {
    let error = vector
        .errors
        .iter()
        .find(|error| error.op_index == op_index)?;
    Some(&error.code)
}

#[test]
fn every_code_has_a_vector() {
    let seen: BTreeSet<String> = vector::all_applied()
        .into_iter()
        .flat_map(|vector| vector.errors)
        .map(|error| error.code)
        .collect();
    let listed: BTreeSet<String> = OP_ERROR_CODES.iter().map(|&code| code.to_owned()).collect();
    assert_eq!(listed.len(), OP_ERROR_CODES.len(), "a code is listed twice");
    assert_eq!(
        seen, listed,
        "left: codes in vectors, right: codes of the core"
    );
}

#[test]
fn every_refusal_has_a_vector() {
    let seen: BTreeSet<String> = vector::all_refused()
        .into_iter()
        .filter(|vector| !vector.document_accepts)
        .map(|vector| vector.code)
        .collect();
    let known = ["deserialization_error", "too_many_ops"];
    assert_eq!(seen, known.map(str::to_owned).into());
}

#[test]
fn every_limit_of_an_op_has_vectors_at_it_and_past_it() {
    let vectors = vector::all_applied();
    for limit in &OP_LIMITS {
        let (mut at, mut past) = (0, 0);
        for vector in &vectors {
            for (op_index, op) in ops_of(&vector.ops).iter().enumerate() {
                let exceeds =
                    code_at(vector, op_index).is_some_and(|code| code.ends_with(limit.code));
                match (limit.measure)(op) {
                    Some(size) if size == limit.max && code_at(vector, op_index).is_none() => {
                        at += 1;
                    }
                    Some(size) if size == limit.max + 1 && exceeds => past += 1,
                    _ => {}
                }
            }
        }
        assert_ne!(at, 0, "no vector is allowed at {}", limit.name);
        assert_ne!(past, 0, "no vector is refused one past {}", limit.name);
    }
}

#[test]
fn the_number_of_ops_has_vectors_at_its_limit_and_past_it() {
    assert!(
        vector::all_applied()
            .iter()
            .any(|vector| ops_of(&vector.ops).len() == limits::OPS_MAX && vector.errors.is_empty())
    );
    assert!(vector::all_refused().iter().any(|vector| {
        ops_of(&vector.ops).len() == limits::OPS_MAX + 1 && vector.code == "too_many_ops"
    }));
}

#[test]
fn the_range_of_by_has_vectors_at_both_ends_and_past_them() {
    let applied = vector::all_applied();
    for edge in [i64::MIN, i64::MAX] {
        assert!(
            applied
                .iter()
                .flat_map(|vector| ops_of(&vector.ops))
                .any(|op| op.get("by").and_then(Value::as_i64) == Some(edge)),
            "no vector counts by {edge}"
        );
    }
    let refused = vector::all_refused();
    for past in ["9223372036854775808", "-9223372036854775809"] {
        let by = format!(r#""by":{past}}}"#);
        assert!(
            refused
                .iter()
                .any(|vector| vector.ops.get().contains(&by) && !vector.document_accepts),
            "no vector is refused for counting by {past}"
        );
    }
}

#[test]
fn every_limit_of_the_core_is_covered_here() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src/limits.rs");
    let text = fs::read_to_string(&file).expect("the core states its limits in one file");
    let stated: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .collect();
    let covered: BTreeSet<_> = OP_LIMITS
        .iter()
        .map(|limit| limit.name)
        .chain(["OPS_MAX"])
        .chain(NOT_FOR_OPS)
        .collect();
    assert_eq!(
        stated, covered,
        "left: limits of the core, right: limits that this test knows"
    );
}
