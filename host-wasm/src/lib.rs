//! iii-stream's core for JavaScript.
//!
//! Values cross the border as JSON text, in both directions: that is faster than walking trees of JavaScript objects, and
//! keeps what a JavaScript number cannot hold. Small typed things, errors and limits, cross as plain objects. What is more
//! convenient is made of these in `pkg/src`.

mod error;
mod grants;
mod replica;

use iii_stream_core::{OpError, limits};
use serde::Serialize;
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::prelude::*;

use error::coded_error;

pub use grants::Grants;
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

/// What came of an update of which some ops failed.
#[derive(Serialize)]
struct Applied {
    value: String,
    errors: Vec<FailedOp>,
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
/// Gives the new value's JSON text; where ops failed, an object `{value, errors}` of that text and an array of `{opIndex, code,
/// message}`.
///
/// # Errors
/// A JavaScript `Error` with a `code`, where the ops or the current value cannot be read: nothing is applied then.
#[wasm_bindgen(js_name = applyOpsJson)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "an optional string can cross the border by value only"
)]
pub fn apply_ops_json(current_text: Option<String>, ops_text: &str) -> Result<JsValue, JsValue> {
    let applied = iii_stream_core::apply_ops_json(current_text.as_deref(), ops_text)
        .map_err(|error| coded_error(error.code(), &error.to_string()))?;
    if applied.errors.is_empty() {
        return Ok(JsValue::from_str(&applied.value));
    }
    to_object(&Applied {
        value: applied.value,
        errors: applied.errors.iter().map(FailedOp::from).collect(),
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

/// A plain object; structs become objects, not `Map`s.
fn to_object(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value
        .serialize(&Serializer::json_compatible())
        .map_err(JsValue::from)
}
