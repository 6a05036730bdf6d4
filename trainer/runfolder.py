"""RUN: the folder that a training leaves, and that explains itself.

In:  the config, the dataset.
Out: a RunFolder that is locked for this training and holds what was asked for, or a clear refusal.

    RUN/
      config.yaml          every option that decides what is learned; `--config RUN/config.yaml` takes them up
      dataset.json         the dataset's place, manifest hash, counts
      preprocessing.json   its ResultConfig: what prediction does to a DICOM file
      environment.json     versions, devices, options that decide no result
      weights.json         where the first weights came from, and their hash
      augmentation.yaml    the augmentation, as --augment takes it
      inputs.json          hashes of what the config names: dataset, augmentation, weights, lesions
      fold=K/              model.keras, predictions.parquet, history.csv, history.jsonl, logs/, checkpoint/,
                           and, written last, result.json: its presence says that the fold is complete
      run.json             written last: its presence says that the folds it names are complete
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import ValidationError

from preprocess.atomic import (
    aborting_on_io_error,
    clean_leftovers,
    remove_file,
    remove_folder,
    write_atomically,
)
from preprocess.config import ResultConfig
from preprocess.errors import ConfigMismatch, DatasetDamaged, UsageError
from preprocess.locks import lock
from trainer.config import Backend, ExecutionConfig, TrainConfig
from trainer.tracking import without_user

if TYPE_CHECKING:
    from trainer.dataset import Dataset

STATE = ".bcd"
CONFIG, DATASET, PREPROCESSING, RUN = "config.yaml", "dataset.json", "preprocessing.json", "run.json"
ENVIRONMENT, WEIGHTS, RESULT, MODEL = "environment.json", "weights.json", "result.json", "model.keras"
PREDICTIONS, AUGMENTATION, INPUTS = "predictions.parquet", "augmentation.yaml", "inputs.json"
_OURS = frozenset(
    {STATE, CONFIG, DATASET, PREPROCESSING, RUN, ENVIRONMENT, WEIGHTS, AUGMENTATION, INPUTS, "report.html"}
)
_OTHERS = ("fold=", "evaluation", "explanations", "export")
_PACKAGES = (
    "bcd-mammography", "keras", "numpy", "albumentations", "scikit-learn", "opencv-python-headless"
)  # fmt: skip
_BACKENDS = {Backend.TENSORFLOW: ("tensorflow", "tensorflow-cpu"), Backend.JAX: ("jax", "jaxlib")}


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a fold came to: result.json."""

    fold: int
    best_epoch: int
    """From 1."""
    monitor: str
    """What the epoch was chosen by: the metric of --monitor, or log_loss."""
    score: float | None
    """Its value; None where validation had one class or none, so that the last epoch was taken."""
    epochs: int
    """How many were trained; early stopping may leave some out."""
    seconds: float
    train_images: int
    validation_images: int
    corrupt_records: int
    """Records left out by --on-corrupt skip."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """What was written. Raises FileNotFoundError or DatasetDamaged."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            raise DatasetDamaged(f"{path.parent.name}/{path.name} is not what was written") from None


@dataclass(frozen=True, slots=True)
class Identity:
    """What RUN belongs to: the config, and the contents of what it names."""

    config: TrainConfig
    dataset: Dataset
    augmentation: str
    """As YAML."""
    weights: str
    """Hash of the first weights; empty without."""
    lesions: str = ""
    """Hash of what is learned of lesions' places; empty without."""

    def inputs(self) -> dict[str, str]:
        """Hashes by name: inputs.json."""
        augment = hashlib.sha256(self.augmentation.encode()).hexdigest()
        return {
            "dataset": self.dataset.sha256,
            "augment": augment,
            "weights": self.weights,
            "lesions": self.lesions,
        }


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder."""

    path: Path

    def fold(self, fold: int) -> Path:
        """Folder of one fold."""
        return self.path / f"fold={fold}"

    def result(self, fold: int) -> FoldResult | None:
        """A complete fold's result; None if it is not complete."""
        try:
            return FoldResult.read(self.fold(fold) / RESULT)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folds(self) -> tuple[int, ...]:
        """Complete folds, ascending."""
        numbers = sorted(int(path.parent.name[5:]) for path in self.path.glob(f"fold=*/{RESULT}"))
        return tuple(numbers)

    def config(self) -> TrainConfig:
        """The config of the run. Raises UsageError, or DatasetDamaged if the file was changed."""
        try:
            return TrainConfig.from_flat(yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"{self.path} is no run of bcd-train: it has no {CONFIG}") from None
        except (ValidationError, KeyError, TypeError, yaml.YAMLError):
            raise DatasetDamaged(f"{self.path}/{CONFIG} is not what was written") from None

    def preprocessing(self) -> ResultConfig:
        """How the dataset's images were made. Raises UsageError if it is missing or was changed."""
        try:
            return ResultConfig.model_validate_json((self.path / PREPROCESSING).read_bytes())
        except (OSError, ValidationError):
            raise UsageError(f"{self.path} has no valid {PREPROCESSING}: not a run of bcd-train") from None

    def finish(self, fold: int, result: FoldResult) -> None:
        """Say that a fold is complete: the last of its files."""
        write_json(self.fold(fold) / RESULT, asdict(result))
        remove_folder(self.fold(fold) / "checkpoint")

    def finish_run(self) -> None:
        """Say which folds are complete."""
        results = [self.result(fold) for fold in self.folds()]
        folds = [asdict(result) for result in results if result is not None]
        write_json(self.path / RUN, {"status": "finished", "folds": folds})


