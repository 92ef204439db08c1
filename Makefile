# `make run` needs nothing but Python 3.11. CI runs `make test`, then `make test-slow`.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK ?= 1

.PHONY: run serve test test-slow proof types tests bench mutants format clean

run: .venv/installed  ## run the study of the default settings
	$(BIN)/fed-rag run

PORT ?= 4200
serve: .venv/installed  ## a Prefect server and a worker with all deployments, until Ctrl-C
	$(BIN)/python -m flows.operate $(PORT)

test: .venv/installed  ## lint, types, and every test that takes seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types tests  # tests often wait for a server, where mypy can go on

types: .venv/installed
	$(BIN)/mypy

tests: .venv/installed
	$(PYTEST) -m "not slow"

test-slow: .venv/installed  ## the tests of whole studies, servers, schedules and kills
	$(PYTEST) -m "slow and not proof"

proof: .venv/installed  ## federations killed at random, on machines of their own, attacked: half an hour, not in CI
	$(PYTEST) -m proof

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

clean:  ## keeps lists of patients who withdrew, else a later run would take them back; keys of noise; and records of use
	rm -rf .venv mutants .mypy_cache .ruff_cache .pytest_cache
	find artifacts -mindepth 1 -not -type d -not -name forgotten.json -not -name noise.key -not -name sums.json -not -name spent.json -not -name asked.jsonl -not -name promotions.jsonl -not -path artifacts/README.md -delete
	find artifacts -mindepth 1 -type d -empty -delete
