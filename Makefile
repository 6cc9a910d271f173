# make demo and make test work on a fresh clone with Python 3.11 or newer, pip and make; each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test check fuzz soak bench golden clean

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

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: $(READY)
	$(BIN)/python scripts/fuzz_encoders.py --documents 100000

# The long tests: kills, a disk that fails, hostile files. An hour or more.
soak: $(READY)
	$(BIN)/python scripts/soak_kill.py --kills 200
	$(BIN)/python scripts/soak_disk.py
	$(BIN)/python scripts/fuzz_readers.py --executions 100000

bench: $(READY)
	$(BIN)/python scripts/bench_pipeline.py $(ARGS)

# Writes the golden digests anew; only for a change of bytes that is meant.
golden: $(READY)
	$(BIN)/python scripts/write_golden.py

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
