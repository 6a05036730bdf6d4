"""A full, read-only or vanished disk, through the command line: one clear message, exit 1, then resume.

Each test starts several processes, so they are left to BCD_CHAOS=full.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.phantom import PhantomSpec, generate
from preprocess.verify import verify

pytestmark = pytest.mark.skipif(os.environ.get("BCD_CHAOS") != "full", reason="several runs: make chaos")
UNPROMISED = {"run.json", "report.html", "dataset_card.md"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("full-disk") / "in"
    generate(data, PhantomSpec(patients=4, size_factor=0.1, seed=9))
    return data


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "OUT"
    finished(begin(images, out), 0)
    return promised(out)


def begin(images: Path, out: Path, setup: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "preprocess.cli", "run", str(images), "--out", str(out)]
    words += ["--size", "256x128", "--shard-images", "4", "--folds", "2", "--workers", "1"]
    return subprocess.Popen(
        [*words, "--format", "tfrecord", "--format", "png", "--max-rejected", "100%"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=setup,
    )


def finished(process: subprocess.Popen[str], code: int) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return errors


def promised(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in UNPROMISED]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def message(errors: str) -> str:
    (line,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    return line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a part of the dataset."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or mount("-t", "tmpfs", "-o", "size=300k", "none", folder):
        pytest.skip("no permission to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def mount(*words: object) -> int:
    return subprocess.run(["mount", *map(str, words)], check=False, capture_output=True).returncode


def test_a_full_disk_is_one_message_and_more_room_lets_the_run_finish(
    images: Path, whole: dict[str, str], small_disk: Path
) -> None:
    out = small_disk / "OUT"
    assert "No space left on device" in message(finished(begin(images, out), 1))
    assert verify(out).status == "incomplete"
    assert not list(out.rglob("*.tmp"))
    assert mount("-o", "remount,size=100m", small_disk) == 0
    finished(begin(images, out), 0)
    assert promised(out) == whole


def test_a_read_only_disk_is_one_message(images: Path, whole: dict[str, str], small_disk: Path) -> None:
    out = small_disk / "OUT"
    out.mkdir()
    assert mount("-o", "remount,ro", small_disk) == 0
    assert "Read-only file system" in message(finished(begin(images, out), 1))
    assert mount("-o", "remount,rw,size=100m", small_disk) == 0
    finished(begin(images, out), 0)
    assert promised(out) == whole


def test_a_file_size_limit_is_one_message_and_lifting_it_lets_the_run_finish(
    images: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "OUT"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    assert "File too large" in message(finished(begin(images, out, limit), 1))
    assert verify(out).status == "incomplete"
    finished(begin(images, out), 0)
    assert promised(out) == whole


def test_an_out_that_vanishes_during_the_run_ends_it(
    images: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    process = begin(images, out)
    deadline = time.monotonic() + 120
    while not list(out.glob(".bcd/shards/*/*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        os.sched_yield()
    out.rename(tmp_path / "moved")
    assert "OUT" in message(finished(process, 1))
    assert verify(out).status == "incomplete"
    finished(begin(images, out), 0)
    assert promised(out) == whole
    finished(begin(images, tmp_path / "moved"), 0)
    assert promised(tmp_path / "moved") == whole
