"""How preparation grows with workers, and planning with inputs.

In:  inputs and worker counts; or one small DICOM file, to be hard-linked into RSNA's shape.
Out: Measurements of whole runs (processes, planning and commits included); Planned.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.measure import Measurement, Pass
from bench.results import Planned
from preprocess.config import ExecutionConfig, PrepConfig, ResultConfig
from preprocess.errors import UsageError
from preprocess.planning import RunRequest
from preprocess.runner import run

_IMAGES_PER_PATIENT = 4


@dataclass(frozen=True, slots=True)
class WholeRun:
    """`bcd-prep run` with so many workers, into a folder that is thrown away."""

    inputs: tuple[str, ...]
    workers: int
    config: ResultConfig = field(default_factory=ResultConfig)

    def once(self, images: int) -> Pass:
        """One run from nothing. Raises UsageError unless all images are prepared."""
        with tempfile.TemporaryDirectory(prefix="bcd-bench-") as holder:
            out = Path(holder) / "out"
            execution = ExecutionConfig(workers=self.workers)
            request = RunRequest(self.inputs, out, config=PrepConfig(result=self.config, execution=execution))
            before, start = _cpu_s(), time.perf_counter()
            summary = run(request)
            wall = time.perf_counter() - start
        if summary.prepared != images:
            raise UsageError(
                f"{summary.prepared} of {images} images were prepared: leave out what is rejected or doubled"
            )
        return Pass(wall, _cpu_s() - before)


def scaled(
    inputs: Sequence[str], images: int, workers: Sequence[int], repeats: int, shard_images: int
) -> tuple[Measurement, ...]:
    """Whole runs with each number of workers, in turns."""
    config = ResultConfig(shard_images=shard_images)
    runs = [WholeRun(tuple(inputs), count, config) for count in workers]
    passes: list[list[Pass]] = [[] for _ in runs]
    for _ in range(repeats):
        for kept, one in zip(passes, runs, strict=True):
            kept.append(one.once(images))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return tuple(
        Measurement(f"{one.workers} workers", images, tuple(kept), peak)
        for one, kept in zip(runs, passes, strict=True)
    )


def planned(counts: Sequence[int]) -> tuple[Planned, ...]:
    """Time `bcd-prep run --dry-run` on so many inputs: links to one small image without an instance UID."""
    with tempfile.TemporaryDirectory(prefix="bcd-bench-") as holder:
        seed = Path(holder) / "seed.dcm"
        small_image(seed)
        found = []
        for count in counts:
            root = Path(holder) / f"n{count}"
            link(seed, root, count)
            found.append(_plan_in_own_process(root, count))
            shutil.rmtree(root)
        return tuple(found)


def small_image(path: Path) -> None:
    """A 64×48 image that is nobody's duplicate: SOP Instance UID left out."""
    from pydicom import dcmread

    from bench.phantom_dicom import DicomSpec, write_dicom

    ramp = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) % 4096
    write_dicom(path, ramp, DicomSpec(bits_stored=12, image_laterality="L"))
    dataset = dcmread(path)
    del dataset.SOPInstanceUID
    dataset.save_as(path)


def link(seed: Path, root: Path, count: int) -> None:
    """`train_images/<patient>/<image>.dcm` × count, all the same file."""
    seeds, links = [seed], 0
    for number in range(count):
        folder = root / "train_images" / str(10_000 + number // _IMAGES_PER_PATIENT)
        if number % _IMAGES_PER_PATIENT == 0:
            folder.mkdir(parents=True)
        if links == 30_000:  # file systems allow some 65,000 links to a file
            seeds.append(seed.with_name(f"seed{len(seeds)}.dcm"))
            shutil.copyfile(seed, seeds[-1])
            links = 0
        os.link(seeds[-1], folder / f"{100_000_000 + number}.dcm")
        links += 1


def _plan_in_own_process(root: Path, count: int) -> Planned:
    """In a process of its own, whose peak memory is its own."""
    done = subprocess.run(
        (sys.executable, "-m", "bench.scale", str(root), str(count)),
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds, peak = done.stdout.split()
    return Planned(count, float(seconds), int(peak))


def _plan(root: str, count: int) -> Planned:
    out = Path(root).parent / "nowhere"
    request = RunRequest((root,), out, config=PrepConfig(execution=ExecutionConfig(dry_run=True)))
    start = time.perf_counter()
    summary = run(request)
    seconds = time.perf_counter() - start
    if summary.found != count or summary.rejected:
        raise ValueError(f"{summary.found} of {count} found, {summary.rejected} rejected")
    return Planned(count, round(seconds, 3), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _cpu_s() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    answer = _plan(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(f"{answer.seconds} {answer.peak_bytes}\n")
