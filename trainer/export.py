"""A trained fold as a SavedModel or an ONNX file that gives probabilities, checked against the Keras model.

In:  RUN/fold=K/model.keras and RUN/preprocessing.json.
Out: a SavedModel folder (`assets.extra/` holds preprocessing.json and model.json) or one `.onnx` file (the
     same texts are metadata properties `bcd.preprocessing` and `bcd.model`), and how far its answers are from
     those of the Keras model.

ONNX graphs are made by Keras's JAX backend in a process of its own: those from TensorFlow are invalid for
ConvNeXt. The batch size of both is free.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from preprocess.atomic import TEMPORARY_SUFFIX, aborting_on_io_error, sync_directory
from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged, RunAborted, UsageError
from preprocess.failures import describe

if TYPE_CHECKING:
    import keras

Floats = npt.NDArray[np.float32]

PREPROCESSING = "preprocessing.json"
MODEL_FACTS = "model.json"
_CONTRASTS, _GRAY = (1.0, 0.1, 0.03), 0.3
_TOLERANCE = 1e-4


class Format(StrEnum):
    """What a model is exported as."""

    SAVEDMODEL = "savedmodel"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and how far it is from the model it was made from."""

    path: Path
    format: Format
    max_abs_difference: float
    """Of probabilities, over random pictures in batches of 1 and 2."""
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a consumer must know beside the preprocessing."""

    input: str
    height: int
    width: int
    views: int | None
    """Places for views in a bag; a view that is not there is all zeros. None: single images."""
    outputs: tuple[str, ...]
    """What each column is the probability of."""

    def as_json(self) -> str:
        """As in model.json."""
        return json.dumps(asdict(self), indent=1)


def export_run(run: Path, fold: int, fmt: Format, out: Path) -> ExportReport:
    """Export one fold of a run.

    Args:
        run: the run's folder.
        fold: which model.
        fmt: savedmodel or onnx.
        out: a folder that does not exist, or a path that ends in .onnx.

    Raises:
        UsageError: the run has no such model, or one of windows; `out` exists; a library that the format
            needs is missing.
        RunAborted: the exported model does not agree with the Keras model, or the disk failed.
    """
    source = run / f"fold={fold}" / "model.keras"
    if not source.is_file():
        raise UsageError(f"{run}: fold {fold} has no finished model (fold={fold}/model.keras)")
    if fmt is Format.ONNX and out.suffix != ".onnx":
        raise UsageError(f"--out {out}: a file of --format onnx ends in .onnx")
    if out.exists():
        raise UsageError(f"{out} exists: delete it, or give another --out")
    from trainer.models import in_float32, load, with_probabilities

    model = with_probabilities(in_float32(load(source)))
    preprocessing = _read_text(run / PREPROCESSING)
    facts = model_facts(model)
    if (facts.height, facts.width) != (size := _size_of(preprocessing)):
        raise UsageError(
            f"{run}: its model takes {facts.height}x{facts.width}, images of its dataset are"
            f" {size[0]}x{size[1]}: it was trained on windows and knows no whole image"
        )
    aside = out.parent / f".{out.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    try:
        with aborting_on_io_error(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        write = _write_savedmodel if fmt is Format.SAVEDMODEL else _write_onnx
        difference = write(model, source, aside, {PREPROCESSING: preprocessing, MODEL_FACTS: facts.as_json()})
        if not difference <= _TOLERANCE:
            raise RunAborted(f"the exported model is off by {difference:.3g}: nothing was kept")
        with aborting_on_io_error(out):
            aside.rename(out)
            sync_directory(out.parent)
    finally:
        _remove(aside)
    return ExportReport(out, fmt, difference, _bytes_of(out))


def model_facts(model: keras.Model) -> ModelFacts:
    """Input and output of a model with probabilities, in words and numbers."""
    from trainer.models import heads_of, size_of, views_of

    height, width = size_of(model)
    columns = ["target"]
    for head in heads_of(model):
        columns += [head.name] if head.logits == 1 else [f"{head.name}={name}" for name in head.classes]
    return ModelFacts("float32 pixels / (2^bits - 1)", height, width, views_of(model), tuple(columns))


def trial_pictures(shape: tuple[int, ...]) -> list[Floats]:
    """Random inputs of this shape in batches of 1 and 2; of the last bag only the first view is there.

    From plain noise to faint noise on gray: a trained model is certain of plain noise, and 1 is like 1.
    """
    rng = np.random.default_rng(0)
    batches = [
        _GRAY + contrast * (rng.random((1 + index % 2, *shape), np.float32) - _GRAY)
        for index, contrast in enumerate(_CONTRASTS)
    ]
    if len(shape) == 4:
        batches[-1][-1, 1:] = 0
    return batches


def _write_savedmodel(model: keras.Model, _source: Path, folder: Path, texts: dict[str, str]) -> float:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            "a SavedModel is written by TensorFlow, which is not installed: --format onnx needs none"
        )
    import tensorflow as tf

    with aborting_on_io_error(folder):
        model.export(folder, format="tf_saved_model", verbose=False)
        extra = folder / "assets.extra"
        extra.mkdir()
        for name, text in texts.items():
            (extra / name).write_text(text, "utf-8")
    served = tf.saved_model.load(str(folder))
    return _difference(model, lambda pictures: served.serve(tf.constant(pictures)).numpy())


def _write_onnx(model: keras.Model, source: Path, path: Path, texts: dict[str, str]) -> float:
    for library in ("jax", "jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            raise UsageError(f"--format onnx needs {library}: install the onnx extra")
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder) / "metadata.json"
        metadata.write_text(json.dumps({f"bcd.{Path(name).stem}": text for name, text in texts.items()}))
        command = [sys.executable, "-m", "trainer.onnx_graph", str(source), str(path), str(metadata)]
        done = subprocess.run(
            command, env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}, capture_output=True
        )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RunAborted(f"the ONNX graph could not be made: {' '.join(last)}")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _difference(model, lambda pictures: session.run(None, {"images": pictures})[0])


def _difference(model: keras.Model, other: Callable[[Floats], Floats]) -> float:
    """The largest absolute difference of probabilities; NaN if any is NaN."""
    pictures = trial_pictures(model.input_shape[1:])
    return float(np.max([np.abs(np.asarray(model(batch)) - other(batch)).max() for batch in pictures]))


def _size_of(preprocessing: str) -> tuple[int, int]:
    """Rows and columns of prepared images. Raises DatasetDamaged."""
    try:
        config = ResultConfig.model_validate_json(preprocessing)
    except ValidationError:
        raise DatasetDamaged(f"{PREPROCESSING} is damaged") from None
    return config.height, config.width


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {describe(error)}") from error


def _remove(path: Path) -> None:
    """Remove what an export left aside, if anything."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
