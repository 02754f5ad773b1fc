# Everything is installed into the project: the tools of infra/requirements.txt into .venv, builds into target and .aws-sam.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# SAM CLI would call home.
export SAM_CLI_TELEMETRY := 0
# Wheels alone, for every pip that a target starts, SAM's included: a source distribution runs its own code when it is built.
export PIP_ONLY_BINARY := :all:

# The feature of the tests that deploy to the local AWS.
LOCAL_AWS := whatsapp-ingress/local-aws,whatsapp-ingress-tools/local-aws

INGRESS = cargo run --package whatsapp-ingress-tools --bin ingress --

.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

.venv/installed: infra/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement infra/requirements.txt
	touch $@

.venv/dev-installed: infra/requirements-dev.txt .venv/installed
	$(BIN)/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement infra/requirements-dev.txt
	touch $@

# In an environment of its own, because an operator's AWS CLI must not be hidden by this one, which is version 1.
.local/aws-cli/installed: infra/requirements-aws-cli.txt
	$(PYTHON) -m venv .local/aws-cli
	.local/aws-cli/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# cargo-lambda first: it shows how far the build is, which SAM keeps to itself.
.PHONY: build
build: .venv/installed ## builds the function as it is deployed, into .aws-sam
	cargo lambda build --release
	sam build

