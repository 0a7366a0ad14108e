//! The core as a wasm module without imports: one JSON text in, one JSON text out.
//!
//! Exports: `memory`, `alloc(len) -> ptr`, `dealloc(ptr, len)` and `update(ptr, len) -> ptr << 32 | len`. The caller owns
//! both texts: it allocates and frees the input, and frees the output it was handed.
//!
//! In: `{"old"?: any, "ops": any}`, where an absent `old` is a missing item and `"old": null` a stored `null`.
//! Out: `{"value": any, "errors": […]}`, or `{"error": {"code", "message"}}` where the whole request is refused.

#[cfg(target_arch = "wasm32")]
mod abi;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Numbers must reach the core as they were written, so both parts stay text.
#[derive(Deserialize)]
struct Request<'text> {
    #[serde(borrow, default, deserialize_with = "present")]
    old: Option<&'text RawValue>,
    #[serde(borrow)]
    ops: &'text RawValue,
}

#[derive(Serialize)]
struct Refusal<'text> {
    error: Reason<'text>,
}

#[derive(Serialize)]
struct Reason<'text> {
    code: &'text str,
    message: &'text str,
}

/// Reads `null` as a present value: `Option` alone would make it the same as an absent field.
fn present<'text, D>(deserializer: D) -> Result<Option<&'text RawValue>, D::Error>
where
    D: Deserializer<'text>,
{
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Answers one request of the module's JSON form with one answer of it.
pub fn respond(request: &[u8]) -> String {
    let request: Request<'_> = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return refuse("deserialization_error", &error.to_string()),
    };
    match iii_stream_core::apply_ops_json(request.old.map(RawValue::get), request.ops.get()) {
        Ok(applied) => match serde_json::to_string(&applied.errors) {
            Ok(errors) => format!(r#"{{"value":{},"errors":{errors}}}"#, applied.value),
            Err(error) => refuse("internal_error", &error.to_string()),
        },
        Err(error) => refuse(error.code(), &error.to_string()),
    }
}

fn refuse(code: &str, message: &str) -> String {
    let refusal = Refusal {
        error: Reason { code, message },
    };
    // Two strings cannot fail to serialise; an empty answer is what a caller would call broken.
    serde_json::to_string(&refusal).unwrap_or_default()
}
