"""The checks by name, in the order in which they run, each with a time limit.

In:  a name.
Out: a Check. The budget of all is eight minutes; limits add up to more, what is likely to less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.gpu import exactness, kernel_check, rates, runs, training
from bench.gpu.context import Context


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that only hardware can say."""

    name: str
    work: Callable[[Context], bool]
    limit_s: float


CHECKS = (
    Check("range_rule", exactness.range_rule, 40),
    Check("overshoot", exactness.overshoot, 25),
    Check("pixels", exactness.pixels, 60),
    Check("shards", runs.shards, 80),
    Check("damage", exactness.damage, 50),
    Check("lossless_jpeg", exactness.lossless_jpeg, 20),
    Check("lossy", exactness.lossy, 30),
    Check("compared", rates.compared, 35),
    Check("memory", rates.peak, 25),
    Check("kernels", kernel_check.bandwidth, 30),
    Check("end_to_end", runs.end_to_end, 130),
    Check("bare", rates.bare, 100),
    Check("training", training.training, 240),
)


def named(name: str) -> Check:
    """The check of a name. Raises KeyError."""
    return {check.name: check for check in CHECKS}[name]
