"""Limits hold before allocation: no small file costs 2 GB, or its time limit, or anybody else's image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from preprocess.config import ExecutionConfig
from tests.fuzz.bombs import BOMBS
from tests.fuzz.limited import Cost, measured

FULL = int(os.environ.get("BCD_FUZZ_MUTANTS", "0")) > 1_000
LARGEST = {"largest_allowed", "largest_allowed_htj2k"}
"""Four seconds each: with the full campaign only."""
CHOSEN = [name for name in BOMBS if FULL or name not in LARGEST]
MOST_MB = 2_000
MOST_SECONDS = ExecutionConfig().image_timeout_s / 10


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    for name in CHOSEN:
        (folder / name).write_bytes(BOMBS[name][0]())
    return folder


@pytest.fixture(scope="module")
def costs(bombs: Path) -> dict[str, Cost]:
    return {cost.name: cost for cost in measured(sorted(bombs.iterdir()))}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_bomb_ends_as_documented_within_its_limits(name: str, costs: dict[str, Cost]) -> None:
    cost = costs[name]
    assert cost.outcome in BOMBS[name][1]
    assert cost.seconds < MOST_SECONDS
    assert cost.peak_mb < MOST_MB  # of the process that went through all before it, too


def test_bombs_are_small(bombs: Path) -> None:
    assert max(path.stat().st_size for path in bombs.iterdir()) < 5_000_000
