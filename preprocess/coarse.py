"""The coarse image of the breast search, made from the full one where that is decoded in any case.

In:  requests of one image's stages: first a coarse level, then the level of the picture.
Out: the same pixels as decoding each; the codestream is gone through once.

The 5/3 transform is a bijection of integers, so transforming the decoded image gives the low-pass band that
it was made from. Needed for that: one tile at the origin, and nothing clamped on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled
from preprocess.config import BitsOverflow, ResultConfig
from preprocess.decode import Decoder
from preprocess.geometry import is_full_certain
from preprocess.records import Instance, Mammogram
from preprocess.stored import Samples, to_stored

LOSSLESS_SYNTAXES = frozenset(
    {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"}
)
"""Streams of these are not cut short, so that full-size samples never exceed their range."""


@dataclass(slots=True)
class FullFirst:
    """A decoder for the stages of one image: decodes it fully at once where nothing less will do."""

    inner: Decoder
    config: ResultConfig
    name: str = "full first"
    _full: Mammogram | None = field(default=None, repr=False)

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """As the inner decoder. Raises RejectedInput."""
        if self._full is not None and self._full.instance is instance and level == 0:
            return self._full
        if not level or not is_derivable(instance) or not is_needed(instance, self.config):
            return self.inner.decode(instance, level)
        full = self._full = self.inner.decode(instance, 0)
        return self.inner.decode(instance, level) if full.above_bits_stored else derived(full, level)


def is_needed(instance: Instance, config: ResultConfig) -> bool:
    """Whether level 0 will be asked for, wherever the breast lies."""
    return config.bits_overflow is BitsOverflow.REJECT or is_full_certain(instance.image, config)


def is_derivable(instance: Instance) -> bool:
    """Whether levels are a function of the full image, by headers."""
    image, facts = instance.image, instance.codestream
    return (
        facts is not None
        and instance.partial is None
        and image.transfer_syntax_uid in LOSSLESS_SYNTAXES
        and facts.lossless
        and facts.tiles == 1
        and not (facts.offset or facts.subsampled or facts.has_roi)
        and facts.signed == bool(image.pixel_representation)
        and image.high_bit == image.bits_stored - 1
        and not image.has_overlay_in_pixels
    )


def derived(full: Mammogram, level: int) -> Mammogram:
    """The wavelet level of an image that `is_derivable`, from its level 0, of which nothing was clamped."""
    facts = full.instance.codestream
    assert facts is not None
    band: npt.NDArray[np.integer] = np.ascontiguousarray(full.pixels)
    for _ in range(level):
        band = _low_pass(band)
    stored = to_stored(Samples(band, facts.precision, facts.signed, full.decoder), full.instance.image)
    return replace(full, pixels=stored.pixels, level=level, value_range=stored.value_range)


@compiled
def _low_pass(x: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """One 5/3 step (T.800 F-9, F-10), columns before rows; `wavelet.low_pass_53` is its yardstick.

    A row of the result needs the details above and below it: each is made once, the last one is kept.
    """
    rows, columns = x.shape
    low = np.empty(((rows + 1) // 2, (columns + 1) // 2), np.int32)
    above, below = np.empty(columns, np.int32), np.empty(columns, np.int32)
    line = np.empty(columns, np.int32)
    for row in range(low.shape[0]):
        if 2 * row + 1 < rows:
            _detail(x[2 * row], x[2 * row + 1], x[min(2 * row + 2, rows - 1 - (rows & 1 ^ 1))], below)
        if row == 0:
            above[:] = below
        if rows == 1:
            for column in range(columns):
                line[column] = x[0, column]
        else:
            _smooth(x[2 * row], above, below if 2 * row + 1 < rows else above, line)
        _along(line, low[row])
        above, below = below, above
    return low


@compiled
def _detail(
    before: npt.NDArray[np.integer],
    odd: npt.NDArray[np.integer],
    after: npt.NDArray[np.integer],
    out: npt.NDArray[np.int32],
) -> None:
    for i in range(out.size):
        out[i] = np.int32(odd[i]) - ((np.int32(before[i]) + np.int32(after[i])) >> np.int32(1))


@compiled
def _smooth(
    even: npt.NDArray[np.integer],
    before: npt.NDArray[np.int32],
    after: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
) -> None:
    for i in range(out.size):
        out[i] = np.int32(even[i]) + ((before[i] + after[i] + np.int32(2)) >> np.int32(2))


@compiled
def _along(line: npt.NDArray[np.int32], out: npt.NDArray[np.int32]) -> None:
    """The same step along one row."""
    size = line.size
    if size == 1:
        out[0] = line[0]
        return
    before = line[1] - ((line[0] + line[2 if size > 2 else 0]) >> np.int32(1))
    for i in range(out.size):
        after = before
        if 2 * i + 1 < size:
            right = line[2 * i + 2] if 2 * i + 2 < size else line[2 * i]
            after = line[2 * i + 1] - ((line[2 * i] + right) >> np.int32(1))
        out[i] = line[2 * i] + ((before + after + np.int32(2)) >> np.int32(2))
        before = after
