"""DALI on the CPU: pydicom for headers, fn.decoders.image(device="cpu") for JPEG 2000, window last."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import pydicom
from nvidia.dali import Pipeline, fn, types

from bench.peers import Picture, either
from bench.peers._headers import display_of, encoded_frame
from bench.peers._usual import window_last

NAME = "DALI (CPU), window last"
PACKAGES = (either("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "pydicom", "opencv-python-headless")


def prepare(path: str, height: int, width: int) -> Picture:
    """One image a batch: a file that DALI refuses must not take others with it."""
    dataset = pydicom.dcmread(path)
    frame = np.frombuffer(encoded_frame(dataset), np.uint8)
    try:
        (decoded,) = _pipeline().run(frame=[frame])
    except RuntimeError:
        _pipeline.cache_clear()  # after an error a pipeline is of no more use
        raise
    values = np.asarray(decoded.at(0))[..., 0]
    return window_last(values, display_of(dataset), height, width)


@cache
def _pipeline() -> Any:  # DALI is untyped
    threads = len(os.sched_getaffinity(0))
    built = Pipeline(batch_size=1, num_threads=threads, device_id=None, prefetch_queue_depth=1)
    with built:
        frame = fn.external_source(name="frame", dtype=types.UINT8)
        pixels = fn.decoders.image(
            frame, device="cpu", output_type=types.GRAY, dtype=types.UINT16, adjust_orientation=False
        )
        built.set_outputs(pixels)
    built.build()
    return built
