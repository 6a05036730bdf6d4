"""Every file of pydicom's wheel and of the test data: an Instance that pydicom agrees with, or a code."""

from __future__ import annotations

import csv
import struct
from fractions import Fraction
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from preprocess._attributes import quiet
from preprocess.config import Frames, ResultConfig
from preprocess.dicom import parse, scan
from preprocess.errors import REJECT_CODES
from preprocess.records import Instance, Stage
from preprocess.records import SourceFile as Source
from tests.instances import DATA, needs_data
from tests.preprocess.dicom_maker import code_of

PACKAGED = Path(str(get_testdata_file("CT_small.dcm", download=False))).parent
FRAME_CODES = {"invalid_encapsulation", "pixel_data_length"} | {
    code for code, entry in REJECT_CODES.items() if entry.stage is Stage.DECODE
}
"""What scan cannot know: it does not read the frame."""

PACKAGED_CODES = {
    "ExplVR_BigEndNoMeta.dcm": "non_image",
    "JPEG2000-embedded-sequence-delimiter.dcm": "codestream_invalid",
    "JPEGLSNearLossless_08.dcm": None,
    "MR_small.dcm": None,
    "MR_small_RLE.dcm": None,
    "MR_small_bigendian.dcm": None,
    "MR_small_implicit.dcm": None,
    "MR_small_jp2klossless.dcm": None,
    "MR_small_padded.dcm": None,
    "MR_truncated.dcm": "pixel_data_length",
    "SC_rgb_jpeg_dcmtk.dcm": "color",
    "examples_palette.dcm": "color",
    "image_dfl.dcm": None,
    "liver_1frame.dcm": "unsupported_bits",
    "no_meta.dcm": "not_dicom",
    "reportsi.dcm": "structured_report",
    "rtdose.dcm": "unsupported_bits",
    "rtplan.dcm": "non_image",
    "rtplan_truncated.dcm": "corrupt_header",
    "rtstruct.dcm": "non_image",
    "test-SR.dcm": "structured_report",
    "test1.json": "not_dicom",
    "waveform_ecg.dcm": "non_image",
    "dicomdirtests/DICOMDIR": "dicomdir",
    "dicomdirtests/DICOMDIR-bigEnd": "dicomdir",
    "dicomdirtests/DICOMDIR-implicit": "dicomdir",
}

FUZZ = {
    "TC0231": None, "TC0239": None, "TC0243": "pixel_data_length", "TC0261": None,
    "TC0265": "sequence_too_deep", "TC0269": None, "TC0273": None, "TC0285": "pixel_data_length",
    "TC0289": "pixel_data_length", "TC0293": "pixel_data_length", "TC0297": "invalid_attribute",
    "TC0301": None,
    "TC0305": "invalid_attribute", "TC0309": "invalid_attribute", "TC0313": "invalid_attribute",
    "TC0317": "invalid_attribute", "TC0321": "codestream_invalid", "TC0325": "codestream_invalid",
    "TC0329": "color", "TC0333": "missing_attribute", "TC0337": None, "TC0343": None,
    "TC0347": "corrupt_header", "TC0377": None, "TC0381": None, "TC0385": None, "TC0389": None,
    "TC0393": "corrupt_header", "TC0397": "corrupt_header", "TC0401": "unsupported_transfer_syntax",
    "TC0729": None, "TC0733": None, "TC0737": None, "TC0741": None, "TC0745": None, "TC0749": None,
    "TC0753": None, "TC0757": "unsupported_bits", "TC0917": "invalid_attribute", "TC0921": None,
    "TC0925": "invalid_attribute", "TC0929": None, "TC0933": "invalid_attribute", "TC0941": None,
    "TC0945": "multi_frame", "TC0949": "multi_frame", "TC0953": "pixel_data_length",
    "TC0957": "codestream_invalid", "TC0961": "codestream_invalid", "TC0973": "pixel_data_length",
    "TC0977": "unsupported_bits", "TC0981": None, "TC0985": "pixel_data_length", "TC0989": None,
    "TC0993": None, "TC0997": None, "TC1001": None, "TC1005": None,
}  # fmt: skip
OTHER_BAD = {
    "bad_sequence_jpll.dcm": None,
    "emri_j2k_too_short.dcm": "multi_frame",
    "jpll_16_bad.dcm": None,
}


def packaged_files() -> list[Path]:
    return [path for path in sorted(PACKAGED.rglob("*")) if path.is_file() and path.suffix != ".py"]


def source(path: Path) -> Source:
    return Source(path.name, str(path))


def check(path: Path, config: ResultConfig) -> Instance | None:
    """Scan and parse agree, and pydicom agrees with what was accepted."""
    code = code_of(parse, source(path), config)
    early = code_of(scan, source(path), config)
    assert early == (None if code in FRAME_CODES and early is None else code), path.name
    if code is not None:
        return None
    instance = parse(source(path), config)
    assert scan(source(path), config).identity == instance.identity
    with quiet():
        dataset = pydicom.dcmread(path, force=True)
        if "PixelData" in dataset:  # pydicom does not find the meta of three of the malformed files
            agree(instance, dataset)
    return instance


