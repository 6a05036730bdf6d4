"""Other people's crashers, wrapped in DICOM and bare: a documented end, no crash, little time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess.codestream import read_facts
from preprocess.errors import REJECT_CODES, RejectedInput
from preprocess.records import Compression
from tests.fuzz.campaign import FORBIDDEN
from tests.fuzz.limited import Cost, measured
from tests.instances import DATA, needs_data

FULL = int(os.environ.get("BCD_FUZZ_MUTANTS", "0")) > 1_000
MOST_MB = 2_000
MOST_SECONDS = 12.0


def check(costs: list[Cost], count: int) -> None:
    assert len(costs) == count > 0
    for cost in costs:
        assert cost.outcome == "prepared" or cost.outcome in REJECT_CODES, cost
        assert cost.outcome not in FORBIDDEN, cost
        assert cost.seconds < MOST_SECONDS, cost
        assert cost.peak_mb < MOST_MB, cost


def claimed_shape(payload: bytes) -> tuple[int, int]:
    """What the codestream says, so that the header agrees and the decoder is reached; else 64 × 64."""
    try:
        facts = read_facts(payload, Compression.JPEG_2000)
    except RejectedInput:
        return 64, 64
    return min(facts.rows, 65_535), min(facts.columns, 65_535)


def wrapped(source: Path, target: Path, syntax: str) -> Path:
    payload = source.read_bytes()
    rows, columns = claimed_shape(payload)
    elements = (("Rows", rows), ("Columns", columns))
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES[syntax], elements=elements)
    return write_dicom(target, np.zeros((2, 2), np.uint16), spec, payload)


@needs_data
def test_malformed_dicom_files_end_in_a_code_or_an_image() -> None:
    files = sorted((DATA / "bad_dcm").rglob("*.dcm"))
    check(measured(files), len(files))


@needs_data
@pytest.mark.parametrize("syntax", ["jpeg-2000", "htj2k", "jpeg-lossless-sv1"][: 3 if FULL else 1])
def test_malformed_codestreams_in_dicom_end_in_a_code_or_an_image(tmp_path: Path, syntax: str) -> None:
    sources = sorted((DATA / "bad_j2k").iterdir())
    check(measured(wrapped(path, tmp_path / f"{path.name}.dcm", syntax) for path in sources), len(sources))


@needs_data
def test_bare_codestreams_given_explicitly_are_not_dicom() -> None:
    files = sorted((DATA / "bad_j2k").iterdir())
    costs = measured(files)
    check(costs, len(files))
    assert {cost.outcome for cost in costs} == {"not_dicom"}
