# Everything a developer, a user and CI type. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/easyml
PYTHON ?= python3.11
# The machine's uv, else one of our own in the cache.
UV := $(or $(shell command -v uv 2>/dev/null),$(CACHE)/uv/bin/uv)
UV_VERSION := 0.13
STAMP := .venv/.synced
RUN := $(UV) run --frozen --no-sync
GRPCURL_VERSION := v1.9.4
export GRPCURL := $(CACHE)/grpcurl-$(GRPCURL_VERSION)/grpcurl
# A program of its own (GPL), so never among our dependencies; tests/mongodb.txt says which, with hashes.
MONGODB := $(CACHE)/secantusdb-0.7.0b3
export SECANTUSD := $(MONGODB)/bin/secantusd-py
# So many packages of its own that it lives apart; tests/s3.txt says which, with hashes.
MOTO := $(CACHE)/moto-5.2.5
export MOTO_SERVER := $(MOTO)/bin/moto_server
# They want an older protobuf, and register the same messages as we do; tests/triton.txt and tests/kserve.txt.
TRITON := $(CACHE)/tritonclient-2.73.0
export TRITON_PYTHON := $(TRITON)/bin/python
KSERVE := $(CACHE)/kserve-0.21.0
export KSERVE_PYTHON := $(KSERVE)/bin/python
# What is compiled once need not be compiled at each start of each process.
unexport PYTHONDONTWRITEBYTECODE
# Sockets left open and tasks forgotten are errors in the tests.
PYTEST := $(RUN) python -X dev -m pytest

.PHONY: help setup generate quickstart serve full test check fast-tests faults soak lint format types contract bench bench-serving \
  grpcurl mongodb s3 inference-clients control-plane clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv (gets uv by itself)

$(UV):
	@echo "Getting uv into $(CACHE) ..."
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet --disable-pip-version-check "uv~=$(UV_VERSION).0"

$(STAMP): uv.lock pyproject.toml clients/python/pyproject.toml generated/python/pyproject.toml | $(UV)
	@echo "Installing (a few minutes the first time) ..."
	$(UV) sync --frozen --all-packages --compile-bytecode --quiet
	touch $(STAMP)

generate: $(STAMP) ## Write generated/ and docs/reference from protos/
	@$(RUN) scripts/generate.sh

quickstart: $(STAMP) ## Start a server and run the main job on real data
	@$(RUN) python examples/quickstart.py

serve: $(STAMP) ## Start a server on this machine
	@$(RUN) easyml-server serve

full: $(STAMP) mongodb s3 ## Start two servers on a PostgreSQL, MongoDB, S3, MLflow and Dask of their own, until Ctrl-C
	@PYTHONPATH=. exec $(RUN) python scripts/full.py

test: lint ## Everything check does, with every test; what CI runs
	@$(MAKE) --no-print-directory grpcurl mongodb s3 inference-clients control-plane
	$(PYTEST) -n 3 --dist loadfile --durations 40 --durations-min 10 -m "not faults"

check: lint ## Format, lint, types, layers, contract, generated code, fast tests
	@$(MAKE) --no-print-directory fast-tests

fast-tests: $(STAMP)
	@$(PYTEST) -n 2 --dist loadfile -m "not slow and not faults" tests/unit tests/contract

faults: $(STAMP) mongodb ## The long fault runs; writes tests/faults/results/
	@$(PYTEST) -q -s -m faults tests/faults
	$(PYTEST) -v -m faults tests/integration/test_mongodb.py
	$(PYTEST) -v tests/integration/test_faults_points.py tests/integration/test_faults_disk.py \
	  tests/integration/test_faults_frozen.py -k "not a_server_killed"

soak: $(STAMP) mongodb ## Work and faults over two servers, checked afterwards (MINUTES=20, SEED=...); writes tests/soak/results/
	@PYTHONPATH=. exec $(RUN) python -m tests.soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

lint: $(STAMP) ## Format, ruff, mypy, layers, contract, generated code
	@$(RUN) ruff format --check --quiet . || { echo "Run: make format"; exit 1; }
	$(RUN) ruff check --quiet .
	$(RUN) mypy --no-error-summary
	$(RUN) lint-imports --no-cache >/tmp/easyml-imports.$$$$ || { cat /tmp/easyml-imports.$$$$; exit 1; }
	rm -f /tmp/easyml-imports.$$$$
	$(MAKE) --no-print-directory contract

contract: $(STAMP)
	@$(RUN) buf lint
	$(RUN) buf format protos --diff --exit-code
	$(RUN) buf breaking protos --against protos/baseline.binpb
	$(RUN) scripts/generate.sh --check

format: $(STAMP) ## Format Python and protos
	@$(RUN) ruff check --fix --quiet . || true
	$(RUN) ruff format --quiet .
	$(RUN) buf format -w protos

bench: $(STAMP) mongodb ## Measure the budgets (ONLY=predict: one; ONLY=full: of full mode); writes benchmarks/results/
	@$(RUN) python -m benchmarks $(ONLY)

bench-serving: $(STAMP) | $(UV) ## The model server beside other Python servers (SECONDS=2 a round, ONLY="memory exchange first-answer")
	@UV=$(UV) CACHE=$(CACHE) $(RUN) python -m benchmarks.serving $(if $(SECONDS),--seconds $(SECONDS)) $(ONLY)

grpcurl: $(GRPCURL)

$(GRPCURL):
	@if ! command -v go >/dev/null; then echo "No Go here, so no grpcurl: its tests are skipped."; exit 0; fi
	echo "Building grpcurl into $(CACHE) (a few minutes, once) ..."
	GOBIN=$(dir $(GRPCURL)) go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)

mongodb: $(MONGODB)/.installed ## Install the MongoDB wire server of the tests, outside this folder

s3: $(MOTO)/.installed ## Install the S3 server of the tests, outside this folder

# The program says itself where in the cache it belongs, by a hash of its sources.
control-plane: $(STAMP) ## Build the Kubernetes of the tests (11 minutes of processor time, once), outside this folder
	@$(RUN) python tests/kubernetes/build.py

inference-clients: $(TRITON)/.installed $(KSERVE)/.installed ## Install the clients of Triton and KServe for the tests

$(MONGODB)/.installed: tests/mongodb.txt
$(MOTO)/.installed: tests/s3.txt
$(TRITON)/.installed: tests/triton.txt
$(KSERVE)/.installed: tests/kserve.txt

# Each in an environment of its own, because they do not bear our packages, or we theirs. What is installed already, by
# another checkout too, is not installed again under whoever uses it.
$(MONGODB)/.installed $(MOTO)/.installed $(TRITON)/.installed $(KSERVE)/.installed: | $(UV)
	@if cmp -s $(filter %.txt,$^) $@; then touch $@; exit 0; fi
	echo "Installing $(filter %.txt,$^) into $(@D) (once) ..."
	$(UV) venv --quiet --clear --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --require-hashes -r $(filter %.txt,$^)
	cp $(filter %.txt,$^) $@

clean: ## Remove what was installed and cached here
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
