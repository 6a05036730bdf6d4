"""Whole batches on a device without waiting for it: stored values, thumbnails, pictures.

In:  2-D arrays of any sizes on the device; weights, tables and facts of each image on the host.
Out: arrays on the device, in the order of the input. Nothing is read back; a batch's numbers lie in one
     array, so that one copy brings all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.kernels.launches import (
    AXIS,
    PICTURE,
    Array,
    Device,
    job,
    over_pictures,
    over_pixels,
    plane,
    reduction,
    rows_of,
)
from preprocess.records import ImageHeader
from preprocess.stored import Samples, stored_dtype, stored_range
from preprocess.weights import AxisWeights

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Kept:
    """Content pixel (i, j) stays if mask[rows[i], columns[j]]; the mask on the device or the host."""

    mask: Array = field(repr=False)
    rows: npt.NDArray[np.int32] = field(repr=False)
    columns: npt.NDArray[np.int32] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Drawing:
    """One image's way into its slot of the output: height × width, the same for a batch."""

    pixels: Array = field(repr=False)
    """Stored values on the device, uncropped."""
    rows: AxisWeights
    columns: AxisWeights
    """Weights for the samples of `pixels`, or of their block means."""
    shift: int = 0
    table: npt.NDArray[np.uint16] | None = field(default=None, repr=False)
    """65,536 entries on the host; None: table indices are drawn as they are."""
    content_row: int = 0
    content_column: int = 0
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored values of a batch, and what was counted meanwhile."""

    pixels: tuple[Array, ...] = field(repr=False)
    facts: Array = field(repr=False)
    """int32 (n, 3) on the device: samples that lay outside BitsStored's range, smallest and largest value."""


def clamp_to_stored(
    device: Device, samples: Sequence[Samples], images: Sequence[ImageHeader], scaled: bool
) -> Stored:
    """Twin of stored.to_stored for a batch: clamped to SIZ's range, then to BitsStored's.

    scaled: the samples are DALI's uint16 of the full range; its multiplier is undone first. An image is blank
    where its smallest and largest value are equal.

    Raises:
        ValueError: what only the CPU does: samples of the other sign than the header's, values that are cut
            out of their words, scaled samples of fewer than 9 bits.
    """
    pixels, jobs = [], []
    alive = [rows_of(device, each.values) for each in samples]
    facts = device.upload(np.tile(np.array([0, _INT32.max, _INT32.min], np.int32), (len(alive), 1)))
    for index, (each, image) in enumerate(zip(samples, images, strict=True)):
        _check_plain(each, image, scaled)
        pixels.append(device.empty(each.values.shape, stored_dtype(image)))
        low, high = stored_range(each.precision, each.signed)
        stored_low, stored_high = stored_range(image.bits_stored, image.pixel_representation == 1)
        jobs.append(
            job(
                device,
                source=alive[index],
                target=pixels[-1],
                result=facts[index],
                low=low,
                high=high,
                stored_low=stored_low,
                stored_high=stored_high,
                precision=each.precision,
                flag=int(scaled),
            )
        )
    device.launch(reduction("to_stored", np.concatenate(jobs)))
    return Stored(tuple(pixels), facts)


def _check_plain(samples: Samples, image: ImageHeader, scaled: bool) -> None:
    if image.high_bit != image.bits_stored - 1 or image.has_overlay_in_pixels:
        raise ValueError("values that are cut out of their words are for the CPU")
    if samples.signed != bool(image.pixel_representation):
        raise ValueError("samples of the other sign than the header's are for the CPU")
    if scaled and not (9 <= samples.precision <= 16 and samples.values.dtype == np.uint16):
        raise ValueError(f"the range of {samples.precision}-bit samples is not undone exactly")


def thumbnails(device: Device, pixels: Sequence[Array], shifts: Sequence[int]) -> list[Array]:
    """Twin of shift_mean for a batch: int32. Raises ValueError unless every shift is from 0 to 7."""
    if not all(0 <= shift <= 7 for shift in shifts):
        raise ValueError("shift must be from 0 to 7")
    alive = [rows_of(device, each) for each in pixels]
    made = [
        device.empty(tuple(-(-size >> shift) for size in each.shape), np.int32)
        for each, shift in zip(pixels, shifts, strict=True)
    ]
    jobs = [
        job(device, source=source, target=target, shift=shift)
        for source, target, shift in zip(alive, made, shifts, strict=True)
    ]
    device.launch(over_pixels("pixels", "block_mean", np.concatenate(jobs)))
    return made


