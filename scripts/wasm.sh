#!/usr/bin/env bash
# Builds the core's two wasm forms into pkg/src/wasm, where the npm package takes them from: guest.wasm, which imports
# nothing, and core.wasm with its glue for JavaScript. Prints the path of the guest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(scripts/target-folder.sh)
wasm=$target/wasm32-unknown-unknown/wasm

cargo build --locked --profile wasm --target wasm32-unknown-unknown -p iii-stream-guest -p iii-stream-wasm >&2
cargo build --locked --quiet -p iii-stream-wasm-tool >&2

# Into a fresh folder first, so that a failed run never leaves half a package behind.
fresh=$(mktemp -d "$target/pkg-wasm.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
"$target/debug/iii-stream-wasm-tool" bindgen --target web --omit-default-module-path --out-dir "$fresh" --out-name glue \
  --remove-name-section --remove-producers-section "$wasm/iii_stream_wasm.wasm" >&2
mv "$fresh/glue_bg.wasm" "$fresh/core.wasm"
cp "$wasm/iii_stream_guest.wasm" "$fresh/guest.wasm"
generated=$PWD/pkg/src/wasm
mkdir -p "$generated"
for file in core.wasm glue.js glue.d.ts guest.wasm; do
  chmod 644 "$fresh/$file"
  # Unchanged files keep their times.
  cmp -s "$fresh/$file" "$generated/$file" || mv "$fresh/$file" "$generated/$file"
done
printf '%s\n' "$generated/guest.wasm"
