"""Time contenders fairly: each in its own process, pinned to the same cores, taking turns.

In:  Work values (picklable), how many passes, how many cores.
Out: one Measurement each: every pass kept, median and spread derived, peak memory.

The order is A B C A B C …, so that what else the machine does meets all alike; ratios are taken round by
round. Only one contender runs at a time. Warm-up passes are done and forgotten.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Protocol, Self

Parts = tuple[tuple[str, float], ...]
"""Named seconds inside a pass."""

_GOES_S = 5.0


class Work(Protocol):
    """A contender's job. Picklable; everything heavy happens in `open`, in the process that does the work."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def items(self) -> int:
        """Images in one pass."""
        ...

    def share(self, index: int, of: int) -> Self:
        """The part of the items that one of several processes takes."""
        ...

    def open(self) -> Callable[[], Parts]:
        """Import, read what is not measured, and return what is: one pass."""
        ...


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all items."""

    wall_s: float
    cpu_s: float
    parts: Parts = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of something."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one contender took; no passes and a note where it could not run."""

    name: str
    items: int
    passes: tuple[Pass, ...] = ()
    peak_bytes: int = 0
    """Largest resident size of one of its processes."""
    note: str = ""
    flops: int = 0
    """Floating-point operations of one item, by the model's layers; 0 where nobody counted."""

    @property
    def wall(self) -> Spread:
        """Seconds of a pass."""
        return Spread.of([one.wall_s for one in self.passes])

    @property
    def cpu(self) -> Spread:
        """Processor seconds of a pass, over all its processes."""
        return Spread.of([one.cpu_s for one in self.passes])

    @property
    def milliseconds(self) -> Spread:
        """Wall time per image."""
        wall, each = self.wall, 1000 / self.items
        return Spread(wall.median * each, wall.low * each, wall.high * each)

    def part(self, name: str) -> float:
        """Median of a named part's milliseconds per image; 0 where it never occurred."""
        return median(dict(one.parts).get(name, 0.0) for one in self.passes) * 1000 / self.items

    def times_faster_than(self, other: Measurement) -> Spread:
        """How many times as long `other` took, round by round."""
        pairs = zip(self.passes, other.passes, strict=True)
        return Spread.of([theirs.wall_s / max(ours.wall_s, 1e-9) for ours, theirs in pairs])

    def times_less_cpu_than(self, other: Measurement) -> Spread:
        """The same in processor time, which the load of others changes less."""
        pairs = zip(self.passes, other.passes, strict=True)
        return Spread.of([theirs.cpu_s / max(ours.cpu_s, 1e-9) for ours, theirs in pairs])


def interleaved(
    works: Sequence[Work], repeats: int, warmup: int = 1, cores: int = 1, *, threads: bool = False
) -> tuple[Measurement, ...]:
    """Measure all works in turns, each in `cores` processes pinned to one core each.

    `threads`: each in one process pinned to `cores` cores, whose threads are its own affair.
    """
    if repeats < 1 or warmup < 0 or cores < 1:
        raise ValueError("at least one repeat and one core are needed")
    with ExitStack() as stack:
        groups = [stack.enter_context(_Group(work, cores, threads)) for work in works]
        for number in range(warmup + repeats):
            for group in groups:
                group.pass_once(keep=number >= warmup)
        return tuple(group.measurement() for group in groups)


@dataclass(frozen=True, slots=True)
class _Done:
    """A process's answer: cpu and parts of a pass, its peak memory; or why there is none."""

    cpu_s: float = 0.0
    parts: Parts = ()
    peak_bytes: int = 0
    error: str = ""
    started: float = 0.0
    """By the machine's clock, seconds, the same in all processes."""
    ended: float = 0.0


class _Group:
    """One contender's processes."""

    def __init__(self, work: Work, cores: int, threads: bool) -> None:
        self._work = work
        allowed = sorted(os.sched_getaffinity(0))
        self._cores: list[set[int]] = [{allowed[index % len(allowed)]} for index in range(cores)]
        if threads:
            self._cores = [set().union(*self._cores)]
        self._shares = [work.share(index, len(self._cores)) for index in range(len(self._cores))]
        self._hands: list[_Hand] = []
        self._passes: list[Pass] = []
        self._peak = 0
        self._note = ""

    def __enter__(self) -> Self:
        for share, cores in zip(self._shares, self._cores, strict=True):
            self._hands.append(_Hand(share, cores))
        answers = [hand.answer() for hand in self._hands]
        self._note = next((answer.error for answer in answers if answer.error), "")
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands:
            hand.close()

    def pass_once(self, *, keep: bool) -> None:
        """Let all its processes make one pass, and note the time from the first start to the last end."""
        if self._note:
            return
        for hand in self._hands:
            hand.go()
        answers = [hand.answer() for hand in self._hands]
        wall = max(answer.ended for answer in answers) - min(answer.started for answer in answers)
        self._note = next((answer.error for answer in answers if answer.error), "")
        self._peak = max(self._peak, *(answer.peak_bytes for answer in answers))
        if keep and not self._note:
            self._passes.append(Pass(wall, sum(answer.cpu_s for answer in answers), _summed(answers)))

    def measurement(self) -> Measurement:
        """What is known now; a contender that failed once has no figures."""
        passes = () if self._note else tuple(self._passes)
        return Measurement(self._work.name, self._work.items, passes, self._peak, self._note)


def _summed(answers: Sequence[_Done]) -> Parts:
    names = sorted({name for answer in answers for name, _ in answer.parts})
    return tuple((name, sum(dict(answer.parts).get(name, 0.0) for answer in answers)) for name in names)


class _Hand:
    """A process pinned to some cores that makes passes when told to."""

    def __init__(self, work: Work, cores: set[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _pinned(cores):  # before the start, so that libraries count these when they are imported
            self._process.start()
        theirs.close()

    def go(self) -> None:
        """Start a pass."""
        self._pipe.send(True)

    def answer(self) -> _Done:
        """Wait for the end of the pass, or of the opening."""
        try:
            done: _Done = self._pipe.recv()
        except EOFError:
            self._process.join(_GOES_S)
            return _Done(error=f"its process ended with status {self._process.exitcode}")
        return done

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(_GOES_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _pinned(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(pipe: Connection, work: Work) -> None:
    """A process's life: open, then a pass for every word received, until the pipe is closed."""
    try:
        run = work.open()
        pipe.send(_Done())
        while True:
            pipe.recv()
            pipe.send(_one_pass(run))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - a peer's failure is a result to be shown, whatever it is
        pipe.send(_Done(error=f"{type(error).__name__}: {str(error)[:200]}"))


def _one_pass(run: Callable[[], Parts]) -> _Done:
    gc.collect()  # takes the longer the more modules a contender has: not part of its work
    started, before = time.perf_counter(), time.process_time()
    parts = run()
    cpu, ended = time.process_time() - before, time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _Done(cpu, parts, peak, started=started, ended=ended)
