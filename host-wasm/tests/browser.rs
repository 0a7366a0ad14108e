//! The suite in a headless browser.
#![cfg(target_arch = "wasm32")]

mod suite;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);
