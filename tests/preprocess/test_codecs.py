"""Codecs are there before the first image is in hand: a worker without room left can load none any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

_WITHOUT_ROOM = """
import pathlib, resource, sys
import numpy as np
import preprocess.tasks
from preprocess import _codecs, openjpeg, png

pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
size = next(l for l in pathlib.Path("/proc/self/status").read_text().splitlines() if l.startswith("VmSize"))
limit = int(size.split()[1]) * 1024 + 300_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert (png.decode_png(png.encode_png(pixels)) == pixels).all()
assert openjpeg.version().startswith("2.")
for decode in (_codecs.jpegls_decode, _codecs.jpeg8_decode, _codecs.packbits_decode):
    try:
        decode(b"no such stream")
    except (_codecs.JpeglsError, _codecs.Jpeg8Error, _codecs.PackbitsError):
        pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc how large a process is")
def test_a_worker_without_room_left_still_has_its_codecs() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_ROOM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
