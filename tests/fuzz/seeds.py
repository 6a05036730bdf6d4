"""The files that mutants are made of: small phantoms of every transfer syntax, and small real files.

In:  a folder, and the folder of real files if there is one.
Out: numbered files in that folder, the same for the same inputs.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.phantom_dicom import MOST_BITS, SYNTAXES, DicomSpec, dicom_bytes
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.dicom import parse
from preprocess.errors import RejectedInput
from preprocess.records import SourceFile

LARGEST_REAL_BYTES = 150_000
"""Real files that are mutated: larger ones would make ten thousand mutants a matter of hours."""
_SHAPES = ((200, 130), (96, 150), (64, 64))


@cache
def breast(shape: tuple[int, int], bits: int) -> npt.NDArray[np.uint16]:
    """A noisy half ellipse at the left edge of an empty background, in the upper half of `bits` bits."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = (columns / (0.8 * shape[1])) ** 2 + ((rows - shape[0] / 2) / (0.45 * shape[0])) ** 2
    rng = np.random.default_rng([*shape, bits])
    texture = np.cumsum(rng.normal(size=shape), axis=1) / 6 + rng.normal(size=shape)
    top = (1 << bits) - 1
    inside = top * (0.75 - 0.35 * distance) + texture * top / 90
    return np.where(distance < 1, np.clip(inside, 1, top), 0).astype(np.uint16)


def phantom_seeds() -> dict[str, bytes]:
    """Name → file: every transfer syntax with 8 and 12 bits, boxed and signed ones where they differ."""
    files: dict[str, bytes] = {}
    for number, (name, uid) in enumerate(SYNTAXES.items()):
        for bits in (8, 12, 16):
            if bits > MOST_BITS.get(uid, 16) or (bits == 16 and not name.endswith(("lossless", "2000"))):
                continue
            pixels = breast(_SHAPES[(number + bits) % len(_SHAPES)], bits)
            window = ((str(1 << (bits - 1)), str(1 << bits)),)
            spec = DicomSpec(transfer_syntax_uid=uid, bits_stored=bits, windows=window, patient_id="p")
            files[f"phantom-{name}-{bits}"] = dicom_bytes(
                pixels.astype(np.uint8) if bits == 8 else pixels, spec
            )
    pixels = breast(_SHAPES[0], 12)
    boxed = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000"], bits_stored=12, boxed=True, fragments=3)
    files["phantom-jpeg-2000-boxed"] = dicom_bytes(pixels, boxed)
    signed = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-lossless-sv1"], bits_stored=13)
    files["phantom-jpeg-lossless-signed"] = dicom_bytes(pixels.astype(np.int16) - 2000, signed)
    return files


def real_seeds(folder: Path) -> dict[str, bytes]:
    """Name → file: the small ones that are prepared."""
    with (folder / "manifest.csv").open(newline="") as lines:
        names = sorted(row["name"] for row in csv.DictReader(lines) if row["name"].endswith(".dcm"))
    paths = {name: folder / name for name in names if not name.startswith("bad_dcm")}
    small = {
        name: path
        for name, path in paths.items()
        if path.is_file() and path.stat().st_size <= LARGEST_REAL_BYTES
    }
    return {f"real-{path.stem}": path.read_bytes() for path in small.values() if _decodes(path)}


def _decodes(path: Path) -> bool:
    try:
        CpuDecoder().decode(parse(SourceFile(path.name, str(path)), ResultConfig()))
    except RejectedInput:
        return False
    return True


def write_seeds(folder: Path, real: Path | None) -> tuple[str, ...]:
    """Write every seed into `folder`; their names in order."""
    folder.mkdir(parents=True, exist_ok=True)
    files = phantom_seeds() | (real_seeds(real) if real else {})
    for name, data in files.items():
        (folder / f"{name}.dcm").write_bytes(data)
    return tuple(sorted(files))
