"""--memory-limit: the fewest parts that fit, on devices that free memory and in processes that keep it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from trainer.backends.base import Learner, parts_that_fit
from trainer.errors import OutOfMemory
from trainer.records import Batch

BATCH = Batch(
    np.zeros((24, 2, 2, 1), np.float32), np.zeros((24, 1), np.float32), np.ones(24, np.float32), np.arange(24)
)


class Fake:
    """100 bytes, and 10 for each image of a part; a CPU's process keeps what it once had."""

    def __init__(self, *devices: str) -> None:
        self.devices = devices
        self.tried: list[int] = []
        self._kept = 0

    def peak_bytes(self, batch: Batch, parts: int) -> int:
        self.tried.append(parts)
        needed = 100 + 10 * len(batch.weights) // parts // len(self.devices)
        self._kept = max(self._kept, needed) if "CPU" in self.devices[0] else needed
        return self._kept


def found(fake: Fake, limit: int, at_least: int = 1) -> int:
    return parts_that_fit(cast(Learner, cast(Any, fake)), BATCH, limit, at_least)


@pytest.mark.parametrize("devices", [("GPU:0",), ("/device:CPU:0",), ("GPU:0", "GPU:1"), ("cpu:0", "cpu:1")])
def test_the_fewest_parts_that_fit_are_found(devices: tuple[str, ...]) -> None:
    share = 24 // len(devices)
    for parts in (one for one in range(1, share + 1) if share % one == 0):
        limit = 100 + 10 * share // parts
        assert found(Fake(*devices), limit) == parts
        assert found(Fake(*devices), limit + 1) == parts
    with pytest.raises(OutOfMemory, match="110 bytes even in the smallest parts"):
        found(Fake(*devices), 109)


def test_parts_that_were_asked_for_are_the_least() -> None:
    assert found(Fake("GPU:0"), 10_000, at_least=3) == 3
    assert found(Fake("/device:CPU:0"), 10_000, at_least=3) == 3


def test_a_process_that_keeps_memory_is_never_asked_for_less_after_more() -> None:
    fake = Fake("/device:CPU:0")
    assert found(fake, 130) == 8
    assert fake.tried == sorted(fake.tried, reverse=True)
