"""What local.py keeps of tasks and workers: who has which work in hand, and what was learnt of its items.

In and out: values; local.py decides.
"""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from preprocess.executors.base import Task
from preprocess.executors.devices import Device
from preprocess.executors.process import Process

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cause:
    """How a process ended: for the item's row, if it is to blame, and in words for the run's record."""

    code: str
    message: str
    name: str

    @staticmethod
    def of_exit(status: int | None) -> Cause:
        """From a process's exit status. The row does not name the signal: that is the heap's mood."""
        name = f"exit status {status}"
        if status is not None and status < 0:
            name = signal.Signals(-status).name
        if name == "SIGKILL":
            return Cause("out_of_memory", "its process was killed, alone too", name)
        return Cause("decoder_crashed", "its process crashed, alone too", name)


LATE = Cause("timeout", "took longer than --image-timeout-s, alone too", "timeout")
STARVED = Cause("out_of_memory", "the worker's memory limit was reached", "memory limit")


@dataclass(slots=True)
class Job(Generic[R]):
    """A task, and what was learnt of it from processes that ended."""

    task: Task[R]
    tried: set[int] = field(default_factory=set)
    """Items that were tried alone, or are to be."""
    waiting: int = 0
    """Trials that are not over."""
    unexplained: int = 0
    """Ends of processes since the last item was blamed."""
    isolated: bool = False
    ends: Counter[int | None] = field(default_factory=Counter)
    """By item in hand, since everything was tried alone."""
    killed: Counter[int] = field(default_factory=Counter)
    """Trials that something outside ended."""
    blamed: set[int] = field(default_factory=set)
    lost_on: set[str] = field(default_factory=set)
    """Devices whose worker ended on it."""


@dataclass(frozen=True, slots=True)
class Work(Generic[R]):
    """What a worker is given: a whole task, or one item of it alone."""

    job: Job[R]
    alone: int | None = None
    undisturbed: bool = False


@dataclass(slots=True)
class Worker(Generic[R]):
    """One live process, the work in its hands and the item it named last."""

    process: Process
    work: Work[R] | None = None
    begun: bool = False
    item: int | None = None
    since: float = 0.0
    verdict: Cause | None = None
    """Why it ended, if it could still say so."""
    used: bool = False
    device: Device | None = None