def agree(instance: Instance, dataset: Dataset) -> None:
    header = instance.image
    assert (header.rows, header.columns) == (dataset.Rows, dataset.Columns)
    assert header.bits_stored == dataset.get("BitsStored", dataset.BitsAllocated)
    assert header.pixel_representation == dataset.get("PixelRepresentation", 0)
    assert instance.sop_instance_uid == (dataset.get("SOPInstanceUID") or None)
    windows = decimals(dataset, "WindowCenter"), decimals(dataset, "WindowWidth")
    if all(abs(number) < 10**30 for numbers in windows for number in numbers):
        pairs = [(window.center, window.width) for window in instance.voi.windows]
        assert pairs == list(zip(*windows, strict=False))
    if dataset.get("PixelPaddingValue") is not None:
        assert instance.padding is not None
        # one file declares an unsigned padding value for signed pixels
        assert (instance.padding.low - dataset.PixelPaddingValue) % 65_536 == 0
    assert instance.modality_transform.slope == (decimals(dataset, "RescaleSlope") or [1])[0]
    assert instance.payload == frame_of(instance, dataset)
    luts = [item for item in dataset.get("VOILUTSequence") or [] if item.get("LUTData")]
    assert [lut.entries for lut in instance.voi.luts] == [entries_of(item) for item in luts]
    modality = [item for item in dataset.get("ModalityLUTSequence") or [] if item.get("LUTData")]
    lut = instance.modality_transform.lut
    assert [lut.entries if lut else None] == ([entries_of(item) for item in modality] or [None])


def entries_of(item: Dataset) -> tuple[int, ...]:
    data = item.LUTData
    return struct.unpack(f"<{len(data) // 2}H", data) if isinstance(data, bytes) else tuple(data)


def decimals(dataset: Dataset, keyword: str) -> list[Fraction]:
    value = dataset.get(keyword)
    values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return [Fraction(number.original_string.strip()) for number in values if number not in (None, "")]


def frame_of(instance: Instance, dataset: Dataset) -> bytes:
    header, pixels = instance.image, dataset.PixelData
    if instance.codestream is None and header.transfer_syntax_uid != "1.2.840.10008.1.2.5":
        size = header.rows * header.columns * header.bits_allocated // 8
        return pixels[header.frame * size : (header.frame + 1) * size]
    return get_frame(pixels, header.frame, number_of_frames=header.number_of_frames)


@pytest.mark.parametrize("path", packaged_files(), ids=lambda path: path.name)
def test_every_packaged_file_is_an_instance_or_a_code(path):
    instance = check(path, ResultConfig())
    name = path.relative_to(PACKAGED).as_posix()
    if name in PACKAGED_CODES:
        assert (PACKAGED_CODES[name] is None) is (instance is not None)
        assert code_of(parse, source(path), ResultConfig()) == PACKAGED_CODES[name]


@needs_data
@pytest.mark.parametrize("folder", ["mg", "xr", "j2k", "htj2k", "misc", "bad_dcm"])
def test_every_file_of_the_test_data_is_an_instance_or_a_code(folder):
    paths = sorted((DATA / folder).rglob("*.dcm"))
    assert paths
    for path in paths:
        check(path, ResultConfig())
        check(path, ResultConfig(frames=Frames.MIDDLE))


@needs_data
def test_every_file_that_others_decode_as_one_gray_frame_is_accepted():
    known_bad = {f"bad_dcm/fuzz/{path.name}" for path in (DATA / "bad_dcm" / "fuzz").iterdir()}
    with (DATA / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["decode"].startswith("ok") and row["rows"]]
    accepted = 0
    for row in rows:
        gray = row["photometric"].startswith("MONOCHROME") and row["frames"] in ("", "0", "1")
        if gray and row["bits_allocated"] in ("8", "16") and row["name"] not in known_bad:
            assert code_of(parse, source(DATA / row["name"]), ResultConfig()) is None, row["name"]
            accepted += 1
    assert accepted > 20


@needs_data
def test_malformed_files_get_the_code_that_says_what_is_wrong():
    for path in sorted((DATA / "bad_dcm").rglob("*.dcm")):
        expected = OTHER_BAD[path.name] if path.name in OTHER_BAD else FUZZ[path.name.split("_")[0]]
        assert code_of(parse, source(path), ResultConfig()) == expected, path.name


@needs_data
def test_real_mammograms_have_the_facts_that_their_headers_state():
    def of(name: str) -> Instance:
        return parse(source(DATA / "mg" / name), ResultConfig())

    ge, film, siemens = (
        of(name)
        for name in ("ge_seno1_presentation_2px.dcm", "wg04_mg1_j2ki.dcm", "siemens_stereo_overlay_jpll.dcm")
    )
    assert (ge.identity.laterality, ge.identity.view) == ("L", "CC")
    assert [(lut.first_mapped, lut.bits, len(lut.entries)) for lut in ge.voi.luts] == [
        (1405, 12, 1715), (1429, 12, 1715), (1135, 12, 2255)
    ]  # fmt: skip
    assert (ge.voi.function.value, len(ge.voi.windows)) == ("SIGMOID", 3)
    assert ge.image.presentation_intent_type == "FOR PRESENTATION"
    processing = of("ge_seno1_processing_2px.dcm").image
    assert (processing.presentation_intent_type, processing.inverted) == ("FOR PROCESSING", True)
    assert (film.identity.laterality, film.identity.view) == ("L", "MLO")
    assert film.image.pixel_spacing_row_mm is None
    assert siemens.image.pixel_spacing_row_mm == 0.085


@needs_data
def test_a_big_files_header_is_scanned_in_a_few_milliseconds():
    import time

    files = [source(DATA / name) for name in ("mg/wg04_mg1_j2ki.dcm", "xr/dx966_fixed_20layers.dcm")]
    config = ResultConfig()
    best = 1.0
    for _ in range(10):
        for file in files:
            start = time.perf_counter()
            scan(file, config)
            best = min(best, time.perf_counter() - start)
    assert best < 0.005
