# `make` lists the targets; .ci/run calls them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .tools/venv
NPM_PACKAGES := .tools/npm
PUBSUB := .tools/pubsub/pstest
BROWSER := .tools/browser
export AUDITLAKE_PYTHON := $(abspath $(VENV)/bin/python)
export AUDITLAKE_TEST_TOOLS := $(abspath .tools)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the release binary, target/release/auditlake
	cargo build --release

# cargo-nextest runs them, where it is installed.
TEST = $$(if cargo nextest --version >/dev/null 2>&1; then echo nextest run; else echo test; fi) \
	--all-targets --features failpoints,planted-bugs

.PHONY: test
test: test-tools ## all tests; installs what they need into .tools/
	cargo $(TEST)
	cargo test --doc --features failpoints,planted-bugs
	@if [ ! -x $(BROWSER)/chromium ]; then echo "NOT CHECKED: the page in a browser, which there is for Linux on x86-64 only" >&2; fi

.PHONY: test-pubsub-google
test-pubsub-google: test-tools ## the tests of Pub/Sub on Google's emulator: at PUBSUB_EMULATOR_HOST, of PUBSUB_EMULATOR_JAR, or gcloud's
	tests/servers/pubsub/google.sh cargo $(TEST) pubsub

.PHONY: simulate
simulate: ## 10,000 seeds of the simulation (tests/simulation) on a stream, and as many on spools
	cargo run --release --example simulate -- --seeds 10000
	cargo run --release --example simulate -- --source spools --seeds 10000

.PHONY: simulate-planted
simulate-planted: ## plants bugs: the simulation must find each within 200 seeds
	cargo run --release --features planted-bugs --example simulate -- --planted all --seeds 200

# What requirements files name, in an environment of its own.
define install_python_packages
rm -rf $(@D)
$(PYTHON) -m venv $(@D)
$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(^:%=--requirement %)
touch $@
endef

# Engines that read the archive as its users do, and servers that speak the protocols of Kinesis, Pub/Sub, DynamoDB and S3.
.PHONY: test-tools
test-tools: $(VENV)/installed $(NPM_PACKAGES)/installed $(PUBSUB) $(BROWSER)/installed ## installs what the tests need

$(VENV)/installed: tests/requirements.txt tests/servers/requirements.txt
	$(install_python_packages)

$(NPM_PACKAGES)/installed: tests/servers/package.json tests/servers/package-lock.json
	rm -rf $(NPM_PACKAGES)
	mkdir -p $(NPM_PACKAGES)
	cp $^ $(NPM_PACKAGES)/
	npm ci --prefix $(NPM_PACKAGES) --ignore-scripts --no-audit --no-fund
	touch $@

$(BROWSER)/installed: tests/browser/package.json tests/browser/package-lock.json tests/browser/unpack.mjs
	rm -rf $(BROWSER)
	mkdir -p $(BROWSER)
	cp $(filter %.json,$^) $(BROWSER)/
	cd $(BROWSER) && npm ci --ignore-scripts --no-audit --no-fund
	node tests/browser/unpack.mjs $(BROWSER)
	touch $@

$(PUBSUB): tests/servers/pubsub/build.sh tests/servers/pubsub/main.go
	tests/servers/pubsub/build.sh $(abspath $@)

# What the files under deploy/ are checked with.
DEPLOY_VENV := .tools/deploy
PROMETHEUS := .tools/prometheus

.PHONY: test-deploy
test-deploy: build deploy-tools ## the files under deploy/, and what docs/ say of them, by the tools of those who read them
	cd tests/deploy && $(abspath $(DEPLOY_VENV))/bin/python -m unittest

.PHONY: test-image
test-image: ## builds the container image without Docker and runs the main job in it; needs root on Debian
	tests/deploy/image.sh

.PHONY: deploy-files
deploy-files: $(DEPLOY_VENV)/installed ## makes anew what stands under deploy/ twice, and docs/stack.md of the templates
	{ printf '%s\n' '# deploy/prometheus/alerts.yaml for the Prometheus Operator; made by `make deploy-files`.' \
		'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: auditlake' 'spec:'; \
	sed -n '/^groups:/,$$ s/^\(.\)/  \1/p' deploy/prometheus/alerts.yaml; \
	} >deploy/kubernetes/components/monitoring/prometheus-rule.yaml
	sed -e 's/"family": "auditlake"/"family": "auditlake-verify"/' -e 's/auditlake-TaskRole[^"]*/auditlake-VerifierTaskRole-OF-THE-STACK/' \
		-e 's/"command": \["run"\]/"command": ["verify", "--record", "--json"]/' -e 's/"awslogs-stream-prefix": "worker"/"awslogs-stream-prefix": "verify"/' \
		-e '/"portMappings"/d' deploy/ecs/task-definition.json >deploy/ecs/verify-task-definition.json
	cd tests/deploy && AUDITLAKE_WRITE_DOCS=1 $(abspath $(DEPLOY_VENV))/bin/python -m unittest --quiet test_stack_page

.PHONY: deploy-tools
deploy-tools: $(DEPLOY_VENV)/installed $(VENV)/installed $(PROMETHEUS)/installed

$(DEPLOY_VENV)/installed: tests/deploy/requirements.txt
	$(install_python_packages)

