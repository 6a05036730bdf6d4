"""Padding: which pixels are padding, whether they display dark, and what replaces them (docs/numerics.md).

In:  stored values at any wavelet level, Pixel Padding Value (Range Limit), how the values display.
Out: masks, and stored values with padding replaced. One integer rule for all levels.

A pixel is padding if its value is within T of [low, high] and it is 8-connected to the frame's border through
such pixels. T = max(1, 2^BitsStored / 1024): the transform mixes padding with its neighbours, and lossy
streams do not keep it exactly, so equality alone means nothing at level ≥ 1. What overshoots at the padding's
rim is further away than any T that would spare the tissue: callers that must not see it use `rim`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocess.kernels import seam as kernels
from preprocess.records import ImageHeader, Padding, StoredPixels

Mask = npt.NDArray[np.bool_]

RIM = 3
"""Samples round the padding that a 5/3 low-pass may have mixed with it: 2 at any level, and 1 to spare."""


@dataclass(frozen=True, slots=True)
class PaddingRule:
    """Values within `tolerance` of [low, high] are padding where they are connected to the border."""

    low: int
    high: int
    tolerance: int


def rule(padding: Padding | None, image: ImageHeader) -> PaddingRule | None:
    """The rule of an image: the header's range and T. None without a Pixel Padding Value (0028,0120)."""
    if padding is None:
        return None
    return PaddingRule(padding.low, padding.high, max(1, (1 << image.bits_stored) >> 10))


def mask(pixels: npt.NDArray[np.integer], padding: PaddingRule) -> Mask:
    """Pixels that are padding, at the level of `pixels`. The same rule at every level."""
    low, high = padding.low - padding.tolerance, padding.high + padding.tolerance
    return kernels.border_connected(kernels.within(pixels, low, high))


def rim(padded: Mask) -> Mask:
    """Padding and the samples round it that a wavelet level may have mixed with it."""
    return kernels.dilate(padded, RIM, RIM)


def replacement(
    pixels: npt.NDArray[np.integer], padding: PaddingRule, padded: Mask, inverted: bool, mixed: bool
) -> int | None:
    """What replaces the padding, or None where it displays at least as dark as every unpadded pixel.

    padded: the padding mask of `pixels`. inverted: whether larger stored values display darker. mixed:
    whether the level has mixed padding with its neighbours (level ≥ 1): then its rim says nothing, and only
    what is dark in a whole 3 × 3 neighbourhood is dark, for overshoot at edges and round letters alternates.
    Padding that is brighter by no more than T is left as it is.
    """
    values, unpadded = pixels[padded], ~padded
    if values.size == 0:
        return None
    if mixed:
        pixels = kernels.brightest_of_nine(pixels, inverted)
        unpadded = kernels.erode(~rim(padded), 1, 1)
    if inverted:
        darker = pixels > max(int(values.min()), padding.low) + padding.tolerance
    else:
        darker = pixels < min(int(values.max()), padding.high) - padding.tolerance
    darker &= unpadded
    if not darker.any():
        return None
    return int(pixels[darker].max() if inverted else pixels[darker].min())


def replace(pixels: StoredPixels, padding: PaddingRule, value: int) -> StoredPixels:
    """Pixels with the padding replaced by a stored value. Meant for level 0, before anything averages it."""
    replaced = pixels.copy()
    replaced[mask(pixels, padding)] = value
    return replaced
