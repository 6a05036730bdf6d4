"""The wavelet level that is decoded: a pure function of codestream facts, config and box, exactly."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import roi
from preprocess.config import Orientation, ResultConfig
from preprocess.geometry import fit
from preprocess.records import BreastBox, CodestreamFacts, Compression, Instance, RoiMethod
from tests.instances import header, instance


def wavelets(rows: int, columns: int, levels: int = 5, **changes: object) -> Instance:
    """An instance whose codestream says what is given; there is nothing to decode in it."""
    facts = CodestreamFacts(
        compression=Compression.JPEG_2000,
        rows=rows,
        columns=columns,
        components=1,
        precision=16,
        signed=False,
        levels=levels,
        lossless=True,
        tile_rows=rows,
        tile_columns=columns,
    )
    native = instance(b"", header((rows, columns), "little", **changes))
    image = dataclasses.replace(native.image, transfer_syntax_uid="1.2.840.10008.1.2.4.90")
    return dataclasses.replace(native, image=image, codestream=facts)


def found(rows: int, columns: int, replacement: int | None = None) -> roi.Findings:
    return roi.Findings(BreastBox(RoiMethod.BREAST, 0, 0, rows, columns, False), replacement)


def level(box: tuple[int, int], frame: tuple[int, int] = (5355, 4915), **config: object) -> int:
    return roi.choose_level(wavelets(*frame), found(*box), ResultConfig.model_validate(config))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1024, 0), (2559, 0), (2560, 1), (5119, 1), (5120, 2), (5355, 2)],
)
def test_auto_takes_the_coarsest_level_that_keeps_the_margin(rows, expected):
    # The box fills the output's 1024 rows: level r is allowed from 1.25 · 1024 · 2^r rows on.
    assert level((rows, rows // 2)) == expected


@pytest.mark.parametrize(("columns", "content", "expected"), [(16, 3, 2), (8, 2, 1), (3, 1, 1), (2, 1, 0)])
def test_the_narrow_axis_counts_too(columns, content, expected):
    # The rows allow level 2; rounded up, `content` columns want 1.25 · content · 2^r of the box.
    box = found(5355, columns).box
    assert fit(box, 1024, 512, Orientation.LEFT).content_columns == content
    assert level((5355, columns)) == expected


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 2), (1.25, 1), (2.0, 1), (4.0, 0)])
def test_the_margin_is_the_configs(margin, expected):
    assert level((4096, 2000), decode_margin=margin) == expected


def test_the_margin_is_the_decimal_that_was_written():
    # In binary 1.1 is a little more than 11/10 and would refuse the box that exactly suffices.
    assert level((2 * 1100, 1100), height=1000, width=500, decode_margin=1.1) == 1
    assert level((2 * 1100 - 1, 1100), height=1000, width=500, decode_margin=1.1) == 0


def test_enlarged_and_full_decoding_take_level_0():
    assert level((300, 200)) == 0
    assert level((5355, 4915), decode="full") == 0


@pytest.mark.parametrize(("asked", "expected"), [("0", 0), ("2", 2), ("5", 5), ("9", 5)])
def test_a_number_is_taken_as_far_as_there_are_levels(asked, expected):
    assert level((300, 200), decode=asked) == expected


@pytest.mark.parametrize("asked", ["auto", "3"])
def test_padding_that_must_be_replaced_forces_level_0(asked):
    config = ResultConfig(decode=asked)
    assert roi.choose_level(wavelets(5355, 4915), found(5355, 2700), config) > 0
    assert roi.choose_level(wavelets(5355, 4915), found(5355, 2700, replacement=0), config) == 0


@pytest.mark.parametrize("asked", ["auto", "3"])
@pytest.mark.parametrize("changes", [{"has_overlay_in_pixels": True}, {"bits_stored": 12, "high_bit": 15}])
def test_values_that_are_more_than_numbers_force_level_0(asked, changes):
    config = ResultConfig(decode=asked)
    assert roi.choose_level(wavelets(5355, 4915, **changes), found(5355, 2700), config) == 0


def test_a_stream_without_wavelets_has_level_0_only():
    bare = instance(b"", header((5355, 4915), "little"))
    assert roi.choose_level(bare, found(5355, 2700), ResultConfig(decode="4")) == 0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.integers(0, 6),
    st.integers(100, 400),
    st.tuples(st.integers(16, 2048), st.integers(16, 2048)),
)
def test_the_level_suffices_and_the_next_does_not(rows, columns, levels, percent, size):
    config = ResultConfig(height=size[0], width=size[1], decode_margin=percent / 100)
    findings = found(rows, columns)
    chosen = roi.choose_level(wavelets(6000, 6000, levels), findings, config)
    content = fit(findings.box, *size, config.orient)

    def enough(candidate: int) -> bool:
        scale, margin = 2**candidate, Fraction(percent, 100)
        return (
            Fraction(rows, scale) >= margin * content.content_rows
            and Fraction(columns, scale) >= margin * content.content_columns
        )

    assert chosen == 0 or enough(chosen)
    assert chosen == levels or not enough(chosen + 1)
