# `make run` needs nothing but Python 3.11; `make test` is all that CI checks.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK ?= 1

.PHONY: run test types tests bench mutants format clean

run: .venv/installed  ## run the study of the default settings
	$(BIN)/fed-rag run

test: .venv/installed  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types tests  # tests often wait for a server, where mypy can go on

types: .venv/installed
	$(BIN)/mypy

tests: .venv/installed
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

bench: .venv/installed  ## the figures of docs/benchmarks.md; 5 to 7 minutes on two free cores
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.gpu

mutants: .venv/installed  ## do the tests notice broken code? A sample of it, in an hour or two (docs/testing.md)
	nice $(BIN)/python -m benchmarks.mutants

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:  ## keeps the lists of patients who withdrew, else a later run would take them back
	rm -rf .venv mutants .mypy_cache .ruff_cache .pytest_cache
	find artifacts -mindepth 1 -not -type d -not -name forgotten.json -not -path artifacts/README.md -delete
	find artifacts -mindepth 1 -type d -empty -delete