@contextmanager
def opened(path: Path, identity: Identity, *, overwrite: bool) -> Iterator[RunFolder]:
    """Create or take up RUN and hold its lock.

    Raises UsageError, ConfigMismatch, OutputLocked, RunAborted.
    """
    _refuse_foreign(path)
    is_new = not path.is_dir()
    held = lock(path / STATE)
    run = RunFolder(path)
    try:
        differences = _differences(run, identity)
        if differences:
            if not overwrite:
                told = "; ".join(differences)
                raise ConfigMismatch(f"{path} was made otherwise ({told}); --overwrite replaces it")
            _clear(path)
        _clean(path)
        _describe(run, identity)
        yield run
    finally:
        begun = any(path.glob("fold=*"))
        held.release()
        if is_new and not begun:
            remove_folder(path)  # made for nothing


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write JSON atomically. Raises RunAborted."""
    write_atomically(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def write_environment(
    run: RunFolder, execution: ExecutionConfig, devices: tuple[str, ...], backend: Backend
) -> None:
    """Note on what this part of the training runs: of the backends, the one that it uses."""
    versions = {}
    for name in (*_PACKAGES, *_BACKENDS[backend]):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    options = execution.model_dump(mode="json")
    if execution.mlflow is not None:
        options["mlflow"] = without_user(execution.mlflow)
    document = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "devices": list(devices),
        "packages": versions,
        "options": options,
    }
    write_json(run.path / ENVIRONMENT, document)


def _refuse_foreign(path: Path) -> None:
    with aborting_on_io_error(path):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is not a folder")
        names = os.listdir(path) if path.is_dir() else []
    foreign = sorted(name for name in names if name not in _OURS and not name.startswith((*_OTHERS, ".")))
    if foreign:
        raise UsageError(f"{path} holds other files ({', '.join(foreign[:3])}); give --out an empty folder")


def _differences(run: RunFolder, identity: Identity) -> list[str]:
    """Names and values of what RUN was made with and what is asked for, where they differ."""
    if not (run.path / CONFIG).exists() or not (run.path / INPUTS).exists():
        begun = any(run.path.glob("fold=*"))  # nobody knows by which config: an --overwrite was interrupted
        return [f"it holds folds, but no {CONFIG} or {INPUTS}"] if begun else []
    try:
        there = run.config().flat()
        stored = {"lesions": ""} | json.loads((run.path / INPUTS).read_bytes())  # older runs knew none
        known = {name: str(stored[name]) for name in identity.inputs()}
    except (DatasetDamaged, KeyError, ValueError, TypeError):
        return [f"its {CONFIG} or {INPUTS} is damaged"]
    found = [
        f"{name}: {there[name]!r} there, {value!r} asked for"
        for name, value in identity.config.flat().items()
        if there[name] != value
    ]
    return found + [
        f"content of {name}: sha256 {known[name][:12] or 'none'} there, {value[:12] or 'none'} asked for"
        for name, value in identity.inputs().items()
        if known[name] != value
    ]


def _describe(run: RunFolder, identity: Identity) -> None:
    dataset = identity.dataset
    manifest = dataset.manifest
    text = yaml.safe_dump(identity.config.flat(), sort_keys=False, allow_unicode=True)
    document = {
        "place": str(dataset.place.absolute() if isinstance(dataset.place, Path) else dataset.place),
        "manifest_sha256": dataset.sha256,
        "images": len(dataset),
        "counts": manifest.counts.model_dump(mode="json"),
        "folds": [fold.model_dump(mode="json") for fold in manifest.folds],
    }
    write_json(run.path / PREPROCESSING, manifest.config.model_dump(mode="json"))
    write_json(run.path / DATASET, document)
    write_atomically(run.path / AUGMENTATION, identity.augmentation.encode())
    write_json(run.path / INPUTS, identity.inputs())
    write_atomically(run.path / CONFIG, text.encode())


def _clean(path: Path) -> None:
    """Remove what a killed training left half-written, and checkpoints of complete folds."""
    clean_leftovers(path)
    for done in path.glob(f"fold=*/{RESULT}"):
        remove_folder(done.parent / "checkpoint")
    for aside in path.glob("fold=*/.*.keras"):
        remove_file(aside)


def _clear(path: Path) -> None:
    """Remove everything but the lock; run.json and results first, so that no part claims to be complete.

    Config and inputs last: what is left of an interrupted clearing is never taken for another config's.
    """
    for done in (path / RUN, *path.glob(f"fold=*/{RESULT}")):
        remove_file(done)
    with aborting_on_io_error(path):
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name in (CONFIG, INPUTS)):
            if entry.name == STATE:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
