"""pydicom for headers, OpenCV's own decoder (JPEG 2000 only), window last."""

from __future__ import annotations

import cv2
import numpy as np
import pydicom

from bench.peers import Picture
from bench.peers._headers import display_of, encoded_frame
from bench.peers._usual import window_last

NAME = "pydicom + OpenCV's decoder, window last"
PACKAGES = ("pydicom", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """Decode with cv2.imdecode."""
    dataset = pydicom.dcmread(path)
    data = np.frombuffer(encoded_frame(dataset), np.uint8)
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("OpenCV cannot decode this syntax")
    return window_last(values, display_of(dataset), height, width)
