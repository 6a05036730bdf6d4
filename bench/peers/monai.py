"""MONAI's PydicomReader: pixels through pydicom's preferred plugin, modality rescale, window last."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from monai.data import PydicomReader

from bench.peers import Picture
from bench.peers._headers import display_of
from bench.peers._usual import window_last

NAME = "MONAI PydicomReader, window last"
PACKAGES = ("monai", "torch", "pydicom", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """The reader applies the rescale and keeps rows before columns (swap_ij=False); it knows no windows."""
    dataset = _reader().read(path)
    values, _ = _reader().get_data(dataset)
    display = replace(display_of(dataset), slope=1.0, intercept=0.0)
    return window_last(np.asarray(values), display, height, width)


@cache
def _reader() -> Any:  # MONAI is untyped
    return PydicomReader(swap_ij=False)
