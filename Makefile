# The same few commands run on a laptop and in CI. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo fast test test-newest test-guest test-kubernetes kubernetes check lint format types layers bench lock docs clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON_SOURCES := src tests bench tools
WORKERS ?= 2
PYTEST_ARGS ?=
GUEST_TESTS ?= tests/e2e/test_fabric_datapath.py tests/e2e/test_fabric_connectivity.py tests/e2e/test_policy_sctp_sockets.py \
	tests/e2e/test_policy_packets_founding.py tests/e2e/test_oci_containers.py tests/e2e/test_project_quotas.py \
	tests/e2e/test_guarded_mounts.py

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## Virtual environment, locked Python packages, missing Debian packages (as root); no work when nothing is missing
	@./tools/setup.sh

demo: setup ## Set up, then run the demonstration: a container and a VM side by side on this machine
	@$(BIN)/isoplane demo

fast: setup ## Unit and tidy tests alone, with fewer random examples: half a minute, for a save-and-run loop
	@PATH="$$PATH:/usr/sbin:/sbin" HYPOTHESIS_PROFILE=fast $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup tests/unit tests/tidy $(PYTEST_ARGS)

test: setup check $(if $(CI),kubernetes) ## Set up, then linter, types, layers and every test
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

test-newest: ## The unit tests with the newest packages that pyproject.toml allows, in an environment of their own
	@HYPOTHESIS_PROFILE=fast WORKERS=$(WORKERS) ./tools/newest.sh $(PYTEST_ARGS)

test-guest: setup ## What needs another kernel, in a guest: Open vSwitch's datapath, SCTP, cgroups v2 alone, project quotas (as root, 8 minutes)
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python tools/second_host.py $(BIN)/python -m pytest -q -p no:cacheprovider $(GUEST_TESTS)

kubernetes: ## A real Kubernetes control plane for the tests, built from Go modules (once, some ten minutes of CPU)
	@./tools/kubernetes.sh

test-kubernetes: setup kubernetes ## What is held against, or runs on, a real kube-apiserver with etcd
	@PATH="$$PATH:/usr/sbin:/sbin" $(BIN)/python -m pytest -q -p no:cacheprovider tests/kubernetes $(PYTEST_ARGS)

check: lint types layers ## Everything that reads code without running it

lint: ## Linter and format
	@$(BIN)/ruff check $(wildcard $(PYTHON_SOURCES))
	@$(BIN)/ruff format --check $(wildcard $(PYTHON_SOURCES))

format: ## Let the formatter have its way
	@$(BIN)/ruff check --fix $(wildcard $(PYTHON_SOURCES))
	@$(BIN)/ruff format $(wildcard $(PYTHON_SOURCES))

types: ## mypy, strict
	@$(BIN)/mypy

layers: ## Imports go one way; pure cores stay pure
	@$(BIN)/lint-imports

bench: setup ## Every published figure, with its raw result
	@$(BIN)/python -m bench

docs: setup ## The generated reference: lifecycle, command line
	@$(BIN)/python tools/generate_docs.py

lock: ## Pin the dependencies anew, with hashes (asks the package index)
	@$(BIN)/python -m pip install -q pip-tools
	@./tools/lock.sh

clean: ## Remove caches and the virtual environment; never a data directory
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache build dist
	find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	rm -rf src/*.egg-info
