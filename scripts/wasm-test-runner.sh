#!/usr/bin/env bash
# What cargo runs wasm tests with: the test runner of the locked wasm-bindgen.
set -euo pipefail
exec "$("$(dirname "${BASH_SOURCE[0]}")/target-folder.sh")/debug/iii-stream-wasm-tool" test-runner "$@"
