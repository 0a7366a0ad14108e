//! iii-stream's core for JavaScript.
//!
//! Values cross the border as JSON text, in both directions: that is faster than walking trees of JavaScript objects, and
//! keeps what a JavaScript number cannot hold. What is more convenient is made of it in `pkg/src`.

mod error;
mod replica;

use iii_stream_core::{OpError, limits};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use error::coded_error;

pub use replica::Replica;

/// One failed op, as JavaScript sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedOp {
    op_index: usize,
    code: &'static str,
    message: String,
}

impl From<&OpError> for FailedOp {
    fn from(error: &OpError) -> Self {
        Self {
            op_index: error.op_index,
            code: error.code(),
            message: error.to_string(),
        }
    }
}

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
/// Gives the new value's JSON text. Where ops failed, a line break follows, and the JSON array of `{opIndex, code,
/// message}`; the value's own text has no line breaks.
///
/// # Errors
/// A JavaScript `Error` with a `code`, where the ops or the current value cannot be read: nothing is applied then.
#[wasm_bindgen(js_name = applyOpsJson)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "an optional string can cross the border by value only"
)]
pub fn apply_ops_json(current_text: Option<String>, ops_text: &str) -> Result<String, JsValue> {
    let applied = iii_stream_core::apply_ops_json(current_text.as_deref(), ops_text)
        .map_err(|error| coded_error(error.code(), &error.to_string()))?;
    let mut text = applied.value;
    if !applied.errors.is_empty() {
        let failed: Vec<FailedOp> = applied.errors.iter().map(FailedOp::from).collect();
        text.push('\n');
        text.push_str(&json(&failed));
    }
    Ok(text)
}

/// The caps that an update can meet, as the JSON text of an object of numbers.
#[wasm_bindgen(js_name = limits)]
pub fn limits_json() -> String {
    json(&Limits {
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

/// Strings and numbers in structs and lists always have a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