# Debian's package unpacked, where there is none: installing it would start a server.
$(PROMETHEUS)/installed:
	@rm -rf $(@D) && mkdir -p $(@D) && cd $(@D); \
	if command -v promtool prometheus >/dev/null; then \
		ln -s "$$(command -v promtool)" "$$(command -v prometheus)" .; \
	elif command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" = 0 ]; then apt-get update -qq; fi; \
		apt-get download -qq prometheus && dpkg -x prometheus_*.deb . && ln -s usr/bin/promtool usr/bin/prometheus .; \
	else \
		echo "Prometheus is missing: install it" >&2; exit 1; \
	fi; \
	./promtool --version >/dev/null && ./prometheus --version >/dev/null && touch installed

# Only what they are: the tests take far more.
EMULATORS_VENV := .tools/emulators

$(EMULATORS_VENV)/installed: tests/servers/requirements.txt
	$(install_python_packages)

.PHONY: emulators emulators-pubsub
emulators: ## Kinesis on port 4568, DynamoDB and S3 on 4566, of this machine only; until interrupted
emulators-pubsub: ## the same, and Pub/Sub on port 8085, which takes Go
emulators-pubsub: $(PUBSUB)
emulators-pubsub: PUBSUB_PORT := 8085
emulators emulators-pubsub: $(EMULATORS_VENV)/installed $(NPM_PACKAGES)/installed
	@printf '%s\n' "In another shell:" \
		"  export AWS_ENDPOINT_URL_KINESIS=http://127.0.0.1:4568 AWS_ENDPOINT_URL=http://127.0.0.1:4566" \
		"  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1" \
		"  export AUDITLAKE__ARCHIVE__S3__FORCE_PATH_STYLE=true"
	@if [ -n "$(PUBSUB_PORT)" ]; then \
		echo "  export PUBSUB_EMULATOR_HOST=127.0.0.1:$(PUBSUB_PORT)"; \
	else \
		echo "NO PUB/SUB: 'make emulators-pubsub' has it too"; \
	fi
	@trap 'kill 0' EXIT; \
	package=$(NPM_PACKAGES)/node_modules/kinesis-local; \
	KINESIS_MOCK_CERT_PATH=$$package/server.json KINESIS_MOCK_PLAIN_PORT=4568 KINESIS_MOCK_TLS_PORT=0 LOG_LEVEL=ERROR \
		node --require ./tests/servers/loopback.cjs $$package/main.js & \
	if [ -n "$(PUBSUB_PORT)" ]; then $(PUBSUB) $(PUBSUB_PORT) & fi; \
	GATEWAY_PORT=4566 BIND_HOST=127.0.0.1 SERVICES=dynamodb,s3 SFTP_ENABLED=0 LOG_LEVEL=ERROR $(EMULATORS_VENV)/bin/python -m ministack & \
	for port in 4568 $(PUBSUB_PORT) 4566; do until (exec 3<>/dev/tcp/127.0.0.1/$$port) 2>/dev/null; do sleep 0.2; done; done; \
	echo "They are ready."; \
	wait

.PHONY: fmt
fmt: ## formats the code
	cargo fmt --all

.PHONY: lint
lint: ## clippy, warnings are errors
	cargo clippy --all-targets --all-features -- -D warnings

.PHONY: doc
doc: ## the code's documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

.PHONY: deny
deny: ## licenses, sources and advisories of the dependencies, if cargo-deny is there
	@if cargo deny --version >/dev/null 2>&1; then \
		set -x; cargo deny check; \
	else \
		echo "NOT CHECKED: licenses, sources and advisories; 'cargo install cargo-deny' to check them" >&2; \
	fi

.PHONY: docs
docs: ## writes the pages of docs/ that come from the code
	AUDITLAKE_WRITE_DOCS=1 cargo test --test docs

.PHONY: examples
examples: ## makes examples/audit and examples/expected.json anew
	$(PYTHON) examples/make_audit.py

# What auditlake is compared with.
BENCH_VENV := .tools/bench
STAGES_DATA := target/bench/audit.ndjson
BENCH ?=

.PHONY: bench
bench: build $(BENCH_VENV)/installed ## auditlake beside DuckDB, chDB, Polars and a loop in Python; BENCH="--records 20000 --rounds 1" is quick
	$(BENCH_VENV)/bin/python benches/compare.py $(BENCH)

$(BENCH_VENV)/installed: benches/requirements.txt
	$(install_python_packages)

.PHONY: bench-stages
bench-stages: $(STAGES_DATA) ## time a record of each stage, from bytes to a committed batch, in one thread
	AUDITLAKE_BENCH_DATA=$(abspath $<) cargo bench --bench stages -- --sort location

$(STAGES_DATA): benches/data.py
	mkdir -p $(@D)
	$(PYTHON) benches/data.py --records 20000 --days 1 --out $@ >/dev/null

.PHONY: bench-instructions
bench-instructions: ## instructions a record of each stage; needs valgrind
	$(PYTHON) benches/instructions.py $(BENCH)

.PHONY: bench-claims
bench-claims: ## compares ways of keeping claims (benches/claims)
	cd benches/claims && cargo run --release

.PHONY: bench-memory
bench-memory: build ## time and peak memory of catch-up and verify on 5,000,000 made-up records
	$(PYTHON) benches/memory.py

.PHONY: bench-live
bench-live: build test-tools ## what a worker takes, idle on 4 shards and at 1,000 records a second; 20 minutes
	$(VENV)/bin/python benches/live.py

.PHONY: clean-example
clean-example: ## removes ./state and ./archive, which config/local.toml makes
	rm -rf state archive
