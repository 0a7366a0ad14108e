# The doors to everything one does here; each is a short command that can also be run by hand.
.DEFAULT_GOAL := help
.PHONY: help run test crash check fmt lint bench e2e wasm pkg todo ai-tokens edge api doc setup

help: ## Say what there is
	@sed -n -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

run: ## Build the server (release) and start it, open to this machine; with ARGS="…" as these say
	cargo build --release --locked -p iii-stream
	@exec "$$(scripts/target-folder.sh)/release/iii-stream" $(or $(ARGS),--open)

test: setup ## Run every test suite; SUITES="core vectors" runs only these
	@scripts/test.sh $(SUITES)

check: ## Formatting and lints, as CI asks for them
	cargo fmt --all --check
	@$(MAKE) --no-print-directory lint

fmt: ## Format the Rust sources
	cargo fmt --all

lint: ## Clippy for what runs here, and for what runs as wasm; warnings are errors
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p iii-stream-wasm -p iii-stream-guest --all-targets --target wasm32-unknown-unknown -- -D warnings

bench: setup pkg ## Measure the server, beside what else is installed, and the core (release), then the npm package
	cargo build --release --locked -p iii-stream -p iii-stream-bench
	ulimit -n "$$(ulimit -Hn)" && "$$(scripts/target-folder.sh)/release/iii-stream-bench" $(ARGS)
	node tests/clients/bench.mjs
	node pkg/bench/core.mjs
	node pkg/bench/chromium.mjs
	node pkg/bench/replica.mjs
	node tests/clients/bench-tokens.mjs

crash: setup ## Kill the server under load 200 times, then crash the store 20,000 times on a simulated disk (release)
	cargo build --release --locked -p iii-stream
	III_STREAM_BIN="$$(scripts/target-folder.sh)/release/iii-stream" node tests/clients/crash.mjs $(or $(ROUNDS),200) $(SEED)
	III_STREAM_CRASH_SCHEDULES=$(or $(SCHEDULES),20000) cargo test --release --locked -p iii-stream --lib store::file:: -- --nocapture

e2e: setup ## Run the published clients against the server
	@scripts/test.sh clients rust-sdk

wasm: ## Build the import-free guest and the npm package's wasm
	@scripts/setup.sh pkg
	@scripts/wasm.sh

pkg: wasm ## Build the npm package (pkg/dist) and its tarball, pkg/iii-stream-VERSION.tgz
	cd pkg && npm pack --silent

todo: pkg ## Start an example beside `make run`: a list that several people edit, on line and off
	@cd examples/todo && npm ci --silent && npm start --silent

ai-tokens: pkg ## The same: an answer that arrives word by word
	@cd examples/ai-tokens && npm ci --silent && npm start --silent

edge: pkg ## The same: a worker at the edge that predicts an update before it forwards it
	@cd examples/edge && npm ci --silent && npm start --silent

api: setup pkg ## Make docs/api, the reference of the npm package, from its types
	node pkg/test/api.mjs

doc: ## Build the API documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p iii-stream-core -p iii-stream -p iii-stream-wasm

setup: ## Install what the tests need and cargo does not bring
	@scripts/setup.sh
