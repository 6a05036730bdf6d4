"""A finished training, as `evaluate`, `predict`, `explain`, `export` and `report` use it.

In:  RUN, the folder that `fit` left.
Out: Run: its config, preprocessing, dataset, complete folds, and their models (loaded once).
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged, UsageError
from preprocess.places import Place, place
from trainer.backends.base import choose_backend
from trainer.config import TrainConfig
from trainer.predictions import Predictions
from trainer.runfolder import DATASET, ENVIRONMENT, MODEL, PREDICTIONS, FoldResult, RunFolder

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, slots=True)
class History:
    """A fold's epochs: columns of history.csv by name; NaN where a score does not exist."""

    fold: int
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """One tuple per epoch."""

    def column(self, name: str) -> tuple[float, ...]:
        """One value per epoch. Raises DatasetDamaged."""
        if name not in self.columns or any(len(row) != len(self.columns) for row in self.values):
            raise DatasetDamaged(f"fold={self.fold}/history.csv has no whole column {name}")
        at = self.columns.index(name)
        return tuple(row[at] for row in self.values)


class Run:
    """A run with at least one complete fold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = RunFolder(folder)
        self.config: TrainConfig = self._files.config()
        self.preprocessing: ResultConfig = self._files.preprocessing()
        self.folds = self._files.folds()
        if not self.folds:
            raise UsageError(f"{folder} has no finished fold yet: run bcd-train fit again")
        self._loaded = lru_cache(maxsize=None)(self._load)

    def model(self, fold: int) -> keras.Model:
        """The best model of a complete fold, uncompiled. Raises UsageError."""
        return self._loaded(fold)

    def _load(self, fold: int) -> keras.Model:
        from trainer.models import load

        path = self._files.fold(fold) / MODEL
        if not path.is_file():
            raise UsageError(f"{path.parent} has no {MODEL} any more")
        return load(path)

    def result(self, fold: int) -> FoldResult:
        """What a complete fold came to."""
        found = self._files.result(fold)
        if found is None:
            raise UsageError(f"{self.folder} has no finished fold {fold}")
        return found

    def validation(self, fold: int) -> Predictions:
        """Predictions that `fit` left of the fold's validation images."""
        return Predictions.read(self._files.fold(fold) / PREDICTIONS)

    def history(self, fold: int) -> History:
        """The fold's epochs. Raises DatasetDamaged."""
        path = self._files.fold(fold) / "history.csv"
        try:
            names, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
            values = tuple(tuple(float(cell or "nan") for cell in row) for row in rows)
        except (OSError, ValueError):
            raise DatasetDamaged(f"{path.parent.name}/{path.name} cannot be read") from None
        return History(fold, tuple(names), values)

    @property
    def positive_share(self) -> float:
        """Share of positives among the validation images of all complete folds; 0.5 where there are none."""
        labels = np.concatenate([self.validation(fold).label for fold in self.folds])
        return float(np.nanmean(labels)) if np.isfinite(labels).any() else 0.5

    @cached_property
    def _dataset(self) -> dict[str, object]:
        return self._document(DATASET)

    @property
    def dataset(self) -> Place:
        """Where the dataset lay that it was trained on."""
        return place(str(self._dataset["place"]))

    @property
    def dataset_sha256(self) -> str:
        """Hash of that dataset's manifest."""
        return str(self._dataset["manifest_sha256"])

    @cached_property
    def environment(self) -> dict[str, object]:
        """Versions and devices, as `fit` noted them."""
        return self._document(ENVIRONMENT)

    def _document(self, name: str) -> dict[str, object]:
        try:
            document: dict[str, object] = json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError):
            raise DatasetDamaged(f"{self.folder}/{name} cannot be read") from None
        return document


def open_run(folder: Path) -> Run:
    """Open a run, and let Keras use its backend in this process: to be called before Keras is imported.

    Raises:
        UsageError: it is no run, has no finished fold, was trained on windows, or this process already uses
            another backend.
        DatasetDamaged: its files are not what was written.
    """
    run = Run(folder)
    if run.config.data.window:
        raise UsageError(
            f"{folder} was trained on windows and knows no whole image:"
            f" use it as --weights {folder}/fold={run.folds[0]}/{MODEL}"
        )
    choose_backend(run.config.optimization.backend)
    return run
