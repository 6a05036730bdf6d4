"""Small trees of files that look like DICOM to the content test, and nothing more."""

from __future__ import annotations

import zipfile
from pathlib import Path

DICOM = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"

RSNA_COLUMNS = (
    "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,"
    "machine_id,difficult_negative_case"
)
RSNA_ROWS = (
    "2,10006,462822612,L,CC,61.0,0,0,0,,0,,29,False",
    "2,10006,1459541791,L,MLO,61.0,0,0,0,,0,,29,False",
    "2,10006,1864590858,R,MLO,61.0,1,1,1,0.0,0,B,29,False",
    "1,10011,1031443799,R,CC,55.0,0,0,0,1.0,1,,21,True",
)


def dicom(path: Path, content: bytes = b"") -> Path:
    """A file that the content test takes for DICOM; `content` makes it different from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DICOM + content)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def archive(path: Path, **members: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def rsna(root: Path, *, table: bool = True) -> Path:
    """The RSNA tree with four images of two patients."""
    for row in RSNA_ROWS:
        _, patient, image, *_ = row.split(",")
        dicom(root / "train_images" / patient / f"{image}.dcm", image.encode())
    if table:
        text(root / "train.csv", RSNA_COLUMNS, *RSNA_ROWS)
    return root
