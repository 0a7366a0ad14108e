#!/usr/bin/env bash
# Brings everything the tests need that cargo does not bring by itself. Safe to repeat: it does what is missing, and is
# silent and quick when nothing is. What it cannot install it names in one line; what needs that is then skipped.
#
#   scripts/setup.sh        everything
#   scripts/setup.sh pkg    only what it takes to build the npm package
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }
is_fatal=0

# Runs a command quietly; shows its last words where it fails.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) && return 0
  printf '%s\n' "$output" | tail -n 15 >&2
  return 1
}

# --- Rust: the wasm target, and wasm-bindgen with its test runner out of Cargo.lock -----------------------------------
if ! has cargo; then
  say "cargo is missing; install Rust as https://rustup.rs says"
  exit 1
fi
wasm_libraries=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null)
if ! compgen -G "$wasm_libraries/libcore-*" >/dev/null; then
  say "adding the Rust target wasm32-unknown-unknown"
  if ! { has rustup && quietly rustup target add wasm32-unknown-unknown; }; then
    say "the Rust target wasm32-unknown-unknown is missing; run: rustup target add wasm32-unknown-unknown"
    is_fatal=1
  fi
fi
# Cargo is silent here when there is nothing to build.
if ! cargo build --quiet --locked -p iii-stream-wasm-tool </dev/null; then
  say "wasm-bindgen could not be built; run: cargo build -p iii-stream-wasm-tool"
  is_fatal=1
fi

# --- Programs of the system: a browser, its driver, a Redis to stand beside -------------------------------------------
install_programs() {
  packages=()
  has chromium || has chromium-browser || has google-chrome || packages+=(chromium)
  has chromedriver || packages+=(chromium-driver)
  { has redis-server && has redis-cli; } || packages+=(redis-server redis-tools)
  as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
  }
  if [ ${#packages[@]} -gt 0 ]; then
    if has apt-get && as_root true 2>/dev/null; then
      say "installing ${packages[*]}"
      export DEBIAN_FRONTEND=noninteractive
      { as_root apt-get update && as_root apt-get install -y --no-install-recommends "${packages[@]}"; } >/dev/null 2>&1 </dev/null
    fi
    has chromium || has chromium-browser || has google-chrome ||
      say "no Chromium (browser suites are skipped); run: apt-get install chromium"
    has chromedriver || say "no chromedriver (the wasm browser suite is skipped); run: apt-get install chromium-driver"
    has redis-server || say "no redis-server (what needs Redis is skipped); run: apt-get install redis-server"
    has redis-cli || say "no redis-cli (what needs it is skipped); run: apt-get install redis-tools"
  fi
}

# --- npm: exactly what the lock files say -----------------------------------------------------------------------------
fill_folders() {
  for folder in "$@"; do
    [ -f "$folder/package-lock.json" ] || continue
    # The copy says which lock file the folder was filled from.
    cmp -s "$folder/package-lock.json" "$folder/node_modules/.filled-from.json" && continue
    if ! has npm; then
      say "npm is missing ($folder is skipped); install Node 20 or later"
      continue
    fi
    say "npm ci in $folder"
    if (cd "$folder" && quietly npm ci --no-audit --no-fund); then
      mkdir -p "$folder/node_modules"
      cp "$folder/package-lock.json" "$folder/node_modules/.filled-from.json"
    else
      say "npm could not fill $folder/node_modules; run: cd $folder && npm ci"
    fi
  done
}

# --- Python: the worker SDK's other language, each version in an environment of its own -------------------------------
fill_python() {
  for requirements in tests/clients/python/requirements-*.txt; do
    [ -f "$requirements" ] || continue
    venv=${requirements/requirements/.venv}
    venv=${venv%.txt}
    cmp -s "$requirements" "$venv/filled-from.txt" && continue
    say "Python packages in $venv"
    if has python3 && quietly python3 -m venv --clear "$venv" && quietly "$venv/bin/pip" install --quiet -r "$requirements"; then
      cp "$requirements" "$venv/filled-from.txt"
    else
      say "no Python packages (its client tests are skipped); run: python3 -m venv $venv && $venv/bin/pip install -r $requirements"
    fi
  done
}

fill_folders pkg
if [ "${1:-}" != pkg ]; then
  install_programs
  fill_folders pkg/test tests/clients examples/*/
  fill_python
fi
exit $is_fatal
