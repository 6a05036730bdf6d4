"""VOI tables against pydicom's apply_modality_lut and apply_voi_lut, within 1 of 65,535.

Real headers are those of the test data; everything else is drawn. pydicom's output is scaled from its own
range (of the stored values or of the LUT) to the full 16 bits, and compared before polarity.
"""

from __future__ import annotations

import os
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from preprocess import voi
from preprocess.config import ResultConfig
from preprocess.dicom import parse
from preprocess.records import (
    ImageHeader,
    Lut,
    ModalityTransform,
    SourceFile,
    VoiChoice,
    VoiFunction,
    VoiSource,
    Window,
)

DATA = Path(os.environ.get("BCD_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = [
    "mg/ge_seno1_presentation_2px.dcm",  # SIGMOID, three windows, three VOI LUTs
    "mg/siemens_stereo_overlay_jpll.dcm",
    "mg/wg04_mg1_j2ki.dcm",
    "misc/vlut_04.dcm",
    "misc/mr_multiwindow_overlay.dcm",
    "misc/cr_mono1_implicit.dcm",
    "j2k/ct_pixelrep_mismatch.dcm",
    "j2k/ct_toshiba_siz0_pixrep1.dcm",
    "j2k/mr_small_j2k.dcm",
    "xr/rg1_j2ki_mono1.dcm",
    "xr/rg3_jlsl_mono1.dcm",
    "bad_dcm/fuzz/TC0737_window_wc_huge_ww_1.dcm",
    "bad_dcm/fuzz/TC0741_window_wc_1_ww_uint32max.dcm",
]


def header_of(name: str) -> Dataset:
    ds = pydicom.dcmread(DATA / name, stop_before_pixels=True)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTSequence"):
        if keyword in ds and ds[keyword].is_empty:
            del ds[keyword]  # empty means absent; pydicom would compute with None
    return ds


def image(ds: Dataset) -> ImageHeader:
    return ImageHeader(
        "1.2.840.10008.1.2.1", 1, 1, 16, ds.BitsStored, ds.BitsStored - 1, ds.PixelRepresentation,
        "MONOCHROME2", inverted=False,
    )  # fmt: skip


def typed_lut(item: Dataset) -> Lut:
    raw = item.LUTData
    entries = np.frombuffer(raw, "<u2").tolist() if isinstance(raw, bytes) else list(raw)
    return Lut(item.LUTDescriptor[1], item.LUTDescriptor[2], tuple(entries))


def modality(ds: Dataset) -> ModalityTransform:
    if ds.get("ModalityLUTSequence"):
        return ModalityTransform(lut=typed_lut(ds.ModalityLUTSequence[0]))
    if ds.get("RescaleSlope") is None:
        return ModalityTransform()
    return ModalityTransform(Fraction(str(ds.RescaleSlope)), Fraction(str(ds.RescaleIntercept)))


def values(element: object) -> list[Fraction]:
    several = element if isinstance(element, (list, pydicom.multival.MultiValue)) else [element]
    return [Fraction(str(value)) for value in several]


def stored_values(ds: Dataset) -> np.ndarray:
    low, high = voi.bits_range(image(ds))
    return np.arange(low, high + 1).astype(np.int16 if low < 0 else np.uint16)


def assert_window_agrees(ds: Dataset, index: int = 0) -> None:
    stored = stored_values(ds)
    function = VoiFunction(ds.get("VOILUTFunction") or "LINEAR")
    window = Window(values(ds.WindowCenter)[index], values(ds.WindowWidth)[index])
    choice = VoiChoice(VoiSource.WINDOW, function, window)
    table = voi.build_table(choice, modality(ds), image(ds), 16)
    with np.errstate(over="ignore"):
        expected = apply_windowing(apply_modality_lut(stored, ds), ds, index)
    low, high = output_range(ds)
    assert_close(table, stored, (expected - low) / (high - low))


RANGE_KEYWORDS = (
    "PhotometricInterpretation", "BitsStored", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
)  # fmt: skip


def output_range(ds: Dataset) -> tuple[float, float]:
    """Pydicom's black and white: what a step gives on either side."""
    ends = Dataset()
    for keyword in RANGE_KEYWORDS:
        if keyword in ds:
            setattr(ends, keyword, ds[keyword].value)
    ends.WindowCenter, ends.WindowWidth = 0, 1
    low, high = apply_windowing(np.array([-1e12, 1e12]), ends)
    return float(low), float(high)


def assert_lut_agrees(ds: Dataset, index: int = 0) -> None:
    stored, lut = stored_values(ds), typed_lut(ds.VOILUTSequence[index])
    table = voi.build_table(VoiChoice(VoiSource.LUT, lut=lut), modality(ds), image(ds), 16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Applying a VOI LUT on a float", UserWarning)
        expected = apply_voi(apply_modality_lut(stored, ds), ds, index)
    assert_close(table, stored, expected / (2**lut.bits - 1))


def assert_close(table: np.ndarray, stored: np.ndarray, expected: np.ndarray) -> None:
    mine = table[stored.astype(int) + (32768 if stored.dtype.kind == "i" else 0)]
    assert np.abs(mine - expected * 65535).max() <= 1


@pytest.mark.parametrize("name", REAL)
def test_tables_agree_with_pydicom_on_real_headers(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"no test data at {DATA} (BCD_TEST_DATA)")
    ds = header_of(name)
    compared = 0
    for index in range(len(values(ds.WindowCenter)) if "WindowCenter" in ds else 0):
        assert_window_agrees(ds, index)
        compared += 1
    for index in range(len(ds.get("VOILUTSequence") or ())):
        assert_lut_agrees(ds, index)
        compared += 1
    assert compared


def drawn(bits: int, signed: bool) -> Dataset:
    ds = Dataset()
    ds.BitsStored, ds.PixelRepresentation = bits, int(signed)
    ds.PhotometricInterpretation = "MONOCHROME2"
    return ds


@pytest.mark.parametrize("name", REAL)
def test_real_headers_are_parsed_into_what_the_tables_are_built_from(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"no test data at {DATA} (BCD_TEST_DATA)")
    ds, parsed = header_of(name), parse(SourceFile(name, str(DATA / name)), ResultConfig())
    assert parsed.modality_transform == modality(ds)
    assert parsed.voi.function.value == (ds.get("VOILUTFunction") or "LINEAR")
    assert parsed.voi.luts == tuple(typed_lut(item) for item in ds.get("VOILUTSequence") or ())
    centers, widths = (values(ds[k].value) if k in ds else [] for k in ("WindowCenter", "WindowWidth"))
    assert parsed.voi.windows == tuple(map(Window, centers, widths))


numbers = st.decimals(-3000, 3000, places=2, allow_nan=False)
# Steps and near-steps are the hand-worked figures' business: at a jump, one float error is full range.
wide = st.decimals(2, 9000, places=2, allow_nan=False)
slopes = st.decimals("0.01", 20, places=2, allow_nan=False)


@given(st.sampled_from(list(VoiFunction)), numbers, wide, slopes, numbers, st.integers(2, 16), st.booleans())
@settings(max_examples=60, deadline=None)
def test_windows_agree_with_pydicom(
    function: VoiFunction, center: Decimal, width: Decimal, slope: Decimal, intercept: Decimal,
    bits: int, signed: bool,
) -> None:  # fmt: skip
    ds = drawn(bits, signed)
    ds.VOILUTFunction, ds.WindowCenter, ds.WindowWidth = function.value, str(center), str(width)
    ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
    assert_window_agrees(ds)


@st.composite
def lut_items(draw: st.DrawFn) -> Dataset:
    item = Dataset()
    bits = draw(st.integers(10, 16))
    entries = draw(st.lists(st.integers(0, 2**bits - 1), min_size=2, max_size=400))
    item.LUTDescriptor = [len(entries), draw(st.integers(-500, 500)), bits]
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return item


@given(lut_items(), st.integers(8, 14), st.integers(-100, 100))
@settings(max_examples=40, deadline=None)
def test_voi_luts_agree_with_pydicom(item: Dataset, bits: int, intercept: int) -> None:
    ds = drawn(bits, signed=True)
    ds.RescaleSlope, ds.RescaleIntercept = "1", str(intercept)
    ds.VOILUTSequence = [item]
    assert_lut_agrees(ds)


@given(lut_items().filter(lambda item: item.LUTDescriptor[2] == 16), numbers, wide)
@settings(max_examples=30, deadline=None)
def test_modality_luts_agree_with_pydicom(item: Dataset, center: Decimal, width: Decimal) -> None:
    ds = drawn(12, signed=True)
    ds.WindowCenter, ds.WindowWidth, ds.ModalityLUTSequence = str(center), str(width), [item]
    assert_window_agrees(ds)
