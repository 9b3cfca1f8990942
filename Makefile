# `make help` lists what there is to do.
.PHONY: run test check doc deny compile unit e2e e2e-full e2e-tests fuzz sim model sim-breaks chaos bench-log bench-cluster bench-failover bench-catchup bench-stall bench-quiet bench-attack bench-kind images clean help
.DEFAULT_GOAL := help
SHELL := bash
SEEDS ?= 2000
WALKS ?= 2000
SECONDS ?= 15
DURATION ?= 300
E2E ?= e2e
TARGET := $(or $(CARGO_TARGET_DIR),target)

run: ## Builds Zue and starts three replicas on 127.0.0.1, with their data in ./zue-data
	cargo run --release --locked -p zue-cli -- dev --data ./zue-data --replicas 3 --port 9440

test: ## Everything that has to pass, what is independent side by side, with the time of each part
	tests/run

check: ## Formatting, lints, the pages of rustdoc, and the licences, bans and sources of what is depended on
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	tests/deny
	cargo clippy --locked --workspace --all-targets --features zue-tests/bench-kind -- -D warnings
	CARGO_TARGET_DIR=$(TARGET)/fuzz cargo clippy --locked --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
	$(MAKE) --no-print-directory doc

doc: ## The pages that rustdoc makes; a warning fails
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

deny: ## Advisories against what is depended on, and all of it that `make check` checks: their list is on GitHub
	tests/deny all

# The programs and the tests in one call: what only tests need of a crate would otherwise have it compiled twice.
compile: ## The programs and the tests, unoptimised
	cargo build --locked --workspace --bins --examples --tests
	cargo test --locked --workspace --features zue-tests/e2e --test e2e --no-run

unit: compile ## Unit tests, the simulation, real processes, the chart and the generated files
	tests/kind/cluster tools
	eval "$$(tests/kind/cluster env)" && cargo test --locked --workspace

e2e: compile ## The whole path on Kubernetes: the cluster that KUBECONFIG names, else one made here
	$(call on-kubernetes,ZUE_PROFILE=dev,true,e2e-tests)

e2e-full: compile ## The same with optimised programs, and what takes long: failures again and again
	$(call on-kubernetes,ZUE_PROFILE=release,tests/kind/cluster policies,e2e-tests E2E=e2e-full)

bench-kind: compile ## What faults and changes cost on Kubernetes, beside the run before: target/bench-kind (ROWS=part of a name,…; TIMES=5)
	$(call on-kubernetes,ZUE_PROFILE=release,true,e2e-tests E2E=bench-kind ONLY="$(or $(ONLY),bench::)")

# On the cluster that KUBECONFIG names, or on one made here with images of that profile, and with what is done to it first.
on-kubernetes = if [ -z "$$KUBECONFIG" ]; then \
	  tests/kind/cluster up && $(1) tests/kind/images && tests/kind/cluster load && $(2) && eval "$$(tests/kind/cluster env)" || exit 1; \
	fi; \
	$(MAKE) --no-print-directory $(3)

e2e-tests: # For a cluster that stands
	cargo test --locked --workspace --features zue-tests/$(E2E) --test e2e -- --test-threads=1 --nocapture $(ONLY)

fuzz: ## Arbitrary bytes for the log and the wire, SECONDS=N (default 15) for each target
	fuzz/run $(SECONDS)

sim: ## The simulation over SEEDS=N seeds (default 2000); SEED=n replays one
	cargo run --profile sim --locked -p zue-sim -- --seeds $(SEEDS)

model: ## The replication's design as a random walk, WALKS=N (default 2000)
	python3 tests/model/protocol_model.py $(WALKS)

sim-breaks: ## Breaks every rule on purpose, and says which of SEEDS=N seeds finds it
	cargo run --profile sim --locked -p zue-sim -- --breaks --seeds $(SEEDS)

chaos: ## Real processes killed, stopped, cut off and starved for DURATION=seconds (default 300), every answer checked; SEED=n: that order, with durability Os where it is odd
	cargo build --release --locked -p zue-node -p zue-cli -p zue-chaos --bins
	$(TARGET)/release/zue-chaos run --duration $(DURATION) $(addprefix --seed ,$(SEED))

bench-log: ## What the log costs, beside the raw disk and other embedded logs: target/bench-log (QUICK=1: a minute)
	cargo run --release --locked -p zue-bench --features peers

bench-cluster: ## What appends and reads cost on three replicas: target/bench-cluster (BASE=commit: in turns with that one; TLS=1: without and with TLS in turns; FLOOR=1: beside bare tonic; CELLS=lat,100B,Sync; ROUNDS=3; QUICK=1)
	cargo build --release --locked -p zue-node -p zue-cli -p zue-chaos --bins
	$(if $(BASE),base=$$(tests/chaos/build-commit $(BASE)) && )$(TARGET)/release/zue-chaos speed $(if $(BASE),--base "$$base") $(if $(TLS),--tls) $(if $(FLOOR),--floor) \
	  $(addprefix --cells ,$(CELLS)) $(addprefix --rounds ,$(ROUNDS)) $(if $(QUICK),--millis 1000)

bench-failover bench-catchup bench-stall bench-quiet bench-attack: bench-%: ## Three real replicas under load: target/bench-cluster
	cargo build --release --locked -p zue-node -p zue-cli -p zue-chaos --bins
	$(TARGET)/release/zue-chaos $*

images: ## The container images zue-node and zue-operator, tagged with the version and for the tests, zue-prometheus:test and zue-bucket:test
	tests/kind/images

clean: ## Takes the test cluster down and deletes what was compiled
	tests/kind/cluster down
	cargo clean

help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
