#!/usr/bin/env bash
# Runs the test suites, all or those named, and ends with a table and one line: N passed, N failed.
#
#   scripts/test.sh                 every suite
#   scripts/test.sh vectors parity  only these
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all_suites=(core host vectors parity coverage wasm-node wasm-chromium pkg clients redis rust-sdk links)
suites=("${@:-${all_suites[@]}}")
[ $# -gt 0 ] || suites=("${all_suites[@]}")
for suite in "${suites[@]}"; do
  case " ${all_suites[*]} " in
    *" $suite "*) ;;
    *) printf 'no suite %s; there are: %s\n' "$suite" "${all_suites[*]}" >&2 && exit 2 ;;
  esac
done

target=$(scripts/target-folder.sh) || exit 2
logs=$target/test-logs
mkdir -p "$logs"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$PWD/scripts/wasm-test-runner.sh
export III_STREAM_BIN=$target/debug/iii-stream

rows=() passed=0 failed=0 skipped=0 started=$EPOCHREALTIME

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }
row() { rows+=("$(printf '%-16s %7s %7s %8s %8ss  %s' "$@")"); }

# Sums one number of all result lines of a log: of cargo's and wasm-bindgen's runners, or of node's.
count() {
  awk -v what="$1" '
    /^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" what "(;|$)") sum += $(i - 1) }
    /^(ℹ|#) [a-z]+ [0-9]+$/ {
      if (what == "passed" && $2 == "pass") sum += $3
      if (what == "failed" && ($2 == "fail" || $2 == "cancelled")) sum += $3
      if (what == "ignored" && ($2 == "skipped" || $2 == "todo")) sum += $3
    }
    END { print sum + 0 }' "$2"
}

# Runs one suite: its name, then its command. Its output is shown and kept.
run() {
  local name=$1 from=$EPOCHREALTIME log=$logs/$1.log status good bad left note=""
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" </dev/null 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  good=$(count passed "$log") bad=$(count failed "$log") left=$(count ignored "$log")
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
    # It did not get as far as counting: the build failed, or a process died.
    bad=1 note="ended with status $status"
  elif [ "$good" = 0 ] && [ "$bad" = 0 ] && [ "$left" = 0 ]; then
    bad=1 note="ran no test"
  fi
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left))
  row "$name" "$good" "$bad" "$left" "$(seconds_since "$from")" "$note"
}

skip() {
  skipped=$((skipped + 1))
  printf '\n=== %s: skipped: %s\n' "$1" "$2"
  row "$1" - - 1 0.0 "skipped: $2"
}

# Something several suites need; where it cannot be had, its own row says so and they fail on their own.
prepare() {
  local name=$1 from=$EPOCHREALTIME
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  if "$@" </dev/null; then
    row "($name)" - - - "$(seconds_since "$from")" ""
  else
    failed=$((failed + 1))
    row "($name)" - 1 - "$(seconds_since "$from")" "could not be built"
  fi
}

wants() {
  local suite
  for suite in "${suites[@]}"; do case " $* " in *" $suite "*) return 0 ;; esac; done
  return 1
}

# What is in the package is what the Rust suites run.
export III_STREAM_GUEST_WASM=$PWD/pkg/src/wasm/guest.wasm

find_program() {
  local name
  for name in "$@"; do command -v "$name" && return 0; done
  return 1
}
chromium=$(find_program chromium chromium-browser google-chrome)
chromedriver=$(find_program chromedriver)

if wants vectors parity pkg clients redis; then prepare "build wasm" scripts/wasm.sh; fi
if wants pkg clients redis; then prepare "build package" npm --prefix pkg run build; fi
if wants clients redis rust-sdk pkg; then prepare "build server" cargo build --locked -p iii-stream -p iii-stream-bench; fi
if wants wasm-node wasm-chromium; then prepare "build wasm tool" cargo build --locked -p iii-stream-wasm-tool; fi

for suite in "${suites[@]}"; do
  case $suite in
    core) run core cargo test --locked --no-fail-fast -p iii-stream-core ;;
    host) run host cargo test --locked --no-fail-fast -p iii-stream ;;
    vectors | parity | coverage)
      run "$suite" cargo test --locked -p iii-stream-tests --test "$suite"
      ;;
    wasm-node)
      run wasm-node cargo test --locked -p iii-stream-wasm --target wasm32-unknown-unknown --test node
      ;;
    wasm-chromium)
      if [ -z "$chromium" ]; then
        skip wasm-chromium "no Chromium"
      elif [ -z "$chromedriver" ]; then
        skip wasm-chromium "no chromedriver"
      else
        CHROMEDRIVER=$chromedriver run wasm-chromium \
          cargo test --locked -p iii-stream-wasm --target wasm32-unknown-unknown --test browser
      fi
      ;;
    pkg) run pkg npm --prefix pkg test ;;
    clients)
      if [ ! -d tests/clients ]; then
        skip clients "there is no tests/clients"
      elif [ ! -d tests/clients/node_modules ]; then
        skip clients "tests/clients/node_modules is missing; run: make setup"
      elif [ ! -x "$III_STREAM_BIN" ]; then
        skip clients "there is no server to test"
      else
        CHROMIUM=${CHROMIUM:-$chromium} run clients npm --prefix tests/clients test
      fi
      ;;
    redis)
      if [ ! -d tests/clients/node_modules ]; then
        skip redis "tests/clients/node_modules is missing; run: make setup"
      elif [ ! -x "$III_STREAM_BIN" ]; then
        skip redis "there is no server to test"
      elif ! find_program redis-server >/dev/null; then
        skip redis "no redis-server; run: make setup (or: apt-get install redis-server)"
      else
        CHROMIUM=${CHROMIUM:-$chromium} run redis npm --prefix tests/clients run test:redis
      fi
      ;;
    rust-sdk)
      if [ ! -x "$III_STREAM_BIN" ]; then
        skip rust-sdk "there is no server to test"
      else
        run rust-sdk cargo test --locked --no-fail-fast --manifest-path tests/rust-sdk/Cargo.toml --target-dir "$target/rust-sdk"
      fi
      ;;
    links) run links node --test --test-reporter=spec scripts/links.test.mjs ;;
  esac
done

printf '\n%-16s %7s %7s %8s %9s\n' suite passed failed skipped time
printf '%s\n' "${rows[@]}"
printf '\nall of it took %s s\n' "$(seconds_since "$started")"
line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line+=", $skipped skipped"
printf '%s\n' "$line"
[ "$failed" = 0 ]
