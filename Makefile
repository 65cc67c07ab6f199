# Every target does its own set-up: Python 3.11 or later and make are all a machine needs.
#   make test     the whole suite            make demo        three hosts and a balancer, on one page
#   make lint     ruff, mypy, imports        make demo-check  the same without a page: kills hosts, counts what was lost
#   make bench    what a session costs       make format      put the code into the one format
#   make sim SEEDS=0-1999 SECONDS=120 JOBS=2    clusters in virtual time through faults, as many seeds as you like
#   make chaos    kills, pauses, restarts, drains of real processes at full size: what is claimed, and what was measured
#   make drill    a site of three hosts is switched over from its old sessions and back, under load
#   make suites   the session tests of Django, Flask and Starlette over our integrations (downloads their sources)
PYTHON ?= python3
VENV ?= .venv
BIN ?= $(VENV)/bin
READY ?= $(VENV)/.ready
ARGS ?=
SEEDS ?= 0-1999
SECONDS ?= 120
JOBS ?= 2

.PHONY: help test lint pytest sim chaos suites ruff types imports format drill bench demo demo-check clean
help:
	@sed -n 's/^#   //p' Makefile

test: pytest
lint: ruff types imports

drill: $(READY)
	DRILL_OUT=$${DRILL_OUT:-.drill} $(BIN)/python -m pytest -s tests/end_to_end/drill_enabling.py $(ARGS)

pytest: $(READY)
	$(BIN)/python -m pytest $(ARGS)

sim: $(READY)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --seconds $(SECONDS) --jobs $(JOBS) $(ARGS)

chaos: $(READY)
	$(BIN)/python -m tests.chaos $(ARGS)

suites: $(READY)
	$(BIN)/python -m tests.suites $(ARGS)

ruff: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m tests.benchmark $(ARGS)

demo: $(READY)
	$(BIN)/python -m demo_app $(ARGS)

demo-check: $(READY)
	$(BIN)/python -m demo_app check $(ARGS)

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11 or missing: name another one, as in  make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || \
	  { echo "this Python has no ensurepip: install the package python3-venv (Debian, Ubuntu)" >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .suites .tox build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
