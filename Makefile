# Installs everything into the project: the tools of infra/requirements.txt into .venv, builds into target and .aws-sam.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# SAM CLI sends telemetry by default.
export SAM_CLI_TELEMETRY := 0
# Accept only wheels in every pip, including that of SAM, because building a source distribution executes its code.
export PIP_ONLY_BINARY := :all:

# All packages, and the features of the tests that deploy to the local AWS. Commands with the same selection share what cargo
# compiles.
WORKSPACE := --workspace --features whatsapp-ingress/local-aws,whatsapp-ingress-tools/local-aws

INGRESS = cargo run --package whatsapp-ingress-tools --bin ingress --

.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

.venv/installed: infra/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement infra/requirements.txt
	touch $@

.venv/dev-installed: infra/requirements-dev.txt .venv/installed
	$(BIN)/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement infra/requirements-dev.txt
	touch $@

# In a separate environment, so that this AWS CLI (version 1) does not hide the one of the operator.
.local/aws-cli/installed: infra/requirements-aws-cli.txt
	$(PYTHON) -m venv .local/aws-cli
	.local/aws-cli/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# Builds the function for a release. It contains no path of this computer, so that builds in two folders are equal.
HOST := $(shell uname -m)
CARGO_HOME ?= $(HOME)/.cargo
RELEASE_RUSTFLAGS := --remap-path-prefix=$(CARGO_HOME)=/cargo --remap-path-prefix=$(CURDIR)=/whatsapp-ingress
# Whether rustc compiles for $(1): for this computer, or for a target that rustup installed.
RUST_SYSROOT := $(shell rustc --print sysroot 2>/dev/null)
has_target = $(wildcard $(RUST_SYSROOT)/lib/rustlib/$(1)-unknown-linux-gnu)
ARM64_TOOLCHAIN := .local/arm64
ARM64_RUSTC = $(if $(call has_target,aarch64),,RUSTC=$(CURDIR)/$(ARM64_TOOLCHAIN)/rustc)
# The command that runs a program for arm64: empty on arm64, the emulator of this computer with the libraries of Debian's
# libc6-arm64-cross, or those of the toolchain.
ARM64_EMULATOR = $(if $(filter aarch64,$(HOST)),,$(if $(and $(shell command -v qemu-aarch64),$(wildcard /usr/aarch64-linux-gnu/lib)),\
	$(shell command -v qemu-aarch64) -L /usr/aarch64-linux-gnu,$(CURDIR)/$(ARM64_TOOLCHAIN)/run))
build_function = RUSTFLAGS="$(RELEASE_RUSTFLAGS)" CARGO_TARGET_DIR=target/$(1) \
	cargo lambda build --release --locked --skip-target-check $(2)

$(ARM64_TOOLCHAIN)/rustc: infra/arm64_toolchain.sh
	$< $(ARM64_TOOLCHAIN)

.PHONY: arm64-toolchain
arm64-toolchain: ## unpacks a compiler and an emulator for arm64 into .local, anew (only if rustc does not have the target)
	$(if $(call has_target,aarch64),@echo "SKIPPED: rustc has the target aarch64-unknown-linux-gnu",infra/arm64_toolchain.sh $(ARM64_TOOLCHAIN))

.PHONY: build-x86_64
build-x86_64: .venv/installed
	$(call build_function,x86_64,--x86-64)

.PHONY: build-arm64
build-arm64: .venv/installed $(if $(ARM64_RUSTC),$(ARM64_TOOLCHAIN)/rustc)
	$(ARM64_RUSTC) $(call build_function,arm64,--arm64)

# Runs cargo-lambda first, because SAM does not show the progress of the build.
.PHONY: build
build: .venv/installed ## builds the function for deployment, into .aws-sam
	cargo lambda build --release
	sam build

