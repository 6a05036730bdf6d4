"""Windows: training on parts of images, around lesions and elsewhere, at a fraction of the cost.

In:  dataset, labels, the training's config.
Out: LesionMaps, if --lesions asks for them; Windows, if --window does: where the window of a row lies, a pure
     function of row and seed.

A lesion covers a hundredth of a mammogram: whole images teach what it looks like a hundred times slower. What
windows have taught goes into a model of whole images by --weights (Shen et al., Scientific Reports 9, 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.errors import UsageError
from preprocess.reading import Pixels
from trainer.architectures import architecture_of
from trainer.config import BagPooling, TrainConfig
from trainer.dataset import Dataset
from trainer.lesions import Footprint, LesionMaps, content_of, lesion_maps, read_lesions
from trainer.records import Split
from trainer.targets import Labels

JITTER = 0.3
"""A lesion's middle lies within so many window lengths of the window's."""
_TRIES = 8
_STREAM = 0x71D0


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of `size` × `size` pixels in the images of a dataset."""

    size: int
    shape: tuple[int, int]
    """Of the images."""
    lesions: LesionMaps
    models: tuple[Footprint, ...] = field(repr=False)
    """Lesions of the training images: half of the windows without a lesion lie where one of these does."""
    contents: tuple[Footprint, ...] = field(repr=False)
    """By row: the part of the image that is no letterbox."""

    def place(self, row: int, seed: int, stored: Pixels) -> tuple[slice, slice]:
        """Rows and columns of the window that `seed` chooses in image `row`, whose pixels are `stored`.

        Of a positive image it holds the middle of one of its lesions. Otherwise its middle is tissue: half of
        the time where a lesion of another image is, else anywhere.
        """
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([_STREAM, row, seed])))
        lesions = self.lesions.places[row]
        if lesions:
            return self._around(lesions[int(rng.integers(len(lesions)))], rng)
        as_lesions = bool(rng.integers(2)) and bool(self.models)
        darkest, found = stored.min(), (slice(0, self.size), slice(0, self.size))
        for _ in range(_TRIES):
            if as_lesions:
                found = self._around(self.models[int(rng.integers(len(self.models)))], rng)
            else:
                found = self._within(self.contents[row], rng)
            middle = tuple((part.start + part.stop) // 2 for part in found)
            if stored[middle] > darkest:
                break
        return found

    def _around(self, lesion: Footprint, rng: np.random.Generator) -> tuple[slice, slice]:
        rows, columns = rng.uniform(-JITTER, JITTER, 2) * self.size
        middle = ((lesion.top + lesion.bottom) / 2 + rows, (lesion.left + lesion.right) / 2 + columns)
        return self._centred(middle)

    def _within(self, content: Footprint, rng: np.random.Generator) -> tuple[slice, slice]:
        return self._centred(
            (rng.uniform(content.top, content.bottom), rng.uniform(content.left, content.right))
        )

    def _centred(self, middle: tuple[float, float]) -> tuple[slice, slice]:
        """The window about a place, moved into the image."""
        begins = (
            int(np.clip(round(at - self.size / 2), 0, length - self.size))
            for at, length in zip(middle, self.shape, strict=True)
        )
        row, column = begins
        return slice(row, row + self.size), slice(column, column + self.size)


@dataclass(frozen=True, slots=True)
class Marks:
    """What batches take from lesion boxes."""

    lesions: LesionMaps | None = None
    """Where the lesions are, if that is to be learned."""
    windows: Windows | None = None
    """What part of each image is shown; None: all of it."""


NO_MARKS = Marks()


def lesions_of(dataset: Dataset, labels: Labels, config: TrainConfig) -> LesionMaps | None:
    """The lesion maps that --lesions asks for, on the grid of the model's features.

    Raises:
        UsageError: no such table; options that need one, or do not go together.
    """
    data = config.data
    if data.lesions is None:
        for given, name in ((data.lesion_rule, "--lesion-rule"), (data.window, "--window")):
            if given:
                raise UsageError(f"{name} needs --lesions")
        return None
    if data.window > min(dataset.height, dataset.width):
        raise UsageError(f"--window {data.window}: images are {dataset.height}x{dataset.width}")
    if data.window and data.bags is not BagPooling.NONE:
        raise UsageError("--window shows parts of images, --bags whole breasts: not both")
    table = read_lesions(Path(data.lesions), data.lesion_rule)
    grid = architecture_of(config.model.model).grid(shown_size(dataset, config))
    return lesion_maps(dataset.rows, labels, table, grid)


def shown_size(dataset: Dataset, config: TrainConfig) -> tuple[int, int]:
    """Rows and columns that the model takes."""
    window = config.data.window
    return (window, window) if window else (dataset.height, dataset.width)


def windows_of(
    dataset: Dataset, lesions: LesionMaps | None, config: TrainConfig, fold: Split
) -> Windows | None:
    """The windows that --window asks for; lesions of the fold's training images are their models."""
    if not config.data.window or lesions is None:
        return None
    models = tuple(place for row in fold.train for place in lesions.places[row] or ())
    contents = tuple(content_of(row) for row in dataset.rows)
    return Windows(config.data.window, (dataset.height, dataset.width), lesions, models, contents)
