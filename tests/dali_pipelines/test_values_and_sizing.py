"""DALI's range undone exactly, and how many images are in flight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_pipelines.sizing import IMAGE_BYTES_PER_PIXEL, MAX_BATCH, MAX_THREADS, STATE_BYTES_PER_PIXEL, sizes
from dali_pipelines.values import redo_range, undo_range


@pytest.mark.parametrize("precision", range(9, 17))
def test_the_range_is_undone_exactly_however_it_was_rounded(precision: int) -> None:
    values = np.arange(1 << precision)[None].astype(np.uint16)
    factor = np.float32(65535 / ((1 << precision) - 1))
    as_float = values.astype(np.float32) * factor
    for scaled in (redo_range(values, precision), np.rint(as_float), np.floor(as_float)):
        undone = undo_range(scaled.astype(np.uint16), precision)
        assert undone.dtype == np.uint16
        assert np.array_equal(undone, values)


@pytest.mark.parametrize("precision", [1, 8, 17])
def test_other_precisions_are_refused(precision: int) -> None:
    with pytest.raises(ValueError, match="not known"):
        undo_range(np.zeros((1, 1), np.uint16), precision)


@given(
    pixels=st.integers(1, 100_000_000),
    free=st.integers(0, 200_000_000_000),
    cores=st.integers(1, 128),
    batch=st.integers(0, 100),
    threads=st.integers(0, 64),
)
def test_sizes_fit_the_memory_or_are_the_least(
    pixels: int, free: int, cores: int, batch: int, threads: int
) -> None:
    chosen = sizes(pixels, free, cores, batch=batch, threads=threads)
    assert min(chosen.batch, chosen.threads, chosen.prefetch) >= 1
    assert chosen.batch == batch or (not batch and chosen.batch <= MAX_BATCH)
    assert chosen.threads == threads or (not threads and chosen.threads <= min(MAX_THREADS, 2 * cores))
    needed = pixels * (
        chosen.threads * STATE_BYTES_PER_PIXEL + chosen.prefetch * chosen.batch * IMAGE_BYTES_PER_PIXEL
    )
    if not batch and not threads and (chosen.batch, chosen.threads) != (1, 1):
        assert needed <= max(free, pixels * (STATE_BYTES_PER_PIXEL + IMAGE_BYTES_PER_PIXEL))


def test_a_large_gpu_has_many_images_in_flight_and_a_small_one_few() -> None:
    large, small = (sizes(27_000_000, gib << 30, 16) for gib in (80, 8))
    assert (large.threads, large.prefetch) == (32, 2)
    assert large.batch >= 32
    assert large.batch % large.threads == 0
    assert small.batch < large.batch
    assert small.threads < large.threads
