# Two commands do everything on a fresh machine with Python 3.11-3.13, make and a C compiler:
#   make demo    phantom mammograms -> dataset -> verified -> classifier -> reports, in minutes
#   make test    environment, ruff, mypy --strict, import-linter, pytest
# and on a machine with a GPU: make gpu-check    exactness and speed of --gpu, one JSON in bench/results, 8 minutes
# and for a night: make chaos (kill -9, failing disks, memory), make fuzz (10,000 damaged files).
# make learn trains a model that finds most phantom lesions and judges patients that it has not seen: two hours on two cores.
# make image-check builds and runs the container images, where buildah and debootstrap are installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
LEARN := learn

# Bytecode is kept, whatever the environment says: the programs of a test or a demo start hundreds of times.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: demo test lint types imports pytest chaos chaos-train fuzz fuzz-nightly models stores mlflow gpu-check image-check lock learn clean

demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/bcd-bench phantom $(DEMO)/phantoms --patients 8 --seed 1 --workers 2
	$(BIN)/bcd-prep run $(DEMO)/phantoms --out $(DEMO)/dataset --size 1472x768 --folds 4 \
		--format tfrecord --format parquet --format png
	$(BIN)/bcd-prep verify $(DEMO)/dataset
	$(BIN)/bcd-train fit $(DEMO)/dataset --out $(DEMO)/run --model resnet_tiny --weights phantoms --head-blocks 0 --pooling top \
		--dropout 0 --lesions $(DEMO)/phantoms/lesions.csv --epochs 2 --fold all
	$(BIN)/bcd-train predict $(DEMO)/run $(DEMO)/phantoms/test_images --out $(DEMO)/submission.csv --submission
	@echo
	@echo "Open $(DEMO)/dataset/report.html and $(DEMO)/run/report.html in a browser."
	@echo "The dataset is in $(DEMO)/dataset, the model in $(DEMO)/run, predictions in $(DEMO)/submission.csv."

# docs/phantoms.md says what each step is for, and what came of it.
TOP := --model resnet_tiny --head-blocks 0 --pooling top --dropout 0 --lesions $(LEARN)/phantoms/lesions.csv \
	--lesion-weight 3 --positive-share 0.5 --weight-decay 0.02 --ema 0.99 --precision mixed_bfloat16 --cache 9500000000
HALF := --test-patients 0 --size-factor 0.5 --positive-rate 1 --workers 2
learn: $(READY)
	rm -rf $(LEARN)
	$(BIN)/bcd-bench phantom $(LEARN)/phantoms --patients 1000 --seed 131 --syntax jpeg-lossless-sv1 $(HALF)
	$(BIN)/bcd-bench phantom $(LEARN)/unseen --patients 120 --seed 77 $(HALF) --ceiling 60
	$(BIN)/bcd-prep run $(LEARN)/phantoms --out $(LEARN)/dataset --size 1472x768 --folds 10
	$(BIN)/bcd-prep run $(LEARN)/unseen --out $(LEARN)/unseen-dataset --size 1472x768
	$(BIN)/bcd-train fit $(LEARN)/dataset --out $(LEARN)/windows --weights none --window 256 --batch-size 16 \
		--learning-rate 2e-3 --warmup-epochs 1 --epochs 36 --monitor roc_auc --augment docs/windows.yaml $(TOP)
	$(BIN)/bcd-train fit $(LEARN)/dataset --out $(LEARN)/wider --weights $(LEARN)/windows/fold=0/model.keras --window 640 \
		--learning-rate 7e-4 --warmup-epochs 0.2 --epochs 5 --monitor roc_auc --augment docs/phantoms.yaml $(TOP)
	$(BIN)/bcd-train fit $(LEARN)/dataset --out $(LEARN)/whole --weights $(LEARN)/wider/fold=0/model.keras \
		--learning-rate 4e-4 --warmup-epochs 0.1 --epochs 2 --monitor breast_roc_auc --augment docs/phantoms.yaml $(TOP)
	$(BIN)/bcd-train evaluate $(LEARN)/whole $(LEARN)/unseen-dataset --tta flips
	cat $(LEARN)/unseen/ceiling.json

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

# OUT in S3, against a server on this machine. Its packages are not in the lock file.
stores: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[stores]"
	$(BIN)/python -m pytest tests/stores

# Trainings told to MLflow by its own client. Its packages are not in the lock file.
mlflow: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[mlflow]"
	$(BIN)/python -m pytest tests/tracking

gpu-check: $(READY)
	$(BIN)/python -m bench.gpu_check

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

# Builds both images on a Debian made here and runs them, where buildah, debootstrap and root are to be had.
image-check: $(READY)
	$(BIN)/python docker/check.py prep
	$(BIN)/python docker/check.py train

# Versions and hashes, no index URLs. Run after changing dependencies in pyproject.toml. What bcd-prep computes
# with has the same versions in all of them. build: what the wheel itself is built with, for the images.
COMPILE := PYTHONPATH=.venv-lock .venv-lock/bin/uv pip compile --universal --python-version 3.11 --upgrade \
  --generate-hashes --no-header --no-annotate --fork-strategy fewest
lock:
	$(PYTHON) -m pip install --quiet --target .venv-lock uv
	$(COMPILE) pyproject.toml --output-file requirements-prep.lock
	for extras in dev gpu-cu12 gpu-cu13 "train-gpu onnx" "train-jax-gpu onnx"; do \
	  $(COMPILE) pyproject.toml --constraint requirements-prep.lock $$(printf -- '--extra %s ' $$extras) \
	    --output-file requirements-$${extras%% *}.lock || exit 1; \
	done
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(COMPILE) - --output-file requirements-build.lock
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) $(DEMO) $(LEARN) build *.egg-info