# `sam build` requires the runtime to match the Python of .venv.
.PHONY: consumers
consumers: .venv/installed ## builds the consumers of examples/ (the one in Node.js only if Node.js is installed)
	cd examples/python-lambda && sam build --cached \
		--parameter-overrides Runtime=$$(python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
	if command -v npm >/dev/null; then \
		cd examples/node-poller && npm ci --no-audit --no-fund && npm run build; \
	else \
		echo "SKIPPED: Node.js is not installed, examples/node-poller is not built"; \
	fi

.PHONY: run
run: build ## deploys to a local AWS, delivers every sample, and runs until Ctrl-C (ONCE=1: exits)
	$(INGRESS) run $(if $(ONCE),--once)

.PHONY: sam-local
sam-local: build ## runs the function in Docker with EVENT=events/… (default: every sample) and a local AWS
	$(INGRESS) sam-local $(EVENT)

.PHONY: deliver
ifdef SECRET
deliver: export APP_SECRET = $(SECRET)
endif
deliver: ## signs and delivers one sample: EVENT=events/… or BODY=file [URL=…] [SECRET=… or the variable APP_SECRET]
	$(INGRESS) deliver $(if $(BODY),--body "$(BODY)","$(EVENT)") $(if $(URL),--url "$(URL)")

.PHONY: verify
verify: ## checks an endpoint with requests like those of Meta: [URL=…] [STACK=… or NO_STACK=1] (default: the local deployment)
	$(INGRESS) verify $(if $(URL),--url "$(URL)") $(if $(STACK),--stack "$(STACK)") $(if $(NO_STACK),--no-stack)

.PHONY: subscribe
subscribe: ## lists the subscriptions of APP=…; APPLY=1 subscribes the fields with a queue: [ACCOUNTS=…] [FIELDS=…] [REPLACE=1] [STACK=…]
	$(INGRESS) subscribe --app "$(APP)" $(if $(ACCOUNTS),--account "$(ACCOUNTS)") $(if $(FIELDS),--fields "$(FIELDS)") \
		$(if $(REPLACE),--replace) $(if $(APPLY),--apply) $(if $(URL),--url "$(URL)") $(if $(STACK),--stack "$(STACK)")

.PHONY: queues
queues: ## counts the messages of each queue, and lists queues that the stack does not have: [STACK=…] [JSON=1]
	$(INGRESS) queues $(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)

TRANSFER_OPTIONS = --field "$(FIELD)" $(if $(APPLY),--apply) $(if $(RATE),--rate "$(RATE)") $(if $(MAX_MESSAGES),--max-messages "$(MAX_MESSAGES)") \
	$(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)

.PHONY: redrive
redrive: ## shows the dead-letter queue of FIELD=…; APPLY=1 moves its messages back: [STACK=…] [FROM=queue [TO=queue]]
	$(INGRESS) redrive $(TRANSFER_OPTIONS) $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)")

.PHONY: reroute
reroute: ## APPLY=1 moves the messages of FIELD=… from the catch-all queue to its own queue: [STACK=…]
	$(INGRESS) reroute $(TRANSFER_OPTIONS)

QUEUE_OPTIONS = $(if $(QUEUE),--queue "$(QUEUE)") $(if $(MAX_MESSAGES),--max-messages "$(MAX_MESSAGES)") \
	$(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)
FILTER_OPTIONS = $(if $(FIELD),--field "$(FIELD)") $(if $(REASON),--reason "$(REASON)") $(if $(APPLY),--apply)

.PHONY: peek
peek: ## counts the messages of the catch-all queue by attributes, which receives each once: [QUEUE=route or name] [STACK=…]
	$(INGRESS) peek $(QUEUE_OPTIONS)

.PHONY: drop
drop: ## shows the catch-all queue; APPLY=1 deletes the messages of FIELD=… or with REASON=…: [QUEUE=route or name] [STACK=…]
	$(INGRESS) drop $(QUEUE_OPTIONS) $(FILTER_OPTIONS)

.PHONY: export
export: ## shows the catch-all queue; APPLY=1 copies its messages to TO=folder or s3://…: [QUEUE=…] [FIELD=…] [REASON=…] [DELETE=1] [STACK=…]
	$(INGRESS) export --to "$(TO)" $(QUEUE_OPTIONS) $(FILTER_OPTIONS) $(if $(DELETE),--delete)

