# What people type. `make` alone lists it.

# rustup puts cargo here; a shell that was open before that doesn't know.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Somebody's database is none of ours: tests and demo run one of their own.
unexport DATABASE_URL PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGPASSFILE PGDATABASE PGSERVICE PGOPTIONS PGSSLMODE

# Further words for the command: make test ARGS="-p join-ledger append"
ARGS ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: need ## a bot's story in half a minute: join, renew, recover, be copied, be locked, be reinstated
	@# A development build: the release profile optimises across crates, for minutes, which a story doesn't need.
	cargo build -p join-server -p joinctl -p join-agent --bins
	@scripts/demo

.PHONY: test
test: ## the whole test suite, on a real PostgreSQL
	@scripts/need tests
	cargo test $(or $(ARGS),--workspace)

.PHONY: build
build: ## joind, joinctl and joinbot in target/release
	cargo build --release -p join-server -p joinctl -p join-agent --bins

.PHONY: lint
lint: ## format, clippy, licences, and who may depend on what
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@# A workspace of its own, which those two don't reach.
	cargo clippy --manifest-path load-tests/baseline-cqrs/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target) --locked -- -D warnings
	@scripts/optional cargo-deny "cargo install --locked cargo-deny" -- cargo deny check bans licenses sources
	@scripts/optional shellcheck "apt-get install shellcheck" -- \
		shellcheck $$(git grep -lE "^#!.*sh$$")

.PHONY: faults
faults: need ## every kind of join, interrupted at every step: network, service, agent, database, disk, copies
	cargo build -p join-faults -p join-server -p join-agent --bins
	$(or $(CARGO_TARGET_DIR),target)/debug/join-faults $(ARGS)

.PHONY: bench
bench: need bench-build ## speed and memory, as ratios within one run; as root, with the kernel writing back early meanwhile
	$(or $(CARGO_TARGET_DIR),target)/release/joinload bench --early-writeback $(ARGS)

.PHONY: bench-growth
bench-growth: need bench-build ## the same against a million tokens and fifty million events
	$(or $(CARGO_TARGET_DIR),target)/release/joinload growth $(ARGS)

# Built before, so that nothing is compiled beside what is measured.
.PHONY: bench-build
bench-build:
	JOIN_COMMIT=$$(git describe --always --dirty --exclude '*') cargo build --release -p join-server -p joinload --bins
	cargo build --release --manifest-path load-tests/baseline-cqrs/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target)

.PHONY: docs
docs: ## the crates' documentation in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# What the others need: Rust, a C compiler, PostgreSQL's programs.
.PHONY: need
need:
	@scripts/need
