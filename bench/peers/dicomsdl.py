"""dicomsdl, as in the Kaggle winners' CPU path (one process per core is the harness's), window last."""

from __future__ import annotations

from typing import Any

import dicomsdl
import numpy as np

from bench.peers import Picture
from bench.peers._usual import Display, window_last

NAME = "dicomsdl process pool, window last"
PACKAGES = ("dicomsdl", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """Header and pixels from dicomsdl; stored values, never its own windowing to 8 bits."""
    dataset = dicomsdl.open(path)
    values = dataset.pixelData(storedvalue=True)
    return window_last(np.asarray(values), _display(dataset), height, width)


def _display(dataset: Any) -> Display:  # a class of the extension module
    bits = int(dataset.BitsStored)
    return Display(
        center=_first(dataset.WindowCenter, 2.0 ** (bits - 1)),
        width=_first(dataset.WindowWidth, 2.0**bits),
        function=str(dataset.VOILUTFunction or "LINEAR").upper(),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        slope=_first(dataset.RescaleSlope, 1.0),
        intercept=_first(dataset.RescaleIntercept, 0.0),
    )


def _first(value: Any, missing: float) -> float:  # None, a number, or a list of them
    if value is None:
        return missing
    return float(value[0] if isinstance(value, list | tuple) else value)
