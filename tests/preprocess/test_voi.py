"""VOI tables: figures worked by hand from PS3.3 C.11.2, exactness, choices and ranges."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import count
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import voi
from preprocess.config import (
    MissingWindow,
    ProcessingPolicy,
    ResultConfig,
    VoiPreference,
    WindowPolicy,
)
from preprocess.errors import RejectedInput
from preprocess.records import (
    ImageHeader,
    Lut,
    ModalityTransform,
    VoiChoice,
    VoiFunction,
    VoiHeader,
    VoiSource,
    Window,
)

IDENTITY = ModalityTransform()


def header(
    bits: int = 12, signed: bool = False, inverted: bool = False, intent: str | None = None
) -> ImageHeader:
    return ImageHeader(
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        rows=4,
        columns=4,
        bits_allocated=16,
        bits_stored=bits,
        high_bit=bits - 1,
        pixel_representation=int(signed),
        photometric_interpretation="MONOCHROME1" if inverted else "MONOCHROME2",
        inverted=inverted,
        presentation_intent_type=intent,
    )


def window(center: str | int, width: str | int) -> Window:
    return Window(Fraction(center), Fraction(width))


def windowed(function: VoiFunction, center: str | int, width: str | int) -> VoiChoice:
    return VoiChoice(VoiSource.WINDOW, function, window(center, width))


# --- worked by hand from PS3.3 C.11.2.1.2.1, C.11.2.1.3.1, C.11.2.1.3.2 ---

BY_HAND = [
    # The standard's own notes on LINEAR. c = 2048, w = 4096: y = ((x − 2047.5)/4095 + 0.5)·M = x·M/4095;
    # 2048·65535/4095 = 32775.50…
    ("LINEAR", 2048, 4096, 16, {0: 0, 1: 16, 2048: 32776, 4094: 65519, 4095: 65535}),
    # c = 2048, w = 1: x ≤ 2047.5 is black, x > 2047.5 is white.
    ("LINEAR", 2048, 1, 16, {0: 0, 2047: 0, 2048: 65535, 4095: 65535}),
    # c = 100, w = 100: x ≤ 50 black, x > 149 white; x = 100: (0.5/99 + 0.5)·255 = 128.79;
    # x = 75: (−24.5/99 + 0.5)·255 = 64.39.
    ("LINEAR", 100, 100, 8, {50: 0, 51: 3, 75: 64, 100: 129, 148: 252, 149: 255, 150: 255}),
    # c = 2048, w = 4096, exactly: x = 2048 is 127.5 and goes up; 1024 is 63.75; 4095: 254.94.
    ("LINEAR_EXACT", 2048, 4096, 8, {0: 0, 1024: 64, 2048: 128, 4095: 255}),
    # c = 10, w = 0.5: from 9.75 to 10.25; x = 10 in the middle: 127.5.
    ("LINEAR_EXACT", 10, "0.5", 8, {9: 0, 10: 128, 11: 255}),
    # 1/(1 + e²) = 0.1192029, · 65535 = 7811.96; in the middle 32767.5;
    # x = 4095: 1/(1 + e^(−4·2047/4096)) = 0.8806944, · 65535 = 57716.3 — never black, never white.
    ("SIGMOID", 2048, 4096, 16, {0: 7812, 2048: 32768, 4095: 57716}),
    # FACTS: 0…4095 goes to 488…3607 of 4095, here of 255: 30.397 and 224.58.
    ("SIGMOID", 2048, 4096, 8, {0: 30, 2048: 128, 4095: 225}),
]


@pytest.mark.parametrize(("function", "center", "width", "bits", "expected"), BY_HAND)
def test_figures_worked_out_by_hand(
    function: str, center: int, width: int, bits: int, expected: dict[int, int]
) -> None:
    table = voi.build_table(windowed(VoiFunction(function), center, width), IDENTITY, header(), bits)
    assert {x: int(table[x]) for x in expected} == expected
    assert table.dtype == np.uint16
    assert table.shape == (65536,)


def test_rescale_comes_before_the_window() -> None:
    # x = 2·v − 1000, so v = 500 … 524.5 is 0 … 49: LINEAR c = 25, w = 50 is white above 49.
    modality = ModalityTransform(Fraction(2), Fraction(-1000))
    table = voi.build_table(windowed(VoiFunction.LINEAR, 25, 50), modality, header(), 8)
    assert [int(table[v]) for v in (500, 501, 524, 525)] == [0, 10, 250, 255]


def test_modality_lut_comes_before_the_window_and_its_ends_go_on() -> None:
    modality = ModalityTransform(lut=Lut(first_mapped=10, bits=8, entries=(0, 100, 50)))
    table = voi.build_table(windowed(VoiFunction.LINEAR_EXACT, 50, 100), modality, header(), 8)
    assert [int(table[v]) for v in (0, 10, 11, 12, 13, 4095)] == [0, 0, 255, 128, 128, 128]


def test_voi_lut_uses_its_whole_output_range() -> None:
    # 10 bits in the LUT: 1023 is white; 512/1023·65535 = 32799.5…; first mapped value 5.
    choice = VoiChoice(VoiSource.LUT, lut=Lut(first_mapped=5, bits=10, entries=(0, 512, 1023, 256)))
    table = voi.build_table(choice, IDENTITY, header(), 16)
    assert [int(table[v]) for v in (0, 5, 6, 7, 8, 9)] == [0, 0, 32800, 65535, 16400, 16400]


def test_voi_lut_of_a_negative_first_value_and_fractional_rescale_takes_the_lower_entry() -> None:
    choice = VoiChoice(VoiSource.LUT, lut=Lut(first_mapped=-2, bits=8, entries=(0, 1, 2, 3, 4)))
    modality = ModalityTransform(Fraction(1, 2), Fraction(-1))
    table = voi.build_table(choice, modality, header(signed=True), 8)
    values = {v: int(table[v + 32768]) for v in (-9, -2, -1, 0, 1, 2, 9)}
    assert values == {-9: 0, -2: 0, -1: 0, 0: 1, 1: 1, 2: 2, 9: 4}


def test_signed_values_are_indexed_from_32768() -> None:
    table = voi.build_table(windowed(VoiFunction.LINEAR_EXACT, 0, 100), IDENTITY, header(16, signed=True), 8)
    assert [int(table[v + 32768]) for v in (-32768, -50, 0, 50, 32767)] == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("signed", [False, True])
def test_patterns_outside_bits_stored_take_the_nearest_entry(signed: bool) -> None:
    table = voi.build_table(windowed(VoiFunction.SIGMOID, 0, 20000), IDENTITY, header(12, signed), 16)
    low, high = (32768 - 2048, 32768 + 2047) if signed else (0, 4095)
    assert (table[:low] == table[low]).all()
    assert (table[high:] == table[high]).all()
    assert table[high] < 65000  # SIGMOID would have gone on rising


@pytest.mark.parametrize("function", list(VoiFunction))
@pytest.mark.parametrize("bits", [8, 16])
def test_inversion_is_last_and_by_the_full_range(function: VoiFunction, bits: int) -> None:
    choice = windowed(function, 900, 1001)
    plain = voi.build_table(choice, IDENTITY, header(), bits).astype(int)
    inverted = voi.build_table(choice, IDENTITY, header(inverted=True), bits).astype(int)
    total = plain + inverted
    # M − y and y round to a sum of M, or M + 1 where y is exactly a half.
    assert set(total.tolist()) <= {2**bits - 1, 2**bits}
    assert (total[:4096] == 2**bits).sum() <= 1


def test_inversion_of_a_lut_and_of_a_step() -> None:
    lut = VoiChoice(VoiSource.LUT, lut=Lut(0, 8, (0, 100, 255)))
    assert voi.build_table(lut, IDENTITY, header(inverted=True), 8)[:4].tolist() == [255, 155, 0, 0]
    step = windowed(VoiFunction.LINEAR, 2, 1)
    assert voi.build_table(step, IDENTITY, header(inverted=True), 8)[:4].tolist() == [255, 255, 0, 0]


# --- exactness ---

decimals = st.decimals(-5000, 5000, places=3, allow_nan=False).map(Fraction)
widths = st.decimals(1, 9000, places=3, allow_nan=False).map(Fraction)
slopes = st.sampled_from(["1", "0.5", "-1", "0.01", "3.7", "-2.25", "1e-7", "12345"]).map(Fraction)


@given(
    st.sampled_from([VoiFunction.LINEAR, VoiFunction.LINEAR_EXACT]),
    decimals, widths, slopes, decimals, st.booleans(), st.sampled_from([8, 16]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_linear_entry_is_the_exact_one(
    function: VoiFunction, center: Fraction, width: Fraction, slope: Fraction, intercept: Fraction,
    inverted: bool, bits: int,
) -> None:  # fmt: skip
    choice = VoiChoice(VoiSource.WINDOW, function, Window(center, width))
    image = header(8, inverted=inverted)
    table = voi.build_table(choice, ModalityTransform(slope, intercept), image, bits)
    largest = 2**bits - 1
    for v in range(256):
        x = slope * v + intercept
        if function is VoiFunction.LINEAR_EXACT:
            y = (x - center) / width + Fraction(1, 2)
        elif width == 1:
            y = Fraction(int(x > center - Fraction(1, 2)))
        else:
            y = (x - center + Fraction(1, 2)) / (width - 1) + Fraction(1, 2)
        y = min(max(y, Fraction(0)), Fraction(1)) * largest
        assert table[v] == floor((largest - y if inverted else y) + Fraction(1, 2))


@pytest.mark.parametrize("center", ["32767.5", "1000", "-31000.25"])
def test_entries_near_a_half_do_not_depend_on_the_float_library(
    monkeypatch: pytest.MonkeyPatch, center: str
) -> None:
    choices = [
        (windowed(VoiFunction.SIGMOID, center, w), header(16)) for w in ("20000", "777.7", "99999.125")
    ]
    before = [voi.build_table(choice, IDENTITY, image, 16).copy() for choice, image in choices]
    voi._table.cache_clear()
    true_exp, wobble = np.exp, np.random.default_rng(0)
    calls = count()

    def other_exp(z: np.ndarray) -> np.ndarray:
        next(calls)
        return true_exp(z) * (1 + wobble.uniform(-1e-13, 1e-13, z.shape))

    monkeypatch.setattr(voi.np, "exp", other_exp)
    after = [voi.build_table(choice, IDENTITY, image, 16) for choice, image in choices]
    assert next(calls) == len(choices)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_window_of_exact_halves_rounds_every_one_of_them_up() -> None:
    # LINEAR_EXACT, w = 510: y = x/2 exactly, so every odd x is a half.
    table = voi.build_table(windowed(VoiFunction.LINEAR_EXACT, 255, 510), IDENTITY, header(), 8)
    assert table[:511].tolist() == [(x + 1) // 2 for x in range(511)]
    inverted = voi.build_table(
        windowed(VoiFunction.LINEAR_EXACT, 255, 510), IDENTITY, header(inverted=True), 8
    )
    assert inverted[:511].tolist() == [255 - x // 2 for x in range(511)]


@pytest.mark.parametrize(
    ("center", "width", "expected"),
    [
        ("1e38", "1e38", [0, 0]),  # 0 is exactly at the lower edge
        ("-2147483648", "1", [65535, 65535]),
        ("99999999", "1", [0, 0]),
        ("2000", "1e-9", [0, 65535]),
        ("1e300", "1e-300", [0, 0]),
        ("0", "1e300", [32768, 32768]),
    ],
)
def test_absurd_windows_clamp_without_warnings(center: str, width: str, expected: list[int]) -> None:
    for function in (VoiFunction.LINEAR_EXACT, VoiFunction.SIGMOID):
        choice = windowed(function, center, width)
        table = voi.build_table(choice, IDENTITY, header(), 16)
        if function is VoiFunction.LINEAR_EXACT or width != "1e38":
            assert [int(table[0]), int(table[4095])] == expected


@given(st.sampled_from(list(VoiFunction)), decimals, widths, st.sampled_from([8, 16]))
@settings(max_examples=30, deadline=None)
def test_tables_rise_with_the_modality_value(
    function: VoiFunction, center: Fraction, width: Fraction, bits: int
) -> None:
    choice = VoiChoice(VoiSource.WINDOW, function, Window(center, width))
    rising = voi.build_table(choice, IDENTITY, header(16, signed=True), bits).astype(int)
    falling = voi.build_table(choice, ModalityTransform(Fraction(-1)), header(16, True), bits).astype(int)
    assert (np.diff(rising) >= 0).all()
    assert (np.diff(falling) <= 0).all()
    assert rising.max() < 2**bits


def test_tables_cannot_be_changed_by_a_caller() -> None:
    table = voi.build_table(windowed(VoiFunction.LINEAR, 5, 5), IDENTITY, header(), 8)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@pytest.mark.parametrize(
    "modality", [ModalityTransform(slope=Fraction(0)), ModalityTransform(lut=Lut(0, 8, ()))]
)
def test_a_modality_transform_that_says_nothing_is_rejected(modality: ModalityTransform) -> None:
    for choice in (windowed(VoiFunction.LINEAR, 5, 5), VoiChoice(VoiSource.FULL, VoiFunction.LINEAR_EXACT)):
        with pytest.raises(RejectedInput) as caught:
            voi.build_table(choice, modality, header(), 8)
        assert caught.value.code == "invalid_voi"


# --- choices ---

LUTS = (Lut(0, 8, (0, 255)), Lut(0, 12, (0, 4095)))


def test_the_first_window_is_taken_unless_another_is_asked_for() -> None:
    three = VoiHeader(windows=(window(1, 10), window(2, 20), window(3, 30)))
    assert voi.choose(three, header(), ResultConfig()).window == window(1, 10)
    assert voi.choose(three, header(), ResultConfig(voi_index=1)).window == window(2, 20)
    last = voi.choose(three, header(), ResultConfig(voi_index=9))
    assert (last.window, last.index, last.source) == (window(3, 30), 2, VoiSource.WINDOW)
    assert last.reason == "window 3 of 3 in the header"


def test_windows_that_cannot_be_applied_are_passed_over() -> None:
    some = VoiHeader(windows=(window(1, 0), window(2, -5), window(3, "0.5"), window(4, 40)))
    choice = voi.choose(some, header(), ResultConfig())
    assert (choice.window, choice.index) == (window(4, 40), 3)
    assert "3 cannot be applied" in choice.reason
    exact = VoiHeader(VoiFunction.LINEAR_EXACT, some.windows)
    assert voi.choose(exact, header(), ResultConfig()).window == window(3, "0.5")


def test_windows_win_over_luts_unless_luts_are_preferred() -> None:
    both = VoiHeader(VoiFunction.SIGMOID, (window(1, 10),), LUTS)
    chosen = voi.choose(both, header(), ResultConfig())
    assert (chosen.source, chosen.function, chosen.lut) == (VoiSource.WINDOW, VoiFunction.SIGMOID, None)
    chosen = voi.choose(both, header(), ResultConfig(voi=VoiPreference.LUT, voi_index=1))
    assert (chosen.source, chosen.function, chosen.lut) == (VoiSource.LUT, None, LUTS[1])


@pytest.mark.parametrize("preference", list(VoiPreference))
def test_what_is_preferred_but_absent_yields_to_what_is_there(preference: VoiPreference) -> None:
    config = ResultConfig(voi=preference)
    only_luts = VoiHeader(windows=(window(1, 0),), luts=LUTS)
    assert voi.choose(only_luts, header(), config).source is VoiSource.LUT
    only_windows = VoiHeader(windows=(window(1, 2),), luts=(Lut(0, 8, ()),))
    assert voi.choose(only_windows, header(), config).source is VoiSource.WINDOW


@pytest.mark.parametrize("policy", [MissingWindow.MINMAX, MissingWindow.PERCENTILE, MissingWindow.FULL])
def test_a_missing_window_follows_its_policy(policy: MissingWindow) -> None:
    choice = voi.choose(VoiHeader(windows=(window(1, 0),)), header(), ResultConfig(missing_window=policy))
    assert choice.source.value == policy.value
    assert choice.reason == "none of 1 windows and 0 VOI LUTs can be applied"


def test_a_missing_window_is_rejected_where_the_policy_says_so() -> None:
    with pytest.raises(RejectedInput) as caught:
        voi.choose(VoiHeader(), header(), ResultConfig(missing_window=MissingWindow.REJECT))
    assert caught.value.code == "invalid_voi"


def test_for_processing_images_follow_their_own_policy() -> None:
    raw, given_voi = header(intent="FOR PROCESSING"), VoiHeader(windows=(window(1, 10),))
    assert voi.choose(given_voi, raw, ResultConfig()).source is VoiSource.MINMAX
    config = ResultConfig(for_processing=ProcessingPolicy.HEADER)
    assert voi.choose(given_voi, raw, config).source is VoiSource.WINDOW
    config = ResultConfig(window=WindowPolicy.FULL)
    assert voi.choose(given_voi, raw, config).source is VoiSource.FULL
    config = ResultConfig(window=WindowPolicy.FULL, for_processing=ProcessingPolicy.REJECT)
    with pytest.raises(RejectedInput):
        voi.choose(given_voi, raw, config)
    assert voi.choose(given_voi, header(intent="FOR PRESENTATION"), config).source is VoiSource.FULL


# --- ranges ---


def counts(values: list[int], signed: bool = False) -> np.ndarray:
    return np.bincount(np.array(values) + (32768 if signed else 0), minlength=65536)


@given(
    st.lists(st.integers(-2048, 2047), min_size=2, max_size=300),
    st.integers(0, 400), st.integers(600, 1000),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_percentiles_are_the_values_of_rank_ceil_of_p_times_n(values: list[int], low: int, high: int) -> None:
    config = ResultConfig(percentile_low=low / 1000, percentile_high=high / 1000)
    choice = VoiChoice(VoiSource.PERCENTILE)
    ordered, n = sorted(values), len(values)
    if ordered[0] == ordered[-1]:
        with pytest.raises(RejectedInput):
            voi.stored_range(counts(values, True), choice, header(signed=True), config)
        return
    found = voi.stored_range(counts(values, True), choice, header(signed=True), config)
    expected = tuple(ordered[max(1, ceil(Fraction(p, 1000) * n)) - 1] for p in (low, high))
    assert found == (expected if expected[0] < expected[1] else (ordered[0], ordered[-1]))


def test_minmax_and_full_ranges() -> None:
    values = counts([7, 7, 9, 100])
    assert voi.stored_range(values, VoiChoice(VoiSource.MINMAX), header(), ResultConfig()) == (7, 100)
    assert voi.stored_range(values, VoiChoice(VoiSource.FULL), header(10), ResultConfig()) == (0, 1023)
    assert voi.bits_range(header(10, signed=True)) == (-512, 511)


@pytest.mark.parametrize("values", [[], [5, 5, 5]])
def test_a_range_needs_two_different_values(values: list[int]) -> None:
    histogram = counts(values) if values else np.zeros(65536, np.int64)
    with pytest.raises(RejectedInput) as caught:
        voi.stored_range(histogram, VoiChoice(VoiSource.MINMAX), header(), ResultConfig())
    assert caught.value.code == "blank_image"


@pytest.mark.parametrize("slope", ["1", "-0.5"])
def test_a_range_maps_its_ends_to_black_and_white_in_the_modalitys_direction(slope: str) -> None:
    modality = ModalityTransform(Fraction(slope), Fraction(7))
    choice = VoiChoice(VoiSource.MINMAX, VoiFunction.LINEAR_EXACT)
    table = voi.build_table(choice, modality, header(), 8, (100, 200))
    ends = [int(table[v]) for v in (0, 100, 120, 200, 4095)]
    assert ends == ([0, 0, 51, 255, 255] if slope == "1" else [255, 255, 204, 0, 0])


def test_a_range_is_recorded_as_its_window_in_modality_units() -> None:
    choice = VoiChoice(VoiSource.MINMAX, VoiFunction.LINEAR_EXACT)
    resolved = voi.resolve(choice, ModalityTransform(Fraction(2), Fraction(10)), header(), (100, 200))
    assert resolved.window == window(310, 200)
    through_lut = ModalityTransform(lut=Lut(0, 8, (9, 3, 50, 20)))
    assert voi.resolve(choice, through_lut, header(), (1, 3)).window == Window(Fraction(53, 2), Fraction(47))
    chosen = windowed(VoiFunction.LINEAR, 1, 2)
    assert voi.resolve(chosen, IDENTITY, header(), (1, 3)) is chosen


def test_a_range_that_depends_on_the_pixels_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="range of stored values"):
        voi.build_table(VoiChoice(VoiSource.MINMAX, VoiFunction.LINEAR_EXACT), IDENTITY, header(), 8)
    full = voi.build_table(VoiChoice(VoiSource.FULL, VoiFunction.LINEAR_EXACT), IDENTITY, header(8), 16)
    assert full[:256].tolist() == [257 * v for v in range(256)]


def test_every_output_value_of_a_full_range_is_equally_wide() -> None:
    table = voi.build_table(VoiChoice(VoiSource.FULL, VoiFunction.LINEAR_EXACT), IDENTITY, header(16), 8)
    sizes = Counter(table.tolist())
    assert {sizes[v] for v in range(1, 255)} == {257}
