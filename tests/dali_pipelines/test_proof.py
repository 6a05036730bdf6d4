"""The self-test's vectors prove what they are meant to prove."""

from __future__ import annotations

import numpy as np
import pytest

from dali_pipelines import proof
from dali_pipelines.engines import Wish
from dali_pipelines.proof import DEEPEST, Range, prove
from preprocess import openjpeg
from preprocess.codestream import read_facts
from preprocess.records import Compression
from preprocess.wavelet import low_pass_53
from tests.dali_pipelines.simulated import engines_of

WAVELETS = (Compression.JPEG_2000, Compression.HTJ2K)


@pytest.mark.parametrize("compression", WAVELETS)
@pytest.mark.parametrize("precision", [9, 12, 16])
def test_vectors_are_lossless_streams_of_their_precision_and_levels(
    compression: Compression, precision: int
) -> None:
    facts = read_facts(proof.encode(compression, precision), compression)
    assert (facts.precision, facts.levels, facts.lossless, facts.signed) == (precision, DEEPEST, True, False)
    decoded = openjpeg.decode(proof.encode(compression, precision), 0, lossless=True)
    assert np.array_equal(decoded, proof.vector(precision))


@pytest.mark.parametrize("precision", [9, 12, 16])
@pytest.mark.parametrize("level", range(1, DEEPEST + 1))
def test_vectors_overshoot_both_ends_at_every_level(precision: int, level: int) -> None:
    samples = low_pass_53(proof.vector(precision), level)
    assert np.count_nonzero(samples < 0) >= 5
    assert np.count_nonzero(samples >= 1 << precision) >= 5


@pytest.mark.parametrize("compression", WAVELETS)
@pytest.mark.parametrize("level", range(DEEPEST + 1))
def test_openjpeg_gives_what_is_expected_of_a_level(compression: Compression, level: int) -> None:
    decoded = openjpeg.decode(proof.encode(compression, 12), level, lossless=True)
    assert np.array_equal(decoded, proof.expected(proof.vector(12), 12, level))


def test_a_right_engine_is_proven_everywhere_in_the_range_it_has() -> None:
    found = prove(engines_of(Wish(1, 1), {"scale": True, "only": ["batch", "level"]}))
    assert len(found.proven) == found.tried == 16 + 16 * 6
    kinds = {(case.engine, kind) for case, kind in found.proven if case.precision < 16}
    assert kinds == {("batch", Range.SCALED), ("level", Range.RAW)}


def test_what_comes_short_or_not_at_all_is_not_proven() -> None:
    engines = engines_of(Wish(1, 1), {"only": ["batch"]})
    engine = engines.full[0]
    engine.decode = lambda jobs: []  # type: ignore[method-assign,assignment]
    assert prove(engines).proven == ()


def test_an_engine_that_hands_out_an_earlier_batch_is_not_proven() -> None:
    engines = engines_of(Wish(1, 1), {"only": ["batch"]})
    engine = engines.full[0]
    right, earlier = engine.decode, list[object]()

    def late(jobs: list[object]) -> object:
        earlier.append(right(jobs))  # type: ignore[arg-type]
        return earlier[-2] if len(earlier) > 1 else earlier[0]

    engine.decode = late  # type: ignore[method-assign,assignment]
    assert {case.compression for case, _ in prove(engines).proven} == {Compression.JPEG_2000}
