"""Probabilities of images: models, batches and flips in, one number per row out.

In:  one model or an ensemble, EvaluationBatches.
Out: float64 (n,), NaN for rows that no batch held (corrupt records that were left out).

Used by `evaluate` and by `predict` alike, one example at a time: the same image gives the same number to the
last bit, whatever stands beside it. (In larger batches places differ, by up to 5e-8.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from preprocess.errors import RunAborted
from trainer.config import DataConfig
from trainer.records import Batch, Floats, Rows

Doubles = npt.NDArray[np.float64]


class Tta(StrEnum):
    """Test-time augmentation: the mean over mirrored pictures."""

    NONE = "none"
    VERTICAL = "vertical"
    """As it is, and upside down."""
    FLIPS = "flips"
    """As it is, upside down, mirrored, and both."""


class Predictor(Protocol):
    """A Keras model, or anything that predicts as one does."""

    def predict_on_batch(self, x: Floats) -> Floats:
        """Logits (B, K) of images (B, …, H, W, 1); column 0 is the target."""
        ...


def one_by_one(config: DataConfig) -> DataConfig:
    """The config for EvaluationBatches of single examples."""
    return config.model_copy(update={"batch_size": 1})


_MIRRORS: dict[Tta, tuple[tuple[int, ...], ...]] = {
    Tta.NONE: ((),),
    Tta.VERTICAL: ((), (-3,)),
    Tta.FLIPS: ((), (-3,), (-2,), (-3, -2)),
}
"""Axes to mirror along: −3 is rows, −2 columns."""


def probabilities(
    models: Sequence[Predictor], batches: Iterable[Batch], count: int, tta: Tta = Tta.NONE
) -> Doubles:
    """Mean probability of each row over models and mirrored pictures.

    Args:
        models: at least one; each sees every batch.
        batches: with `rows` (B,), or (B, V) where all views of a bag get the bag's probability.
        count: rows of the dataset.
        tta: which mirrored pictures to average over.

    Raises:
        RunAborted: an answer is no number.
    """
    found = np.full(count, np.nan)
    for batch in batches:
        mean = np.mean(
            [_once(model, batch.images, axes) for model in models for axes in _MIRRORS[tta]], axis=0
        )
        counted = batch.weights > 0
        rows = batch.rows.reshape(len(mean), -1)
        values = np.broadcast_to(mean[:, None], rows.shape)
        kept = counted[:, None] & (rows >= 0)
        if not np.isfinite(values[kept]).all():
            raise RunAborted("a model's answer is no number: its sums overflow for some image")
        found[rows[kept]] = values[kept]
    return found


def with_left_out_views(found: Doubles, left_out: Iterable[tuple[Rows, Rows]]) -> Doubles:
    """Give views that a bag had no place for its probability: it is the breast's.

    Args:
        found: (n,) from `probabilities`.
        left_out: by breast, the rows that were in the bag, and those that were not.
    """
    found = found.copy()
    for shown, rest in left_out:
        known = found[shown][~np.isnan(found[shown])]
        if known.size:
            found[rest] = known[0]
    return found


def _once(model: Predictor, images: Floats, axes: tuple[int, ...]) -> Doubles:
    seen = np.ascontiguousarray(np.flip(images, axes)) if axes else images
    return sigmoid(np.asarray(model.predict_on_batch(seen))[:, 0])


def sigmoid(logits: npt.NDArray[np.floating]) -> Doubles:
    """1 / (1 + e^−x) in float64, without overflow."""
    x = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small), np.float64)
