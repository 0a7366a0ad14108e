//! Every vector, through `applyOpsJson`.

use iii_stream_wasm::apply_ops_json;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test;

const APPLIED: [&str; 2] = [
    include_str!("../../../tests/vectors/update-ops.jsonl"),
    include_str!("../../../tests/vectors/update-ops-added.jsonl"),
];

const REFUSED: [&str; 2] = [
    include_str!("../../../tests/vectors/update-ops-rejected.jsonl"),
    include_str!("../../../tests/vectors/update-ops-added-rejected.jsonl"),
];

const REFUSED_ITEM: &str = r#"{"a":5}"#;

#[derive(Deserialize)]
struct Applied<'text> {
    name: String,
    #[serde(borrow, default, deserialize_with = "present")]
    old: Option<&'text RawValue>,
    #[serde(borrow)]
    ops: &'text RawValue,
    new: Value,
    errors: Vec<Expected>,
}

#[derive(Deserialize)]
struct Refused<'text> {
    name: String,
    #[serde(borrow)]
    ops: &'text RawValue,
    code: String,
    #[serde(default)]
    document_accepts: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Expected {
    op_index: usize,
    code: String,
}

/// What the export answers.
#[derive(Debug, Deserialize)]
struct Answer {
    value: String,
    errors: Vec<AnsweredError>,
}

#[derive(Debug, Deserialize)]
struct AnsweredError {
    #[serde(rename = "opIndex")]
    op_index: usize,
    code: String,
    message: String,
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type Thrown;

    #[wasm_bindgen(method, getter)]
    fn code(this: &Thrown) -> String;
}

/// Reads `null` as a present value: `Option` alone would make it the same as an absent field.
fn present<'text, D>(deserializer: D) -> Result<Option<&'text RawValue>, D::Error>
where
    D: Deserializer<'text>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn lines<'text, V: Deserialize<'text>>(files: [&'text str; 2]) -> Vec<V> {
    files
        .into_iter()
        .flat_map(str::lines)
        .map(|line| serde_json::from_str(line).expect("vectors are JSON"))
        .collect()
}

fn run(old: Option<&str>, ops: &str) -> Result<Answer, String> {
    apply_ops_json(old.map(str::to_owned), ops)
        .map(|answer| {
            if let Some(value) = answer.as_string() {
                let errors = Vec::new();
                return Answer { value, errors };
            }
            serde_wasm_bindgen::from_value(answer).expect("the shape of an answer")
        })
        .map_err(|error| error.unchecked_into::<Thrown>().code())
}

fn report(differences: &[String]) {
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[wasm_bindgen_test]
fn applied_vectors() {
    let vectors: Vec<Applied<'_>> = lines(APPLIED);
    assert!(1_287 < vectors.len());
    let mut differences = Vec::new();
    for vector in vectors {
        let answer = run(vector.old.map(RawValue::get), vector.ops.get());
        let agrees = answer.as_ref().is_ok_and(|answer| {
            let value: Value = serde_json::from_str(&answer.value).expect("the value is JSON");
            let errors = answer.errors.iter().map(|error| Expected {
                op_index: error.op_index,
                code: error.code.clone(),
            });
            value == vector.new
                && errors.eq(vector.errors)
                && answer.errors.iter().all(|error| !error.message.is_empty())
        });
        if !agrees {
            differences.push(format!("{}: {answer:?}", vector.name));
        }
    }
    report(&differences);
}

#[wasm_bindgen_test]
fn refused_vectors() {
    let vectors: Vec<Refused<'_>> = lines(REFUSED);
    assert!(40 < vectors.len());
    let mut differences = Vec::new();
    for vector in vectors {
        let answer = run(Some(REFUSED_ITEM), vector.ops.get());
        let agrees = match &answer {
            Ok(_) => vector.document_accepts,
            Err(code) => !vector.document_accepts && *code == vector.code,
        };
        if !agrees {
            differences.push(format!("{}: {answer:?}", vector.name));
        }
    }
    report(&differences);
}
