# `make` alone explains itself. Every target sets up what it needs first; that is quick when nothing changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

venv := .venv/bin
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
# A virtual environment or user packages of the caller do not belong in here.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
export PYTHONNOUSERSITE := 1
# More workers than processors: kernel tests wait for timers and probes most of their time.
WORKERS ?= 4
# Further words for pytest, as in: make kernel ARGS="-k affinity -x"
ARGS ?=
pytest := $(venv)/python -m pytest
# tests/conftest.py orders the tests and says which ones share a worker; xdist keeps to that.
parallel := --dist loadgroup --no-loadscope-reorder

.PHONY: help
help: ## Show this help
	@printf 'k8snetc: make TARGET\n\n'
	grep -hE '^[a-z][a-z-]*:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r t d; do
		printf '  \033[1m%-8s\033[0m %s\n' "$$t" "$$d"
	done
	printf '\nWords for pytest: make fast ARGS="-k name -x"; parallel workers: WORKERS=%s\n' '$(WORKERS)'

.PHONY: setup
setup: ## Install what is missing: Debian packages (as root), .venv, locked Python packages, k8snetc itself
	@scripts/setup

.PHONY: run
run: setup ## Compile an example and show it working on real packets in the lab
	@scripts/run

.PHONY: test
test: setup ## Run all tests, fast ones first; what the machine lacks is skipped with the reason (with CI=true: fails)
	@$(pytest) -n $(WORKERS) $(parallel) $(ARGS)

.PHONY: fast
fast: setup ## Run the tests that need no root, kernel feature or VM
	@$(pytest) -n 2 $(parallel) -m 'not kernel and not vm and not slow' $(ARGS)

.PHONY: kernel
kernel: setup ## Run the tests on this machine's kernel (needs root)
	@$(pytest) -n $(WORKERS) $(parallel) -m 'kernel and not vm' $(ARGS)

.PHONY: vm
vm: setup ## Run the tests in the small virtual machine (some minutes)
	@$(pytest) -n $(WORKERS) $(parallel) -m vm $(ARGS)

.PHONY: vm-shell
vm-shell: setup ## Open a shell in that machine; it sees this machine's files, read only
	@$(venv)/python -m tests.vm shell

.PHONY: check
check: lint fast ## What must hold for every commit: lint, types, fast tests

.PHONY: lint
lint: setup ## Check style and types: ruff, ruff format, mypy
	@ruff check
	ruff format --check
	mypy

.PHONY: format
format: setup ## Format the code and apply the safe fixes of the linter
	@ruff check --fix-only --exit-zero
	ruff format

.PHONY: golden
golden: setup ## Rewrite the golden files from what is compiled now; review the difference before you commit it
	@K8SNETC_UPDATE_GOLDEN=1 $(pytest) -q -p no:xdist -m 'not vm' -k golden $(ARGS)

.PHONY: bench
bench: setup ## Measure: compile, load into the kernel, connect latency (ARGS: names, --plot DIR for charts)
	@$(venv)/python -m bench $(ARGS)

.PHONY: lock
lock: ## Rewrite the lock files from pyproject.toml (ARGS=--upgrade takes newer versions)
	@scripts/lock $(ARGS)

.PHONY: clean
clean: ## Remove everything that is built, also .venv and the caches
	@rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
