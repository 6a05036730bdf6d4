"""nvJPEG2000 at any wavelet level: several images in flight, each with a state and a stream of its own.

In:  codestreams as bytes, each with its level.
Out: uint16 arrays of the stream's own precision on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Protocol

from dali_pipelines import nvjpeg2k
from dali_pipelines.engines import Encoded
from dali_pipelines.values import Array


class CudaStream(Protocol):
    """A CUDA stream."""

    ptr: int

    def synchronize(self) -> None:
        """Wait for what is queued on it; raises RuntimeError if that went wrong."""
        ...


class StreamMemory(Protocol):
    """Device memory as nvJPEG2000 needs it: addresses and streams."""

    def new_stream(self) -> CudaStream:
        """A stream that does not wait for the default one."""
        ...

    def current(self, stream: CudaStream) -> AbstractContextManager[object]:
        """Inside, memory is taken for work on that stream."""
        ...

    def empty(self, rows: int, columns: int) -> Array:
        """(rows, columns) uint16, C order, for the current stream."""
        ...

    def address(self, array: Array) -> int:
        """Where it begins."""
        ...


class _Slot:
    """One image in flight."""

    def __init__(self, handle: nvjpeg2k.Handle, memory: StreamMemory) -> None:
        self.session = nvjpeg2k.Session(handle)
        self.stream = memory.new_stream()


class LevelEngine:
    """`flights` slots, each driven by a host thread: parsing of one overlaps the kernels of others."""

    name = "nvjpeg2000"

    def __init__(self, memory: StreamMemory, flights: int, library: nvjpeg2k.Library | None = None) -> None:
        """Raises OSError without the library, nvjpeg2k.Nvjpeg2kError if it cannot use the device."""
        self._memory, self._flights = memory, flights
        self._handle = nvjpeg2k.Handle(library or nvjpeg2k.load())
        self._threads = ThreadPoolExecutor(flights, "nvjpeg2k")
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        self._fill()

    def decode(self, jobs: Sequence[Encoded]) -> list[Array | None]:
        """Pixels of each job at its level. See engines.Engine."""
        return list(self._threads.map(self._one, jobs))

    def reset(self) -> None:
        """New states and streams."""
        self._empty()
        self._fill()

    def close(self) -> None:
        """End the threads, destroy states and handle."""
        self._threads.shutdown()
        self._empty()
        self._handle.close()

    def _fill(self) -> None:
        for _ in range(self._flights):
            self._slots.put(_Slot(self._handle, self._memory))

    def _empty(self) -> None:
        while not self._slots.empty():
            self._slots.get().session.close()

    def _one(self, job: Encoded) -> Array | None:
        slot = self._slots.get()
        try:
            return self._decoded(slot, job)
        except (RuntimeError, MemoryError, ValueError):
            return None
        finally:
            self._slots.put(slot)

    def _decoded(self, slot: _Slot, job: Encoded) -> Array | None:
        parsed = slot.session.parse(job.codestream)
        if job.level >= parsed.resolutions or parsed.precision != job.precision:
            return None
        if slot.session.level_size(parsed, job.level) != (job.rows, job.columns):
            return None
        with self._memory.current(slot.stream):
            pixels = self._memory.empty(job.rows, job.columns)
            try:
                slot.session.decode(
                    parsed, job.level, self._memory.address(pixels), 2 * job.columns, slot.stream.ptr
                )
            finally:
                slot.stream.synchronize()  # before memory or state are used again, whatever happened
        return pixels
