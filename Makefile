# Two commands do everything on a fresh machine with Python 3.11-3.13, make and a C compiler:
#   make demo    phantom mammograms -> dataset -> verified -> report, in minutes
#   make test    environment, ruff, mypy --strict, import-linter, pytest
# and for a night: make chaos (kill -9, failing disks, memory), make fuzz (10,000 damaged files).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo

.DELETE_ON_ERROR:
.PHONY: demo test lint types imports pytest chaos chaos-train fuzz fuzz-nightly models lock clean

demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/bcd-bench phantom $(DEMO)/phantoms --patients 8 --seed 1
	$(BIN)/bcd-prep run $(DEMO)/phantoms --out $(DEMO)/dataset --format tfrecord --format parquet --format png
	$(BIN)/bcd-prep verify $(DEMO)/dataset
	$(BIN)/bcd-train fit $(DEMO)/dataset --out $(DEMO)/run --model resnet_tiny --weights none --epochs 3
	@echo
	@echo "Open $(DEMO)/dataset/report.html in a browser; the dataset is in $(DEMO)/dataset, the model in $(DEMO)/run."

test: $(READY) lint types imports pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --config .importlinter

pytest: $(READY)
	$(BIN)/python -m pytest -n 2 -m "not gpu and not peers and not slow"

# Twenty kill -9 at seeded moments of trainings.
chaos-train: $(READY)
	BCD_CHAOS=full $(BIN)/python -m pytest tests/chaos/test_kill_training.py

# Long suites, of which `make test` runs a short cut with fixed seeds.
chaos: $(READY)
	BCD_CHAOS=full $(BIN)/python -m pytest tests/chaos

# Every backbone: one step, save and load, exports, JAX. `make test` does one of each family.
models: $(READY)
	$(BIN)/python -m pytest tests/trainer/test_models.py tests/trainer/test_weights.py

fuzz: $(READY)
	BCD_FUZZ_MUTANTS=10000 $(BIN)/python -m pytest tests/fuzz

fuzz-nightly: $(READY)
	BCD_FUZZ_MUTANTS=100000 $(BIN)/python -m pytest tests/fuzz

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

# Versions and hashes, no index URLs. Run after changing dependencies in pyproject.toml.
lock:
	$(PYTHON) -m pip install --quiet --target .venv-lock uv
	for extra in dev prep; do \
	  PYTHONPATH=.venv-lock .venv-lock/bin/uv pip compile pyproject.toml $$([ $$extra = prep ] || echo --extra $$extra) \
	    --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	    --fork-strategy fewest --upgrade --output-file requirements-$$extra.lock; \
	done
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
