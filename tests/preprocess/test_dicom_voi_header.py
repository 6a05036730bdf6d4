"""Windows, LUTs, modality transform and padding as typed values."""

from __future__ import annotations

import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preprocess.records import Lut, ModalityTransform, Padding, VoiFunction, Window
from tests.preprocess.dicom_maker import Elements, image_file, parsed, rejection, sq, ss, text, us

CENTER, WIDTH, FUNCTION, SLOPE, INTERCEPT = 0x00281050, 0x00281051, 0x00281056, 0x00281053, 0x00281052
VOI_LUT, MODALITY_LUT, DESCRIPTOR, DATA = 0x00283010, 0x00283000, 0x00283002, 0x00283006
PADDING, LIMIT, SIGNED = 0x00280120, 0x00280121, 0x00280103
SHARED, PER_FRAME, FRAME_VOI, TRANSFORMATION = 0x52009229, 0x52009230, 0x00289132, 0x00289145


def windows(center: str, width: str) -> Elements:
    return {CENTER: text("DS", center), WIDTH: text("DS", width)}


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(*[st.decimals(-99999, 99999, places=4)] * 2), min_size=1, max_size=5))
def test_decimal_strings_are_kept_exactly_and_in_order(tmp_path, pairs: list[tuple[Decimal, Decimal]]):
    changes = windows("\\".join(str(c) for c, _ in pairs), "\\".join(str(w) for _, w in pairs))
    found = parsed(tmp_path, image_file(changes)).voi.windows
    assert found == tuple(Window(Fraction(center), Fraction(width)) for center, width in pairs)


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        ("40", "80", [(40, 80)]),
        (" 40 ", "+8.0e1", [(40, 80)]),
        (".5", "1.", [(Fraction(1, 2), 1)]),
        (r"40\50\60", r"80\90", [(40, 80), (50, 90)]),
        (r"40\50", r"80\90\100", [(40, 80), (50, 90)]),
        (r"40\abc\60", r"80\90\100", [(40, 80), (60, 100)]),
        (r"\50", r"80\90", [(50, 90)]),
        ("1e309", "80", []),
        ("NaN", "inf", []),
        ("1_0", "80", []),
        ("0,5", "80", []),
        ("", "", []),
        ("9" * 65, "80", []),
        ("-2147483648", "0", [(-2147483648, 0)]),
    ],
)
def test_windows_are_paired_and_what_is_no_number_is_skipped(tmp_path, center, width, expected):
    found = parsed(tmp_path, image_file(windows(center, width))).voi.windows
    assert [(window.center, window.width) for window in found] == expected


@pytest.mark.parametrize(
    ("given_text", "function"),
    [
        (None, "LINEAR"), ("", "LINEAR"), ("sigmoid", "SIGMOID"), ("SIGMOID ", "SIGMOID"),
        ("Linear_Exact", "LINEAR_EXACT"), ("LINEAR", "LINEAR"), ("CUBIC", "LINEAR"),
    ],
)  # fmt: skip
def test_function_is_linear_unless_it_says_otherwise(tmp_path, given_text, function):
    changes = windows("40", "80") | ({} if given_text is None else {FUNCTION: text("CS", given_text)})
    assert parsed(tmp_path, image_file(changes)).voi.function is VoiFunction(function)


def test_functional_groups_are_asked_only_where_the_top_level_says_nothing(tmp_path):
    own = {PER_FRAME: sq({FRAME_VOI: sq(windows("1", "2") | {FUNCTION: text("CS", "SIGMOID")})})}
    shared = {SHARED: sq({FRAME_VOI: sq(windows("3", "4"))})}
    voi = parsed(tmp_path, image_file(own | shared)).voi
    assert (voi.windows, voi.function) == ((Window(Fraction(1), Fraction(2)),), VoiFunction.SIGMOID)
    assert parsed(tmp_path, image_file(shared)).voi.windows == (Window(Fraction(3), Fraction(4)),)
    top = parsed(tmp_path, image_file(own | shared | windows("5", "6"))).voi
    assert (top.windows, top.function) == ((Window(Fraction(5), Fraction(6)),), VoiFunction.LINEAR)


def test_rescale_may_come_from_functional_groups(tmp_path):
    groups = {SHARED: sq({TRANSFORMATION: sq({SLOPE: text("DS", "2"), INTERCEPT: text("DS", "-1")})})}
    assert parsed(tmp_path, image_file(groups)).modality_transform == ModalityTransform(
        Fraction(2), Fraction(-1)
    )
    top = groups | {SLOPE: text("DS", "0.5")}
    assert parsed(tmp_path, image_file(top)).modality_transform == ModalityTransform(Fraction(1, 2))


def test_no_rescale_is_identity(tmp_path):
    assert parsed(tmp_path, image_file()).modality_transform == ModalityTransform()
    empty = image_file({SLOPE: text("DS", ""), INTERCEPT: text("DS", "")})
    assert parsed(tmp_path, empty).modality_transform == ModalityTransform()


@pytest.mark.parametrize("changes", [{SLOPE: text("DS", "0")}, {SLOPE: text("DS", "steep")},
                                     {INTERCEPT: text("DS", "1e999")}])  # fmt: skip
def test_a_rescale_that_cannot_be_applied_is_refused(tmp_path, changes):
    assert rejection(tmp_path, image_file(changes)) == "invalid_voi"


