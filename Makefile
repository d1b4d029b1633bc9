.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := build/peers
SPLINTER ?= build/splinter.sql
SPLINTER_VERSION ?= 55db5b1f28e58d816f7d9136eed87eabcd95868d
SPLINTER_SOURCE := https://raw.githubusercontent.com/supabase/splinter/$(SPLINTER_VERSION)/splinter.sql
PEERS_ASKED = --bin $(PEERS)/bin --splinter $(SPLINTER) --splinter-version $(SPLINTER_VERSION)

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
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -q -m 'not nightly'  # the long ones first, not the many

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

bench: $(STAMP) $(PEERS)/.installed ## Measure all beside its limits, other tools too, into docs/comparison.md (one to two hours; CASES=… adds cases)
	$(BIN)/python bench/everything.py -- $(PEERS_ASKED) --page docs/comparison.md $(CASES)

bench-quick: $(STAMP) ## Less of the same, in under five minutes; no other tools are installed for it
	$(BIN)/python bench/everything.py --quick -- $(PEERS_ASKED)

$(PEERS)/.installed:
	$(PYTHON) -m venv $(PEERS)
	for one in pgrls rlsautotest rlsgrid trespass-rls; do $(PEERS)/bin/python -m pip install --quiet $$one || echo "no $$one here"; done
	test -f $(SPLINTER) || curl --fail --silent --show-error --location --output $(SPLINTER) $(SPLINTER_SOURCE) || echo "no splinter here"
	@touch $@

docs: $(STAMP) ## Write the generated pages of docs/
	$(BIN)/python -m rlsaudit.docs docs

site: $(STAMP) ## Build docs/ as a site, build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet, which takes the warnings away before they fail it

clean: ## Remove everything that was made here
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis rlsaudit-report

.PHONY: help install demo demo-all test quick lint matrix nightly bench bench-quick docs site clean
