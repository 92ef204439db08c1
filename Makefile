# `make run` needs nothing but Python 3.11. CI runs `make test`, then `make test-slow`.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --no-deps
TOOLS := .venv-release/bin/python
PYTEST := $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE ?= 1
export DO_NOT_TRACK ?= 1

.PHONY: run serve test test-slow proof types tests bench mutants format lock dist advisories clean

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

proof: .venv/installed .venv-release/installed  ## federations killed at random, on machines of their own, attacked: an hour or more, not in CI
	$(PYTEST) -m proof

bench: .venv/installed  ## the figures of docs/benchmarks.md; 5 to 7 minutes on two free cores
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.gpu

mutants: .venv/installed  ## do the tests notice broken code? A sample of it, in an hour or two (docs/testing.md)
	nice $(BIN)/python -m benchmarks.mutants

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/installed  ## the locks written anew; UPGRADE=--upgrade takes the newest versions (docs/contributing.md)
	$(BIN)/python -m release.lock $(UPGRADE)

dist: .venv/installed .venv-release/installed  ## a release in dist: the wheel, and the list of all that it needs (SBOM)
	$(BIN)/python -m hatchling build --target wheel --directory dist
	$(TOOLS) -m release.sbom $(BIN)/python dist

advisories: .venv-release/installed  ## is a weakness known of a locked package? Needs the internet, and says so
	$(TOOLS) -m release.advisories

# pip checks the hashes of all that it installs. Torch comes without CUDA where pip knows of such a build.
.venv/installed: requirements.lock release/torch.lock release/torch-cpu.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --require-hashes -r requirements.lock
	$(BIN)/python $(INSTALL) --require-hashes -r release/torch-cpu.lock 2> /dev/null || \
		$(BIN)/python $(INSTALL) --require-hashes -r release/torch.lock
	$(BIN)/python $(INSTALL) --no-build-isolation --editable .
	touch $@

.venv-release/installed: release/tools.lock
	$(PYTHON) -m venv .venv-release
	$(TOOLS) $(INSTALL) --require-hashes -r release/tools.lock
	touch $@

clean:  ## keeps lists of patients who withdrew, else a later run would take them back; keys of noise; and records of use
	rm -rf .venv .venv-release dist mutants .mypy_cache .ruff_cache .pytest_cache
	find artifacts -mindepth 1 -not -type d -not -name forgotten.json -not -name noise.key -not -name sums.json -not -name spent.json -not -name asked.jsonl -not -name promotions.jsonl -not -path artifacts/README.md -delete
	find artifacts -mindepth 1 -type d -empty -delete
