"""Supervised worker processes on this machine.

In:  tasks (see base.py).
Out: results as they finish. A worker that crashes, hangs or is killed is replaced, its task redone; an
     item is blamed when a worker died on it twice (an operator's kill -9 must not condemn an innocent),
     or at once when it exceeded its time.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, NoReturn, Self, TypeVar, cast

from preprocess.errors import RunAborted
from preprocess.executors.base import Task

R = TypeVar("R")

DEATHS_BEFORE_BLAME = 2
DEATHS_WITHOUT_CULPRIT = 3
_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class At:
    """Worker → driver: item `index` is in hand from now on."""

    index: int


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """Worker → driver: the task's result."""

    result: R


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker → driver: the task itself (not one of its items) cannot go on."""

    message: str


@dataclass(slots=True)
class Job(Generic[R]):
    """A task, and what was learnt of it from workers that died."""

    task: Task[R]
    deaths: dict[int | None, int] = field(default_factory=dict)


@dataclass(slots=True)
class Worker(Generic[R]):
    """One live process, the job in its hands and the item it named last."""

    process: SpawnProcess
    connection: Connection
    job: Job[R] | None = None
    item: int | None = None
    since: float = 0.0


class LocalExecutor:
    """Runs tasks in `workers` processes, each limited in address space and in seconds per item.

    A context manager: idle workers are kept from one `run` to the next and ended on leaving.
    """

    def __init__(self, workers: int, item_timeout_s: float, memory_bytes: int) -> None:
        self.workers = workers
        self.item_timeout_s = item_timeout_s
        self.memory_bytes = memory_bytes
        self.alive: list[Worker[object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self.alive:
            _stop(self.alive.pop())

    def run(self, tasks: Iterable[Task[R]]) -> Iterator[R]:
        """Yield results in the order in which tasks finish; raises RunAborted."""
        supervisor = _Supervisor(self, tasks)
        try:
            yield from supervisor.results()
        finally:
            supervisor.release()


class _Supervisor(Generic[R]):
    """The state of one run: jobs to redo, jobs not begun, the executor's workers."""

    def __init__(self, executor: LocalExecutor, tasks: Iterable[Task[R]]) -> None:
        self._executor = executor
        self._fresh = (Job(task) for task in tasks)
        self._redo: list[Job[R]] = []
        self._workers = cast(list[Worker[R]], executor.alive)
        self._context = multiprocessing.get_context("spawn")

    def results(self) -> Iterator[R]:
        """Hand out, listen, replace, until nothing is left."""
        while True:
            self._hand_out()
            busy = [worker for worker in self._workers if worker.job is not None]
            if not busy:
                return
            ready = wait([worker.connection for worker in busy], timeout=_POLL_S)
            for worker in busy:
                if worker.connection in ready:
                    yield from _receive(worker)
            for worker in busy:
                yield from self._check(worker)

    def release(self) -> None:
        """End the workers that still have a job in hand (the run was given up)."""
        for worker in [worker for worker in self._workers if worker.job is not None]:
            _stop(worker)
            self._workers.remove(worker)

    def _hand_out(self) -> None:
        while True:
            worker = next((w for w in self._workers if w.job is None), None)
            if worker is None and len(self._workers) >= self._executor.workers:
                return
            job = self._redo.pop() if self._redo else next(self._fresh, None)
            if job is None:
                return
            worker = worker or self._start()
            worker.job, worker.item, worker.since = job, None, time.monotonic()
            with contextlib.suppress(OSError):  # it died idle: found dead by _check, the job redone
                worker.connection.send(job.task)

    def _start(self) -> Worker[R]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._executor.memory_bytes, os.getpid())
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        worker: Worker[R] = Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _check(self, worker: Worker[R]) -> Iterator[R]:
        """Replace a worker that hangs or is dead; what it said before it died counts."""
        late = time.monotonic() - worker.since > self._executor.item_timeout_s
        if worker.job is not None and worker.item is not None and late:
            self._bury(worker, timed_out=True)
        elif not worker.process.is_alive():
            yield from _receive(worker)
            self._bury(worker, timed_out=False)

    def _bury(self, worker: Worker[R], *, timed_out: bool) -> None:
        """Remove a worker; its job, if it had one, is redone without the item to blame."""
        _stop(worker)
        self._workers.remove(worker)
        job, item = worker.job, worker.item
        if job is None:
            return
        job.deaths[item] = job.deaths.get(item, 0) + 1
        self._redo.append(job)
        if item is None:
            if job.deaths[None] >= DEATHS_WITHOUT_CULPRIT:
                raise RunAborted(f"workers die before they begin ({_cause(worker)})")
        elif timed_out:
            limit = self._executor.item_timeout_s
            job.task = job.task.blamed(item, "timeout", f"took longer than {limit:g} s")
        elif job.deaths[item] >= DEATHS_BEFORE_BLAME:
            killed = worker.process.exitcode == -signal.SIGKILL
            code = "out_of_memory" if killed else "decoder_crashed"
            job.task = job.task.blamed(item, code, f"its process died twice ({_cause(worker)})")


def _receive(worker: Worker[R]) -> Iterator[R]:
    """Take in all that the worker has said so far."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while worker.job is not None and worker.connection.poll():
            message = worker.connection.recv()
            if isinstance(message, At):
                worker.item, worker.since = message.index, time.monotonic()
            elif isinstance(message, Failed):
                raise RunAborted(message.message)
            elif isinstance(message, Done):
                worker.job = None
                yield message.result


def _cause(worker: Worker[R]) -> str:
    code = worker.process.exitcode
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit status {code}"


def _stop(worker: Worker[R]) -> None:
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()
    worker.connection.close()


def _work(connection: Connection, memory_bytes: int, driver: int) -> None:
    """A worker's life: receive a task, run it, say the result."""
    _settle(memory_bytes, driver)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return  # the driver is gone
        try:
            connection.send(Done(task.run(lambda index: connection.send(At(index)))))
        except (BrokenPipeError, ConnectionResetError):
            return
        except (OSError, RunAborted, MemoryError) as error:
            _give_up(connection, _explain(error))
        except BaseException as error:  # noqa: BLE001 - said to the driver, which ends the run with it
            _give_up(connection, f"internal fault: {type(error).__name__}: {error}")


def _give_up(connection: Connection, message: str) -> NoReturn:
    with contextlib.suppress(OSError):
        connection.send(Failed(message))
    sys.exit(1)


def _explain(error: BaseException) -> str:
    if isinstance(error, OSError):
        return (
            f"cannot write the dataset: {os.strerror(error.errno) if error.errno else type(error).__name__}"
        )
    return str(error) or "the worker's memory limit was reached between images"


def _settle(memory_bytes: int, driver: int) -> None:
    """Die with the driver, leave Ctrl-C to it, stay within the memory limit, write no core files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != driver:  # it died before prctl took effect
            os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + memory_bytes
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()
