# make quickstart   a study of two variants with one seed: train, compare errors, correlations, MD
# make evidence     the studies on hafnium oxide (10 core-hours without the records that are
#                   in the repository; rerun to resume; GRID=gpu for larger models), make
#                   evidence-small a part in 15 minutes
# make test         all tests (make test-fast leaves out the slow ones)
# make overhead     cost of the term in training steps, into benchmarks/cost/results
# make lint         formatting, lint, types, layering
# make docs         the documentation, into docs/_build/html
# make release-check  builds sdist and wheel, and tries the wheel in a clean environment
#
# VENV=/some/folder puts the environment elsewhere. It has to be elsewhere when the path of
# this folder has a space in it: torch.compile then finds none of torch's libraries.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart overhead evidence evidence-small test test-fast coverage lint format docs \
	release-check clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch alone first: pip would fetch a newer build for the others to agree on
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

STUDY ?= benchmarks/quickstart/study.yaml
OUT ?= outputs/quickstart

quickstart: $(VENV)/installed
	$(BIN)/nequip-decorr study $(STUDY) --out $(OUT)
	@printf '\nHow do these two models compare, structure by structure?\n\n'
	$(BIN)/nequip-decorr compare $(OUT)/models/decorr_1/md-hot $(OUT)/models/none_1/md-hot
	@echo "report: $(OUT)/report.html"

GRID ?= cpu

evidence: $(VENV)/installed
	$(BIN)/python -m benchmarks.hfox.evidence --grid $(GRID)
	$(BIN)/python -m benchmarks.practice.pages
	$(BIN)/python -m benchmarks.relative.pages
	$(BIN)/python -m benchmarks.first

evidence-small: $(VENV)/installed
	$(BIN)/python -m benchmarks.hfox.evidence --grid small

overhead: $(VENV)/installed
	$(BIN)/python -m benchmarks.cost training

# file by file, in their order: those that take longest are among the first
IN_PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder

test: $(VENV)/installed
	$(BIN)/pytest $(IN_PARALLEL)

test-fast: $(VENV)/installed
	$(BIN)/pytest -n 2 -m 'not slow'

coverage: $(VENV)/installed
	$(BIN)/pytest $(IN_PARALLEL) --cov
	$(BIN)/coverage report --skip-covered

# of Python, that types are checked for
VERSIONS := 3.10 3.11 3.12 3.13

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(foreach version,$(VERSIONS),$(BIN)/mypy --python-version $(version) &&) true
	$(BIN)/lint-imports

docs: $(VENV)/installed
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

release-check: $(VENV)/installed
	$(BIN)/python -m tests.support.release

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv outputs dist docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache
