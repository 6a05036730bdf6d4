"""The coarse image of the breast search, made from the full one where that is decoded in any case.

In:  requests of one image's stages: first a coarse level, then the level of the picture.
Out: the same pixels as decoding each; the codestream is gone through once.

The 5/3 transform is a bijection of integers, so transforming the decoded image gives the low-pass band that
it was made from. Needed for that: one tile at the origin, and nothing clamped on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from preprocess.config import BitsOverflow, ResultConfig
from preprocess.decode import Decoder
from preprocess.geometry import is_full_certain
from preprocess.kernels import seam as kernels
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
        if first_level(instance, level, self.config) == level:
            return self.inner.decode(instance, level)
        full = self._full = self.inner.decode(instance, 0)
        return self.inner.decode(instance, level) if full.above_bits_stored else derived(full, level)


def first_level(instance: Instance, level: int, config: ResultConfig) -> int:
    """What to decode where `level` is asked for: level 0, if that is asked for next and gives both."""
    return 0 if level and is_derivable(instance) and is_needed(instance, config) else level


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
    """The wavelet level of a derivable image, from its level 0, of which nothing was clamped; on the host."""
    facts, band = full.instance.codestream, full.pixels
    assert facts is not None
    for _ in range(level):
        band = kernels.low_pass(band)
    stored = to_stored(Samples(band, facts.precision, facts.signed, full.decoder), full.instance.image)
    return replace(full, pixels=stored.pixels, level=level, value_range=stored.value_range)