.PHONY: restore-queue
restore-queue: ## compares the queues of ROUTE=… with the template; APPLY=1 makes them equal: [STACK=…] [JSON=1]
	$(INGRESS) restore-queue "$(ROUTE)" $(if $(APPLY),--apply) $(if $(STACK),--stack "$(STACK)") $(if $(JSON),--json)

.PHONY: sign
sign: ## updates the signatures of the samples
	$(INGRESS) sign

.PHONY: messages
messages: ## writes examples/messages and the examples of docs/contract.md anew, from events/
	WRITE_EXAMPLES=1 cargo test $(WORKSPACE) --test handler -- contract::examples message_files

LIBRARIES := .local/libraries

$(LIBRARIES)/installed: examples/libraries/requirements.txt examples/libraries/package-lock.json
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	cd examples/libraries && npm ci --no-audit --no-fund --ignore-scripts
	touch $@

.PHONY: libraries
libraries: $(LIBRARIES)/installed ## measures libraries for WhatsApp on the payloads of PAYLOAD_CORPUS=…, into examples/README.md
	$(LIBRARIES)/bin/python examples/libraries/measure.py

CONTRACT_TOOLS := tests/contract/node_modules/installed

$(CONTRACT_TOOLS): tests/contract/package-lock.json
	if command -v npm >/dev/null; then \
		cd tests/contract && npm ci --no-audit --no-fund --ignore-scripts && touch node_modules/installed; \
	else \
		echo "SKIPPED: Node.js is not installed, tests/contract runs without its tools"; \
	fi

.PHONY: contract-tools
contract-tools: $(CONTRACT_TOOLS) ## installs the tools of tests/contract, if Node.js is installed

.PHONY: contract
contract: .venv/dev-installed $(CONTRACT_TOOLS) ## writes what is generated from the contract and its schema: types, AsyncAPI, llms.txt
	$(BIN)/python infra/generate_contract.py

.PHONY: test
test: build consumers contract-tools .venv/dev-installed .local/aws-cli/installed .local/checkov/installed ## runs the tests of all packages, and those in Python; `cargo test --workspace` runs those that need no Python
	cargo test $(WORKSPACE)
	pytest

# The parts of `make test`, for a CI that runs them side by side. tests/docs checks that no test is missing. The first two run
# without the tools in Python, so without the feature.
.PHONY: test-unit
test-unit: ## runs the part of `make test` that starts no process: modules, handler, simulation
	cargo test --workspace --lib --bins --test handler --test simulation
	cargo test --workspace --doc

.PHONY: test-binary
test-binary: ## runs the part of `make test` that starts built programs on the fake AWS
	cargo test --workspace --test built --test cli --test runtime_api --test sdk --test soak --test start

.PHONY: test-concurrent
test-concurrent: ## runs the tests of the built binary in an environment that serves 8 requests at a time
	BUILT_MAX_CONCURRENCY=8 cargo test $(WORKSPACE) --test built

.PHONY: test-local
test-local: build consumers .venv/dev-installed .local/aws-cli/installed .local/checkov/installed ## runs the part of `make test` on the local AWS, and the tests in Python
	cargo test $(WORKSPACE) --test local --test operator
	pytest

.PHONY: test-arm64
test-arm64: build-arm64 $(if $(findstring $(ARM64_TOOLCHAIN),$(ARM64_EMULATOR)),$(ARM64_TOOLCHAIN)/rustc) ## runs the tests of the built function with the release build for arm64, in an emulator on other computers
	printf '#!/bin/sh\nexec %s "$$@"\n' "$(strip $(ARM64_EMULATOR) $(CURDIR)/target/arm64/lambda/whatsapp-ingress/bootstrap)" >target/arm64/run
	chmod +x target/arm64/run
	RUST_TEST_THREADS=2 WHATSAPP_INGRESS=$(CURDIR)/target/arm64/run cargo test $(WORKSPACE) --test built

