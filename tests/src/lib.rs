//! What the tests share: the vector files, the core as a wasm guest, and op scripts made at random.
//!
//! The contract is data. A vector is one request and what must come of it; every build of the core (native here, the
//! guest in wasmtime here, `host-wasm` in Node and Chromium, the npm package) runs the same files.

pub mod guest;
pub mod guest_module;
pub mod random;
pub mod script;
pub mod vector;
