//! iii-stream's core for JavaScript.
//!
//! Item values and ops cross the border as JSON text: that is faster than walking trees of JavaScript objects, and it
//! keeps what a JavaScript number cannot hold. Small typed answers (errors, limits) cross as plain objects.
//!
//! [`apply_ops_json`] is exact: text in, text out. [`apply_ops`] takes and gives JavaScript values, by way of `JSON`,
//! and so has JavaScript's numbers: integers beyond 2⁵³ are rounded.

mod convert;
mod error;
mod replica;

use iii_stream_core::limits;
use serde::Serialize;
use wasm_bindgen::prelude::*;

use convert::{OpErrorObject, from_json, to_json, to_object};
use error::coded_error;

pub use replica::Replica;

#[derive(Serialize)]
struct Applied<Value> {
    value: Value,
    errors: Vec<OpErrorObject>,
}

/// A value that is a JavaScript value already.
#[derive(Serialize)]
struct Plain(#[serde(with = "serde_wasm_bindgen::preserve")] JsValue);

/// The caps that a caller can meet; see `iii_stream_core::limits` for what each bounds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    ops_max: usize,
    path_segments_max: usize,
    path_segment_bytes_max: usize,
    merge_value_keys_max: usize,
    merge_value_depth_max: usize,
    value_depth_max: usize,
}

/// Applies ops to an item's JSON text; `current_text` is `undefined` where the item is missing.
///
/// Gives `{value, errors}`, where `value` is the new value's JSON text and `errors` an array of
/// `{opIndex, code, message}`.
///
/// # Errors
/// A JavaScript `Error` with a `code`, where the ops or the current value cannot be read: nothing is applied then.
#[wasm_bindgen(js_name = applyOpsJson)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "an optional string can cross the border by value only"
)]
pub fn apply_ops_json(current_text: Option<String>, ops_text: &str) -> Result<JsValue, JsValue> {
    let (value, errors) = apply(current_text.as_deref(), ops_text)?;
    to_object(&Applied { value, errors })
}

/// Applies ops to an item's value; `current` is `undefined` where the item is missing.
///
/// Gives `{value, errors}`, where `value` is the new value and `errors` an array of `{opIndex, code, message}`. Neither
/// argument is changed.
///
/// # Errors
/// A JavaScript `Error` with a `code`, where the ops or the current value cannot be read: nothing is applied then.
#[wasm_bindgen(js_name = applyOps)]
pub fn apply_ops(current: &JsValue, ops: &JsValue) -> Result<JsValue, JsValue> {
    let current_text = if current.is_undefined() {
        None
    } else {
        Some(to_json(current, "the current value")?)
    };
    let (value, errors) = apply(current_text.as_deref(), &to_json(ops, "`ops`")?)?;
    to_object(&Applied {
        value: Plain(from_json(&value)?),
        errors,
    })
}

/// The caps that an update can meet, as an object of numbers.
///
/// # Errors
/// None; the type is that of all answers that become objects.
#[wasm_bindgen(js_name = limits)]
pub fn limits_object() -> Result<JsValue, JsValue> {
    to_object(&Limits {
        ops_max: limits::OPS_MAX,
        path_segments_max: limits::PATH_SEGMENTS_MAX,
        path_segment_bytes_max: limits::PATH_SEGMENT_BYTES_MAX,
        merge_value_keys_max: limits::MERGE_VALUE_KEYS_MAX,
        merge_value_depth_max: limits::MERGE_VALUE_DEPTH_MAX,
        value_depth_max: limits::VALUE_DEPTH_MAX,
    })
}

/// Every code that a single op can fail with.
#[wasm_bindgen(js_name = errorCodes)]
pub fn error_codes() -> Vec<String> {
    iii_stream_core::OP_ERROR_CODES
        .iter()
        .map(|&code| code.to_owned())
        .collect()
}

/// The version of what ops do: where a server's differs, it must be asked for values.
#[wasm_bindgen(js_name = opsVersion)]
pub fn ops_version() -> f64 {
    // Versions are small.
    iii_stream_core::OPS_VERSION as f64
}

/// What events call a mutation's client: a name that does not give the client's secret away.
#[wasm_bindgen(js_name = clientTag)]
pub fn client_tag(client: &str) -> String {
    iii_stream_core::client_tag(client).as_ref().to_owned()
}

fn apply(current: Option<&str>, ops: &str) -> Result<(String, Vec<OpErrorObject>), JsValue> {
    let applied = iii_stream_core::apply_ops_json(current, ops)
        .map_err(|error| coded_error(error.code(), &error.to_string()))?;
    let errors = applied.errors.iter().map(OpErrorObject::from).collect();
    Ok((applied.value, errors))
}