.PHONY: test-guide
test-guide: build .venv/dev-installed .local/aws-cli/installed ## runs the commands of docs/operations.md and docs/tasks.md on the local AWS
	cargo build --workspace --bin ingress
	TEST_GUIDE=1 pytest tests/stacks/test_guide.py

.PHONY: test-docker
test-docker: build ## runs the tests that need Docker: sam local
	cargo test $(WORKSPACE) --test local sam_local -- --ignored --nocapture

CHECKOV := .local/checkov/bin/checkov

.local/checkov/installed: infra/requirements-checkov.txt
	$(PYTHON) -m venv .local/checkov
	.local/checkov/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# Names that words of docs/glossary.md replaced.
RETIRED_NAMES := Choice|Contender|Doubled|FORGERS_SECRET|Framed|Garbled|InitFailure|Invoked|Known|Lane|LateEffect|MOST_BLAMED|NO_GROUP|Origin|Pace|Passing|Piece|Refusal|Rejection|Sandbox|Scene|Sending|Times|Wanted

.PHONY: check-docs
check-docs: .venv/dev-installed ## checks Markdown, links, tables of contents, the CI workflow, and facts that documents repeat
	rumdl check .
	zizmor --offline --strict-collection --no-progress .github docs/policies/deploy.yml
	pytest tests/docs

# What Cargo.toml declares. Nothing else names it.
RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: check-rust-version
check-rust-version: ## compiles all packages with the oldest Rust that Cargo.toml allows, which rustup installs
	rustup toolchain install --profile minimal $(RUST_VERSION)
	cargo +$(RUST_VERSION) check $(WORKSPACE) --all-targets --locked

# With --examples, of which there are none, cargo documents with the features of the tests, as Clippy compiles.
.PHONY: check
check: validate-template check-docs ## checks formatting, lints, types, dependencies, documents and template
	cargo fmt --all --check
	python infra/check_dependencies.py
	! git grep --line-number --word-regexp --extended-regexp '$(RETIRED_NAMES)' -- '*.rs'
	cargo clippy $(WORKSPACE) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(WORKSPACE) --no-deps --document-private-items --lib --bins --examples
	ruff format --check
	ruff check
	mypy

.PHONY: validate-template
validate-template: .venv/dev-installed .local/checkov/installed
	sam validate
	cfn-lint template.yaml infra/field-queue.yaml infra/archive.yaml examples/python-lambda/template.yaml
	mkdir -p .local
	$(BIN)/python infra/expand_template.py > .local/template.json
	$(CHECKOV) --config-file .checkov.yaml --file .local/template.json

.PHONY: check-template
check-template: validate-template ## checks the template with SAM, cfn-lint, Checkov and its tests, without a deployment
	pytest tests/template

.PHONY: snapshots
snapshots: .venv/dev-installed ## writes the resources of the template into tests/template/snapshots, for `git diff`
	PYTHONPATH=infra python tests/template/snapshots.py

CARGO_DENY := .local/cargo/bin/cargo-deny

# Without optimization, because it would take longer than it saves.
$(CARGO_DENY):
	cargo install cargo-deny --locked --debug --version 0.20.2 --root .local/cargo

.PHONY: deny
deny: $(CARGO_DENY) ## checks licences, sources and advisories of the dependencies; warns if the advisory database is unreachable
	for manifest in ./Cargo.toml ./fuzz/Cargo.toml; do \
		$(CARGO_DENY) --manifest-path $$manifest --config $(CURDIR)/deny.toml --locked check licenses bans sources; \
	done
	CARGO_DENY=$(CARGO_DENY) .ci/advisories ./Cargo.toml ./fuzz/Cargo.toml

.PHONY: simulate
simulate: ## simulates SEEDS=20000 execution environments with faults of AWS, from seed FIRST=0 on
	SIMULATION_SEEDS=$(or $(SEEDS),20000) SIMULATION_FIRST_SEED=$(or $(FIRST),0) cargo test $(WORKSPACE) --test simulation

