//! Finds the guest module, and builds it where nobody has done so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the module's file for test runs that have built it already (`make test` does).
pub const PATH_VARIABLE: &str = "III_STREAM_GUEST_WASM";

/// The file of the guest module.
///
/// Without [`PATH_VARIABLE`] it is built from the checkout, once per process, into a target folder of its own: the cargo
/// that runs this test may hold the lock of the common one.
///
/// # Panics
/// Where the build fails; the compiler's output says why.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| env::var_os(PATH_VARIABLE).map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests live in a folder of the workspace");
    // A test runs as TARGET/PROFILE/deps/NAME, wherever TARGET was put.
    let running = env::current_exe().expect("a running test has a file");
    let target = running
        .ancestors()
        .nth(3)
        .expect("cargo puts tests three folders deep")
        .join("wasm-guest");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "iii-stream-guest"])
        .args(["--target", "wasm32-unknown-unknown", "--profile", "wasm"])
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo runs this test, so it can be started");
    assert!(
        status.success(),
        "building the guest module failed: {status}"
    );
    target.join("wasm32-unknown-unknown/wasm/iii_stream_guest.wasm")
}
