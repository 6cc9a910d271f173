# `make` alone lists the targets. Python 3.11 or newer, pip and make are needed; each target does its own set-up in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
RUN := .venv/.ready-run
DEV := .venv/.ready-dev
PROPERTIES := tests/test_hostile_rest.py $(wildcard tests/duckling_data/test_hostile_*.py)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test coverage check fuzz soak bench golden tree clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(DEV) ## make .venv with Duckling and the developer's tools, at the pinned versions

$(BIN)/python:
	@echo "Making the virtual environment .venv."
	@$(PYTHON) -m venv .venv

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Duckling and its libraries into .venv, at the pinned versions: 1 to 4 minutes, most of it downloads."
	@echo "On Linux without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves some gigabytes."
	@$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Duckling, its libraries and the developer's tools into .venv: 1 to 4 minutes, most of it downloads."
	@echo "On Linux without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu saves some gigabytes."
	@$(PIP) -e '.[dev]'
	@touch $(RUN) $@

demo: $(RUN) ## every stage on built-in stories, a short recorded training run, both reports, and a check of it all
	$(BIN)/python scripts/demo.py

test: $(DEV) ## the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

coverage: $(DEV) ## the tests, and which lines they run
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

check: $(DEV) ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: $(DEV) ## both encoders against transformers' tokenizer on 100,000 hostile documents
	$(BIN)/python scripts/fuzz_encoders.py --documents 100000

soak: $(DEV) ## the long tests: kills, failing disks, what may change a byte, hostile files; an hour or more
	$(PIP) -e '.[fuzz]'
	$(BIN)/python scripts/soak_kill.py
	$(BIN)/python scripts/soak_disk.py
	$(BIN)/python scripts/soak_determinism.py
	$(BIN)/python scripts/soak_flips.py
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n 2 $(PROPERTIES)
	$(BIN)/python scripts/fuzz_readers.py --executions 10000
	$(BIN)/python scripts/fuzz_atheris.py --seconds 60

bench: $(DEV) ## time the pipeline beside the obvious way; ARGS="--stories 2000000" is the published measurement
	$(BIN)/python scripts/bench_pipeline.py $(ARGS)

golden: $(DEV) ## write the golden digests anew: only for an intended change of bytes
	$(BIN)/python scripts/write_golden.py

tree: $(DEV) ## write the tree of files in docs/architecture.md
	$(BIN)/python scripts/tree.py

clean: ## remove .venv, builds and caches
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
