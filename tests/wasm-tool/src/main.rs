//! `bindgen …` is the wasm-bindgen command, `test-runner …` its test runner, at the version of `Cargo.lock`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    let tool = (1 < args.len()).then(|| args.remove(1));
    let result = match tool.as_ref().and_then(|name| name.to_str()) {
        Some("bindgen") => wasm_bindgen_cli::wasm_bindgen::run_cli_with_args(args),
        Some("test-runner") => wasm_bindgen_cli::wasm_bindgen_test_runner::run_cli_with_args(args),
        _ => {
            eprintln!("usage: iii-stream-wasm-tool bindgen|test-runner [ARGS]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}
