# xdpctl. `make` lists the targets; README.md tells the rest.

.DEFAULT_GOAL := help
SHELL := /bin/sh
export PATH := $(PATH):/usr/sbin:/sbin
# tests and benches start xdpctl hundreds of times: it must find its bytecode, as it does for a user
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# most of a kernel test is waiting for the kernel (a namespace's end, RCU), so more processes than CPUs
PARALLEL := -n 4 --dist loadfile
LINTS := tests/unit/test_import_order.py tests/unit/test_boundaries.py

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { \
	  echo "this makes network namespaces and loads BPF programs, so it needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

.PHONY: setup
setup: ## Install what is missing (Debian packages, .venv) to build and attach
	@.ci/setup

.PHONY: setup-dev
setup-dev: ## The same, and what tests and linters need
	@.ci/setup dev

.PHONY: build
build: setup ## Compile bpf/ into build/bpf/ (only what is not current)
	@.venv/bin/xdpctl build bpf/*.bpf.c -o build/bpf

.PHONY: demo
demo: root build ## Show the main job in throwaway namespaces: attach, count, break, diagnose, fix
	@$(PYTHON) -m xdpctl.lab.demo

.PHONY: test
test: root setup-dev build ## Run all tests: unit, kernel, docs
	@$(PYTEST) $(PARALLEL) -m "not alone" tests/unit tests/kernel tests/docs; beside=$$?; \
	  $(PYTEST) -m alone tests/kernel && exit $$beside

.PHONY: again
again: root ## Run what failed last time once more, one test after the other and alone on the machine
	@$(PYTEST) --last-failed --last-failed-no-failures=none tests/unit tests/kernel tests/docs

.PHONY: unit
unit: setup-dev ## Run the tests that need no root
	@$(PYTEST) $(PARALLEL) tests/unit

.PHONY: lint
lint: setup-dev ## ruff, mypy --strict, import order, boundaries, shell syntax
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@$(PYTEST) -q $(LINTS)
	@for script in .ci/*; do bash -n "$$script" || exit 1; done

.PHONY: oracle
oracle: root setup-dev build ## Make every mistake on this kernel: predicted, happened, fixed; misses and false alarms
	@$(PYTHON) -m tests.kernel.oracle

.PHONY: bench
bench: root setup-dev build ## Measure speed as ratios to peers; writes docs/benchmarks.md
	@$(PYTEST) -q -s tests/bench
	@[ -n "$$XDPCTL_BENCH" ] || $(PYTHON) tests/support/bench.py

.PHONY: comparison
comparison: root setup-dev build ## Make the same mistakes with ip, bpftool, xdp-loader; writes docs/comparison.md
	@mkdir -p build
	@$(PYTHON) -m xdpctl.lab.comparison >build/comparison.md
	@mv build/comparison.md docs/comparison.md

.PHONY: setup-matrix
setup-matrix:
	@.ci/setup matrix

.PHONY: matrix
matrix: root setup-matrix build ## The oracle and kernel tests on Debian's kernels and other drivers, in QEMU; writes docs/matrix.html
	@mkdir -p build
	@$(PYTHON) -m tests.matrix --json build/matrix.json --html build/matrix.html
	@mv build/matrix.html docs/matrix.html

.PHONY: matrix-labs
matrix-labs: root setup-matrix build ## Every lab on every kernel of the matrix
	@$(PYTHON) -m tests.matrix --what labs

.PHONY: pages
pages: root setup-dev build ## Run what README.md and docs/ show, and write down what it prints
	@$(PYTHON) -m xdpctl.doctor.findings_page >build/findings.md && mv build/findings.md docs/findings.md
	@$(PYTHON) -m xdpctl.trace.metrics >build/metrics.md && mv build/metrics.md docs/metrics.md
	@$(PYTHON) tests/support/console.py README.md docs/json.md

.PHONY: images
images: root setup-dev build ## Draw docs/images: deployments' data paths, labs, the top screen (IMAGES="NAME ..." for some)
	@$(PYTHON) tests/support/images.py $(IMAGES)

.PHONY: fresh
fresh: root ## Run demo and test in a bare Debian made for it (SUITE=bookworm or trixie)
	@.ci/fresh $(or $(SUITE),bookworm)

.PHONY: clean
clean: ## Remove what was built (.venv stays)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find xdpctl tests -name __pycache__ -type d -prune -exec rm -rf {} +
