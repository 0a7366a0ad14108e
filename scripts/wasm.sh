#!/usr/bin/env bash
# Builds the core's two wasm forms: the import-free guest, and pkg/wasm (module and glue) for the npm package.
# Prints the path of the guest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(scripts/target-folder.sh)
wasm=$target/wasm32-unknown-unknown/wasm

cargo build --locked --profile wasm --target wasm32-unknown-unknown -p iii-stream-guest -p iii-stream-wasm >&2
cargo build --locked --quiet -p iii-stream-wasm-tool >&2

# Into a fresh folder first, so that a failed run never leaves half a package behind.
fresh=$(mktemp -d "$target/pkg-wasm.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
"$target/debug/iii-stream-wasm-tool" bindgen --target web --no-typescript --out-dir "$fresh" \
  --remove-name-section --remove-producers-section "$wasm/iii_stream_wasm.wasm" >&2
mkdir -p pkg/wasm
for file in iii_stream_wasm.js iii_stream_wasm_bg.wasm; do
  chmod 644 "$fresh/$file"
  # Unchanged files keep their times.
  cmp -s "$fresh/$file" "pkg/wasm/$file" || mv "$fresh/$file" "pkg/wasm/$file"
done
printf '%s\n' "$wasm/iii_stream_guest.wasm"
