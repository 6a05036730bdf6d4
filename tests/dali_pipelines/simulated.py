"""A device that is none: engines on NumPy that decode with OpenJPEG, and misbehave where they are told to.

Settings come in the environment of the process that opens it, as JSON in BCD_SIMULATED. What is planted hits
images by a hash of their codestream, so that batches and threads change nothing; never the self-test's
vectors, except for `scale` and `wrap`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dali_pipelines import proof
from dali_pipelines.engines import Encoded, Engines, Rendered, Stored, Wish
from dali_pipelines.routes import MAX_PRECISION, MIN_PRECISION
from dali_pipelines.sizing import sizes
from dali_pipelines.values import Array, redo_range, undo_range
from preprocess import openjpeg, render
from preprocess.config import ResultConfig
from preprocess.errors import RejectedInput
from preprocess.executors.devices import Device
from preprocess.kernels import compiled
from preprocess.pipeline import Draw
from preprocess.records import Compression, ImageHeader, Prepared
from preprocess.stored import Samples, to_stored
from preprocess.wavelet import low_pass_53

SETTINGS = "BCD_SIMULATED"
BUCKETS = 6


def device(name: str = "0", batch: int = 4, **settings: object) -> Device:
    """A simulated device for executors and `run`. Settings: see SimulatedEngine."""
    return Device(
        name=name,
        environment=((SETTINGS, json.dumps(settings)),),
        engines="tests.dali_pipelines.simulated:open_engines",
        cores=2,
        batch=batch,
        threads=2,
    )


def bucket(codestream: bytes) -> int:
    """Which of BUCKETS kinds of misfortune an image is open to."""
    return hashlib.sha256(codestream).digest()[0] % BUCKETS


def is_vector(job: Encoded) -> bool:
    """Whether it is one of the self-test's."""
    return any(
        job.codestream == proof.encode(compression, precision)
        for compression in (Compression.JPEG_2000, Compression.HTJ2K)
        for precision in range(MIN_PRECISION, MAX_PRECISION + 1)
    )


class NumpyMemory:
    """The host's memory in a device's place."""

    def __init__(self, settings: dict[str, object] | None = None) -> None:
        self.settings = settings or {}
        self.failed = False

    def to_device(self, array: Array) -> Array:
        return np.array(array)

    def to_host(self, array: Array) -> Array:
        return np.array(array)

    def synchronize(self) -> None:
        if self.failed:
            raise RuntimeError("an illegal memory access was encountered")

    def stored(
        self, samples: Sequence[Samples], images: Sequence[ImageHeader], *, scaled: bool
    ) -> list[Stored]:
        made = []
        for each, image in zip(samples, images, strict=True):
            values = undo_range(each.values, each.precision) if scaled else each.values
            stored = to_stored(replace(each, values=values), image)
            pixels, outside = stored.pixels, stored.outside
            made.append(Stored(pixels, outside, int(pixels.min()), int(pixels.max())))
        return made

    def low_passes(self, pixels: Sequence[Array]) -> list[Array]:
        return [compiled.low_pass(each) for each in pixels]

    def render(self, draws: Sequence[Draw], config: ResultConfig) -> Rendered:
        return lambda: [self._drawn(draw, config) for draw in draws]

    def _drawn(self, draw: Draw, config: ResultConfig) -> Callable[[], Prepared] | None:
        try:
            prepared = render.render(draw.mammogram, draw.findings, config)
        except RejectedInput:
            return None
        return lambda: prepared

    def lane(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


class SimulatedEngine:
    """Settings, each a list of buckets unless said otherwise.

    scale: true multiplies by DALI's range. zero: zeros instead of pixels. fail: the whole batch raises.
    short: the batch comes back without its last. crop: another shape. refuse: None. sticky: the device fails
    for good. exit, segfault: the process ends. wrap: true wraps overshoot at levels ≥ 1 instead of clamping.
    log: a file that every decoded image's level is appended to.
    """

    def __init__(self, name: str, memory: NumpyMemory) -> None:
        self.name, self._memory, self._settings = name, memory, memory.settings
        self.resets = 0

    def decode(self, jobs: Sequence[Encoded]) -> list[Array | None]:
        real = [job for job in jobs if not is_vector(job)]
        if self._hit(real, "segfault"):
            ctypes.string_at(8)
        if self._hit(real, "exit"):
            os._exit(7)
        if self._hit(real, "sticky"):
            self._memory.failed = True
        if self._hit(real, "fail") or self._memory.failed:
            raise RuntimeError("Critical error in pipeline")
        decoded = [self._one(job) for job in jobs]
        return decoded[:-1] if self._hit(real, "short") else decoded

    def reset(self) -> None:
        self.resets += 1

    def _hit(self, jobs: Sequence[Encoded], deed: str) -> bool:
        buckets = self._settings.get(deed, [])
        assert isinstance(buckets, list)
        return any(bucket(job.codestream) in buckets for job in jobs)

    def _one(self, job: Encoded) -> Array | None:
        if not is_vector(job):
            if self._hit([job], "refuse"):
                return None
            if self._hit([job], "zero"):
                return np.zeros((job.rows, job.columns), np.uint16)
            if self._hit([job], "crop"):
                return np.ones((job.rows, job.columns - 1), np.uint16)
            self._log(job)
        if job.level and self._settings.get("wrap"):
            raw = low_pass_53(openjpeg.decode(job.codestream, 0, lossless=True), job.level)
            return (raw & ((1 << job.precision) - 1)).astype(np.uint16)
        try:
            values = openjpeg.decode(job.codestream, job.level, lossless=True).astype(np.uint16)
        except RejectedInput:
            return None
        scaled = self._settings.get("scale") and self.name == "batch"  # as DALI, and DALI only
        return redo_range(values, job.precision) if scaled else values

    def _log(self, job: Encoded) -> None:
        path = self._settings.get("log")
        if path:
            with Path(str(path)).open("a") as log:
                log.write(f"{self.name} {job.level}\n")


def engines_of(wish: Wish, settings: dict[str, object]) -> Engines:
    """As `open_engines`, with the settings given. `only`: names of the engines that exist."""
    memory = NumpyMemory(settings)
    only = settings.get("only", ["batch", "single", "level"])
    assert isinstance(only, list)
    engine = {name: SimulatedEngine(name, memory) for name in ("batch", "single", "level")}
    chosen = sizes(wish.pixels, 1 << 31, wish.cores, batch=wish.batch, threads=wish.threads)
    return Engines(
        memory,
        full=tuple(engine[name] for name in ("batch", "single") if name in only),
        levels=tuple(engine[name] for name in ("level",) if name in only),
        sizes=chosen,
        close=lambda: None,
    )


def open_engines(wish: Wish) -> Engines:
    """What a worker process opens. Setting `broken`: it cannot be opened."""
    settings = json.loads(os.environ.get(SETTINGS, "{}"))
    if settings.get("broken"):
        raise OSError("no such device")
    return engines_of(wish, settings)
