"""MONAI's ITKReader, its first choice for DICOM: pixels by ITK, the window by pydicom and last."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import itk as _itk  # noqa: F401 - without it the reader is there and does nothing
import numpy as np
import pydicom
from monai.data import ITKReader

from bench.peers import Picture
from bench.peers._headers import display_of
from bench.peers._usual import window_last

NAME = "MONAI ITKReader, window last"
PACKAGES = ("monai", "torch", "itk", "pydicom", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """ITK applies the rescale; rows before columns by reverse_indexing."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    values, _ = _reader().get_data(_reader().read(path))
    display = replace(display_of(header), slope=1.0, intercept=0.0)
    return window_last(np.squeeze(np.asarray(values)), display, height, width)


@cache
def _reader() -> Any:  # MONAI is untyped
    return ITKReader(reverse_indexing=True)
