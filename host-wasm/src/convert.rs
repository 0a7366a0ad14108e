//! Values between the core and JavaScript.

use iii_stream_core::OpError;
use serde::Serialize;
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::prelude::*;

use crate::error::coded_error;

#[wasm_bindgen]
extern "C" {
    /// `undefined` where the value has no JSON form, as a function has none.
    #[wasm_bindgen(js_namespace = JSON, catch)]
    fn stringify(value: &JsValue) -> Result<Option<String>, JsValue>;

    #[wasm_bindgen(js_namespace = JSON, catch)]
    fn parse(text: &str) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(js_name = String)]
    fn text_of(value: &JsValue) -> String;
}

/// One failed op, as JavaScript sees it.
#[derive(Serialize)]
pub(crate) struct OpErrorObject {
    #[serde(rename = "opIndex")]
    op_index: usize,
    code: &'static str,
    message: String,
}

impl From<&OpError> for OpErrorObject {
    fn from(error: &OpError) -> Self {
        Self {
            op_index: error.op_index,
            code: error.code(),
            message: error.to_string(),
        }
    }
}

/// The JSON text of a value; `what` names it in the error where it has none (a function, a `BigInt`, a cycle).
pub(crate) fn to_json(value: &JsValue, what: &str) -> Result<String, JsValue> {
    let reason = match stringify(value) {
        Ok(Some(text)) => return Ok(text),
        Ok(None) => "it has no JSON form".to_owned(),
        Err(thrown) => text_of(&thrown),
    };
    Err(coded_error(
        "deserialization_error",
        &format!("{what} cannot be read: {reason}"),
    ))
}

/// The value of a JSON text of the core.
pub(crate) fn from_json(text: &str) -> Result<JsValue, JsValue> {
    parse(text)
}

/// A plain object; structs become objects, not `Map`s.
pub(crate) fn to_object(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value
        .serialize(&Serializer::json_compatible())
        .map_err(JsValue::from)
}
