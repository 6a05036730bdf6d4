"""Instances made without preprocess.dicom: by hand from a frame, or from a file by pydicom."""

from __future__ import annotations

import csv
import dataclasses
import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame

from preprocess.codestream import compression_of, read_facts
from preprocess.records import (
    Compression,
    Identity,
    ImageHeader,
    Instance,
    ModalityTransform,
    SourceFile,
    VoiHeader,
)

DATA = Path(os.environ.get("BCD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no test data: set BCD_TEST_DATA")

GOLDEN = Path(__file__).parent / "golden" / "pixels.csv"


def golden() -> list[dict[str, str]]:
    """Files that pydicom packages, with the sha256 of their stored values (golden/README.md)."""
    with GOLDEN.open(newline="") as lines:
        return list(csv.DictReader(lines))


UIDS = {
    "little": "1.2.840.10008.1.2.1",
    "big": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg_extended": "1.2.840.10008.1.2.4.51",
    "jpeg_lossless": "1.2.840.10008.1.2.4.70",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
}


def header(shape: tuple[int, int], syntax: str, **changes: object) -> ImageHeader:
    """16 bits allocated and stored, unsigned, unless changed. high_bit follows bits_stored."""
    image = ImageHeader(
        transfer_syntax_uid=UIDS.get(syntax, syntax),
        rows=shape[0],
        columns=shape[1],
        bits_allocated=16,
        bits_stored=16,
        high_bit=15,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        inverted=False,
    )
    image = dataclasses.replace(image, **changes)
    if "high_bit" not in changes:
        image = dataclasses.replace(image, high_bit=image.bits_stored - 1)
    return image


def instance(payload: bytes, image: ImageHeader, path: str = "") -> Instance:
    """An Instance round one encoded frame, with facts read from it."""
    compression = compression_of(image.transfer_syntax_uid)
    bare = compression in (Compression.NATIVE, Compression.RLE)
    return Instance(
        source=SourceFile(source="test.dcm", path=path),
        identity=Identity(patient_id="p", image_id="i"),
        image=image,
        modality_transform=ModalityTransform(),
        voi=VoiHeader(),
        padding=None,
        study_instance_uid=None,
        series_instance_uid=None,
        sop_instance_uid=None,
        file_bytes=len(payload),
        file_sha256="",
        payload=payload,
        codestream=None if bare else read_facts(payload, compression),
    )


def instance_of(path: Path) -> Instance:
    """The first frame of a DICOM file, located by pydicom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        uid = dataset.file_meta.TransferSyntaxUID
        frames = int(dataset.get("NumberOfFrames") or 1)
        payload = dataset.PixelData
        if uid.is_compressed and compression_of(uid) is not Compression.NATIVE:
            payload = get_frame(payload, 0, number_of_frames=frames)
    overlays = [dataset.get((group, 0x0100)) for group in range(0x6000, 0x6020, 2)]
    image = header(
        (dataset.Rows, dataset.Columns),
        str(uid),
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        high_bit=dataset.HighBit,
        pixel_representation=dataset.PixelRepresentation,
        has_overlay_in_pixels=any(element is not None and element.value != 1 for element in overlays),
    )
    return instance(payload, image, str(path))


def smooth(shape: tuple[int, int], bits: int, seed: int = 0) -> np.ndarray:
    """A random walk that touches both ends of `bits` bits: it compresses and overshoots like a picture."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(np.cumsum(rng.normal(size=shape), axis=0), axis=1)
    span = np.ptp(walk) or 1.0
    scaled = np.clip((walk - walk.min()) / span * 1.2 - 0.1, 0, 1) * ((1 << bits) - 1)
    return scaled.astype(np.uint16 if bits > 8 else np.uint8)
