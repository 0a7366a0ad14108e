#!/usr/bin/env bash
# Prints where cargo puts what it builds, whatever the environment or its configuration says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo metadata --format-version 1 --no-deps --offline |
  sed -E 's/.*"target_directory":"(([^"\\]|\\.)*)".*/\1/'
