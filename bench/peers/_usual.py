"""What notebooks do around decoding, with OpenCV and NumPy: window, crop, resize, letterbox, PNG.

In:  stored values, and what the header says of display.
Out: a Picture. Two orders: `window_first` (as in notebooks: the whole image through the window in floating
     point) and `window_last` (crop and resize stored values, window what is left: as fast as it gets).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bench.peers import PeerBox, Picture

FULL = 65535.0
THUMBNAIL_STEP = 8
_MARGIN_PX = 64
_ABOVE_BACKGROUND = 20
"""Of 255: the fixed threshold of most notebooks."""

Array = npt.NDArray[np.generic]

cv2.setNumThreads(1)  # cores are given out by the harness


@dataclass(frozen=True, slots=True)
class Display:
    """How stored values become display values (PS3.3 C.11.2), as far as mammograms need it."""

    center: float
    width: float
    function: str
    inverted: bool
    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, values: Array) -> npt.NDArray[np.float32]:
        """Stored values → 0…65535."""
        x = values.astype(np.float32)
        if self.slope != 1 or self.intercept != 0:
            x = x * np.float32(self.slope) + np.float32(self.intercept)
        if self.function == "SIGMOID":
            y = FULL / (1 + np.exp(np.float32(-4) * (x - np.float32(self.center)) / np.float32(self.width)))
        elif self.function == "LINEAR_EXACT":
            y = ((x - self.center) / self.width + 0.5) * FULL
        else:
            y = ((x - (self.center - 0.5)) / max(self.width - 1, 1e-6) + 0.5) * FULL
        y = np.clip(y, 0, FULL)
        shown: npt.NDArray[np.float32] = (FULL - y if self.inverted else y).astype(np.float32)
        return shown


def window_last(values: Array, display: Display, height: int, width: int) -> Picture:
    """Find the breast on a thumbnail, crop and resize stored values, then window the result."""
    thumbnail = display.apply(values[::THUMBNAIL_STEP, ::THUMBNAIL_STEP])
    box = breast_box(thumbnail, values.shape)
    return letterboxed(resized(values, box, height, width), box, height, width, display.apply)


def window_first(shown: Array, height: int, width: int) -> Picture:
    """Crop and resize an image that went through its window as a whole (0…65535)."""
    thumbnail = shown[::THUMBNAIL_STEP, ::THUMBNAIL_STEP]
    box = breast_box(thumbnail, shown.shape)
    return letterboxed(resized(shown, box, height, width), box, height, width, None)


def breast_box(thumbnail: Array, full: tuple[int, ...]) -> PeerBox:
    """Box of the largest component above a fixed threshold, with a margin; mirrored if its mass is right."""
    eight = (thumbnail.astype(np.float32) / np.float32(257)).astype(np.uint8)
    _, mask = cv2.threshold(eight, int(eight.min()) + _ABOVE_BACKGROUND, 255, cv2.THRESH_BINARY)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return PeerBox(0, 0, full[0], full[1], False)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, columns, rows = (int(value) * THUMBNAIL_STEP for value in stats[best][:4])
    breast, half = labels == best, mask.shape[1] // 2
    flipped = int(breast[:, half:].sum()) > int(breast[:, :half].sum())
    row, column = max(top - _MARGIN_PX, 0), max(left - _MARGIN_PX, 0)
    bottom, right = min(top + rows + _MARGIN_PX, full[0]), min(left + columns + _MARGIN_PX, full[1])
    return PeerBox(row, column, bottom - row, right - column, bool(flipped))


def content_size(box: PeerBox, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the box in the picture, its shape kept."""
    scale = min(height / box.rows, width / box.columns)
    rows, columns = int(box.rows * scale + 0.5), int(box.columns * scale + 0.5)
    return min(max(rows, 1), height), min(max(columns, 1), width)


def resized(values: Array, box: PeerBox, height: int, width: int) -> Array:
    """The box's content at its size in the picture: areas when shrinking, as OpenCV advises."""
    part = values[box.row : box.row + box.rows, box.column : box.column + box.columns]
    rows, columns = content_size(box, height, width)
    shrinks = rows <= box.rows
    small: Array = cv2.resize(
        np.ascontiguousarray(part),
        (columns, rows),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    return small[:, ::-1] if box.flipped else small


def letterboxed(
    content: Array, box: PeerBox, height: int, width: int, shown: Callable[[Array], Array] | None
) -> Picture:
    """Content at the left edge, rows in the middle, black around."""
    rows, columns = content_size(box, height, width)
    top = (height - rows) // 2
    pixels = np.zeros((height, width), np.uint16)
    pixels[top : top + rows, :columns] = np.rint(content if shown is None else shown(content))
    return Picture(pixels, box)


def store(picture: Picture, path: str) -> None:
    """A 16-bit PNG by OpenCV at its fastest level."""
    if not cv2.imwrite(path, picture.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise OSError("OpenCV wrote no picture")
