"""The second opinion agrees with the decoder, at every level it can speak for, and says where it cannot."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess.codestream import deepest_level
from preprocess.decode import CpuDecoder, decoded_sha256
from preprocess.errors import RejectedInput
from preprocess.oracle import OracleDecoder
from preprocess.records import Instance
from tests.instances import golden, instance_of, smooth

pytest.importorskip("gdcm")
pytest.importorskip("openjpeg")


def on_disk(path: Path) -> Instance:
    data = path.read_bytes()
    return dataclasses.replace(
        instance_of(path), file_bytes=len(data), file_sha256=hashlib.sha256(data).hexdigest()
    )


def assert_agree(one: Instance, level: int) -> None:
    ours, theirs = (decoder.decode(one, level) for decoder in (CpuDecoder(), OracleDecoder()))
    assert theirs.pixels.dtype == ours.pixels.dtype
    assert np.array_equal(theirs.pixels, ours.pixels)
    assert theirs.above_bits_stored == ours.above_bits_stored
    assert theirs.decoder != ours.decoder


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["file"])
def test_the_oracle_has_the_golden_pixels(row: dict[str, str]) -> None:
    one = on_disk(Path(get_testdata_file(row["file"], download=False)))
    assert decoded_sha256(OracleDecoder().decode(one).pixels) == row["sha256"]


COMPARED = [
    "explicit",
    "big-endian",
    "rle",
    "jpeg-lossless-sv1",
    "jpeg-ls",
    "jpeg-2000",
    "htj2k",
    "jpeg-2000-lossy",
]


@pytest.mark.parametrize("syntax", COMPARED)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_both_decoders_agree_in_every_syntax_and_at_every_reversible_level(
    syntax: str, bits: int, tmp_path: Path
) -> None:
    path = write_dicom(
        tmp_path / "a.dcm",
        smooth((70, 53), bits),
        DicomSpec(transfer_syntax_uid=SYNTAXES[syntax], bits_stored=bits),
    )
    one = on_disk(path)
    assert_agree(one, 0)
    for level in range(1, deepest_level(one.image, one.codestream) + 1):
        if one.codestream is not None and one.codestream.lossless:
            assert_agree(one, level)


def test_levels_of_irreversible_streams_have_no_oracle(tmp_path: Path) -> None:
    spec = DicomSpec(transfer_syntax_uid=SYNTAXES["jpeg-2000-lossy"], bits_stored=12)
    one = on_disk(write_dicom(tmp_path / "a.dcm", smooth((70, 53), 12), spec))
    with pytest.raises(LookupError, match="no independent oracle"):
        OracleDecoder().decode(one, 1)


def test_a_file_that_no_independent_library_decodes_is_said_so() -> None:
    one = on_disk(Path(get_testdata_file("JPGExtended.dcm", download=False)))
    with pytest.raises(LookupError, match="no independent decoder"):
        OracleDecoder().decode(one)


def test_overflow_overshoot_and_odd_words_are_clamped_and_cut_alike(tmp_path: Path) -> None:
    pixels = smooth((64, 40), 12)
    pixels[5, 5:9] = 7000
    for syntax in ("explicit", "jpeg-2000"):
        path = write_dicom(
            tmp_path / f"{syntax}.dcm",
            pixels,
            DicomSpec(transfer_syntax_uid=SYNTAXES[syntax], bits_stored=16),
        )
        one = on_disk(path)
        narrow = dataclasses.replace(one.image, bits_stored=12, high_bit=11)
        odd = dataclasses.replace(one.image, bits_stored=10, high_bit=12)
        overlay = dataclasses.replace(narrow, has_overlay_in_pixels=True)
        signed = dataclasses.replace(narrow, pixel_representation=1)
        for image in (narrow, odd, overlay):
            assert_agree(dataclasses.replace(one, image=image), 0)
        assert CpuDecoder().decode(dataclasses.replace(one, image=narrow)).above_bits_stored == 4
        assert CpuDecoder().decode(dataclasses.replace(one, image=signed)).above_bits_stored == 4
        for level in range(1, deepest_level(narrow, one.codestream) + 1):
            assert_agree(dataclasses.replace(one, image=narrow), level)


def test_a_file_that_changed_since_it_was_parsed_is_rejected(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", smooth((20, 20), 12), DicomSpec())
    one = on_disk(path)
    path.write_bytes(path.read_bytes()[:-2] + b"\x07\x00")
    with pytest.raises(RejectedInput) as caught:
        OracleDecoder().decode(one)
    assert caught.value.code == "unreadable"