# `sam build` requires the runtime to match the Python of .venv.
.PHONY: consumers
consumers: .venv/installed ## builds the consumers of examples/ (the one in Node.js where that is installed)
	cd examples/python-lambda && sam build --cached \
		--parameter-overrides Runtime=$$(python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
	if command -v npm >/dev/null; then \
		cd examples/node-poller && npm ci --no-audit --no-fund; \
	else \
		echo "SKIPPED: Node.js is not installed, examples/node-poller is not built"; \
	fi

.PHONY: run
run: build ## deploys to a local AWS, acts as Meta with every sample, stays up until Ctrl-C (ONCE=1: ends)
	$(INGRESS) run $(if $(ONCE),--once)

.PHONY: sam-local
sam-local: build ## runs the function in Docker on EVENT=events/… (without: on every sample), on a local AWS
	$(INGRESS) sam-local $(EVENT)

.PHONY: deliver
ifdef SECRET
deliver: export APP_SECRET = $(SECRET)
endif
deliver: ## signs and delivers one sample: EVENT=events/… [URL=…] [SECRET=…, or APP_SECRET in the environment]
	$(INGRESS) deliver "$(EVENT)" $(if $(URL),--url "$(URL)")

.PHONY: verify
verify: ## checks an endpoint with requests as Meta sends them: [URL=…] [STACK=… or NO_STACK=1] (neither: what runs here)
	$(INGRESS) verify $(if $(URL),--url "$(URL)") $(if $(STACK),--stack "$(STACK)") $(if $(NO_STACK),--no-stack)

.PHONY: subscribe
subscribe: ## lists the subscriptions of APP=…; APPLY=1 subscribes the fields that have a queue: [ACCOUNTS=…] [FIELDS=…] [REPLACE=1] [STACK=…]
	$(INGRESS) subscribe --app "$(APP)" $(if $(ACCOUNTS),--account "$(ACCOUNTS)") $(if $(FIELDS),--fields "$(FIELDS)") \
		$(if $(REPLACE),--replace) $(if $(APPLY),--apply) $(if $(URL),--url "$(URL)") $(if $(STACK),--stack "$(STACK)")

.PHONY: queues
queues: ## counts the messages of each queue, and lists queues that the stack does not have: [STACK=…] [JSON=1]
	$(INGRESS) queues $(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)

MOVE = --field "$(FIELD)" $(if $(APPLY),--apply) $(if $(RATE),--rate "$(RATE)") $(if $(MOST),--max-messages "$(MOST)") \
	$(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)

.PHONY: redrive
redrive: ## shows the dead letters of FIELD=…, and with APPLY=1 moves them back: [STACK=…] [FROM=queue]
	$(INGRESS) redrive $(MOVE) $(if $(FROM),--from "$(FROM)")

.PHONY: reroute
reroute: ## with APPLY=1 moves what waits on the catch-all for FIELD=… to its queue: [STACK=…]
	$(INGRESS) reroute $(MOVE)

.PHONY: sign
sign: ## makes the signatures of the samples anew
	$(INGRESS) sign

.PHONY: test
test: build consumers .venv/dev-installed .local/aws-cli/installed .local/checkov/installed ## all tests; `cargo test --workspace` runs those without Python and `sam build`
	cargo test --workspace --features $(LOCAL_AWS)
	pytest

.PHONY: test-docker
test-docker: build ## the tests that need Docker: sam local
	cargo test --features $(LOCAL_AWS) --test local sam_local -- --ignored --nocapture

CHECKOV := .local/checkov/bin/checkov

.local/checkov/installed: infra/requirements-checkov.txt
	$(PYTHON) -m venv .local/checkov
	.local/checkov/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# Names that were replaced, see docs/glossary.md.
RETIRED_NAMES := Choice|Doubled|FORGERS_SECRET|Framed|Garbled|Invoked|Known|Lane|MOST_BLAMED|NO_GROUP|Origin|Pace|Piece|Rejection|Sending|Wanted

.PHONY: check
check: validate-template ## formatting, lints, types, dependencies, docs, template
	cargo fmt --all --check
	python infra/check_dependencies.py
	! git grep --line-number --word-regexp --extended-regexp '$(RETIRED_NAMES)' -- '*.rs'
	cargo clippy --workspace --all-targets --features $(LOCAL_AWS) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	ruff format --check
	ruff check
	mypy

.PHONY: validate-template
validate-template: .venv/dev-installed .local/checkov/installed
	sam validate
	cfn-lint template.yaml examples/python-lambda/template.yaml
	mkdir -p .local
	$(BIN)/python infra/expand_template.py > .local/template.json
	$(CHECKOV) --config-file .checkov.yaml --file .local/template.json

.PHONY: check-template
check-template: validate-template ## the template: by SAM, cfn-lint, Checkov and its tests, without a deployment
	pytest tests/template

.PHONY: snapshots
snapshots: .venv/dev-installed ## writes what the template deploys into tests/template/snapshots, for `git diff`
	PYTHONPATH=infra python tests/template/snapshots.py

CARGO_DENY := .local/cargo/bin/cargo-deny

# Without optimization, which would take longer than it saves.
$(CARGO_DENY):
	cargo install cargo-deny --locked --debug --version 0.20.2 --root .local/cargo

.PHONY: deny
deny: $(CARGO_DENY) ## what may be depended on: licences and sources; fails on an advisory, and warns if their database is unreachable
	for manifest in ./Cargo.toml ./fuzz/Cargo.toml; do \
		$(CARGO_DENY) --manifest-path $$manifest --config $(CURDIR)/deny.toml --locked check licenses bans sources; \
	done
	CARGO_DENY=$(CARGO_DENY) .ci/advisories ./Cargo.toml ./fuzz/Cargo.toml

.PHONY: simulate
simulate: ## simulates SEEDS=20000 execution environments with faults of AWS, from seed FIRST=0 on
	SIMULATION_SEEDS=$(or $(SEEDS),20000) SIMULATION_FIRST_SEED=$(or $(FIRST),0) cargo test --test simulation

.PHONY: soak
soak: ## COUNT=20000 notifications at the release build, with faults of every kind among them
	cargo build --release
	WHATSAPP_INGRESS=target/release/whatsapp-ingress SOAK_NOTIFICATIONS=$(or $(COUNT),20000) \
		cargo test --test soak -- --ignored --nocapture

CARGO_FUZZ := .local/cargo/bin/cargo-fuzz
TIME ?= 60

$(CARGO_FUZZ):
	cargo install cargo-fuzz --locked --debug --version 0.13.2 --root .local/cargo

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## looks for inputs that break the pure modules: TIME=60 seconds for each target
	for target in notification signature; do \
		mkdir -p fuzz/corpus/$$target; \
		$(CARGO_FUZZ) run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-dict=fuzz/$$target.dict -max_total_time=$(TIME) -max_len=8192 -rss_limit_mb=1024 -timeout=10 \
			-print_final_stats=1 -verbosity=0; \
	done

CONTENDERS_IN := crates/bench/contenders
CONTENDERS_OUT := .local/bench

# What the runtime clients of Python and Node build their native parts with; Debian's packages have these names, or are
# libtool for libtoolize and build-essential for g++ and make.
.PHONY: bench-tools
bench-tools:
	@missing=; for tool in autoconf automake cmake g++ libtoolize node npm; do \
		command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	if [ -n "$$missing" ]; then echo "the bench needs, and this computer has not:$$missing" >&2; exit 1; fi

$(CONTENDERS_OUT)/python/installed: $(CONTENDERS_IN)/python/requirements.txt | bench-tools
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# The headers of this Node: node-gyp would download them.
$(CONTENDERS_OUT)/node/installed: export npm_config_nodedir ?= $(abspath $(dir $(shell command -v node))..)
$(CONTENDERS_OUT)/node/installed: $(CONTENDERS_IN)/node/package-lock.json $(CONTENDERS_IN)/node/app.mjs | bench-tools
	mkdir -p $(@D)
	cp $(CONTENDERS_IN)/node/package.json $^ $(@D)
	cd $(@D) && npm ci --no-audit --no-fund
	cd $(@D) && node_modules/.bin/esbuild app.mjs --bundle --minify --platform=node --target=node20 --outfile=app.js
	touch $@

# Installs only the contenders that the run measures.
PEERS = $(foreach peer,node python,$(if $(or $(if $(CONTENDERS),,$(peer)),$(findstring $(peer),$(CONTENDERS))),$(peer)))

.PHONY: bench
bench: $(PEERS:%=$(CONTENDERS_OUT)/%/installed) ## measures the function beside others, 15 minutes at most: [SCENES=one] [CONTENDERS=ours,null] [MEMORY=0,128] [AGAINST=another build of it]
	cargo build --release
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench run $(if $(SCENES),--scenes "$(SCENES)") $(if $(CONTENDERS),--contenders "$(CONTENDERS)") \
		$(if $(MEMORY),--memory "$(MEMORY)")

.PHONY: bench-smoke
bench-smoke: ## checks that the bench runs, on debug builds; ignore its figures
	cargo build
	cargo build --package whatsapp-ingress-bench --bins
	WHATSAPP_INGRESS=target/debug/whatsapp-ingress target/debug/bench run --contenders ours,null --memory 0 --smoke

CHARTS := .local/charts

$(CHARTS)/installed: crates/bench/charts/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

.PHONY: bench-report
bench-report: $(CHARTS)/installed ## writes the figures of the last run and the kept counts into docs/performance.md, and draws its charts
	target/release/bench report
	$(CHARTS)/bin/python crates/bench/charts/draw_charts.py

.PHONY: bench-capacity
bench-capacity: ## simulates Lambda's scaling and writes the tables of docs/capacity.md
	cargo run --package whatsapp-ingress-bench --bin bench -- capacity

.PHONY: bench-check
bench-check: ## counts the instructions of the pure path and compares them with those that are kept
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench instructions

.PHONY: bench-baseline
bench-baseline: ## keeps the counts as they are now
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench instructions --keep
