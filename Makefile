# make quickstart   train Allegro with and without the flag, compare errors, correlations and MD
# make evidence     the benchmark on hafnium oxide (10 core-hours; goes on where it stopped;
#                   GRID=gpu for larger models), make evidence-small a part in 20 minutes
# make test         all tests (make test-fast leaves out the slow ones)
# make overhead     cost of the term in training steps, into benchmarks/overhead.md
# make lint         formatting, lint, types, layering

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart overhead evidence evidence-small test test-fast coverage lint format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@# torch alone first: pip would fetch a newer build for the others to agree on
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: .venv/installed
	$(BIN)/python benchmarks/quickstart.py

GRID ?= cpu

evidence: .venv/installed
	$(BIN)/python -m benchmarks.hfox.evidence --grid $(GRID)

evidence-small: .venv/installed
	$(BIN)/python -m benchmarks.hfox.evidence --grid small

overhead: .venv/installed
	$(BIN)/python benchmarks/overhead.py

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadscope

test-fast: .venv/installed
	$(BIN)/pytest -n 2 -m 'not slow'

coverage: .venv/installed
	$(BIN)/pytest -n 2 --dist loadscope --cov
	$(BIN)/coverage report --skip-covered

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv quickstart outputs .pytest_cache .mypy_cache .ruff_cache
