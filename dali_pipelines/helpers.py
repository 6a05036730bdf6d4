"""Processes beside a GPU's worker: images that the GPU does not decode go through all stages there.

In:  picklable work, at any time, from any thread.
Out: its Future.

In threads of the worker they would take the interpreter from the lanes that keep the GPU busy. A helper is
started when there is work that no other is free for, and ends with the worker, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from preprocess.executors.worker import settle

P = ParamSpec("P")
T = TypeVar("T")


class Helpers:
    """At most `count` processes. If one dies, all its pool's futures fail with a RuntimeError."""

    def __init__(self, count: int) -> None:
        self._pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=settle, initargs=(os.getpid(),)
        )
        # Linux kills a helper when the thread that started it ends: one thread, for good, starts all of them.
        self._starter = ThreadPoolExecutor(1, "helpers")

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have it done by a helper."""
        return self._starter.submit(self._pool.submit, work, *args, **kwargs).result()

    def close(self) -> None:
        """End the helpers, after what they are at."""
        self._pool.shutdown(cancel_futures=True)
        self._starter.shutdown()
