"""Which images a GPU may decode: decided from codestream facts and header alone.

In:  an Instance, the wavelet level it is wanted at, whether inexact decoding is allowed.
Out: a Route: GPU or CPU, and the reason. The same for every device, library and failure (docs/numerics.md).

A GPU decodes what is exact by declaration and by content: a lossless transfer syntax and the 5/3 transform in
every COD and COC. What it cannot do, or is known to do wrongly without saying so, goes to the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from preprocess.codestream import compression_of
from preprocess.records import CodestreamFacts, Compression, ImageHeader, Instance

MIN_PRECISION, MAX_PRECISION = 9, 16
"""Bits in SIZ. Up to 8 bits stay on the CPU: DALI widens them by another rule on each of its backends."""
MAX_LAYERS = 20
"""Quality layers that nvJPEG2000 decodes, by its user guide."""

_LOSSLESS = frozenset(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"))


class Where(StrEnum):
    """What decodes an image."""

    GPU = "gpu"
    CPU = "cpu"


class Why(StrEnum):
    """Why there."""

    EXACT = "lossless JPEG 2000 or HTJ2K"
    INEXACT = "lossy JPEG 2000 or HTJ2K, allowed by --allow-inexact-gpu"
    NOT_WAVELET = "no GPU decoder is proven exact for this transfer syntax"
    LOSSY = "lossy: only the pinned CPU decoder gives the same pixels everywhere"
    SIGNED = "signed samples, or a sign to extend"
    PRECISION = "8 bits or fewer, or more than 16"
    COMPONENTS = "more than one component"
    GRID = "an origin that is not 0, sub-sampling or several tiles"
    REGION = "a region of interest (RGN)"
    LAYERS = "more quality layers than nvJPEG2000 decodes"
    WORD = "values that share their word with other bits"
    DAMAGED = "an incomplete codestream, or one that contradicts the header"


@dataclass(frozen=True, slots=True)
class Route:
    """Where an image is decoded at a level, and why."""

    where: Where
    why: Why


_Rule = Callable[[ImageHeader, CodestreamFacts], bool]

_TO_CPU: tuple[tuple[Why, _Rule], ...] = (
    (Why.DAMAGED, lambda image, facts: not facts.complete or not _agrees(image, facts)),
    (Why.COMPONENTS, lambda _, facts: facts.components != 1),
    (Why.SIGNED, lambda image, facts: facts.signed or image.pixel_representation != 0),
    (Why.PRECISION, lambda _, facts: not MIN_PRECISION <= facts.precision <= MAX_PRECISION),
    (Why.WORD, lambda image, _: image.high_bit != image.bits_stored - 1 or image.has_overlay_in_pixels),
    (Why.GRID, lambda _, facts: facts.offset or facts.subsampled or facts.tiles != 1),
    (Why.REGION, lambda _, facts: facts.has_roi),
    (Why.LAYERS, lambda _, facts: facts.layers > MAX_LAYERS),
)
"""The first that holds sends the image to the CPU."""


def route(instance: Instance, level: int = 0, *, allow_inexact: bool = False) -> Route:
    """Where an image is decoded at a wavelet level.

    Args:
        instance: as parsed.
        level: 0 … `codestream.deepest_level`; a level that the stream does not have is the CPU's to refuse.
        allow_inexact: `--allow-inexact-gpu`: lossy JPEG 2000 and HTJ2K may differ by 1 from the CPU's pixels.
    """
    image, facts = instance.image, instance.codestream
    wavelet = compression_of(image.transfer_syntax_uid) in (Compression.JPEG_2000, Compression.HTJ2K)
    if facts is None or not wavelet:
        return Route(Where.CPU, Why.NOT_WAVELET)
    for why, holds in _TO_CPU:
        if holds(image, facts):
            return Route(Where.CPU, why)
    if level > facts.levels:
        return Route(Where.CPU, Why.DAMAGED)
    if facts.lossless and image.transfer_syntax_uid in _LOSSLESS:
        return Route(Where.GPU, Why.EXACT)
    return Route(Where.GPU, Why.INEXACT) if allow_inexact else Route(Where.CPU, Why.LOSSY)


def _agrees(image: ImageHeader, facts: CodestreamFacts) -> bool:
    """Whether `check_against_header` would let it pass."""
    return (facts.rows, facts.columns) == (image.rows, image.columns) and (
        facts.precision <= image.bits_allocated
    )
