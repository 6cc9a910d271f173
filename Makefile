# make demo and make test work on a fresh clone with Python 3.11 or newer, pip and make; each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PROPERTIES := tests/test_hostile_rest.py $(wildcard tests/duckling_data/test_hostile_*.py)

.PHONY: setup demo test coverage check fuzz soak bench golden tree clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "Setting up .venv with the pinned packages: one to three minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python scripts/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

coverage: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: $(READY)
	$(BIN)/python scripts/fuzz_encoders.py --documents 100000

# The long tests: kills, a disk that fails, what may move a byte, hostile files. An hour or more.
soak: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python scripts/soak_kill.py
	$(BIN)/python scripts/soak_disk.py
	$(BIN)/python scripts/soak_determinism.py
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n 2 $(PROPERTIES)
	$(BIN)/python scripts/fuzz_readers.py --executions 10000
	$(BIN)/python scripts/fuzz_atheris.py --seconds 60

bench: $(READY)
	$(BIN)/python scripts/bench_pipeline.py $(ARGS)

# Writes the golden digests anew; only for a change of bytes that is meant.
golden: $(READY)
	$(BIN)/python scripts/write_golden.py

# Writes the tree of files in docs/architecture.md.
tree: $(READY)
	$(BIN)/python scripts/tree.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
