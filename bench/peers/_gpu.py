"""What a peer does on a GPU between decoding and storing, written for NumPy's and CuPy's arrays alike.

In:  a decoded image as DALI stretches it to 16 bits, the precision of its codestream, its Display.
Out: a Picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.peers import NoGpu, Picture
from bench.peers._usual import FULL, THUMBNAIL_STEP, Array, Display, breast_box, content_size, letterboxed
from preprocess import doctor_gpu


def require_gpu() -> None:
    """Raise NoGpu where no driver can be used."""
    try:
        doctor_gpu.load_driver()
    except OSError as error:
        raise NoGpu(str(error)) from None


def precision_of(frame: bytes) -> int:
    """Bits of the first component, from the codestream's SIZ marker (ISO 15444-1 A.5.1)."""
    start = frame.index(b"\xff\x4f\xff\x51")
    return (frame[start + 42] & 0x7F) + 1


def small_picture(
    values: Any, precision: int, display: Display, size: tuple[int, int], xp: Any
) -> Picture:  # arrays of NumPy or CuPy, by xp
    """Crop, shrink, and scale back what DALI stretched to 16 bits (65535 / (2^p − 1)), then window."""
    scale = np.float32((2**precision - 1) / FULL)
    thumbnail = _host(values[::THUMBNAIL_STEP, ::THUMBNAIL_STEP]) * scale
    box = breast_box(display.apply(thumbnail), values.shape)
    part = values[box.row : box.row + box.rows, box.column : box.column + box.columns]
    rows, columns = content_size(box, *size)
    down, across = xp.asarray(area_weights(box.rows, rows)), xp.asarray(area_weights(box.columns, columns))
    small = _host(down @ part.astype(xp.float32) @ across.T) * scale
    content = small[:, ::-1] if box.flipped else small
    return letterboxed(content, box, *size, display.apply)


def area_weights(length: int, pieces: int) -> Array:
    """Matrix (pieces, length) of an area filter: each row averages its share of the axis."""
    edges = np.arange(pieces + 1) * (length / pieces)
    pixels = np.arange(length)
    lower, upper = edges[:-1, None], edges[1:, None]
    covered = np.clip(np.minimum(upper, pixels + 1) - np.maximum(lower, pixels), 0, None)
    weights: Array = (covered * (pieces / length)).astype(np.float32)
    return weights


def _host(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values if isinstance(values, np.ndarray) else values.get(), dtype=np.float32)
