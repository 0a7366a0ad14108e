//! What JavaScript sees beside the vectors: exact text, errors, limits.

use iii_stream_wasm::{apply_ops_json, error_codes, limits_object};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type Thrown;

    #[wasm_bindgen(method, getter)]
    fn code(this: &Thrown) -> String;

    #[wasm_bindgen(method, getter)]
    fn message(this: &Thrown) -> String;

    #[wasm_bindgen(js_namespace = JSON)]
    fn stringify(value: &JsValue) -> String;
}

/// What is thrown; a test fails where nothing, or no `Error`, is.
fn thrown(current: Option<&str>, ops: &str) -> Thrown {
    let result = apply_ops_json(current.map(str::to_owned), ops);
    let error = result.expect_err("something is thrown");
    error.dyn_into().expect("an Error is thrown")
}

fn applied(current: Option<&str>, ops: &str) -> String {
    let result = apply_ops_json(current.map(str::to_owned), ops);
    let answer = result.expect("the ops can be read");
    // As it is where every op was applied, else what JavaScript makes of the object.
    answer.as_string().unwrap_or_else(|| stringify(&answer))
}

#[wasm_bindgen_test]
fn failed_ops_are_told_beside_the_value() {
    let ops = r#"[{"type":"increment","path":"n","by":2},{"type":"append","path":"n","value":1}]"#;
    assert_eq!(
        applied(Some(r#"{"n":40,"z":null,"a":[1.5],"t":"\n"}"#), ops),
        concat!(
            r#"{"value":"{\"n\":42,\"z\":null,\"a\":[1.5],\"t\":\"\\n\"}","#,
            r#""errors":[{"opIndex":1,"code":"append.type_mismatch","#,
            r#""message":"Cannot append at path 'n': target is number, expected array, string, null, or missing field."}]}"#
        )
    );
}

#[wasm_bindgen_test]
fn undefined_is_missing_and_null_is_stored() {
    let ops = r#"[{"type":"increment","path":"","by":3}]"#;
    assert_eq!(applied(None, ops), "3");
    assert!(applied(Some("null"), ops).contains("increment.not_number"));
}

#[wasm_bindgen_test]
fn integers_stay_exact() {
    let ops = r#"[{"type":"increment","path":"n","by":9223372036854775807},{"type":"increment","path":"f","by":1}]"#;
    assert_eq!(
        applied(Some(r#"{"n":9223372036854775807,"f":1.0}"#), ops),
        r#"{"n":18446744073709551614,"f":2.0}"#
    );
}

#[wasm_bindgen_test]
fn what_cannot_be_read_throws_an_error_with_a_code() {
    for ops in ["", "[", "[{}]", "{}"] {
        let error = thrown(None, ops);
        assert_eq!(error.code(), "deserialization_error", "{ops}");
        assert!(!error.message().is_empty());
    }
    assert_eq!(thrown(Some("{"), "[]").code(), "deserialization_error");
}

#[wasm_bindgen_test]
fn limits_and_codes_are_those_of_the_core() {
    assert_eq!(
        stringify(&limits_object().expect("an object")),
        concat!(
            r#"{"opsMax":10000,"pathSegmentsMax":32,"pathSegmentBytesMax":256,"#,
            r#""mergeValueKeysMax":1024,"mergeValueDepthMax":16,"valueDepthMax":125}"#
        )
    );
    assert_eq!(error_codes(), iii_stream_core::OP_ERROR_CODES);
}
