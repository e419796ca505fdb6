# Every target works on a fresh machine with Python >= 3.11, git and make; nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check format bench docs clean

.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e .
	touch $@

.venv/dev: .venv/core
	$(PIP_INSTALL) -e ".[dev,train,data]"
	touch $@

demo: .venv/core        ## run the bundled model on the bundled clip and on a world with known truth
	$(BIN)/everview demo -o demo

test: .venv/dev         ## what CI runs: under six minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --benchmark-disable

test-all: .venv/dev     ## also the slow tests; a full-size checkpoint needs 11 GB of disk, 14 GB of memory
	$(BIN)/python -m pytest -m ""

check: .venv/dev        ## format, lint, types, and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev        ## speed of the bundled model; writes benchmarks/results
	$(BIN)/everview bench latency --model mini -o benchmarks/results/latency_mini.json

docs: .venv/dev
	$(BIN)/zensical build --strict

clean:
	rm -rf .venv build dist site demo
