//! What JavaScript sees beside the vectors: values, exact text, errors, limits.

use iii_stream_wasm::{apply_ops, apply_ops_json, error_codes, limits_object};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = JSON)]
    fn parse(text: &str) -> JsValue;

    #[wasm_bindgen(js_namespace = JSON)]
    fn stringify(value: &JsValue) -> String;

    #[wasm_bindgen(js_name = Error)]
    type Thrown;

    #[wasm_bindgen(method, getter)]
    fn code(this: &Thrown) -> String;

    #[wasm_bindgen(method, getter)]
    fn message(this: &Thrown) -> String;

    #[wasm_bindgen(js_name = BigInt)]
    fn big_int(value: f64) -> JsValue;
}

/// The error that was thrown; a test fails where nothing, or no `Error`, was.
fn thrown(result: Result<JsValue, JsValue>) -> Thrown {
    let error = result.expect_err("something is thrown");
    error.dyn_into().expect("an Error is thrown")
}

#[wasm_bindgen_test]
fn values_go_in_and_come_out_as_values() {
    let ops =
        parse(r#"[{"type":"increment","path":"n","by":2},{"type":"append","path":"n","value":1}]"#);
    let current = parse(r#"{"n":40,"z":null,"a":[1.5]}"#);
    let answer = apply_ops(&current, &ops).expect("the ops can be read");
    assert_eq!(
        stringify(&answer),
        concat!(
            r#"{"value":{"n":42,"z":null,"a":[1.5]},"errors":[{"opIndex":1,"code":"append.type_mismatch","#,
            r#""message":"Cannot append at path 'n': target is number, expected array, string, null, or missing field."}]}"#
        )
    );
    assert_eq!(stringify(&current), r#"{"n":40,"z":null,"a":[1.5]}"#);
}

#[wasm_bindgen_test]
fn undefined_is_missing_and_null_is_stored() {
    let ops = parse(r#"[{"type":"increment","path":"","by":3}]"#);
    let missing = apply_ops(&JsValue::UNDEFINED, &ops).expect("the ops can be read");
    assert_eq!(stringify(&missing), r#"{"value":3,"errors":[]}"#);
    let null = apply_ops(&JsValue::NULL, &ops).expect("the ops can be read");
    assert!(stringify(&null).contains("increment.not_number"));
}

#[wasm_bindgen_test]
fn json_text_keeps_integers_exact() {
    let answer = apply_ops_json(
        Some(r#"{"n":9223372036854775807,"f":1.0}"#.to_owned()),
        r#"[{"type":"increment","path":"n","by":9223372036854775807},{"type":"increment","path":"f","by":1}]"#,
    )
    .expect("the ops can be read");
    assert_eq!(
        stringify(&answer),
        r#"{"value":"{\"n\":18446744073709551614,\"f\":2.0}","errors":[]}"#
    );
}

#[wasm_bindgen_test]
fn malformed_ops_throw_an_error_with_a_code() {
    let current = parse(r#"{"a":5}"#);
    let no_ops = [JsValue::UNDEFINED, JsValue::NULL, big_int(1.0), parse("{}")];
    for ops in &no_ops {
        let error = thrown(apply_ops(&current, ops));
        assert_eq!(error.code(), "deserialization_error");
        assert!(!error.message().is_empty());
    }
    for text in ["", "[", "[{}]", "{}"] {
        let error = thrown(apply_ops_json(None, text));
        assert_eq!(error.code(), "deserialization_error", "{text}");
    }
}

#[wasm_bindgen_test]
fn a_current_value_that_is_no_json_throws() {
    assert_eq!(
        thrown(apply_ops(&big_int(1.0), &parse("[]"))).code(),
        "deserialization_error"
    );
    assert_eq!(
        thrown(apply_ops_json(Some("{".to_owned()), "[]")).code(),
        "deserialization_error"
    );
}

#[wasm_bindgen_test]
fn limits_and_codes_are_those_of_the_core() {
    let limits = limits_object().expect("limits are plain numbers");
    assert_eq!(
        stringify(&limits),
        concat!(
            r#"{"opsMax":10000,"pathSegmentsMax":32,"pathSegmentBytesMax":256,"#,
            r#""mergeValueKeysMax":1024,"mergeValueDepthMax":16,"valueDepthMax":125}"#
        )
    );
    assert_eq!(error_codes(), iii_stream_core::OP_ERROR_CODES);
}
