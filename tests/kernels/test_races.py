"""Components with all threads of the grid at once, switched at every atomic, in drawn orders.

The plain run on the CPU proves what a kernel computes; this, that it does not depend on who comes first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from preprocess.kernels import launches, reference
from tests.kernels import shim
from tests.kernels.shim import ShimDevice, ShimKernels

ORDERS = 12
SHAPE = (17, 23)


def masks() -> Iterator[np.ndarray]:
    random = np.random.default_rng(8)
    yield np.ones(SHAPE, np.bool_)
    yield (np.indices(SHAPE).sum(axis=0) % 2).astype(np.bool_)
    for share in (0.4, 0.5, 0.6, 0.8):
        yield random.random(SHAPE) < share


def differences(kernels: ShimKernels, seeds: Iterable[int | None] = range(1, ORDERS + 1)) -> int:
    """How often the components differ from the reference's; seed None: one thread after the other."""
    found, device = 0, kernels.device
    try:
        for seed in seeds:
            device.racing_seed = seed
            for mask in masks():
                there = device.upload(mask)
                same = np.array_equal(
                    kernels.to_host(kernels.largest_component(there)), reference.largest_component(mask)
                )
                same &= np.array_equal(
                    kernels.to_host(kernels.fill_holes(there, 4)), reference.fill_holes(mask, 4)
                )
                found += not same
    finally:
        device.racing_seed = None
    return found


def test_components_are_the_same_whichever_thread_comes_first(compiled_kernels: ShimKernels) -> None:
    assert differences(compiled_kernels) == 0


def test_a_union_that_forgets_the_faster_thread_is_found_out(
    compiled_kernels: ShimKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same source, but a lost race is not made good: the orders drawn do contain such races."""
    sound = launches.source_text
    careful = "        if (was == high)\n            return;"

    def careless(name: str) -> str:
        assert name != "masks" or careful in sound(name)
        return sound(name).replace(careful, "        return;")

    monkeypatch.setattr(launches, "source_text", careless)
    try:
        libraries = shim.compiled(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    kernels = ShimKernels(ShimDevice(libraries))
    assert differences(kernels, [None]) == 0
    assert differences(kernels) > 0
