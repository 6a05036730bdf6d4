"""A piece of a fuzzing campaign as a task of the executor, so that native crashes and hangs are caught.

In:  the folder of seeds, the numbers of mutants.
Out: one Outcome per number. A mutant is a pure function of (seed of the campaign, number, seeds).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Self, cast

import numpy as np

from preprocess import pipeline
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.executors.base import Heartbeat, Task
from preprocess.records import Instance, Mammogram, Reject, SourceFile
from preprocess.tasks import Blame
from tests.fuzz.mutators import mutate

CONFIG = ResultConfig(height=64, width=48, margin_px=4)
_PIXEL_FIELDS = (
    "transfer_syntax_uid", "rows", "columns", "bits_allocated", "bits_stored", "high_bit",
    "pixel_representation", "number_of_frames", "frame", "has_overlay_in_pixels",
)  # fmt: skip


class Finding(StrEnum):
    """What became of a mutant."""

    REJECTED = "rejected"
    EQUAL = "equal"
    """Prepared, and the stored values are those of the original."""
    HEADER = "header"
    """Other stored values, because a header field says so that pixels are read by, consistently."""
    PAYLOAD = "payload"
    """Other stored values from other pixel bytes, and nothing that shows it."""
    MISREAD = "misread"
    """Other stored values although the bytes of Pixel Data are there unchanged: always a fault of ours."""
    KILLED = "killed"
    """The worker died, hung or starved: always a fault of ours."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One mutant's end."""

    number: int
    original: str
    mutator: str
    finding: Finding
    code: str = ""
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class FuzzTask:
    """Mutants of the seeds in `folder`, by number."""

    numbers: tuple[int, ...]
    folder: str
    names: tuple[str, ...]
    seed: int = 0
    blames: tuple[Blame, ...] = ()
    known: tuple[tuple[int, Outcome], ...] = ()

    @property
    def size(self) -> int:
        """How many mutants it has."""
        return len(self.numbers)

    def alone(self, index: int) -> Task[object]:
        """One mutant as a task of its own."""
        return cast(
            Task[object],
            dataclasses.replace(self, numbers=(self.numbers[index],), blames=(), known=()),
        )

    def knowing(self, index: int, outcome: object) -> Self:
        """The same task, with what its `alone(index)` gave."""
        [only] = cast(tuple[Outcome, ...], outcome)
        return dataclasses.replace(self, known=(*self.known, (index, only)))

    def blamed(self, index: int, code: str, message: str) -> Self:
        """The same task with one mutant to be given up unread."""
        return dataclasses.replace(self, blames=(*self.blames, Blame(index, code, message)))

    def run(self, beat: Heartbeat) -> tuple[Outcome, ...]:
        """One Outcome per number."""
        blames, known = {blame.index: blame for blame in self.blames}, dict(self.known)
        outcomes = []
        for index, number in enumerate(self.numbers):
            beat(index)
            outcomes.append(known[index] if index in known else self._outcome(number, blames.get(index)))
        beat(None)
        return tuple(outcomes)

    def _outcome(self, number: int, blame: Blame | None) -> Outcome:
        name, data, mutator = self.mutant(number)
        if blame is not None:
            return Outcome(number, name, mutator, Finding.KILLED, blame.code, blame.message)
        path = Path(self.folder) / "mutants" / f"{number}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        outcome = self._judge(number, name, mutator, path)
        path.unlink()
        return outcome

    def mutant(self, number: int) -> tuple[str, bytes, str]:
        """The name of the original, the mutant, and what was done."""
        name = self.names[number % len(self.names)]
        mutant, mutator = mutate(_read(self.folder, name), Random(f"{self.seed}/{number}"))
        return name, mutant, mutator

    def _judge(self, number: int, name: str, mutator: str, path: Path) -> Outcome:
        start = time.perf_counter()
        trace = pipeline.steps(SourceFile(path.name, str(path)), CONFIG, CpuDecoder())
        seconds = time.perf_counter() - start
        outcome = trace.outcome()
        if isinstance(outcome, Reject):
            return Outcome(number, name, mutator, Finding.REJECTED, outcome.code, outcome.message, seconds)
        assert trace.instance is not None
        assert trace.mammogram is not None
        original = _read(self.folder, name)
        found = _compare(trace.mammogram, _original(self.folder, name), original, path.read_bytes())
        return Outcome(number, name, mutator, found, seconds=seconds)


@lru_cache(maxsize=256)
def _read(folder: str, name: str) -> bytes:
    return (Path(folder) / f"{name}.dcm").read_bytes()


@lru_cache(maxsize=256)
def _original(folder: str, name: str) -> Instance:
    path = Path(folder) / f"{name}.dcm"
    trace = pipeline.steps(SourceFile(path.name, str(path)), CONFIG, CpuDecoder())
    assert trace.instance is not None
    assert trace.prepared is not None, trace.outcome()
    return trace.instance


def _compare(mutant: Mammogram, original: Instance, original_data: bytes, data: bytes) -> Finding:
    """Stored values at the level that was rendered, against the original's."""
    header, there = mutant.instance.image, original.image
    if any(getattr(header, field) != getattr(there, field) for field in _PIXEL_FIELDS):
        same_shape = (header.rows, header.columns) == (there.rows, there.columns)
        pixels = CpuDecoder().decode(original).pixels
        same = mutant.level == 0 and same_shape and np.array_equal(mutant.pixels, pixels)
        return Finding.EQUAL if same else Finding.HEADER
    if np.array_equal(mutant.pixels, CpuDecoder().decode(original, mutant.level).pixels):
        return Finding.EQUAL
    at = original_data.find(original.payload)
    element = original_data[max(at - 12, 0) : at + len(original.payload)]
    untouched = mutant.instance.payload == original.payload or (at >= 0 and element in data)
    return Finding.MISREAD if untouched else Finding.PAYLOAD
