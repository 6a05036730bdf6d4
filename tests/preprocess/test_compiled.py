"""Machine code is kept between processes, and never used for other text than it was made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = """
import numpy as np
from preprocess.compiled import compiled
from parts import OFFSET, TABLE, step

@compiled
def total(x):
    return step(x) + OFFSET + TABLE[0]

print(total(1), sum(total.stats.cache_hits.values()))
"""
PARTS = """
import numpy as np
from preprocess.compiled import compiled, inlined

OFFSET = 100
TABLE = np.array([1000])

@compiled
def deeper(x):
    return 3 * x

@inlined
def step(x):
    return deeper(x) + 1
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path


def run(program: Path) -> tuple[int, int]:
    """What it prints: the total, and how often machine code was found."""
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(program), *sys.path]),
        "NUMBA_CACHE_DIR": str(program / "cache"),
        # Python takes bytecode for current where a file of the same size was changed within the same second.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(program / "main.py")], env=variables, capture_output=True, text=True, check=True
    )
    total, hits = done.stdout.split()
    return int(total), int(hits)


def test_the_second_process_finds_what_the_first_compiled(program: Path) -> None:
    assert run(program) == (1104, 0)
    assert run(program) == (1104, 1)


@pytest.mark.parametrize(
    ("before", "after", "total"),
    [
        ("3 * x", "5 * x", 1106),
        ("OFFSET = 100", "OFFSET = 200", 1204),
        ("[1000]", "[2000]", 2104),
        ("deeper(x) + 1", "deeper(x) + 2", 1105),
    ],
)
def test_a_change_in_another_file_is_compiled_anew(
    program: Path, before: str, after: str, total: int
) -> None:
    run(program)
    (program / "parts.py").write_text(PARTS.replace(before, after))
    assert run(program) == (total, 0)