def low_passes(device: Device, pixels: Sequence[Array]) -> list[Array]:
    """Twin of low_pass for a batch: int32, half as many rows and columns."""
    alive = [rows_of(device, each) for each in pixels]
    made = [device.empty(tuple(-(-size // 2) for size in each.shape), np.int32) for each in pixels]
    jobs = [job(device, source=source, target=target) for source, target in zip(alive, made, strict=True)]
    device.launch(over_pixels("pixels", "low_pass", np.concatenate(jobs)))
    return made


def draw(device: Device, drawings: Sequence[Drawing], output: Array) -> Array:
    """Draw a batch into output (n, height, width), uint8 or uint16, and return it.

    What is not content, and content that is not kept, takes the darkest entry that any pixel has.
    Two launches, and one more where a picture is so small that block means come first; weights, tables and
    jobs travel in one copy each.
    """
    whole = [rows_of(device, drawing.pixels) for drawing in drawings]
    sources = _means(device, whole, [drawing.shift for drawing in drawings])
    masks = [None if each.kept is None else rows_of(device, each.kept.mask) for each in drawings]
    numbers, offsets = _concatenated([part for drawing in drawings for part in _numbers(drawing)])
    uploaded = device.upload(numbers)
    addresses = iter([device.address(uploaded) + 4 * offset for offset in offsets])
    tables = _Tables(device, drawings)
    fills = _fills(device, whole, tables)
    batch = np.zeros(len(drawings), PICTURE)
    for index, drawing in enumerate(drawings):
        picture = batch[index : index + 1]
        picture["source"], picture["target"] = plane(device, sources[index]), plane(device, output[index])
        mask = masks[index]
        if mask is not None:
            picture["mask"] = plane(device, mask)
        picture["table"] = tables.address(index)
        picture["fill"] = device.address(fills[index : index + 1])
        _place(picture, drawing, addresses)
    device.launch(over_pictures(batch))
    return output


def _place(picture: npt.NDArray[np.void], drawing: Drawing, addresses: Iterator[int]) -> None:
    """Where the content lies, and the addresses of `_numbers`, in that order."""
    for axis, weights in (("rows", drawing.rows), ("columns", drawing.columns)):
        picture[axis] = np.array((next(addresses), next(addresses), *weights.taps.shape), AXIS)
    if drawing.kept is not None:
        picture["kept_rows"], picture["kept_columns"] = next(addresses), next(addresses)
    picture["content_row"], picture["content_column"] = drawing.content_row, drawing.content_column


def _means(device: Device, pixels: list[Array], shifts: list[int]) -> list[Array]:
    """Twin of block_mean for those images that have a shift; the mean of indices is the index of the mean."""
    jobs, means = [], list(pixels)
    for index, (source, shift) in enumerate(zip(pixels, shifts, strict=True)):
        if shift:
            rows, columns = source.shape
            means[index] = device.empty((-(-rows >> shift), -(-columns >> shift)), source.dtype)
            jobs.append(job(device, source=source, target=means[index], shift=shift))
    if jobs:
        device.launch(over_pixels("pixels", "block_mean", np.concatenate(jobs)))
    return means


def _numbers(drawing: Drawing) -> list[npt.NDArray[np.int32]]:
    """What the kernel reads of one drawing besides pixels: weights tap by tap, the kept mask's indices."""
    numbers = []
    for weights in (drawing.rows, drawing.columns):
        numbers += [weights.start, np.ascontiguousarray(weights.taps.T).ravel()]
    if drawing.kept is not None:
        numbers += [drawing.kept.rows, drawing.kept.columns]
    return numbers


def _concatenated(parts: list[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """The parts as one array, and where each begins."""
    ends = np.cumsum([part.size for part in parts])
    return np.concatenate(parts, dtype=np.int32), [0, *ends[:-1].tolist()]


class _Tables:
    """The different tables of a batch, in one copy; most images of a machine share one."""

    def __init__(self, device: Device, drawings: Sequence[Drawing]) -> None:
        self._slots = []
        different: dict[int, int] = {}
        tables: list[npt.NDArray[np.uint16]] = []
        for drawing in drawings:
            if drawing.table is None:
                self._slots.append(-1)
                continue
            if id(drawing.table) not in different:
                different[id(drawing.table)] = len(tables)
                tables.append(drawing.table)
            self._slots.append(different[id(drawing.table)])
        self._tables = device.upload(np.stack(tables)) if tables else None
        self._device = device

    def address(self, index: int) -> int:
        """Of image `index`'s table; 0 if it has none."""
        if self._tables is None or self._slots[index] < 0:
            return 0
        return self._device.address(self._tables[self._slots[index]])


def _fills(device: Device, sources: list[Array], tables: _Tables) -> Array:
    """The darkest entry of each image: int32 (n,) on the device; 0 without a table."""
    drawn = [index for index in range(len(sources)) if tables.address(index)]
    start = np.zeros(len(sources), np.int32)
    start[drawn] = 65535
    fills = device.upload(start)
    if drawn:
        jobs = [job(device, source=sources[i], result=fills[i : i + 1]) for i in drawn]
        packed = np.concatenate(jobs)
        packed["table"] = [tables.address(i) for i in drawn]
        device.launch(reduction("darkest", packed))
    return fills


def batch_output(device: Device, count: int, height: int, width: int, bits: int) -> Array:
    """An output for `draw`: (count, height, width), uint8 or uint16."""
    dtype: type[np.integer[Any]] = np.uint8 if bits == 8 else np.uint16
    return device.empty((count, height, width), dtype)