def lut_of(tmp_path, descriptor, data, changes: Elements | None = None, tag: int = VOI_LUT) -> Lut | None:
    item: Elements = {DESCRIPTOR: descriptor, DATA: data}
    instance = parsed(tmp_path, image_file({tag: sq(item)} | (changes or {})))
    if tag == MODALITY_LUT:
        return instance.modality_transform.lut
    return instance.voi.luts[0] if instance.voi.luts else None


@pytest.mark.parametrize("tag", [VOI_LUT, MODALITY_LUT])
@pytest.mark.parametrize("vr", ["US", "OW"])
def test_lut_entries_are_words_of_either_vr(tmp_path, tag, vr):
    lut = lut_of(tmp_path, us(4, 100, 12), (vr, words(0, 1000, 2000, 4095)), tag=tag)
    assert lut == Lut(100, 12, (0, 1000, 2000, 4095))


def test_zero_entries_are_65536(tmp_path):
    lut = lut_of(tmp_path, us(0, 0, 16), ("OW", words(*range(65_536))))
    assert lut is not None
    assert (len(lut.entries), lut.entries[-1]) == (65_536, 65_535)


@pytest.mark.parametrize(
    ("descriptor", "signed", "first"),
    [(us(2, 65_436, 16), 0, 65_436), (us(2, 65_436, 16), 1, -100), (ss(2, -100, 16), 0, -100),
     (ss(2, -100, 16), 1, -100)],
)  # fmt: skip
def test_first_mapped_is_signed_by_pixel_representation_or_vr(tmp_path, descriptor, signed, first):
    lut = lut_of(tmp_path, descriptor, ("OW", words(1, 2)), {SIGNED: us(signed)})
    assert lut is not None
    assert lut.first_mapped == first


@pytest.mark.parametrize(
    ("bits", "largest", "expected"),
    [(12, 4095, 12), (16, 255, 16), (8, 4095, 12), (0, 255, 8), (0, 3, 8), (255, 1023, 10), (10, 65_535, 16)],
)
def test_wrong_bits_are_corrected_from_the_entries(tmp_path, bits, largest, expected):
    lut = lut_of(tmp_path, us(3, 0, bits), ("OW", words(0, largest // 2, largest)))
    assert lut == Lut(0, expected, (0, largest // 2, largest))


@pytest.mark.parametrize("vr", ["OW", "OB", "US"])
def test_8_bit_entries_may_be_packed_two_in_a_word(tmp_path, vr):
    assert lut_of(tmp_path, us(5, 0, 8), (vr, bytes([9, 8, 7, 6, 5, 0]))) == Lut(0, 8, (9, 8, 7, 6, 5))


def test_data_shorter_or_longer_than_declared_are_taken_as_they_are(tmp_path):
    assert lut_of(tmp_path, us(60_000, 0, 16), ("OW", words(1, 2, 3))) == Lut(0, 16, (1, 2, 3))
    assert lut_of(tmp_path, us(2, 0, 16), ("OW", words(1, 2, 3, 4))) == Lut(0, 16, (1, 2))


def test_a_lut_without_entries_is_none(tmp_path):
    assert lut_of(tmp_path, us(4, 0, 16), ("OW", b"")) is None
    assert lut_of(tmp_path, ("US", b""), ("OW", words(1))) is None


def test_a_modality_lut_without_entries_is_refused_but_an_empty_item_is_nothing(tmp_path):
    broken = {MODALITY_LUT: sq({DESCRIPTOR: us(4, 0, 16), DATA: ("OW", b"")})}
    assert rejection(tmp_path, image_file(broken)) == "invalid_voi"
    empty = {MODALITY_LUT: sq({DESCRIPTOR: ("US", b""), DATA: ("OW", b"")}), SLOPE: text("DS", "2")}
    assert parsed(tmp_path, image_file(empty)).modality_transform == ModalityTransform(Fraction(2))


def test_several_luts_and_windows_stay_alternatives(tmp_path):
    items = [{DESCRIPTOR: us(2, n, 12), DATA: ("OW", words(n, n + 1))} for n in range(3)]
    voi = parsed(tmp_path, image_file({VOI_LUT: sq(*items)} | windows("4", "5"))).voi
    assert [lut.first_mapped for lut in voi.luts] == [0, 1, 2]
    assert len(voi.windows) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({PADDING: ("US", b"")}, None),
        ({PADDING: us(0)}, Padding(0, 0)),
        ({PADDING: us(4000), LIMIT: us(4095)}, Padding(4000, 4095)),
        ({PADDING: us(4095), LIMIT: us(4000)}, Padding(4000, 4095)),
        ({PADDING: ss(-2000), SIGNED: us(1)}, Padding(-2000, -2000)),
        ({PADDING: us(63_536), SIGNED: us(1)}, Padding(-2000, -2000)),
        ({PADDING: ss(-2000), SIGNED: us(0)}, Padding(63_536, 63_536)),
        ({PADDING: ss(-1), LIMIT: us(65_000), SIGNED: us(1)}, Padding(-536, -1)),
        ({LIMIT: us(5)}, None),
    ],
)
def test_padding_is_signed_by_pixel_representation_and_ordered(tmp_path, changes, expected):
    assert parsed(tmp_path, image_file(changes)).padding == expected
