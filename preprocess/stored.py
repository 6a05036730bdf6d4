"""Samples as a codec gives them → stored values: sign, position in the word, clamping (docs/numerics.md).

In:  integer samples, and what their source says of sign and precision.
Out: stored values of BitsAllocated width and PixelRepresentation's sign, within BitsStored's range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled
from preprocess.errors import RejectedInput
from preprocess.records import ImageHeader, StoredPixels

_Values = npt.NDArray[np.integer[Any]]

_DTYPES: dict[tuple[int, int], type[np.integer[Any]]] = {
    (8, 0): np.uint8,
    (8, 1): np.int8,
    (16, 0): np.uint16,
    (16, 1): np.int16,
}


@dataclass(frozen=True, slots=True)
class Samples:
    """What a codec gave: 2-D integers of `precision` bits; unsigned ones may be numbers or bit patterns."""

    values: _Values
    precision: int
    signed: bool
    decoder: str


def stored_dtype(image: ImageHeader) -> np.dtype[np.integer[Any]]:
    """BitsAllocated width by PixelRepresentation.

    Raises:
        RejectedInput: unsupported_bits for other widths than 8 and 16, invalid_attribute where rows, columns
            or BitsStored make no sense (parsing refuses both earlier).
    """
    if image.rows < 1 or image.columns < 1 or not 1 <= image.bits_stored <= image.bits_allocated:
        raise RejectedInput(
            "invalid_attribute",
            f"{image.rows}x{image.columns} with {image.bits_stored} of {image.bits_allocated} bits",
        )
    try:
        return np.dtype(_DTYPES[image.bits_allocated, image.pixel_representation])
    except KeyError:
        raise RejectedInput("unsupported_bits", f"{image.bits_allocated} bits allocated") from None


def stored_range(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest value of `bits` bits."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values, and what was seen on the way."""

    pixels: StoredPixels
    outside: int
    """How many samples lay outside BitsStored's range and were clamped."""
    value_range: tuple[int, int]
    """Smallest and largest of the pixels."""


def to_stored(samples: Samples, image: ImageHeader) -> Stored:
    """Stored values of samples.

    Where the word holds more than the value (HighBit other than BitsStored - 1, overlay planes in unused
    bits) the value's bits are cut out, and nothing is left to clamp. Otherwise unsigned samples under
    PixelRepresentation 1 get their sign, signed ones under 0 are taken as bit patterns, and what then exceeds
    BitsStored is clamped, first to the codestream's own range.

    Raises:
        RejectedInput: unsupported_bits, invalid_attribute for a HighBit outside the word.
    """
    dtype = stored_dtype(image)
    if image.high_bit != image.bits_stored - 1 or image.has_overlay_in_pixels:
        pixels = _cut_out(samples.values, image).astype(dtype)
        return Stored(pixels, 0, value_range(pixels))
    values = samples.values
    own = stored_range(samples.precision, samples.signed)
    allowed = stored_range(image.bits_stored, image.pixel_representation == 1)
    if samples.signed != bool(image.pixel_representation) and not _are_numbers(samples, image):
        values = _reinterpret(samples, image)
        own = (min(int(values.min()), allowed[0]), max(int(values.max()), allowed[1]))
    if values.dtype == dtype:
        low, high = value_range(values)
        if max(own[0], allowed[0]) <= low and high <= min(own[1], allowed[1]):
            return Stored(values, 0, (low, high))
    pixels = np.empty(values.shape, dtype)
    outside, low, high = _clamp(np.ascontiguousarray(values), own, allowed, pixels)
    return Stored(pixels, outside, (low, high))


def value_range(pixels: StoredPixels) -> tuple[int, int]:
    """Smallest and largest value."""
    low, high = _extremes(np.ascontiguousarray(pixels))
    return int(low), int(high)


@compiled
def _extremes(pixels: StoredPixels) -> tuple[int, int]:
    low = high = pixels[0, 0]
    for row in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            low, high = min(low, pixels[row, column]), max(high, pixels[row, column])
    return low, high


def _are_numbers(samples: Samples, image: ImageHeader) -> bool:
    """Whether samples of the other sign than the header's mean the same in both: none has the top bit."""
    width = min(samples.precision, image.bits_stored) if image.pixel_representation else samples.precision
    _, top = stored_range(width, True)
    return int(samples.values.min()) >= 0 and int(samples.values.max()) <= top


@compiled
def _clamp(
    values: _Values, own: tuple[int, int], allowed: tuple[int, int], out: StoredPixels
) -> tuple[int, int, int]:
    """Values within `own`, then within `allowed`; how many only the second changed; their range."""
    own_low, own_high = np.int32(own[0]), np.int32(own[1])
    least, most = np.int32(allowed[0]), np.int32(allowed[1])
    outside, low, high = 0, most, least
    for row in range(values.shape[0]):
        changed = np.int32(0)
        for column in range(values.shape[1]):
            value = min(max(np.int32(values[row, column]), own_low), own_high)
            kept = min(max(value, least), most)
            changed += np.int32(kept != value)
            low, high = min(low, kept), max(high, kept)
            out[row, column] = kept
        outside += int(changed)
    return outside, int(low), int(high)


def _cut_out(values: _Values, image: ImageHeader) -> npt.NDArray[np.int32]:
    """Bits HighBit … HighBit - BitsStored + 1 of each word as a number (PS3.5 8.1.1)."""
    shift = image.high_bit + 1 - image.bits_stored
    if shift < 0 or image.high_bit >= image.bits_allocated:
        raise RejectedInput(
            "invalid_attribute",
            f"HighBit {image.high_bit} with {image.bits_stored} of {image.bits_allocated} bits",
        )
    pattern = (values.astype(np.int32) >> shift) & ((1 << image.bits_stored) - 1)
    return _extend(pattern, image.bits_stored) if image.pixel_representation else pattern


def _reinterpret(samples: Samples, image: ImageHeader) -> npt.NDArray[np.int32]:
    values = samples.values.astype(np.int32)
    if not image.pixel_representation:
        return values & ((1 << samples.precision) - 1)
    values = _extend(values, samples.precision)
    # A negative number whose sign stops at BitsStored: the bits above it are zero, not a larger value.
    half = 1 << (image.bits_stored - 1)
    values[(values >= half) & (values < 2 * half)] -= 2 * half
    return values


def _extend(pattern: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.int32]:
    """Two's complement numbers of `bits`-bit patterns."""
    half = 1 << (bits - 1)
    number: npt.NDArray[np.int32] = ((pattern & (2 * half - 1)) ^ half) - half
    return number
