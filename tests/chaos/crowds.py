"""Very many very small mammograms, written as fast as the disk takes them, and what a process weighs."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from bench.phantom_dicom import DicomSpec, write_dicom

IMAGES_PER_PATIENT = 4
_FIRST_PATIENT, _FIRST_IMAGE = 10_000, 1_000_000_000
_UID = "1.2.826.0.1.3680043.8.498.{}"
_PLACEHOLDER = _UID.format(_FIRST_IMAGE)
_VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
_COLUMNS = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,"
    "machine_id,difficult_negative_case"
)


def crowd(root: Path, images: int) -> Path:
    """An RSNA-shaped tree with its label table: every file is a whole DICOM of its own, 12 x 10 pixels.

    Nothing is shared that a real set would not share: ids, paths and UIDs all differ.
    """
    root.mkdir(parents=True)
    template = _template(root)
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS.split(","))
        for first in range(0, images, IMAGES_PER_PATIENT):
            patient = _FIRST_PATIENT + first // IMAGES_PER_PATIENT
            folder = f"{root}/train_images/{patient}"
            os.makedirs(folder)
            for number in range(first, min(first + IMAGES_PER_PATIENT, images)):
                image = _FIRST_IMAGE + number
                _write(f"{folder}/{image}.dcm", template.replace(b"%d" % _FIRST_IMAGE, b"%d" % image))
                table.writerow(_row(patient, image, number))
    return root


def _template(root: Path) -> bytes:
    path = root / "template"
    pixels = np.tile(np.arange(10, dtype=np.uint16)[::-1] * 100, (12, 1))
    spec = DicomSpec(
        windows=(("500", "900"),),
        patient_id="somebody",
        modality="MG",
        elements=(("SOPInstanceUID", _PLACEHOLDER),),
    )
    write_dicom(path, pixels, spec)
    data = path.read_bytes()
    path.unlink()
    assert data.count(b"%d" % _FIRST_IMAGE) >= 1
    return data


def _row(patient: int, image: int, number: int) -> list[object]:
    side, view = _VIEWS[number % IMAGES_PER_PATIENT]
    positive = int(patient % 47 == 0)
    age, machine = 40 + patient % 40, (21, 29, 48, 49, 93)[patient % 5]
    return [1 + patient % 2, patient, image, side, view, age, *[positive] * 3, "", 0, "", machine, "False"]


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process now."""
    return _status(pid, "VmRSS")


def peak_rss_bytes(pid: int | str = "self") -> int:
    """The most resident memory that a process has had."""
    return _status(pid, "VmHWM")


def _status(pid: int | str, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
