"""Memory does not grow with the number of images: not in the driver while it plans, not in a worker."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.phantom_dicom import SYNTAXES, DicomSpec, write_dicom
from preprocess import report_task, runner
from preprocess.config import ExecutionConfig, Format, PrepConfig, ResultConfig
from preprocess.executors.local import LocalExecutor
from preprocess.planning import RunRequest, make_plan
from preprocess.progress import Silent
from preprocess.runner import run
from tests.chaos.answering import Answering
from tests.chaos.crowds import crowd, rss_bytes
from tests.instances import smooth

FULL = os.environ.get("BCD_CHAOS") == "full"
CROWD = int(os.environ.get("BCD_CHAOS_CROWD", "1000000"))
LIMIT = 1_000_000_000
DRIVER_AT_REST = 200_000_000
IMAGES = 2_000 if FULL else 240
PER_SHARD = 20
WORKER_GROWTH = 3_000_000 if FULL else 6_000_000
"""The heap grows in three or four steps of up to 3 MB within the first 800 images, and not after them."""

_DRY_RUN = """
import atexit, sys
from preprocess.cli import main
from tests.chaos.answering import Answering
from tests.chaos.crowds import peak_rss_bytes
atexit.register(lambda: print("peak", peak_rss_bytes()))
main(sys.argv[1:])
"""


def peak_of_planning(root: Path, out: Path) -> int:
    """The most that Python's objects and NumPy's arrays take while a plan is made."""
    tracemalloc.start()
    try:
        plan = make_plan(RunRequest((str(root),), out), Answering(), Silent())
        assert sum(len(shard.sources) for shard in plan.shards) == len(list(root.rglob("*.dcm")))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_planning_a_million_inputs_would_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    few, many = 1_500, 4_500
    peak_of_planning(crowd(tmp_path / "warm", 100), tmp_path / "out")
    first = peak_of_planning(crowd(tmp_path / "few", few), tmp_path / "out")
    second = peak_of_planning(crowd(tmp_path / "many", many), tmp_path / "out")
    per_input = (second - first) / (many - few)
    assert DRIVER_AT_REST + per_input * 1_000_000 < LIMIT, f"{per_input:.0f} bytes an input"


@pytest.mark.skipif(not FULL, reason="make chaos: minutes")
def test_a_dry_run_of_a_million_inputs_takes_less_than_a_gigabyte(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    root = crowd(tmp_path / "crowd", CROWD)
    arguments = ["run", str(root), "--out", str(tmp_path / "out"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", _DRY_RUN, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.rpartition("peak ")[2])
    record_property("peak_rss_bytes", peak)
    assert peak < LIMIT


def mixture(root: Path, images: int) -> Path:
    """Small images of every transfer syntax, no two with one window or one picture."""
    syntaxes = sorted(SYNTAXES.values())
    for number in range(images):
        spec = DicomSpec(
            transfer_syntax_uid=syntaxes[number % len(syntaxes)],
            bits_stored=8,
            windows=((str(100 + number / 16), "150"),),
            patient_id=f"p{number // 4}",
            instance=f"i{number}",
        )
        root.joinpath(f"p{number // 4}").mkdir(parents=True, exist_ok=True)
        pixels = np.roll(smooth((48, 40), 8), number % 37, axis=0)
        write_dicom(root / f"p{number // 4}" / f"i{number}.dcm", pixels, spec)
    return root


class Scales(Silent):
    """Weighs the one worker and the driver whenever a shard is done."""

    def __init__(self) -> None:
        self.running = ""
        self.worker: list[int] = []
        self.driver: list[int] = []
        self.executor: LocalExecutor | None = None

    def phase(self, name: str, total: int) -> None:
        self.running = name

    def step(self, count: int, rejected: int = 0) -> None:
        if self.running == "prepare" and self.executor is not None:
            self.worker.append(rss_bytes(self.executor.alive[0].process.pid))
            self.driver.append(rss_bytes())


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> Scales:
    scales = Scales()
    enter = LocalExecutor.__enter__

    def entered(executor: LocalExecutor) -> LocalExecutor:
        scales.executor = executor
        return enter(executor)

    monkeypatch.setattr(LocalExecutor, "__enter__", entered)
    return scales


def growth(samples: list[int]) -> float:
    """From the second quarter, when everything is warm, to the last one."""
    quarter = len(samples) // 4
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])


def test_neither_worker_nor_driver_grow_with_the_images_done(
    tmp_path: Path, scales: Scales, record_property: Callable[[str, object], None]
) -> None:
    formats = (Format.TFRECORD, Format.PARQUET, Format.PNG)
    result = ResultConfig(height=64, width=48, formats=formats, shard_images=PER_SHARD)
    config = PrepConfig(result=result, execution=ExecutionConfig(workers=1, max_rejected="100%"))
    root = mixture(tmp_path / "in", IMAGES)
    summary = run(RunRequest((str(root),), tmp_path / "out", config=config), scales)
    assert summary.prepared > 0.9 * IMAGES
    assert len(scales.worker) >= IMAGES // PER_SHARD
    record_property("worker", scales.worker)
    record_property("driver", scales.driver)
    assert growth(scales.worker) < WORKER_GROWTH
    assert growth(scales.driver) < 1_000_000


@pytest.mark.parametrize("memory_bytes", [4_000_000_000, 1_000])
def test_the_report_of_very_many_images_is_made_by_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    result = ResultConfig(height=64, width=48)
    config = PrepConfig(result=result, execution=ExecutionConfig(workers=1))
    root = mixture(tmp_path / "in", 4)
    run(RunRequest((str(root),), tmp_path / "out", config=config))
    report = tmp_path / "out" / "report.html"
    here, before = report.read_text(), report.stat().st_ino

    written: list[int] = []
    monkeypatch.setattr(report_task, "LARGE", 0)
    monkeypatch.setattr(report_task, "write_report", lambda *_, **__: written.append(os.getpid()))
    with LocalExecutor(1, 60, memory_bytes) as executor:
        runner._write_report(tmp_path / "out", executor, 4)
    if memory_bytes > 1_000_000:  # a worker has done it: this process has not
        assert not written
        assert report.stat().st_ino != before
        assert report.read_text() == here
    else:
        assert written == [os.getpid()]
