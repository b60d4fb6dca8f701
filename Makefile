# `make run` and `make test` each work alone on a machine with Python 3.11, make and git.
PYTHON ?= python3
BIN := .venv/bin
# one thread per process: stacks are small, and the worker processes fill the cores
export OMP_NUM_THREADS ?= 1

.PHONY: setup run test test-lowest test-all evidence ui check bench docs clean

# pip would compile every file of the packages, which takes minutes; Python compiles a file when it is first imported
INSTALL := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

setup: .venv/installed

.venv/product: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -e '.[all]'
	touch $@

# after the product: what its tests, its documentation and its integrations need
.venv/installed: .venv/product
	$(INSTALL) -e '.[dev]'
	touch $@

run: .venv/product
	$(BIN)/harness run experiments/quickstart.yaml

ui: .venv/product
	$(BIN)/harness ui

# each process takes a share of the tests in their order, so that what a file sets up is set up once, and then what is left
PYTEST := $(BIN)/pytest -n 2 --dist worksteal

test: check
	$(PYTEST) -m "not service and not long and not evidence" --cov=harness --cov-report=term

# the tests with the oldest versions that pyproject.toml claims, in an environment of their own
LOWEST := .venv-lowest
test-lowest:
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[lowest]'
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m "not service and not long and not evidence" --ignore=tests/docs --ignore=tests/faults/test_postgresql.py

test-all: check
	$(PYTEST) -m "not evidence"

evidence: setup
	$(PYTEST) -m evidence

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(INSTALL) -e '.[bench]'
	$(BIN)/python experiments/benchmarks/bench.py

# the site, in site/; `make docs EXAMPLES=` also judges the examples of all rules again, which takes minutes
EXAMPLES ?= --no-examples
docs: setup
	$(BIN)/python docs/generate $(EXAMPLES)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-lowest build dist site *.egg-info