.PHONY: soak
soak: ## delivers COUNT=20000 notifications to the release build, with every kind of fault
	cargo build --release
	WHATSAPP_INGRESS=target/release/whatsapp-ingress $(MAKE) test-soak COUNT=$(or $(COUNT),20000)

.PHONY: test-soak
test-soak: ## delivers COUNT=800 notifications to the debug build, with every kind of fault
	SOAK_NOTIFICATIONS=$(or $(COUNT),800) cargo test $(WORKSPACE) --test soak -- --ignored --nocapture

CARGO_BUNDLE_LICENSES := .local/cargo/bin/cargo-bundle-licenses
CARGO_CYCLONEDX := .local/cargo/bin/cargo-cyclonedx

$(CARGO_BUNDLE_LICENSES):
	cargo install cargo-bundle-licenses --locked --debug --version 5.0.0 --root .local/cargo

$(CARGO_CYCLONEDX):
	cargo install cargo-cyclonedx --locked --debug --version 0.5.9 --root .local/cargo

.PHONY: set-version
set-version: .venv/dev-installed ## writes VERSION=0.2.0 into every file that has the version, for a release
	test -n "$(VERSION)"
	sed -i 's/^version = .*/version = "$(VERSION)"/' Cargo.toml fuzz/Cargo.toml
	sed -i -e '/^  Version: /s/Value: [^ ]*/Value: $(VERSION)/' -e '/^      VersionDescription: /s/\["[^ ]*/["$(VERSION)/' template.yaml
	for manifest in Cargo.toml fuzz/Cargo.toml; do cargo update --workspace --manifest-path $$manifest; done
	PYTHONPATH=infra python tests/template/snapshots.py

# The architectures with a compiler on this computer. `make arm64-toolchain` adds arm64.
ARCHITECTURES = $(if $(call has_target,x86_64),x86_64) $(if $(or $(call has_target,aarch64),$(wildcard $(ARM64_TOOLCHAIN)/rustc)),arm64)
HOST_ARCHITECTURE := $(if $(filter aarch64,$(HOST)),arm64,x86_64)
RELEASE_INPUT := target/release-input

