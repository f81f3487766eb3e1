# make help lists the targets. Needs Python 3.11 or later, git and make; the rest is installed into .venv.
PYTHON ?= python3
JOBS ?= 2
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test soak ray lint docs docs-serve wheels clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | awk -F': ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo '  variables: PYTHON=python3.12 (interpreter), ARGS="..." (more arguments for demo, test), JOBS=4 (tests at once)'

install: $(STAMP) ## make .venv with all packages, editable, and the tools

$(STAMP): pyproject.toml $(wildcard packages/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'error: LSE needs Python 3.11 or later, and "$(PYTHON)" is not; try make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv sync --inexact --all-packages --all-groups --python $(BIN)/python
	@touch $@

demo: install ## adapt a small model to scaled digits and write a report to runs/demo
	$(BIN)/lse demo --out runs/demo $(ARGS)

test: install ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

soak: install ## interrupt every long command ten times by each signal (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/soak.py $(ARGS)

ray: install ## test `lse data scale-objects --engine ray` on a cluster of two workers (installs Ray; a minute)
	$(BIN)/uv pip install --quiet --python $(BIN)/python 'ray[data]>=2.40,<2.70'
	OMP_NUM_THREADS=1 LSE_TEST_RAY=1 $(BIN)/python -m pytest packages/lse-data/tests/test_data_ray.py $(ARGS)

docs: install ## build the documentation site into site/, strictly: a dead link is an error
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build

docs-serve: install ## show the documentation site while you write it, on port 8000
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs serve

wheels: install ## build the wheels of all packages into dist/ and check them
	$(BIN)/python tools/wheels.py

lint: install ## check style, types, and which package and file imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python tools/import_cycles.py
	@status=0; for package in packages/*; do \
		echo "deptry: imports and dependencies of $$package"; \
		(cd $$package && ../../$(BIN)/deptry --no-ansi src) || status=1; done; exit $$status

clean: ## remove .venv, caches and outputs of runs
	rm -rf .venv runs dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
