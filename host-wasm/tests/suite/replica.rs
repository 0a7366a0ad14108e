//! The replica through its face: texts, numbers and errors. What it does is tested in the core.

use iii_stream_wasm::{Replica, client_tag, ops_version};
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type ReplicaThrown;

    #[wasm_bindgen(method, getter)]
    fn code(this: &ReplicaThrown) -> String;
}

/// The code of what was thrown; a test fails where nothing, or no `Error`, was.
fn code<T>(result: Result<T, JsValue>) -> String {
    let Err(error) = result else {
        panic!("something is thrown")
    };
    let error: ReplicaThrown = error.dyn_into().expect("an Error is thrown");
    error.code()
}

fn following() -> Replica {
    let mut replica = Replica::new();
    replica.open("s1", "s", "g", None).expect("a new name");
    replica.join("s1", None).expect("it is open");
    let page = r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"subscriptionId":"s1","epoch":"e","seq":7,"event":{"type":"sync","mode":"snapshot","items":[{"id":"a","seq":7,"data":{"n":9007199254740993}}],"more":false}}"#;
    let received = replica.receive(page).expect("a frame");
    assert_eq!(received.as_deref(), Some(r#"{"synced":["s1"]}"#));
    replica
}

#[wasm_bindgen_test]
fn a_mutation_is_shown_and_its_echo_takes_its_place() {
    let mut replica = following();
    let data = r#"{"stream_name":"s","group_id":"g","item_id":"a","ops":[{"type":"increment","path":"n","by":1}]}"#;
    let predicted = replica.mutate("secret", 1.0, "stream::update", data);
    assert_eq!(
        predicted.expect("a call").as_str(),
        r#"{"opErrors":[],"refused":null}"#
    );
    assert_eq!(replica.dirty(), ["s1"]);
    assert_eq!(
        replica.changes("s1").expect("it is open"),
        r#"{"reset":true,"synced":true,"items":[{"id":"a","value":{"n":9007199254740994},"seq":7,"order":1,"pending":true}],"removed":[]}"#
    );
    assert!(replica.dirty().is_empty());
    let tag = client_tag("secret");
    let echo = format!(
        r#"{{"type":"stream","timestamp":2,"streamName":"s","groupId":"g","id":"a","seq":8,"mutation":{{"tag":"{tag}","seq":1}},"event":{{"type":"update","base":7,"ops":[{{"type":"increment","path":"n","by":1}}]}}}}"#
    );
    let received = replica.receive(&echo).expect("a frame");
    assert_eq!(
        received.as_deref(),
        Some(r#"{"confirmed":[{"client":"secret","seq":1,"changeSeq":8}]}"#)
    );
    assert_eq!(
        replica.changes("s1").expect("it is open"),
        r#"{"reset":false,"synced":true,"items":[{"id":"a","value":{"n":9007199254740994},"seq":8,"order":1,"pending":false}],"removed":[]}"#
    );
    replica.disconnect();
    assert_eq!(
        replica.join("s1", None).expect("it is open"),
        r#"{"type":"join","data":{"subscriptionId":"s1","streamName":"s","groupId":"g","version":2,"deltas":true,"core":1,"since":{"epoch":"e","seq":8}}}"#
    );
}

#[wasm_bindgen_test]
fn whole_values_can_be_asked_for() {
    let mut replica = following();
    let join = |replica: &mut Replica, deltas| replica.join("s1", deltas).expect("it is open");
    assert!(join(&mut replica, Some(true)).contains(r#""deltas":true"#));
    assert!(!join(&mut replica, Some(false)).contains(r#""deltas":true"#));
}

#[wasm_bindgen_test]
fn what_is_taken_back_is_not_shown() {
    let mut replica = following();
    let data = r#"{"stream_name":"s","group_id":"g","item_id":"b","data":1}"#;
    let mut mutate = |seq| replica.mutate("secret", seq, "stream::set", data);
    mutate(1.0).expect("a call");
    mutate(2.0).expect("a call");
    replica.withdraw("secret", 1.0).expect("a number");
    replica.acknowledge("secret", 2.0, None).expect("a number");
    let changes = replica.changes("s1").expect("it is open");
    assert!(!changes.contains(r#""id":"b""#), "{changes}");
}

#[wasm_bindgen_test]
fn errors_have_codes() {
    let mut replica = following();
    let item = Some(String::new());
    assert_eq!(code(replica.open("s2", "s", "g", item)), "invalid_name");
    assert_eq!(
        code(replica.open("s1", "s", "g", None)),
        "subscription_exists"
    );
    assert_eq!(code(replica.join("s9", None)), "subscription_unknown");
    assert_eq!(code(replica.changes("s9")), "subscription_unknown");
    assert_eq!(code(replica.receive("{")), "frame_invalid");
    let data = r#"{"stream_name":"s","group_id":"g","item_id":"b","data":1}"#;
    let cases = [
        (1.0, "stream::set", "{}", "deserialization_error"),
        (1.0, "stream::get", data, "function_not_found"),
        (0.0, "stream::set", data, "mutation_invalid"),
        (1.5, "stream::set", data, "mutation_invalid"),
        (f64::NAN, "stream::set", data, "mutation_invalid"),
        (
            9_007_199_254_740_992.0,
            "stream::set",
            data,
            "mutation_invalid",
        ),
    ];
    for (seq, function_id, data, expected) in cases {
        let mutated = replica.mutate("secret", seq, function_id, data);
        assert_eq!(code(mutated), expected);
    }
    replica
        .mutate("secret", 1.0, "stream::set", data)
        .expect("a call");
    assert_eq!(
        code(replica.mutate("secret", 1.0, "stream::set", data)),
        "mutation_exists"
    );
    assert_eq!(code(replica.withdraw("secret", -1.0)), "mutation_invalid");
    replica.close("s1");
    replica.close("s1");
    assert_eq!(code(replica.changes("s1")), "subscription_unknown");
}

#[wasm_bindgen_test]
fn ops_have_a_version() {
    assert!((ops_version() - 1.0).abs() < f64::EPSILON);
}
