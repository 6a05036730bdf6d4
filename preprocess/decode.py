"""Instance → Mammogram: stored values at a wavelet level. The seam between CPU and GPU decoding.

In:  an Instance (headers checked, frame still encoded) and a level.
Out: a Mammogram whose pixels are clamped to SIZ's range, then to BitsStored's (docs/numerics.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from preprocess._codecs import decode_frame
from preprocess.codestream import check_against_header, deepest_level, level_size
from preprocess.errors import RejectedInput
from preprocess.jpeg2000 import Low
from preprocess.records import Instance, Mammogram, StoredPixels
from preprocess.stored import to_stored

COARSE_LONGER_SIDE_PX = 512
"""The breast mask is found on the coarsest level whose longer side has at least this many samples."""


class Decoder(Protocol):
    """Anything that decodes; the same level of the same instance has the same pixels from all of them."""

    name: str

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """Decode at a wavelet level. Raises RejectedInput."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """An instance, and the wavelet level it is wanted at."""

    instance: Instance
    level: int = 0


class BatchDecoder(Decoder, Protocol):
    """A decoder that is fast because many images are in flight."""

    def decode_batch(self, requests: Sequence[Request]) -> list[Mammogram | RejectedInput]:
        """What `decode` gives or raises for each request, in their order. Pixels may be device arrays."""
        ...


class CpuDecoder:
    """The pinned CPU decoders: every transfer syntax, exact wavelet levels.

    Remembers the last coarse level, so that a finer one of the same instance goes on from there.
    """

    name = "cpu"

    _low: tuple[Instance, Low] | None = None

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """Decode one instance at a wavelet level.

        Args:
            instance: as parsed; a codestream that contradicts the header is refused before allocation.
            level: 0 … `codestream.deepest_level`.

        Returns:
            pixels (ceil(rows / 2^level), ceil(columns / 2^level)) of BitsAllocated width by
            PixelRepresentation. `above_bits_stored` is counted at level 0 only: at others, samples overshoot
            by the transform's nature.

        Raises:
            RejectedInput: decode_failed, codestream_truncated, codestream_mismatch, pixel_data_length, color.
            ValueError: the level is not one that this instance may be decoded at.
        """
        image, facts = instance.image, instance.codestream
        if not 0 <= level <= deepest_level(image, facts):
            raise ValueError(f"level {level} is not possible for this image")
        if facts is not None:
            check_against_header(facts, image)
        before, self._low = self._low, None
        low = before[1] if before is not None and before[0] is instance else None
        samples, low = decode_frame(instance.payload, image, facts, level, low)
        if low is not None:
            self._low = instance, low
        expected = level_size(image.rows, image.columns, level)
        if samples.values.shape != expected:
            raise RejectedInput(
                "codestream_mismatch", f"decoded to {samples.values.shape}, expected {expected}"
            )
        stored = to_stored(samples, image)
        return Mammogram(
            instance=instance,
            pixels=stored.pixels,
            level=level,
            decoder=samples.decoder,
            above_bits_stored=stored.outside if level == 0 else 0,
            value_range=stored.value_range,
        )


def decoded_sha256(pixels: StoredPixels) -> str:
    """Hex sha256 of stored values as little-endian C-order bytes (column `decoded_sha256`)."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


def coarse_level(instance: Instance) -> int:
    """The level the breast mask is found on: a function of codestream facts and header alone.

    The coarsest level that the instance allows and whose longer side is still at least
    `COARSE_LONGER_SIDE_PX`; 0 where there are no levels (`roi` then makes its own thumbnail).
    """
    level = deepest_level(instance.image, instance.codestream)
    longer = max(instance.image.rows, instance.image.columns)
    while level and -(-longer >> level) < COARSE_LONGER_SIDE_PX:
        level -= 1
    return level
