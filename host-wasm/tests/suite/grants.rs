//! Grants through their face: text, and errors. What patterns mean is tested in the core.

use iii_stream_wasm::Grants;
use wasm_bindgen::prelude::*;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type GrantsThrown;

    #[wasm_bindgen(method, getter)]
    fn code(this: &GrantsThrown) -> String;

    #[wasm_bindgen(method, getter)]
    fn message(this: &GrantsThrown) -> String;
}

/// The code and the message of what was thrown.
fn thrown<T>(result: Result<T, JsValue>) -> (String, String) {
    let Err(error) = result else {
        panic!("something is thrown")
    };
    let error: GrantsThrown = error.dyn_into().expect("an Error is thrown");
    (error.code(), error.message())
}

#[wasm_bindgen_test]
fn each_ability_is_granted_by_itself() {
    for granted in ["read", "set", "update", "delete", "send"] {
        let text = format!(
            r#"[{{"stream":"chat","group":"room-*","item":"mine-*","can":["{granted}"]}}]"#
        );
        let grants = Grants::new(&text).expect("a list of grants");
        let may = |ability: &str, group: &str, item: Option<&str>| {
            let asked = grants.may(ability, "chat", group, item.map(Into::into));
            asked.expect("an ability")
        };
        for ability in ["read", "set", "update", "delete", "send"] {
            assert_eq!(may(ability, "room-1", Some("mine-1")), ability == granted);
        }
        assert!(!may(granted, "hall", Some("mine-1")));
        assert!(!may(granted, "room-1", Some("yours")));
        assert!(!may(granted, "room-1", None));
    }
}

#[wasm_bindgen_test]
fn what_cannot_be_read_says_so() {
    let (code, message) = thrown(Grants::new(
        r#"[{"stream":"*","group":"*","can":["wirte"]}]"#,
    ));
    assert_eq!(code, "grants_invalid");
    assert!(message.contains("wirte"), "{message}");
    let grants = Grants::new("[]").expect("a list of grants");
    let (code, _) = thrown(grants.may("wirte", "s", "g", None));
    assert_eq!(code, "ability_unknown");
}
