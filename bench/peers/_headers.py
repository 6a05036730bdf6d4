"""What peers that read headers with pydicom share: the data set as a Display, and its frame.

In:  a pydicom data set.
Out: a Display of the first window; the encoded frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from bench.peers._usual import Display


def display_of(dataset: Dataset) -> Display:
    """The first window; without one, the range of BitsStored."""
    bits = int(dataset.BitsStored)
    return Display(
        center=_first(dataset.get("WindowCenter"), 2.0 ** (bits - 1)),
        width=_first(dataset.get("WindowWidth"), 2.0**bits),
        function=str(dataset.get("VOILUTFunction") or "LINEAR").upper(),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        slope=float(dataset.get("RescaleSlope", 1)),
        intercept=float(dataset.get("RescaleIntercept", 0)),
    )


def encoded_frame(dataset: Dataset) -> bytes:
    """The first frame's bytes, still compressed."""
    frame: bytes = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return frame


def _first(value: Any, missing: float) -> float:  # DS is a str, a float or a list of them
    if value is None or value == "":
        return missing
    if isinstance(value, Iterable) and not isinstance(value, str):
        return float(next(iter(value)))
    return float(value)
