"""DALI on a GPU, then one picture at a time on it with CuPy: the shape of the 1st place's inference.

Full decode by fn.decoders.image(device="mixed"), crop and area filter as two matrix products, window last.
Only the finished picture comes back to the host (and a thumbnail, for the breast).
"""

from __future__ import annotations

import os
from functools import cache, partial
from typing import Any

import cupy
import numpy as np
import pydicom
from nvidia.dali import Pipeline, fn, types

from bench.peers import Picture, either
from bench.peers._gpu import precision_of, require_gpu, small_picture
from bench.peers._headers import display_of, encoded_frame

require_gpu()

NAME = "DALI (GPU) + CuPy, one picture at a time, window last"
PACKAGES = (
    either("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    either("cupy-cuda13x", "cupy-cuda12x"),
    "pydicom",
    "opencv-python-headless",
)


def prepare(path: str, height: int, width: int) -> Picture:
    """One image a batch, as in the original."""
    dataset = pydicom.dcmread(path)
    frame = encoded_frame(dataset)
    try:
        (decoded,) = _pipeline().run(frame=[np.frombuffer(frame, np.uint8)])
    except RuntimeError:
        _pipeline.cache_clear()  # after an error a pipeline is of no more use
        raise
    values = cupy.from_dlpack(decoded[0])[..., 0]
    return small_picture(values, precision_of(frame), display_of(dataset), (height, width), cupy)


@cache
def _pipeline() -> Any:  # DALI is untyped
    threads = len(os.sched_getaffinity(0))
    built = Pipeline(batch_size=1, num_threads=threads, device_id=0, prefetch_queue_depth=1)
    decode = partial(fn.decoders.image, device="mixed", output_type=types.GRAY, dtype=types.UINT16)
    with built:
        frame = fn.external_source(name="frame", dtype=types.UINT8)
        built.set_outputs(decode(frame, adjust_orientation=False))
    built.build()
    return built
