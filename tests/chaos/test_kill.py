"""kill -9 at any moment: one more run gives the identical dataset, and nothing is left over.

Moments are seeded: a place in time, measured against the undisturbed run, or the n-th fsync or rename of the
driver or of a worker. BCD_CHAOS=full tries 50 of them.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from preprocess.verify import verify
from tests.chaos.commands import FULL, finish, inline, start
from tests.chaos.planted import plant

SITE = Path(__file__).parent / "site"
IMAGES, SHARD_IMAGES = (32, 4) if FULL else (12, 4)
WORKERS = 2 if FULL else 1
DRIVER_CALLS = {"replace": 6, "fsync": 10}
"""Config, table, manifest, run.json, report, card; each file is flushed, and its folder."""
UNPROMISED = {"run.json", "report.html", "dataset_card.md"}

Moment = tuple[str, float | str]


def moments(count: int, seed: int = 20261123) -> list[Moment]:
    """In turn: the driver or a worker at some time; the driver or a worker at some call."""
    rng = random.Random(seed)
    found: list[Moment] = []
    for index in range(count):
        call, when = rng.choice(["replace", "fsync"]), rng.choice(["before", "after"])
        found.append(
            [
                ("driver", rng.uniform(0.05, 1.0)),
                ("call", f"driver:{call}:{rng.randint(1, 10) % DRIVER_CALLS[call] + 1}:{when}:itself"),
                ("worker", rng.uniform(0.3, 0.9)),
                ("call", f"worker:{call}:{rng.randint(1, 12)}:{when}:{rng.choice(['itself', 'parent'])}"),
            ][index % 4]
        )
    return found


def arguments(inputs: Path, out: Path) -> list[str]:
    options = ["--size", "32x24", "--format", "tfrecord", "--format", "png", "--folds", "2"]
    options += ["--shard-images", str(SHARD_IMAGES), "--workers", str(WORKERS)]
    return [str(inputs), "--out", str(out), *options]


def files(out: Path) -> dict[str, str]:
    """Every file and folder; hashes where bytes are promised."""
    found = {}
    for path in out.rglob("*"):
        promised = path.is_file() and path.name not in UNPROMISED
        found[str(path.relative_to(out))] = (
            hashlib.sha256(path.read_bytes()).hexdigest() if promised else "there"
        )
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "in"
    plant(folder, IMAGES, {})
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What a run leaves behind, and how long it takes."""
    out, begun = tmp_path_factory.mktemp("undisturbed") / "out", time.monotonic()
    status, errors = finish(start(arguments(inputs, out)))
    assert status == 0, errors
    return files(out), time.monotonic() - begun


def killed(moment: Moment, inputs: Path, out: Path, seconds: float) -> int:
    """Run with one kill; returns the driver's exit status."""
    kind, at = moment
    if kind == "call":
        mark = str(out.parent / "mark")
        status, _ = finish(start(arguments(inputs, out), BCD_CHAOS_KILL=f"{at}:{mark}", PYTHONPATH=str(SITE)))
        assert Path(mark).exists(), "there was no such call"
        return status
    process = start(arguments(inputs, out))
    assert isinstance(at, float)
    try:
        process.wait(timeout=at * seconds)
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        target = process.pid if kind == "driver" else int((children or [process.pid])[0])
        os.kill(target, signal.SIGKILL)
    return finish(process)[0]


@pytest.mark.parametrize(
    "moment", moments(50 if FULL else 4), ids=lambda moment: f"{moment[0]} {moment[1]:.8}"
)
def test_a_killed_run_is_resumed_to_the_identical_dataset(
    moment: Moment,
    inputs: Path,
    undisturbed: tuple[dict[str, str], float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    expected, seconds = undisturbed
    status = killed(moment, inputs, out, seconds)
    assert status in (0, -signal.SIGKILL)
    assert verify(out).status in ("whole", "incomplete")
    again = arguments(inputs, out)
    resumed, errors = finish(start(again)) if FULL else inline(again, monkeypatch)
    assert resumed == 0, errors
    assert files(out) == expected
    assert verify(out).status == "whole"


def test_two_interrupts_in_a_row_end_a_run_once_and_cleanly(
    inputs: Path,
    undisturbed: tuple[dict[str, str], float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    process = start(arguments(inputs, out))
    deadline = time.monotonic() + 120
    while not list(out.glob(".bcd/shards/**/*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    status, errors = finish(process)
    assert status == 130, errors
    assert errors.count("run the same command again") == 1
    assert "Traceback" not in errors
    assert not [path for path in out.rglob("*.tmp") if ".bcd" not in path.parts]
    resumed, errors = inline(arguments(inputs, out), monkeypatch)
    assert resumed == 0, errors
    assert files(out) == undisturbed[0]
