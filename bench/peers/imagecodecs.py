"""pydicom for headers, imagecodecs for pixels, window last: what an expert would write today."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.utils import pixel_array

from bench.peers import Picture
from bench.peers._headers import display_of, encoded_frame
from bench.peers._usual import window_last

NAME = "pydicom + imagecodecs, window last"
PACKAGES = ("pydicom", "imagecodecs", "opencv-python-headless")

_LAST = "1.2.840.10008.1.2.4."
_DECODERS: dict[str, Callable[[bytes], npt.NDArray[Any]]] = {
    _LAST + "50": imagecodecs.jpeg8_decode,
    _LAST + "51": imagecodecs.jpeg8_decode,
    _LAST + "57": imagecodecs.jpeg8_decode,
    _LAST + "70": imagecodecs.jpeg8_decode,
    _LAST + "80": imagecodecs.jpegls_decode,
    _LAST + "90": imagecodecs.jpeg2k_decode,
    _LAST + "91": imagecodecs.jpeg2k_decode,
    _LAST + "201": imagecodecs.htj2k_decode,
    _LAST + "202": imagecodecs.htj2k_decode,
}


def prepare(path: str, height: int, width: int) -> Picture:
    """Decode the frame with the library's fastest function for its syntax."""
    dataset = pydicom.dcmread(path)
    decode = _DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    values = pixel_array(dataset) if decode is None else decode(encoded_frame(dataset))
    return window_last(np.asarray(values), display_of(dataset), height, width)
