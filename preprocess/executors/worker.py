"""A worker process: receives tasks one by one, names each item before working on it, sends the results.

In:  a descriptor inherited from the driver (see local.py).
Out: messages on it. What native libraries print is dropped by the driver's choice of descriptors; of a fault
     only its type and place are said, because its text may quote a header.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from preprocess.errors import RunAborted
from preprocess.executors.base import ItemEnded, Task
from preprocess.failures import describe
from preprocess.heap import keep_freed_memory

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class At:
    """Item `index` is in hand from now on; None: no item."""

    index: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """The task's result, and the most memory that the process ever had resident."""

    result: Any
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process of the task's own ended on item `index`, or hung; this one is whole and waits for work."""

    index: int
    cause: str


@dataclass(frozen=True, slots=True)
class Starved:
    """The memory limit was reached outside of the boundary that every input has; the process ends."""


@dataclass(frozen=True, slots=True)
class Faulted:
    """An unforeseen exception: its type and place; the process ends."""

    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The run cannot go on (a full disk); the process ends."""

    message: str


def main(descriptor: int, driver: int, memory_bytes: int) -> None:
    """Serve tasks until the driver hangs up. The memory limit begins once the first task is understood."""
    settle(driver)
    connection: Connection = Connection(descriptor)
    limited = False
    while True:
        try:
            task: Task[object] = connection.recv()
        except EOFError:
            return
        connection.send(At(None))
        if not limited:  # what the imports took is not the images' doing
            _limit_memory(memory_bytes)
            limited = True
        try:
            result = task.run(lambda index: connection.send(At(index)))
            connection.send(Done(result, peak_bytes()))
        except ItemEnded as error:
            connection.send(Ended(error.index, error.cause))
        except BaseException as error:  # noqa: BLE001 - said to the driver, which decides
            _give_up(connection, _said_of(error))


def _said_of(error: BaseException) -> Starved | Faulted | Failed:
    if isinstance(error, MemoryError):
        return Starved()
    if isinstance(error, RunAborted):
        return Failed(str(error))
    if isinstance(error, OSError):
        return Failed(f"cannot write the dataset: {describe(error)}")
    return Faulted(f"{type(error).__name__} at {_place(error)}")


def _place(error: BaseException) -> str:
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return f"{step.tb_frame.f_globals.get('__name__', '?')}:{step.tb_lineno}" if step else "?"


def _give_up(connection: Connection, message: Starved | Faulted | Failed) -> NoReturn:
    with contextlib.suppress(OSError):  # the driver is gone: nobody to tell
        connection.send(message)
    sys.exit(1)


def settle(driver: int) -> None:
    """Die with the driver (the thread of it that started this process), write no core files, keep memory."""
    keep_freed_memory()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != driver:  # it died before prctl took effect
            os._exit(1)


def _limit_memory(memory_bytes: int) -> None:
    if not memory_bytes:  # CUDA reserves more addresses than any machine has memory
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _status_bytes("VmSize") + memory_bytes
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def peak_bytes() -> int:
    """The most memory this process ever had resident.

    Not ru_maxrss, which begins with what the driver had when it started this process.
    """
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0