# cargo-lambda links the command line as it links the function, so that it runs with an older C library than this computer's.
.PHONY: package
package: $(CARGO_BUNDLE_LICENSES) $(CARGO_CYCLONEDX) $(ARCHITECTURES:%=build-%) ## makes a release in dist/: for each architecture whose compiler is here, and the command line for this computer
	$(call build_function,$(HOST_ARCHITECTURE),$(if $(filter arm64,$(HOST_ARCHITECTURE)),--arm64,--x86-64) --package whatsapp-ingress-tools --bin ingress)
	rm -rf $(RELEASE_INPUT) && mkdir -p $(RELEASE_INPUT)
	cp target/$(HOST_ARCHITECTURE)/lambda/ingress/bootstrap $(RELEASE_INPUT)/ingress
	python infra/describe_dependencies.py $(RELEASE_INPUT) $(ARCHITECTURES)
	python infra/package.py dist $(foreach name,$(ARCHITECTURES),--function $(name)=target/$(name)/lambda/whatsapp-ingress/bootstrap) $(RELEASE_INPUT)/*
	$(if $(filter arm64,$(ARCHITECTURES)),,@echo "SKIPPED: there is no compiler for arm64, see docs/deployment.md")

.PHONY: test-package
test-package: build .venv/dev-installed .local/aws-cli/installed ## deploys dist/ to the local AWS
	RELEASE=dist pytest tests/stacks/test_release.py

CARGO_FUZZ := .local/cargo/bin/cargo-fuzz
TIME ?= 60

$(CARGO_FUZZ):
	cargo install cargo-fuzz --locked --debug --version 0.13.2 --root .local/cargo

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## fuzzes the pure modules: TIME=60 seconds for each target
	for target in notification signature; do \
		mkdir -p fuzz/corpus/$$target; \
		$(CARGO_FUZZ) run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-dict=fuzz/$$target.dict -max_total_time=$(TIME) -max_len=8192 -rss_limit_mb=1024 -timeout=10 \
			-print_final_stats=1 -verbosity=0; \
	done

BENCH_SOURCES := crates/bench/subjects
BENCH_BUILD := .local/bench

# The tools for the native parts of the runtime clients of Python and Node.js. Debian's packages have the same names, except
# libtool (libtoolize) and build-essential (g++ and make).
.PHONY: bench-tools
bench-tools:
	@missing=; for tool in autoconf automake cmake g++ libtoolize node npm; do \
		command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	if [ -n "$$missing" ]; then echo "required for the bench, but not installed:$$missing" >&2; exit 1; fi

$(BENCH_BUILD)/python/installed: $(BENCH_SOURCES)/python/requirements.txt | bench-tools
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

# Uses the headers of this Node.js, because node-gyp would download them.
$(BENCH_BUILD)/node/installed: export npm_config_nodedir ?= $(abspath $(dir $(shell command -v node))..)
$(BENCH_BUILD)/node/installed: $(BENCH_SOURCES)/node/package-lock.json $(BENCH_SOURCES)/node/app.mjs | bench-tools
	mkdir -p $(@D)
	cp $(BENCH_SOURCES)/node/package.json $^ $(@D)
	cd $(@D) && npm ci --no-audit --no-fund
	cd $(@D) && node_modules/.bin/esbuild app.mjs --bundle --minify --platform=node --target=node20 --outfile=app.js
	touch $@

# Installs only the alternatives that the run measures.
ALTERNATIVES = $(foreach name,node python,$(if $(or $(if $(SUBJECTS),,$(name)),$(findstring $(name),$(SUBJECTS))),$(name)))

.PHONY: bench
bench: $(ALTERNATIVES:%=$(BENCH_BUILD)/%/installed) ## benchmarks the function and its alternatives, 15 minutes at most: [SCENARIOS=one] [SUBJECTS=ours,null] [MEMORY=0,128] [BASELINE=the program of another build]
	cargo build --release
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench run $(if $(SCENARIOS),--scenarios "$(SCENARIOS)") $(if $(SUBJECTS),--subjects "$(SUBJECTS)") \
		$(if $(MEMORY),--memory "$(MEMORY)")

.PHONY: bench-concurrency
bench-concurrency: SUBJECTS ?= ours,node
bench-concurrency: $(ALTERNATIVES:%=$(BENCH_BUILD)/%/installed) ## measures 1, 8 and 32 requests at a time, and writes the table of docs/performance.md: [SUBJECTS=ours]
	cargo build --release
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench concurrency --subjects "$(SUBJECTS)"

# The profile and a test among the targets give dependencies the same settings and features as in `make test`.
.PHONY: bench-smoke
bench-smoke: ## checks that the bench runs, with debug builds; ignore its figures
	cargo build --profile test $(WORKSPACE) --bins --test start
	WHATSAPP_INGRESS=target/debug/whatsapp-ingress target/debug/bench run --subjects ours,null --memory 0 --smoke

CHARTS := .local/charts

$(CHARTS)/installed: crates/bench/charts/requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --progress-bar off --disable-pip-version-check --require-hashes --no-deps --requirement $<
	touch $@

.PHONY: bench-report
bench-report: $(CHARTS)/installed ## writes the figures of the last run, which must be a whole one, and the baseline of the counts into docs/performance.md, and draws its charts
	target/release/bench report
	$(CHARTS)/bin/python crates/bench/charts/draw_charts.py

.PHONY: bench-capacity
bench-capacity: ## simulates Lambda's scaling and writes the tables of docs/capacity.md
	cargo run --package whatsapp-ingress-bench --bin bench -- capacity

.PHONY: bench-check
bench-check: ## counts the instructions of the pure path and compares them with the baseline
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench instructions

.PHONY: bench-baseline
bench-baseline: ## replaces the baseline of the counts
	cargo build --release --package whatsapp-ingress-bench --bins
	target/release/bench instructions --replace
