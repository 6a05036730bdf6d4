"""The usual notebook: pydicom with pylibjpeg or GDCM, apply_voi_lut on the whole image, OpenCV, PNG."""

from __future__ import annotations

import gdcm as _gdcm  # noqa: F401 - pydicom's plugin for JPEG Lossless; without it this peer is not installed
import numpy as np
import openjpeg as _openjpeg  # noqa: F401 - pylibjpeg's plugin for JPEG 2000; likewise
import pydicom
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from bench.peers import Picture
from bench.peers._usual import FULL, window_first

NAME = "notebook: pydicom + pylibjpeg/GDCM"
PACKAGES = ("pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm", "opencv-python-headless")

_WAVELETS = tuple(f"1.2.840.10008.1.2.4.{last}" for last in (90, 91, 201, 202, 203))


def prepare(path: str, height: int, width: int) -> Picture:
    """As in many notebooks, but in 16 bits and scaled by the window's range, not by minimum and maximum."""
    dataset = pydicom.dcmread(path)
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "pylibjpeg" if syntax in _WAVELETS else "gdcm" if syntax.is_compressed else ""
    values = pixel_array(dataset, decoding_plugin=plugin)
    values = apply_voi_lut(apply_modality_lut(values, dataset), dataset).astype(np.float32)
    top = float(2 ** int(dataset.BitsStored) - 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = top - values
    return window_first(np.clip(values * np.float32(FULL / top), 0, FULL), height, width)
