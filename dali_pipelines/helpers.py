"""Processes beside a GPU's worker: images that the GPU does not decode go through all stages there.

In:  picklable work, at any time, from any thread.
Out: its Future. Where the process ends or hangs on it, that fails with a HelperEnded, and no other does.

In threads of the worker they would take the interpreter from the lanes that keep the GPU busy. A helper is
started when there is work that no other is free for, and ends with the worker, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from preprocess.executors.worker import settle

P = ParamSpec("P")
T = TypeVar("T")

_READY = "ready"
_HUNG_UP_S = 5.0
_Job = tuple[Future[Any], Callable[[], Any]]


class HelperEnded(RuntimeError):
    """The process that had the work in hand is no more. `name` says how: a signal, exit status, timeout."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a helper ended: {name}")
        self.name = name


class Helpers:
    """At most `count` processes; one that works longer than `timeout_s` at something is ended (0: never)."""

    def __init__(self, count: int, timeout_s: float = 0.0) -> None:
        self._count, self._timeout_s = count, timeout_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        """Threads that wait for work, less the work that waits for them."""
        self._threads: list[threading.Thread] = []

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have it done by a helper."""
        future: Future[T] = Future()
        with self._lock:
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._count:
                self._free += 1
                # Linux kills a helper when the thread that started it ends: each has a thread of its own.
                thread = threading.Thread(target=self._serve, name="helper", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put((future, _Call(work, args, kwargs)))
        return future

    def close(self) -> None:
        """End the helpers, after what they are at; what is waiting is cancelled."""
        with contextlib.suppress(queue.Empty):
            while job := self._jobs.get_nowait():
                job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        helper: _Helper | None = None
        while job := self._jobs.get():
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    helper = helper or _Helper()
                    future.set_result(helper.ask(call, self._timeout_s))
                except HelperEnded as error:
                    helper = None
                    future.set_exception(error)
                except BaseException as error:  # noqa: BLE001 - the work's own, handed to whoever waits for it
                    future.set_exception(error)
            with self._lock:
                self._free += 1
        if helper is not None:
            helper.end()


class _Call:
    """Work with its arguments."""

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._work, self._args, self._kwargs = work, args, kwargs

    def __call__(self) -> Any:
        return self._work(*self._args, **self._kwargs)


class _Helper:
    """One process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, call: Callable[[], Any], timeout_s: float) -> Any:
        """What the work gives or raises; a MemoryError is the process's end. Raises HelperEnded as well."""
        try:
            self._connection.send(call)
            self._connection.recv()  # it has understood: what the imports take is not the image's doing
            if not self._connection.poll(timeout_s or None):
                raise self._ended("timeout")
            good, result = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if good:
            return result
        if isinstance(result, MemoryError):
            raise self._ended("memory limit")
        raise result

    def _ended(self, name: str = "") -> HelperEnded:
        if not name:
            self._process.join(_HUNG_UP_S)
            status = self._process.exitcode
            killed = status is not None and status < 0
            name = signal.Signals(-status).name if killed and status else f"exit status {status}"
        self._process.kill()
        self._process.join()
        self._connection.close()
        return HelperEnded(name)

    def end(self) -> None:
        """Have it leave."""
        self._connection.close()
        self._process.join(_HUNG_UP_S)
        self._process.kill()


def _main(connection: Connection, driver: int) -> None:
    settle(driver)
    while True:
        try:
            call = connection.recv()
        except EOFError:
            return
        connection.send(_READY)
        try:
            answer = True, call()
        except Exception as error:  # noqa: BLE001 - for whoever waits for it
            answer = False, error
        connection.send(answer)
