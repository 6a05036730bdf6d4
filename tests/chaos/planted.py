"""Images that crash, hang or starve whoever prepares them, among many that do not.

What they do is in their width, and done by a detector that `--roi-detector` names: a fault of native code in
the middle of the pipeline, in the real workers of the real command.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.phantom_dicom import DicomSpec, write_dicom
from preprocess.records import ImageHeader

DETECTOR = "tests.chaos.planted:detect"
_WIDTH = 48
IMAGES_PER_PATIENT = 4

DEEDS = ("segfault", "hang", "numpy_hog", "killed", "abort", "native_hog", "leave", "exit", "fault")
CODES = {
    "segfault": "decoder_crashed",
    "abort": "decoder_crashed",
    "exit": "decoder_crashed",
    "leave": "internal_error",
    "fault": "internal_error",
    "hang": "timeout",
    "killed": "out_of_memory",
    "numpy_hog": "out_of_memory",
    "native_hog": "out_of_memory",
}


def plant(folder: Path, count: int, deeds: dict[int, str]) -> dict[str, str]:
    """Write `count` images, those at the places in `deeds` with a deed; returns the codes by source."""
    rng = np.random.default_rng(count)
    codes = {}
    for index in range(count):
        source = f"p{index // IMAGES_PER_PATIENT:03d}/{index:03d}.dcm"
        deed = deeds.get(index)
        width = _WIDTH + (1 + DEEDS.index(deed) if deed else 0)
        pixels = rng.integers(20, 60, (64, width), dtype=np.uint16)
        pixels[8:56, : width // 2] += rng.integers(500, 900, (48, width // 2), dtype=np.uint16)
        write_dicom(folder / source, pixels, _spec(source))
        if deed:
            codes[source] = CODES[deed]
    return codes


def disarm(folder: Path, copy: Path, sources: dict[str, str]) -> None:
    """The same input, where blank images lie in the place of those with a deed."""
    shutil.copytree(folder, copy)
    for source in sources:
        write_dicom(copy / source, np.zeros((64, _WIDTH), np.uint16), _spec(source))


def _spec(source: str) -> DicomSpec:
    return DicomSpec(bits_stored=12, instance=source, patient_id=source.split("/")[0])


def detect(values: npt.NDArray[np.generic], image: ImageHeader) -> None:
    """Find nothing (the whole frame is taken), unless the width asks for a deed."""
    if image.columns > _WIDTH:
        globals()["_" + DEEDS[image.columns - _WIDTH - 1]]()


def _segfault() -> None:
    ctypes.string_at(8)


def _abort() -> None:
    os.abort()


def _exit() -> None:
    os._exit(3)


def _leave() -> None:
    sys.exit(0)


def _fault() -> None:
    raise KeyError("Doe^Jane")


def _hang() -> None:
    time.sleep(3600)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _numpy_hog() -> None:
    kept = []
    while True:
        kept.append(np.zeros(100_000_000, np.uint8))


def _native_hog() -> None:
    """What a codec in C does with too large a frame: asks for memory, and gives up when it gets none."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    while malloc(100_000_000):
        pass
    raise MemoryError
