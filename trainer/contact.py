"""A sheet of samples beside what augmentation makes of them: the look that finds a wrong setting.

In:  dataset, augmenter.
Out: PNG bytes: one sample a line, first as it is stored, then augmented; 8 bits, at most 192 rows each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocess.png import encode_png
from trainer.augment import Augmenter
from trainer.data import seed_of
from trainer.dataset import Dataset
from trainer.records import Floats

_TALLEST = 192
_GAP = 2
_SAMPLES, _VARIANTS = 6, 7


def contact_sheet(
    dataset: Dataset, augmenter: Augmenter, rows: Sequence[int] | None = None, seed: int = 0
) -> bytes:
    """A PNG of these rows, or of six spread over the dataset. Raises DatasetDamaged."""
    if rows is None:
        spread = np.linspace(0, len(dataset) - 1, min(_SAMPLES, len(dataset)))
        rows = [int(row) for row in spread]
    lines = [_line(dataset, augmenter, int(row), seed) for row in rows]
    return encode_png(np.concatenate([line for pair in lines for line in (pair, _gap(pair))][:-1]))


def _line(dataset: Dataset, augmenter: Augmenter, row: int, seed: int) -> npt.NDArray[np.uint8]:
    stored = np.divide(dataset.pixels(row), np.float32((1 << dataset.bits) - 1), dtype=np.float32)
    images = [stored, *(augmenter.apply(stored, seed_of(seed, number, row)) for number in range(_VARIANTS))]
    small = [_thumbnail(image) for image in images]
    upright = np.full((len(small[0]), _GAP), 255, np.uint8)
    return np.concatenate([part for one in small for part in (one, upright)][:-1], axis=1)


def _gap(line: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.full((_GAP, line.shape[1]), 255, np.uint8)


def _thumbnail(image: Floats) -> npt.NDArray[np.uint8]:
    """Means of square blocks, as many as fit, in 8 bits: for eyes only."""
    block = min(-(-len(image) // _TALLEST), *image.shape)
    height, width = (size // block for size in image.shape)
    blocks = image[: height * block, : width * block].reshape(height, block, width, block)
    means: Floats = blocks.mean(axis=(1, 3))
    return np.rint(means * 255).astype(np.uint8)
