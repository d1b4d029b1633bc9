.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test,lint,docs]'
	@touch $(STAMP)

install: $(STAMP) ## Make the virtual environment with everything in it

demo: $(STAMP) ## Scan a demo schema on the embedded server; ends with a leak that was really there
	$(BIN)/rlsaudit demo

demo-all: $(STAMP) ## Scan all ten demo schemas and print one table
	$(BIN)/rlsaudit demo --all

test: $(STAMP) lint ## Check a change: lint, types, arrows, tests (PostgreSQL 18)
	$(BIN)/python -m pytest -n 3 --dist loadfile -q -m 'not nightly'

quick: $(STAMP) ## Tests only, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m 'not slow and not nightly'

lint: $(STAMP) ## Ruff, mypy --strict and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed && cp -r rlsaudit pyproject.toml build/typed/ && cp -r checks reports build/typed/rlsaudit/
	cd build/typed && $(abspath $(BIN))/mypy -p rlsaudit  # as it is once installed, checks and reports within
	$(BIN)/lint-imports --no-cache

matrix: $(STAMP) ## The tests on PostgreSQL 15, 16, 17 and 18
	$(BIN)/python -m pip install --quiet -e '.[matrix]'
	bash tests/matrix.sh $(BIN)/python

nightly: $(STAMP) ## The tests that are too long for a change, and 20,000 random policies held against the server
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m nightly
	RLSAUDIT_SOUNDNESS_POLICIES=20000 RLSAUDIT_SOUNDNESS_EXAMPLES=2000 $(BIN)/python -m pytest -n 2 -q tests/prove

bench: $(STAMP) ## Time the audit of large catalogs against the raw queries
	$(BIN)/python bench/audit_scale.py

bench-peers: $(STAMP) ## Measure other tools on CASES (a directory of cases), with SPLINTER (its SQL file), into docs/comparison.md
	$(PYTHON) -m venv build/peers
	build/peers/bin/python -m pip install --quiet pgrls rlsautotest rlsgrid trespass-rls
	$(BIN)/python bench/peers.py $(CASES) --bin build/peers/bin $(if $(SPLINTER),--splinter $(SPLINTER) --splinter-version $(SPLINTER_VERSION)) --page docs/comparison.md

docs: $(STAMP) ## Write the generated pages of docs/
	$(BIN)/python -m rlsaudit.docs docs

site: $(STAMP) ## Build docs/ as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet, which takes the warnings away before they fail it

clean: ## Remove everything that was made here
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis rlsaudit-report

.PHONY: help install demo demo-all test quick lint matrix nightly bench bench-peers docs site clean
