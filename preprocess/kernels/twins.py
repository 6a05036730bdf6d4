"""The kernels of reference.py on a device: same names, same arguments, same bytes.

In:  arrays on the device (host arrays are copied there), 2-D.
Out: arrays on the device; but counts of histograms, bounds and masses come back to the host, where thresholds
     are chosen in Python integers. Those functions wait for the device; the others only queue their launches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.kernels import pictures, reference
from preprocess.kernels.launches import Array, Device, Fetched, Value, job, over_pixels, reduction, rows_of
from preprocess.kernels.pictures import Drawing, Stored
from preprocess.records import ImageHeader
from preprocess.stored import Samples
from preprocess.weights import AxisWeights

_INT32 = np.iinfo(np.int32)
_TABLE_ENTRIES = 65536
_BINS = 1024
_MOST_PIXELS = 2**31


class Twins:
    """One function for each of reference.py; its docstrings hold here too."""

    otsu = staticmethod(reference.otsu)
    triangle = staticmethod(reference.triangle)

    def __init__(self, device: Device) -> None:
        """Run on `device`."""
        self._device = device

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        """A copy in host memory."""
        return self._device.to_host(array)

    def fetch(self, arrays: Sequence[Array]) -> Fetched:
        """Queue copies to host memory, to be waited for once."""
        return self._device.fetch(arrays)

    # Pixels.

    def to_index(self, pixels: Array) -> Array:
        """Stored values → table indices."""
        if pixels.dtype == np.uint16:
            return pixels
        index = self._device.empty(pixels.shape, np.uint16)
        self._over_pixels("to_index", source=self._rows(pixels), target=index)
        return index

    def look_up(self, pixels: Array, table: npt.NDArray[Any]) -> Array:
        """table[pixels]; table: uint8 or uint16 (65536,), on the host."""
        found = self._device.empty(pixels.shape, table.dtype)
        entries = self._device.upload(table)
        self._over_pixels("look_up", source=self._rows(pixels), target=found, table=entries)
        return found

    def block_mean(self, pixels: Array, shift: int) -> Array:
        """Means of blocks of indices, uint16."""
        return self._means(pixels, shift, np.uint16) if shift else pixels

    def shift_mean(self, pixels: Array, shift: int) -> Array:
        """Means of blocks of stored values, int32. Raises ValueError unless 0 ≤ shift ≤ 7."""
        if not 0 <= shift <= 7:
            raise ValueError("shift must be from 0 to 7")
        return self._means(pixels, shift, np.int32)

    def _means(self, pixels: Array, shift: int, dtype: npt.DTypeLike) -> Array:
        rows, columns = pixels.shape
        means = self._device.empty((-(-rows >> shift), -(-columns >> shift)), dtype)
        self._over_pixels("block_mean", source=self._rows(pixels), target=means, shift=shift)
        return means

    def resample(self, pixels: Array, columns: AxisWeights, rows: AxisWeights) -> Array:
        """Horizontal pass, then vertical. Raises ValueError for weights of other samples."""
        for weights, samples in ((columns, pixels.shape[1]), (rows, pixels.shape[0])):
            if weights.used.start < 0 or weights.used.stop > samples:
                raise ValueError(f"weights for samples {weights.used} of {samples}")
        drawing = Drawing(pixels, rows, columns)
        shape = rows.start.size, columns.start.size
        picture: Array = self.draw([drawing], self._device.empty((1, *shape), np.uint16))[0]
        return picture

    def blank(
        self,
        picture: Array,
        mask: Array,
        rows: npt.NDArray[np.int32],
        columns: npt.NDArray[np.int32],
        fill: int,
    ) -> None:
        """Blank in place what does not stay. rows, columns: on the host."""
        if rows_of(self._device, picture) is not picture:
            raise ValueError("a picture to be blanked in place needs contiguous rows")
        indices = self._device.upload(np.concatenate([rows, columns]).astype(np.int32))
        value = self._device.upload(np.array([fill], np.int32))
        self._over_pixels("blank", target=picture, mask=self._rows(mask), table=indices, result=value)

    def low_pass(self, pixels: Array) -> Array:
        """One 5/3 low-pass step, int32."""
        return self.low_passes([pixels])[0]

    def within(self, values: Array, low: int, high: int) -> Array:
        """Mask of low ≤ value ≤ high."""
        inside = self._device.empty(values.shape, np.bool_)
        low, high = (min(max(int(bound), _INT32.min), _INT32.max) for bound in (low, high))
        self._over_pixels("within", source=self._rows(values), target=inside, low=low, high=high)
        return inside

    def brightest_of_nine(self, values: Array, inverted: bool) -> Array:
        """Brightest-displaying value of each 3 × 3 neighbourhood."""
        nine = self._device.empty(values.shape, values.dtype)
        self._over_pixels("brightest_of_nine", source=self._rows(values), target=nine, flag=int(inverted))
        return nine

    def undo_range(self, values: Array, precision: int) -> Array:
        """DALI's range multiplier undone: uint16 → uint16. Raises ValueError unless 9 ≤ precision ≤ 16."""
        if not 9 <= precision <= 16:
            raise ValueError(f"the range of {precision}-bit samples is not undone exactly")
        plain = self._device.empty(values.shape, np.uint16)
        self._over_pixels("undo_range", source=self._rows(values), target=plain, precision=precision)
        return plain

    # Batches.

    def clamp_to_stored(
        self, samples: Sequence[Samples], images: Sequence[ImageHeader], scaled: bool = False
    ) -> Stored:
        """See pictures.clamp_to_stored."""
        return pictures.clamp_to_stored(self._device, samples, images, scaled)

    def thumbnails(self, pixels: Sequence[Array], shifts: Sequence[int]) -> list[Array]:
        """See pictures.thumbnails."""
        return pictures.thumbnails(self._device, pixels, shifts)

    def low_passes(self, pixels: Sequence[Array]) -> list[Array]:
        """See pictures.low_passes."""
        return pictures.low_passes(self._device, pixels)

    def draw(self, drawings: Sequence[Drawing], output: Array) -> Array:
        """See pictures.draw."""
        return pictures.draw(self._device, drawings, output)

    def batch_output(self, count: int, height: int, width: int, bits: int) -> Array:
        """See pictures.batch_output."""
        return pictures.batch_output(self._device, count, height, width, bits)

    # Numbers.

    def count_values(self, pixels: Array, include: Array | None = None) -> npt.NDArray[np.int64]:
        """Counts of the 65,536 table indices, on the host."""
        mask = None if include is None else self._rows(include)
        return self._counts("count_values", _TABLE_ENTRIES, source=self._rows(pixels), mask=mask)

    def histogram(self, values: Array, include: Array, low: int, shift: int) -> npt.NDArray[np.int64]:
        """Counts of 1,024 bins, on the host."""
        source, mask = self._rows(values), self._rows(include)
        return self._counts("histogram", _BINS, source=source, mask=mask, low=low, shift=shift)

    def bounds(self, mask: Array) -> tuple[int, int, int, int]:
        """Half-open box of what is set."""
        top, bottom, first, last, _, _ = self._mask_facts(mask)
        return (top, bottom + 1, first, last + 1) if bottom >= 0 else (0, 0, 0, 0)

    def side_masses(self, mask: Array) -> tuple[int, int]:
        """Pixels in the left and in the right half."""
        *_, left, right = self._mask_facts(mask)
        return left, right

    def _mask_facts(self, mask: Array) -> list[int]:
        facts = self._device.upload(np.array([_INT32.max, -1, _INT32.max, -1, 0, 0], np.int32))
        source = self._rows(mask)
        self._device.launch(reduction("mask_facts", job(self._device, source=source, result=facts)))
        numbers: list[int] = self._device.to_host(facts).tolist()
        return numbers

    def _counts(self, kernel: str, size: int, **fields: Value) -> npt.NDArray[np.int64]:
        counts = self._device.zeros((size,), np.uint32)
        self._device.launch(reduction(kernel, job(self._device, result=counts, **fields)))
        return self._device.to_host(counts).astype(np.int64)

    # Masks.

    def erode(self, mask: Array, row_radius: int, column_radius: int) -> Array:
        """Erosion by a box."""
        return self._window(self._window(mask, row_radius, 0, 0), 0, column_radius, 0)

    def dilate(self, mask: Array, row_radius: int, column_radius: int) -> Array:
        """Dilation by a box."""
        return self._window(self._window(mask, row_radius, 0, 1), 0, column_radius, 1)

    def opened(self, mask: Array, row_radius: int, column_radius: int) -> Array:
        """Erosion, then dilation."""
        return self.dilate(self.erode(mask, row_radius, column_radius), row_radius, column_radius)

    def _window(self, mask: Array, row_radius: int, column_radius: int, dilate: int) -> Array:
        if row_radius == column_radius == 0:
            return mask
        result = self._device.empty(mask.shape, np.bool_)
        radii = {"row_radius": row_radius, "column_radius": column_radius}
        self._over_pixels("window", "masks", source=self._rows(mask), target=result, flag=dilate, **radii)
        return result

    def largest_component(self, mask: Array) -> Array:
        """The component with most pixels, then with the first pixel."""
        links, areas = self._components(mask, 0)
        best = self._device.zeros((1,), np.uint64)
        chosen = self._device.empty(mask.shape, np.bool_)
        fields: dict[str, Value] = {"target": links, "result": areas, "table": best, "mask": chosen}
        self._over_pixels("components_choose", "masks", **fields)
        self._over_pixels("components_select", "masks", **fields)
        return chosen

    def border_connected(self, mask: Array) -> Array:
        """Components that touch the border."""
        links, areas = self._components(mask, 0)
        kept = self._device.empty(mask.shape, np.bool_)
        self._over_pixels("components_filter", "masks", target=links, result=areas, mask=kept)
        return kept

    def fill_holes(self, mask: Array, largest: int) -> Array:
        """The mask and its holes of at most `largest` pixels."""
        links, areas = self._components(mask, 1)
        filled = self._device.empty(mask.shape, np.bool_)
        largest = min(largest, _INT32.max)
        self._over_pixels(
            "components_filter", "masks", target=links, result=areas, mask=filled, high=largest, flag=1
        )
        return filled

    def _components(self, mask: Array, inverted: int) -> tuple[Array, Array]:
        """Links of each pixel to its component's first, and areas and border flags at those."""
        if mask.size >= _MOST_PIXELS:
            raise ValueError(f"components of {mask.shape} pixels cannot be numbered")
        source, links = self._rows(mask), self._device.empty(mask.shape, np.int32)
        areas = self._device.zeros((2, mask.size), np.int32)
        fields: dict[str, Value] = {"source": source, "target": links, "result": areas, "flag": inverted}
        for step in ("components_begin", "components_unite", "components_measure"):
            self._over_pixels(step, "masks", **fields)
        return links, areas

    def _rows(self, array: Array) -> Array:
        return rows_of(self._device, array)

    def _over_pixels(self, kernel: str, source_file: str = "pixels", **fields: Value) -> None:
        self._device.launch(over_pixels(source_file, kernel, job(self._device, **fields)))
