"""pydicom for headers, Pillow's OpenJPEG for pixels (JPEG 2000 only), window last."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from PIL import Image

from bench.peers import Picture
from bench.peers._headers import display_of, encoded_frame
from bench.peers._usual import window_last

NAME = "pydicom + Pillow, window last"
PACKAGES = ("pydicom", "pillow", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """Decode with Pillow, which shifts samples up to 16 bits: undone by the codestream's precision."""
    dataset = pydicom.dcmread(path)
    with Image.open(io.BytesIO(encoded_frame(dataset))) as image:
        values = np.asarray(image)
    shift = 0 if values.dtype == np.uint8 else 16 - precision(encoded_frame(dataset))
    return window_last(values.astype(np.uint16) >> np.uint16(shift), display_of(dataset), height, width)


def precision(frame: bytes) -> int:
    """Bits per sample as SIZ tells them (T.800 A.5.1)."""
    siz = frame.index(b"\xff\x4f\xff\x51")
    return (frame[siz + 42] & 0x7F) + 1
